//! The power goes at random moments: what was acknowledged is there, whatever the disk had kept of the rest.
//!
//! A process that uses a queue is recorded (`workload.rs`). Of what it did, a disk is rebuilt as it could have been at a
//! moment (`aquarium_testkit::power`), opened as a queue (`inspect.rs`), and compared with what had been acknowledged by
//! then (`expected.rs`). [`CUTS`] sets how many moments of each recording are tried; [`SEED`] repeats a run.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod expected;
mod inspect;
mod workload;

use std::path::Path;
use std::process::{Command, Stdio};

use aquarium_testkit::power::{Disk, Syncs, moments, restore};
use aquarium_testkit::random::Random;
use aquarium_testkit::recorder::{DIRECTORY, Record, Recorder, Recording};

use expected::Expected;
use inspect::inspect;
use workload::{LOADS, Load, old_queue};

/// How many cuts of each load are tried.
const CUTS: &str = "AQUARIUM_POWER_CUTS";
/// Without that.
const DEFAULT_CUTS: usize = 50;
/// Repeats a run, as far as it is up to the test: the number that it printed.
const SEED: &str = "AQUARIUM_POWER_SEED";
/// What the recorded process has to do, and where. It is this program, with one test.
const LOAD: &str = "AQUARIUM_POWER_LOAD";
const DIRECTORY_OF_LOAD: &str = "AQUARIUM_POWER_DIRECTORY";

/// What came of the cuts of a recording.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// Cuts after which something was missing, or wrong.
    lost: Vec<String>,
    acknowledged: u64,
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    check("plain load").await;
}

#[tokio::test]
async fn a_power_cut_while_the_log_is_written_back_loses_nothing() {
    let recording = check("checkpoints").await;
    let [log, file] = ["queue.db-wal", "queue.db"].map(|name| recording.file(name).unwrap());
    let records = recording.records();
    let is_beginning =
        |record: &Record| matches!(record, Record::Write { file, place: 0, .. } if *file == log);
    let logs = records.iter().filter(|record| is_beginning(record)).count();
    let syncs =
        records.iter().filter(|record| matches!(record, Record::SyncEnd { file: f, .. } if *f == file));
    assert!(logs >= 2 && syncs.clone().count() >= 2, "{logs} logs, {} written back: too few", syncs.count());
}

#[tokio::test]
async fn a_power_cut_during_a_purge_loses_nothing_else_and_brings_nothing_back() {
    let recording = check("purge").await;
    let purges = recording.marks().filter(|(_, mark)| mark.as_ref() == b"purged").count();
    assert!(purges >= 3, "too few to mean anything: {purges}");
}

#[tokio::test]
async fn order_is_kept_across_a_power_cut() {
    check("fifo").await;
}

#[tokio::test]
async fn an_idempotency_key_leads_to_the_same_events_after_a_power_cut() {
    check("idempotent repeats").await;
}

#[tokio::test]
async fn a_power_cut_while_the_queue_is_closed_or_opened_loses_nothing() {
    let recording = check("restarts").await;
    let gone = |record: &&Record| matches!(record, Record::Unlink { .. });
    assert!(recording.records().iter().filter(gone).count() >= 4, "the log was not removed");
}

#[tokio::test]
async fn a_power_cut_during_a_migration_loses_nothing() {
    check("migration").await;
}

#[tokio::test]
async fn on_a_disk_that_lies_losses_are_found() {
    let load = of("plain load");
    let recording = record(load);
    let mut random = Random::from_environment(SEED);
    // Each rebuilds everything: half as many.
    let tally = cut(load, &recording, Syncs::Ignored, cuts().div_ceil(2), &mut random).await;
    println!(
        "{} on a disk that lies: {} power cuts, {} with losses",
        load.name,
        tally.cuts,
        tally.lost.len()
    );
    assert!(tally.lost.len() * 4 > tally.cuts, "losses are not seen: {tally:?}");
}

/// The process that is recorded. The other tests start it.
#[test]
#[ignore = "the other tests run it, in a process of its own"]
fn workload_of_a_recorded_process() {
    let (Ok(load), Some(directory)) = (std::env::var(LOAD), std::env::var_os(DIRECTORY_OF_LOAD)) else {
        return;
    };
    workload::run(of(&load), Path::new(&directory));
}

fn of(name: &str) -> Load {
    LOADS.into_iter().find(|load| load.name == name).unwrap()
}

fn cuts() -> usize {
    std::env::var(CUTS).map_or(DEFAULT_CUTS, |cuts| cuts.parse().unwrap())
}

/// Nothing is lost by any cut of this load.
async fn check(name: &str) -> Recording {
    let load = of(name);
    let recording = record(load);
    let mut random = Random::from_environment(SEED);
    let tally = cut(load, &recording, Syncs::Honest, cuts(), &mut random).await;
    println!(
        "{name}: {} power cuts among {} records and {} acknowledged events, {} with losses",
        tally.cuts,
        recording.records().len(),
        tally.acknowledged,
        tally.lost.len()
    );
    assert!(tally.lost.is_empty(), "{}", tally.lost.join("\n"));
    assert!(tally.acknowledged > 50, "too few to mean anything: {}", tally.acknowledged);
    let [directory, files] = syncs(&recording);
    assert!(directory > 0 && files > 20, "too few syncs to mean anything: {directory} and {files}");
    recording
}

/// Has a process of its own do it, and records that.
fn record(load: Load) -> Recording {
    let directory = tempfile::tempdir().unwrap();
    if load.migrated {
        old_queue(load, directory.path());
    }
    let recorder = Recorder::of(directory.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "workload_of_a_recorded_process"])
        .envs(recorder.environment())
        .env(LOAD, load.name)
        .env(DIRECTORY_OF_LOAD, recorder.directory())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let recording = recorder.finish();
    let mut disk = Disk::new(&recording, Syncs::Honest);
    disk.advance(recording.records().len());
    let seen = disk.seen();
    assert!(seen.contains_key("queue.db"), "{:?}", seen.keys());
    for (name, data) in seen {
        assert!(data == std::fs::read(directory.path().join(&name)).unwrap(), "{name}: not all is recorded");
    }
    recording
}

/// How many syncs of the directory succeeded, and of files in it.
fn syncs(recording: &Recording) -> [usize; 2] {
    [true, false].map(|of_directory| {
        let ended = recording.records().iter().filter(|record| match record {
            Record::SyncEnd { file, .. } => (*file == DIRECTORY) == of_directory,
            _ => false,
        });
        ended.count()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Has the power go at so many moments, and looks what is there then.
async fn cut(load: Load, recording: &Recording, syncs: Syncs, cuts: usize, random: &mut Random) -> Tally {
    let mut tally = Tally::default();
    let mut disk = Disk::new(recording, syncs);
    let mut expected = Expected::before(load);
    let mut marks = recording.marks().peekable();
    for moment in moments(recording, cuts, random) {
        disk.advance(moment);
        while let Some((_, mark)) = marks.next_if(|(at, _)| *at <= moment) {
            expected.hear(mark);
        }
        let left = tempfile::tempdir().unwrap();
        restore(&disk.cut(random), left.path());
        let wrong = inspect(left.path(), load, &expected).await;
        if !wrong.is_empty() {
            let first = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
            tally.lost.push(format!("{}, after record {moment}: {} wrong: {first}", load.name, wrong.len()));
        }
        tally.cuts += 1;
        tally.acknowledged = expected.acknowledged();
    }
    tally
}
