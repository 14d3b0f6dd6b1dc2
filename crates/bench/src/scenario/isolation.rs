//! 1,000 webhooks, of which one hangs, one drips its answers and one resets its connections; beside it the same without
//! anything for these three, and the same without the breakers that would spare everybody most of their attempts.

use std::time::Duration;

use anyhow::{Result, ensure};
use aquarium_testkit::client::Client;
use aquarium_testkit::receiver::{Behaviour, Receiver};

use crate::ledger::Spread;
use crate::load::{Load, Pace};
use crate::payload::Payload;
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::run::{Run, measure, millis};
use crate::scenario::relay::EVENT;
use crate::scenario::rows;
use crate::stage::{Bench, Plan, Stage};

/// The healthy ones, each of a project of its own.
const HEALTHY: Spread = Spread { projects: 997, active: 997, turn: u64::MAX, webhooks: 1 };
/// What waits for each of the others: more than they can have under way for as long as it lasts.
const BACKLOG: usize = 500;
/// Events a second at which latencies are compared.
const RATE: f64 = 3_000.0;
/// How often each run is made, in turn with the others, so that what else the machine does meets all of them.
const ROUNDS: usize = 3;

/// Prints the tables.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let time = bench.time / 2;
    let closed = compare(bench, report, Pace::Closed(time), "as fast as it goes").await?;
    let ratio = closed.with.delivered_rate() / closed.without.delivered_rate();
    report.verdict("isolation: delivered/s, with ÷ without", ratio, Wanted::AtLeast(0.9, 0.95));
    let open = compare(bench, report, Pace::Open(RATE, time), "3,000 events/s").await?;
    let p99 = |run: &Run| millis(&run.accept, 0.99) + millis(&run.deliver, 0.99);
    let ratio = p99(&open.with) / p99(&open.without);
    report.verdict("isolation: p99 to delivery, with ÷ without", ratio, Wanted::AtMost(1.1, 1.05));
    Ok(())
}

/// What is beside the healthy webhooks.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// The three bad ones, as they are configured by default but for a shorter timeout.
    Bad,
    /// The same, tried as often as there is a place for it.
    WithoutBreakers,
}

impl Beside {
    /// What is configured about the three.
    fn settings(self) -> &'static str {
        match self {
            Beside::Nothing | Beside::Bad => "timeout = \"5s\"",
            Beside::WithoutBreakers => {
                "timeout = \"5s\"\nbreaker_failures = 1000000\nretry = [\"100ms\", \"100ms\", \"100ms\"]"
            }
        }
    }
}

struct Compared {
    without: Run,
    with: Run,
}

async fn compare(bench: &Bench, report: &mut Report, pace: Pace, how: &str) -> Result<Compared> {
    let (mut without, mut with, mut worse) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("isolation: {how}, round {round} of {ROUNDS}"));
        without.push(run_beside(bench, pace, Beside::Nothing).await?);
        with.push(run_beside(bench, pace, Beside::Bad).await?);
        worse.push(run_beside(bench, pace, Beside::WithoutBreakers).await?);
    }
    let compared = Compared { without: Run::merge(without)?, with: Run::merge(with)? };
    let title = format!("isolation: 997 webhooks, {how}");
    let mut table = Table::new(&title, &["by themselves", "beside 3 bad ones", "without breakers"]);
    rows(&mut table, &[Some(&compared.without), Some(&compared.with), Some(&Run::merge(worse)?)]);
    report.table(&table)?;
    Ok(compared)
}

async fn run_beside(bench: &Bench, pace: Pace, beside: Beside) -> Result<Run> {
    let receiver = Receiver::builder()
        .script(|request| match request.path.as_str() {
            "/hangs" => Behaviour::Hang,
            "/drips" => Behaviour::DripBody { interval: Duration::from_millis(200) },
            _ => Behaviour::Reset,
        })
        .record_bodies(false)
        .start()
        .await;
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), HEALTHY);
    plan.concurrency = 16;
    let lines = beside.settings();
    let webhooks = ["hangs", "drips", "resets"].map(|name| {
        let url = receiver.url(&format!("/{name}"));
        format!("[projects.{name}.webhooks.w]\nurl = \"{url}\"\nevents = [\"*\"]\n{lines}\n")
    });
    plan.organizations.push(("bad".to_owned(), webhooks.concat()));
    let mut stage = Stage::start(bench, plan).await?;
    if beside != Beside::Nothing {
        let event = |name: &str| format!("{{\"event\":\"test\",\"project\":\"{name}\"}}\n");
        let client = Client::new(stage.sidecar.ingest());
        for name in ["hangs", "drips", "resets"] {
            let headers = [("Content-Type", "application/x-ndjson")];
            let batch = event(name).repeat(BACKLOG);
            let answer = client.post("/v1/organizations/bad/events/batch", &headers, batch).await?;
            ensure!(answer.status == 202, "{}", answer.text());
        }
    }
    let connections = bench.connections;
    let load = Load { address: stage.ingest()?, door: Door::Single, connections, pace };
    let run = measure(load, stage.ledger.clone(), &[stage.sidecar.pid()]).await?;
    ensure!(
        beside == Beside::Nothing || receiver.count() > 10,
        "the bad ones were not sent to: {}",
        receiver.count()
    );
    stage.stop().await?;
    stage.ledger.check(true)?;
    Ok(run)
}
