//! The entity of `issue-exported`: an issue with its elements, as it goes to a labeling service.
//!
//! The fields are the documented ones, all optional. A field whose value has another shape than documented is kept in
//! the `rest` of the object that it is in, so look there when a field that should be there is `None`. An array is typed
//! if each of its items fits, and otherwise kept whole.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use crate::shape::{self, Shape, object};

object! {
    /// An issue with its elements.
    ///
    /// ```
    /// use aquarium_event::{ElementType, ExportedIssue};
    ///
    /// let issue: ExportedIssue = serde_json::from_str(
    ///     r#"{"id": "iss_7", "elements": [{"element_id": "el_1", "element_type": "crop", "note": "blurred"}]}"#,
    /// )?;
    /// for element in issue.elements.iter().flatten() {
    ///     assert_eq!(element.element_type, Some(ElementType::Crop));
    ///     assert_eq!(element.rest["note"], "blurred");
    /// }
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub struct ExportedIssue {
        /// Its identity.
        id: String,
        /// What was collected in it.
        elements: Vec<Element>,
    }
}

object! {
    /// A frame, or one label of a frame.
    pub struct Element {
        /// The dataset that it is from.
        dataset: String,
        /// The inference set that it is from.
        inference_set: String,
        /// The name of the issue.
        issue_name: String,
        /// Its identity.
        element_id: String,
        /// Which of the two it is.
        element_type: ElementType,
        /// The frame that it is, or is in.
        frame_id: String,
        /// All that is known about the frame.
        frame_data: FrameData,
    }
}

/// What an element is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// `frame`: a whole frame.
    Frame,
    /// `crop`: one label in a frame.
    Crop,
    /// Another one.
    Other(String),
}

impl ElementType {
    /// The type as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            ElementType::Frame => "frame",
            ElementType::Crop => "crop",
            ElementType::Other(name) => name,
        }
    }
}

impl From<String> for ElementType {
    fn from(name: String) -> Self {
        match name.as_str() {
            "frame" => ElementType::Frame,
            "crop" => ElementType::Crop,
            _ => ElementType::Other(name),
        }
    }
}

impl Shape for ElementType {
    fn fits(value: &Value) -> bool {
        value.is_string()
    }

    fn take(value: Value) -> Option<Self> {
        String::take(value).map(ElementType::from)
    }
}

impl<'de> Deserialize<'de> for ElementType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(ElementType::from)
    }
}

impl Serialize for ElementType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

object! {
    /// What was recorded at one moment, and what was labeled in it. The user's own metadata is in `rest`.
    pub struct FrameData {
        /// The frames of reference that positions are given in.
        coordinate_frames: Vec<CoordinateFrame>,
        /// Measures of the frame, by their type.
        custom_metrics: Metrics,
        /// When it was recorded.
        date_captured: String,
        /// What recorded it: the vehicle, say.
        device_id: String,
        /// Where it was recorded: numbers, by their field.
        geo_data: Map<String, Value>,
        /// What was labeled, or inferred.
        label_data: Vec<Label>,
        /// What the sensors recorded.
        sensor_data: Vec<SensorData>,
        /// The task that it was labeled in.
        task_id: String,
    }
}

object! {
    /// A frame of reference that positions are given in.
    pub struct CoordinateFrame {
        /// Its identity within the frame.
        coordinate_frame_id: String,
        /// The parameters of it, of a camera say.
        coordinate_frame_metadata: Map<String, Value>,
        /// Its kind.
        coordinate_frame_type: String,
    }
}

/// Measures of a frame, by their type.
pub type Metrics = std::collections::BTreeMap<String, Metric>;

/// A measure of a frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Metric {
    /// A number.
    Number(Number),
    /// Rows of whole numbers: a confusion matrix, say.
    Matrix(Vec<Vec<i64>>),
    /// Anything else.
    Other(Value),
}

impl From<Value> for Metric {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => Metric::Number(number),
            rows if <Vec<Vec<i64>>>::fits(&rows) => Metric::Matrix(Shape::take(rows).unwrap_or_default()),
            other => Metric::Other(other),
        }
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Metric::from)
    }
}

impl Shape for Metrics {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }

    fn take(value: Value) -> Option<Self> {
        let metrics = shape::Shape::take(value).map(Map::into_iter)?;
        Some(metrics.map(|(name, value)| (name, Metric::from(value))).collect())
    }
}

object! {
    /// Something that was labeled in a frame, or inferred.
    pub struct Label {
        /// What is known about it.
        attributes: Attributes,
        /// Its class.
        label: String,
        /// The coordinate frame that it is in, as the key is documented (sic).
        label_coorindate_frame: String,
        /// The coordinate frame that it is in, with the key spelled right.
        label_coordinate_frame: String,
        /// The kind of its geometry.
        label_type: String,
        /// Labels of the same thing in other coordinate frames, by `uuid`.
        linked_labels: Vec<String>,
        /// Its identity.
        uuid: String,
    }
}

impl Label {
    /// The coordinate frame that it is in, however the key is spelled. Both spellings are kept apart, so that a label
    /// is written as it was read.
    ///
    /// ```
    /// let label: aquarium_event::Label = serde_json::from_str(r#"{"label_coorindate_frame": "cam_front"}"#)?;
    /// assert_eq!(label.coordinate_frame(), Some("cam_front"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn coordinate_frame(&self) -> Option<&str> {
        self.label_coordinate_frame.as_deref().or(self.label_coorindate_frame.as_deref())
    }
}

object! {
    /// What is known about a label. The attributes without a field of their own are in `rest`.
    pub struct Attributes {
        /// How sure the model was, usually from 0 to 1.
        confidence: Number,
    }
}

object! {
    /// What one sensor recorded.
    pub struct SensorData {
        /// The coordinate frame that it is in.
        coordinate_frame: String,
        /// Where the data is.
        data_urls: DataUrls,
        /// When it was recorded.
        date_captured: String,
        /// The sensor.
        sensor_id: String,
        /// The parameters of the sensor.
        sensor_metadata: Map<String, Value>,
        /// The kind of the sensor.
        sensor_type: String,
    }
}

object! {
    /// Where the data of a sensor is. URLs of other data are in `rest`.
    pub struct DataUrls {
        /// The image.
        image_url: String,
    }
}
