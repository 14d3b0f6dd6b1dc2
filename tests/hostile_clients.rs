//! Hostile and careless clients of the ingest: they lie about sizes, send slowly, wait, and send on after a refusal. An honest
//! client beside them is served, and each refusal reaches its client.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{BATCH, EVENTS, JSON, NDJSON, SOON, accept, binary, event, start};

/// An honest client's 95th percentile beside the hostile ones. The aim is half a second; a loaded machine is given more.
const MOST_P95: Duration = Duration::from_secs(3);
const BATCH_LIMIT: usize = 16 << 20;

/// Events of the project `urban` go to one endpoint, those of `wild` to another.
fn two_endpoints(good: &Receiver, hanging: &Receiver) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "good", &good.url("/"), &["*"], "");
    config.webhook("acme", "wild", "hanging", &hanging.url("/"), &["*"], "");
    config
}

async fn hanging() -> Receiver {
    Receiver::builder().script(|_| Behaviour::Hang).start().await
}

fn wild() -> String {
    event("ds_wild").replace("urban", "wild")
}

fn host(sidecar: &Sidecar) -> String {
    sidecar.ingest().strip_prefix("http://").unwrap().to_owned()
}

fn head(path: &str, kind: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n{framing}\r\n\r\n"
    )
}

fn announced(size: usize) -> String {
    format!("Content-Length: {size}")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// What a hostile client sends at once, and what it sends then every tenth of a second, until it is cut off.
#[derive(Clone)]
struct Attack {
    clients: usize,
    first: Vec<u8>,
    again: Vec<u8>,
}

fn attacks() -> Vec<Attack> {
    let attack = |clients, head: String, body: &[u8], again: &[u8]| {
        let first = [head.into_bytes(), body.to_vec()].concat();
        Attack { clients, first, again: again.to_vec() }
    };
    let (batch, big) = (|framing: &str| head(BATCH, "x-ndjson", framing), vec![b' '; 2 << 20]);
    let waits = |path: &str| format!("{path}?wait=20s");
    let whole = |body: String| [chunk(body.as_bytes()), b"0\r\n\r\n".to_vec()].concat();
    vec![
        attack(40, batch(&announced(BATCH_LIMIT)), b"{", b""),
        attack(40, head(EVENTS, "json", CHUNKED), &chunk(b"{"), b""),
        attack(20, head(EVENTS, "json", CHUNKED), &chunk(b"{"), &chunk(b" ")),
        attack(10, head(EVENTS, "json", &announced(20_000)), &big[..17_000], b""),
        attack(10, head(EVENTS, "json", CHUNKED), &chunk(&big[..70_000]), b""),
        attack(10, batch(CHUNKED), &chunk(&big[..300_000]), &chunk(b" ")),
        attack(10, batch(&announced(BATCH_LIMIT)), &big, b""),
        attack(10, batch(CHUNKED), &chunk(&big), &chunk(&[b' '; 8_000])),
        attack(30, head(&waits(EVENTS), "json", CHUNKED), &whole(wild()), b""),
        attack(10, head(&waits(BATCH), "x-ndjson", CHUNKED), &whole(wild()), b""),
        attack(10, "POST /v1/organizations/acme/ev".to_owned(), b"", b"e"),
    ]
}

/// Attacks until it is dropped, with a new connection whenever one is cut off.
async fn attacker(address: String, attack: Attack) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await
            && stream.write_all(&attack.first).await.is_ok()
        {
            let mut answer = [0; 4_096];
            loop {
                match timeout(Duration::from_millis(100), stream.read(&mut answer)).await {
                    Ok(Ok(0) | Err(_)) => break,
                    Ok(Ok(_)) => {}
                    Err(_) if attack.again.is_empty() => {}
                    Err(_) => {
                        if stream.write_all(&attack.again).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Four connections that announced 16 MiB and sent a byte kept everybody else out, and so did 64 events in chunks.
#[tokio::test]
async fn beside_200_slow_lying_and_waiting_clients_an_honest_one_is_served() {
    let (good, hanging) = (Receiver::start().await, hanging().await);
    let config = two_endpoints(&good, &hanging);
    let sidecar = Sidecar::start(binary(), &config).await;
    let mut hostile = JoinSet::new();
    for attack in attacks() {
        for _ in 0..attack.clients {
            hostile.spawn(attacker(host(&sidecar), attack.clone()));
        }
    }
    assert_eq!(hostile.len(), 200);
    sleep(Duration::from_secs(1)).await;
    let kept = Client::new(sidecar.ingest());
    let mut times = Vec::new();
    for number in 0..120 {
        let fresh = Client::new(sidecar.ingest());
        let client = if number % 2 == 0 { &kept } else { &fresh };
        let mut body = event(&format!("ds_{number}"));
        // Now and then a larger one, beyond what needs no room.
        body.extend((0..if number % 10 == 0 { 50_000 } else { 0 }).map(|_| ' '));
        let started = Instant::now();
        accept(client, EVENTS, body).await;
        times.push(started.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    let (p50, p95, most) = (times[times.len() / 2], times[times.len() * 95 / 100], times[times.len() - 1]);
    println!("honest client beside 200 hostile ones: p50 {p50:?}, p95 {p95:?}, at most {most:?}");
    assert!(p95 < MOST_P95, "{p95:?}");
    assert_eq!(good.wait_for_count(120, SOON).await.unique, 120);
    println!("peak: {} MiB", peak(&sidecar));
    assert!(peak(&sidecar) < 256, "{} MiB", peak(&sidecar));
    hostile.shutdown().await;
}

/// Each wait kept a connection, and what it had reserved for its body: 1,024 of them were all there is.
#[tokio::test]
async fn a_thousand_posts_that_wait_leave_room_and_those_beyond_the_capacity_are_answered_at_once() {
    let (good, hanging) = (Receiver::start().await, hanging().await);
    let mut config = two_endpoints(&good, &hanging);
    config.section("delivery", "timeout = \"60s\"");
    let sidecar = Sidecar::start(binary(), &config).await;
    let body = wild();
    let request = format!("{}{body}", head(&format!("{EVENTS}?wait=60s"), "json", &announced(body.len())));
    let mut posts = JoinSet::new();
    for _ in 0..1_000 {
        let (address, request) = (host(&sidecar), request.clone());
        posts.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    for number in 0..744 {
        let answer = timeout(SOON, posts.join_next()).await;
        let answer = answer.unwrap_or_else(|_| panic!("only {number} are answered")).unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("\"pending\""), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert!(timeout(Duration::from_millis(500), posts.join_next()).await.is_err(), "256 wait");
    for number in 0..20 {
        accept(&Client::new(sidecar.ingest()), EVENTS, event(&format!("ds_{number}"))).await;
    }
    assert_eq!(Client::new(sidecar.admin()).get("/readyz").await.unwrap().status, 200);
    assert_eq!(good.wait_for_count(20, SOON).await.unique, 20);
    posts.shutdown().await;
    eventually(SOON, "one can wait again when others are gone", async || {
        let path = format!("{EVENTS}?wait=10s");
        let answer = Client::new(sidecar.ingest()).post(&path, JSON, event("ds_last")).await.unwrap().text();
        answer.contains("\"delivered\"")
    })
    .await;
}

/// What `/readyz` answers, and what it says of bodies.
async fn readiness(admin: &Client) -> (u16, Value) {
    let response = admin.get("/readyz").await.unwrap();
    let checks = response.json()["checks"].clone();
    let bodies = checks.as_array().unwrap().iter().find(|check| check["name"] == "bodies").unwrap().clone();
    (response.status.as_u16(), bodies["ok"].clone())
}

#[tokio::test]
async fn when_bodies_are_turned_away_readyz_says_so_and_smaller_ones_go_on() {
    let good = Receiver::start().await;
    let config = two_endpoints(&good, &good);
    let (sidecar, client) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    assert_eq!(readiness(&admin).await, (200, Value::Bool(true)));
    // They keep the pace, so they keep what they have.
    let mut steady = JoinSet::new();
    let part = chunk(&[b' '; 64 << 10]);
    for _ in 0..4 {
        let (address, part) = (host(&sidecar), part.clone());
        steady.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(head(BATCH, "x-ndjson", CHUNKED).as_bytes()).await.unwrap();
            for number in 0..250 {
                stream.write_all(&part).await.unwrap();
                // More than a MiB at once, so that the largest step is reached.
                sleep(Duration::from_millis(if number < 20 { 0 } else { 60 })).await;
            }
        });
    }
    sleep(Duration::from_millis(500)).await;
    let large = vec![b' '; 2 << 20];
    let refused = client.post(BATCH, NDJSON, large.clone()).await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &"busy".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(readiness(&admin).await, (503, Value::Bool(false)));
    sidecar.wait_for_log("memory for bodies of requests is in use", SOON).await;
    accept(&Client::new(sidecar.ingest()), EVENTS, event("small")).await;
    steady.shutdown().await;
    eventually(SOON, "large ones are taken again", async || {
        let answer = Client::new(sidecar.ingest()).post(BATCH, NDJSON, large.clone()).await.unwrap();
        answer.json()["code"] == "empty-body"
    })
    .await;
    eventually(SOON, "it is ready again", async || readiness(&admin).await.0 == 200).await;
}

/// Writes all of it, as clients do that do not look for an answer meanwhile, and then reads the answer.
fn insistent(address: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Python's `http.client` saw a broken pipe instead of each refusal.
#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let good = Receiver::start().await;
    let mut config = two_endpoints(&good, &good);
    config.section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"1MiB\"");
    let sidecar = Sidecar::start(binary(), &config).await;
    let nobody = EVENTS.replace("acme", "nobody");
    let body = vec![b' '; 5_000_000];
    let chunks = [chunk(&body), b"0\r\n\r\n".to_vec()].concat();
    let admin = sidecar.admin().strip_prefix("http://").unwrap().to_owned();
    let ingest = host(&sidecar);
    let length = announced(body.len());
    for (address, head, body, status) in [
        (&ingest, head(EVENTS, "json", &length), &body, 413),
        (&ingest, head(EVENTS, "json", CHUNKED), &chunks, 413),
        (&ingest, head(&nobody, "json", &length), &body, 404),
        (&ingest, head(EVENTS, "xml", &length), &body, 415),
        (&ingest, head("/", "json", &length), &body, 404),
        (&ingest, head(EVENTS, "json", &length).replace("POST", "PUT"), &body, 405),
        (&ingest, head(EVENTS, "json", &length).replace("localhost", "evil.example.com"), &body, 421),
        (&ingest, head(EVENTS, "json", &format!("X-Filler: {}\r\n{length}", "x".repeat(40_000))), &body, 431),
        (&admin, head("/v1/replays", "json", &length), &body, 413),
    ] {
        for _ in 0..5 {
            let (address, request) = (address.clone(), [head.as_bytes(), body].concat());
            let answer = tokio::task::spawn_blocking(move || insistent(&address, &request)).await.unwrap();
            let answer = answer.unwrap_or_else(|error| panic!("{status}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
}

/// Such a head was answered with a bare status.
#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused_with_a_problem_that_has_an_id() {
    let good = Receiver::start().await;
    let config = two_endpoints(&good, &good);
    let sidecar = Sidecar::start(binary(), &config).await;
    let large = "X-Filler: x\r\n".repeat(5_000);
    let body = event("before");
    let posted = format!("{}{body}", head(EVENTS, "json", &announced(body.len())));
    let get = |rest: &str| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    let table = [
        ("GET\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("GET / HTTP/3.7\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned(), 400, "malformed-head"),
        ("GET / \u{7f}\r\n\r\n".to_owned(), 400, "malformed-head"),
        (get("no colon\r\n"), 400, "malformed-head"),
        (get("Bad Name: x\r\n"), 400, "malformed-head"),
        (get("Content-Length: 5\r\nContent-Length: 6\r\n"), 400, "malformed-head"),
        (get("Content-Length: -1\r\n"), 400, "malformed-head"),
        (get(&large), 431, "head-too-large"),
        (get(&format!("X-Filler: {}\r\n", "x".repeat(100_000))), 431, "head-too-large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)), 431, "head-too-large"),
    ];
    for address in [host(&sidecar), sidecar.admin().strip_prefix("http://").unwrap().to_owned()] {
        for (bytes, status, code) in &table {
            // Also after another request on the same connection, which is answered as ever.
            for before in [0, 1] {
                let (address, sent) = (address.clone(), [posted.repeat(before), bytes.clone()].concat());
                let asked = tokio::task::spawn_blocking(move || insistent(&address, sent.as_bytes()));
                let answer = asked.await.unwrap().unwrap();
                let at = answer.rfind("HTTP/1.1 4").unwrap_or_else(|| panic!("{code}: {bytes:?}: {answer}"));
                let (head, body) = answer[at..].split_once("\r\n\r\n").unwrap();
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{code}: {answer}");
                assert_eq!(at > 0, before > 0, "{answer}");
                let head = head.to_lowercase();
                let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
                assert!(head.contains("content-type: application/problem+json"), "{head}");
                assert!(head.contains("connection: close"), "{head}");
                let problem: Value = serde_json::from_str(body).unwrap();
                assert_eq!(
                    (&problem["code"], &problem["request_id"]),
                    (&(*code).into(), &id.into()),
                    "{problem}"
                );
            }
        }
    }
    let metrics = Client::new(sidecar.admin()).get("/metrics").await.unwrap().text();
    assert!(metrics.contains("aquarium_requests_refused_total{code=\"malformed-head\"} 16"), "{metrics}");
}

/// 34 KB for 1,000 webhooks were answered with 71 MB.
#[tokio::test]
async fn a_batch_has_a_bounded_number_of_deliveries_and_an_event_as_many_as_there_are_webhooks() {
    let mut config = ConfigDirectory::new();
    let webhooks = (0..1_100).fold(String::new(), |mut all, number| {
        let url = "url = \"http://127.0.0.1:9/\"\nevents = [\"test\"]\nactive = false";
        writeln!(all, "[projects.u.webhooks.w{number}]\n{url}").unwrap();
        all
    });
    config.organization("acme", &webhooks);
    let (sidecar, client) = start(&config).await;
    let line = "{\"event\":\"test\",\"project\":\"u\"}\n";
    let refused = client.post(BATCH, NDJSON, line.repeat(1_000)).await.unwrap();
    let problem = refused.json();
    assert_eq!(
        (refused.status.as_u16(), &problem["code"]),
        (413, &"too-many-deliveries".into()),
        "{problem}"
    );
    assert_eq!(problem["line"], 10, "{problem}");
    let taken = client.post(BATCH, NDJSON, line.repeat(9)).await.unwrap();
    assert_eq!(taken.status, 202);
    assert_eq!(taken.json()["events"][8]["skipped"].as_array().unwrap().len(), 1_100);
    assert!(taken.body.len() < 1 << 20, "{} bytes", taken.body.len());
    assert_eq!(client.post(EVENTS, JSON, line).await.unwrap().status, 202);
    assert!(sidecar.resident_bytes() < 128 << 20, "{}", sidecar.resident_bytes());
}

/// The most memory that it ever had in use (`VmHWM`), in MiB.
fn peak(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() >> 10
}

/// What the operator's guide says of memory: 128 MiB and five times `max_event_size`.
#[tokio::test]
async fn with_the_largest_events_memory_stays_within_what_the_guide_says() {
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md")).unwrap();
    assert!(guide.contains("128 MiB and five times `max_event_size`"), "docs/operating.md, Sizing");
    let good = Receiver::builder().record_bodies(false).start().await;
    let mut config = two_endpoints(&good, &good);
    config.section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"64MiB\"");
    let sidecar = Sidecar::start(binary(), &config).await;
    let body = event(&"x".repeat(63 << 20));
    accept(&Client::new(sidecar.ingest()), &format!("{EVENTS}?wait=20s"), body.clone()).await;
    let mut posts = JoinSet::new();
    for _ in 0..5 {
        let (body, client) = (body.clone(), Client::new(sidecar.ingest()));
        posts.spawn(async move { client.post(EVENTS, JSON, body).await.unwrap().status.as_u16() });
    }
    // The others may find no room for longer than they wait.
    let accepted = posts.join_all().await.iter().filter(|status| **status == 202).count();
    good.wait_for_count(1 + accepted, Duration::from_secs(60)).await;
    println!("peak with events of 63 MiB, {} accepted: {} MiB", 1 + accepted, peak(&sidecar));
    assert!(accepted > 0 && peak(&sidecar) < 128 + 5 * 64, "{} MiB", peak(&sidecar));
}
