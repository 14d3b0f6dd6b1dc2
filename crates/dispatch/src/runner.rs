//! The task around a lane: it carries out what [`Lane`] decides, and tells it what happened.

use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_config::{Config, Webhook};
use aquarium_delivery::{Exhaustion, Timestamp, WebhookName};
use aquarium_queue::{Delivery, Error, Key, Page, Pause, Queue, Report, Settlement, Watcher};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::attempt::{Ended, Target, attempt};
use crate::control::{LaneStatus, Unusual};
use crate::lane::{Concluded, Item, Lane, Notice, Step};
use crate::slots::{Seat, Slot, Slots};
use crate::{Budget, Chance, Clock, Limits, Observe, ObserveLane, Reserved, Sender};

/// How long a lane with nothing to do stays, so that the next event finds it.
const LINGER: Duration = Duration::from_secs(10);
/// How long a failed queue is left alone before it is asked again.
const QUEUE_RETRY: Duration = Duration::from_secs(1);
/// The longest sleep, after which the wall clock is looked at again: it may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What all lanes share.
#[derive(Debug)]
pub(crate) struct Shared<Q, S> {
    pub(crate) queue: Q,
    pub(crate) sender: S,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) slots: Slots,
    pub(crate) bodies: Budget,
    /// Bodies of attempts that are their lanes' only ones, when there is no room among the others.
    pub(crate) first_bodies: Budget,
    pub(crate) limits: Limits,
    pub(crate) unusual: Unusual,
    pub(crate) observer: Arc<dyn Observe>,
    /// All lanes stop: attempts under way may end, and no new one starts.
    pub(crate) stop: CancellationToken,
}

/// Tells a lane that offers were left in the queue.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    happened: AtomicBool,
    notify: Notify,
}

impl Missed {
    pub(crate) fn set(&self) {
        self.happened.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> bool {
        self.happened.swap(false, Ordering::AcqRel)
    }
}

/// How a lane is reached.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) offers: mpsc::Receiver<Vec<Delivery>>,
    pub(crate) missed: Arc<Missed>,
    /// While it is not active, nothing is sent; the lane ends when nothing is under way any more.
    pub(crate) webhook: watch::Receiver<Arc<Webhook>>,
}

/// What a lane leaves behind.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) webhook: WebhookName,
    /// The URL that answered 410 Gone.
    pub(crate) suspended: Option<String>,
    /// The pause that its endpoint asked for, if it is not over.
    pub(crate) paused: Option<Pause>,
    /// True if there may be more to send, when it may be sent.
    pub(crate) held: bool,
    /// Offers that came too late for it.
    pub(crate) offers: Vec<Delivery>,
}

type Claiming = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;
type Recording = Pin<Box<dyn Future<Output = Recorded> + Send>>;

pub(crate) struct Runner<Q, S> {
    shared: Arc<Shared<Q, S>>,
    inputs: Inputs,
    lane: Lane,
    target: Target,
    attempts: JoinSet<Attempted>,
    claiming: Option<Claiming>,
    /// Decided since the lane last waited; recorded together.
    concluded: Vec<(Settlement, Option<(Watcher, Report)>)>,
    recordings: FuturesUnordered<Recording>,
    seat: Seat,
    slot: Option<Slot>,
    /// Set from when it waits for a slot until it has one, or gives up.
    waits_for_slot: bool,
    /// What was said last to be unusual about the lane.
    unusual: Option<LaneStatus>,
    observer: Arc<dyn ObserveLane>,
    stopping: bool,
}

/// Settlements that are durable.
struct Recorded {
    keys: Vec<Key>,
    /// How many deliveries waited for them, and are due now.
    released: usize,
}

/// One attempt's end.
struct Attempted {
    key: Key,
    ended: Ended,
}

impl<Q: Queue, S: Sender> Runner<Q, S> {
    /// A lane whose first stored delivery is due at `next_due`, and that sends nothing before the end of a pause.
    pub(crate) fn new(
        shared: Arc<Shared<Q, S>>,
        mut inputs: Inputs,
        next_due: Option<Timestamp>,
        pause: Option<Timestamp>,
    ) -> Self {
        let webhook = inputs.webhook.borrow_and_update().clone();
        let mut lane = Lane::new(webhook.clone(), next_due);
        if let Some(until) = pause {
            lane.pause(until);
        }
        Self {
            seat: shared.slots.seat(),
            observer: shared.observer.lane(&webhook.name),
            shared,
            inputs,
            lane,
            target: Target::new(webhook),
            attempts: JoinSet::new(),
            claiming: None,
            concluded: Vec::new(),
            recordings: FuturesUnordered::new(),
            slot: None,
            waits_for_slot: false,
            unusual: None,
            stopping: false,
        }
    }

    pub(crate) async fn run(mut self) -> Exit {
        loop {
            let now = self.shared.clock.now();
            if self.stopping && self.lane.is_idle() {
                break;
            }
            let sending = !self.stopping && self.lane.wants_to_send(now);
            if sending && self.slot.is_none() {
                self.slot = self.seat.try_take();
            }
            match self.lane.next(now, sending && self.slot.is_some()) {
                Step::Send(item) => self.start(*item),
                Step::Conclude(concluded) => self.conclude(*concluded),
                Step::Claim(mut claim) => {
                    claim.bytes = self.shared.bodies.spare().min(self.shared.limits.lane_bytes);
                    let queue = self.shared.queue.clone();
                    self.claiming = Some(Box::pin(async move { queue.claim(claim).await }));
                }
                Step::Wait(until) => {
                    self.wait(until, sending).await;
                }
                Step::End if self.lane.is_held() => break,
                Step::End => {
                    if !self.wait(Some(now + LINGER), false).await {
                        break;
                    }
                }
            }
        }
        self.exit()
    }

    fn tell_unusual(&mut self, status: Option<LaneStatus>) {
        if self.unusual != status {
            self.shared.unusual.set(self.lane.name(), status.clone());
            self.unusual = status;
        }
    }

    fn exit(mut self) -> Exit {
        self.tell_unusual(None);
        self.inputs.offers.close();
        let mut offers = Vec::new();
        while let Ok(late) = self.inputs.offers.try_recv() {
            offers.extend(late);
        }
        Exit {
            webhook: self.lane.name().clone(),
            suspended: self.lane.suspended().map(str::to_owned),
            paused: self.lane.paused(self.shared.clock.now()),
            held: self.lane.is_held(),
            offers,
        }
    }

    /// Waits until something happens, and tells the lane that and whatever else has happened. False if it was only that
    /// time has passed.
    async fn wait(&mut self, until: Option<Timestamp>, wants_slot: bool) -> bool {
        self.record_concluded();
        self.tell_unusual(self.lane.status(self.shared.clock.now()));
        let happened = self.next_happening(until, wants_slot).await;
        self.drain();
        happened
    }

    /// Takes what is there without waiting for it: to wait is the expensive part.
    fn drain(&mut self) {
        while let Some(attempted) = self.attempts.try_join_next() {
            self.joined(attempted);
        }
        while let Some(Some(recorded)) = self.recordings.next().now_or_never() {
            self.recorded(recorded);
        }
        while let Ok(offers) = self.inputs.offers.try_recv() {
            self.offered(offers);
        }
    }

    async fn next_happening(&mut self, until: Option<Timestamp>, wants_slot: bool) -> bool {
        if !wants_slot {
            self.slot = None;
            if std::mem::take(&mut self.waits_for_slot) {
                self.seat.give_up();
            }
        }
        self.waits_for_slot = wants_slot && self.slot.is_none();
        let shared = self.shared.clone();
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep(until.since(shared.clock.now()).min(LONGEST_SLEEP)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(attempted) = self.attempts.join_next() => self.joined(attempted),
            Some(recorded) = self.recordings.next() => self.recorded(recorded),
            page = ready_or_pending(&mut self.claiming) => {
                self.claiming = None;
                self.claimed(page);
            }
            slot = poll_fn(|context| self.seat.poll_take(context)), if self.waits_for_slot => self.slot = Some(slot),
            offers = self.inputs.offers.recv() => match offers {
                Some(offers) => self.offered(offers),
                None => self.stopping = true,
            },
            () = self.inputs.missed.notify.notified() => {
                if self.inputs.missed.take() {
                    self.lane.missed_offers(shared.clock.now());
                }
            }
            Ok(()) = self.inputs.webhook.changed() => {
                let webhook = self.inputs.webhook.borrow_and_update().clone();
                self.target = Target::new(webhook.clone());
                self.lane.configure(webhook);
            }
            () = shared.stop.cancelled(), if !self.stopping => self.stopping = true,
            () = sleep => return false,
        }
        true
    }

    fn offered(&mut self, offers: Vec<Delivery>) {
        let keep = self.lane.keeps_bodies(self.shared.clock.now());
        for mut delivery in offers {
            delivery.body.take_if(|_| !keep);
            let reserved = reserve(&self.shared.bodies, &mut delivery);
            self.lane.offer(Item { delivery, reserved });
        }
    }

    fn claimed(&mut self, page: Result<Page, Error>) {
        let now = self.shared.clock.now();
        match page {
            Ok(page) => self.lane.claimed(page, |delivery| reserve(&self.shared.bodies, delivery)),
            Err(error) => {
                // The queue logs damage, once.
                if !matches!(error, Error::Damaged(_)) {
                    warn!(webhook = %self.lane.name(), %error, "reading deliveries failed, it is tried again");
                }
                self.lane.claim_failed(now + QUEUE_RETRY);
            }
        }
    }

    fn start(&mut self, item: Item) {
        let (slot, alone) = (self.slot.take(), self.attempts.is_empty());
        let (shared, target) = (self.shared.clone(), self.target.clone());
        // A task is moved about a dozen times while it is spawned and ended: not with three kilobytes of attempt in it.
        self.attempts.spawn(Box::pin(async move {
            let key = item.delivery.key;
            // A defect must not take the delivery's place in the lane along with the task.
            let ended = AssertUnwindSafe(attempt(&shared, &target, item, alone)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|_| {
                error!(webhook = %target.name(), "an attempt broke off; it is made again");
                Ended::Untried
            });
            drop(slot);
            Attempted { key, ended }
        }));
    }

    fn joined(&mut self, attempted: Result<Attempted, JoinError>) {
        match attempted {
            Ok(attempted) => self.attempted(attempted),
            Err(error) => error!(webhook = %self.lane.name(), %error, "an attempt broke off"),
        }
    }

    fn recorded(&mut self, Recorded { keys, released }: Recorded) {
        for key in keys {
            self.lane.recorded(key);
        }
        if released > 0 {
            self.lane.released(self.shared.clock.now());
        }
    }

    fn attempted(&mut self, Attempted { key, ended }: Attempted) {
        let (now, chance) = (self.shared.clock.now(), &self.shared.chance);
        let made = match ended {
            Ended::Made(made) => made,
            Ended::Untried => return self.lane.untried(key, now + QUEUE_RETRY),
            Ended::Damaged => {
                if let Some(concluded) = self.lane.damaged(key, now) {
                    self.conclude(concluded);
                }
                return;
            }
        };
        self.observer.attempted(&made.sent);
        if let Some(traced) = &made.traced {
            self.observer.traced(traced, made.at, &made.webhook, &made.sent);
        }
        let random = (chance.fraction(), chance.fraction());
        if let Some(concluded) = self.lane.attempted(key, made, now, random) {
            self.conclude(concluded);
        }
    }

    fn conclude(&mut self, Concluded { since, settlement, report, notices }: Concluded) {
        self.observer.settled(&settlement.state, settlement.at.since(since));
        for notice in notices {
            self.log(notice);
        }
        self.concluded.push((settlement, report));
    }

    fn record_concluded(&mut self) {
        if !self.concluded.is_empty() {
            let concluded = std::mem::take(&mut self.concluded);
            self.recordings.push(Box::pin(record(self.shared.queue.clone(), concluded)));
        }
    }

    fn log(&self, notice: Notice) {
        let webhook = self.lane.name();
        match notice {
            Notice::BreakerOpened(outcome) => {
                warn!(%webhook, last = %outcome, "breaker opened: the endpoint keeps failing, only probes are sent");
            }
            Notice::BreakerClosed => info!(%webhook, "breaker closed: the endpoint answers again"),
            Notice::Paused(until) => info!(%webhook, %until, "the endpoint asked for a pause"),
            Notice::Suspended => {
                warn!(%webhook, "suspended: the endpoint answered 410 Gone; its deliveries are held until it is resumed, or its URL changes");
            }
            Notice::Exhausted(delivery, why @ Exhaustion::Damaged, _) => {
                error!(%webhook, %delivery, %why, "delivery exhausted: what is stored of it does not match its checksum, and it was not sent; post the event again, and check the file with `aquarium-sidecar queue verify`");
            }
            Notice::Exhausted(delivery, why, Some(last)) => {
                warn!(%webhook, %delivery, %why, %last, "delivery exhausted");
            }
            Notice::Exhausted(delivery, why, None) => warn!(%webhook, %delivery, %why, "delivery exhausted"),
        }
    }
}

/// Completes with the future's output if there is one, and never otherwise.
async fn ready_or_pending<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Keeps the body if there is room for it; otherwise it is read again when its turn comes.
fn reserve(bodies: &Budget, delivery: &mut Delivery) -> Option<Reserved> {
    delivery.body.as_ref()?;
    let reserved = bodies.try_reserve_spare(delivery.size);
    if reserved.is_none() {
        delivery.body = None;
    }
    reserved
}

/// Records settlements, however long the queue is away: what was sent must not be sent again. Whoever watches hears of
/// it when it is durable.
async fn record<Q: Queue>(queue: Q, concluded: Vec<(Settlement, Option<(Watcher, Report)>)>) -> Recorded {
    let (settlements, reports): (Vec<_>, Vec<_>) = concluded.into_iter().unzip();
    let keys = settlements.iter().map(|settlement| settlement.delivery).collect();
    let released = loop {
        match queue.settle(settlements.clone()).await {
            Ok(released) => break released,
            // Nothing can be recorded any more in this process.
            Err(Error::Closed | Error::Damaged(_)) => return Recorded { keys, released: 0 },
            Err(_) => tokio::time::sleep(QUEUE_RETRY).await,
        }
    };
    for (watcher, report) in reports.into_iter().flatten() {
        // Whoever watched may have gone, or has heard enough.
        let _ = watcher.try_send(report);
    }
    Recorded { keys, released }
}
