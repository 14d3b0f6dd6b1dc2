//! The way out: how it is set up, and what it is asked for.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aquarium_delivery::{Failure, Outcome, Phases};
use bytes::Bytes;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::answer::{Deadline, Excerpt};
use crate::attempt::Attempt;
use crate::connect::{Connector, Progress};
use crate::pool::{Connection, Found, MAX_KEPT, Pool};
use crate::resolve::{Resolve, System};
use crate::tls::Sessions;
use crate::{Endpoint, Guard, Message, Proxy, Roots, TlsError};

/// The most that is read of an answer's body, in bytes. What goes beyond ends the connection.
pub const MAX_RESPONSE_BODY: usize = 64 * 1024;
/// The most that is kept of an answer's body, in bytes.
pub const MAX_EXCERPT: usize = 4 * 1024;

/// How the way out is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which addresses may be connected to.
    pub guard: Guard,
    /// Which authorities an endpoint's certificate may come from.
    pub roots: Roots,
    /// What all requests go through, if not directly. What they may go to is checked all the same.
    pub proxy: Option<Proxy>,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The decision's input.
    pub outcome: Outcome,
    /// How long it took, whole.
    pub duration: Duration,
    /// What it was spent on.
    pub phases: Phases,
    /// The start of the answer's body, at most [`MAX_EXCERPT`].
    pub excerpt: Bytes,
}

/// Makes requests. Cheap to clone; clones share their connections, and what [`Egress::reconfigure`] changes.
#[derive(Debug, Clone)]
pub struct Egress {
    way: Arc<RwLock<Arc<Way>>>,
    resolver: Arc<dyn Resolve>,
    /// The most connections that are kept.
    kept: usize,
    /// The sidecar's own listeners.
    own: Arc<[SocketAddr]>,
}

/// What follows from the options, and the connections that were made with them.
#[derive(Debug)]
pub(crate) struct Way {
    connector: Connector,
    pub(crate) pool: Arc<Pool>,
}

impl Egress {
    /// An outbound client that speaks HTTP/1.1 and HTTP/2 and keeps connections for the next request. Names are looked up as
    /// the system's files say. It connects to none of the addresses of `own`, whatever the [`Guard`] allows: they are the
    /// process's own listeners, and a request that leads there would go round in a loop.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority.
    pub fn new(options: Options, own: Vec<SocketAddr>) -> Result<Self, TlsError> {
        Self::with_resolver(options, own, Arc::new(System::default()))
    }

    /// The same, with names looked up by `resolver`.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority.
    pub fn with_resolver(
        options: Options,
        own: Vec<SocketAddr>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        let own: Arc<[SocketAddr]> = own.into();
        let way = Way::new(options, resolver.clone(), MAX_KEPT, own.clone())?;
        Ok(Self { way: Arc::new(RwLock::new(Arc::new(way))), resolver, kept: MAX_KEPT, own })
    }

    /// The same, which keeps at most so many connections for the next request instead of [`MAX_KEPT`]: for where only few
    /// files may be open. Clones that were made before do not keep to it after [`Egress::reconfigure`].
    #[must_use]
    pub fn keeping_at_most(mut self, most: usize) -> Self {
        self.way().pool.keep_at_most(most);
        self.kept = most;
        self
    }

    /// Changes the options of this way out and of all its clones. What is sent from now on goes over new connections;
    /// idle ones are closed. A request that waits for its connection or its answer stays with the options that it began
    /// with. If it must not, withdraw it afterwards, and send it anew.
    ///
    /// It reads the platform's certificates if those are asked for, which blocks for a moment.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority. Nothing is changed then.
    pub fn reconfigure(&self, options: Options) -> Result<(), TlsError> {
        let way = Arc::new(Way::new(options, self.resolver.clone(), self.kept, self.own.clone())?);
        let previous = {
            let mut current = self.way.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, way)
        };
        previous.pool.close();
        Ok(())
    }

    /// Makes one attempt. It ends by the endpoint's timeout, whatever the other side does.
    ///
    /// An answer counts by its status. One with a 2xx status counts only when its body came in time and whole, or was
    /// longer than anyone needs to read; for any other status the body is just what is kept of it.
    ///
    /// The attempt can be withdrawn while its name is looked up, or its connection or TLS session is set up. `None` if
    /// `revoked` completed before the request was handed to a connection: nothing of it has left. On every poll
    /// `revoked` is polled before the request, which is never handed over once that has completed. After the hand-over
    /// it is not looked at, unless the connection turns out to be closed and gives the request back unsent.
    ///
    /// A connection that was used before may be closed by the other side just when the request is on its way. If it ends
    /// before a byte of an answer has come, the request is sent once more over a new one, within the same time, and
    /// unless it was revoked since: receivers know it by its `Webhook-Id` if it had arrived.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        message: Message,
        revoked: impl Future<Output = ()> + Send,
    ) -> Option<Sent> {
        let started = Instant::now();
        let mut attempt = Attempt {
            endpoint,
            message: &message,
            connect_deadline: started + endpoint.connect_timeout.min(endpoint.timeout),
            progress: Progress::default(),
            excerpt: Excerpt::default(),
        };
        let sleep = pin!(sleep_until(started + endpoint.timeout));
        let deadline = Deadline::new(sleep);
        // It is polled also when the task has used up its share of the runtime: it must not be overlooked.
        let revoked = pin!(unconstrained(revoked));
        let outcome = attempt.outcome(self, revoked, deadline).await?;
        let (phases, excerpt) = (attempt.progress.phases, attempt.excerpt.into_bytes());
        Some(Sent { outcome, duration: started.elapsed(), phases, excerpt })
    }

    pub(crate) fn way(&self) -> Arc<Way> {
        self.way.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Way {
    fn new(
        options: Options,
        resolver: Arc<dyn Resolve>,
        kept: usize,
        own: Arc<[SocketAddr]>,
    ) -> Result<Self, TlsError> {
        let sessions = Sessions::new(&options.roots)?;
        let Options { guard, proxy, .. } = options;
        let pool = Arc::new(Pool::new(kept));
        Ok(Self { connector: Connector { guard, resolver, sessions, proxy, own }, pool })
    }

    /// A connection, when there is none to take.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        fresh: bool,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let mut failures = None;
        loop {
            let opening = if fresh {
                self.pool.fresh(&endpoint.origin)
            } else {
                match self.pool.find(&endpoint.origin, failures) {
                    Found::Connection(connection) => return Ok(connection),
                    Found::Open(opening) => opening,
                    Found::Wait(waiting) => {
                        failures = Some(waiting.over().await);
                        continue;
                    }
                }
            };
            return self.connector.open(opening, progress).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use aquarium_delivery::{DeliveryId, EventId, Timestamp};

    use super::*;

    #[test]
    fn an_attempt_does_not_take_much_room() {
        const MOST: usize = 1664;
        let egress =
            Egress::new(Options { guard: Guard::default(), roots: Roots::Webpki, proxy: None }, Vec::new())
                .unwrap();
        let second = Duration::from_secs(1);
        let endpoint = Endpoint::new("https://ops.example.com/", [], second, second).unwrap();
        let at = Timestamp::from_millis(1_800_000_000_000);
        let message = Message {
            body: Bytes::new(),
            event: EventId::new(at, [1; 10]),
            delivery: DeliveryId::new(at, [2; 10]),
            attempt: 1,
            at,
            secret: None,
            signing_key: None,
            trace: None,
            hops: aquarium_delivery::Hops::FIRST,
        };
        let size = size_of_val(&egress.send(&endpoint, message, pending()));
        assert!(size <= MOST, "{size} bytes");
    }
}
