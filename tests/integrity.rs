//! What a disk does to the queue's file: nothing wrong is sent, and it is told.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::{Output, Sidecar, run};
use serde_json::Value;

use support::{EVENTS, SOON, accept, binary, event, free_port, start, text};

/// Changes bytes of a file that are found there once.
fn replace(path: &Path, what: &str, with: &str) {
    let mut file = std::fs::read(path).unwrap();
    let found: Vec<_> = file.windows(what.len()).enumerate().filter(|(_, w)| *w == what.as_bytes()).collect();
    assert_eq!((found.len(), what.len()), (1, with.len()), "{what}");
    let at = found[0].0;
    file[at..at + with.len()].copy_from_slice(with.as_bytes());
    std::fs::write(path, file).unwrap();
}

async fn queue(config: &ConfigDirectory, arguments: &[&str]) -> Output {
    let directory = config.path().display().to_string();
    run(binary(), &[&["queue"], arguments, &["--config", &directory]].concat(), "").await
}

async fn metrics(sidecar: &Sidecar) -> String {
    Client::new(sidecar.admin()).get("/metrics").await.unwrap().text()
}

#[tokio::test]
async fn a_damaged_payload_is_never_sent_and_its_delivery_ends_as_exhausted() {
    let port = free_port();
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &format!("http://127.0.0.1:{port}/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    let damaged = text(&accept(&client, EVENTS, event("ds_1")).await, "/deliveries/0/id");
    accept(&client, EVENTS, event("ds_2")).await;
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    // One bit: 1 is 0x31, 3 is 0x33.
    replace(&config.queue(), r#""id":"ds_1""#, r#""id":"ds_3""#);

    let output = queue(&config, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    assert!(
        output.stdout.contains("1 events that do not match their checksum, such as evt_"),
        "{}",
        output.stdout
    );
    let exported = queue(&config, &["export"]).await.stdout;
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.iter().map(|event| &event["damaged"]).collect::<Vec<_>>(), [true, false]);

    let receiver = Receiver::builder().port(port).start().await;
    sidecar.restart().await;
    let admin = Client::new(sidecar.admin());
    let shown = async || admin.get(&format!("/v1/deliveries/{damaged}")).await.unwrap().json();
    eventually(SOON, "it ends, and the other arrives", async || {
        shown().await["state"] == "exhausted" && receiver.count() == 1
    })
    .await;
    assert_eq!(receiver.received()[0].body, event("ds_2").as_bytes());
    let shown = shown().await;
    assert_eq!(shown["exhausted_because"], "damaged in the queue's file", "{shown:#}");
    let payload = admin.get(&format!("/v1/events/{}/payload", text(&shown, "/event/id"))).await.unwrap();
    assert_eq!((payload.status.as_u16(), text(&payload.json(), "/code")), (500, "event-damaged".to_owned()));
    let counted = r#"aquarium_deliveries_exhausted_total{organization="acme",project="urban",webhook="ops",reason="damaged"} 1"#;
    assert!(metrics(&sidecar).await.contains(counted), "{}", metrics(&sidecar).await);
    let told = sidecar.logs().into_iter().filter(|line| line.contains("does not match its checksum"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("ERROR") && told[0].contains(&damaged), "{told:?}");
}
