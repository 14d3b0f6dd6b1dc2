//! Durable deliveries.
//!
//! A [`Queue`] accepts events with the deliveries they lead to, hands due deliveries out again, and records what came
//! of them. It decides nothing: when a delivery is due, and what an outcome means, is told by `aquarium-delivery`.
//!
//! # What every engine promises
//! * [`Queue::accept`] returns once the events are durable, and they are stored all or none.
//! * A delivery is stored in exactly one state: pending (with the time at which it is due), delivered, exhausted, or
//!   skipped. Only [`Queue::settle`], [`Queue::purge`] and [`History::replay`](history::History::replay) change that.
//! * Every delivery that was committed as pending is offered once, in the order of the commits, on the [`Commits`] that
//!   came with the queue. An offer is a hint that saves a read: who drops it finds the delivery again by
//!   [`Queue::claim`]. Keys grow with the commits, but for deliveries that are sent again ([`Delivery::replayed_at`]).
//! * Order is kept where a [`Target`] asks for it, and here alone: a delivery for which an earlier pending one of the same
//!   webhook has a subject in common is *parked*. It is not offered, unless somebody watches it, and not claimed, until
//!   each of those is delivered or exhausted; [`Queue::settle`] tells when that lets any go on. So nobody has to hold, or
//!   to skip, what may not be sent yet, and a kill or a restart changes nothing.
//! * [`Queue::claim`] takes nothing away. It has one reader per webhook, who says what it holds already.
//!
//! The engines: [`sqlite`] is durable; [`memory`] keeps nothing, and serves tests in virtual time.

mod error;
pub mod history;
mod model;
mod observe;

pub mod memory;
pub mod sqlite;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use aquarium_delivery::{Timestamp, WebhookName};
use tokio::sync::mpsc;

pub use error::Error;
pub use model::{
    Accepted, Attempt, Backlog, Claim, Delivery, Idempotency, Key, NewEvent, PARKED, Page, Pause, Payload,
    Purged, Receipt, ReceiptEntry, Record, Report, Settled, Settlement, State, Submission, Suspension,
    Target, Watcher,
};

pub use observe::{Observe, OutageReason, Unobserved};

/// The pending deliveries of each commit, in the order of the commits.
pub type Commits = mpsc::Receiver<Vec<Delivery>>;

/// A durable store of events and deliveries. Cheap to clone.
pub trait Queue: Clone + Send + Sync + 'static {
    /// Stores the events of a submission and their deliveries, all or none, and returns once they are durable.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Unavailable`] pass with time; [`Error::Conflict`] does not.
    fn accept(&self, submission: Submission) -> impl Future<Output = Result<Accepted, Error>> + Send;

    /// Records what came of deliveries, all or none, and returns once that is durable: how many parked deliveries are due
    /// now because of it. Nobody should hurry to wait for it: unless others may have to, it may be a few milliseconds, so
    /// that it is made durable together with what is accepted meanwhile.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing was recorded, and the same settlements can be given again.
    fn settle(&self, settlements: Vec<Settlement>) -> impl Future<Output = Result<usize, Error>> + Send;

    /// Reads pending deliveries of one webhook that are due, those due first coming first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Reads what is sent of an event; `None` if the event is not stored any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::DamagedEvent`], which does not pass.
    fn payload(&self, event: Key) -> impl Future<Output = Result<Option<Payload>, Error>> + Send;

    /// Every webhook with pending deliveries and when the first of them is due, and every suspended webhook.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn backlog(&self) -> impl Future<Output = Result<Backlog, Error>> + Send;

    /// What is stored of a delivery; `None` if it is not stored any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn record(&self, delivery: Key) -> impl Future<Output = Result<Option<Record>, Error>> + Send;

    /// Ends a webhook's suspension. Nothing happens if it is not suspended.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn resume(&self, webhook: WebhookName) -> impl Future<Output = Result<(), Error>> + Send;

    /// One bounded step of forgetting: looks at up to `limit` events that were accepted before `before`, and removes
    /// those of which nothing is pending and nothing was settled since. Pending deliveries of webhooks that are not in
    /// `configured` count as settled when their event was accepted.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn purge(
        &self,
        before: Timestamp,
        configured: Arc<HashSet<WebhookName>>,
        limit: usize,
    ) -> impl Future<Output = Result<Purged, Error>> + Send;
}
