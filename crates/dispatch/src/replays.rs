//! Replays in bulk: jobs that send again what was stored, in the background.
//!
//! A job goes through the stored rows oldest first, a bounded step at a time. What a step sends again, and how far the job
//! has come by it, is one commit: a kill loses nothing and repeats nothing. Before the next step it waits until half of
//! what it sent again has had its attempt, as long as there are attempts at all: so little more than one step's deliveries
//! stand beside fresh events, also where an endpoint is slow or limited; and a lane sends what is fresh first. What nobody
//! tries, since its endpoint is down or asks for a pause, is not waited for: it is in the queue, and its lane takes it up
//! when it can.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::Config;
use aquarium_delivery::{DeliveryId, ReplayId, Timestamp, WebhookName};
use aquarium_queue::history::{
    Added, DeliverySummary, Direction, EventSummary, History, Job, JobFilter, JobState, JobStep, Replay,
    Select, StateKind,
};
use aquarium_queue::{Error, Key, Report};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Chance, Clock};

/// Deliveries of one step.
const STEP: usize = 128;
/// Jobs that go on at the same time; further ones wait for one of them to end.
const AT_ONCE: usize = 4;
/// Jobs that are looked at for those that go on.
const JOBS: usize = 1_000;
/// How long the next one of a step's first attempts is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a webhook that had none by then is not waited for.
const STALLED: Duration = Duration::from_secs(60);
/// The rest between two steps that found nothing.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a failed queue is left alone before it is asked again.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

/// Tells that there is a new job.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Has the jobs looked at.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Runs the jobs that a queue holds.
#[derive(Debug)]
pub struct Replays<Q> {
    parts: Parts<Q>,
    waker: Waker,
}

#[derive(Debug, Clone)]
struct Parts<Q> {
    queue: Q,
    config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    chance: Chance,
}

impl<Q: History> Replays<Q> {
    /// Runs the jobs in `queue`.
    pub fn new(
        queue: Q,
        config: watch::Receiver<Arc<Config>>,
        clock: Clock,
        chance: Chance,
    ) -> (Self, Waker) {
        let waker = Waker::default();
        (Self { parts: Parts { queue, config, clock, chance }, waker: waker.clone() }, waker)
    }

    /// Runs until `shutdown`. Jobs that are not done by then go on with the next start.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { parts, waker } = self;
        let mut running: JoinSet<ReplayId> = JoinSet::new();
        let mut ids = HashMap::new();
        loop {
            let found = parts.queue.jobs(JOBS).await;
            let failed = found.is_err();
            // The first come, the first served.
            for job in found.unwrap_or_default().into_iter().rev() {
                if job.state == JobState::Running && ids.len() < AT_ONCE && !ids.contains_key(&job.id) {
                    let id = job.id;
                    let task = running.spawn(Runner::new(parts.clone(), job).run());
                    ids.insert(id, task.id());
                }
            }
            let again = async {
                match failed {
                    true => sleep(QUEUE_RETRY).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = waker.0.notified() => {}
                () = again => {}
                Some(ended) = running.join_next_with_id() => match ended {
                    Ok((_, id)) => drop(ids.remove(&id)),
                    Err(broken) => {
                        error!(error = %broken, "a replay broke off; it goes on where it was");
                        ids.retain(|_, task| *task != broken.id());
                        sleep(QUEUE_RETRY).await;
                    }
                }
            }
        }
    }
}

/// One job at work.
struct Runner<Q> {
    parts: Parts<Q>,
    job: Job,
    /// The webhooks that are not waited for, and until when.
    stalled: HashMap<WebhookName, Timestamp>,
}

/// What one page comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    deliveries: Vec<Key>,
    added: Vec<Added>,
    /// Where each of them goes, if somebody will try it soon.
    webhooks: Vec<WebhookName>,
    passed_over: u64,
    /// Where the job goes on. `None` if it has come to its end.
    next: Option<Key>,
}

impl<Q: History> Runner<Q> {
    fn new(parts: Parts<Q>, job: Job) -> Self {
        Self { parts, job, stalled: HashMap::new() }
    }

    async fn run(mut self) -> ReplayId {
        info!(replay = %self.job.id, "a replay goes on");
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(Error::Closed) => break,
                Err(error) => {
                    // The queue logs damage, once.
                    if !matches!(error, Error::Damaged(_)) {
                        warn!(replay = %self.job.id, %error, "a step of a replay failed, it is made again");
                    }
                    sleep(QUEUE_RETRY).await;
                }
            }
        }
        self.job.id
    }

    /// False if that was the last one.
    async fn step(&mut self) -> Result<bool, Error> {
        let work = self.work().await?;
        let number = work.deliveries.len() + work.added.len();
        let (watcher, reports) = mpsc::channel(number.max(1));
        let next = work.next;
        let replay = Replay {
            at: self.parts.clock.now(),
            deliveries: work.deliveries,
            added: work.added,
            step: Some(JobStep { id: self.job.id, next, passed_over: work.passed_over }),
            watcher: (number > 0).then_some(watcher),
        };
        let replayed = self.parts.queue.replay(replay).await?;
        self.job.next = next;
        // What was cancelled does nothing any more, and says so.
        let goes_on = match self.parts.queue.job(self.job.id).await? {
            Some(job) => job.state == JobState::Running,
            None => false,
        };
        if !goes_on {
            info!(replay = %self.job.id, "a replay has ended");
            return Ok(false);
        }
        match replayed.revived + replayed.added {
            0 => sleep(PAUSE).await,
            sent_again => self.attempts(reports, sent_again, work.webhooks).await,
        }
        Ok(true)
    }

    async fn work(&self) -> Result<Work, Error> {
        let from = Some(self.job.next.unwrap_or(self.job.start));
        let queue = &self.parts.queue;
        match &self.job.what {
            JobFilter::Deliveries(filter) => {
                let direction = Direction::OldestFirst;
                let select = Select { filter: filter.clone(), direction, from, limit: STEP };
                let page = queue.deliveries(select).await?;
                let config = self.parts.config.borrow().clone();
                Ok(of_deliveries(&page.items, page.next, self.job.end, &config))
            }
            JobFilter::Missed(missed) => {
                let page = queue.missed(missed.clone(), from, STEP).await?;
                let config = self.parts.config.borrow().clone();
                let random = || self.parts.chance.bytes();
                Ok(of_missed(&page.items, page.next, self.job.end, &missed.webhook, &config, random))
            }
        }
    }

    /// Waits until half of the deliveries that somebody will try had their attempt, and no longer than it is worth.
    async fn attempts(
        &mut self,
        mut reports: mpsc::Receiver<Report>,
        sent_again: usize,
        webhooks: Vec<WebhookName>,
    ) {
        let now = self.parts.clock.now();
        self.stalled.retain(|_, until| *until > now);
        let expected = webhooks.iter().filter(|webhook| !self.stalled.contains_key(*webhook)).count();
        let wanted = expected.min(sent_again).div_ceil(2);
        let mut heard = 0;
        while heard < wanted {
            // As long as there are any, there is no hurry: what is fresh must not stand behind all that is replayed.
            let deadline = Instant::now() + PATIENCE;
            match timeout_at(deadline, reports.recv()).await {
                Ok(Some(_)) => heard += 1,
                // Nobody will say anything about those that are left.
                Ok(None) => return tokio::time::sleep_until(deadline).await,
                Err(_) => {
                    if heard == 0 {
                        self.stalled.extend(webhooks.into_iter().map(|webhook| (webhook, now + STALLED)));
                    }
                    return;
                }
            }
        }
    }
}

/// What a page of deliveries comes to. Tests are not sent again, what is pending is on its way already, and nobody would
/// send what goes to a webhook that there is no more.
fn of_deliveries(items: &[DeliverySummary], next: Option<Key>, end: Key, config: &Config) -> Work {
    let mut work = Work { next: next.filter(|next| *next < end), ..Work::default() };
    for item in items.iter().filter(|item| item.key < end) {
        let webhook = config.webhook(&item.webhook);
        match webhook {
            Some(webhook) if !item.test && item.state.kind() != StateKind::Pending => {
                work.deliveries.push(item.key);
                if webhook.active {
                    work.webhooks.push(item.webhook.clone());
                }
            }
            _ => work.passed_over += 1,
        }
    }
    work
}

/// What a page of events comes to that a webhook has no deliveries of: those of the types that it wants.
fn of_missed(
    items: &[EventSummary],
    next: Option<Key>,
    end: Key,
    name: &WebhookName,
    config: &Config,
    mut random: impl FnMut() -> [u8; 10],
) -> Work {
    let mut work = Work { next: next.filter(|next| *next < end), ..Work::default() };
    for item in items.iter().filter(|item| item.key < end) {
        let wants = |kind: &str| {
            let webhook = config.webhook(name)?;
            let kind = config.types.parse(kind).ok()?;
            webhook.events.wants(&kind).then_some(webhook)
        };
        let Some(webhook) = wants(&item.kind) else {
            work.passed_over += 1;
            continue;
        };
        let delivery = DeliveryId::new(item.accepted_at, random());
        work.added.push(Added { event: item.key, delivery, webhook: name.clone() });
        if webhook.active {
            work.webhooks.push(name.clone());
        }
    }
    work
}
