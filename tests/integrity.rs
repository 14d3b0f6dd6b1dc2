//! What a disk does to the queue's file: nothing wrong is sent, and it is reported.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::{Output, Sidecar, run};
use serde_json::Value;

use support::{EVENTS, JSON, SOON, accept, binary, event, free_port, start, text};

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

/// Zeroes the root page of a table, as a disk might.
fn zero_root(path: &Path, table: &str) {
    let output = std::fs::read(path).unwrap();
    // The row of the table in the table of tables: "table", its name twice, its root, and how it is made.
    let row = format!("table{table}{table}");
    let at = output.windows(row.len()).position(|window| window == row.as_bytes()).unwrap() + row.len();
    let root = u64::from(output[at]);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4_096], (root - 1) * 4_096).unwrap();
}

#[tokio::test]
async fn damage_that_is_met_while_it_runs_is_reported_once_and_stops_accepting_until_the_queue_is_recovered()
{
    let port = free_port();
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &format!("http://127.0.0.1:{port}/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    let delivery = text(&accept(&client, EVENTS, event("ds_0")).await, "/deliveries/0/id");
    for number in 1..20 {
        accept(&client, EVENTS, event(&format!("ds_{number}"))).await;
    }
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    // What a start reads does not concern this table.
    zero_root(&config.queue(), "attempts");
    sidecar.restart().await;
    let (client, admin) = (Client::new(sidecar.ingest()), Client::new(sidecar.admin()));
    let refused = async || client.post(EVENTS, JSON, event("more")).await.unwrap();
    // Results are recorded there: reading or recording one finds the damage.
    let shown = admin.get(&format!("/v1/deliveries/{delivery}")).await.unwrap();
    assert_eq!((shown.status.as_u16(), text(&shown.json(), "/code")), (503, "queue-damaged".to_owned()));
    let refusal = refused().await;
    assert_eq!(refusal.json()["code"], "queue-damaged", "{}", refusal.text());
    assert_eq!(refusal.header("retry-after"), Some("30"));
    let readiness = admin.get("/readyz").await.unwrap();
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("queue recover"), "{}", readiness.text());
    assert_eq!(admin.get("/livez").await.unwrap().status, 200, "a restart would not help");
    let series = metrics(&sidecar).await;
    for line in [
        "aquarium_queue_outage{reason=\"damaged\"} 1\n",
        "aquarium_queue_outage{reason=\"failing\"} 0\n",
        "aquarium_queue_writable 0\n",
    ] {
        assert!(series.contains(line), "no {line} in {series}");
    }
    // Lanes ask each second: two seconds show that it is logged once.
    for _ in 0..50 {
        assert_eq!(refused().await.status, 503);
        assert_eq!(admin.get("/v1/deliveries").await.unwrap().json()["code"], "queue-damaged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = sidecar.logs().into_iter().filter(|line| line.contains("malformed")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("ERROR") && told[0].contains("queue recover"), "{told:?}");
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());

    let output = queue(&config, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    let new = config.scratch().join("new.db");
    let output = queue(&config, &["recover", new.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
    assert!(output.stderr.contains("20 events, 20 deliveries, of which 20 are pending"), "{}", output.stderr);
    let again = queue(&config, &["recover", new.to_str().unwrap()]).await;
    assert_eq!(again.status.code(), Some(1), "it is there already");
    for suffix in ["", "-wal"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", config.queue().display()));
    }
    std::fs::rename(new, config.queue()).unwrap();
    let receiver = Receiver::builder().port(port).start().await;
    sidecar.restart().await;
    eventually(SOON, "all arrive", async || receiver.tally().unique == 20).await;
}

#[tokio::test]
async fn a_log_that_lost_what_was_accepted_is_reported_and_the_rest_goes_on() {
    let port = free_port();
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &format!("http://127.0.0.1:{port}/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    accept(&client, EVENTS, event("ds_1")).await;
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    sidecar.restart().await;
    accept(&Client::new(sidecar.ingest()), EVENTS, event("ds_2")).await;
    sidecar.kill().await;
    let log = format!("{}-wal", config.queue().display());
    OpenOptions::new().write(true).open(log).unwrap().set_len(0).unwrap();
    let receiver = Receiver::builder().port(port).start().await;
    sidecar.restart().await;
    let told = sidecar.logs().into_iter().filter(|line| line.contains("the log was truncated or damaged"));
    let told: Vec<_> = told.collect();
    assert!(told.len() == 1 && told[0].contains("ERROR") && told[0].contains("are lost"), "{told:?}");
    accept(&Client::new(sidecar.ingest()), EVENTS, event("ds_3")).await;
    eventually(SOON, "what is left arrives", async || receiver.count() == 2).await;
    // A restart after a graceful shutdown, or after a kill that lost nothing, says nothing.
    for graceful in [true, false] {
        match graceful {
            true => assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs()),
            false => sidecar.kill().await,
        }
        sidecar.restart().await;
        let logs = sidecar.logs();
        assert!(!logs.iter().any(|line| line.contains("the log")), "{logs:?}");
    }
}
