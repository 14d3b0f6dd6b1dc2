//! What it costs to follow a large configuration: 200 organizations with 50 webhooks and a secret each.
//!
//! `cargo run --release -p aquarium-config --example reload_cost`
//!
//! Every figure is the processor time of this whole process, all of its threads together.
#![allow(clippy::unwrap_used, reason = "there is nothing to measure without")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::reload::{FileWatch, Handle, Hints, POLL, Parts, Reloader, Target};
use aquarium_config::{Config, Diff, Fs, Loaded, load};
use aquarium_delivery::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const ORGANIZATIONS: usize = 200;
const WEBHOOKS: usize = 50;
const REPEATS: usize = 20;
/// A few polls.
const IDLE: Duration = POLL.saturating_mul(4);

fn main() {
    let root = TempDir::new().unwrap();
    let dir = root.path();
    let bytes = write(dir);
    println!("{ORGANIZATIONS} organizations, {} webhooks, {bytes} bytes of TOML", ORGANIZATIONS * WEBHOOKS);

    let loaded = loaded(dir);
    report("load", (0..REPEATS).map(|_| cost(|| drop(self::loaded(dir)))));
    let look = report("look at what has not changed", (0..REPEATS).map(|_| cost(|| unchanged(&loaded))));
    share("look, as part of one core", look, POLL);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(follow(dir, loaded));
}

/// Changes one webhook at a time in what is being followed.
async fn follow(dir: &Path, loaded: Loaded) {
    let (hints, stop) = (Hints::new(), CancellationToken::new());
    let parts = Parts {
        dir: dir.to_owned(),
        source: Arc::new(Fs),
        watch: Box::new(FileWatch::new(hints.clone())),
        hints,
        target: Nothing,
        now: Box::new(Timestamp::default),
    };
    let (reloader, handle) = Reloader::new(parts, loaded);
    let task = tokio::spawn(reloader.run(stop.clone()));
    handle.reload().await.unwrap();

    let (mut in_force, mut at_rest) = (Vec::new(), Vec::new());
    for change in 0..REPEATS {
        let file = change * 7 % ORGANIZATIONS;
        let (first, all) = reload(&handle, dir, file, &format!("changed-{change}")).await;
        in_force.push(first);
        at_rest.push(all);
    }
    report("reload, until it is in force", in_force);
    report("reload, until all is at rest", at_rest);
    share("idle, as part of one core", idle().await, IDLE);
    stop.cancel();
    task.await.unwrap();
}

/// Changes one webhook, and returns the processor time until it is in force, and until nothing is left to do.
async fn reload(handle: &Handle, dir: &Path, organization: usize, at: &str) -> (Duration, Duration) {
    let mut config = handle.config();
    config.mark_unchanged();
    let before = processor_time();
    let path = dir.join(file(organization));
    fs::write(dir.join("new"), toml(organization, at)).unwrap();
    fs::rename(dir.join("new"), path).unwrap();
    config.changed().await.unwrap();
    let in_force = processor_time() - before;
    // Answered when all hints are dealt with, after a look of its own.
    handle.reload().await.unwrap();
    (in_force, processor_time() - before)
}

/// What following costs while nothing changes.
async fn idle() -> Duration {
    let before = processor_time();
    tokio::time::sleep(IDLE).await;
    processor_time() - before
}

struct Nothing;

impl Target for Nothing {
    async fn prepare(&mut self, _next: &Config, _diff: &Diff) -> Result<(), String> {
        Ok(())
    }
}

fn loaded(dir: &Path) -> Loaded {
    load(dir, &Fs).unwrap_or_else(|errors| panic!("{errors}"))
}

fn unchanged(loaded: &Loaded) {
    assert!(loaded.inputs.are_unchanged(&Fs));
}

/// Writes all of it, and returns how many bytes of TOML there are.
fn write(dir: &Path) -> usize {
    fs::create_dir(dir.join("organizations")).unwrap();
    fs::create_dir(dir.join("secrets")).unwrap();
    fs::write(dir.join("aquarium.toml"), "version = 1\n").unwrap();
    let organization = |number| {
        let toml = toml(number, "hooks");
        fs::write(dir.join(file(number)), &toml).unwrap();
        let secret = dir.join(format!("secrets/organization-{number:03}"));
        fs::write(secret, format!("the-secret-of-organization-{number:03}\n")).unwrap();
        toml.len()
    };
    (0..ORGANIZATIONS).map(organization).sum()
}

fn file(organization: usize) -> String {
    format!("organizations/organization-{organization:03}.toml")
}

/// The file of an organization whose first webhook is at `at`.
fn toml(organization: usize, at: &str) -> String {
    let mut toml =
        format!("version = 1\nsecret = {{ file = \"../secrets/organization-{organization:03}\" }}\n");
    for webhook in 0..WEBHOOKS {
        let at = if webhook == 0 { at } else { "hooks" };
        let project = webhook / 10;
        write!(
            toml,
            "\n[projects.project-{project}.webhooks.webhook-{webhook:02}]\n\
            url = \"https://receiver-{webhook}.organization-{organization:03}.example.com/{at}\"\n\
            events = [\"dataset-complete\", \"dataset-failed\", \"issue-exported\"]\n\
            timeout = \"10s\"\nconcurrency = 4\n"
        )
        .unwrap();
    }
    toml
}

fn cost(work: impl FnOnce()) -> Duration {
    let before = processor_time();
    work();
    processor_time() - before
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Prints how much of one core a cost is that comes up once in a while.
fn share(what: &str, cost: Duration, every: Duration) {
    println!("{what:32} {:8.2} %", 100.0 * cost.as_secs_f64() / every.as_secs_f64());
}

/// Prints the median and the worst, and returns the median.
fn report(what: &str, costs: impl IntoIterator<Item = Duration>) -> Duration {
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort();
    let (median, worst) = (costs[costs.len() / 2], costs[costs.len() - 1]);
    println!("{what:32} {median:10.2?} {worst:10.2?} at worst");
    median
}
