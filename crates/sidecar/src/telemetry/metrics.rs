//! The metrics: what is counted while the sidecar works. What can be read when somebody asks is read then
//! (`exposition.rs`).
//!
//! Label values come from the configuration and from fixed lists, so that their number is bounded; the series of a webhook
//! go when it is not configured any more.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aquarium_config::Config;
use aquarium_delivery::{Exhaustion, FailureKind, Outcome, Phases, WebhookName};
use aquarium_dispatch::{Observe as ObserveLanes, ObserveLane};
use aquarium_egress::Sent;
use aquarium_queue::{Observe as ObserveQueue, OutageReason, Receipt, Settled};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The classes of status codes, in the order of their first digits.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: usize = CLASSES.len() + FailureKind::ALL.len();

/// The labels that name a webhook, and at most one more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OfWebhook {
    pub(super) webhook: WebhookName,
    pub(super) also: Option<(&'static str, &'static str)>,
}

impl OfWebhook {
    pub(super) fn new(webhook: &WebhookName) -> Self {
        Self { webhook: webhook.clone(), also: None }
    }

    fn and(webhook: &WebhookName, name: &'static str, value: &'static str) -> Self {
        Self { webhook: webhook.clone(), also: Some((name, value)) }
    }
}

impl EncodeLabelSet for OfWebhook {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let name = &self.webhook;
        [("organization", name.organization()), ("project", name.project()), ("webhook", name.webhook())]
            .encode(encoder)?;
        self.also.iter().try_for_each(|also| [*also].encode(encoder))
    }
}

/// Why a collector did not get spans.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropped {
    /// Too many waited.
    Overflow,
    /// It could not be reached, or did not take them in time.
    Unreachable,
    /// It did not want them.
    Refused,
    /// There is none any more.
    NotConfigured,
    /// The sidecar stopped.
    Stopped,
}

impl Dropped {
    const ALL: [Self; 5] =
        [Self::Overflow, Self::Unreachable, Self::Refused, Self::NotConfigured, Self::Stopped];

    fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::NotConfigured => "not-configured",
            Self::Stopped => "stopped",
        }
    }
}

type OneLabel = [(&'static str, String); 1];

/// Counts. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    registry: Registry,
    accepted: Family<OneLabel, Counter>,
    refused: Family<OneLabel, Counter>,
    accept_duration: Histogram,
    skipped: Family<OfWebhook, Counter>,
    delivered: Family<OfWebhook, Counter>,
    exhausted: Family<OfWebhook, Counter>,
    attempts: Family<OfWebhook, Counter>,
    attempt_duration: Histogram,
    /// In the order of [`Phases`].
    phases: [Histogram; 5],
    latency: Histogram,
    commit_duration: Histogram,
    commit_requests: Histogram,
    queue_size: Gauge,
    writable: Gauge,
    outages: Family<[(&'static str, &'static str); 1], Gauge>,
    spans_exported: Counter,
    spans_dropped: Family<[(&'static str, &'static str); 1], Counter>,
    /// The webhooks that have series.
    webhooks: Mutex<HashSet<WebhookName>>,
}

/// 0.5 ms to 16 s, each twice as long as the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// Counters of each label set.
fn counters<L: Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> Family<L, Counter> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

/// How long things take, in seconds.
fn durations(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = seconds();
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

/// How long the parts of an attempt take, in the order of [`Phases`].
fn phases(registry: &mut Registry) -> [Histogram; 5] {
    let family = Family::<[(&str, &str); 1], Histogram, fn() -> Histogram>::new_with_constructor(seconds);
    let help = "How long the parts of requests to endpoints took";
    registry.register_with_unit("attempt_phase_duration", help, Unit::Seconds, family.clone());
    ["dns", "connect", "tls", "first_byte", "body"]
        .map(|phase| family.get_or_create_owned(&[("phase", phase)]))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("aquarium");
        let metrics = &mut registry;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        metrics.register("build", "The program", Info::new(version));
        let accepted = counters(metrics, "events_accepted", "Events that were accepted");
        let help = "Requests of apps that were refused, by the code of the problem";
        let refused = counters(metrics, "requests_refused", help);
        let help = "From the head of a request to its answer";
        let accept_duration = durations(metrics, "accept_duration", help);
        let help = "Deliveries that were not queued, because the webhook was not active";
        let skipped = counters(metrics, "deliveries_skipped", help);
        let delivered = counters(metrics, "deliveries_delivered", "Deliveries that their endpoint has");
        let help = "Deliveries that were given up, by the reason";
        let exhausted = counters(metrics, "deliveries_exhausted", help);
        let help =
            "Requests made to endpoints, by what they came to: a class of status codes, or what failed";
        let attempts = counters(metrics, "attempts", help);
        let attempt_duration = durations(metrics, "attempt_duration", "How long requests to endpoints took");
        let phases = phases(metrics);
        // To 36 h: deliveries are retried for days.
        let latency = Histogram::new(exponential_buckets(0.001, 3.0, 17));
        let help = "From accepting an event, or replaying a delivery, to its endpoint having it";
        metrics.register_with_unit("delivery_latency", help, Unit::Seconds, latency.clone());
        let spans_exported = Counter::default();
        metrics.register("spans_exported", "Spans that the collector has", spans_exported.clone());
        let spans_dropped: Family<[(&str, &str); 1], Counter> =
            counters(metrics, "spans_dropped", "Spans that were not exported, by the reason");
        for reason in Dropped::ALL {
            drop(spans_dropped.get_or_create(&[("reason", reason.as_str())]));
        }
        let queue = Queue::new(registry.sub_registry_with_prefix("queue"));
        queue.writable.set(1);
        let Queue { commit_duration, commit_requests, queue_size, writable, outages } = queue;
        Self(Arc::new(Counted {
            registry,
            accepted,
            refused,
            accept_duration,
            skipped,
            delivered,
            exhausted,
            attempts,
            attempt_duration,
            phases,
            latency,
            commit_duration,
            commit_requests,
            queue_size,
            writable,
            outages,
            spans_exported,
            spans_dropped,
            webhooks: Mutex::default(),
        }))
    }

    /// Events were accepted, with the deliveries that they lead to.
    pub(crate) fn accepted(&self, organization: &str, receipts: &[Receipt]) {
        let labels = [("organization", organization.to_owned())];
        self.0.accepted.get_or_create(&labels).inc_by(receipts.len() as u64);
        for entry in receipts.iter().flat_map(|receipt| &receipt.deliveries).filter(|entry| entry.skipped) {
            self.known(&entry.webhook);
            self.0.skipped.get_or_create(&OfWebhook::new(&entry.webhook)).inc();
        }
    }

    /// A request of an app was refused, with this code.
    pub(crate) fn refused(&self, code: &str) {
        self.0.refused.get_or_create(&[("code", code.to_owned())]).inc();
    }

    /// A request of an app was answered after this time.
    pub(crate) fn answered(&self, took: Duration) {
        self.0.accept_duration.observe(took.as_secs_f64());
    }

    /// The collector has so many more spans.
    pub(super) fn spans_exported(&self, spans: usize) {
        self.0.spans_exported.inc_by(spans as u64);
    }

    /// So many spans were given up.
    pub(super) fn spans_dropped(&self, reason: Dropped, spans: usize) {
        self.0.spans_dropped.get_or_create(&[("reason", reason.as_str())]).inc_by(spans as u64);
    }

    /// Why the queue accepts nothing, if it does not.
    pub(crate) fn queue_outage(&self) -> Option<OutageReason> {
        let is_out = |reason: &OutageReason| self.outage_of(*reason) != 0;
        // What lasts longest is listed last.
        OutageReason::ALL.iter().rev().copied().find(is_out)
    }

    fn outage_of(&self, reason: OutageReason) -> i64 {
        self.0.outages.get_or_create(&[("reason", reason.as_str())]).get()
    }

    /// What is stored in the queue, in bytes.
    pub(crate) fn queue_size(&self) -> u64 {
        u64::try_from(self.0.queue_size.get()).unwrap_or_default()
    }

    /// Forgets what belongs to webhooks and organizations that are not configured any more.
    pub(super) fn forget(&self, config: &Config) {
        let counted = &self.0;
        let mut webhooks = counted.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = webhooks.extract_if(|webhook| config.webhook(webhook).is_none()).collect();
        let gone_too = |organization: &str| config.organization(organization).is_none();
        for webhook in gone {
            if gone_too(webhook.organization()) {
                counted.accepted.remove(&[("organization", webhook.organization().to_owned())]);
            }
            for family in [&counted.skipped, &counted.delivered] {
                family.remove(&OfWebhook::new(&webhook));
            }
            for reason in Exhaustion::ALL {
                counted.exhausted.remove(&OfWebhook::and(&webhook, "reason", reason_of(*reason)));
            }
            for outcome in (0..OUTCOMES).map(outcome_name) {
                counted.attempts.remove(&OfWebhook::and(&webhook, "outcome", outcome));
            }
        }
    }

    /// All of it, as OpenMetrics text without the line that ends it.
    pub(super) fn encode(&self, text: &mut String) -> fmt::Result {
        prometheus_client::encoding::text::encode_registry(text, &self.0.registry)
    }

    fn known(&self, webhook: &WebhookName) {
        let mut webhooks = self.0.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        if !webhooks.contains(webhook) {
            webhooks.insert(webhook.clone());
        }
    }
}

struct Queue {
    commit_duration: Histogram,
    commit_requests: Histogram,
    queue_size: Gauge,
    writable: Gauge,
    outages: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Queue {
    fn new(registry: &mut Registry) -> Self {
        let help = "How long it took to make requests durable";
        let commit_duration = durations(registry, "commit_duration", help);
        let commit_requests = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        let help = "Requests that were made durable by one commit";
        registry.register("commit_requests", help, commit_requests.clone());
        let (queue_size, writable) = (Gauge::default(), Gauge::default());
        registry.register_with_unit("size", "What is stored", Unit::Bytes, queue_size.clone());
        registry.register("writable", "1 if the queue can be written to, else 0", writable.clone());
        let outages: Family<[(&str, &str); 1], Gauge> = Family::default();
        registry.register("outage", "1 while nothing is accepted for this reason, else 0", outages.clone());
        for reason in OutageReason::ALL {
            drop(outages.get_or_create(&[("reason", reason.as_str())]));
        }
        Self { commit_duration, commit_requests, queue_size, writable, outages }
    }
}

fn reason_of(exhaustion: Exhaustion) -> &'static str {
    match exhaustion {
        Exhaustion::Attempts => "attempts",
        Exhaustion::Age => "age",
        Exhaustion::Damaged => "damaged",
    }
}

/// Which of the [`OUTCOMES`] it is.
fn number_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answered { status, .. } => usize::from(status / 100).clamp(1, CLASSES.len()) - 1,
        Outcome::Failed(failure) => {
            let kind = FailureKind::ALL.iter().position(|kind| *kind == failure.kind);
            CLASSES.len() + kind.unwrap_or_default()
        }
    }
}

fn outcome_name(number: usize) -> &'static str {
    CLASSES.get(number).copied().unwrap_or_else(|| {
        FailureKind::ALL.get(number - CLASSES.len()).map_or("protocol", |kind| kind.as_str())
    })
}

impl ObserveQueue for Metrics {
    fn opened(&self, size: u64) {
        self.0.queue_size.set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    fn committed(&self, requests: usize, took: Duration, size: u64) {
        self.0.commit_requests.observe(requests as f64);
        self.0.commit_duration.observe(took.as_secs_f64());
        self.opened(size);
    }

    fn outage(&self, outage: Option<OutageReason>) {
        self.0.writable.set(outage.is_none().into());
        for reason in OutageReason::ALL {
            let labels = [("reason", reason.as_str())];
            self.0.outages.get_or_create(&labels).set((outage == Some(*reason)).into());
        }
    }
}

impl ObserveLanes for Metrics {
    fn lane(&self, webhook: &WebhookName) -> Arc<dyn ObserveLane> {
        self.known(webhook);
        Arc::new(Lane {
            metrics: self.clone(),
            webhook: webhook.clone(),
            delivered: OnceLock::new(),
            attempts: Default::default(),
        })
    }
}

/// Counts for one lane. It finds its series once, when it first needs them.
#[derive(Debug)]
struct Lane {
    metrics: Metrics,
    webhook: WebhookName,
    delivered: OnceLock<Counter>,
    attempts: [OnceLock<Counter>; OUTCOMES],
}

impl ObserveLane for Lane {
    fn attempted(&self, sent: &Sent) {
        let number = number_of(&sent.outcome);
        let counted = &self.metrics.0;
        let labels = || OfWebhook::and(&self.webhook, "outcome", outcome_name(number));
        self.attempts[number].get_or_init(|| counted.attempts.get_or_create_owned(&labels())).inc();
        counted.attempt_duration.observe(sent.duration.as_secs_f64());
        let Phases { dns, connect, tls, first_byte, body } = sent.phases;
        for (histogram, took) in counted.phases.iter().zip([dns, connect, tls, first_byte, body]) {
            if let Some(took) = took {
                histogram.observe(took.as_secs_f64());
            }
        }
    }

    fn settled(&self, state: &Settled, waited: Duration) {
        let counted = &self.metrics.0;
        match state {
            Settled::Delivered => {
                let labels = || OfWebhook::new(&self.webhook);
                self.delivered.get_or_init(|| counted.delivered.get_or_create_owned(&labels())).inc();
                counted.latency.observe(waited.as_secs_f64());
            }
            Settled::Exhausted(reason) => {
                let labels = OfWebhook::and(&self.webhook, "reason", reason_of(*reason));
                counted.exhausted.get_or_create(&labels).inc();
            }
            Settled::Retry(_) | Settled::Suspended { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use aquarium_delivery::{DeliveryId, EventId, Failure};
    use aquarium_queue::ReceiptEntry;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_outcome_has_its_own_name() {
        let names: HashSet<_> = (0..OUTCOMES).map(outcome_name).collect();
        assert_eq!(names.len(), OUTCOMES);
        for kind in FailureKind::ALL {
            let outcome = Outcome::Failed(Failure::new(*kind, ""));
            assert_eq!(outcome_name(number_of(&outcome)), kind.as_str());
        }
        for status in [100, 204, 301, 410, 599, 999] {
            let outcome = Outcome::Answered { status, retry_after: None };
            assert_eq!(outcome_name(number_of(&outcome)), CLASSES[usize::from(status / 100).min(5) - 1]);
        }
    }

    #[test]
    fn series_go_with_their_webhook() {
        let metrics = Metrics::new();
        let webhook: WebhookName = "acme/urban/ops".parse().unwrap();
        let lane = metrics.lane(&webhook);
        let outcome = Outcome::Answered { status: 204, retry_after: None };
        let (duration, phases) = (Duration::from_millis(3), Phases::default());
        lane.attempted(&Sent { outcome, duration, phases, excerpt: Bytes::new() });
        lane.settled(&Settled::Delivered, duration);
        lane.settled(&Settled::Exhausted(Exhaustion::Age), duration);
        let entry =
            ReceiptEntry { id: DeliveryId::from_bytes([0; 16]), webhook: webhook.clone(), skipped: true };
        metrics.accepted("acme", &[Receipt { event: EventId::from_bytes([0; 16]), deliveries: vec![entry] }]);
        let encoded = || {
            let mut text = String::new();
            metrics.encode(&mut text).unwrap();
            text
        };
        let labels = r#"organization="acme",project="urban",webhook="ops""#;
        for line in [
            format!("aquarium_attempts_total{{{labels},outcome=\"2xx\"}} 1"),
            format!("aquarium_deliveries_delivered_total{{{labels}}} 1"),
            format!("aquarium_deliveries_exhausted_total{{{labels},reason=\"age\"}} 1"),
            format!("aquarium_deliveries_skipped_total{{{labels}}} 1"),
        ] {
            assert!(encoded().contains(&line), "no {line} in\n{}", encoded());
        }
        let files = aquarium_config::Memory::new()
            .file("c/aquarium.toml", "version = 1\n")
            .file("c/organizations/acme.toml", "version = 1\n");
        let config = aquarium_config::load("c".as_ref(), &files).unwrap().config;
        metrics.forget(&config);
        assert!(!encoded().contains("webhook=\"ops\""), "{}", encoded());
    }
}
