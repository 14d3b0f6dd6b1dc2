//! From the bytes of a request to a submission, and from the queue's answer to ours.

use std::collections::HashMap;
use std::time::Duration;

use aquarium_config::{Config, Organization};
use aquarium_delivery::{DeliveryId, EventId, Hops, Order, Subject, Timestamp, TraceContext};
use aquarium_dispatch::{Chance, Clock};
use aquarium_event::{Entity, EntityKey, Refusal, check};
use aquarium_queue::{
    Accepted, Error, Idempotency, NewEvent, Queue, Receipt, ReceiptEntry, Report, Submission, Target,
};
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::bodies::Held;
use super::receipt::{self, FirstAttempt};
use super::waiting::Wait;
use crate::http::{Answer, Code, Problem, json};
use crate::telemetry::{Accepting, Metrics};

/// The most events of a batch.
const MAX_BATCH_EVENTS: usize = 1_000;
/// The most deliveries that the events of a batch may lead to: 34 KB of events for 1,000 webhooks would be a million, and an
/// answer of 71 MB. A single event may have as many as there are webhooks.
const MAX_BATCH_DELIVERIES: usize = 10_000;

/// What a submission is made with.
pub(super) struct Draft<'a> {
    pub(super) config: &'a Config,
    pub(super) organization: &'a Organization,
    pub(super) clock: &'a Clock,
    pub(super) chance: &'a Chance,
    pub(super) trace: Option<TraceContext>,
    pub(super) hops: Hops,
}

/// A submission that passed the door, and the answer that it leads to.
pub(super) struct Drafted {
    submission: Submission,
    receipts: Vec<Receipt>,
    batch: bool,
}

impl Draft<'_> {
    pub(super) fn single(&self, body: &Bytes, key: Option<String>) -> Result<Drafted, Problem> {
        let event = self.event(body.clone(), self.clock.now()).map_err(refused)?;
        Ok(self.drafted(vec![event], idempotency(key, body), false))
    }

    /// One event a line (NDJSON). Empty lines are passed over.
    pub(super) fn batch(&self, body: &Bytes, key: Option<String>) -> Result<Drafted, Problem> {
        let now = self.clock.now();
        let limit = usize::try_from(self.config.ingest.max_event_size).unwrap_or(usize::MAX);
        let (mut events, mut deliveries) = (Vec::new(), 0);
        for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.len() > limit {
                let detail = format!("the event has {} bytes, at most {limit} are accepted", line.len());
                return Err(
                    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, detail).in_line(number)
                );
            }
            if events.len() == MAX_BATCH_EVENTS {
                let detail = format!("a batch has at most {MAX_BATCH_EVENTS} events");
                return Err(
                    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooManyEvents, detail).in_line(number)
                );
            }
            // A copy of its own: an event that waits must not keep the whole batch in memory.
            let event = self.event(Bytes::copy_from_slice(line), now);
            let event = event.map_err(|refusal| refused(refusal).in_line(number))?;
            deliveries += event.targets.len();
            if deliveries > MAX_BATCH_DELIVERIES && !events.is_empty() {
                let detail = format!(
                    "the events up to this one have {deliveries} deliveries, a batch has at most {MAX_BATCH_DELIVERIES}"
                );
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooManyDeliveries, detail)
                    .in_line(number));
            }
            events.push(event);
        }
        if events.is_empty() {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                Code::EmptyBody,
                "there is no event in the batch",
            ));
        }
        Ok(self.drafted(events, idempotency(key, body), true))
    }

    fn event(&self, body: Bytes, now: Timestamp) -> Result<NewEvent, Refusal> {
        let envelope = check(&body, &self.config.types)?;
        let targets = self.organization.matching(&envelope.project, &envelope.kind).map(|webhook| Target {
            delivery: DeliveryId::new(now, self.chance.bytes()),
            webhook: webhook.name.clone(),
            skipped: !webhook.active,
            order: webhook.order,
            test: false,
        });
        let targets: Vec<_> = targets.collect();
        let by_entity = targets.iter().any(|target| target.order == Order::Entity);
        let subjects = envelope.entity.filter(|_| by_entity).map(subjects).unwrap_or_default();
        let (project, kind) = (envelope.project.into_owned(), envelope.kind.to_name());
        let id = EventId::new(now, self.chance.bytes());
        Ok(NewEvent {
            id,
            project,
            kind,
            accepted_at: now,
            body,
            trace: self.trace,
            hops: self.hops,
            subjects,
            targets,
            watcher: None,
        })
    }

    fn drafted(&self, events: Vec<NewEvent>, idempotency: Option<Idempotency>, batch: bool) -> Drafted {
        let receipts = events.iter().map(receipt_of).collect();
        let submission = Submission { organization: self.organization.name.clone(), events, idempotency };
        Drafted { submission, receipts, batch }
    }
}

/// What an event is about, each thing once: the entities that have an id. An issue is the same whether it comes alone or
/// with others.
fn subjects(entity: Entity<'_>) -> Vec<Subject> {
    let kind = match entity.key {
        EntityKey::Issues => EntityKey::Issue,
        key => key,
    };
    let mut subjects: Vec<_> = entity.ids().iter().map(|id| Subject::of(kind.as_str(), id)).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

fn idempotency(key: Option<String>, body: &Bytes) -> Option<Idempotency> {
    key.map(|key| Idempotency { key, fingerprint: Sha256::digest(body).into() })
}

fn receipt_of(event: &NewEvent) -> Receipt {
    let entry = |target: &Target| ReceiptEntry {
        id: target.delivery,
        webhook: target.webhook.clone(),
        skipped: target.skipped,
    };
    Receipt { event: event.id, deliveries: event.targets.iter().map(entry).collect() }
}

/// What a request with `?wait=` gets.
pub(super) enum Waiting {
    /// The results that are there by then.
    Until(Instant, Wait),
    /// An answer at once: as many wait as may.
    NoRoom,
}

impl Drafted {
    /// The deliveries that are stored, with those that are skipped.
    pub(super) fn recorded(&self) -> usize {
        self.submission.events.iter().map(|event| event.targets.len()).sum()
    }

    /// The deliveries that will be attempted.
    pub(super) fn deliveries(&self) -> usize {
        let queued = |event: &NewEvent| event.targets.iter().filter(|target| !target.skipped).count();
        self.submission.events.iter().map(queued).sum()
    }

    /// Has the queue accept it, gives `held` back, and only then waits for results.
    pub(super) async fn accept(
        mut self,
        queue: &impl Queue,
        held: Held,
        waiting: Option<Waiting>,
        metrics: &Metrics,
        accepting: &mut Accepting,
    ) -> Result<Answer, Problem> {
        let reports = matches!(waiting, Some(Waiting::Until(..))).then(|| self.watch());
        let organization = self.submission.organization.clone();
        match store(queue, self.submission, held).await.map_err(unavailable)? {
            Accepted::Stored => {
                metrics.accepted(&organization, &self.receipts);
                accepting.stored(&self.receipts);
                let no_room = matches!(waiting, Some(Waiting::NoRoom));
                let results = match (reports, waiting) {
                    (Some((reports, expected)), Some(Waiting::Until(deadline, _wait))) => {
                        Some(collect(reports, expected, deadline).await)
                    }
                    (_, waiting) => waiting.map(|_| HashMap::new()),
                };
                let mut answer = accepted(&self.receipts, results.as_ref(), self.batch);
                if no_room {
                    // Those who would wait keep no connection beyond their share either.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(answer)
            }
            Accepted::Repeated(receipts) => {
                let mut answer = accepted(&receipts, None, self.batch);
                answer.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
                Ok(answer)
            }
        }
    }

    /// Asks for a report of each delivery's first attempt.
    fn watch(&mut self) -> (mpsc::Receiver<Report>, usize) {
        let expected = self.deliveries();
        let (watcher, reports) = mpsc::channel(expected.max(1));
        for event in &mut self.submission.events {
            event.watcher = Some(watcher.clone());
        }
        (reports, expected)
    }
}

/// Has the queue store a submission, and gives back what is reserved for it when it no longer waits for the queue.
async fn store(queue: &impl Queue, submission: Submission, held: Held) -> Result<Accepted, Error> {
    if !held.is_reserved() {
        return queue.accept(submission).await;
    }
    let queue = queue.clone();
    // It ends when the queue answers, or is closed.
    let accepting = async move { queue.accept(submission).await };
    held.until_end_of(accepting).await.unwrap_or(Err(Error::Closed))
}

type Results = HashMap<DeliveryId, FirstAttempt>;

fn accepted(receipts: &[Receipt], results: Option<&Results>, batch: bool) -> Answer {
    json(StatusCode::ACCEPTED, &receipt::Body { receipts, results, batch })
}

/// The results that come until the deadline. Nothing is kept of an endpoint's answer.
async fn collect(mut reports: mpsc::Receiver<Report>, expected: usize, deadline: Instant) -> Results {
    let mut results = HashMap::new();
    while results.len() < expected {
        match timeout_at(deadline, reports.recv()).await {
            Ok(Some(report)) => results.insert(report.delivery, FirstAttempt::of(&report)),
            // What is still missing has no room in memory, or no time left.
            Ok(None) | Err(_) => break,
        };
    }
    results
}

/// What is wrong with the bytes of an event.
pub(crate) fn refused(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    let code = Code::Event(refusal.reason.code());
    Problem::new(StatusCode::BAD_REQUEST, code, detail).at(refusal.field, refusal.offset)
}

/// Why the queue did not do what it was asked for.
pub(crate) fn unavailable(error: Error) -> Problem {
    let (status, code, wait) = match &error {
        Error::Conflict => {
            return Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Code::IdempotencyConflict,
                error.to_string(),
            );
        }
        Error::DamagedEvent => {
            let detail = "what is stored of the event does not match its checksum; see `queue verify`";
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::EventDamaged, detail);
        }
        Error::Full { .. } => (StatusCode::SERVICE_UNAVAILABLE, Code::QueueFull, 10),
        Error::Damaged(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::QueueDamaged, 30),
        Error::Unavailable(_) | Error::Closed => (StatusCode::SERVICE_UNAVAILABLE, Code::QueueUnavailable, 1),
    };
    Problem::new(status, code, error.to_string()).retry_after(Duration::from_secs(wait))
}
