//! An HTTP/2 connection.
//!
//! It has one task, which ends with it. Requests go to the connection directly, and no more of them than the other side
//! takes at a time: what has been handed over is on its way, and what has not can be withdrawn.

mod exchange;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::watch;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep};

use crate::transport::{Reading, Transport};
use crate::{MAX_RESPONSE_BODY, MAX_RESPONSE_HEAD};

/// How much of all answers together may be on its way unasked, in bytes.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How much is read in one go, in bytes: what is not looked at yet by those who wait for it is held, and tiny frames take
/// more room than bytes on the wire.
const READ_AT_ONCE: usize = 64 * 1024;
/// While there are requests on it, a connection is asked for a sign of life this often, and given up if there is none by
/// the next time.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Stands for the number of streams that the other side takes until it has told: more than it could ever tell, since that
/// is a `u32` (RFC 9113, section 6.5.2).
const NOT_TOLD: usize = usize::MAX - 1;

/// A connection that requests can be put on. It is closed when this is dropped and the last request on it has ended.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
}

/// What the connection's task and the requests on it tell each other.
#[derive(Debug)]
struct Load {
    /// How many requests are on it.
    streams: AtomicUsize,
    /// How many it can take.
    limit: AtomicUsize,
    /// No request is put on it any more: it has ended, looks dead, or the other side does what it must not.
    ended: AtomicBool,
    /// No request will be put on it any more.
    released: AtomicBool,
    since: Instant,
    /// When the last request on it ended, in milliseconds after `since`.
    last_used: AtomicU64,
    reading: Arc<Reading>,
    /// Told when there may be room that was not there before.
    news: watch::Sender<()>,
}

/// A place on a connection for one request.
#[derive(Debug)]
pub(crate) struct Slot {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
    reused: bool,
}

impl Http2 {
    /// Greets the other side. `news` is told when there may be room for a request that was not there before.
    pub(crate) async fn new(transport: Transport, news: watch::Sender<()>) -> Result<Self, h2::Error> {
        let reading = transport.reading();
        reading.at_once(READ_AT_ONCE);
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(NOT_TOLD)
            .initial_window_size(MAX_RESPONSE_BODY as u32)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_RESPONSE_HEAD as u32)
            .handshake(transport)
            .await?;
        let load = Arc::new(Load {
            streams: AtomicUsize::new(0),
            limit: AtomicUsize::new(NOT_TOLD),
            ended: AtomicBool::new(false),
            released: AtomicBool::new(false),
            since: Instant::now(),
            last_used: AtomicU64::new(0),
            reading,
            news,
        });
        tokio::spawn(serve(connection, load.clone()));
        Ok(Self { sender, load })
    }

    /// A place on it, if there is one. Whoever asks has it to himself: the pool is locked.
    pub(crate) fn slot(&mut self) -> Option<Slot> {
        let streams = self.load.streams.load(Ordering::Acquire);
        let limit = match self.load.limit.load(Ordering::Acquire) {
            NOT_TOLD => 1,
            limit => limit,
        };
        if streams >= limit || !self.is_usable() {
            return None;
        }
        self.load.streams.fetch_add(1, Ordering::AcqRel);
        let reused = self.load.last_used.load(Ordering::Relaxed) > 0;
        Some(Slot { sender: self.sender.clone(), load: self.load.clone(), reused })
    }

    /// Whether requests may still be put on it.
    pub(crate) fn is_usable(&mut self) -> bool {
        if self.load.ended.load(Ordering::Acquire) {
            return false;
        }
        // It knows at once when the other side has said goodbye, before the last request on it has ended.
        let ready = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Whether the other side has yet to tell how many requests it takes at a time.
    pub(crate) fn is_new(&self) -> bool {
        self.load.limit.load(Ordering::Acquire) == NOT_TOLD && !self.load.ended.load(Ordering::Acquire)
    }

    /// Since when there has been nothing on it; none, if there is something.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let idle = self.load.streams.load(Ordering::Acquire) == 0;
        idle.then(|| self.load.since + Duration::from_millis(self.load.last_used.load(Ordering::Relaxed)))
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.load.released.store(true, Ordering::Release);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let used = u64::try_from(self.load.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.load.last_used.fetch_max(used.max(1), Ordering::Relaxed);
        self.load.streams.fetch_sub(1, Ordering::AcqRel);
        self.load.tell();
    }
}

impl Load {
    /// No request is put on it any more.
    fn retire(&self) {
        self.ended.store(true, Ordering::Release);
        self.tell();
    }

    fn tell(&self) {
        if self.news.receiver_count() > 0 {
            self.news.send_replace(());
        }
    }
}

/// Keeps the connection going until it ends, nobody needs it, or the other side is dead.
async fn serve(mut connection: Connection<Transport, Bytes>, load: Arc<Load>) {
    let mut heartbeat = Heartbeat::new(connection.ping_pong());
    poll_fn(|cx| {
        load.reading.at_once(READ_AT_ONCE);
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        let limit = connection.max_concurrent_send_streams();
        if load.limit.swap(limit, Ordering::AcqRel) != limit {
            load.tell();
        }
        if ended { Poll::Ready(()) } else { heartbeat.poll(cx, &load) }
    })
    .await;
    load.ended.store(true, Ordering::Release);
    // Whatever was on it gets an error.
    drop(connection);
    load.tell();
}

/// Looks after a connection at intervals.
struct Heartbeat {
    pings: Option<PingPong>,
    /// Something was asked for, and has not come.
    awaited: bool,
    next: Pin<Box<Unconstrained<Sleep>>>,
}

impl Heartbeat {
    fn new(pings: Option<PingPong>) -> Self {
        Self { pings, awaited: false, next: Box::pin(unconstrained(sleep(PING_INTERVAL))) }
    }

    /// Ready when the connection is to be closed, whatever the other side makes of that.
    fn poll(&mut self, cx: &mut Context<'_>, load: &Load) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.awaited && pings.poll_pong(cx).is_ready() {
            self.awaited = false;
        }
        while self.next.as_mut().poll(cx).is_ready() {
            let idle = load.streams.load(Ordering::Acquire) == 0;
            if self.awaited || (idle && load.released.load(Ordering::Acquire)) {
                return Poll::Ready(());
            }
            if !idle {
                self.awaited = pings.send_ping(Ping::opaque()).is_ok() && pings.poll_pong(cx).is_pending();
            }
            self.next = Box::pin(unconstrained(sleep(PING_INTERVAL)));
        }
        Poll::Pending
    }
}
