//! What an operator asks the dispatcher, and tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aquarium_delivery::{BreakerStatus, Timestamp, WebhookName};
use aquarium_queue::Error;
use tokio::sync::{mpsc, oneshot};

use crate::slots::Slots;

/// Commands that may wait for the dispatcher; a further one waits to be let in.
const COMMANDS: usize = 64;

/// What is unusual about a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// How its breaker stands.
    pub breaker: BreakerStatus,
    /// Until when the endpoint asked for a pause.
    pub paused_until: Option<Timestamp>,
    /// True if it was suspended, and has not ended yet.
    pub suspended: bool,
}

/// How busy all lanes are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Lanes that run.
    pub lanes: usize,
    /// Attempts under way.
    pub in_flight: usize,
}

/// The lanes about which something is unusual. A lane that is as it should be is not among them, so that nobody has to
/// take this lock while all is well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unusual(Arc<Mutex<HashMap<WebhookName, LaneStatus>>>);

impl Unusual {
    fn lock(&self) -> MutexGuard<'_, HashMap<WebhookName, LaneStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a lane is, or that nothing is unusual about it.
    pub(crate) fn set(&self, webhook: &WebhookName, status: Option<LaneStatus>) {
        match status {
            Some(status) => drop(self.lock().insert(webhook.clone(), status)),
            None => drop(self.lock().remove(webhook)),
        }
    }

    pub(crate) fn get(&self, webhook: &WebhookName) -> Option<LaneStatus> {
        self.lock().get(webhook).cloned()
    }
}

/// What the dispatcher is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// End a suspension. True if there was one.
    Resume(WebhookName, Reply),
}

pub(crate) type Reply = oneshot::Sender<Result<bool, Error>>;

/// Asks the dispatcher, and tells it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    unusual: Unusual,
    slots: Slots,
    commands: mpsc::Sender<Command>,
}

impl Control {
    pub(crate) fn new(unusual: Unusual, slots: Slots) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Self { unusual, slots, commands }, receiver)
    }

    /// What is unusual about a webhook's lane: its breaker is open, or its endpoint asked for a pause. `None` if nothing
    /// is, or if it has no lane: then nothing is on its way to it.
    pub fn status(&self, webhook: &WebhookName) -> Option<LaneStatus> {
        self.unusual.get(webhook)
    }

    /// The webhooks about whose lanes something is unusual, and what.
    pub fn unusual(&self) -> Vec<(WebhookName, LaneStatus)> {
        self.unusual.lock().iter().map(|(name, status)| (name.clone(), status.clone())).collect()
    }

    /// How many lanes there are, and how many attempts are under way.
    pub fn load(&self) -> Load {
        self.slots.load()
    }

    /// Ends the suspension of a webhook, for good: what was held is sent. False if it was not suspended.
    ///
    /// # Errors
    /// The queue's, if that could not be recorded: it stays suspended.
    pub async fn resume(&self, webhook: WebhookName) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Resume(webhook, reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}
