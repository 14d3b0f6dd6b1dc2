//! Looking after the queue's file: counting, checking, compacting, exporting.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::{Output, run};
use serde_json::Value;

use support::{BATCH, EVENTS, NDJSON, SOON, accept, binary, event, free_port, start};

async fn queue(config: &ConfigDirectory, arguments: &[&str]) -> Output {
    let directory = config.path().display().to_string();
    let arguments = [&["queue"], arguments, &["--config", &directory]].concat();
    run(binary(), &arguments, "").await
}

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", output.stdout, output.stderr);
}

async fn counted(config: &ConfigDirectory) -> Value {
    let output = queue(config, &["stats", "--json"]).await;
    ended(&output, 0);
    serde_json::from_str(&output.stdout).unwrap()
}

#[tokio::test]
async fn what_is_stored_is_counted_and_exported_while_the_sidecar_runs() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    config.webhook("acme", "urban", "dead", &dead, &["dataset-failed"], "");
    config.webhook("acme", "urban", "off", &receiver.url("/off"), &["dataset-failed"], "active = false");
    let (_sidecar, client) = start(&config).await;
    // Payloads are kept byte for byte: also white space.
    let failed =
        "{ \"event\": \"dataset-failed\",\n  \"project\": \"urban\", \"dataset\": {\"id\": \"d\\u00e9\"} }";
    accept(&client, &format!("{EVENTS}?wait=10s"), failed).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    let stats = counted(&config).await;
    for (name, number) in [("events", 2), ("delivered", 2), ("pending", 1), ("skipped", 1), ("exhausted", 0)]
    {
        assert_eq!(stats[name], number, "{name}: {stats:#}");
    }
    let output = queue(&config, &["stats"]).await;
    ended(&output, 0);
    assert!(output.stdout.contains("pending    1"), "{}", output.stdout);

    let export = async |arguments: &[&str]| {
        let output = queue(&config, arguments).await;
        ended(&output, 0);
        let lines = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    let all = export(&["export"]).await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[0]["payload"], failed);
    assert_eq!(all[1]["payload"], event("ds_1"));
    let pending = export(&["export", "--pending"]).await;
    assert_eq!(pending, all[..1]);
    let states: Vec<_> = pending[0]["deliveries"].as_array().unwrap().iter().map(|d| &d["state"]).collect();
    assert_eq!(states, ["pending", "skipped", "delivered"]);
}

#[tokio::test]
async fn a_queue_is_checked_and_compacted_while_no_sidecar_runs() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "order = \"fifo\"");
    let (mut sidecar, client) = start(&config).await;
    let batch: String = (0..1_000).map(|number| event(&format!("ds_{number}")) + "\n").collect();
    let response = client.post(&format!("{BATCH}?wait=20s"), NDJSON, batch).await.unwrap();
    assert_eq!(response.status, 202, "{}", response.text());
    for command in ["verify", "compact"] {
        let output = queue(&config, &[command]).await;
        ended(&output, 1);
        assert!(output.stderr.contains("in use by another aquarium-sidecar"), "{}", output.stderr);
    }
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());

    let before = counted(&config).await;
    for command in ["verify", "compact", "verify"] {
        ended(&queue(&config, &[command]).await, 0);
    }
    let after = counted(&config).await;
    assert_eq!(
        (&after["events"], &after["delivered"], &after["free_bytes"]),
        (&before["events"], &before["delivered"], &Value::from(0))
    );

    // A sector in the middle is lost.
    let file = OpenOptions::new().write(true).open(config.queue()).unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 4_096 * 4_096;
    file.write_all_at(&[0xa5; 4_096], middle).unwrap();
    let output = queue(&config, &["verify", "--json"]).await;
    ended(&output, 1);
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(found["valid"], false);
    assert!(!found["errors"].as_array().unwrap().is_empty(), "{found}");
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_not_made() {
    let config = ConfigDirectory::new();
    for command in ["stats", "verify", "compact", "export"] {
        let output = queue(&config, &[command]).await;
        ended(&output, 1);
        assert!(output.stderr.contains("is not there"), "{}", output.stderr);
        assert!(!config.queue().exists());
    }
    let output = run(binary(), &["queue", "stats", "--config", "/nowhere"], "").await;
    ended(&output, 78);
}
