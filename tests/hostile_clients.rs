//! Hostile and careless clients of the ingest: they send what is no request, and send on after a refusal. Each refusal
//! reaches its client.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{Read as _, Write as _};

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::Sidecar;
use serde_json::Value;

use support::{EVENTS, SOON, binary, event};

/// Events of the project `urban` go to one endpoint, those of `wild` to another.
fn two_endpoints(good: &Receiver, hanging: &Receiver) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "good", &good.url("/"), &["*"], "");
    config.webhook("acme", "wild", "hanging", &hanging.url("/"), &["*"], "");
    config
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
