//! Attempts against real sockets that misbehave: each ends in time, within its limits, with the right outcome.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod frames;
mod hostile;
mod multiplexed;
mod names;
mod proxied;
mod reconfiguration;
mod reuse;
mod sessions;
mod withdrawal;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_delivery::{DeliveryId, Detail, EventId, FailureKind, Outcome, RetryAfter, Timestamp};
use aquarium_egress::{
    Egress, Endpoint, Guard, MAX_EXCERPT, MAX_RESPONSE_BODY, Message, Options, Roots, Sent,
};
use aquarium_testkit::certificates::{Authority, with_protocols};
use aquarium_testkit::receiver::{Behaviour, Receiver};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const TIMEOUT: Duration = Duration::from_millis(400);
/// What no attempt takes that ends by its deadline, however loaded the machine is.
const BOUND_OF_AN_ATTEMPT: Duration = Duration::from_secs(20);

/// Options that allow these networks.
fn options(allow: &[&str], roots: Roots) -> Options {
    let guard = Guard::new(allow.iter().map(|network| network.parse().unwrap()).collect());
    Options { guard, roots, proxy: None }
}

fn egress(roots: Roots) -> Egress {
    Egress::new(options(&["127.0.0.0/8"], roots), Vec::new()).unwrap()
}

fn message() -> Message {
    Message {
        body: Bytes::from_static(b"{ \"event\" : \"test\" }"),
        event: EventId::new(AT, [1; 10]),
        delivery: DeliveryId::new(AT, [2; 10]),
        attempt: 3,
        at: AT,
        secret: Some(HeaderValue::from_static("0123456789abcdef")),
        signing_key: None,
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
    }
}

async fn send(egress: &Egress, url: &str) -> Sent {
    let endpoint = Endpoint::new(url, [], TIMEOUT, TIMEOUT).unwrap();
    let sent = tokio::time::timeout(BOUND_OF_AN_ATTEMPT, egress.send(&endpoint, message(), pending())).await;
    let sent = sent.expect("an attempt ends by its deadline, whatever the other side does");
    sent.expect("what is not withdrawn is sent")
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

fn kind(sent: &Sent) -> Option<FailureKind> {
    match &sent.outcome {
        Outcome::Failed(failure) => Some(failure.kind),
        Outcome::Answered { .. } => None,
    }
}

#[tokio::test]
async fn a_request_has_the_contracts_headers_and_the_exact_body() {
    let receiver = Receiver::start().await;
    let sent = send(&egress(Roots::Webpki), &receiver.url("/hook?a=b")).await;
    assert_eq!(sent.outcome, answered(204));
    let received = receiver.wait_for(1, TIMEOUT).await.remove(0);
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/hook?a=b"));
    assert_eq!(received.body, message().body);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-aquarium-secret", "0123456789abcdef"),
        ("user-agent", aquarium_egress::USER_AGENT),
        ("webhook-id", &message().event.to_string()),
        ("webhook-timestamp", "1800000000"),
        ("aquarium-delivery", &message().delivery.to_string()),
        ("aquarium-attempt", "3"),
        ("aquarium-hops", "1"),
    ] {
        assert_eq!(received.headers_named(name), [value.as_bytes()], "{name}");
    }
    assert_eq!(received.header("webhook-signature"), None, "there was no key");
}

#[tokio::test]
async fn an_answer_counts_by_its_status_and_no_redirect_is_followed() {
    let egress = egress(Roots::Webpki);
    for status in [200, 201, 301, 302, 307, 308, 400, 404, 410, 500, 503] {
        let behaviour = move |_: &_| Behaviour::status(status).with_header("Location", "/elsewhere");
        let receiver = Receiver::builder().script(behaviour).start().await;
        assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(status));
        assert_eq!(receiver.count(), 1, "{status}");
    }
    let busy = |_: &_| Behaviour::status(429).with_header("Retry-After", "7");
    let receiver = Receiver::builder().script(busy).start().await;
    let retry_after = Some(RetryAfter::Delay(Duration::from_secs(7)));
    let sent = send(&egress, &receiver.url("/")).await;
    assert_eq!(sent.outcome, Outcome::Answered { status: 429, retry_after });
}

#[tokio::test]
async fn hostile_receivers_cost_no_more_than_the_deadline_and_are_named() {
    let egress = egress(Roots::Webpki);
    let drip = Behaviour::DripBody { interval: Duration::from_millis(20) };
    for (behaviour, expected) in [
        (Behaviour::Hang, FailureKind::ResponseTimeout),
        (Behaviour::Close, FailureKind::Protocol),
        (Behaviour::Reset, FailureKind::Protocol),
        (drip, FailureKind::BodyTimeout),
        (Behaviour::EndlessHeaders, FailureKind::Protocol),
        (Behaviour::HugeHeader(1_000_000), FailureKind::Protocol),
        (Behaviour::TruncatedBody, FailureKind::Protocol),
        (Behaviour::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()), FailureKind::Protocol),
    ] {
        let name = format!("{behaviour:?}");
        let receiver = Receiver::builder().script(move |_: &_| behaviour.clone()).start().await;
        let sent = send(&egress, &receiver.url("/")).await;
        assert_eq!(kind(&sent), Some(expected), "{name}: {:?}", sent.outcome);
        assert!(sent.excerpt.len() <= MAX_EXCERPT);
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_and_does_not_undo_a_success() {
    let egress = egress(Roots::Webpki);
    let receiver = Receiver::builder().script(|_: &_| Behaviour::EndlessBody).start().await;
    let sent = send(&egress, &receiver.url("/")).await;
    assert_eq!(sent.outcome, answered(200));
    assert_eq!(sent.excerpt.len(), MAX_EXCERPT);
    assert!(sent.duration < TIMEOUT, "it is not read until the deadline: {:?}", sent.duration);
}

#[tokio::test]
async fn a_connection_is_used_again_only_after_a_whole_answer() {
    let egress = egress(Roots::Webpki);
    let script = Behaviour::in_turn([
        Behaviour::status(200).with_body("fine"),
        Behaviour::status(500).with_body(vec![b'x'; 20_000]),
        Behaviour::status(204),
        Behaviour::EndlessBody,
        Behaviour::status(204),
    ]);
    let receiver = Receiver::builder().script(script).start().await;
    for _ in 0..5 {
        send(&egress, &receiver.url("/")).await;
    }
    let connections: Vec<_> = receiver.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn what_prevents_a_connection_is_named() {
    let egress = egress(Roots::Webpki);
    let receiver = Receiver::start().await;
    let closed = receiver.url("/");
    receiver.stop().await;
    assert_eq!(kind(&send(&egress, &closed).await), Some(FailureKind::Connect));
    assert_eq!(kind(&send(&egress, "http://no-such-host.invalid/").await), Some(FailureKind::Dns));
    for blocked in ["http://10.0.0.1/", "https://169.254.169.254/", "https://[::1]/", "http://1.1.1.1/"] {
        assert_eq!(kind(&send(&egress, blocked).await), Some(FailureKind::Blocked), "{blocked}");
    }
}

#[tokio::test]
async fn an_endpoint_that_offers_http_2_gets_it_over_one_connection() {
    let authority = Authority::new();
    let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
    let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let server = tokio::spawn(async move {
        loop {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                let secret = request.headers()["x-aquarium-secret"].clone();
                let genuine = secret == "0123456789abcdef";
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let status = if genuine && body == message().body { 204 } else { 400 };
                Response::builder().status(status).body(Full::<Bytes>::default())
            });
            let connection =
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    for _ in 0..5 {
        assert_eq!(send(&egress, &url).await.outcome, answered(204));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    server.abort();
}
