//! Connections that are used again, and those that had better not be.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use aquarium_testkit::eventually;

use super::*;

const BOUND: Duration = Duration::from_secs(10);
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Reads one request. None if the client hangs up before it.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut got = Vec::new();
    while !got.ends_with(&message().body) {
        if stream.read_buf(&mut got).await.unwrap() == 0 {
            assert!(got.is_empty(), "the client hung up within a request");
            return None;
        }
    }
    Some(String::from_utf8(got).unwrap().to_ascii_lowercase())
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

/// Answers one request, and breaks the connection at the next one, with these last words.
async fn breaks_at_the_second(listener: &TcpListener, last_words: &[u8]) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    read(&mut stream).await.unwrap();
    stream.write_all(NO_CONTENT).await.unwrap();
    let second = read(&mut stream).await.unwrap();
    stream.write_all(last_words).await.unwrap();
    second
}

#[tokio::test]
async fn a_request_that_meets_a_connection_being_closed_goes_out_once_more() {
    let (listener, url) = listen().await;
    let egress = egress(Roots::Webpki);
    let server = async {
        let lost = breaks_at_the_second(&listener, b"").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let again = read(&mut stream).await.unwrap();
        stream.write_all(NO_CONTENT).await.unwrap();
        assert_eq!(lost, again, "with the same Webhook-Id, and all the rest");
        assert!(read(&mut stream).await.is_none());
    };
    let client = async {
        let sent = send(&egress, &url).await;
        assert!(sent.phases.connect.is_some() && sent.phases.dns.is_none() && sent.phases.tls.is_none());
        let sent = send(&egress, &url).await;
        assert_eq!(sent.outcome, answered(204));
        egress.reconfigure(options(&[], Roots::Webpki)).unwrap();
    };
    tokio::time::timeout(BOUND, async { tokio::join!(server, client) }).await.unwrap();
}

#[tokio::test]
async fn a_request_is_not_repeated_once_an_answer_began_nor_over_a_new_connection() {
    let (listener, url) = listen().await;
    let egress = egress(Roots::Webpki);
    let server = async {
        breaks_at_the_second(&listener, b"HTTP/1.1 2").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await.unwrap();
        drop(stream);
        let more = tokio::time::timeout(TIMEOUT, listener.accept()).await;
        assert!(more.is_err(), "nobody comes again");
    };
    let client = async {
        assert_eq!(send(&egress, &url).await.outcome, answered(204));
        assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Protocol), "the answer began");
        assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Protocol), "the connection was new");
    };
    tokio::time::timeout(BOUND, async { tokio::join!(server, client) }).await.unwrap();
}

#[tokio::test]
async fn a_request_that_was_revoked_meanwhile_is_not_repeated() {
    let (listener, url) = listen().await;
    let egress = egress(Roots::Webpki);
    let revoke = Notify::new();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await.unwrap();
        stream.write_all(NO_CONTENT).await.unwrap();
        read(&mut stream).await.unwrap();
        revoke.notify_one();
        drop(stream);
        let more = tokio::time::timeout(TIMEOUT, listener.accept()).await;
        assert!(more.is_err(), "nobody comes again");
    };
    let client = async {
        assert_eq!(send(&egress, &url).await.outcome, answered(204));
        let endpoint = Endpoint::new(&url, [], TIMEOUT, TIMEOUT).unwrap();
        assert_eq!(egress.send(&endpoint, message(), revoke.notified()).await, None);
    };
    tokio::time::timeout(BOUND, async { tokio::join!(server, client) }).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_closed_here_as_well() {
    let (listener, url) = listen().await;
    let egress = egress(Roots::Webpki);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await.unwrap();
        stream.write_all(NO_CONTENT).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(read(&mut stream).await.is_none(), "the other half is closed soon");
    };
    let client = async { assert_eq!(send(&egress, &url).await.outcome, answered(204)) };
    tokio::time::timeout(BOUND, async { tokio::join!(server, client) }).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_not_kept_for_longer_than_the_receiver_keeps_it() {
    let brief = Behaviour::status(204).with_header("Keep-Alive", "timeout=1, max=100");
    let receiver = Receiver::builder().script(move |_: &_| brief.clone()).start().await;
    let egress = egress(Roots::Webpki);
    for _ in 0..3 {
        assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn only_so_many_idle_connections_are_kept() {
    const MOST: usize = 64;
    let answer = Behaviour::status(204).after(Duration::from_millis(100));
    let receiver = Receiver::builder().script(move |_: &_| answer.clone()).start().await;
    let egress = egress(Roots::Webpki);
    let mut sending = JoinSet::new();
    for _ in 0..MOST + 16 {
        let (egress, url) = (egress.clone(), receiver.url("/"));
        sending.spawn(async move { send(&egress, &url).await.outcome });
    }
    assert!(sending.join_all().await.iter().all(|outcome| *outcome == answered(204)));
    assert_eq!(receiver.connections(), MOST + 16);
    eventually(BOUND, "the others are closed", async || receiver.open_connections() == MOST).await;
    drop(egress);
    eventually(BOUND, "all are closed", async || receiver.open_connections() == 0).await;
}
