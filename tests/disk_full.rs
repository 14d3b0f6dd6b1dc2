//! The disk is full: it is told, what was accepted arrives, and it goes on by itself when there is room.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::{Launch, Sidecar, run};
use aquarium_testkit::volume::Volume;
use tokio::time::{Instant, sleep, timeout};

use support::{EVENTS, JSON, SOON, binary, event, text};

/// How long a full disk is posted to.
const FULL: Duration = Duration::from_secs(4);
/// The longest that it may take until events are accepted again after there is room. The file is opened anew at growing
/// intervals, of 10 s at the most.
const RECOVERY: Duration = Duration::from_secs(15);

/// An endpoint that takes so long that its deliveries end when the disk is full.
const SLOW: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let filled = fill(&[64 << 10], Duration::ZERO);
    timeout(Duration::from_secs(90), filled).await.expect("it takes less than 90 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_end_while_the_disk_is_full_are_recorded_when_there_is_room() {
    let filled = fill(&[100, 64 << 10, 5_000, 120_000, 20_000], SLOW);
    timeout(Duration::from_secs(90), filled).await.expect("it takes less than 90 s");
}

/// Posts events of these sizes, in turn, until the disk is full, and after that.
async fn fill(sizes: &[usize], slow: Duration) {
    let script = move |_: &Received| Behaviour::status(204).after(slow);
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let volume = match Volume::mount(config.queue().parent().unwrap(), "4m").await {
        Ok(volume) => volume,
        Err(reason) => return skip(&reason),
    };
    let launch = Launch::new(binary()).through(volume.entrance());
    let mut sidecar = Sidecar::start(launch, &config).await;
    let mut app = App::new(&sidecar, sizes);

    let refusal = loop {
        if let Some(refusal) = app.post().await {
            break refusal;
        }
    };
    let before = app.acknowledged.len();
    assert!(before >= 10, "{before} events in 4 MiB");
    check_refusal(&refusal);
    app.wait_until_told(&sidecar).await;
    let (since, mut refused) = (Instant::now(), 1);
    while since.elapsed() < FULL {
        // A small one may find room where a large one does not.
        if let Some(refusal) = app.post().await {
            check_refusal(&refusal);
            refused += 1;
        }
    }
    let full = app.acknowledged.len();
    eventually(SOON, "what was accepted arrives", async || receiver.tally().unique >= full).await;
    app.wait_until_told(&sidecar).await;
    let failures = lines(&sidecar, "writing failed");
    let attempts = lines(&sidecar, "could not be opened again");

    volume.resize("64m").await;
    let enlarged = Instant::now();
    while app.post().await.is_some() {
        assert!(enlarged.elapsed() < RECOVERY, "it does not recover: {:#?}", sidecar.logs());
        sleep(Duration::from_millis(20)).await;
    }
    let recovered = enlarged.elapsed();
    let admin = Client::new(sidecar.admin());
    assert_eq!(admin.get("/readyz").await.unwrap().status, 200);
    assert!(metric(&sidecar).await.contains("\naquarium_queue_writable 1\n"));
    for _ in 0..20 {
        assert!(app.post().await.is_none(), "there is room, and an event is refused");
    }
    let all = app.acknowledged.len();
    eventually(SOON, "all that was accepted arrives", async || receiver.tally().unique >= all).await;
    println!(
        "accepted {before} events in 4 MiB and {} more, refused {refused}, told {failures} times and {attempts} attempts; \
         accepting again after {recovered:.1?}, {all} accepted and {} received",
        full - before,
        receiver.tally().requests
    );
    assert_eq!(failures, 1, "a full disk is told once: {:#?}", sidecar.logs());

    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    for request in receiver.received() {
        let id = request.header("webhook-id").unwrap();
        let sent = app.acknowledged.remove(id).expect("what arrives was acknowledged, and arrives once");
        assert_eq!(request.body, sent.as_bytes());
    }
    assert!(app.acknowledged.is_empty(), "{} were acknowledged and lost", app.acknowledged.len());
    verify(&volume, &config).await;
}

/// Says that there is no such file system to be had, which is a failure where there has to be.
fn skip(reason: &str) {
    assert!(std::env::var_os("AQUARIUM_REQUIRE_NAMESPACES").is_none(), "{reason}");
    // Not by `eprintln!`, which nobody gets to see of a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped: no file system can be mounted: {}", reason.trim_end());
}

/// Who posts, and what was acknowledged, by its id.
struct App {
    client: Client,
    sizes: Vec<usize>,
    posted: usize,
    acknowledged: BTreeMap<String, String>,
}

impl App {
    fn new(sidecar: &Sidecar, sizes: &[usize]) -> App {
        let client = Client::new(sidecar.ingest());
        App { client, sizes: sizes.to_vec(), posted: 0, acknowledged: BTreeMap::new() }
    }

    /// Posts an event. The answer, if it is not acknowledged.
    async fn post(&mut self) -> Option<Response> {
        let size = self.sizes[self.posted % self.sizes.len()];
        self.posted += 1;
        let body = event(&format!("{}-{}", self.posted, "x".repeat(size)));
        let response = self.client.post(EVENTS, JSON, body.clone()).await.unwrap();
        if response.status != 202 {
            return Some(response);
        }
        let known = self.acknowledged.insert(text(&response.json(), "/id"), body);
        assert!(known.is_none(), "two events with one id");
        None
    }

    /// Waits until the sidecar tells that the queue cannot be written to. What finds that out is the next event.
    async fn wait_until_told(&mut self, sidecar: &Sidecar) {
        let what = "it is told that the queue cannot be written to";
        eventually(SOON, what, async || self.post().await.is_some() && told(sidecar).await).await;
    }
}

fn check_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.json()["code"], "queue-unavailable");
    assert!(text(&response.json(), "/detail").contains("full"), "{}", response.text());
}

/// Whether `/readyz` and the metrics say that the queue is what is wrong.
async fn told(sidecar: &Sidecar) -> bool {
    let readiness = Client::new(sidecar.admin()).get("/readyz").await.unwrap();
    let answer = readiness.json();
    let queue = answer["checks"].as_array().unwrap().iter().find(|check| check["name"] == "queue").unwrap();
    readiness.status == 503
        && queue["ok"] == false
        && metric(sidecar).await.contains("\naquarium_queue_writable 0\n")
}

async fn metric(sidecar: &Sidecar) -> String {
    Client::new(sidecar.admin()).get("/metrics").await.unwrap().text()
}

fn lines(sidecar: &Sidecar, part: &str) -> usize {
    sidecar.logs().iter().filter(|line| line.contains(part)).count()
}

/// The file is checked where it is.
async fn verify(volume: &Volume, config: &ConfigDirectory) {
    let (binary, directory) = (binary().display().to_string(), config.path().display().to_string());
    let words = volume.entrance().iter().skip(1).map(String::as_str);
    let words: Vec<_> = words.chain([&*binary, "queue", "verify", "--config", &directory]).collect();
    let output = run(Path::new(&volume.entrance()[0]), &words, "").await;
    assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
}
