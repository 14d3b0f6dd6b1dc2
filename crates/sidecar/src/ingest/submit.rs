//! From the bytes of a request to a submission, and from the queue's answer to ours.

use std::time::Duration;

use aquarium_config::{Config, Organization};
use aquarium_delivery::{DeliveryId, EventId, Hops, Order, Subject, Timestamp, TraceContext};
use aquarium_dispatch::{Chance, Clock};
use aquarium_event::{Entity, EntityKey, Refusal, check};
use aquarium_queue::{
    Accepted, Error, Idempotency, NewEvent, Queue, Receipt, ReceiptEntry, Report, Submission, Target,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::receipt;
use crate::http::{Answer, Code, Problem, json};
use crate::telemetry::{Accepting, Metrics};

/// The most events of a batch.
const MAX_BATCH_EVENTS: usize = 1_000;

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
        let mut events = Vec::new();
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
            events.push(event.map_err(|refusal| refused(refusal).in_line(number))?);
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

impl Drafted {
    pub(super) async fn accept(
        mut self,
        queue: &impl Queue,
        wait: Option<Duration>,
        metrics: &Metrics,
        accepting: &mut Accepting,
    ) -> Result<Answer, Problem> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        let reports = deadline.map(|_| self.watch());
        let organization = self.submission.organization.clone();
        match queue.accept(self.submission).await.map_err(unavailable)? {
            Accepted::Stored => {
                metrics.accepted(&organization, &self.receipts);
                accepting.stored(&self.receipts);
                let reports = match (reports, deadline) {
                    (Some((reports, expected)), Some(deadline)) => {
                        Some(collect(reports, expected, deadline).await)
                    }
                    _ => None,
                };
                Ok(accepted(&self.receipts, reports.as_deref(), self.batch))
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
        let queued = |event: &NewEvent| event.targets.iter().filter(|target| !target.skipped).count();
        let expected = self.submission.events.iter().map(queued).sum::<usize>();
        let (watcher, reports) = mpsc::channel(expected.max(1));
        for event in &mut self.submission.events {
            event.watcher = Some(watcher.clone());
        }
        (reports, expected)
    }
}

fn accepted(receipts: &[Receipt], reports: Option<&[Report]>, batch: bool) -> Answer {
    json(StatusCode::ACCEPTED, &receipt::Body { receipts, reports, batch })
}

async fn collect(mut reports: mpsc::Receiver<Report>, expected: usize, deadline: Instant) -> Vec<Report> {
    let mut collected = Vec::with_capacity(expected);
    while collected.len() < expected {
        match timeout_at(deadline, reports.recv()).await {
            Ok(Some(report)) => collected.push(report),
            // What is still missing has no room in memory, or no time left.
            Ok(None) | Err(_) => break,
        }
    }
    collected
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
        Error::Unavailable(_) | Error::Closed => (StatusCode::SERVICE_UNAVAILABLE, Code::QueueUnavailable, 1),
    };
    Problem::new(status, code, error.to_string()).retry_after(Duration::from_secs(wait))
}
