//! What happens when an endpoint fails: the same delivery comes again, until it is there or its schedule is used up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
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
async fn first_attempt(client: &Client, id: &str) -> Value {
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
async fn after_a_name_that_is_not_there_it_comes_again() {
    // It never exists (RFC 6761, section 6.4).
    let retry = format!("retry = [{}]", r#""100ms", "#.repeat(60));
    let mut config = config("https://hooks.invalid/", &retry);
    let (_sidecar, client) = start(&config).await;
    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "retrying", "{answer}");
    let error = text(&answer, "/deliveries/0/outcome/error");
    assert!(error.starts_with("dns: "), "{error}");

    let receiver = Receiver::start().await;
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let received = receiver.wait_for(1, SOON).await;
    assert!(attempt(&received[0]) >= 2);
    assert!(receiver.has(&text(&answer, "/id")));
}

/// The hint is about the endpoint. A date that is too far away means a day.
#[tokio::test]
async fn a_date_in_retry_after_holds_the_whole_webhook() {
    let busy = Behaviour::status(429).with_header("Retry-After", "Sat, 06 Nov 2094 08:49:37 GMT");
    let receiver =
        Receiver::builder().script(Behaviour::in_turn([busy, Behaviour::status(204)])).start().await;
    let mut config = config(&receiver.url("/"), "retry = [\"50ms\"]\ngive_up_after = \"365d\"");
    config.webhook("acme", "urban", "other", &receiver.url("/other"), &["test"], "");
    let (sidecar, client) = start(&config).await;

    let first = first_attempt(&client, "ds_1").await;
    assert_eq!(first["deliveries"][0]["outcome"]["state"], "retrying", "{first}");
    let line = sidecar.wait_for_log("the endpoint asked for a pause", SOON).await;
    let told =
        |name: &str| line.split_whitespace().find_map(|part| part.strip_prefix(name).map(str::to_owned));
    let parse = |time: &str| humantime::parse_rfc3339(time.trim_matches('"')).unwrap();
    let (said, until) = (parse(line.split_whitespace().next().unwrap()), parse(&told("until=").unwrap()));
    let wait = until.duration_since(said).unwrap().as_secs();
    assert!((86_000..=86_400).contains(&wait), "{wait} s: {line}");

    let second = accept(&client, &format!("{EVENTS}?wait=1s"), event("ds_2")).await;
    assert_eq!(second["deliveries"][0]["outcome"]["state"], "pending", "{second}");
    // Another webhook of the same endpoint goes on.
    let test = r#"{"event":"test","project":"urban"}"#;
    accept(&client, EVENTS, test).await;
    let received = receiver.wait_for(2, SOON).await;
    assert_eq!(received[1].path, "/other");
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn while_an_endpoint_is_down_probes_go_out_and_one_success_lets_all_follow() {
    const EVENTS_WAITING: usize = 20;
    let up = Arc::new(AtomicBool::new(false));
    let status = up.clone();
    let script = move |_: &Received| Behaviour::status(if status.load(Ordering::SeqCst) { 204 } else { 500 });
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = config(&receiver.url("/"), "retry = [\"50ms\", \"50ms\", \"50ms\"]");
    config.webhook(
        "acme",
        "urban",
        "ops",
        &receiver.url("/"),
        &["*"],
        "breaker_failures = 2\nconcurrency = 1",
    );
    let (sidecar, client) = start(&config).await;
    let mut ids = Vec::new();
    for number in 0..EVENTS_WAITING {
        ids.push(text(&accept(&client, EVENTS, event(&format!("ds_{number}"))).await, "/id"));
    }
    sidecar.wait_for_log("breaker opened", SOON).await;
    let known = receiver.count();
    let received = receiver.wait_for(known + 2, SOON).await;
    // The first two are 1 s and 2 s apart, more or less.
    let waited = received[known + 1].at - received[known - 1].at;
    assert!(waited >= Duration::from_secs(2), "two probes within {waited:?}");
    up.store(true, Ordering::SeqCst);
    sidecar.wait_for_log("breaker closed", SOON).await;
    eventually(SOON, "all are there", async || ids.iter().all(|id| receiver.has(id))).await;
    assert!(!sidecar.logs().iter().any(|line| line.contains("exhausted")), "waiting costs no attempt");
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
async fn an_endpoint_that_is_gone_gets_nothing_more_also_after_a_restart() {
    let receiver = Receiver::builder().script(|_| Behaviour::status(410)).start().await;
    let mut config = config(&receiver.url("/"), r#"retry = ["50ms", "50ms"]"#);
    let (mut sidecar, client) = start(&config).await;

    let answer = first_attempt(&client, "ds_1").await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "held", "{answer}");
    assert_eq!(answer["deliveries"][0]["outcome"]["status"], 410, "{answer}");
    sidecar.wait_for_log("suspended", SOON).await;

    let held = async |client: &Client, id: &str| {
        let answer = accept(client, &format!("{EVENTS}?wait=1s"), event(id)).await;
        let state = text(&answer, "/deliveries/0/outcome/state");
        assert!(["pending", "held"].contains(&state.as_str()), "{answer}");
        assert_eq!(receiver.count(), 1);
    };
    held(&client, "ds_2").await;
    sidecar.restart().await;
    let client = Client::new(sidecar.ingest());
    held(&client, "ds_3").await;

    // They were kept for another URL.
    let other = Receiver::start().await;
    config.webhook("acme", "urban", "ops", &other.url("/"), &["*"], "");
    let received = other.wait_for(3, SOON).await;
    let bodies: BTreeSet<_> = received.iter().map(|request| request.body.to_vec()).collect();
    assert_eq!(bodies, ["ds_1", "ds_2", "ds_3"].map(|id| event(id).into_bytes()).into());
    assert_eq!(receiver.count(), 1);
}
