//! One connection: reads requests, enters them into the book, and does what the script says.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::behaviour::{answer, head};
use super::read::{Head, Input};
use super::received::Book;
use super::{BeforeBody, Behaviour, Received, Script};

/// How long an answer that did not wait for the body is left to be read before the connection is closed: closing it
/// with unread bytes resets it, and a reset destroys what the other side has not read yet.
const LINGER: Duration = Duration::from_secs(1);
/// How often to look whether a sender that is not listened to has hung up.
const LOOK: Duration = Duration::from_millis(20);

/// How much is written at once, about, of what is large or never ends.
const PIECE: usize = 8 * 1024;

/// A stream of bytes over TCP, in the clear or not.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// What is below.
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What all connections of a receiver share.
pub(super) struct Play {
    pub(super) script: Script,
    pub(super) before_body: Option<BeforeBody>,
    pub(super) book: Arc<Book>,
}

/// Whether the connection goes on after an exchange. It breaks without a farewell.
type Next = ControlFlow<()>;

/// Serves a connection until it ends.
pub(super) async fn serve(mut stream: impl Transport, number: usize, play: &Play) {
    let mut input = Input::default();
    loop {
        match exchange(&mut stream, &mut input, number, play).await {
            Ok(Next::Continue(())) => {}
            Ok(Next::Break(())) => return,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    let refusal = answer(400, &[], error.to_string().as_bytes(), "");
                    // The sender may be gone, and nobody else is told.
                    let _ = send(&mut stream, &refusal).await;
                }
                return;
            }
        }
    }
}

/// One request and what is done with it.
async fn exchange(
    stream: &mut impl Transport,
    input: &mut Input,
    connection: usize,
    play: &Play,
) -> io::Result<Next> {
    let Some(head) = input.head(stream).await? else { return Ok(Next::Break(())) };
    let Head { method, path, headers, framing, keep_alive, expects_continue } = head;
    let (number, at, body) = (play.book.count(), Instant::now(), Bytes::new());
    let mut request = Received { number, connection, at, method, path, headers, body };

    if let Some(behaviour) = play.before_body.as_ref().and_then(|decide| decide(&request)) {
        let request = play.book.enter(request);
        if perform(stream, behaviour, &request.method).await?.is_continue() {
            stream.shutdown().await?;
            // Over time means that the sender still sends.
            let _ = timeout(LINGER, hung_up(stream.tcp())).await;
        }
        return Ok(Next::Break(()));
    }
    if expects_continue {
        send(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    request.body = input.body(stream, framing).await?;
    request.at = Instant::now();
    let request = play.book.enter(request);
    let next = perform(stream, (play.script)(&request), &request.method).await?;
    if next.is_continue() && !keep_alive {
        stream.shutdown().await?;
        return Ok(Next::Break(()));
    }
    Ok(next)
}

async fn perform(stream: &mut impl Transport, mut behaviour: Behaviour, method: &str) -> io::Result<Next> {
    let mut close = false;
    let next = loop {
        behaviour = match behaviour {
            Behaviour::Delay(delay, then) => {
                if timeout(delay, hung_up(stream.tcp())).await.is_ok() {
                    return Ok(Next::Break(()));
                }
                *then
            }
            Behaviour::Informational(then) => {
                let lines = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Hint: early\r\n\r\n";
                send(stream, lines).await?;
                *then
            }
            Behaviour::CloseAfter(then) => {
                close = true;
                *then
            }
            other => break act(stream, other, method).await?,
        }
    };
    if close && next.is_continue() {
        stream.shutdown().await?;
        return Ok(Next::Break(()));
    }
    Ok(next)
}

/// Does what stands at the end of a behaviour.
async fn act(stream: &mut impl Transport, behaviour: Behaviour, method: &str) -> io::Result<Next> {
    match behaviour {
        Behaviour::Answer { status, headers, body } => {
            send(stream, &answer(status, &headers, &body, method)).await?;
            let closes = |(name, value): &(String, String)| {
                name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
            };
            if headers.iter().any(closes) {
                stream.shutdown().await?;
                return Ok(Next::Break(()));
            }
            return Ok(Next::Continue(()));
        }
        Behaviour::Raw(bytes) => {
            send(stream, &bytes).await?;
            return Ok(Next::Continue(()));
        }
        Behaviour::HugeHeader(size) => {
            send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Huge: ").await?;
            // Piece by piece: what a sender does not read takes no memory here.
            let piece = [b'h'; PIECE];
            for start in (0..size).step_by(PIECE) {
                stream.write_all(&piece[..PIECE.min(size - start)]).await?;
            }
            send(stream, b"\r\n\r\n").await?;
            return Ok(Next::Continue(()));
        }
        Behaviour::Hang => hung_up(stream.tcp()).await,
        Behaviour::Reset => stream.tcp().set_zero_linger()?,
        Behaviour::TruncatedBody => {
            send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789").await?;
        }
        Behaviour::EndlessBody => {
            let chunk = format!("4000\r\n{}\r\n", "e".repeat(0x4000));
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            for_ever(stream, head, chunk.as_bytes()).await?;
        }
        Behaviour::EndlessHeaders => {
            let lines = format!("X-Filler: {}\r\n", "e".repeat(100));
            for_ever(stream, &head(200), lines.as_bytes()).await?;
        }
        Behaviour::DripBody { interval } => {
            send(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            while timeout(interval, hung_up(stream.tcp())).await.is_err() {
                send(stream, b"1\r\nd\r\n").await?;
            }
        }
        Behaviour::DripHead { interval } => {
            send(stream, b"HTTP/1.1 200 OK\r\nX-Drip: ").await?;
            while timeout(interval, hung_up(stream.tcp())).await.is_err() {
                send(stream, b"d").await?;
            }
        }
        Behaviour::EndlessInformational => {
            for_ever(stream, &[], b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        Behaviour::ForEver { first, again } => for_ever(stream, &first, &again).await?,
        Behaviour::ResetAfter(bytes) => {
            send(stream, &bytes).await?;
            // A reset destroys what the other side has not read yet.
            sleep(LOOK).await;
            stream.tcp().set_zero_linger()?;
        }
        Behaviour::Close => {}
        Behaviour::Delay(..) | Behaviour::Informational(_) | Behaviour::CloseAfter(_) => {
            unreachable!("they are taken apart before")
        }
    }
    Ok(Next::Break(()))
}

async fn send(stream: &mut impl Transport, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Ends with an error, when the other side has hung up.
async fn for_ever(stream: &mut impl Transport, first: &[u8], again: &[u8]) -> io::Result<()> {
    send(stream, first).await?;
    let again = again.repeat(1 + PIECE / again.len().max(1));
    loop {
        send(stream, &again).await?;
    }
}

/// Returns once the other side has hung up. What it sent and nobody read stays where it is.
async fn hung_up(tcp: &TcpStream) {
    loop {
        match tcp.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => sleep(LOOK).await,
            _ => return,
        }
    }
}
