//! What it costs to follow a large configuration: 200 organizations with 50 webhooks and a secret each.
//!
//! `cargo run --release -p aquarium-config --example reload_cost`
//!
//! Every figure is the processor time of this whole process, all of its threads together.
#![allow(clippy::unwrap_used, reason = "there is nothing to measure without")]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
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
/// What is warned about if it is in a webhook: it gives up before its last retry.
const DOUBTFUL: &str = "retry = [\"1h\"]\ngive_up_after = \"1m\"\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for more in ["", DOUBTFUL] {
        let large = Large { root: TempDir::new().unwrap(), more };
        let bytes = large.write();
        let loaded = large.load();
        let (webhooks, warnings) = (loaded.config.webhooks().count(), loaded.warnings.len());
        println!("{ORGANIZATIONS} organizations, {webhooks} webhooks, {bytes} bytes, {warnings} warnings");
        report("load", (0..REPEATS).map(|_| cost(|| drop(large.load()))));
        let look = report("look at what has not changed", (0..REPEATS).map(|_| cost(|| unchanged(&loaded))));
        share("look, as part of one core", look, POLL);
        runtime.block_on(follow(&large, loaded));
    }
}

/// Changes one webhook at a time in what is being followed.
async fn follow(large: &Large, loaded: Loaded) {
    let (hints, stop) = (Hints::new(), CancellationToken::new());
    let parts = Parts {
        dir: large.path().to_owned(),
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
        let (first, all) = reload(&handle, large, change).await;
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
async fn reload(handle: &Handle, large: &Large, change: usize) -> (Duration, Duration) {
    let mut config = handle.config();
    config.mark_unchanged();
    let before = processor_time();
    large.change(change * 7 % ORGANIZATIONS, &format!("changed-{change}"));
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

fn unchanged(loaded: &Loaded) {
    assert!(loaded.inputs.are_unchanged(&Fs));
}

struct Nothing;

impl Target for Nothing {
    async fn prepare(&mut self, _next: &Config, _diff: &Diff) -> Result<(), String> {
        Ok(())
    }
}

/// The configuration on disk.
struct Large {
    root: TempDir,
    /// What each webhook has besides the usual.
    more: &'static str,
}

impl Large {
    fn path(&self) -> &Path {
        self.root.path()
    }

    fn load(&self) -> Loaded {
        load(self.path(), &Fs).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Writes all of it, and returns how many bytes of TOML there are.
    fn write(&self) -> usize {
        fs::create_dir(self.path().join("organizations")).unwrap();
        fs::create_dir(self.path().join("secrets")).unwrap();
        fs::write(self.path().join("aquarium.toml"), "version = 1\n").unwrap();
        (0..ORGANIZATIONS)
            .map(|number| {
                let secret = self.path().join(format!("secrets/organization-{number:03}"));
                fs::write(&secret, format!("the-secret-of-organization-{number:03}\n")).unwrap();
                fs::set_permissions(secret, Permissions::from_mode(0o600)).unwrap();
                self.change(number, "hooks")
            })
            .sum()
    }

    /// Puts another file in the place of an organization's, with its first webhook at `at`, and returns its size.
    fn change(&self, organization: usize, at: &str) -> usize {
        let new = self.path().join("new");
        let toml = self.organization(organization, at);
        fs::write(&new, &toml).unwrap();
        let file = format!("organizations/organization-{organization:03}.toml");
        fs::rename(new, self.path().join(file)).unwrap();
        toml.len()
    }

    fn organization(&self, organization: usize, at: &str) -> String {
        let mut toml =
            format!("version = 1\nsecret = {{ file = \"../secrets/organization-{organization:03}\" }}\n");
        for webhook in 0..WEBHOOKS {
            let at = if webhook == 0 { at } else { "hooks" };
            let (project, more) = (webhook / 10, self.more);
            write!(
                toml,
                "\n[projects.project-{project}.webhooks.webhook-{webhook:02}]\n\
                url = \"https://receiver-{webhook}.organization-{organization:03}.example.com/{at}\"\n\
                events = [\"dataset-complete\", \"dataset-failed\", \"issue-exported\"]\n\
                timeout = \"10s\"\nconcurrency = 4\n{more}"
            )
            .unwrap();
        }
        toml
    }
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
    println!("  {what:30} {:8.2} %", 100.0 * cost.as_secs_f64() / every.as_secs_f64());
}

/// Prints the median and the worst, and returns the median.
fn report(what: &str, costs: impl IntoIterator<Item = Duration>) -> Duration {
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort();
    let (median, worst) = (costs[costs.len() / 2], costs[costs.len() - 1]);
    println!("  {what:30} {median:10.2?} {worst:10.2?} at worst");
    median
}
