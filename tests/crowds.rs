//! More connections than are served, and fewer files than are wanted: who comes later is told so, what was accepted is safe,
//! and it recovers by itself.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::Sidecar;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use support::{EVENTS, JSON, SOON, accept, binary, event};

/// The binary with at most so many open files, also if it asks for more.
fn with_files(config: &ConfigDirectory, limit: u32) -> PathBuf {
    let script = config.scratch().join("sidecar");
    let text = format!("#!/bin/sh\nulimit -n {limit} && exec '{}' \"$@\"\n", binary().display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn idle(address: &str, number: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..number {
        streams.push(TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap());
    }
    streams
}

/// What `/readyz` answers, and what it says of connections.
async fn readiness(admin: &Client) -> (u16, Value) {
    let response = admin.get("/readyz").await.unwrap();
    let body = response.json();
    let checks = body["checks"].as_array().unwrap();
    let connections = checks.iter().find(|check| check["name"] == "connections").unwrap().clone();
    (response.status.as_u16(), connections)
}

fn refused(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("connection"), Some("close"));
    let problem = response.json();
    assert_eq!(problem["code"], "too-many-connections", "{problem}");
    assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"), "{problem}");
}

#[tokio::test]
async fn with_few_files_it_warns_works_and_turns_away_what_does_not_fit() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let sidecar = Sidecar::start(&with_files(&config, 256), &config).await;
    let line = sidecar.wait_for_log("too few files", SOON).await;
    for part in ["WARN", "limit=256", "need=4288", "LimitNOFILE"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let (client, admin) = (Client::new(sidecar.ingest()), Client::new(sidecar.admin()));
    accept(&client, EVENTS, event("before")).await;
    assert_eq!(
        readiness(&admin).await,
        (200, serde_json::json!({"name": "connections", "ok": true, "detail": null}))
    );

    let crowd = idle(sidecar.ingest(), 400).await;
    eventually(SOON, "the ingest is full", async || readiness(&admin).await.0 == 503).await;
    let (_, check) = readiness(&admin).await;
    assert!(check["ok"] == false && check["detail"].as_str().unwrap().contains("connections"), "{check}");
    // Whoever is in is served; also at the endpoint, whose connections are not those of clients.
    for number in 0..20 {
        accept(&client, &format!("{EVENTS}?wait=10s"), event(&format!("during-{number}"))).await;
    }
    assert_eq!(receiver.tally().unique, 21);
    // Idle ones that were turned away have been closed after a second, so that there is room to be told.
    sleep(Duration::from_millis(1_500)).await;
    for _ in 0..3 {
        refused(&Client::new(sidecar.ingest()).post(EVENTS, JSON, event("late")).await.unwrap());
    }
    assert!(sidecar.open_files() < 256 - 64, "{} files are open", sidecar.open_files());
    let metrics = admin.get("/metrics").await.unwrap().text();
    let counted = metrics.lines().find_map(|line| {
        line.strip_prefix("aquarium_requests_refused_total{code=\"too-many-connections\"} ")?
            .parse::<u32>()
            .ok()
    });
    assert!(counted.is_some_and(|counted| counted >= 300), "{counted:?}");
    let line = sidecar.wait_for_log("turned away", SOON).await;
    assert!(line.contains(&format!("listener={}", sidecar.ingest())), "{line}");
    let told = sidecar.logs().iter().filter(|line| line.contains("turned away")).count();
    assert_eq!(told, 1, "it is told once, not for each");
    assert!(
        !sidecar.logs().iter().any(|line| line.contains("could not be accepted")),
        "{:?}",
        sidecar.logs()
    );

    drop(crowd);
    eventually(SOON, "it takes connections again", async || {
        Client::new(sidecar.ingest())
            .post(EVENTS, JSON, event("after"))
            .await
            .is_ok_and(|it| it.status == 202)
    })
    .await;
    eventually(SOON, "it is ready again", async || readiness(&admin).await.0 == 200).await;
    eventually(SOON, "all that was accepted arrives", async || receiver.tally().unique == 22).await;
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_what_is_needed() {
    let config = ConfigDirectory::new();
    let script = with_files(&config, 128);
    let text = std::fs::read_to_string(&script).unwrap().replace("ulimit -n", "ulimit -Sn");
    std::fs::write(&script, text).unwrap();
    let sidecar = Sidecar::start(&script, &config).await;
    assert!(!sidecar.logs().iter().any(|line| line.contains("limit")), "{:?}", sidecar.logs());
    let metrics = Client::new(sidecar.admin()).get("/metrics").await.unwrap().text();
    let most = metrics.lines().find_map(|line| line.strip_prefix("process_max_fds ")?.parse::<u64>().ok());
    assert!(most.is_some_and(|most| most >= 4_288), "{most:?}");
}

#[tokio::test]
async fn the_cap_is_1024_connections_and_each_listener_has_its_own() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let sidecar = Sidecar::start(binary(), &config).await;
    let client = Client::new(sidecar.ingest());
    accept(&client, EVENTS, event("first")).await;
    let crowd = idle(sidecar.ingest(), 1_023).await;
    let admin = Client::new(sidecar.admin());
    eventually(SOON, "all 1,024 are in use", async || readiness(&admin).await.0 == 503).await;
    refused(&Client::new(sidecar.ingest()).post(EVENTS, JSON, event("late")).await.unwrap());
    accept(&client, EVENTS, event("second")).await;
    let more = idle(sidecar.admin(), 1_100).await;
    sleep(Duration::from_millis(1_500)).await;
    let response = Client::new(sidecar.admin()).get("/livez").await.unwrap();
    refused(&response);
    assert_eq!(admin.get("/livez").await.unwrap().status, 200, "who is in is served");
    drop((crowd, more));
    eventually(SOON, "both recover", async || {
        let client = Client::new(sidecar.ingest());
        client.post(EVENTS, JSON, event("third")).await.is_ok_and(|it| it.status == 202)
            && Client::new(sidecar.admin()).get("/livez").await.is_ok_and(|it| it.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_headers_is_a_431() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let sidecar = Sidecar::start(binary(), &config).await;
    for address in [sidecar.ingest(), sidecar.admin()] {
        for (filler, status) in [
            ("X-Filler: x\r\n".repeat(98), "HTTP/1.1 404 "),
            ("X-Filler: x\r\n".repeat(101), "HTTP/1.1 431 "),
            (format!("X-Filler: {}\r\n", "x".repeat(31 * 1024)), "HTTP/1.1 404 "),
            (format!("X-Filler: {}\r\n", "x".repeat(33 * 1024)), "HTTP/1.1 431 "),
        ] {
            let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
            let head = format!("GET /nothing HTTP/1.1\r\nHost: localhost\r\n{filler}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 13];
            timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), status, "{} bytes", head.len());
        }
    }
}
