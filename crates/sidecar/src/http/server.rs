//! Serving HTTP/1.1 on what connects.
//!
//! A connection that is closed while the client still sends is reset, and the client may lose the answer that tells why. So
//! after a refusal the rest of the request is read and thrown away for a moment (RFC 9112, section 9.6).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::listener::Stream;
use super::room::Place;
use super::stream::{Turn, Watched};
use super::{Answer, Code, Listener, Problem, Room};

/// The longest that a request's head may take to arrive; idle connections are closed after it as well.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that a request's head may take, in bytes. It has at most 100 headers, which is hyper's limit.
const MAX_HEAD: usize = 32 * 1024;
/// The longest that it may take to tell a connection that it is not served.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the rest of a request that was refused is read, in all.
const LINGER: Duration = Duration::from_secs(3);
/// How long nothing may come of it.
const LINGER_IDLE: Duration = Duration::from_secs(1);
/// The most of it that is read, in bytes: the largest event there can be.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
/// How long requests under way may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a connection may still begin its first request then: it was accepted because that was on its way.
const FIRST_REQUEST: Duration = Duration::from_millis(100);
/// How long accepting rests after it failed (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How seldom it is told that accepting failed.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;

    /// A connection is turned away: as many as there may be are served.
    fn turned_away(&self) {}

    /// Answers the request of such a connection.
    fn refuse(&self, _: &Request<Incoming>) -> Answer {
        Problem::too_many_connections().answer()
    }

    /// The problem that a request is refused with whose head could not be read.
    fn refuse_head(&self, problem: Problem) -> Problem {
        problem
    }
}

/// Serves until `shutdown`, as many connections at once as there is room for; then lets requests under way end.
pub(crate) async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    room: Room,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let place = room.enter();
                if place.as_ref().is_none_or(|place| !place.served) {
                    turned_away(&*handler, &room, &listener);
                }
                let Some(place) = place else { continue };
                let (handler, shutdown) = (handler.clone(), shutdown.clone());
                connections.spawn(async move {
                    match stream {
                        Stream::Tcp(stream) => placed(stream, handler, place, shutdown).await,
                        Stream::Unix(stream) => placed(stream, handler, place, shutdown).await,
                    }
                });
            }
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                    told = Some(Instant::now());
                    warn!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    listener.close();
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        warn!(connections = connections.len(), "requests were cut off");
        connections.shutdown().await;
    }
}

fn turned_away<H: Handler>(handler: &H, room: &Room, listener: &Listener) {
    handler.turned_away();
    if room.is_to_be_told() {
        let address = listener.address().map(|address| address.to_string()).unwrap_or_default();
        warn!(listener = %address, limit = room.limit(), "all connections are in use; further ones are turned away");
    }
}

/// Serves a connection, or tells it that it is not served, and gives its place back.
async fn placed<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    handler: Arc<H>,
    place: Place,
    shutdown: CancellationToken,
) {
    let (turn, seen) = (Turn::default(), Seen::default());
    let mut stream = Watched::new(stream, &turn);
    let serving = Serving { handler: handler.clone(), served: place.served, turn: &turn, seen: &seen };
    let serving = connection(&mut stream, serving, shutdown);
    let (ended, linger) = match place.served {
        true => (serving.await, LINGER),
        // A client that asks for nothing in this time is told nothing.
        false => (timeout(REFUSAL_TIMEOUT, serving).await.unwrap_or(Ok(())), REFUSAL_TIMEOUT),
    };
    let unread = match stream.take_kept_back() {
        Some(status) => Some(Problem::of_head(status)),
        // What is only idle is closed without a word: an answer that was not asked for would be taken for that to the next
        // request.
        None if ended.is_err_and(|error| error.is_timeout()) && stream.has_begun() => Some(too_slow()),
        None => None,
    };
    if let Some(problem) = &unread {
        let answer = handler.refuse_head(problem.clone()).bytes();
        let _ = timeout(REFUSAL_TIMEOUT, stream.write_all(&answer)).await;
    }
    if unread.is_some() || seen.refused.load(Ordering::Relaxed) {
        let _ = timeout(REFUSAL_TIMEOUT, stream.shutdown()).await;
        if let Some(_leave) = place.linger().filter(|_| !stream.has_ended()) {
            discard(&mut stream, linger).await;
        }
    }
}

/// What was seen of a connection's requests.
#[derive(Debug, Default)]
struct Seen {
    /// There was one.
    asked: AtomicBool,
    /// The last one had a body, and was refused: perhaps before all of it was read.
    refused: AtomicBool,
}

/// How a connection is served.
struct Serving<'c, H> {
    handler: Arc<H>,
    served: bool,
    turn: &'c Turn,
    seen: &'c Seen,
}

async fn connection<H: Handler>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin + Send),
    serving: Serving<'_, H>,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let Serving { handler, served, turn, seen } = serving;
    let service = service_fn(|request: Request<Incoming>| {
        turn.asked();
        seen.asked.store(true, Ordering::Relaxed);
        let handler = handler.clone();
        async move {
            let has_body = !request.body().is_end_stream();
            let answer = if served { handler.handle(request).await } else { handler.refuse(&request) };
            seen.refused.store(has_body && answer.status().as_u16() >= 400, Ordering::Relaxed);
            turn.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .keep_alive(served)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            if !seen.asked.load(Ordering::Relaxed)
                && let Ok(ended) = timeout(FIRST_REQUEST, connection.as_mut()).await
            {
                return ended;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.inspect_err(|error| debug!(%error, "a connection broke off"))
}

/// A head did not arrive in time.
fn too_slow() -> Problem {
    let detail = format!("the head of the request did not arrive within {HEAD_TIMEOUT:?}");
    Problem::new(StatusCode::REQUEST_TIMEOUT, Code::TooSlow, detail).closing()
}

/// Reads on until the client closes, for `longest` at the most.
async fn discard(stream: &mut (impl AsyncRead + Unpin), longest: Duration) {
    let deadline = Instant::now() + longest;
    let (mut part, mut left) = (vec![0; 16 * 1024], LINGER_BYTES);
    while left > 0 {
        let idle = deadline.min(Instant::now() + LINGER_IDLE);
        match timeout_at(idle, stream.read(&mut part)).await {
            Ok(Ok(read @ 1..)) => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::http::json;

    #[derive(Debug)]
    struct Large(usize);

    impl Handler for Large {
        async fn handle(&self, _: Request<Incoming>) -> Answer {
            json(StatusCode::OK, &"x".repeat(self.0))
        }
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// The other end of a connection that is served.
    fn served(size: usize) -> (DuplexStream, JoinSet<()>) {
        let (ours, theirs) = duplex(1_024);
        let place = Room::new(1).enter().unwrap();
        let mut task = JoinSet::new();
        let shutdown = CancellationToken::new();
        task.spawn(placed(theirs, Arc::new(Large(size)), place, shutdown));
        (ours, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_told_so_and_an_idle_connection_is_closed() {
        for (before, answer) in [(&REQUEST[..20], "HTTP/1.1 408 "), (b"", "")] {
            let (mut ours, _task) = served(1);
            ours.write_all(before).await.unwrap();
            let (started, mut told) = (Instant::now(), String::new());
            ours.read_to_string(&mut told).await.unwrap();
            assert!(told.starts_with(answer) && told.is_empty() == answer.is_empty(), "{told}");
            assert!(
                told.is_empty() || told.contains("too-slow") && told.contains("connection: close"),
                "{told}"
            );
            assert!(started.elapsed().abs_diff(HEAD_TIMEOUT) < Duration::from_secs(1));
        }
        let (mut ours, _task) = served(1);
        ours.write_all(REQUEST).await.unwrap();
        let mut told = String::new();
        ours.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 200 ") && !told.contains("408"), "idle after an answer: {told}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_the_answer_is_cut_off_and_who_is_slow_is_not() {
        let (mut ours, mut task) = served(1 << 20);
        ours.write_all(REQUEST).await.unwrap();
        let started = Instant::now();
        task.join_next().await;
        assert!(started.elapsed().abs_diff(super::super::stream::STALL) < Duration::from_secs(1));

        let (mut ours, _task) = served(1 << 14);
        ours.write_all(REQUEST).await.unwrap();
        let (mut taken, mut part) = (0, [0; 1_024]);
        while taken < 1 << 14 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            taken += ours.read(&mut part).await.unwrap();
        }
    }

    /// Refuses without a look at the body.
    struct Refusing;

    impl Handler for Refusing {
        async fn handle(&self, _: Request<Incoming>) -> Answer {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "").closing().answer()
        }
    }

    /// Sends a request that is refused, and then pieces of its body, each so long after the one before. Returns how many were
    /// taken, and after what time the connection ended.
    async fn refused(pieces: usize, size: usize, pause: Duration) -> (usize, Duration, String) {
        let (ours, theirs) = duplex(64 * 1_024);
        let room = Room::new(1);
        let place = room.enter().unwrap();
        let served = tokio::spawn(placed(theirs, Arc::new(Refusing), place, CancellationToken::new()));
        let (mut reading, mut writing) = tokio::io::split(ours);
        let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
        writing.write_all(head).await.unwrap();
        let mut answer = String::new();
        reading.read_to_string(&mut answer).await.unwrap();
        let started = Instant::now();
        let (mut taken, piece) = (0, vec![b'x'; size]);
        while taken < pieces && writing.write_all(&piece).await.is_ok() {
            taken += 1;
            tokio::time::sleep(pause).await;
        }
        served.await.unwrap();
        (taken, started.elapsed(), answer)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_the_rest_is_read_within_bounds() {
        const MIB: usize = 1 << 20;
        const PROMPT: Duration = Duration::ZERO;
        let tenth = LINGER / 30;
        for (name, pieces, size, pause, most, ends) in [
            ("a body that is soon over", 5, MIB, PROMPT, 5, LINGER_IDLE),
            ("nothing", 0, 0, PROMPT, 0, LINGER_IDLE),
            ("drops", 1_000, 1, tenth, 31, LINGER),
            ("a flood", 1_000, MIB, PROMPT, 65, PROMPT),
        ] {
            let (taken, elapsed, answer) = refused(pieces, size, pause).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
            assert!(taken <= most && taken + 2 >= most.min(pieces), "{name}: {taken} pieces were taken");
            assert!(elapsed.abs_diff(ends) <= 2 * tenth, "{name}: {elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_linger_at_once() {
        let room = Room::new(8);
        let places: Vec<_> = (0..8).map(|_| room.enter().unwrap()).collect();
        let lingering: Vec<_> = places.iter().filter_map(Place::linger).collect();
        assert_eq!(lingering.len(), 2);
        drop(lingering);
        assert!(places[7].linger().is_some());
    }
}
