//! What is refused, and what is said about it.

use aquarium_event::{Refusal, Types, check};

struct Case {
    body: &'static str,
    code: &'static str,
    field: &'static str,
    offset: usize,
    message: &'static str,
}

const fn case(
    body: &'static str,
    code: &'static str,
    field: &'static str,
    offset: usize,
    message: &'static str,
) -> Case {
    Case { body, code, field, offset, message }
}

fn refused(body: &[u8]) -> Refusal {
    let types = Types::with_custom(["model-trained"]).expect("it is a valid name");
    match check(body, &types) {
        Ok(envelope) => panic!("{:?} is accepted: {envelope:?}", String::from_utf8_lossy(body)),
        Err(refusal) => refusal,
    }
}

fn assert_table(cases: &[Case]) {
    for Case { body, code, field, offset, message } in cases {
        let refusal = refused(body.as_bytes());
        assert_eq!(refusal.reason.to_string(), *message, "{body}");
        assert_eq!(
            (refusal.reason.code(), &*refusal.field, refusal.offset),
            (*code, *field, *offset),
            "{body}"
        );
    }
}

const NOT_JSON: &[Case] = &[
    case("", "empty-body", "", 0, "the body is empty, an event is a JSON object"),
    case(" \r\n\t", "empty-body", "", 4, "the body is empty, an event is a JSON object"),
    case("\u{feff}{}", "byte-order-mark", "", 0, "starts with a byte order mark, which JSON must not have"),
    case(
        "event=test",
        "invalid-json",
        "",
        0,
        "invalid JSON: expected an object, which starts with '{', found 'e'",
    ),
    case("{} {}", "trailing-data", "", 3, "expected nothing after the object, found '{'"),
    case("{}\0", "trailing-data", "", 2, "expected nothing after the object, found '\\0'"),
    case(
        "{event: 1}",
        "invalid-json",
        "",
        1,
        "invalid JSON: expected a key in double quotes, or '}', found 'e'",
    ),
    case(
        r#"{"event": 1,}"#,
        "invalid-json",
        "",
        12,
        "invalid JSON: expected a key in double quotes, found '}'",
    ),
    case(r#"{"event" 1}"#, "invalid-json", "", 9, "invalid JSON: expected ':', found '1'"),
    case(
        r#"{"event": 1 "project"}"#,
        "invalid-json",
        "",
        12,
        "invalid JSON: expected ',' or '}', found '\"'",
    ),
    case(
        r#"{"issues": [1 2]}"#,
        "invalid-json",
        "/issues",
        14,
        "invalid JSON: expected ',' or ']', found '2'",
    ),
    case(r#"{"issues": [1,]}"#, "invalid-json", "/issues", 14, "invalid JSON: expected a value, found ']'"),
    case(r#"{"issue": ä}"#, "invalid-json", "/issue", 10, "invalid JSON: expected a value, found 'ä'"),
    case(
        r#"{"issue": {"a": NaN}}"#,
        "invalid-json",
        "/issue",
        16,
        "invalid JSON: expected a value (JSON has no NaN and no Infinity), found 'N'",
    ),
    case(
        r#"{"issue": -Infinity}"#,
        "invalid-json",
        "/issue",
        11,
        "invalid JSON: expected a digit (JSON has no NaN and no Infinity), found 'I'",
    ),
    case(
        r#"{"event": 'test'}"#,
        "invalid-json",
        "/event",
        10,
        "invalid JSON: expected a value (JSON has strings in double quotes only), found '\\''",
    ),
    case(
        r#"{"a/b~c": 01}"#,
        "invalid-json",
        "/a~1b~0c",
        11,
        "invalid JSON: expected no digit after a leading zero, found '1'",
    ),
    case(
        r#"{"issue": 1.}"#,
        "invalid-json",
        "/issue",
        12,
        "invalid JSON: expected a digit after the decimal point, found '}'",
    ),
    case(
        r#"{"issue": 1e+}"#,
        "invalid-json",
        "/issue",
        13,
        "invalid JSON: expected a digit of the exponent, found '}'",
    ),
    case(r#"{"issue": trve}"#, "invalid-json", "/issue", 12, "invalid JSON: expected true, found 'v'"),
    case(
        r#"{"issue": "\u123g"}"#,
        "invalid-json",
        "/issue",
        16,
        "invalid JSON: expected four hexadecimal digits after \\u, found 'g'",
    ),
    case(
        r#"{"issue": "C:\xyz"}"#,
        "invalid-escape",
        "/issue",
        14,
        "'x' cannot follow a backslash, only one of \" \\ / b f n r t u can",
    ),
    case(
        "{\"issue\": \"two\nlines\"}",
        "control-character",
        "/issue",
        14,
        "a string holds a control character as it is, write it as \\u000a",
    ),
];

#[test]
fn what_is_not_json_is_refused_where_it_stops_being_json() {
    assert_table(NOT_JSON);
}

#[test]
fn what_is_cut_off_is_said_to_be() {
    for (body, inside) in [
        ("{", "an object"),
        (r#"{"event""#, "an object"),
        (r#"{"event":"#, "an object"),
        (r#"{"event":"te"#, "a string"),
        (r#"{"event":"test","#, "an object"),
        (r#"{"issues":[{}"#, "an array"),
        (r#"{"issues":["#, "an array"),
        (r#"{"issue":{"a":1.5e"#, "a number"),
        (r#"{"issue":{"a":fal"#, "false"),
        (r#"{"issue":"\u00"#, "a string"),
        (r#"{"issue":"\"#, "a string"),
    ] {
        let refusal = refused(body.as_bytes());
        assert_eq!((refusal.reason.code(), refusal.offset), ("cut-off", body.len()), "{body}");
        assert_eq!(refusal.reason.to_string(), format!("the JSON ends in the middle of {inside}"), "{body}");
    }
    let refusal = refused(b"{\"event\": \"\xc3");
    assert_eq!(refusal.to_string(), "the JSON ends in the middle of a character (byte 11)");
    for (name, json) in aquarium_event::samples() {
        let json = json.trim_end();
        for end in 1..json.len() {
            assert_eq!(
                refused(&json.as_bytes()[..end]).reason.code(),
                "cut-off",
                "{name}, cut after {end} bytes"
            );
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused_at_its_first_byte() {
    let refusal = refused(b"{\"event\": \"t\xe9st\", \"project\": \"p\"}");
    assert_eq!(refusal.reason.code(), "invalid-utf8");
    assert_eq!(refusal.to_string(), "not UTF-8, which JSON has to be (byte 12)");
}

macro_rules! known {
    ($unknown:literal) => {
        concat!(
            $unknown,
            "Known are: dataset-complete, dataset-failed, issues-created, issue-updated, issue-exported, test, \
             model-trained"
        )
    };
}

const NO_EVENT: &[Case] = &[
    case(" [1]", "wrong-type", "", 1, "expected an object, found an array"),
    case("null", "wrong-type", "", 0, "expected an object, found null"),
    case(r#" {"project": "p"}"#, "missing-field", "/event", 1, "missing, a string is required"),
    case(r#"{"event": "test"}"#, "missing-field", "/project", 0, "missing, a string is required"),
    case(r#"{"event": {}}"#, "wrong-type", "/event", 10, "expected a string, found an object"),
    case(
        r#"{"event": "test", "project": 7}"#,
        "wrong-type",
        "/project",
        29,
        "expected a string, found a number",
    ),
    case(
        r#"{"event": "test", "project": ""}"#,
        "invalid-project",
        "/project",
        29,
        "the name of the project is empty",
    ),
    case(
        r#"{"event": "test", "project": "a\u002fb"}"#,
        "invalid-project",
        "/project",
        29,
        "the name of a project cannot hold '/'",
    ),
    case(
        r#"{"event": "test", "project": "a\u0000"}"#,
        "invalid-project",
        "/project",
        29,
        "the name of a project cannot hold '\\0'",
    ),
    case(
        r#"{"event": "test", "project": " p"}"#,
        "invalid-project",
        "/project",
        29,
        "the name of a project cannot start or end with white space",
    ),
    case(
        r#"{"event": "test", "project": "p\ud83d"}"#,
        "lone-surrogate",
        "/project",
        31,
        "holds half of a surrogate pair, which is no character",
    ),
    case(
        r#"{"project": "p", "event": "\u0064ata-failed", "dataset": {}}"#,
        "unknown-event-type",
        "/event",
        26,
        known!("unknown event type \"data-failed\"; did you mean \"dataset-failed\"? "),
    ),
    case(
        r#"{"event": "lunch", "project": "p"}"#,
        "unknown-event-type",
        "/event",
        10,
        known!("unknown event type \"lunch\"; "),
    ),
];

#[test]
fn what_is_json_but_no_event_is_refused_with_what_is_accepted() {
    assert_table(NO_EVENT);
    let long = format!(r#"{{"event": "test", "project": "{}"}}"#, "x".repeat(129));
    let message = "/project: the name of a project has at most 128 bytes, this one has 129 (byte 29)";
    assert_eq!(refused(long.as_bytes()).to_string(), message);
}

#[test]
fn a_key_that_an_event_does_not_have_is_refused() {
    const ACCEPTED: &str = "Accepted are: event, project, dataset, inference_set, issue, issues";
    for (key, nearest) in [
        ("evnt", Some("event")),
        ("Project", Some("project")),
        ("inference-set", Some("inference_set")),
        ("inferenceSet", Some("inference_set")),
        ("isues", Some("issues")),
        ("payload", None),
        ("", None),
    ] {
        let refusal = refused(format!(r#"{{"event": "test", "project": "p", "{key}": 1}}"#).as_bytes());
        let hint = nearest.map(|nearest| format!("did you mean {nearest:?}? ")).unwrap_or_default();
        assert_eq!(refusal.to_string(), format!("/{key}: unknown key; {hint}{ACCEPTED} (byte 34)"));
    }
    assert_table(&[
        case(
            r#"{"event": "test", "\u0065vent": "test"}"#,
            "duplicate-key",
            "/event",
            18,
            "given twice, first at byte 1",
        ),
        case(
            r#"{"issue": {}, "issue": {}, "event": "issue-updated", "project": "p"}"#,
            "duplicate-key",
            "/issue",
            14,
            "given twice, first at byte 1",
        ),
        case(
            r#"{"issue": {}, "issues": [], "event": "issues-created", "project": "p"}"#,
            "second-entity",
            "/issues",
            14,
            "a second entity: an event has at most one, and this one has issue",
        ),
    ]);
}

#[test]
fn an_entity_is_one_that_the_event_takes() {
    assert_table(&[
        case(
            r#"{"issue": {}, "event": "dataset-complete", "project": "p"}"#,
            "entity-not-for-event",
            "/issue",
            1,
            "not for the event dataset-complete, which takes one of: dataset, inference_set",
        ),
        case(
            r#"{"event": "issue-update", "project": "p", "issues": []}"#,
            "entity-not-for-event",
            "/issues",
            42,
            "not for the event issue-updated, which takes only issue",
        ),
        case(
            r#"{"event": "test", "project": "p", "dataset": {}}"#,
            "entity-not-for-event",
            "/dataset",
            34,
            "not for the event test, which takes no entity",
        ),
        case(
            r#"{"event": "dataset-failed", "project": "p", "dataset": "ds_1"}"#,
            "wrong-type",
            "/dataset",
            55,
            "expected an object, found a string",
        ),
        case(
            r#"{"event": "model-trained", "project": "p", "issues": {}}"#,
            "wrong-type",
            "/issues",
            53,
            "expected an array of objects, found an object",
        ),
        case(
            r#"{"event": "issues-created", "project": "p", "issues": [{"a": [1]}, {}, [{}], 1]}"#,
            "wrong-type",
            "/issues/2",
            71,
            "expected an object, found an array",
        ),
    ]);
}

#[test]
fn a_message_is_one_line_and_repeats_little() {
    let long = "🚗\\n\\u001b".repeat(1000);
    for body in [
        format!(r#"{{"event": "{long}", "project": "p"}}"#),
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"{long}": tru"#),
        format!(r#"{{"event": "test", "project": "{long}"}}"#),
    ] {
        let message = refused(body.as_bytes()).to_string();
        assert!(!message.contains(char::is_control), "{message}");
        assert!(message.matches('🚗').count() <= 20, "{message}");
    }
}
