//! What is found in a queue after a power cut.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use aquarium_delivery::Order;
use aquarium_queue::history::StateKind;
use aquarium_queue::sqlite::maintenance::{Closed, Error, export};
use aquarium_queue::sqlite::{self, OpenError, Options};
use aquarium_queue::{Accepted, Queue};

use crate::expected::{Expected, Found};
use crate::workload::{Load, REPEATED, body, claim, number, path, settlement, submission};

/// Repeats that are tried.
const REPEATS: usize = 12;
/// The number of an event that is accepted afterwards.
const AFTERWARDS: u64 = 1 << 40;

/// What is wrong with the queue in this directory: a line each.
pub(crate) async fn inspect(directory: &Path, load: Load, expected: &Expected) -> Vec<String> {
    let path = path(directory);
    let mut wrong = Vec::new();
    if !path.exists() {
        if expected.acknowledged() > 0 {
            return vec!["the file is lost".to_owned()];
        }
    } else {
        let found = match stored(&path, load) {
            Ok(found) => found,
            Err(error) => return vec![error],
        };
        wrong.extend(expected.compare(&found));
    }
    wrong.extend(use_it(&path, load, expected).await.err());
    wrong
}

/// Opens it as soon as it is free. Another test may be starting its process, which has all open files for a moment, and with
/// them the lock that was given back here.
fn free<T, E>(open: impl Fn() -> Result<T, E>, in_use: impl Fn(&E) -> bool) -> Result<T, E> {
    for _ in 0..1_000 {
        match open() {
            Err(error) if in_use(&error) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened,
        }
    }
    open()
}

/// The events in it, and what has become of them.
fn stored(path: &Path, load: Load) -> Result<BTreeMap<u64, Found>, String> {
    let closed = free(|| Closed::open(path), |error| matches!(error, Error::Open(OpenError::InUse { .. })));
    let closed = closed.map_err(|error| format!("it cannot be opened: {error}"))?;
    let wrong = closed.verify();
    if let Some(first) = wrong.first() {
        return Err(format!("it is damaged: {first} and {} more", wrong.len() - 1));
    }
    drop(closed);
    let mut found = BTreeMap::new();
    let mut wrong = None;
    let exported = export(path, false, |event| {
        let number = number(event.id);
        let state = match &event.deliveries[..] {
            [delivery] if delivery.state == StateKind::Pending => Found::Pending,
            [delivery] if delivery.state == StateKind::Delivered => Found::Delivered,
            other => {
                wrong = Some(format!("event {number} has the deliveries {other:?}"));
                return Ok(());
            }
        };
        if event.body != body(number, load.body) {
            wrong = Some(format!("event {number} has another body"));
        }
        if found.insert(number, state).is_some() {
            wrong = Some(format!("event {number} is there twice"));
        }
        Ok(())
    });
    exported.map_err(|error| format!("it cannot be read: {error}"))?;
    wrong.map_or(Ok(found), Err)
}

/// Uses the queue as the next process would.
async fn use_it(path: &Path, load: Load, expected: &Expected) -> Result<(), String> {
    let options = Options::new(path, u64::MAX);
    let opened = free(|| sqlite::open(&options), |error| matches!(error, OpenError::InUse { .. }));
    let (queue, commits, threads) = opened.map_err(|error| format!("it cannot be opened: {error}"))?;
    // Offers are of no interest.
    drop(commits);
    if load.order == Order::Fifo {
        in_order(&queue).await?;
    }
    if load.repeated > 0 {
        repeat(&queue, load, expected).await?;
    }
    let accepted = queue.accept(submission(load, AFTERWARDS, 1, None)).await;
    if !matches!(accepted, Ok(Accepted::Stored)) {
        return Err(format!("a new event is not accepted: {accepted:?}"));
    }
    drop(queue);
    tokio::task::spawn_blocking(|| threads.join()).await.unwrap();
    Ok(())
}

/// What waits in line comes one after another, in the order in which it was accepted.
async fn in_order(queue: &impl Queue) -> Result<(), String> {
    let mut waiting = claim(&HashSet::new());
    (waiting.parked, waiting.limit) = (true, usize::MAX);
    let mut wanted = Vec::new();
    for delivery in queue.claim(waiting).await.map_err(|error| error.to_string())?.deliveries {
        wanted.push((delivery.key, delivery.event));
    }
    wanted.sort_unstable();
    for (key, event) in wanted {
        let page = queue.claim(claim(&HashSet::new())).await.map_err(|error| error.to_string())?;
        let free: Vec<_> = page.deliveries.iter().map(|delivery| delivery.event).collect();
        if free != [event] {
            return Err(format!("{free:?} may be sent, where {event} is first in line"));
        }
        queue.settle(vec![settlement(key)]).await.map_err(|error| error.to_string())?;
    }
    match queue.claim(claim(&HashSet::new())).await {
        Ok(page) if page.deliveries.is_empty() => Ok(()),
        other => Err(format!("more than what waited may be sent: {other:?}")),
    }
}

/// The same submission again leads to the same events, if it was acknowledged.
async fn repeat(queue: &impl Queue, load: Load, expected: &Expected) -> Result<(), String> {
    // The latest are lost most easily.
    let keyed = expected.submissions.iter().rev().filter(|(_, submitted)| submitted.keyed);
    for (&first, submitted) in keyed.take(REPEATS) {
        let again = submission(load, first + 2 * REPEATED, submitted.count, Some(format!("key-{first}")));
        match queue.accept(again).await {
            Ok(Accepted::Repeated(receipts)) => {
                let named: Vec<u64> = receipts.iter().map(|receipt| number(receipt.event)).collect();
                if named != (first..first + submitted.count).collect::<Vec<_>>() {
                    return Err(format!("the key of event {first} leads to {named:?}"));
                }
            }
            Ok(Accepted::Stored) if !submitted.stored => {}
            other => return Err(format!("the key of event {first} is forgotten: {other:?}")),
        }
    }
    Ok(())
}
