use std::sync::Mutex;

use aquarium_config::{Memory, load};
use aquarium_delivery::{DeliveryId, EventId, Outcome, Phases, Timestamp, TraceContext};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest,
};

use super::super::spans::AttemptSpan;
use super::*;

/// A collector that answers by a script, and what it got, when.
#[derive(Debug, Clone)]
struct Collector(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    answers: Vec<Result<Response<Bytes>, String>>,
    got: Vec<(Duration, usize)>,
    started: Instant,
    /// How long it takes to answer.
    takes: Duration,
}

impl Collector {
    /// Gives these answers one after the other, and takes everything afterwards.
    fn new(answers: impl IntoIterator<Item = Result<Response<Bytes>, String>>) -> Self {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        Self(Arc::new(Mutex::new(State {
            answers,
            got: Vec::new(),
            started: Instant::now(),
            takes: Duration::ZERO,
        })))
    }

    /// How many spans came with each request, and after how many seconds.
    fn got(&self) -> Vec<(u64, usize)> {
        self.0.lock().unwrap().got.iter().map(|(after, spans)| (after.as_secs(), *spans)).collect()
    }
}

impl Post for Collector {
    async fn post(&mut self, _: &Config, body: Bytes) -> Result<Response<Bytes>, String> {
        let decoded = ExportTraceServiceRequest::decode(body).unwrap();
        let spans = decoded.resource_spans[0].scope_spans[0].spans.len();
        let takes = self.0.lock().unwrap().takes;
        sleep(takes).await;
        let mut state = self.0.lock().unwrap();
        let after = state.started.elapsed();
        state.got.push((after, spans));
        state.answers.pop().unwrap_or_else(|| answer(200))
    }
}

fn answer(status: u16) -> Result<Response<Bytes>, String> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(answer)
}

fn retry_after(seconds: u64) -> Result<Response<Bytes>, String> {
    let mut answer = answer(503)?;
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    Ok(answer)
}

fn rejecting(rejected_spans: i64) -> Result<Response<Bytes>, String> {
    let partial_success = Some(ExportTracePartialSuccess { rejected_spans, ..Default::default() });
    Ok(Response::new(ExportTraceServiceResponse { partial_success }.encode_to_vec().into()))
}

/// An attempt, which is two spans with the wait before it.
fn span(number: u32) -> Span {
    Span::Attempt(Box::new(AttemptSpan {
        trace: TraceContext::start([1; 16], [2; 8]),
        event: EventId::from_bytes([3; 16]),
        delivery: DeliveryId::from_bytes([4; 16]),
        number,
        due_at: Timestamp::from_millis(1_000),
        at: Timestamp::from_millis(2_000),
        took: Duration::from_millis(30),
        webhook: "acme/urban/ops".parse().unwrap(),
        host: "ops.example.com".to_owned(),
        port: Some(443),
        outcome: Outcome::Answered { status: 204, retry_after: None },
        phases: Phases::default(),
    }))
}

struct World {
    spans: mpsc::Sender<Span>,
    metrics: Metrics,
    stop: CancellationToken,
    exporting: tokio::task::JoinHandle<()>,
    _config: watch::Sender<Arc<Config>>,
}

fn exporting_to(collector: &Collector) -> World {
    let files = Memory::new()
        .file("c/aquarium.toml", "version = 1\n[traces]\notlp = \"http://127.0.0.1:4318\"\n")
        .file("c/organizations/acme.toml", "version = 1\n");
    let config = load("c".as_ref(), &files).unwrap().config;
    let (config, follow) = watch::channel(Arc::new(config));
    let (spans, waiting) = mpsc::channel(4 * BATCH);
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let exporter = Exporter::new(waiting, follow, collector.clone(), metrics.clone(), Chance::seeded(7));
    let exporting = tokio::spawn(exporter.run(stop.clone()));
    World { spans, metrics, stop, exporting, _config: config }
}

/// The spans that were exported, and those that were given up for this reason.
fn counted(metrics: &Metrics, reason: &str) -> (u64, u64) {
    let mut text = String::new();
    metrics.encode(&mut text).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    };
    let dropped = format!("aquarium_spans_dropped_total{{reason=\"{reason}\"}}");
    (value("aquarium_spans_exported_total"), value(&dropped))
}

impl World {
    async fn record(&self, spans: usize) {
        for number in 1..=u32::try_from(spans).unwrap() {
            self.spans.send(span(number)).await.unwrap();
        }
    }

    fn counted(&self, reason: &str) -> (u64, u64) {
        counted(&self.metrics, reason)
    }
}

#[tokio::test(start_paused = true)]
async fn spans_go_out_in_batches_at_once_when_there_are_many() {
    let collector = Collector::new([]);
    let world = exporting_to(&collector);
    world.record(BATCH + 3).await;
    sleep(Duration::from_secs(5)).await;
    world.record(1).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(collector.got(), [(0, 2 * BATCH), (1, 6), (6, 2)]);
    assert_eq!(world.counted("overflow"), (2 * (BATCH as u64 + 4), 0));
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_is_tried_again_for_half_a_minute() {
    let away = || Err("connection refused".to_owned());
    let collector = Collector::new([away(), answer(429), answer(502)]);
    let world = exporting_to(&collector);
    world.record(1).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(collector.got().len(), 4);
    assert_eq!(world.counted("unreachable"), (2, 0));

    let collector = Collector::new((0..100).map(|_| away()));
    let world = exporting_to(&collector);
    world.record(1).await;
    sleep(Duration::from_secs(60)).await;
    let got = collector.got();
    assert!((4..=6).contains(&got.len()), "{got:?}");
    assert!(got.iter().all(|(after, _)| *after <= 31), "{got:?}");
    assert_eq!(world.counted("unreachable"), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_collector_says_when_to_come_again() {
    let collector = Collector::new([retry_after(20), retry_after(3_600)]);
    let world = exporting_to(&collector);
    world.record(1).await;
    sleep(Duration::from_secs(60)).await;
    let got = collector.got();
    assert_eq!(got.len(), 2, "an hour is longer than spans are kept for: {got:?}");
    assert!(got[1].0 >= 21, "{got:?}");
    assert_eq!(world.counted("unreachable"), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_the_collector_will_not_take_is_not_sent_again() {
    let collector = Collector::new([answer(400), rejecting(1), rejecting(-5), rejecting(i64::MAX)]);
    let world = exporting_to(&collector);
    for spans in [3, 3, 1, 1] {
        world.record(spans).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(collector.got().len(), 4);
    assert_eq!(world.counted("refused"), (5 + 2, 6 + 1 + 2));
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_what_is_there_along_and_does_not_wait_long() {
    let collector = Collector::new([]);
    let world = exporting_to(&collector);
    world.record(3).await;
    world.stop.cancel();
    let World { exporting, metrics: _, .. } = world;
    exporting.await.unwrap();
    assert_eq!(collector.got(), [(0, 6)]);

    // One that is slow gets as much as there is time for, and no more.
    let collector = Collector::new([]);
    collector.0.lock().unwrap().takes = FLUSH * 2 / 5;
    let world = exporting_to(&collector);
    world.record(4 * BATCH).await;
    world.stop.cancel();
    let (stopped, World { exporting, metrics, .. }) = (Instant::now(), world);
    exporting.await.unwrap();
    assert!(stopped.elapsed() <= FLUSH, "{:?}", stopped.elapsed());
    assert_eq!(collector.got().len(), 2);
    assert_eq!(counted(&metrics, "stopped"), (2 * 2 * BATCH as u64, 2 * 2 * BATCH as u64));

    let collector = Collector::new((0..100).map(|_| Err("away".to_owned())));
    let World { spans, stop, exporting, _config, .. } = exporting_to(&collector);
    spans.send(span(1)).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    stop.cancel();
    let stopped = Instant::now();
    exporting.await.unwrap();
    assert!(stopped.elapsed() <= Duration::from_secs(3), "{:?}", stopped.elapsed());
}
