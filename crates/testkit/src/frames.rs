//! An HTTP/2 endpoint that writes frames as a script says (RFC 9113), also those that no server would write.
//!
//! It speaks TLS, reads as much of a request as it takes to know that there is one, and never looks at headers. For what a
//! well-behaved server does, take a real one.
//!
//! ```
//! use aquarium_testkit::certificates::{Authority, with_protocols};
//! use aquarium_testkit::frames::{INTERNAL_ERROR, Frames, Reaction, reset};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let authority = Authority::new();
//! let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2"]);
//! let receiver = Frames::start(config, &[], |request| match request.number {
//!     0 => Reaction::Once(reset(request.stream, INTERNAL_ERROR)),
//!     _ => Reaction::Answer(204),
//! });
//! assert!(receiver.await.url("/hooks").starts_with("https://127.0.0.1:"));
//! # }
//! ```

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// Part of a body.
pub const DATA: u8 = 0;
/// The beginning of a head, or of trailers.
pub const HEADERS: u8 = 1;
/// The end of a stream before its time.
pub const RST_STREAM: u8 = 3;
/// What the other side has to observe.
pub const SETTINGS: u8 = 4;
/// A question whether anybody is there, or the answer.
pub const PING: u8 = 6;
/// No more streams are taken.
pub const GOAWAY: u8 = 7;
/// Leave to send more.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a head.
pub const CONTINUATION: u8 = 9;

/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a head.
pub const END_HEADERS: u8 = 4;
/// The flag of an answer to `SETTINGS` or `PING`.
pub const ACK: u8 = 1;

/// The reason of an end that is none of the others.
pub const NO_ERROR: u32 = 0;
/// The reason of a server that is at fault.
pub const INTERNAL_ERROR: u32 = 2;
/// The reason of a server that did not look at the request.
pub const REFUSED_STREAM: u32 = 7;
/// The reason of a server that does not want the stream any more.
pub const CANCEL: u32 = 8;
/// The reason of a server that has had too much.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// The longest frame that is read: more than that has to be agreed upon.
const MAX_FRAME: usize = 16 * 1024;
/// The longest that a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How much is written at once, at least, of what never ends.
const AT_ONCE: usize = 8 * 1024;

/// A frame.
///
/// # Panics
/// If the payload does not fit into one (16 MiB).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length < 1 << 24).expect("it fits");
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An answer of this status without a body, or, with other flags than both, the start of one.
pub fn head(status: u16, flags: u8, stream: u32) -> Vec<u8> {
    frame(HEADERS, flags, stream, &status_line(status))
}

/// The end of a stream before its time.
pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// A goodbye: streams after `last` were not looked at, and will not be.
pub fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// A header, neither indexed nor compressed (RFC 7541, section 6.2.2).
///
/// # Panics
/// If its name or its value has more than 126 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let short =
        |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("it is short");
    [&[0, short(name)], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
}

/// `:status`, the eighth of the static table, with a value of its own.
fn status_line(status: u16) -> Vec<u8> {
    let value = status.to_string();
    [&[8, u8::try_from(value.len()).unwrap_or(3)], value.as_bytes()].concat()
}

/// A request of which the head has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How many arrived before it, on whatever connection.
    pub number: usize,
    /// Its stream.
    pub stream: u32,
}

/// What is done with a request.
#[derive(Debug, Clone)]
pub enum Reaction {
    /// Answers with this status once the request is there whole, and counts it as answered.
    Answer(u16),
    /// Writes this, and goes on.
    Once(Vec<u8>),
    /// Writes the first, then the other for ever, as fast as it is read.
    ForEver(Vec<u8>, Vec<u8>),
    /// Writes this, and closes the connection.
    Close(Vec<u8>),
}

type Script = Arc<dyn Fn(Request) -> Reaction + Send + Sync>;

/// A running receiver. It ends when it is dropped, and all of its connections with it.
#[derive(Debug)]
pub struct Frames {
    address: SocketAddr,
    book: Arc<Book>,
    listening: AbortHandle,
}

#[derive(Debug, Default)]
struct Book {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    answered: Mutex<Vec<Bytes>>,
}

impl Frames {
    /// A receiver on a free port. `settings` is the payload of the frame that it greets with.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(
        tls: impl Into<Arc<ServerConfig>>,
        settings: &'static [u8],
        script: impl Fn(Request) -> Reaction + Send + Sync + 'static,
    ) -> Frames {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(listener) => listener,
            Err(error) => panic!("the receiver cannot listen: {error}"),
        };
        let address = listener.local_addr().expect("a listener has an address");
        let book = Arc::new(Book::default());
        let play = Play { settings, script: Arc::new(script), book: book.clone() };
        let listening = tokio::spawn(run(listener, TlsAcceptor::from(tls.into()), play)).abort_handle();
        Frames { address, book, listening }
    }

    /// The URL of a path, which begins with a `/`.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.book.open.load(Ordering::SeqCst)
    }

    /// How many requests have arrived, as far as their heads.
    pub fn count(&self) -> usize {
        self.book.requests.load(Ordering::SeqCst)
    }

    /// The bodies of the requests that [`Reaction::Answer`] was for, in the order in which they were there.
    pub fn answered(&self) -> Vec<Bytes> {
        self.book.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[derive(Clone)]
struct Play {
    settings: &'static [u8],
    script: Script,
    book: Arc<Book>,
}

/// Counts a connection as open while it is held.
struct Open(Arc<Book>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn run(listener: TcpListener, acceptor: TlsAcceptor, play: Play) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    play.book.connections.fetch_add(1, Ordering::SeqCst);
                    play.book.open.fetch_add(1, Ordering::SeqCst);
                    let (open, acceptor, play) = (Open(play.book.clone()), acceptor.clone(), play.clone());
                    tasks.spawn(async move {
                        let _open = open;
                        stream.set_nodelay(true)?;
                        play.serve(timeout(HANDSHAKE, acceptor.accept(stream)).await??).await
                    });
                }
                // Nothing but a lack of file descriptors is left: there will be some again.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

impl Play {
    /// Ends with an error when the other side has hung up.
    async fn serve(self, mut stream: TlsStream<TcpStream>) -> io::Result<()> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        write(&mut stream, &frame(SETTINGS, 0, 0, self.settings)).await?;
        // The requests that are to be answered when they are there whole.
        let mut expected: HashMap<u32, (u16, Vec<u8>)> = HashMap::new();
        loop {
            let (kind, flags, on, payload) = read(&mut stream).await?;
            match kind {
                SETTINGS if flags & ACK == 0 => write(&mut stream, &frame(SETTINGS, ACK, 0, &[])).await?,
                PING if flags & ACK == 0 => write(&mut stream, &frame(PING, ACK, 0, &payload)).await?,
                RST_STREAM => {
                    expected.remove(&on);
                }
                HEADERS => {
                    let number = self.book.requests.fetch_add(1, Ordering::SeqCst);
                    match (self.script)(Request { number, stream: on }) {
                        Reaction::Answer(status) => {
                            expected.insert(on, (status, Vec::new()));
                        }
                        Reaction::Once(bytes) => write(&mut stream, &bytes).await?,
                        Reaction::Close(bytes) => {
                            write(&mut stream, &bytes).await?;
                            return stream.shutdown().await;
                        }
                        Reaction::ForEver(first, again) => return for_ever(stream, &first, &again).await,
                    }
                }
                DATA => {
                    let more = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
                    if !payload.is_empty() {
                        write(&mut stream, &frame(WINDOW_UPDATE, 0, 0, &more)).await?;
                    }
                    if let Some((_, body)) = expected.get_mut(&on) {
                        body.extend_from_slice(&payload);
                        if !payload.is_empty() && flags & END_STREAM == 0 {
                            write(&mut stream, &frame(WINDOW_UPDATE, 0, on, &more)).await?;
                        }
                    }
                }
                _ => {}
            }
            let whole = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
            if whole && let Some((status, body)) = expected.remove(&on) {
                self.book.answered.lock().unwrap_or_else(PoisonError::into_inner).push(body.into());
                write(&mut stream, &head(status, END_HEADERS | END_STREAM, on)).await?;
            }
        }
    }
}

/// A frame: its kind, its flags, its stream and its payload.
async fn read(stream: &mut TlsStream<TcpStream>) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

async fn write(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Writes the first, then the other until the other side has hung up.
async fn for_ever(stream: TlsStream<TcpStream>, first: &[u8], again: &[u8]) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let again = again.repeat(1 + AT_ONCE / again.len().max(1));
    let writing = async {
        writer.write_all(first).await?;
        loop {
            writer.write_all(&again).await?;
        }
    };
    // What comes back is taken, so that it is not for want of that that it ends.
    tokio::select! {
        ended = writing => ended,
        read = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await } => read.map(drop),
    }
}
