//! What carries bytes: TCP, in the clear or under TLS.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{MAX_RESPONSE_BODY, MAX_RESPONSE_HEAD};

/// The most that is read for one answer, in bytes, with all that goes with it: its head, its body, the framing of both,
/// informational answers before it, and whatever else the other side thinks of meanwhile. The head and the body have
/// narrower limits of their own.
const MAX_ANSWER: usize = 2 * (MAX_RESPONSE_HEAD + MAX_RESPONSE_BODY);

/// A connection, below HTTP.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    reading: Arc<Reading>,
    /// Whether a peer that does not take any more may still be read from.
    patient: bool,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
    deaf: bool,
}

/// What was read, and how much may be. Who is on the connection says so, and the connection keeps to it.
#[derive(Debug)]
pub(crate) struct Reading {
    heard: AtomicBool,
    /// In bytes. Beyond that, it is an error.
    left: AtomicUsize,
    /// In one go, in bytes. Beyond that, there is said to be nothing, and that it is worth asking again.
    at_once: AtomicUsize,
}

impl Default for Reading {
    fn default() -> Self {
        let (left, at_once) = (AtomicUsize::new(MAX_ANSWER), AtomicUsize::new(usize::MAX));
        Self { heard: AtomicBool::new(false), left, at_once }
    }
}

impl Reading {
    /// Whether anything was read since the last [`Reading::expect`].
    pub(crate) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// One answer is awaited, and nothing else.
    pub(crate) fn expect(&self) {
        self.heard.store(false, Ordering::Relaxed);
        self.left.store(MAX_ANSWER, Ordering::Relaxed);
    }

    /// One more answer is awaited: there are so many by now. What was not needed for those before is good for one more at
    /// most, so that none can be saved up for.
    pub(crate) fn expect_one_of(&self, answers: usize) {
        let most = answers.saturating_add(1).saturating_mul(MAX_ANSWER);
        let more = |left: usize| Some(left.saturating_add(MAX_ANSWER).min(most));
        // It always succeeds, since there always is a next value.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// So many bytes may be read now in one go.
    pub(crate) fn at_once(&self, bytes: usize) {
        self.at_once.store(bytes, Ordering::Relaxed);
    }

    /// Counts what was read.
    fn count(&self, read: usize) -> io::Result<()> {
        let less = |known: &AtomicUsize| {
            let _ = known
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(read)));
        };
        less(&self.at_once);
        less(&self.left);
        self.heard.store(true, Ordering::Relaxed);
        match self.left.load(Ordering::Relaxed) {
            0 => Err(io::Error::new(ErrorKind::InvalidData, "the endpoint sends more than an answer can be")),
            _ => Ok(()),
        }
    }
}

/// The kinds of connections there are.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Transport {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, reading: Arc::default(), patient: false, broken: None, deaf: false }
    }

    /// The same for HTTP/1.1. A receiver may answer before it has read the whole request, and close: the answer is there
    /// to be read when nothing can be written any more. So a write that fails is left waiting, and it is told by the next
    /// read if there is nothing else to read.
    pub(crate) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// What is read from it.
    pub(crate) fn reading(&self) -> Arc<Reading> {
        self.reading.clone()
    }

    fn written<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if self.patient && is_hung_up(&error) => {
                (self.broken, self.deaf) = (Some(error), true);
                // To be read from, at once: the system may have told before what there is.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            written => written,
        }
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.reading.at_once.load(Ordering::Relaxed) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        })?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.reading.count(read)?;
        } else if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Clear(stream) => stream.is_write_vectored(),
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Pending;
        }
        let flushed = match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
