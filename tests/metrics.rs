//! What a running sidecar tells of itself: metrics and readiness.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::Sidecar;

use support::{BATCH, EVENTS, JSON, NDJSON, SOON, accept, event, free_port, start};

async fn metrics(sidecar: &Sidecar) -> String {
    let response = Client::new(sidecar.admin()).get("/metrics").await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    response.text()
}

/// The value of a series, by the whole of its name and labels.
fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line[series.len()..].trim().parse().ok()
}

/// Rules and dashboards use the metrics of a list: those that there are. A family has a series when something happened.
fn check_list(text: &str) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeMap<_, _> = types.collect();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/deploy/prometheus/metrics.txt");
    let list = std::fs::read_to_string(list).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let listed: BTreeMap<_, _> = lines.filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(told, listed);
    let families = told.len();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("# HELP ")).count(),
        families,
        "each once\n{text}"
    );
}

#[tokio::test]
async fn what_happens_is_counted_by_webhook_and_outcome() {
    let script = |request: &Received| Behaviour::status(if request.path == "/bad" { 500 } else { 204 });
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/ops"), &["*"], "");
    config.webhook("acme", "urban", "bad", &receiver.url("/bad"), &["*"], "retry = []");
    config.webhook("acme", "urban", "off", &receiver.url("/off"), &["*"], "active = false");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    config.webhook("acme", "urban", "dead", &dead, &["*"], "breaker_failures = 1");
    let (sidecar, client) = start(&config).await;
    for number in 0..3 {
        accept(&client, &format!("{EVENTS}?wait=1s"), event(&format!("ds_{number}"))).await;
    }
    assert_eq!(client.post(EVENTS, JSON, "{}").await.unwrap().status, 400);
    let of = |webhook: &str| format!("organization=\"acme\",project=\"urban\",webhook=\"{webhook}\"");
    let text = metrics(&sidecar).await;
    for (series, expected) in [
        ("aquarium_events_accepted_total{organization=\"acme\"}".to_owned(), 3.0),
        (format!("aquarium_deliveries_delivered_total{{{}}}", of("ops")), 3.0),
        (format!("aquarium_attempts_total{{{},outcome=\"2xx\"}}", of("ops")), 3.0),
        (format!("aquarium_attempts_total{{{},outcome=\"5xx\"}}", of("bad")), 3.0),
        (format!("aquarium_deliveries_exhausted_total{{{},reason=\"attempts\"}}", of("bad")), 3.0),
        (format!("aquarium_deliveries_skipped_total{{{}}}", of("off")), 3.0),
        (format!("aquarium_breaker_open{{{}}}", of("dead")), 1.0),
        (format!("aquarium_webhook_pending{{{}}}", of("dead")), 3.0),
        ("aquarium_delivery_latency_seconds_count".to_owned(), 3.0),
        ("aquarium_accept_duration_seconds_count".to_owned(), 4.0),
        ("aquarium_queue_writable".to_owned(), 1.0),
        ("aquarium_queue_full".to_owned(), 0.0),
        ("aquarium_webhooks".to_owned(), 4.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series} in\n{text}");
    }
    assert!(value(&text, "process_resident_memory_bytes").unwrap() > 1e6, "{text}");
    assert!(!text.contains(config.secret("acme")), "no secret");
    check_list(&text);

    // What is not configured any more has no series.
    config.remove_webhook("acme", "urban", "bad");
    eventually(SOON, "its series are gone", async || !metrics(&sidecar).await.contains(&of("bad"))).await;
}

#[tokio::test]
async fn who_asks_for_open_metrics_gets_them() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (sidecar, client) = start(&config).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    let open = Client::new(sidecar.admin());
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let response = open.request("GET", "/metrics", &accept, "").await.unwrap();
    assert!(response.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(response.text().ends_with("# EOF\n"), "{}", response.text());
}

#[tokio::test]
async fn a_queue_without_room_is_not_ready_and_says_why() {
    let mut config = ConfigDirectory::new();
    let queue = format!("path = {:?}\nmax_size = \"1MiB\"", config.queue().display().to_string());
    config.section("queue", &queue).section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"64KiB\"");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    config.webhook("acme", "urban", "ops", &dead, &["*"], "");
    let (sidecar, client) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    let ready = admin.get("/readyz").await.unwrap();
    assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (200, Some("ok")));
    let batch: String =
        (0..200).map(|number| event(&format!("{number}-{}", "x".repeat(5_000))) + "\n").collect();
    let mut refused = None;
    for _ in 0..10 {
        let response = client.post(BATCH, NDJSON, batch.clone()).await.unwrap();
        if response.status != 202 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("it is full at last");
    assert_eq!((refused.status.as_u16(), refused.json()["code"].as_str()), (503, Some("queue-full")));
    assert!(refused.header("retry-after").is_some());
    let ready = admin.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());
    let checks = ready.json()["checks"].clone();
    let room = checks.as_array().unwrap().iter().find(|check| check["name"] == "room").unwrap().clone();
    assert_eq!(room["ok"], false);
    assert!(room["detail"].as_str().unwrap().contains("max_size"), "{room}");
    assert_eq!(value(&metrics(&sidecar).await, "aquarium_queue_full"), Some(1.0));
    assert_eq!(admin.get("/livez").await.unwrap().status, 200, "it is alive all the same");
}
