//! Guarantee 3: an event that goes round in a loop does not go on for ever.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::run;
use tokio::sync::mpsc;
use tokio::time::sleep;

use support::{BATCH, EVENTS, SOON, accept, binary, event, free_port, start};

/// A service of somebody's that posts on what it receives, headers and all, as a relay does.
#[tokio::test]
async fn a_loop_through_another_service_ends_with_a_508() {
    let (send, mut received) = mpsc::unbounded_channel();
    let receiver = Receiver::builder()
        .script(move |request| {
            let hops = request.header("aquarium-hops").unwrap_or_default().to_owned();
            let _ = send.send((hops, request.body.clone()));
            Behaviour::status(204)
        })
        .start()
        .await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "relay", &receiver.url("/"), &["*"], "");
    let (mut sidecar, mut client) = start(&config).await;
    accept(&client, EVENTS, event("ds_1")).await;
    let mut seen = Vec::new();
    let (status, refused) = loop {
        let (hops, body) = tokio::time::timeout(SOON, received.recv()).await.unwrap().unwrap();
        let headers = [("Content-Type", "application/json"), ("Aquarium-Hops", &*hops)];
        let answer = client.post(EVENTS, &headers, body).await.unwrap();
        seen.push(hops.parse::<u8>().unwrap());
        if answer.status != 202 {
            break (answer.status, answer.text());
        }
        // It is stored with the event: also what is sent after a restart has come through as many.
        if seen.len() == 4 {
            sidecar.restart().await;
            client = Client::new(sidecar.ingest());
        }
        assert!(seen.len() < 50, "it ends");
    };
    let _ = seen.pop();
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
    assert!((1..=7).all(|hops| seen.contains(&hops)), "{seen:?}");
    assert_eq!(status, 508, "{refused}");
    assert!(refused.contains("loop-detected"), "{refused}");
    sleep(Duration::from_millis(300)).await;
    assert!(received.try_recv().is_err(), "nothing goes round any more");
}

#[tokio::test]
async fn hops_that_are_too_many_or_none_are_refused() {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", "https://ops.invalid/", &["*"], "");
    let (sidecar, client) = start(&config).await;
    let (admin, test) = (Client::new(sidecar.admin()), "/v1/webhooks/acme/urban/ops/test");
    for (hops, status) in
        [("8", 508), ("9", 508), ("65535", 508), ("-1", 400), ("x", 400), ("", 400), ("1,2", 400)]
    {
        for (client, path, kind) in [
            (&client, EVENTS, "application/json"),
            (&client, BATCH, "application/x-ndjson"),
            (&admin, test, "application/json"),
        ] {
            let headers = [("Content-Type", kind), ("Aquarium-Hops", hops)];
            let body = if path == test { String::new() } else { event("ds_1") };
            let answer = client.post(path, &headers, body).await.unwrap();
            assert_eq!(answer.status, status, "{path} {hops:?}: {}", answer.text());
        }
    }
    let twice = [("Content-Type", "application/json"), ("Aquarium-Hops", "1"), ("Aquarium-Hops", "1")];
    assert_eq!(client.post(EVENTS, &twice, event("ds_1")).await.unwrap().status, 400);
}

/// With the example's `allow`, one event became 50,235 in 3 s.
#[tokio::test]
async fn a_webhook_that_leads_to_the_sidecar_itself_is_not_sent_to() {
    let (ingest, admin) = (free_port(), free_port());
    let mut config = ConfigDirectory::new();
    config.section("ingest", &format!("listen = \"127.0.0.1:{ingest}\""));
    config.section("admin", &format!("listen = \"127.0.0.1:{admin}\""));
    for (name, url) in [
        ("address", format!("http://127.0.0.1:{ingest}{EVENTS}")),
        ("name", format!("http://localhost:{ingest}{EVENTS}")),
        ("admin", format!("http://127.0.0.1:{admin}/v1/webhooks/acme/urban/admin/test")),
    ] {
        config.webhook("acme", "urban", name, &url, &["*"], "");
    }
    let directory = config.path().display().to_string();
    let checked = run(binary(), &["check", "--config", &directory], "").await;
    assert_eq!(checked.status.code(), Some(0), "it is no error: {}", checked.stderr);
    assert_eq!(checked.stderr.matches("this is the sidecar's own listener").count(), 3, "{}", checked.stderr);

    let (sidecar, client) = start(&config).await;
    let answer = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    let outcomes = answer["deliveries"].as_array().unwrap();
    assert_eq!(outcomes.len(), 3, "{answer}");
    for outcome in outcomes {
        let error = outcome["outcome"]["error"].as_str().unwrap_or_default();
        assert!(error.contains("is a listener of this sidecar"), "{outcome}");
    }
    let events = Client::new(sidecar.admin()).get("/v1/events").await.unwrap().json();
    assert_eq!(events["items"].as_array().unwrap().len(), 1, "{events}");
}
