//! 100,000 deliveries sent again, while fresh events come in for the same webhook.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use aquarium_testkit::client::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::ledger::Spread;
use crate::load::{self, Load, Pace};
use crate::payload::Payload;
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::run::{drained, millis};
use crate::scenario::relay::EVENT;
use crate::stage::{Bench, Plan, Stage};

/// Deliveries that are sent again.
const STORED: u64 = 100_000;
/// Fresh events a second.
const RATE: f64 = 1_000.0;
/// How long the replay may take after the fresh events.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    progress("replay: filling the queue");
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    plan.concurrency = 16;
    let mut stage = Stage::start(bench, plan).await?;
    let (ledger, address) = (stage.ledger.clone(), stage.ingest()?);
    let connections = bench.connections;
    let load = |pace, door| Load { address, door, connections, pace };
    load::run(load(Pace::Count(STORED), Door::Batch(100)), ledger.clone()).await?;
    drained(&ledger).await?;
    let stored = ledger.taken();

    progress("replay: fresh events alone");
    let fresh = || load(Pace::Open(RATE, bench.time), Door::Single);
    load::run(fresh(), ledger.clone()).await?;
    drained(&ledger).await?;
    let alone = ledger.taken();

    progress("replay: fresh events beside the replay");
    // The replay looks at what had been accepted when it was asked for.
    ledger.repeats_below(alone);
    let admin = Client::new(stage.sidecar.admin());
    let json = [("Content-Type", "application/json")];
    let body = json!({ "filter": { "event_type": "dataset-complete", "state": ["delivered"] } }).to_string();
    let answer = admin.post("/v1/replays", &json, body).await?;
    ensure!(answer.status == 202, "{}", answer.text());
    let path = format!("/v1/replays/{}", answer.json()["id"].as_str().unwrap_or_default());
    let started = Instant::now();
    load::run(fresh(), ledger.clone()).await?;
    let meanwhile = ledger.repeats();
    let fresh_took = started.elapsed();
    let replay = ended(&admin, &path).await?;
    let took = started.elapsed();
    drained(&ledger).await?;
    while ledger.repeats() < replay["replayed"].as_u64().unwrap_or_default() {
        ensure!(started.elapsed() < took + PATIENCE, "only {} deliveries came again", ledger.repeats());
        sleep(Duration::from_millis(5)).await;
    }
    stage.stop().await?;
    ledger.check(true)?;

    let ranges = [(stored, alone), (alone, ledger.taken())];
    let latencies = ranges.map(|(from, to)| ledger.latencies_of(from, to));
    let [without, with] = latencies;
    let (without, with) = (without?, with?);
    let mut table =
        Table::new("replay: 1,000 fresh events/s to one webhook", &["alone", "beside the replay"]);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        table.row(&format!("accept {name} ms"), [&without, &with].map(|of| Some(millis(&of.0, quantile))));
        let deliver = [&without, &with].map(|of| Some(millis(&of.1, quantile)));
        table.row(&format!("accept → delivered {name} ms"), deliver);
    }
    let rate = meanwhile as f64 / fresh_took.as_secs_f64();
    table.row("sent again meanwhile, deliveries/s", [None, Some(rate)]);
    table.row("sent again in all", [None, replay["replayed"].as_f64()]);
    table.row("the replay took, s", [None, Some(took.as_secs_f64())]);
    report.table(&table)?;
    let ratio = millis(&with.1, 0.99) / millis(&without.1, 0.99);
    report.verdict(
        "replay: p99 to delivery of fresh events, beside ÷ alone",
        ratio,
        Wanted::AtMost(3.0, 1.5),
    );
    Ok(())
}

async fn ended(admin: &Client, path: &str) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let replay = admin.get(path).await?.json();
        if replay["state"] == "done" {
            return Ok(replay);
        }
        if Instant::now() > deadline {
            bail!("the replay is not done: {replay}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
