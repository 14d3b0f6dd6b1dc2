//! What is refused, and how; and who is not disturbed by it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::Sidecar;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use support::{BATCH, EVENTS, JSON, NDJSON, SOON, accept, binary, event, free_port, start};

fn config(url: &str) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", url, &["*"], "");
    config
}

/// The problem of a refusal, after a look at what each of them has to have.
fn problem(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{}", response.text());
    let problem = response.json();
    assert_eq!(problem["status"], status, "{problem}");
    for member in ["type", "title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
    }
    problem
}

#[tokio::test]
async fn a_refused_event_says_what_is_wrong_and_where() {
    let receiver = Receiver::start().await;
    let config = config(&receiver.url("/"));
    let (_sidecar, client) = start(&config).await;
    let refused: &[(&[u8], &str, &str, u64)] = &[
        (b"", "empty-body", "", 0),
        (b"{\"event\": \"test\", \"project\": \"urban\"", "cut-off", "", 36),
        (b"{\"event\": test}", "invalid-json", "/event", 11),
        (b"[]", "wrong-type", "", 0),
        (b"{\"event\": \"test\", \"project\": \"\xff\"}", "invalid-utf8", "", 30),
        (b"\xef\xbb\xbf{}", "byte-order-mark", "", 0),
        (b"{\"event\": \"test\", \"project\": \"urban\"} x", "trailing-data", "", 38),
        (b"{\"project\": \"urban\"}", "missing-field", "/event", 0),
        (b"{\"event\": \"test\"}", "missing-field", "/project", 0),
        (b"{\"event\": \"tset\", \"project\": \"urban\"}", "unknown-event-type", "/event", 10),
        (b"{\"event\": \"test\", \"project\": \"\"}", "invalid-project", "/project", 29),
        (b"{\"event\": \"test\", \"project\": 7}", "wrong-type", "/project", 29),
        (b"{\"event\": \"test\", \"project\": \"urban\", \"isue\": {}}", "unknown-key", "/isue", 38),
        (
            b"{\"event\": \"test\", \"event\": \"test\", \"project\": \"urban\"}",
            "duplicate-key",
            "/event",
            18,
        ),
        (
            b"{\"event\": \"test\", \"project\": \"urban\", \"issue\": {}}",
            "entity-not-for-event",
            "/issue",
            38,
        ),
        (
            b"{\"event\":\"dataset-complete\",\"project\":\"u\",\"dataset\":{},\"inference_set\":{}}",
            "second-entity",
            "/inference_set",
            55,
        ),
    ];
    for (body, code, field, offset) in refused {
        let response = client.post(EVENTS, JSON, body.to_vec()).await.unwrap();
        let problem = problem(&response, 400);
        let body = String::from_utf8_lossy(body);
        assert_eq!(problem["code"], *code, "{body}: {problem}");
        assert_eq!(problem["field"], *field, "{body}: {problem}");
        assert_eq!(problem["offset"], *offset, "{body}: {problem}");
    }
    let response = client.post(EVENTS, JSON, r#"{"event": "tset", "project": "urban"}"#).await.unwrap();
    let detail = problem(&response, 400)["detail"].to_string();
    assert!(detail.contains("issue-exported") && detail.contains("test"), "the known types: {detail}");

    let batch = format!("{}\n{{}}\n", event("ds_1"));
    let problem = problem(&client.post(BATCH, NDJSON, batch).await.unwrap(), 400);
    assert_eq!((&problem["line"], &problem["code"]), (&2.into(), &"missing-field".into()), "{problem}");

    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_2")).await;
    assert_eq!(receiver.count(), 1, "nothing that was refused is sent");
}

#[tokio::test]
async fn every_other_refusal_is_a_problem_as_well() {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"));
    config.section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"1KiB\"");
    let (_sidecar, client) = start(&config).await;
    let large = event(&"x".repeat(1024));
    let small = event("ds_1");
    let nobody = EVENTS.replace("acme", "nobody");
    let (wait, typo) = (format!("{EVENTS}?wait=soon"), format!("{EVENTS}?wiat=1s"));
    type Row<'a> = (u16, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let rows: &[Row<'_>] = &[
        (400, "POST", &wait, JSON, &small, "wait"),
        (400, "POST", &typo, JSON, &small, "wiat"),
        (400, "POST", EVENTS, &[JSON[0], ("Idempotency-Key", "")], &small, "dempotency"),
        (404, "POST", &nobody, JSON, &small, "nobody"),
        (404, "POST", "/v1/organisations/acme/events", JSON, &small, ""),
        (404, "GET", "/", &[], "", ""),
        (405, "GET", EVENTS, &[], "", "POST"),
        (405, "DELETE", BATCH, &[], "", "POST"),
        (413, "POST", EVENTS, JSON, &large, "1"),
        (413, "POST", BATCH, NDJSON, &large, "1"),
        (415, "POST", EVENTS, &[], &small, "application/json"),
        (415, "POST", EVENTS, &[("Content-Type", "text/plain")], &small, "application/json"),
        (415, "POST", BATCH, &[("Content-Type", "text/plain")], &small, "application/x-ndjson"),
    ];
    for (status, method, path, headers, body, mentions) in rows {
        let response = client.request(method, path, headers, (*body).to_owned()).await.unwrap();
        let problem = problem(&response, *status);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(mentions), "{method} {path}: {detail}");
        if *status == 405 {
            assert_eq!(response.header("allow"), Some("POST"));
        }
    }
    let with_charset = [("Content-Type", "Application/JSON; charset=utf-8")];
    let accepted = client.post(&format!("{EVENTS}?wait=10s"), &with_charset, small).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    assert_eq!(receiver.count(), 1, "nothing that was refused is sent");
}

#[tokio::test]
async fn a_full_queue_is_a_503_with_retry_after() {
    let mut config = config(&format!("http://127.0.0.1:{}/", free_port()));
    let queue = config.queue().display().to_string();
    config.section("queue", &format!("path = \"{queue}\"\nmax_size = \"1MiB\""));
    let (sidecar, client) = start(&config).await;

    let large = event(&"x".repeat(64 * 1024));
    let mut answers = Vec::new();
    for _ in 0..64 {
        let response = client.post(EVENTS, JSON, large.clone()).await.unwrap();
        if response.status != 202 {
            answers.push(response);
            break;
        }
    }
    let refused = answers.first().expect("4 MiB do not fit into 1 MiB");
    problem(refused, 503);
    let seconds: u32 = refused.header("retry-after").expect("it says when to come again").parse().unwrap();
    assert!(seconds >= 1);
    let admin = Client::new(sidecar.admin());
    assert_eq!(admin.get("/livez").await.unwrap().status, 200);
}

#[tokio::test]
async fn garbage_and_slow_clients_disturb_nobody() {
    let receiver = Receiver::start().await;
    let config = config(&receiver.url("/"));
    let (mut sidecar, client) = start(&config).await;
    let address = sidecar.ingest().strip_prefix("http://").unwrap().to_owned();

    let mut huge = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Filler: ".to_vec();
    huge.extend_from_slice(&b"x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Filler: x\r\n".repeat(5_000));
    let both = b"POST /v1/organizations/acme/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        &huge,
        many.as_bytes(),
        both,
    ];
    for bytes in garbage {
        let answer = talk(&address, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{{\"ev"
    );
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let part = if number % 2 == 0 { head.as_str() } else { "POST /v1/org" };
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for number in 0..20 {
        let sent = accept(&client, EVENTS, event(&format!("ds_{number}")));
        timeout(Duration::from_secs(5), sent).await.expect("others are served while some are slow");
    }
    receiver.wait_for(20, SOON).await;
    let admin = Client::new(sidecar.admin());
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin.get(path).await.unwrap().status, 200);
    }
    // Clients that have not finished do not keep it from ending.
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    drop(slow);
}

/// A web page reached the ingest under a name of its own, and posted events that went out with the secret.
#[tokio::test]
async fn a_web_page_posts_no_events_and_a_request_is_framed_and_addressed_once() {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"));
    let admin = config.scratch().join("admin.sock");
    config.section("admin", &format!("listen = \"unix:{}\"", admin.display()));
    let (sidecar, client) = start(&config).await;
    let address = sidecar.ingest().strip_prefix("http://").unwrap().to_owned();
    let body = event("ds_1");
    let framed = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = |coding: &str| {
        format!(
            "Host: localhost\r\nTransfer-Encoding: {coding}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let table: &[(String, u16, &str)] = &[
        (format!("Host: evil.example.com\r\n{framed}"), 421, "foreign-host"),
        (format!("Host: localhost.evil.example.com:7878\r\n{framed}"), 421, "foreign-host"),
        (format!("Host: localhost\r\nOrigin: https://evil.example.com\r\n{framed}"), 403, "foreign-origin"),
        (format!("Host: localhost\r\nOrigin: null\r\n{framed}"), 403, "foreign-origin"),
        (framed.clone(), 400, "invalid-host"),
        (format!("Host: localhost\r\nHost: localhost\r\n{framed}"), 400, "invalid-host"),
        (format!("Host: localhost\r\nHost: evil.example.com\r\n{framed}"), 400, "invalid-host"),
        (chunked("gzip, chunked"), 501, "unknown-transfer-coding"),
        (chunked("chunked, chunked"), 501, "unknown-transfer-coding"),
    ];
    for (rest, status, code) in table {
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n{rest}"
        );
        let answer = talk(&address, head.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{rest}: {answer}"
        );
        assert!(answer.to_lowercase().contains("x-request-id: "), "{answer}");
    }
    // A browser connects to no unix socket: whoever does may call it as they like.
    let admin = Client::new(sidecar.admin());
    for host in ["evil.example.com", "anything"] {
        assert_eq!(admin.request("GET", "/v1/webhooks", &[("Host", host)], "").await.unwrap().status, 200);
    }
    let foreign = [("Origin", "https://evil.example.com")];
    problem(&admin.post("/v1/config/reload", &foreign, "").await.unwrap(), 403);

    accept(&client, EVENTS, event("ds_2")).await;
    assert_eq!(
        receiver.wait_for(1, SOON).await[0].body,
        event("ds_2").as_bytes(),
        "none of the others went out"
    );
}

/// Sends bytes, and returns what comes back until the other side closes.
async fn talk(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // It may hang up in the middle of it.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    timeout(SOON, talk).await.expect("it hangs up on garbage");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_listener_for_others_wants_a_token() {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"));
    config.section("ingest", "listen = \"0.0.0.0:0\"");
    let exited = Sidecar::try_start(binary(), &config).await.expect_err("it refuses to start");
    assert_eq!(exited.status.code(), Some(78), "{exited}");
    assert!(exited.stderr.contains("token") && exited.stderr.contains("aquarium.toml:"), "{exited}");

    config.write("secrets/ingest", "open-sesame-open-sesame\n");
    config.section("ingest", "listen = \"0.0.0.0:0\"\ntoken = { file = \"secrets/ingest\" }");
    let (sidecar, _) = start(&config).await;
    let client = Client::new(&sidecar.ingest().replace("0.0.0.0", "127.0.0.1"));
    for wrong in [None, Some("Bearer open-sesame"), Some("Basic open-sesame-open-sesame"), Some("Bearer ")] {
        let mut headers = JSON.to_vec();
        headers.extend(wrong.map(|value| ("Authorization", value)));
        let response = client.post(EVENTS, &headers, event("ds_1")).await.unwrap();
        problem(&response, 401);
        assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    }
    let headers = [JSON[0], ("Authorization", "Bearer open-sesame-open-sesame")];
    let response = client.post(EVENTS, &headers, event("ds_2")).await.unwrap();
    assert_eq!(response.status, 202, "{}", response.text());
    assert_eq!(receiver.wait_for(1, SOON).await[0].body, event("ds_2").as_bytes());
    let log = sidecar.logs().join("\n");
    assert!(!log.contains("open-sesame") && !log.contains(config.secret("acme")), "{log}");
}

#[tokio::test]
async fn a_unix_socket_is_a_listener() {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"));
    let socket = config.scratch().join("ingest.sock");
    config.section("ingest", &format!("listen = \"unix:{}\"", socket.display()));
    let (mut sidecar, client) = start(&config).await;
    assert_eq!(sidecar.ingest(), format!("unix:{}", socket.display()));
    accept(&client, EVENTS, event("ds_1")).await;

    // What a killed process left behind is in nobody's way.
    sidecar.kill().await;
    assert!(socket.exists());
    sidecar.restart().await;
    accept(&Client::new(sidecar.ingest()), EVENTS, event("ds_2")).await;
    aquarium_testkit::eventually(SOON, "both events arrive", async || receiver.tally().unique == 2).await;
    sidecar.terminate(SOON).await;
    assert!(!socket.exists());
}
