//! Typed events: everything is read, nothing inside of an entity fails, and nothing is lost.

use aquarium_event::{
    DatasetEntity, ElementType, Event, ExportedIssue, Metric, NotAnEvent, Type, Types, check, minimal,
    sample, samples,
};
use serde_json::{Value, json};

fn event(value: &Value) -> Event {
    Event::from_slice(value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error} in {value}"))
}

/// Reads and writes the value, and asserts that nothing changed.
fn assert_kept(value: &Value) {
    let read = event(value);
    let written = serde_json::to_string(&read).expect("an event can be written");
    assert_eq!(
        &serde_json::from_str::<Value>(&written).expect("what is written is JSON"),
        value,
        "{written}"
    );
    assert_eq!(serde_json::from_str::<Event>(&written).expect("what is written is an event"), read);
}

/// Every place in the value, as a JSON Pointer.
fn places(value: &Value, at: &str, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| self::places(value, &format!("{at}/{key}"), places));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| self::places(value, &format!("{at}/{i}"), places));
        }
        _ => {}
    }
}

#[test]
fn every_sample_is_accepted_and_kept() {
    let types = Types::default();
    for (name, json) in samples() {
        let envelope = check(json.as_bytes(), &types).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(envelope.project, "urban-driving");
        assert!(name.starts_with(envelope.kind.as_str()), "{name}");

        let event = Event::from_slice(json.as_bytes()).unwrap();
        assert_eq!((event.kind(), event.project()), (envelope.kind, "urban-driving"));
        assert!(event.rest().is_empty(), "{name}: {:?}", event.rest());
        assert_kept(&serde_json::from_str(json).unwrap());
    }
    for kind in Type::BUILT_IN {
        assert!(sample(&kind).is_some(), "{kind}");
    }
}

#[test]
fn a_minimal_event_is_accepted_for_every_type() {
    let types = Types::with_custom(["model-trained"]).unwrap();
    for name in types.names() {
        let body = minimal(&types.parse(name).unwrap(), "a \"b\" ü");
        let envelope = check(body.as_bytes(), &types).unwrap();
        assert_eq!((envelope.kind.as_str(), &*envelope.project, envelope.entity), (name, "a \"b\" ü", None));
        assert_kept(&serde_json::from_str(&body).unwrap());
    }
}

#[test]
fn an_unexpected_value_anywhere_fails_nothing_and_is_kept() {
    let odd = [
        json!(null),
        json!(-0.1),
        json!(18_446_744_073_709_551_615_u64),
        json!("x"),
        json!([]),
        json!([[1, 2], [0.5]]),
        json!([{}, 1]),
        json!({ "": { "id": 1 } }),
    ];
    for (name, json) in samples() {
        let sample: Value = serde_json::from_str(json).unwrap();
        let mut all = Vec::new();
        places(&sample, "", &mut all);
        for place in all.iter().filter(|place| !matches!(place.as_str(), "" | "/event" | "/project")) {
            for odd in &odd {
                let mut changed = sample.clone();
                *changed.pointer_mut(place).unwrap_or_else(|| panic!("{name} has {place}")) = odd.clone();
                assert_kept(&changed);
            }
        }
    }
}

#[test]
fn all_that_is_documented_of_an_exported_issue_is_typed() {
    let Event::IssueExported(exported) =
        event(&serde_json::from_str(sample(&Type::IssueExported).unwrap()).unwrap())
    else {
        panic!("it is of another type")
    };
    let issue = exported.issue.unwrap();
    assert!(issue.rest.is_empty());
    let elements = issue.elements.unwrap();
    let kinds: Vec<_> = elements.iter().filter_map(|element| element.element_type.as_ref()).collect();
    assert_eq!(kinds, [&ElementType::Frame, &ElementType::Crop]);
    assert!(elements.iter().all(|element| element.rest.is_empty()));

    let frame = elements[0].frame_data.as_ref().unwrap();
    assert_eq!(frame.rest.keys().collect::<Vec<_>>(), ["time_of_day", "weather"]); // the user's own
    let metrics = frame.custom_metrics.as_ref().unwrap();
    assert_eq!(
        metrics["confusion_matrix"],
        Metric::Matrix(vec![vec![14, 2, 0], vec![1, 6, 3], vec![0, 0, 9]])
    );
    assert!(matches!(&metrics["mean_iou"], Metric::Number(n) if n.as_f64() == Some(0.7182)));
    assert_eq!(frame.geo_data.as_ref().unwrap()["heading"], 271.5);
    assert_eq!(
        frame.coordinate_frames.as_ref().unwrap()[1].coordinate_frame_id.as_deref(),
        Some("cam_front")
    );

    let label = &frame.label_data.as_ref().unwrap()[0];
    assert!(label.rest.is_empty());
    assert_eq!(label.coordinate_frame(), Some("cam_front"));
    assert_eq!(label.attributes.as_ref().unwrap().confidence.as_ref().unwrap().as_f64(), Some(0.91));
    let sensor = &frame.sensor_data.as_ref().unwrap()[1];
    assert!(sensor.rest.is_empty());
    assert!(sensor.data_urls.as_ref().unwrap().rest.contains_key("pcl_url"));
}

#[test]
fn a_label_keeps_the_spelling_of_its_coordinate_frame() {
    for labels in [
        json!([{ "label_coorindate_frame": "a" }]),
        json!([{ "label_coordinate_frame": "a" }]),
        json!([{ "label_coorindate_frame": "b", "label_coordinate_frame": "a" }]),
    ] {
        let value = json!({ "elements": [{ "frame_data": { "label_data": labels } }] });
        let issue: ExportedIssue = serde_json::from_value(value.clone()).unwrap();
        let frame = issue.elements.as_ref().unwrap()[0].frame_data.as_ref().unwrap();
        assert_eq!(frame.label_data.as_ref().unwrap()[0].coordinate_frame(), Some("a"));
        assert_eq!(serde_json::to_value(&issue).unwrap(), value);
    }
}

#[test]
fn an_event_of_a_newer_sender_is_read() {
    let value = json!({ "event": "dataset-complete", "project": "p", "inference_set": { "name": "n" }, "dataset": 1, "v": 2 });
    let Event::DatasetComplete(complete) = event(&value) else { panic!("it is of another type") };
    assert!(
        matches!(&complete.entity, Some(DatasetEntity::InferenceSet(set)) if set.name.as_deref() == Some("n"))
    );
    assert_eq!(complete.rest.keys().collect::<Vec<_>>(), ["dataset", "v"]);
    assert_kept(&value);

    let value = json!({ "event": "model-trained", "project": "p", "model": { "id": "m" } });
    let Event::Custom(custom) = event(&value) else { panic!("it is of another type") };
    assert_eq!((custom.name.as_str(), &custom.rest["model"]["id"]), ("model-trained", &json!("m")));
    assert_kept(&value);

    let value = json!({ "event": "issue-update", "project": "p", "issue": { "id": "i" } });
    assert_eq!(event(&value).kind(), Type::IssueUpdated);
    assert_kept(&value);
}

#[test]
fn a_field_that_is_set_replaces_the_odd_value_that_was_read() {
    let mut event =
        event(&json!({ "event": "issue-updated", "project": "p", "issue": { "id": 7, "name": null } }));
    if let Event::IssueUpdated(updated) = &mut event {
        updated.issue.as_mut().unwrap().id = Some("7".to_owned());
    }
    let written = json!({ "event": "issue-updated", "project": "p", "issue": { "id": "7", "name": null } });
    assert_eq!(serde_json::from_str::<Value>(&serde_json::to_string(&event).unwrap()).unwrap(), written);
    assert_eq!(serde_json::to_string(&event).unwrap().matches("\"id\"").count(), 1);
}

#[test]
fn what_is_no_event_is_said_to_be_none() {
    assert!(matches!(Event::from_slice(b"{"), Err(NotAnEvent::Json(_))));
    assert!(matches!(Event::from_slice(b"[]"), Err(NotAnEvent::NotAnObject)));
    assert!(matches!(Event::from_slice(b"{}"), Err(NotAnEvent::Field { field: "event" })));
    let body = br#"{"event": "test", "project": null}"#;
    assert!(matches!(Event::from_slice(body), Err(NotAnEvent::Field { field: "project" })));
}
