//! What carries bytes: TCP, in the clear or under TLS.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection, below HTTP.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    heard: Arc<AtomicBool>,
    /// Whether a peer that does not take any more may still be read from.
    patient: bool,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
    deaf: bool,
    allowance: Option<Arc<AtomicUsize>>,
}

/// The kinds of connections there are.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Transport {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, heard: Arc::default(), patient: false, broken: None, deaf: false, allowance: None }
    }

    /// The same, which gives no more than what is allowed at the time: then it says that there is nothing, and that it is
    /// worth asking again. What is allowed is counted down, in bytes.
    pub(crate) fn measured(self, allowance: Arc<AtomicUsize>) -> Self {
        Self { allowance: Some(allowance), ..self }
    }

    /// The same for HTTP/1.1. A receiver may answer before it has read the whole request, and close: the answer is there
    /// to be read when nothing can be written any more. So a write that fails is left waiting, and it is told by the next
    /// read if there is nothing else to read.
    pub(crate) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// Set whenever something was read.
    pub(crate) fn heard(&self) -> Arc<AtomicBool> {
        self.heard.clone()
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
        if let Some(allowance) = &self.allowance
            && allowance.load(Ordering::Relaxed) == 0
        {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        })?;
        let read = buffer.filled().len() - before;
        if let Some(allowance) = &self.allowance {
            let left = allowance.load(Ordering::Relaxed);
            allowance.store(left.saturating_sub(read), Ordering::Relaxed);
        }
        if read > 0 {
            self.heard.store(true, Ordering::Relaxed);
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
