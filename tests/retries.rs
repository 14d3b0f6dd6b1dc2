//! What happens when an endpoint fails: the same delivery comes again, until it is there or its schedule is used up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use serde_json::Value;

use support::{EVENTS, SOON, accept, event, free_port, start, text};

/// A configuration with one webhook.
fn config(url: &str, delivery: &str) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.section("delivery", &format!("jitter = 0.0\nbreaker_failures = 1000\n{delivery}"));
    config.webhook("acme", "urban", "ops", url, &["*"], "");
    config
}

/// Accepts an event and returns the answer, which has the outcome of the first attempt.
async fn first_attempt(client: &aquarium_testkit::client::Client, id: &str) -> Value {
    accept(client, &format!("{EVENTS}?wait=10s"), event(id)).await
}

fn attempt(received: &Received) -> u32 {
    received.header("aquarium-attempt").unwrap().parse().unwrap()
}

#[tokio::test]
async fn after_a_500_it_comes_again() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let config = config(&receiver.url("/"), r#"retry = ["100ms"]"#);
    let (_sidecar, client) = start(&config).await;

    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "retrying", "{answer}");
    assert_eq!(answer["deliveries"][0]["outcome"]["status"], 500, "{answer}");

    let received = receiver.wait_for(2, SOON).await;
    assert_eq!([attempt(&received[0]), attempt(&received[1])], [1, 2]);
    for request in &received {
        assert_eq!(request.header("webhook-id"), Some(text(&answer, "/id").as_str()));
        assert_eq!(request.header("aquarium-delivery"), Some(text(&answer, "/deliveries/0/id").as_str()));
        assert_eq!(request.body, event("ds_1").as_bytes());
    }
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(90), "the second came after {waited:?}");
}

#[tokio::test]
async fn after_a_refused_connection_it_comes_again() {
    let port = free_port();
    let retry = format!("retry = [{}]", r#""100ms", "#.repeat(60));
    let config = config(&format!("http://127.0.0.1:{port}/"), &retry);
    let (_sidecar, client) = start(&config).await;

    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "retrying", "{answer}");
    let error = text(&answer, "/deliveries/0/outcome/error");
    assert!(error.starts_with("connect: "), "{error}");

    let receiver = Receiver::builder().port(port).start().await;
    let received = receiver.wait_for(1, SOON).await;
    assert!(attempt(&received[0]) >= 2);
    assert!(receiver.has(&text(&answer, "/id")));
}

#[tokio::test]
async fn after_a_timeout_it_comes_again() {
    let script = Behaviour::in_turn([Behaviour::Hang, Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let delivery = "timeout = \"500ms\"\nconnect_timeout = \"200ms\"\nretry = [\"50ms\"]";
    let config = config(&receiver.url("/"), delivery);
    let (_sidecar, client) = start(&config).await;

    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "retrying", "{answer}");
    let error = text(&answer, "/deliveries/0/outcome/error");
    assert!(error.starts_with("response-timeout: "), "{error}");

    let received = receiver.wait_for(2, SOON).await;
    assert_eq!([attempt(&received[0]), attempt(&received[1])], [1, 2]);
}

#[tokio::test]
async fn a_retry_after_is_obeyed() {
    let busy = Behaviour::status(503).with_header("Retry-After", "1");
    let receiver =
        Receiver::builder().script(Behaviour::in_turn([busy, Behaviour::status(204)])).start().await;
    let config = config(&receiver.url("/"), r#"retry = ["50ms"]"#);
    let (_sidecar, client) = start(&config).await;

    first_attempt(&client, "ds_1").await;
    let received = receiver.wait_for(2, SOON).await;
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(900), "the second came after {waited:?}");
}

#[tokio::test]
async fn after_the_last_step_it_is_exhausted() {
    let receiver = Receiver::builder().script(|_| Behaviour::status(500)).start().await;
    let config = config(&receiver.url("/"), r#"retry = ["50ms", "50ms"]"#);
    let (sidecar, client) = start(&config).await;

    let first = first_attempt(&client, "ds_1").await;
    let line = sidecar.wait_for_log("exhausted", SOON).await;
    assert!(line.contains(&text(&first, "/deliveries/0/id")) && line.contains("acme/urban/ops"), "{line}");
    // A fourth attempt would come before the third one of another delivery.
    let second = first_attempt(&client, "ds_2").await;
    sidecar.wait_for_log(&text(&second, "/deliveries/0/id"), SOON).await;
    let received = receiver.wait_for(6, SOON).await;
    let attempts: Vec<_> = received.iter().map(|r| attempt(r)).collect();
    assert_eq!(attempts, [1, 2, 3, 1, 2, 3]);
    assert_eq!(receiver.times(&text(&first, "/id")), 3);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_nothing_more() {
    let receiver = Receiver::builder().script(|_| Behaviour::status(410)).start().await;
    let config = config(&receiver.url("/"), r#"retry = ["50ms", "50ms"]"#);
    let (sidecar, client) = start(&config).await;

    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "held", "{answer}");
    assert_eq!(answer["deliveries"][0]["outcome"]["status"], 410, "{answer}");
    sidecar.wait_for_log("suspended", SOON).await;

    let answer = accept(&client, &format!("{EVENTS}?wait=1s"), event("ds_2")).await;
    let state = text(&answer, "/deliveries/0/outcome/state");
    assert!(["pending", "held"].contains(&state.as_str()), "{answer}");
    assert_eq!(receiver.count(), 1);
}
