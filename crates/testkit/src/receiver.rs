//! An endpoint on a real socket that does what a script says, and remembers what it got.
//!
//! It has a small HTTP/1.1 server of its own, since a real one refuses to do what endpoints do: reset connections,
//! answer half, never stop answering. What it cannot do is HTTP/2.
//!
//! ```
//! use std::time::Duration;
//! use aquarium_testkit::client::Client;
//! use aquarium_testkit::receiver::{Behaviour, Receiver};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let script = Behaviour::in_turn([Behaviour::status(503).with_header("Retry-After", "1"), Behaviour::status(204)]);
//! let receiver = Receiver::builder().script(script).start().await;
//!
//! let client = Client::new(&receiver.url(""));
//! assert_eq!(client.post("/hooks", &[("Webhook-Id", "evt_1")], "{}").await?.status, 503);
//! assert_eq!(client.post("/hooks", &[("Webhook-Id", "evt_1")], "{}").await?.status, 204);
//!
//! let received = receiver.wait_for(2, Duration::from_secs(5)).await;
//! assert_eq!(received[1].header("webhook-id"), Some("evt_1"));
//! assert_eq!(receiver.tally().duplicates, 1);
//! # Ok(())
//! # }
//! ```
//!
//! It lives on the runtime that it was started on, in real time: a test with a paused clock has no use for it.

mod behaviour;
mod connection;
mod read;
mod received;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub use behaviour::Behaviour;
use connection::{Play, serve};
use received::Book;
pub use received::{Received, Tally};

/// The longest that a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Script = Arc<dyn Fn(&Received) -> Behaviour + Send + Sync>;
type BeforeBody = Arc<dyn Fn(&Received) -> Option<Behaviour> + Send + Sync>;

/// A running receiver. It ends when it is dropped, and all of its connections with it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    book: Arc<Book>,
    connections: Arc<Connections>,
    stop: watch::Sender<()>,
    listening: AbortHandle,
}

impl Receiver {
    /// A receiver on a free port that answers every request with a 204.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start() -> Receiver {
        Receiver::builder().start().await
    }

    /// A receiver that is not started yet.
    pub fn builder() -> Builder {
        let script: Script = Arc::new(|_| Behaviour::status(204));
        Builder { port: 0, tls: None, script, before_body: None, whole: true }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a `/`. Its host is `127.0.0.1`: a certificate has to name that.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How many requests have arrived.
    pub fn count(&self) -> usize {
        self.book.count()
    }

    /// Every request that has arrived, in order.
    ///
    /// # Panics
    /// If it was told not to record them.
    pub fn received(&self) -> Vec<Arc<Received>> {
        self.book.received()
    }

    /// Waits until `count` requests have arrived since the start, and returns all that have.
    ///
    /// # Panics
    /// If they do not arrive within the time; the message says what did. And if it was told not to record them.
    pub async fn wait_for(&self, count: usize, within: Duration) -> Vec<Arc<Received>> {
        self.book.wait_for(count, within).await;
        self.book.received()
    }

    /// The same for a receiver that was told not to record requests.
    ///
    /// # Panics
    /// If they do not arrive within the time.
    pub async fn wait_for_count(&self, count: usize, within: Duration) -> Tally {
        self.book.wait_for(count, within).await;
        self.book.tally()
    }

    /// How many requests have arrived, and how many of them were repeated.
    pub fn tally(&self) -> Tally {
        self.book.tally()
    }

    /// Whether a request with this `Webhook-Id` has arrived.
    pub fn has(&self, id: &str) -> bool {
        self.times(id) > 0
    }

    /// How many requests with this `Webhook-Id` have arrived.
    pub fn times(&self, id: &str) -> usize {
        self.book.times(id)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.accepted.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.connections.open.load(Ordering::Relaxed)
    }

    /// Closes the port and every connection. What was received can still be asked for.
    ///
    /// Another receiver can be started on the same port then.
    pub async fn stop(&self) {
        self.stop.send_replace(());
        // The listening task holds the other end, and drops it last.
        self.stop.closed().await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A receiver that is not started yet.
#[must_use = "it listens once it is started"]
pub struct Builder {
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    script: Script,
    before_body: Option<BeforeBody>,
    whole: bool,
}

impl Builder {
    /// The port on 127.0.0.1; any free one unless given. It may have been in use by a receiver that has stopped.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// Serves TLS, as by [`certificates`](crate::certificates).
    pub fn tls(mut self, config: impl Into<Arc<ServerConfig>>) -> Builder {
        self.tls = Some(config.into());
        self
    }

    /// What to do with a request, once it has arrived.
    pub fn script(mut self, script: impl Fn(&Received) -> Behaviour + Send + Sync + 'static) -> Builder {
        self.script = Arc::new(script);
        self
    }

    /// What to do with a request when its head has arrived. If it is anything, then the body is never read, the script
    /// is not asked, and the connection is closed afterwards.
    ///
    /// The request has no body yet, and a number that may change.
    pub fn before_body(
        mut self,
        decide: impl Fn(&Received) -> Option<Behaviour> + Send + Sync + 'static,
    ) -> Builder {
        self.before_body = Some(Arc::new(decide));
        self
    }

    /// Whether requests are kept, which they are unless told otherwise. Under load, a [`Tally`] is enough.
    pub fn record_bodies(mut self, record: bool) -> Builder {
        self.whole = record;
        self
    }

    /// Begins to listen.
    ///
    /// # Panics
    /// If the port cannot be listened on.
    pub async fn start(self) -> Receiver {
        let Builder { port, tls, script, before_body, whole } = self;
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => listener,
            Err(error) => panic!("the receiver cannot listen on port {port}: {error}"),
        };
        let address = listener.local_addr().expect("a listener has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let book = Arc::new(Book::new(whole));
        let connections = Arc::new(Connections::default());
        let play = Arc::new(Play { script, before_body, book: Arc::clone(&book) });
        let desk =
            Desk { listener, tls: tls.map(TlsAcceptor::from), play, connections: Arc::clone(&connections) };
        let (stop, stopped) = watch::channel(());
        let listening = tokio::spawn(desk.run(stopped)).abort_handle();
        Receiver { address, scheme, book, connections, stop, listening }
    }
}

#[derive(Debug, Default)]
struct Connections {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// Counts a connection as open while it is held.
struct Open(Arc<Connections>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections, and owns the tasks that serve them.
struct Desk {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    play: Arc<Play>,
    connections: Arc<Connections>,
}

impl Desk {
    async fn run(self, mut stopped: watch::Receiver<()>) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                Some(_) = tasks.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        tasks.spawn(self.serve(stream));
                    }
                    // Nothing but a lack of file descriptors is left: there will be some again.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                },
            }
        }
        drop(self);
        tasks.shutdown().await;
    }

    fn serve(&self, stream: TcpStream) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let number = self.connections.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&self.connections));
        let (tls, play) = (self.tls.clone(), Arc::clone(&self.play));
        async move {
            let _open = open;
            stream.set_nodelay(true)?;
            match tls {
                None => serve(stream, number, &play).await,
                Some(tls) => serve(timeout(HANDSHAKE, tls.accept(stream)).await??, number, &play).await,
            }
            Ok(())
        }
    }
}
