//! A sidecar between load and sink.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::sidecar::{Sidecar, Signal};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::disk;
use crate::ledger::{Ledger, Spread};
use crate::payload::Payload;
use crate::process;
use crate::request::{PROJECTS_OF_ORGANIZATION, organization};
use crate::sink::{Down, Protocol, Sink};

/// The longest that a sidecar may take to stop, and to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is the same for all scenarios.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The sidecar's binary.
    pub(crate) sidecar: PathBuf,
    /// Where queues are put.
    pub(crate) directory: PathBuf,
    /// The time of one measured run.
    pub(crate) time: Duration,
    /// Connections of the load.
    pub(crate) connections: usize,
}

/// How a sidecar is set up.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) payload: Payload,
    pub(crate) spread: Spread,
    /// Events that there may be in all.
    pub(crate) capacity: usize,
    /// Attempts under way at once of each webhook.
    pub(crate) concurrency: usize,
    pub(crate) protocol: Protocol,
    /// Further lines of `[delivery]`.
    pub(crate) delivery: &'static str,
    /// The lines of `[traces]`.
    pub(crate) traces: String,
    /// Further organizations, by name, that the load does not know.
    pub(crate) organizations: Vec<(String, String)>,
}

impl Plan {
    /// A sidecar with these webhooks, for runs that measure it.
    pub(crate) fn new(bench: &Bench, payload: Payload, spread: Spread) -> Plan {
        // More than any sidecar accepts within that time. The pages that are not used are not there either.
        let capacity = (bench.time.as_secs_f64() * 150_000.0) as usize + 10_000;
        Plan {
            payload,
            spread,
            capacity,
            concurrency: 64,
            protocol: Protocol::Plain,
            delivery: "",
            traces: String::new(),
            organizations: Vec::new(),
        }
    }
}

/// A sidecar with its configuration, its queue and its record.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sidecar: Sidecar,
    /// From the start of its process until it was ready.
    pub(crate) started_in: Duration,
    sink: Option<Sink>,
    down: Option<Down>,
    _config: ConfigDirectory,
    _queue: TempDir,
}

impl Stage {
    /// Starts a sidecar, with its sink up.
    pub(crate) async fn start(bench: &Bench, plan: Plan) -> Result<Stage> {
        let mut stage = Stage::start_without_sink(bench, plan).await?;
        stage.sink_up().await?;
        Ok(stage)
    }

    /// Starts a sidecar whose sink refuses connections.
    pub(crate) async fn start_without_sink(bench: &Bench, plan: Plan) -> Result<Stage> {
        disk::rest(&bench.directory).await?;
        let down = Down::new(plan.protocol)?;
        let queue = TempDir::with_prefix_in("queue-", &bench.directory)?;
        let mut config = ConfigDirectory::new();
        let path = queue.path().join("queue.db");
        config.section("queue", &format!("path = {:?}\nmax_size = \"64GiB\"", path.to_string_lossy()));
        config.section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"2MiB\"");
        config.section("delivery", plan.delivery);
        // A binary from before there were traces knows no such section.
        if !plan.traces.is_empty() {
            config.section("traces", &plan.traces);
        }
        if let Some(pem) = down.authority() {
            config.write("ca.pem", pem);
            config.section("egress", "allow = [\"127.0.0.0/8\"]\nroots = { file = \"ca.pem\" }");
        }
        for (name, toml) in organizations(&plan, &down.url()).iter().chain(&plan.organizations) {
            config.organization(name, toml);
        }
        let ledger = Arc::new(Ledger::new(plan.payload, plan.spread, plan.capacity));
        let starting = Instant::now();
        let sidecar = Sidecar::start(&bench.sidecar, &config).await;
        ready(&sidecar).await?;
        let started_in = starting.elapsed();
        Ok(Stage {
            ledger,
            sidecar,
            started_in,
            sink: None,
            down: Some(down),
            _config: config,
            _queue: queue,
        })
    }

    /// From now on the sink takes deliveries.
    pub(crate) async fn sink_up(&mut self) -> Result<()> {
        let down = self.down.take().context("the sink is up")?;
        self.sink = Some(down.up(self.ledger.clone()).await?);
        Ok(())
    }

    /// Where events are posted to.
    pub(crate) fn ingest(&self) -> Result<std::net::SocketAddr> {
        Ok(self.sidecar.ingest().trim_start_matches("http://").parse()?)
    }

    /// Stops the sidecar in good order, and tells how many bytes it has caused to be written from its start to its end.
    pub(crate) async fn stop(&mut self) -> Result<u64> {
        let pid = self.sidecar.pid();
        self.sidecar.signal(Signal::TERM);
        process::ended(pid, PATIENCE).await?;
        let written = process::written(pid)?;
        let status = self.sidecar.wait(PATIENCE).await;
        if !status.success() {
            bail!("the sidecar ended with {status}:\n{}", self.sidecar.logs().join("\n"));
        }
        Ok(written)
    }

    /// Starts the stopped sidecar again. Tells how long it took until it was ready.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.sidecar.restart().await;
        ready(&self.sidecar).await?;
        Ok(started.elapsed())
    }
}

/// Waits until a sidecar says that it is ready.
async fn ready(sidecar: &Sidecar) -> Result<()> {
    let client = Client::new(sidecar.admin());
    let deadline = Instant::now() + PATIENCE;
    while client.get("/readyz").await?.status != 200 {
        if Instant::now() > deadline {
            bail!("the sidecar is not ready within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The files of the organizations. Webhooks are numbered through, so that a path tells which one was called.
fn organizations(plan: &Plan, url: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for project in 0..plan.spread.projects {
        let name = organization(project / PROJECTS_OF_ORGANIZATION);
        if files.last().is_none_or(|(last, _)| *last != name) {
            files.push((name, String::new()));
        }
        let Some((_, toml)) = files.last_mut() else { continue };
        for webhook in 0..plan.spread.webhooks {
            let number = project * plan.spread.webhooks + webhook;
            *toml += &format!(
                "[projects.p{project:05}.webhooks.w{webhook}]\nurl = \"{url}/h/{number}\"\nevents = [\"{}\"]\n\
                 concurrency = {}\n",
                plan.payload.kind(),
                plan.concurrency,
            );
        }
    }
    files
}
