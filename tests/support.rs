//! What the tests of the binary have in common.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::sidecar::Sidecar;
use serde_json::Value;

/// Longer than anything takes that is not broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Where events of the organization `acme` go.
pub(crate) const EVENTS: &str = "/v1/organizations/acme/events";
/// Where many of them go at once.
pub(crate) const BATCH: &str = "/v1/organizations/acme/events/batch";
/// The headers of an event.
pub(crate) const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
/// The headers of a batch.
pub(crate) const NDJSON: &[(&str, &str)] = &[("Content-Type", "application/x-ndjson")];

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_aquarium-sidecar"))
}

/// Starts the binary, and a client for its ingest.
pub(crate) async fn start(config: &ConfigDirectory) -> (Sidecar, Client) {
    let sidecar = Sidecar::start(binary(), config).await;
    let client = Client::new(sidecar.ingest());
    (sidecar, client)
}

/// An event of the project `urban` about a data set of this id.
pub(crate) fn event(id: &str) -> String {
    format!(r#"{{"event":"dataset-complete","project":"urban","dataset":{{"id":"{id}"}}}}"#)
}

/// Posts an event that has to be accepted, and returns the answer.
pub(crate) async fn accept(client: &Client, path: &str, body: impl Into<String>) -> Value {
    let response = client.post(path, JSON, body.into()).await.unwrap();
    assert_eq!(response.status, 202, "{}", response.text());
    response.json()
}

/// The string at this JSON pointer.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => panic!("no string at {pointer} of {value}"),
    }
}

/// A port of 127.0.0.1 on which nobody listens.
///
/// It is below those that the system gives to connections: one of them to this port would otherwise, now and then, be
/// connected to itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(101);
    for _ in 0..1_000 {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let port = u16::try_from(20_000 + offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("there is no free port");
}
