//! Requests that are withdrawn before a connection has them, or too late.

use std::future::ready;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_secs(5);
/// What a TLS record of a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Sends with time to spare, so that nothing but the revocation ends it early.
async fn send_unless(egress: &Egress, url: &str, revoked: impl Future<Output = ()> + Send) -> Option<Sent> {
    let endpoint = Endpoint::new(url, [], LONG, LONG).unwrap();
    let sent = tokio::time::timeout(BOUND, egress.send(&endpoint, message(), revoked)).await;
    sent.expect("it ends soon after it was revoked, or answered")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(BOUND, listener.accept()).await.expect("somebody connects").unwrap().0
}

/// Accepts a connection, says nothing, and revokes once the client has begun to speak. Returns all that it said.
async fn mute(listener: &TcpListener, revoke: oneshot::Sender<()>) -> Vec<u8> {
    let mut stream = accept(listener).await;
    let mut got = vec![stream.read_u8().await.unwrap()];
    revoke.send(()).unwrap();
    tokio::time::timeout(BOUND, stream.read_to_end(&mut got)).await.expect("the client hangs up").unwrap();
    got
}

/// True if it is one record of a handshake: the client's greeting, and nothing after it.
fn is_greeting_only(got: &[u8]) -> bool {
    got[0] == HANDSHAKE && got.len() == 5 + usize::from(u16::from_be_bytes([got[3], got[4]]))
}

/// Reads the request, and answers it.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut got = Vec::new();
    while !got.ends_with(&message().body) {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "the connection ended within the request");
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn a_request_is_withdrawn_while_its_tls_session_is_set_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let egress = egress(Roots::Webpki);
    let (revoke, revoked) = oneshot::channel();
    let sending = send_unless(&egress, &url, async { revoked.await.unwrap() });
    let (sent, got) = tokio::join!(sending, mute(&listener, revoke));
    assert_eq!(sent, None);
    assert!(is_greeting_only(&got), "{got:?}");
}

#[tokio::test]
async fn a_revocation_after_the_hand_over_changes_nothing() {
    let answer = Behaviour::Delay(TIMEOUT / 4, Box::new(Behaviour::status(204)));
    let receiver = Receiver::builder().script(move |_: &_| answer.clone()).start().await;
    let egress = egress(Roots::Webpki);
    for round in 1..=2 {
        let revoked = async { drop(receiver.wait_for(round, BOUND).await) };
        let sent = send_unless(&egress, &receiver.url("/"), revoked).await;
        assert_eq!(sent.map(|sent| sent.outcome), Some(answered(204)), "round {round}");
    }
    assert_eq!(receiver.connections(), 1, "the second round had a connection at once");
}

#[tokio::test]
async fn what_was_revoked_before_it_was_sent_does_not_go_out_over_an_idle_connection() {
    let receiver = Receiver::start().await;
    let egress = egress(Roots::Webpki);
    send(&egress, &receiver.url("/first")).await;
    assert_eq!(send_unless(&egress, &receiver.url("/revoked"), ready(())).await, None);
    send(&egress, &receiver.url("/last")).await;
    let received = receiver.received();
    let paths: Vec<_> =
        received.iter().map(|received| (received.path.as_str(), received.connection)).collect();
    assert_eq!(paths, [("/first", 0), ("/last", 0)], "the connection was there for the taking");
}

/// An egress with an idle connection to the listener. It is closed, and nobody has noticed yet when this returns: the
/// next request is given to it, and comes back.
async fn with_a_closed_connection(listener: &TcpListener, authority: &Authority) -> (Egress, TlsAcceptor) {
    let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&["127.0.0.1"])));
    let first = async {
        let mut stream = acceptor.accept(accept(listener).await).await.unwrap();
        answer(&mut stream).await;
        stream
    };
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let (_, stream) = tokio::join!(send(&egress, &url), first);
    drop(stream);
    // The runtime looks at its sockets, and comes back here before it runs the connection's task.
    yield_now().await;
    (egress, acceptor)
}

#[tokio::test]
async fn a_request_that_a_closed_connection_gives_back_goes_over_another_one() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let (egress, acceptor) = with_a_closed_connection(&listener, &authority).await;
    let second = async {
        answer(&mut acceptor.accept(accept(&listener).await).await.unwrap()).await;
    };
    let (sent, ()) = tokio::join!(send(&egress, &url), second);
    assert_eq!(sent.outcome, answered(204));
}

#[tokio::test]
async fn a_request_that_a_closed_connection_gives_back_can_be_withdrawn_again() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let (egress, _) = with_a_closed_connection(&listener, &authority).await;
    let (revoke, revoked) = oneshot::channel();
    let sending = send_unless(&egress, &url, async { revoked.await.unwrap() });
    let (sent, got) = tokio::join!(sending, mute(&listener, revoke));
    assert_eq!(sent, None);
    assert!(is_greeting_only(&got), "{got:?}");
}
