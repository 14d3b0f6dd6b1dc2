//! What an endpoint gets: the bytes that the app sent, with the headers that are promised; and which endpoints get it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use serde_json::json;

use support::{EVENTS, SOON, accept, event, start, text};

#[tokio::test]
async fn an_endpoint_gets_the_exact_bytes_and_every_header() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook(
        "acme",
        "urban",
        "ops",
        &receiver.url("/hooks?team=a%20b"),
        &["dataset-complete"],
        r#"headers = { X-Team = "perception" }"#,
    );
    let (_sidecar, client) = start(&config).await;

    // White space, escapes, characters of all lengths, numbers that a parser would round, keys in no order and twice.
    let body = "\t{ \"dataset\" : {\"z\":1.10,\"a\":12345678901234567890123,\r\n \"name\":\"\\u00e9 é 名前 🐟\\/\", \
                \"a\": null} ,\n\"project\":\"urb\\u0061n\",\"event\":   \"dataset-complete\"}\n ";
    let answer = accept(&client, EVENTS, body).await;
    assert_eq!(answer["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(answer["deliveries"][0]["webhook"], "acme/urban/ops");
    assert!(answer.get("skipped").is_none(), "{answer}");
    let (id, delivery) = (text(&answer, "/id"), text(&answer, "/deliveries/0/id"));
    assert!(id.starts_with("evt_") && delivery.starts_with("dlv_"), "{answer}");

    let received = &receiver.wait_for(1, SOON).await[0];
    assert_eq!(received.method, "POST");
    assert_eq!(received.path, "/hooks?team=a%20b");
    assert_eq!(received.body, body.as_bytes());

    let length = body.len().to_string();
    let timestamp = received.header("webhook-timestamp").unwrap();
    let mut expected = [
        ("host", receiver.address().to_string()),
        ("content-length", length),
        ("content-type", "application/json".to_owned()),
        ("x-aquarium-secret", config.secret("acme").to_owned()),
        ("user-agent", format!("aquarium-sidecar/{}", env!("CARGO_PKG_VERSION"))),
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.to_owned()),
        ("aquarium-delivery", delivery),
        ("aquarium-attempt", "1".to_owned()),
        ("aquarium-hops", "1".to_owned()),
        ("x-team", "perception".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let named = received.headers.iter().map(|(name, _)| name.to_lowercase());
    let mut actual: Vec<_> =
        named.map(|name| (name.clone(), received.header(&name).unwrap_or_default().to_owned())).collect();
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);
    let age = unix_time() - timestamp.parse::<i64>().unwrap();
    assert!((0..=30).contains(&age), "the timestamp is {age} s old");
}

#[tokio::test]
async fn an_event_reaches_every_webhook_that_wants_it_and_no_other() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    let mut webhook = |organization: &str, project: &str, name: &str, events: &[&str]| {
        let url = receiver.url(&format!("/{organization}/{project}/{name}"));
        config.webhook(organization, project, name, &url, events, "");
    };
    webhook("acme", "urban", "all", &["*"]);
    webhook("acme", "urban", "ops", &["dataset-complete", "dataset-failed"]);
    webhook("acme", "urban", "issues", &["issues-created"]);
    webhook("acme", "rural", "all", &["*"]);
    webhook("zenith", "urban", "all", &["*"]);
    let (_sidecar, client) = start(&config).await;

    let both = accept(&client, EVENTS, event("ds_1")).await;
    let webhooks = |answer: &serde_json::Value| {
        let deliveries = answer["deliveries"].as_array().unwrap().iter();
        let mut names: Vec<_> = deliveries.map(|d| d["webhook"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(webhooks(&both), ["acme/urban/all", "acme/urban/ops"]);
    let nobody = event("ds_2").replace("urban", "suburban");
    let nobody = accept(&client, EVENTS, nobody).await;
    assert_eq!(nobody["deliveries"], json!([]));
    // What is not meant to come would come before this.
    let issues = r#"{"event":"issues-created","project":"urban","issues":[]}"#;
    let issues = accept(&client, &format!("{EVENTS}?wait=10s"), issues).await;
    assert_eq!(webhooks(&issues), ["acme/urban/all", "acme/urban/issues"]);

    let received = receiver.wait_for(4, SOON).await;
    let mut paths: Vec<_> = received.iter().map(|r| r.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/acme/urban/all", "/acme/urban/all", "/acme/urban/issues", "/acme/urban/ops"]);
    assert_eq!(receiver.times(&text(&both, "/id")), 2);
    assert_eq!(receiver.times(&text(&nobody, "/id")), 0);
}

#[tokio::test]
async fn issue_update_and_issue_updated_are_one_type() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "short", &receiver.url("/short"), &["issue-update"], "");
    config.webhook("acme", "urban", "long", &receiver.url("/long"), &["issue-updated"], "");
    let (_sidecar, client) = start(&config).await;

    for name in ["issue-update", "issue-updated"] {
        let body = format!(r#"{{"event":"{name}","project":"urban","issue":{{"id":"iss_1"}}}}"#);
        let answer = accept(&client, EVENTS, body.as_str()).await;
        assert_eq!(answer["deliveries"].as_array().unwrap().len(), 2, "{answer}");
    }
    let received = receiver.wait_for(4, SOON).await;
    let short = received.iter().filter(|r| r.json()["event"] == "issue-update").count();
    assert_eq!(short, 2, "the name must arrive as it was sent");
}

#[tokio::test]
async fn an_inactive_webhook_is_skipped() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "off", &receiver.url("/off"), &["*"], "active = false");
    config.webhook("acme", "urban", "on", &receiver.url("/on"), &["*"], "");
    let (_sidecar, client) = start(&config).await;

    let answer = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    assert_eq!(answer["deliveries"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["deliveries"][0]["webhook"], "acme/urban/on");
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "delivered");
    assert_eq!(answer["deliveries"][0]["outcome"]["status"], 204);
    assert_eq!(answer["skipped"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["skipped"][0]["webhook"], "acme/urban/off");
    assert!(text(&answer, "/skipped/0/id").starts_with("dlv_"));
    let paths: Vec<_> = receiver.received().iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths, ["/on"]);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let receiver = Receiver::builder()
        .script(|_| Behaviour::status(307).with_header("Location", "/elsewhere"))
        .start()
        .await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "retry = [\"50ms\"]\njitter = 0.0");
    config.webhook("acme", "urban", "ops", &receiver.url("/hooks"), &["*"], "");
    let (sidecar, client) = start(&config).await;

    let answer = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "retrying");
    assert_eq!(answer["deliveries"][0]["outcome"]["status"], 307);
    sidecar.wait_for_log("exhausted", SOON).await;
    let paths: Vec<_> = receiver.received().iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths, ["/hooks", "/hooks"]);
}

#[expect(clippy::disallowed_methods, reason = "the time of the real binary is that of the system")]
fn unix_time() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
