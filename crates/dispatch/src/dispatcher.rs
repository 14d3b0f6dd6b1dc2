//! Which lanes there are.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aquarium_config::{Config, Diff, Webhook, diff};
use aquarium_delivery::{Order, Timestamp, WebhookName};
use aquarium_queue::{Backlog, Commits, Delivery, Error, Pause, Queue};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::control::{Command, Control, Reply, Unusual};
use crate::runner::{Exit, Inputs, Missed, Runner, Shared};
use crate::slots::Slots;
use crate::{Budget, Chance, Clock, Observe, Sender, Unobserved};

/// Commits whose offers may wait for a lane. A lane empties its inbox whenever it runs.
const INBOX: usize = 16;
/// Offers kept for a lane that is about to end, to be given to the next one.
const LATE: usize = 1_024;

/// What bounds all lanes together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Attempts under way at once. One webhook alone gets half of them and one at the most; the last quarter is for
    /// webhooks that have none.
    pub in_flight: usize,
    /// Bytes of bodies in memory, ready or being sent.
    pub body_bytes: usize,
    /// Of these, what one lane asks for at once when it reads from the queue.
    pub lane_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 512, body_bytes: 32 * 1024 * 1024, lane_bytes: 4 * 1024 * 1024 }
    }
}

/// Runs a lane for each webhook that has something to send.
#[derive(Debug)]
pub struct Dispatcher<Q, S> {
    shared: Shared<Q, S>,
    commits: Commits,
    config: watch::Receiver<Arc<Config>>,
    control: Control,
    commands: mpsc::Receiver<Command>,
}

struct Lanes<Q, S> {
    shared: Arc<Shared<Q, S>>,
    current: Arc<Config>,
    running: HashMap<WebhookName, Handle>,
    tasks: JoinSet<Exit>,
    /// The suspended webhooks, and the URL that answered 410.
    suspended: HashMap<WebhookName, String>,
    /// Pauses that endpoints asked for, of webhooks that have no lane.
    paused: HashMap<WebhookName, Pause>,
    /// Suspensions that are being lifted in the queue. Those that an operator wants lifted are when that is done.
    resuming: JoinSet<Option<Resumed>>,
}

/// A suspension that an operator wants lifted, and that the queue has forgotten.
#[derive(Debug)]
struct Resumed {
    webhook: WebhookName,
    reply: Reply,
}

#[derive(Debug)]
struct Handle {
    task: Id,
    offers: mpsc::Sender<Vec<Delivery>>,
    missed: Arc<Missed>,
    webhook: watch::Sender<Arc<Webhook>>,
    /// Offers that came when it was about to end.
    late: Vec<Delivery>,
    /// Set if it was suspended, and is to be resumed when it has ended.
    resume: Option<Reply>,
}

/// What follows on `current` when `webhook` is configured, if that is anything else. One that was removed is not active
/// any more.
fn succeeding(current: &Arc<Webhook>, webhook: Option<&Arc<Webhook>>) -> Option<Arc<Webhook>> {
    match webhook {
        Some(webhook) => (current != webhook).then(|| webhook.clone()),
        None if !current.active => None,
        None => Some(Arc::new(Webhook { active: false, ..Webhook::clone(current) })),
    }
}

impl<Q: Queue, S: Sender> Dispatcher<Q, S> {
    /// A dispatcher of the deliveries in `queue`, which it hears of by `commits`.
    pub fn new(
        queue: Q,
        commits: Commits,
        sender: S,
        config: watch::Receiver<Arc<Config>>,
        clock: Clock,
        chance: Chance,
        limits: Limits,
    ) -> Self {
        let shared = Shared {
            queue,
            sender,
            clock,
            chance,
            config: config.clone(),
            slots: Slots::new(limits.in_flight),
            bodies: Budget::new(limits.body_bytes / 4 * 3),
            first_bodies: Budget::new(limits.body_bytes / 4),
            limits,
            unusual: Unusual::default(),
            observer: Arc::new(Unobserved),
            stop: CancellationToken::new(),
        };
        let (control, commands) = Control::new(shared.unusual.clone(), shared.slots.clone());
        Self { shared, commits, config, control, commands }
    }

    /// Has somebody hear of what the lanes do.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observe>) -> Self {
        self.shared.observer = observer;
        self
    }

    /// How it is asked and told while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Sends until `shutdown`; then attempts under way may end within the grace period, and what they came to is
    /// recorded.
    ///
    /// # Errors
    /// The queue's, if what waits in it could not be read at the start.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { shared, mut commits, mut config, mut commands, control: _ } = self;
        let current = config.borrow_and_update().clone();
        let backlog = shared.queue.backlog().await?;
        let mut lanes = Lanes {
            shared: Arc::new(shared),
            current,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            suspended: HashMap::new(),
            paused: HashMap::new(),
            resuming: JoinSet::new(),
        };
        lanes.resume_from(backlog);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                offers = commits.recv() => match offers {
                    Some(offers) => lanes.route(offers),
                    None => break,
                },
                Some(exit) = lanes.tasks.join_next() => match exit {
                    Ok(exit) => lanes.ended(exit),
                    Err(error) => lanes.broke_off(&error),
                },
                Some(resumed) = lanes.resuming.join_next() => {
                    if let Ok(Some(resumed)) = resumed {
                        lanes.resumed(resumed);
                    }
                }
                Some(Command::Resume(webhook, reply)) = commands.recv() => lanes.resume_for_good(webhook, reply),
                Ok(()) = config.changed() => {
                    let next = config.borrow_and_update().clone();
                    lanes.reconfigure(next);
                }
            }
        }
        lanes.stop(commits).await;
        Ok(())
    }
}

impl<Q: Queue, S: Sender> Lanes<Q, S> {
    /// Starts where an earlier process stopped.
    fn resume_from(&mut self, backlog: Backlog) {
        for suspension in backlog.suspended {
            self.suspended.insert(suspension.webhook, suspension.url);
        }
        let now = self.shared.clock.now();
        self.paused.extend(backlog.paused.into_iter().filter(|(_, pause)| pause.until > now));
        let config = self.current.clone();
        for webhook in config.webhooks() {
            self.lift_suspension(webhook);
        }
        let mut held = 0_usize;
        let parked: HashSet<_> = backlog.parked.into_iter().collect();
        for (name, next_due) in backlog.waiting {
            match config.webhook(&name) {
                Some(webhook) if self.is_running(webhook) => {
                    // What waits behind others need not if there is no order any more.
                    let free = webhook.order == Order::None && parked.contains(&name);
                    self.start(webhook.clone(), Some(if free { Timestamp::default() } else { next_due }));
                }
                _ => held += 1,
            }
        }
        info!(lanes = self.running.len(), held, "resumed what waits in the queue");
    }

    fn is_running(&self, webhook: &Webhook) -> bool {
        webhook.active && !self.suspended.contains_key(&webhook.name)
    }

    /// A suspended webhook gets another chance when its URL has changed. True if it did.
    fn lift_suspension(&mut self, webhook: &Webhook) -> bool {
        match self.suspended.get(&webhook.name) {
            Some(url) if url != webhook.url.as_str() => {}
            _ => return false,
        }
        self.suspended.remove(&webhook.name);
        info!(webhook = %webhook.name, "resumed: its URL has changed");
        let (queue, name) = (self.shared.queue.clone(), webhook.name.clone());
        // Not awaited here: the queue may be waiting for this task to take its commits.
        self.resuming.spawn(async move {
            if let Err(error) = queue.resume(name.clone()).await {
                warn!(webhook = %name, %error, "its suspension could not be lifted for good; it is again at the next start");
            }
            None
        });
        true
    }

    /// Ends a suspension: in the queue, and then here.
    fn resume_for_good(&mut self, webhook: WebhookName, reply: Reply) {
        if !self.suspended.contains_key(&webhook) {
            let ending = self.shared.unusual.get(&webhook).is_some_and(|status| status.suspended);
            match self.running.get_mut(&webhook).filter(|_| ending) {
                Some(handle) => handle.resume = Some(reply),
                // Whoever asked may have gone.
                None => drop(reply.send(Ok(false))),
            }
            return;
        }
        let queue = self.shared.queue.clone();
        self.resuming.spawn(async move {
            match queue.resume(webhook.clone()).await {
                Ok(()) => Some(Resumed { webhook, reply }),
                Err(error) => {
                    drop(reply.send(Err(error)));
                    None
                }
            }
        });
    }

    fn resumed(&mut self, Resumed { webhook, reply }: Resumed) {
        if self.suspended.remove(&webhook).is_some() {
            info!(%webhook, "resumed by an operator");
            if let Some(webhook) = self.current.webhook(&webhook).cloned()
                && self.is_running(&webhook)
                && !self.running.contains_key(&webhook.name)
            {
                self.start(webhook, Some(Timestamp::default()));
            }
        }
        // Whoever asked may have gone.
        drop(reply.send(Ok(true)));
    }

    fn start(&mut self, webhook: Arc<Webhook>, next_due: Option<Timestamp>) {
        let name = webhook.name.clone();
        let pause = self.paused.remove(&name).filter(|pause| pause.url == webhook.url.as_str());
        let pause = pause.map(|pause| pause.until);
        let (offers, inbox) = mpsc::channel(INBOX);
        let (webhook, watched) = watch::channel(webhook);
        let missed = Arc::new(Missed::default());
        let inputs = Inputs { offers: inbox, missed: missed.clone(), webhook: watched };
        let task = self.tasks.spawn(Runner::new(self.shared.clone(), inputs, next_due, pause).run()).id();
        self.running.insert(name, Handle { task, offers, missed, webhook, late: Vec::new(), resume: None });
    }

    /// A lane panicked. Its deliveries are in the queue: another one takes them up.
    fn broke_off(&mut self, error: &JoinError) {
        let broken = self.running.iter().find(|(_, handle)| handle.task == error.id());
        let Some(name) = broken.map(|(name, _)| name.clone()) else { return };
        error!(webhook = %name, %error, "a lane broke off; it is started anew");
        self.running.remove(&name);
        // It cannot say any more that this is over.
        self.shared.unusual.set(&name, None);
        if let Some(webhook) = self.current.webhook(&name).cloned()
            && self.is_running(&webhook)
        {
            self.start(webhook, Some(Timestamp::default()));
        }
    }

    /// Gives each lane its part of a commit.
    fn route(&mut self, offers: Vec<Delivery>) {
        let mut by_webhook: HashMap<WebhookName, Vec<Delivery>> = HashMap::new();
        for delivery in offers {
            match by_webhook.get_mut(&delivery.webhook) {
                Some(group) => group.push(delivery),
                None => drop(by_webhook.insert(delivery.webhook.clone(), vec![delivery])),
            }
        }
        for (name, group) in by_webhook {
            self.offer(name, group);
        }
    }

    fn offer(&mut self, name: WebhookName, offers: Vec<Delivery>) {
        if !self.running.contains_key(&name) {
            match self.current.webhook(&name).cloned() {
                Some(webhook) if self.is_running(&webhook) => self.start(webhook, None),
                // It is held in the queue.
                _ => return,
            }
        }
        let Some(handle) = self.running.get_mut(&name) else { return };
        match handle.offers.try_send(offers) {
            Ok(()) => {}
            Err(TrySendError::Closed(offers)) if handle.late.len() < LATE => handle.late.extend(offers),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => handle.missed.set(),
        }
    }

    fn ended(&mut self, exit: Exit) {
        let name = exit.webhook;
        let Some(handle) = self.running.remove(&name) else { return };
        if let Some(url) = exit.suspended {
            self.suspended.insert(name.clone(), url);
        }
        if let Some(pause) = exit.paused {
            self.paused.insert(name.clone(), pause);
        }
        if let Some(reply) = handle.resume {
            self.resume_for_good(name.clone(), reply);
        }
        let Some(webhook) = self.current.webhook(&name).cloned() else { return };
        self.lift_suspension(&webhook);
        if !self.is_running(&webhook) {
            return;
        }
        // A lane that was held, or that may have missed something, leaves it to the next one to look.
        if handle.missed.take() || exit.held {
            self.start(webhook, Some(Timestamp::default()));
        }
        for offers in [exit.offers, handle.late] {
            if !offers.is_empty() {
                self.offer(name.clone(), offers);
            }
        }
    }

    /// Applies the difference between two configurations, and nothing else: a lane that it does not name is not even
    /// looked at.
    fn reconfigure(&mut self, next: Arc<Config>) {
        let previous = std::mem::replace(&mut self.current, next.clone());
        let Diff { added, removed, changed, .. } = diff(&previous, &next);
        for name in removed {
            self.tell(&name, None);
        }
        for name in changed.into_iter().map(|changed| changed.name).chain(added) {
            let Some(webhook) = next.webhook(&name) else { continue };
            self.tell(&name, Some(webhook));
            let was_active = previous.webhook(&name).is_some_and(|webhook| webhook.active);
            self.resume(webhook, was_active);
        }
    }

    /// Tells the lane, if there is one, what has become of its webhook.
    fn tell(&self, name: &WebhookName, webhook: Option<&Arc<Webhook>>) {
        let Some(handle) = self.running.get(name) else { return };
        handle.webhook.send_if_modified(|current| match succeeding(current, webhook) {
            Some(next) => {
                *current = next;
                true
            }
            None => false,
        });
    }

    /// Starts a lane for a webhook that may be sent to again. If there is one that has not ended yet, then it goes on, or
    /// has another one follow it when it ends.
    fn resume(&mut self, webhook: &Arc<Webhook>, was_active: bool) {
        let was_lifted = self.lift_suspension(webhook);
        let has_lane = self.running.contains_key(&webhook.name);
        if (was_lifted || !was_active) && !has_lane && self.is_running(webhook) {
            self.start(webhook.clone(), Some(Timestamp::default()));
        }
    }

    /// Lets attempts under way end. Commits are still taken, so that the queue is not held up while it records them.
    async fn stop(mut self, mut commits: Commits) {
        self.shared.stop.cancel();
        let ending = async {
            loop {
                tokio::select! {
                    lane = self.tasks.join_next() => if lane.is_none() { break },
                    Some(_) = commits.recv() => {}
                }
            }
        };
        if tokio::time::timeout(self.current.shutdown_grace, ending).await.is_err() {
            warn!(
                lanes = self.tasks.len(),
                "attempts were cut off at the end of the grace period; they are made again at the next start"
            );
        }
        self.tasks.shutdown().await;
        self.resuming.shutdown().await;
    }
}
