//! What events are about: datasets, inference sets, and issues.
//!
//! Their shapes are not documented in detail. What is certain is typed and optional; every other field is kept in
//! `rest`, as is a typed one whose value is no string. The entity of `issue-exported` is documented: see
//! [`ExportedIssue`](crate::ExportedIssue).

use std::slice;

use serde::Serialize;

use crate::shape::object;

object! {
    /// A labeled dataset.
    ///
    /// ```
    /// use aquarium_event::Dataset;
    ///
    /// let dataset: Dataset = serde_json::from_str(r#"{"id": "ds_1", "name": 7, "frames": 12}"#)?;
    /// assert_eq!(dataset.id.as_deref(), Some("ds_1"));
    /// assert_eq!(dataset.name, None); // no string: kept as it is
    /// assert_eq!(dataset.rest["name"], 7);
    /// assert_eq!(dataset.rest["frames"], 12);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub struct Dataset {
        /// Its identity.
        id: String,
        /// What people call it.
        name: String,
        /// The project that it belongs to.
        project: String,
    }
}

object! {
    /// What a model inferred for a labeled dataset.
    pub struct InferenceSet {
        /// Its identity.
        id: String,
        /// What people call it.
        name: String,
        /// The project that it belongs to.
        project: String,
    }
}

object! {
    /// An issue: a collection of elements that somebody has to look at.
    pub struct Issue {
        /// Its identity.
        id: String,
        /// What people call it.
        name: String,
        /// The project that it belongs to.
        project: String,
    }
}

/// What was processed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DatasetEntity {
    /// A labeled dataset, under the key `dataset`.
    Dataset(Dataset),
    /// An inference set, under the key `inference_set`.
    InferenceSet(InferenceSet),
}

impl DatasetEntity {
    /// The identity of whichever it is.
    pub fn id(&self) -> Option<&str> {
        match self {
            DatasetEntity::Dataset(dataset) => dataset.id.as_deref(),
            DatasetEntity::InferenceSet(set) => set.id.as_deref(),
        }
    }

    /// The name of whichever it is.
    pub fn name(&self) -> Option<&str> {
        match self {
            DatasetEntity::Dataset(dataset) => dataset.name.as_deref(),
            DatasetEntity::InferenceSet(set) => set.name.as_deref(),
        }
    }
}

/// The issues that were created.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum IssuesEntity {
    /// Several, under the key `issues`.
    Many(Vec<Issue>),
    /// One, under the key `issue`.
    One(Issue),
}

impl IssuesEntity {
    /// The issues, however they were written.
    pub fn as_slice(&self) -> &[Issue] {
        match self {
            IssuesEntity::Many(issues) => issues,
            IssuesEntity::One(issue) => slice::from_ref(issue),
        }
    }
}
