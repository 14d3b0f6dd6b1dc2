//! The load: events over a number of connections, as fast as they are answered, or at a fixed rate.
//!
//! At a fixed rate an event counts as sent when it should have been, whether or not there was a connection for it: what
//! waits for a slow answer is part of the latency (no coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::ledger::Ledger;
use crate::request::{Door, Request};
use crate::wire::Wire;

/// Shorter sleeps are not worth their cost: what is due within this time is sent together.
const TICK: Duration = Duration::from_micros(200);
/// The longest that requests may take after the last one was sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// When events are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends when it has its answer, for this time.
    Closed(Duration),
    /// The same, until so many events were sent.
    Count(u64),
    /// So many events a second for this time, whatever the answers.
    Open(f64, Duration),
}

/// What is sent, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) door: Door,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
}

/// What connections have in common.
#[derive(Debug)]
struct Shared {
    ledger: Arc<Ledger>,
    door: Door,
    /// The number of the first event that is sent: others may have been sent before.
    first: u64,
    /// Events that may be sent.
    limit: u64,
    stop: AtomicBool,
    schedule: Option<Schedule>,
}

/// When each event of an open loop is due.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    interval: Duration,
    /// A permit for each event that is due and not sent yet.
    due: Semaphore,
}

/// Sends it all from a thread of its own, and returns when all was answered.
///
/// # Errors
/// When anything is answered otherwise than it should, or not at all.
pub(crate) async fn run(load: Load, ledger: Arc<Ledger>) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(send_all(load, ledger))
    })
    .await?
}

async fn send_all(load: Load, ledger: Arc<Ledger>) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.address).await.context("the load cannot connect")?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let (limit, time, schedule) = match load.pace {
        Pace::Closed(time) => (u64::MAX, time, None),
        Pace::Count(events) => (events, PATIENCE, None),
        Pace::Open(rate, time) => {
            let interval = Duration::from_secs_f64(load.door.events() as f64 / rate);
            let schedule = Schedule { start: Instant::now() + TICK, interval, due: Semaphore::new(0) };
            ((rate * time.as_secs_f64()) as u64, time, Some(schedule))
        }
    };
    let (first, stop) = (ledger.taken(), AtomicBool::new(false));
    let shared = Arc::new(Shared { ledger, door: load.door, first, limit, stop, schedule });
    let pacer = shared.schedule.is_some().then(|| {
        let shared = shared.clone();
        std::thread::spawn(move || pace(&shared))
    });
    let mut tasks: JoinSet<Result<()>> =
        connections.into_iter().map(|stream| post(stream, shared.clone())).collect();
    if let Pace::Closed(time) = load.pace {
        let shared = shared.clone();
        tasks.spawn(async move {
            tokio::time::sleep(time).await;
            shared.stop.store(true, Relaxed);
            Ok(())
        });
    }
    let ending = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    };
    let ended = timeout(time + PATIENCE, ending).await;
    shared.stop.store(true, Relaxed);
    if let Some(pacer) = pacer {
        // It ends at the next tick, and cannot fail.
        let _ = pacer.join();
    }
    ended.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}"))
}

/// Lets the events out when they are due.
fn pace(shared: &Shared) {
    let Some(schedule) = &shared.schedule else { return };
    let requests = shared.limit.div_ceil(shared.door.events());
    let mut sent = 0;
    while sent < requests && !shared.stop.load(Relaxed) {
        let due = due(schedule.start.elapsed(), schedule.interval).min(requests);
        schedule.due.add_permits(usize::try_from(due - sent).unwrap_or(0));
        sent = due;
        let next = schedule.start + schedule.interval.mul_f64(sent as f64);
        std::thread::sleep(next.saturating_duration_since(Instant::now()).max(TICK));
    }
}

/// How many requests are due after this time; the first one is due at once.
fn due(elapsed: Duration, interval: Duration) -> u64 {
    elapsed.as_nanos().checked_div(interval.as_nanos()).map_or(0, |number| number as u64 + 1)
}

async fn post(stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    let (ledger, events) = (&shared.ledger, shared.door.events());
    let mut wire = Wire::new(stream);
    let mut request = Request::new(shared.door, ledger);
    while !shared.stop.load(Relaxed) {
        let is_wanted = |first: &u64| first - shared.first < shared.limit;
        let Some(first) = ledger.take(events).filter(is_wanted) else { return Ok(()) };
        let started = match &shared.schedule {
            None => ledger.now(),
            Some(schedule) => {
                schedule.due.acquire().await?.forget();
                let number = (first - shared.first) / events;
                ledger.time(schedule.start + schedule.interval.mul_f64(number as f64))
            }
        };
        ledger.started(first, events, started);
        wire.send(request.with(first, ledger)).await.context("the load cannot send")?;
        let wanted = shared.door.status();
        let refused = wire
            .answer(|status, body| {
                (status != wanted).then(|| (status, String::from_utf8_lossy(body).into_owned()))
            })
            .await?;
        if let Some((status, text)) = refused {
            bail!("an event was answered with {status}, not {wanted}: {text}");
        }
        ledger.accepted(first, events, ledger.now());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_should_have_been_sent_by_now_is_due_however_late_it_is() {
        let interval = Duration::from_micros(100);
        assert_eq!(due(Duration::ZERO, interval), 1);
        assert_eq!(due(Duration::from_micros(99), interval), 1);
        assert_eq!(due(Duration::from_micros(100), interval), 2);
        assert_eq!(due(Duration::from_secs(1), interval), 10_001);
    }
}
