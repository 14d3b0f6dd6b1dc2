//! Receivers that do, over HTTP/1.1, what nobody should: each costs a bounded time, and harms nobody but itself.

use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Received;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const BOUND: Duration = Duration::from_secs(5);
const DRIP: Duration = Duration::from_millis(20);

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Reused,
    Closed,
}

use FailureKind::{BodyTimeout, Protocol, ResponseTimeout};
use Then::{Closed, Reused};

type Case = (&'static str, Behaviour, Result<u16, FailureKind>, Then);

/// Writes this.
fn raw(text: impl AsRef<[u8]>) -> Behaviour {
    Behaviour::Raw(text.as_ref().to_vec())
}

/// Answers 200 with this after the status line.
fn ok(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes()
}

fn chunked(body: &str) -> Behaviour {
    raw(ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}")))
}

/// A chunked body that goes on and on.
fn endless(first: &str, again: &str) -> Behaviour {
    let first = ok(&format!("Transfer-Encoding: chunked\r\n\r\n{first}"));
    Behaviour::ForEver { first, again: again.into() }
}

fn filler(count: usize) -> String {
    "X-Filler: e\r\n".repeat(count)
}

/// 200 KiB of zeros, compressed (gzip).
fn bomb() -> Vec<u8> {
    let start = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xed\xc1\x01\x0d\x00\x00\x00\xc2\xa0\xf7\x4f\x6d\x0f\x07\x14";
    [&start[..], &[0; 198], b"\x4f\x06\x3f\x4f\x37\xd5\x00\x20\x03\x00"].concat()
}

fn slow() -> Vec<Case> {
    vec![
        ("nothing", Behaviour::Hang, Err(ResponseTimeout), Closed),
        ("a head that drips", Behaviour::DripHead { interval: DRIP }, Err(ResponseTimeout), Closed),
        ("a body that drips", Behaviour::DripBody { interval: DRIP }, Err(BodyTimeout), Closed),
        ("a body that does not come", raw(ok("Content-Length: 1\r\n\r\n")), Err(BodyTimeout), Closed),
    ]
}

fn large() -> Vec<Case> {
    let body = |status, size| Behaviour::status(status).with_body(vec![b'x'; size]);
    let bombs = Behaviour::status(200).with_header("Content-Encoding", "gzip").with_body(bomb().repeat(400));
    vec![
        ("an endless body", Behaviour::EndlessBody, Ok(200), Closed),
        ("an oversized body", body(200, 70_000), Ok(200), Closed),
        ("an oversized body of an error", body(500, 1_000_000), Ok(500), Closed),
        ("as much as is read", body(200, MAX_RESPONSE_BODY), Ok(200), Reused),
        ("informational answers for ever", Behaviour::EndlessInformational, Err(Protocol), Closed),
        ("endless headers", Behaviour::EndlessHeaders, Err(Protocol), Closed),
        ("a huge header", Behaviour::HugeHeader(1_000_000), Err(Protocol), Closed),
        ("too many headers", raw(ok(&(filler(101) + "\r\n"))), Err(Protocol), Closed),
        ("many headers", raw(ok(&(filler(90) + "Content-Length: 0\r\n\r\n"))), Ok(200), Reused),
        ("endless trailers", endless("0\r\n", "X-Filler: e\r\n"), Err(Protocol), Closed),
        ("an endless trailer", endless("0\r\nX: ", "e"), Err(Protocol), Closed),
        ("an endless chunk extension", endless("1;", "x"), Err(Protocol), Closed),
        ("endless chunk extensions", endless("", "1;xxxxxxxxxxxx\r\nb\r\n"), Err(Protocol), Closed),
        ("a bomb and more", bombs, Ok(200), Closed),
    ]
}

fn broken() -> Vec<Case> {
    let reset = |bytes: &[u8]| Behaviour::ResetAfter(bytes.to_vec());
    vec![
        ("a connection closed early", Behaviour::Close, Err(Protocol), Closed),
        ("a reset", Behaviour::Reset, Err(Protocol), Closed),
        ("an end in the head", raw("HTTP/1.1 200 O").then_close(), Err(Protocol), Closed),
        ("an end between headers", raw(ok("X: y\r\n")).then_close(), Err(Protocol), Closed),
        ("an end in a chunk", chunked("5\r\nab").then_close(), Err(Protocol), Closed),
        ("an end between chunks", chunked("2\r\nab\r\n").then_close(), Err(Protocol), Closed),
        ("a reset in the head", reset(b"HTTP/1.1 200 O"), Err(Protocol), Closed),
        ("a reset in the body", reset(&ok("Content-Length: 9\r\n\r\nabc")), Err(Protocol), Closed),
        (
            "a reset in the body of an error",
            reset(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\na"),
            Ok(503),
            Closed,
        ),
        ("a body that breaks off", Behaviour::TruncatedBody, Err(Protocol), Closed),
        ("a body that ends with the connection", raw(ok("\r\nall")).then_close(), Ok(200), Closed),
        ("a chunk of no size", chunked("zz\r\n"), Err(Protocol), Closed),
        ("a chunk of any size", chunked("fffffffffffffffff\r\n"), Err(Protocol), Closed),
        ("two lengths", raw(ok("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")), Err(Protocol), Closed),
        ("no length", raw(ok("Content-Length: none\r\n\r\nab")), Err(Protocol), Closed),
        ("a control character", raw(ok("X: a\x01b\r\nContent-Length: 0\r\n\r\n")), Err(Protocol), Closed),
        ("something else", raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Err(Protocol), Closed),
        ("HTTP/0.9", raw("<html>hello</html>").then_close(), Err(Protocol), Closed),
        ("HTTP/2 in the clear", raw(b"\0\0\0\x04\0\0\0\0\0"), Err(Protocol), Closed),
    ]
}

fn odd() -> Vec<Case> {
    let twice = "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    let not_ascii = b"HTTP/1.1 204 No Content\r\nX-Name: caf\xe9 \xff\xfe\r\nRetry-After: \xb2\r\n\r\n";
    vec![
        (
            "a bomb",
            Behaviour::status(200).with_header("Content-Encoding", "gzip").with_body(bomb()),
            Ok(200),
            Reused,
        ),
        ("values that are not ASCII", raw(not_ascii), Ok(204), Reused),
        ("informational answers", Behaviour::status(204).after_informational(), Ok(204), Reused),
        ("chunks and a trailer", chunked("2;a=b\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n"), Ok(200), Reused),
        ("more after the answer", raw(twice), Ok(204), Closed),
        ("an announced end", Behaviour::status(204).with_header("Connection", "close"), Ok(204), Closed),
        ("an end that was not announced", Behaviour::status(204).then_close(), Ok(204), Closed),
        ("HTTP/1.0", raw("HTTP/1.0 204 No Content\r\n\r\n").then_close(), Ok(204), Closed),
        ("a status that does not exist", Behaviour::status(799), Ok(799), Reused),
    ]
}

fn came_to(sent: &Sent) -> Result<u16, FailureKind> {
    match &sent.outcome {
        Outcome::Answered { status, .. } => Ok(*status),
        Outcome::Failed(failure) => Err(failure.kind),
    }
}

async fn check((name, behaviour, expected, then): Case) {
    let script = Behaviour::in_turn([behaviour, Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let egress = egress(Roots::Webpki);
    // It ends by its deadline: that is looked at in there.
    let sent = send(&egress, &receiver.url("/")).await;
    assert_eq!(came_to(&sent), expected, "{name}: {:?}", sent.outcome);
    assert!(sent.excerpt.len() <= MAX_EXCERPT, "{name}");
    if !matches!(expected, Err(ResponseTimeout | BodyTimeout)) {
        assert!(sent.duration < TIMEOUT, "{name}: it took {:?}", sent.duration);
    }
    let again = send(&egress, &receiver.url("/")).await;
    assert_eq!(again.outcome, answered(204), "{name}: the next request is not harmed");
    let connections = if then == Reused { 1 } else { 2 };
    assert_eq!(receiver.connections(), connections, "{name}");
    assert_eq!(receiver.count(), 2, "{name}: no request was repeated");
    eventually(BOUND, name, async || receiver.open_connections() == 1).await;
}

#[tokio::test]
async fn the_slow_cost_no_more_than_the_deadline() {
    for case in slow() {
        check(case).await;
    }
}

/// With threads of their own, so that there is always something to read: the attempt never gets to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_never_stops_sending_is_cut_off() {
    let egress = egress(Roots::Webpki);
    let receiver = Receiver::builder().script(|_: &_| Behaviour::EndlessInformational).start().await;
    let sent = send(&egress, &receiver.url("/")).await;
    assert_eq!(came_to(&sent), Err(Protocol));
    assert!(sent.duration < TIMEOUT, "{:?}", sent.duration);
}

#[tokio::test]
async fn what_is_too_large_is_cut_off() {
    for case in large() {
        check(case).await;
    }
}

#[tokio::test]
async fn what_is_broken_is_a_failed_attempt() {
    for case in broken() {
        check(case).await;
    }
}

#[tokio::test]
async fn what_is_merely_odd_is_taken_for_what_it_is() {
    for case in odd() {
        check(case).await;
    }
}

#[tokio::test]
async fn nothing_is_asked_for_in_compressed_form_nor_decompressed() {
    let answer = Behaviour::status(200).with_header("Content-Encoding", "gzip").with_body(bomb());
    let receiver = Receiver::builder().script(move |_: &_| answer.clone()).start().await;
    let sent = send(&egress(Roots::Webpki), &receiver.url("/")).await;
    assert_eq!(sent.outcome, answered(200));
    assert_eq!(sent.excerpt, bomb(), "as it came");
    assert_eq!(receiver.received()[0].header("accept-encoding"), None);
}

/// Sends a body that is still being written when the receiver has answered.
async fn send_large(egress: &Egress, url: &str, size: usize) -> Sent {
    let message = Message { body: vec![b'x'; size].into(), ..message() };
    let endpoint = Endpoint::new(url, [], TIMEOUT, TIMEOUT).unwrap();
    egress.send(&endpoint, message, pending()).await.unwrap()
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_sent_whole_counts() {
    let egress = egress(Roots::Webpki);
    let early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlong".to_vec();
    for behaviour in [Behaviour::status(413).with_body("long"), Behaviour::ResetAfter(early)] {
        for size in [1 << 20, 16 << 20] {
            let before = behaviour.clone();
            let first = move |request: &Received| (request.number == 0).then(|| before.clone());
            let receiver = Receiver::builder().before_body(first).start().await;
            let sent = send_large(&egress, &receiver.url("/"), size).await;
            assert_eq!(sent.outcome, answered(413), "{size} {behaviour:?}");
            assert_eq!(sent.excerpt, "long");
            // What was not sent must not come before the next request.
            assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
            assert_eq!(receiver.connections(), 2);
            eventually(BOUND, "it is closed", async || receiver.open_connections() == 1).await;
        }
    }
    let receiver = Receiver::builder().before_body(|_: &_| Some(Behaviour::Close)).start().await;
    assert_eq!(kind(&send_large(&egress, &receiver.url("/"), 16 << 20).await), Some(Protocol));
}

/// It answers whoever connects, and reads nothing.
#[tokio::test]
async fn an_answer_that_comes_before_any_request_is_no_reason_to_go_on_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = accepted.clone();
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n".repeat(3).as_slice()).await.unwrap();
            held.push(stream);
        }
    });
    let egress = egress(Roots::Webpki);
    for sent in 1..=3 {
        // Which of the two comes first is up to the system.
        let came_to = came_to(&send(&egress, &url).await);
        assert!(matches!(came_to, Ok(204) | Err(Protocol)), "{came_to:?}");
        assert!(accepted.load(Ordering::SeqCst) <= 9 * sent, "no more than it may be given back");
    }
    serving.abort();
}

/// An answer that nobody asked for must not be taken for that of the next request.
#[tokio::test]
async fn what_comes_over_an_idle_connection_ends_it() {
    let delayed = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (unasked, written) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let mut request = vec![0; 4096];
        let (mut first, _) = listener.accept().await.unwrap();
        assert!(first.read(&mut request).await.unwrap() > 0);
        first.write_all(&delayed).await.unwrap();
        tokio::time::sleep(DRIP).await;
        first.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        tokio::time::sleep(DRIP).await;
        unasked.send(()).unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        assert!(second.read(&mut request).await.unwrap() > 0);
        second.write_all(&delayed).await.unwrap();
        (first, second)
    });
    let egress = egress(Roots::Webpki);
    assert_eq!(send(&egress, &url).await.outcome, answered(204));
    written.await.unwrap();
    assert_eq!(send(&egress, &url).await.outcome, answered(204), "not the 200");
    serving.await.unwrap();
}
