//! Receivers that do, over HTTP/2, what nobody should (RFC 9113): frame by frame.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` and `:status: 204`, from the static table; `:status: 100`, written out (RFC 7541).
const OK: &[u8] = &[0x88];
const NO_CONTENT: &[u8] = &[0x89];
const CONTINUE: &[u8] = b"\x08\x03100";

type Stream = TlsStream<TcpStream>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is not indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, short(name)], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
}

fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

/// What is done with the first request. It has the stream 1.
#[derive(Debug, Clone)]
enum Script {
    /// Writes these.
    Once(Vec<u8>),
    /// Writes the first, then the others for ever.
    ForEver(Vec<u8>, Vec<u8>),
    /// Writes these, and closes the connection.
    Close(Vec<u8>),
}

/// A server whose first connection plays the script for its first request, and answers the others; all other connections
/// answer each request.
struct Server {
    egress: Egress,
    url: String,
    /// How many connections, and how many requests.
    seen: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Server {
    async fn start(script: Script, settings: &'static [u8]) -> Server {
        let authority = Authority::new();
        let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
        let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let (acceptor, counters) = (TlsAcceptor::from(Arc::new(config)), seen.clone());
        tokio::spawn(async move {
            let mut script = Some(script);
            while let Ok((stream, _)) = listener.accept().await {
                let stream = acceptor.accept(stream).await.unwrap();
                counters.0.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script.take(), settings, counters.clone()));
            }
        });
        Server { egress, url, seen }
    }

    fn seen(&self) -> (usize, usize) {
        (self.seen.0.load(Ordering::SeqCst), self.seen.1.load(Ordering::SeqCst))
    }

    async fn send(&self, body: Bytes) -> Sent {
        let endpoint = Endpoint::new(&self.url, [], TIMEOUT, TIMEOUT).unwrap();
        let message = Message { body, ..message() };
        let sending = self.egress.send(&endpoint, message, pending());
        let sent = tokio::time::timeout(TIMEOUT * 4, sending).await;
        sent.expect("an attempt ends by its deadline, whatever the other side does").unwrap()
    }
}

/// Ends with an error when the other side has hung up.
async fn serve(
    stream: Stream,
    mut script: Option<Script>,
    settings: &'static [u8],
    seen: Arc<(AtomicUsize, AtomicUsize)>,
) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut preface = [0; 24];
    reader.read_exact(&mut preface).await?;
    writer.write_all(&frame(SETTINGS, 0, 0, settings)).await?;
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        reader.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags == 0 => writer.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            PING if flags == 0 => writer.write_all(&frame(PING, 1, 0, &payload)).await?,
            HEADERS => {
                seen.1.fetch_add(1, Ordering::SeqCst);
                match script.take() {
                    None => {
                        let flags = END_STREAM | END_HEADERS;
                        writer.write_all(&frame(HEADERS, flags, stream, NO_CONTENT)).await?;
                    }
                    Some(Script::Once(bytes)) => writer.write_all(&bytes).await?,
                    Some(Script::Close(bytes)) => {
                        writer.write_all(&bytes).await?;
                        return writer.shutdown().await;
                    }
                    Some(Script::ForEver(first, others)) => {
                        writer.write_all(&first).await?;
                        let others = others.repeat(1 + 8192 / others.len());
                        // What comes back is taken, so that it is not for want of that that it ends.
                        tokio::spawn(
                            async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await },
                        );
                        loop {
                            writer.write_all(&others).await?;
                        }
                    }
                }
                writer.flush().await?;
            }
            _ => {}
        }
    }
}

/// What the first request comes to; how many connections and requests there were after a second one that is answered.
async fn check(name: &str, script: Script, expected: Result<u16, FailureKind>, seen: (usize, usize)) {
    let server = Server::start(script, &[]).await;
    let sent = server.send(message().body).await;
    let came_to = match &sent.outcome {
        Outcome::Answered { status, .. } => Ok(*status),
        Outcome::Failed(failure) => Err(failure.kind),
    };
    assert_eq!(came_to, expected, "{name}: {:?}", sent.outcome);
    assert!(sent.excerpt.len() <= MAX_EXCERPT, "{name}");
    let again = server.send(message().body).await;
    assert_eq!(again.outcome, answered(204), "{name}: the next request is not harmed");
    assert_eq!(server.seen(), seen, "{name}");
}

use FailureKind::{BodyTimeout, Protocol, ResponseTimeout};
use Script::{Close, ForEver, Once};

#[tokio::test]
async fn frames_without_end_are_cut_off() {
    let endless = field("x-filler", &"e".repeat(100));
    let block: Vec<u8> = endless.repeat(1000);
    let block = block.chunks(16_000).map(|part| frame(CONTINUATION, 0, 1, part)).collect::<Vec<_>>().concat();
    for (name, first, others, expected, seen) in [
        (
            "headers in continuations",
            frame(HEADERS, 0, 1, OK),
            frame(CONTINUATION, 0, 1, &endless),
            Err(Protocol),
            (2, 2),
        ),
        (
            "empty continuations",
            frame(HEADERS, 0, 1, OK),
            frame(CONTINUATION, 0, 1, &[]),
            Err(Protocol),
            (2, 2),
        ),
        (
            "informational answers",
            Vec::new(),
            frame(HEADERS, END_HEADERS, 1, CONTINUE),
            Err(ResponseTimeout),
            (2, 2),
        ),
        ("empty data", frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, &[]), Err(Protocol), (2, 2)),
        (
            "more than was let in",
            frame(HEADERS, END_HEADERS, 1, OK),
            frame(DATA, 0, 1, &[0; 1000]),
            Err(Protocol),
            (2, 2),
        ),
    ] {
        check(name, ForEver(first, others), expected, seen).await;
    }
    let large =
        [frame(HEADERS, 0, 1, OK), block, frame(CONTINUATION, END_HEADERS | END_STREAM, 1, &[])].concat();
    let server = Server::start(Once(large), &[]).await;
    assert_eq!(kind(&server.send(message().body).await), Some(Protocol), "a head that is too large");
}

#[tokio::test]
async fn noise_does_not_keep_an_answer_from_being_missed() {
    for (name, others) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("unknown frames", frame(0xbe, 0, 0, b"who knows")),
    ] {
        let server = Server::start(ForEver(Vec::new(), others), &[]).await;
        let sent = server.send(message().body).await;
        assert!(matches!(kind(&sent), Some(ResponseTimeout | Protocol)), "{name}: {:?}", sent.outcome);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_the_others_alone() {
    let head = frame(HEADERS, END_HEADERS, 1, OK);
    let part = frame(DATA, 0, 1, b"part");
    let reset = |reason: u32| frame(RST_STREAM, 0, 1, &reason.to_be_bytes());
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, NO_CONTENT);
    for (name, script, expected) in [
        ("reset before an answer", reset(2), Err(Protocol)),
        ("reset in the body", [&head[..], &part, &reset(2)].concat(), Err(Protocol)),
        ("called off", reset(8), Err(Protocol)),
        ("reset after the answer", [&whole[..], &reset(0)].concat(), Ok(204)),
        ("a body that does not come", [&head[..], &part].concat(), Err(BodyTimeout)),
    ] {
        check(name, Once(script), expected, (1, 2)).await;
    }
    // For all that is known, it is dead.
    check("no answer", Once(Vec::new()), Err(ResponseTimeout), (2, 2)).await;
}

#[tokio::test]
async fn a_request_that_a_goodbye_passes_over_goes_out_again_and_no_other() {
    // Nothing was looked at: it is sent once more, and not looked at here again.
    for reason in [0, 11] {
        check("passed over", Once(goaway(0, reason)), Ok(204), (2, 3)).await;
    }
    // It may have been acted on.
    check("taken on", Close(goaway(1, 0)), Err(Protocol), (2, 2)).await;
    check("no goodbye", Close(Vec::new()), Err(Protocol), (2, 2)).await;
    let answered = [goaway(1, 0), frame(HEADERS, END_HEADERS | END_STREAM, 1, NO_CONTENT)].concat();
    check("taken on, and answered", Once(answered), Ok(204), (2, 2)).await;
    check("no frames at all", Once(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), Err(Protocol), (2, 2)).await;
}

#[tokio::test]
async fn a_window_that_is_never_opened_costs_no_more_than_the_deadline() {
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    const SHUT: &[u8] = &[0, 4, 0, 0, 0, 0];
    let server = Server::start(Once(Vec::new()), SHUT).await;
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    let sent = server.send(megabyte.clone()).await;
    assert_eq!(kind(&sent), Some(ResponseTimeout), "{:?}", sent.outcome);
    assert!(sent.phases.body.is_none());
    // Who answers without having read the request can be heard all the same.
    assert_eq!(server.send(megabyte).await.outcome, answered(204));
    assert_eq!(server.seen(), (2, 2));
}

#[tokio::test]
async fn a_body_is_read_as_far_as_is_good_for_anything() {
    let head = frame(HEADERS, END_HEADERS, 1, OK);
    let body = frame(DATA, 0, 1, &[b'x'; 16_384]);
    assert_eq!(MAX_RESPONSE_BODY, 4 * 16_384);
    let full = [&head[..], &body.repeat(4), &frame(DATA, END_STREAM, 1, &[])].concat();
    check("as much as is read", Once(full), Ok(200), (1, 2)).await;
}
