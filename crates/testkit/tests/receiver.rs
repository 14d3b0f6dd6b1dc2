//! The receiver misbehaves as it is told to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aquarium_testkit::certificates::{self, Authority};
use aquarium_testkit::client::{Client, Error};
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver, Tally};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

const LONG: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";

/// All that a receiver sends back until it closes the connection.
async fn answers(behaviour: Behaviour, requests: &[u8]) -> io::Result<String> {
    let receiver = Receiver::builder().script(Behaviour::in_turn([behaviour])).start().await;
    let mut stream = TcpStream::connect(receiver.address()).await?;
    stream.write_all(requests).await?;
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.expect("the connection ends")?;
    Ok(answer)
}

#[tokio::test]
async fn a_connection_ends_in_the_way_that_was_asked_for() {
    let reset = answers(Behaviour::Reset, REQUEST).await;
    assert_eq!(reset.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let delayed = Behaviour::Close.after(Duration::from_millis(1));
    assert_eq!(answers(delayed, REQUEST).await.unwrap(), "");

    let truncated = answers(Behaviour::TruncatedBody, REQUEST).await.unwrap();
    assert!(truncated.contains("Content-Length: 1000") && truncated.ends_with("\r\n\r\n0123456789"));

    let early =
        Behaviour::status(200).with_header("X-Y", "z").with_body("ok").then_close().after_informational();
    assert_eq!(
        answers(early, REQUEST).await.unwrap(),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Hint: early\r\n\r\n\
         HTTP/1.1 200 OK\r\nX-Y: z\r\nContent-Length: 2\r\n\r\nok",
    );

    let refusal = answers(Behaviour::status(204), b"nonsense\r\n\r\n").await.unwrap();
    assert!(refusal.starts_with("HTTP/1.1 400"), "{refusal}");
}

#[tokio::test]
async fn a_dripping_body_comes_byte_by_byte_until_the_sender_hangs_up() {
    let drip = Behaviour::DripBody { interval: Duration::from_millis(20) };
    let receiver = Receiver::builder().script(Behaviour::in_turn([drip])).start().await;
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    let started = Instant::now();
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"1\r\nd\r\n1\r\nd\r\n1\r\nd\r\n") {
        assert_ne!(timeout(LONG, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
    }
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!(receiver.open_connections(), 1);
    drop(stream);
    eventually(LONG, "the connection is closed", async || receiver.open_connections() == 0).await;
}

#[tokio::test]
async fn an_answer_can_come_before_the_body_does() {
    let refuse = |request: &Received| {
        (request.header("content-length") == Some("1000000")).then(|| Behaviour::status(413))
    };
    let receiver = Receiver::builder().before_body(refuse).start().await;
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    stream.write_all(b"POST /big HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nonly this").await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("HTTP/1.1 413"), "{answer}");

    let received = receiver.wait_for(2, LONG).await;
    let seen: Vec<_> = received.iter().map(|r| (r.number, r.path.as_str(), &r.body[..])).collect();
    assert_eq!(seen, [(0, "/x", &b"{}"[..]), (1, "/big", b"")]);
}

#[tokio::test]
async fn requests_are_tallied_without_being_kept() {
    let receiver = Receiver::builder().record_bodies(false).start().await;
    let client = Client::new(&receiver.url(""));
    for id in ["evt_1", "evt_2", "evt_1", "evt_1"] {
        client.post("/", &[("Webhook-Id", id)], "{}").await.unwrap();
    }
    client.get("/").await.unwrap();
    let tally = receiver.wait_for_count(5, LONG).await;
    assert_eq!(tally, Tally { requests: 5, unique: 2, duplicates: 2 });
    assert!(receiver.has("evt_2") && !receiver.has("evt_3"));
    assert_eq!((receiver.times("evt_1"), receiver.connections()), (3, 1));
}

#[tokio::test]
async fn a_receiver_that_stops_can_be_started_again_on_its_port() {
    let receiver = Receiver::start().await;
    let client = Client::new(&receiver.url(""));
    assert_eq!(client.get("/").await.unwrap().status, 204);
    receiver.stop().await;
    assert_eq!(receiver.open_connections(), 0);
    assert!(matches!(client.get("/").await, Err(Error::Connect(..))));

    let again = Receiver::builder().port(receiver.address().port()).start().await;
    assert_eq!(client.get("/").await.unwrap().status, 204);
    assert_eq!((receiver.count(), again.count()), (1, 1));
}

#[tokio::test]
async fn tls_is_served_and_wrong_certificates_are_told_apart() {
    let authority = Authority::new();
    let good = authority.server(&["localhost", "127.0.0.1"]);
    let table = [
        (good.clone(), None),
        (certificates::with_protocols(good, &["h2"]), None),
        (authority.expired(&["127.0.0.1"]), Some("Expired")),
        (authority.wrong_host(), Some("NotValidForName")),
        (certificates::self_signed(&["127.0.0.1"]), Some("UnknownIssuer")),
        (Authority::new().server(&["127.0.0.1"]), Some("UnknownIssuer")),
    ];
    let connector = TlsConnector::from(Arc::new(authority.client()));
    for (config, expected) in table {
        let receiver = Receiver::builder().tls(config).start().await;
        assert!(receiver.url("/").starts_with("https://127.0.0.1:"));
        let stream = TcpStream::connect(receiver.address()).await.unwrap();
        match (connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await, expected) {
            (Ok(mut stream), None) => {
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
                assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
            }
            (Err(error), Some(expected)) => assert!(format!("{error:?}").contains(expected), "{error:?}"),
            (outcome, expected) => panic!("{expected:?} was expected, not {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn what_never_ends_goes_on_until_the_sender_hangs_up() {
    let table = [
        (Behaviour::EndlessBody, 1_000_000),
        (Behaviour::EndlessHeaders, 1_000_000),
        (Behaviour::HugeHeader(500_000), 500_000),
        (Behaviour::Hang, 0),
        (Behaviour::status(204).after(LONG * 100), 0),
    ];
    for (behaviour, length) in table {
        let receiver = Receiver::builder().script(Behaviour::in_turn([behaviour.clone()])).start().await;
        let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = vec![0; length];
        timeout(LONG, stream.read_exact(&mut answer)).await.expect("it comes at once").unwrap();
        receiver.wait_for(1, LONG).await;
        assert_eq!(receiver.open_connections(), 1, "{behaviour:?}");
        drop(stream);
        eventually(LONG, "the connection is closed", async || receiver.open_connections() == 0).await;
    }
}
