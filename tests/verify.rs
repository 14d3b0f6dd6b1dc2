//! What receivers do with aquarium-verify: the calls of the sidecar reach their handlers, and no others.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

#[path = "verify/raw.rs"]
mod raw;
#[path = "verify/servers.rs"]
mod servers;

use std::time::Duration;

use aquarium_event::Event;
use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_verify::Secrets;
use serde_json::Value;
use tokio::task::JoinSet;

use raw::{Answer, Body};
use servers::{Running, start_all};
use support::{EVENTS, SOON, accept, event, start};

const ANOTHER: &str = "another-secret-of-acme";
const SECRET: &str = "the-secret-of-acme";
const UNAUTHORIZED: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;

/// A configuration with a webhook for each server, which gets everything.
fn config(servers: &[Running], project: &str) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.section("delivery", &format!("retry = [{}]\njitter = 0.0", ["\"500ms\""; 20].join(", ")));
    config.section("events", "custom = [\"model-trained\"]");
    for running in servers {
        config.webhook("acme", project, running.server.name, &running.url(), &["*"], "");
    }
    config
}

/// Posts an event, and waits for what its first attempts came to: it has to be this, at every server.
async fn post(client: &Client, servers: &[Running], body: &str, state: &str, status: u16) {
    let answer = accept(client, &format!("{EVENTS}?wait=10s"), body).await;
    let deliveries = answer["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), servers.len(), "{answer}");
    for delivery in deliveries {
        let outcome = &delivery["outcome"];
        let expected = (&Value::from(state), &Value::from(status));
        assert_eq!((&outcome["state"], &outcome["status"]), expected, "{delivery}");
    }
}

/// The secrets that are accepted, each with its label.
fn secrets(secrets: &[(&str, &str)]) -> Secrets {
    Secrets::labelled(secrets.iter().copied()).unwrap()
}

#[tokio::test]
async fn the_event_that_a_handler_gets_is_the_one_that_was_posted() {
    let mut servers = start_all(&secrets(&[("only", ANOTHER)])).await;
    let config = config(&servers, "urban-driving");
    for running in &servers {
        running.verifier.replace(secrets(&[("only", config.secret("acme"))]));
    }
    let (_sidecar, client) = start(&config).await;

    let custom = r#"{"event":"model-trained","project":"urban-driving"}"#;
    let samples = aquarium_event::samples().map(|(_, json)| json);
    for body in samples.chain([custom]) {
        post(&client, &servers, body, "delivered", 204).await;
        let expected = Event::from_slice(body.as_bytes()).unwrap();
        for running in &mut servers {
            let (verified, event) = running.received().await;
            assert_eq!(event, expected, "{}", running.server.name);
            assert_eq!((verified.index, verified.label.as_deref()), (0, Some("only")));
            running.received_nothing();
        }
    }
}

#[tokio::test]
async fn a_call_with_the_wrong_secret_is_refused_until_it_is_accepted() {
    let mut servers = start_all(&secrets(&[("wrong", ANOTHER)])).await;
    let config = config(&servers, "urban");
    let (_sidecar, client) = start(&config).await;

    post(&client, &servers, &event("ds_1"), "retrying", 401).await;
    for running in &mut servers {
        running.received_nothing();
        running.verifier.replace(secrets(&[("right", config.secret("acme"))]));
    }
    for running in &mut servers {
        let (verified, received) = running.received().await;
        assert_eq!(verified.label.as_deref(), Some("right"), "{}", running.server.name);
        assert_eq!(received, Event::from_slice(event("ds_1").as_bytes()).unwrap());
    }
}

#[tokio::test]
async fn a_secret_is_replaced_while_all_are_running() {
    let mut servers = start_all(&secrets(&[("old", ANOTHER)])).await;
    let config = config(&servers, "urban");
    let old = config.secret("acme").to_owned();
    let (sidecar, client) = start(&config).await;

    // The receivers learn the new one first, then the sidecar does, and then the old one is forgotten.
    let accept_at = |servers: &[Running], accepted: &[(&str, &str)]| {
        servers.iter().for_each(|running| running.verifier.replace(secrets(accepted)));
    };
    accept_at(&servers, &[("old", &old)]);
    post_and_expect(&client, &mut servers, "old").await;

    let new = ANOTHER;
    accept_at(&servers, &[("new", new), ("old", &old)]);
    post_and_expect(&client, &mut servers, "old").await;

    config.write("secrets/acme", format!("{new}\n"));
    sidecar.wait_for_log("is in force", SOON).await;
    post_and_expect(&client, &mut servers, "new").await;

    accept_at(&servers, &[("new", new)]);
    post_and_expect(&client, &mut servers, "new").await;
    for running in &mut servers {
        let body = Body::Whole(event("ds_2").into_bytes());
        let answer = raw::call(running.address, &headers(&[&old]), &body).await;
        unauthorized(running.server.name, &answer);
        running.received_nothing();
    }
}

async fn post_and_expect(client: &Client, servers: &mut [Running], label: &str) {
    post(client, servers, &event("ds_1"), "delivered", 204).await;
    for running in servers {
        let (verified, _) = running.received().await;
        assert_eq!(verified.label.as_deref(), Some(label), "{}", running.server.name);
    }
}

/// The header lines of a call with these secrets.
fn headers(secrets: &[&str]) -> Vec<Vec<u8>> {
    let secrets = secrets.iter().map(|secret| format!("X-Aquarium-Secret: {secret}").into_bytes());
    secrets.chain([b"Content-Type: application/json".to_vec()]).collect()
}

/// It is the one answer to what is not genuine, and says nothing else.
#[track_caller]
fn unauthorized(name: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (Some(401), UNAUTHORIZED), "{name}");
    // These two are about the connection.
    let apart = |line: &&String| !line.starts_with("date: ") && !line.starts_with("connection: ");
    let names: Vec<_> = answer.headers.iter().filter(apart).collect();
    let expected =
        ["content-length: 58", "content-type: application/problem+json", "www-authenticate: aquarium-secret"];
    assert_eq!(names, expected, "{name}");
}

/// A call, and what it has to come to: one of these statuses, or else (0) a closed connection.
struct Row {
    name: &'static str,
    headers: Vec<Vec<u8>>,
    body: Body,
    expected: &'static [u16],
}

fn row(name: &'static str, headers: Vec<Vec<u8>>, body: Body, expected: &'static [u16]) -> Row {
    Row { name, headers, body, expected }
}

/// Calls without the secret, or with too much of it.
fn forged() -> Vec<Row> {
    let whole = Body::Whole(event("ds_1").into_bytes());
    let with = |line: &[u8]| [vec![line.to_vec()], headers(&[])].concat();
    vec![
        row("no secret", headers(&[]), whole.clone(), &[401]),
        row("empty", headers(&[""]), whole.clone(), &[401]),
        row("wrong", headers(&[ANOTHER]), whole.clone(), &[401]),
        row("prefix", headers(&[&SECRET[..17]]), whole.clone(), &[401]),
        row("twice, the first wrong", headers(&[ANOTHER, SECRET]), whole.clone(), &[401]),
        row("twice, the second wrong", headers(&[SECRET, ANOTHER]), whole.clone(), &[401]),
        row("twice, both right", headers(&[SECRET, SECRET]), whole.clone(), &[401]),
        row("a list", headers(&[&format!("{SECRET}, {SECRET}")]), whole.clone(), &[401]),
        row("in another header", with(b"Authorization: the-secret-of-acme"), whole.clone(), &[401]),
        row("not UTF-8", with(b"X-Aquarium-Secret: \xff\xfe\x80"), whole.clone(), &[401]),
        row("a megabyte", headers(&[&"x".repeat(1 << 20)]), whole.clone(), &[0, 400, 401, 431]),
        row("wrong, not JSON", vec![b"X-Aquarium-Secret: x".to_vec()], whole, &[401]),
    ]
}

/// Calls that have the secret, and nothing else that a call has.
fn senseless() -> Vec<Row> {
    let genuine = || headers(&[SECRET]);
    let whole = |body: &str| Body::Whole(body.as_bytes().to_vec());
    let secret = || b"X-Aquarium-Secret: the-secret-of-acme".to_vec();
    let large = vec![b' '; (1 << 20) + 1];
    vec![
        row("no type", vec![secret()], whole(&event("ds_1")), &[415]),
        row("text", vec![secret(), b"Content-Type: text/plain".to_vec()], whole(&event("ds_1")), &[415]),
        row("empty", genuine(), whole(""), &[400]),
        row("not JSON", genuine(), whole("{\"event\":"), &[400]),
        row("no event", genuine(), whole("{\"project\":\"urban\"}"), &[400]),
        row("too large", genuine(), Body::Whole(large.clone()), &[413]),
        row("too large, in a chunk", genuine(), Body::Chunk(large), &[413]),
        row("a flood", genuine(), Body::Flood, &[413]),
        row("a drip", genuine(), Body::Drip, &[408]),
        row("silence", genuine(), Body::Silence(100), &[408]),
    ]
}

#[tokio::test]
async fn what_is_not_genuine_or_makes_no_sense_reaches_no_handler() {
    let mut servers = start_all(&secrets(&[("only", SECRET)])).await;
    let mut calls = JoinSet::new();
    for running in &servers {
        let (server, address, hangs_up) = (running.server.name, running.address, running.server.hangs_up);
        for row in forged().into_iter().chain(senseless()) {
            calls.spawn(async move {
                let answer = raw::call(address, &row.headers, &row.body).await;
                let status = answer.status.unwrap_or(0);
                let name = format!("{server}: {}", row.name);
                assert!(row.expected.contains(&status), "{name}: {status} {}", answer.body);
                assert!(!hangs_up || answer.sent < 32 << 20, "{name}: {} bytes were taken", answer.sent);
                if status == 401 {
                    unauthorized(&name, &answer);
                }
            });
        }
    }
    calls.join_all().await;

    for running in &mut servers {
        running.received_nothing();
        let body = Body::Whole(event("ds_1").into_bytes());
        let answer = raw::call(running.address, &headers(&[SECRET]), &body).await;
        assert_eq!(answer.status, Some(204), "{}: it has to work still", running.server.name);
        running.received().await;
    }
}

#[tokio::test]
async fn who_has_no_secret_is_answered_before_the_body() {
    let mut servers = start_all(&secrets(&[("only", SECRET)])).await;
    for running in servers.iter_mut().filter(|running| running.server.header_first) {
        for body in [Body::Silence(100), Body::Silence(1 << 30), Body::Drip, Body::Flood] {
            let answer = raw::call(running.address, &headers(&[ANOTHER]), &body).await;
            unauthorized(running.server.name, &answer);
            assert!(answer.took < Duration::from_secs(2), "{}: {:?}", running.server.name, answer.took);
        }
        running.received_nothing();
    }
}
