//! A connection that is watched: whether a request has begun on it, and whether the other side takes what it is sent.
//!
//! hyper answers a head that it cannot read by itself, with a bare status. It offers no other way, so such an answer is kept
//! back here, for the listener to send a better one. It is told from the answers of handlers by when it comes: while none of
//! those is wanted or being written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The longest that the other side may take nothing of an answer.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// Whose turn it is on a connection. Its stream and its handler share this; both belong to the same task.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU8);

impl Turn {
    const CLIENT: u8 = 0;
    const HANDLER: u8 = 1;
    const WRITING: u8 = 2;

    /// A request has come.
    pub(super) fn asked(&self) {
        self.0.store(Self::HANDLER, Ordering::Relaxed);
    }

    /// Its answer is known, and will be written next.
    pub(super) fn answered(&self) {
        self.0.store(Self::WRITING, Ordering::Relaxed);
    }

    /// Everything that is known has been written.
    fn flushed(&self) {
        // Not while the handler is at work: there is nothing of its answer to be written yet.
        let _ = self.0.compare_exchange(Self::WRITING, Self::CLIENT, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is_clients(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::CLIENT
    }
}

/// A stream that fails when nothing can be written to it for too long.
#[derive(Debug)]
pub(super) struct Watched<'t, S> {
    stream: S,
    turn: &'t Turn,
    begun: bool,
    ended: bool,
    /// The status of an answer that was kept back.
    kept_back: Option<StatusCode>,
    /// Runs as long as what is to be written is not taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<'t, S> Watched<'t, S> {
    pub(super) fn new(stream: S, turn: &'t Turn) -> Self {
        Self { stream, turn, begun: false, ended: false, kept_back: None, stalled: None }
    }

    /// Whether anything was read since something was written: a request has begun, or goes on.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the other side has said that it sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The status of an answer to a head that could not be read. It was not sent, and from now on what is written is.
    pub(super) fn take_kept_back(&mut self) -> Option<StatusCode> {
        self.turn.asked();
        self.kept_back.take()
    }

    /// Keeps these bytes back if they are such an answer. Returns whether they are.
    fn keeps_back(&mut self, bytes: &[u8]) -> bool {
        if self.turn.is_clients() {
            self.kept_back = bare_refusal(bytes);
        }
        self.kept_back.is_some()
    }
}

/// The status of an answer that is nothing but a refusal: a head without a body.
fn bare_refusal(bytes: &[u8]) -> Option<StatusCode> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)?;
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    (end + 4 == bytes.len()).then_some(status)
}

impl<S: AsyncWrite + Unpin> Watched<'_, S> {
    fn write(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(Pin::new(&mut self.stream), context);
        if written.is_ready() {
            (self.begun, self.stalled) = (false, None);
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not taken")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() > before;
        self.begun |= came;
        self.ended |= !came && room > 0 && matches!(read, Poll::Ready(Ok(())));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.write(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head without a body is one buffer.
        let mut filled = bytes.iter().filter(|bytes| !bytes.is_empty());
        if let (Some(head), None) = (filled.next(), filled.next())
            && self.keeps_back(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        self.write(context, |stream, context| stream.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.turn.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is more to say if an answer was kept back.
        if self.kept_back.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_body_is_kept_back_and_only_while_no_handler_has_a_turn() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let turn = Turn::default();
        let kept = |bytes: &[u8]| Watched::new((), &turn).keeps_back(bytes);
        assert!(kept(bare) && kept(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        for other in [
            &b""[..],
            b"HTTP/1.1 4",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
        ] {
            assert!(!kept(other), "{}", String::from_utf8_lossy(other));
        }
        turn.asked();
        turn.flushed();
        assert!(!kept(bare), "a handler is at work");
        turn.answered();
        assert!(!kept(bare), "its answer is being written");
        turn.flushed();
        assert!(kept(bare));
    }
}
