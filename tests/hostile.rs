//! Hostile endpoints harm themselves alone: one webhook for each thing that an endpoint should not do, all at once, and a
//! healthy one beside them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_testkit::certificates::{Authority, with_protocols};
use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, Frames, INTERNAL_ERROR, NO_ERROR, PING, REFUSED_STREAM,
    Reaction, Request, SETTINGS, field, frame, goaway, head, reset,
};
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use tokio::time::{Instant, sleep, timeout};

use support::{EVENTS, accept, event, free_port, start, text};

/// The most attempts of a webhook at once.
const CONCURRENCY: usize = 4;
/// How many events the hostile ones get, one of them large.
const EVENTS_FOR_HOSTILE: usize = 12;
const LARGE: usize = 300_000;
/// How many events the healthy one gets without the others, and as many beside them.
const EVENTS_FOR_HEALTHY: usize = 300;
/// How often each hostile endpoint is called at least before it behaves again. Where an attempt takes the whole timeout,
/// the webhook comes to make one at a time.
const CALLS: usize = 5;
/// The most memory that it may take on top of what it took before the hostile ones were there: the bodies of the events
/// (32 MiB), and half a MiB for each attempt under way.
const MOST_MEMORY: u64 = (32 + 32) << 20;
/// How long it takes at most until the breakers of those that fail have opened, and the first probes are over.
const BREAKERS: Duration = Duration::from_secs(5);
/// How long anything may take that is not broken, on a machine that does much else.
const LONG: Duration = Duration::from_secs(60);

/// What comes of the first attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    /// It counts as delivered, and there is no other.
    Delivered,
    /// It answered with this status, and is called again.
    Status(u16),
    /// It failed so, and is called again.
    Failed(&'static str),
}

use Expected::{Delivered, Failed, Status};
use Reaction::{Close, ForEver, Once};

/// Who misbehaves until told otherwise.
enum Endpoint {
    Plain(Receiver),
    Framed(Frames),
    /// Nobody listens there, until somebody does.
    Dead(u16),
}

struct Hostile {
    name: &'static str,
    expected: Expected,
    endpoint: Endpoint,
    url: String,
}

impl Hostile {
    /// How often it was called.
    fn calls(&self) -> usize {
        match &self.endpoint {
            Endpoint::Plain(receiver) => receiver.count(),
            Endpoint::Framed(frames) => frames.count(),
            // It cannot know.
            Endpoint::Dead(_) => CALLS,
        }
    }

    /// The events that it has answered as it should.
    fn has(&self, behaves_since: usize) -> BTreeSet<Vec<u8>> {
        match &self.endpoint {
            Endpoint::Plain(receiver) => {
                receiver.received().iter().skip(behaves_since).map(|request| request.body.to_vec()).collect()
            }
            Endpoint::Framed(frames) => frames.answered().iter().map(|body| body.to_vec()).collect(),
            Endpoint::Dead(_) => BTreeSet::new(),
        }
    }
}

fn raw(text: impl AsRef<[u8]>) -> Behaviour {
    Behaviour::Raw(text.as_ref().to_vec())
}

fn ok(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes()
}

/// A chunked body that goes on and on.
fn endless(first: &str, again: &str) -> Behaviour {
    let first = ok(&format!("Transfer-Encoding: chunked\r\n\r\n{first}"));
    Behaviour::ForEver { first, again: again.into() }
}

const DRIP: Duration = Duration::from_millis(20);

fn over_http1() -> Vec<(&'static str, Behaviour, Expected)> {
    let bomb = Behaviour::status(200).with_header("Content-Encoding", "gzip");
    let protocol = Failed("protocol");
    vec![
        ("hang", Behaviour::Hang, Failed("response-timeout")),
        ("drip-head", Behaviour::DripHead { interval: DRIP }, Failed("response-timeout")),
        ("drip-body", Behaviour::DripBody { interval: DRIP }, Failed("body-timeout")),
        ("absent-body", raw(ok("Content-Length: 9\r\n\r\n")), Failed("body-timeout")),
        ("endless-informational", Behaviour::EndlessInformational, protocol),
        ("informational", Behaviour::status(500).after_informational(), Status(500)),
        ("endless-body", Behaviour::EndlessBody, Delivered),
        ("oversized-body", Behaviour::status(200).with_body(vec![b'x'; 1 << 20]), Delivered),
        ("bomb", bomb.with_body(vec![0; 100_000]), Delivered),
        ("oversized-error", Behaviour::status(500).with_body(vec![b'x'; 1 << 20]), Status(500)),
        ("endless-headers", Behaviour::EndlessHeaders, protocol),
        ("huge-header", Behaviour::HugeHeader(10_000_000), protocol),
        ("endless-trailers", endless("0\r\n", "X-Filler: e\r\n"), protocol),
        ("endless-extension", endless("1;", "x"), protocol),
        ("not-ascii", raw(b"HTTP/1.1 500 \xff\r\nX: \xe9\r\nContent-Length: 0\r\n\r\n"), Status(500)),
        ("close", Behaviour::Close, protocol),
        ("reset", Behaviour::Reset, protocol),
        ("close-in-head", raw("HTTP/1.1 200 O").then_close(), protocol),
        ("reset-in-head", Behaviour::ResetAfter(b"HTTP/1.1 200 O".to_vec()), protocol),
        ("close-in-body", Behaviour::TruncatedBody, protocol),
        ("reset-in-body", Behaviour::ResetAfter(ok("Content-Length: 9\r\n\r\nabc")), protocol),
        ("no-http", raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), protocol),
        ("redirect", Behaviour::status(307).with_header("Location", "/elsewhere"), Status(307)),
    ]
}

/// What is done with a request of this stream.
type OnStream = fn(u32) -> Reaction;

fn over_http2() -> Vec<(&'static str, OnStream, Expected)> {
    const OPEN: u8 = END_HEADERS;
    let protocol = Failed("protocol");
    vec![
        ("refused-stream", |on| Once(reset(on, REFUSED_STREAM)), protocol),
        ("cancel", |on| Once(reset(on, CANCEL)), protocol),
        ("internal-error", |on| Once(reset(on, INTERNAL_ERROR)), protocol),
        ("goodbye-before", |_| Once(goaway(0, NO_ERROR)), protocol),
        ("goodbye-after", |on| Close(goaway(on, NO_ERROR)), protocol),
        ("no-answer", |_| Once(Vec::new()), Failed("response-timeout")),
        (
            "endless-frames",
            |on| ForEver(head(200, 0, on), frame(CONTINUATION, 0, on, &field("x", "y"))),
            protocol,
        ),
        ("endless-hints", |on| ForEver(Vec::new(), head(103, OPEN, on)), protocol),
        ("endless-pings", |_| ForEver(Vec::new(), frame(PING, 0, 0, &[7; 8])), protocol),
        ("endless-settings", |_| ForEver(Vec::new(), frame(SETTINGS, 0, 0, &[])), protocol),
        ("oversized-frames", |on| ForEver(head(200, OPEN, on), frame(DATA, 0, on, &[0; 20_000])), protocol),
        (
            "half-a-body",
            |on| Once([head(200, OPEN, on), frame(DATA, 0, on, b"x")].concat()),
            Failed("body-timeout"),
        ),
    ]
}

/// All of them, and what makes them behave.
async fn hostile(authority: &Authority) -> (Vec<Hostile>, Arc<AtomicBool>) {
    let behave = Arc::new(AtomicBool::new(false));
    let mut all = Vec::new();
    for (name, behaviour, expected) in over_http1() {
        let behave = behave.clone();
        let script = move |_: &Received| match behave.load(Ordering::SeqCst) {
            true => Behaviour::status(204),
            false => behaviour.clone(),
        };
        let receiver = Receiver::builder().script(script).start().await;
        let url = receiver.url("/");
        all.push(Hostile { name, expected, endpoint: Endpoint::Plain(receiver), url });
    }
    let early = behave.clone();
    let early = move |_: &Received| (!early.load(Ordering::SeqCst)).then(|| Behaviour::status(413));
    let receiver = Receiver::builder().before_body(early).start().await;
    let url = receiver.url("/");
    all.push(Hostile { name: "early", expected: Status(413), endpoint: Endpoint::Plain(receiver), url });
    for (name, reaction, expected) in over_http2() {
        let behave = behave.clone();
        let script = move |request: Request| match behave.load(Ordering::SeqCst) {
            true => Reaction::Answer(204),
            false => reaction(request.stream),
        };
        let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2"]);
        let frames = Frames::start(config, &[], script).await;
        let url = frames.url("/");
        all.push(Hostile { name, expected, endpoint: Endpoint::Framed(frames), url });
    }
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/");
    all.push(Hostile { name: "dead", expected: Failed("connect"), endpoint: Endpoint::Dead(port), url });
    (all, behave)
}

fn configure(authority: &Authority, healthy: &Receiver, all: &[Hostile]) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.write("ca.pem", authority.pem());
    config.section("egress", "allow = [\"127.0.0.0/8\"]\nroots = { file = \"ca.pem\" }");
    // They go on misbehaving: no breaker spares them.
    set_breakers(&mut config, 1_000_000);
    config.webhook("acme", "urban", "healthy", &healthy.url("/"), &["*"], "");
    for hostile in all {
        config.webhook("acme", "wild", hostile.name, &hostile.url, &["*"], "");
    }
    config
}

/// Configures how deliveries are made, with this many failures until a breaker opens. Nobody runs out of attempts.
fn set_breakers(config: &mut ConfigDirectory, failures: usize) {
    let retry = [r#""1s", "#.repeat(4), r#""2s", "#.repeat(60)].concat();
    config.section(
        "delivery",
        &format!(
            "timeout = \"1s\"\nconnect_timeout = \"1s\"\nconcurrency = {CONCURRENCY}\n\
             breaker_failures = {failures}\nretry = [{retry}]"
        ),
    );
}

/// Posts events for the healthy webhook one after the other. Each with the time at which that began.
async fn post(client: &Client, prefix: &str) -> HashMap<Vec<u8>, Instant> {
    let mut posted = HashMap::new();
    for number in 0..EVENTS_FOR_HEALTHY {
        let (body, at) = (event(&format!("{prefix}{number}")), Instant::now());
        accept(client, EVENTS, body.clone()).await;
        posted.insert(body.into_bytes(), at);
    }
    posted
}

/// How long all but one in a hundred took at most, from the post to the endpoint.
fn p99(healthy: &Receiver, posted: &HashMap<Vec<u8>, Instant>) -> Duration {
    let received = healthy.received();
    let times = received.iter().filter_map(|request| Some(request.at - *posted.get(&request.body[..])?));
    let mut times: Vec<_> = times.collect();
    assert_eq!(times.len(), posted.len(), "each came once");
    times.sort();
    times[times.len() * 99 / 100]
}

/// The most that was seen of what a process takes.
#[derive(Debug, Clone, Copy, Default)]
struct Most {
    memory: u64,
    sockets: usize,
}

impl Most {
    fn look(&mut self, sidecar: &Sidecar) {
        self.memory = self.memory.max(sidecar.resident_bytes());
        self.sockets = self.sockets.max(sidecar.open_sockets());
    }

    /// Looks again and again until this completes.
    async fn look_until<T>(&mut self, sidecar: &Sidecar, done: impl Future<Output = T>) -> T {
        tokio::pin!(done);
        loop {
            self.look(sidecar);
            tokio::select! {
                done = &mut done => return done,
                () = sleep(DRIP) => {}
            }
        }
    }
}

/// An event of the project of the hostile webhooks, with padding of this size.
fn wild(id: usize, size: usize) -> String {
    let padding = "p".repeat(size);
    format!(
        r#"{{"event":"dataset-complete","project":"wild","dataset":{{"id":"w{id}","padding":"{padding}"}}}}"#
    )
}

/// Posts the events of the hostile ones, and checks what the first attempts for the first of them come to.
async fn provoke(client: &Client, all: &[Hostile]) -> BTreeSet<Vec<u8>> {
    let bodies: Vec<_> =
        (0..EVENTS_FOR_HOSTILE).map(|id| wild(id, if id == 1 { LARGE } else { 0 })).collect();
    let answer = accept(client, &format!("{EVENTS}?wait=30s"), bodies[0].clone()).await;
    let deliveries = answer["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), all.len());
    for hostile in all {
        let name = format!("acme/wild/{}", hostile.name);
        let delivery = deliveries.iter().find(|delivery| delivery["webhook"] == name).unwrap();
        let outcome = &delivery["outcome"];
        match hostile.expected {
            Delivered => assert_eq!(outcome["state"], "delivered", "{name}: {outcome}"),
            Status(status) => assert_eq!(outcome["status"], status, "{name}: {outcome}"),
            Failed(kind) => {
                let error = text(outcome, "/error");
                assert!(error.starts_with(&format!("{kind}: ")), "{name}: {outcome}");
            }
        }
        assert!(hostile.expected == Delivered || outcome["state"] == "retrying", "{name}: {outcome}");
    }
    for body in &bodies[1..] {
        accept(client, EVENTS, body.clone()).await;
    }
    bodies.into_iter().map(String::into_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_endpoints_harm_themselves_alone() {
    timeout(Duration::from_secs(280), side_by_side()).await.expect("it ends in time");
}

async fn side_by_side() {
    let authority = Authority::new();
    let healthy = Receiver::start().await;
    let (mut all, behave) = hostile(&authority).await;
    let mut config = configure(&authority, &healthy, &all);
    let (sidecar, client) = start(&config).await;

    let posted = post(&client, "alone").await;
    healthy.wait_for(posted.len(), LONG).await;
    let alone = p99(&healthy, &posted);
    let mut before = Most::default();
    before.look(&sidecar);

    let bodies = provoke(&client, &all).await;
    let mut most = Most::default();
    let posted = most.look_until(&sidecar, post(&client, "beside")).await;
    healthy.wait_for(2 * EVENTS_FOR_HEALTHY, LONG).await;
    let beside = p99(&healthy, &posted);
    let misbehaved = |hostile: &Hostile| hostile.calls() >= CALLS;
    eventually(LONG, "each hostile endpoint is called", async || {
        most.look(&sidecar);
        all.iter().all(misbehaved)
    })
    .await;
    set_breakers(&mut config, 5);
    sidecar.wait_for_log("new breaker_failures", LONG).await;
    sleep(BREAKERS).await;
    let posted = post(&client, "guarded").await;
    healthy.wait_for(3 * EVENTS_FOR_HEALTHY, LONG).await;
    let guarded = p99(&healthy, &posted);
    eprintln!("a healthy webhook's p99: {alone:?} by itself, {guarded:?} beside {} hostile ones", all.len());
    eprintln!("and {beside:?} when no breaker spares them any attempt");
    eprintln!("memory: {} KiB, and {} KiB without them", most.memory >> 10, before.memory >> 10);
    eprintln!("sockets: {}, and {} without them", most.sockets, before.sockets);
    assert!(most.memory < before.memory + MOST_MEMORY, "{most:?}, and {before:?} without them");
    // Those of attempts under way, and as many that are kept, or that are just being closed.
    assert!(
        most.sockets < before.sockets + 2 * CONCURRENCY * all.len(),
        "{most:?}, and {before:?} without them"
    );

    // What came before counts for nothing, unless it was delivered.
    let calls = |hostile: &Hostile| if hostile.expected == Delivered { 0 } else { hostile.calls() };
    let since: Vec<_> = all.iter().map(calls).collect();
    behave.store(true, Ordering::SeqCst);
    for hostile in &mut all {
        if let Endpoint::Dead(port) = hostile.endpoint {
            hostile.endpoint = Endpoint::Plain(Receiver::builder().port(port).start().await);
        }
    }
    for (hostile, since) in all.iter().zip(since) {
        let since = if hostile.name == "dead" { 0 } else { since };
        let what = format!("{} has all", hostile.name);
        eventually(LONG, &what, async || hostile.has(since).is_superset(&bodies)).await;
        if hostile.expected == Delivered {
            assert_eq!(
                hostile.calls(),
                bodies.len(),
                "{}: what was delivered is not sent again",
                hostile.name
            );
        }
    }
    assert_eq!(healthy.tally().duplicates, 0);
    // What is kept is kept for the next request, and the rest is closed.
    let kept = before.sockets + CONCURRENCY * all.len();
    eventually(LONG, "connections are closed", async || sidecar.open_sockets() <= kept).await;
    assert!(sidecar.resident_bytes() < before.memory + MOST_MEMORY);
}
