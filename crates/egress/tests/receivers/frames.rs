//! Receivers that do, over HTTP/2, what nobody should (RFC 9113): frame by frame.

use aquarium_testkit::eventually;
use aquarium_testkit::frames::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS,
    INTERNAL_ERROR, NO_ERROR, PING, REFUSED_STREAM, Reaction, Request, SETTINGS, field, frame, goaway, head,
    reset,
};

use super::*;

const BOUND: Duration = Duration::from_secs(5);
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// A receiver that plays the reaction for its first request, which has the stream 1, and answers all others.
struct Server {
    egress: Egress,
    receiver: Frames,
}

impl Server {
    async fn start(first: Reaction, settings: &'static [u8]) -> Server {
        let authority = Authority::new();
        let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
        let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2"]);
        let script = move |request: Request| match request.number {
            0 => first.clone(),
            _ => Once(head(204, WHOLE, request.stream)),
        };
        Server { egress, receiver: Frames::start(config, settings, script).await }
    }

    /// How many connections, and how many requests.
    fn seen(&self) -> (usize, usize) {
        (self.receiver.connections(), self.receiver.count())
    }

    async fn send(&self, body: Bytes) -> Sent {
        let endpoint = Endpoint::new(&self.receiver.url("/hook"), [], TIMEOUT, TIMEOUT).unwrap();
        let message = Message { body, ..message() };
        let sending = self.egress.send(&endpoint, message, pending());
        let sent = tokio::time::timeout(BOUND_OF_AN_ATTEMPT, sending).await;
        sent.expect("an attempt ends by its deadline, whatever the other side does").unwrap()
    }
}

/// What the first request comes to; how many connections and requests there were after a second one that is answered.
/// What is not used any more is closed.
async fn check(name: &str, first: Reaction, expected: Result<u16, FailureKind>, seen: (usize, usize)) {
    let server = Server::start(first, &[]).await;
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
    let open = server.receiver.open_connections();
    let left = async || server.receiver.open_connections() <= if seen == PASSED_ON { 2 } else { 1 };
    eventually(BOUND, &format!("{name}: one of {open} stays"), left).await;
}

use FailureKind::{BodyTimeout, Protocol, ResponseTimeout};
use Reaction::{Close, ForEver, Once};

/// The connections and requests when the first connection was used again; when it was not; and when the first request
/// went out once more, over another one.
const KEPT: (usize, usize) = (1, 2);
const LEFT: (usize, usize) = (2, 2);
const PASSED_ON: (usize, usize) = (2, 3);

#[tokio::test]
async fn frames_without_end_are_cut_off() {
    let open = || frame(HEADERS, 0, 1, &head(200, 0, 1)[9..]);
    let endless = field("x-filler", &"e".repeat(100));
    for (name, first, again, expected) in [
        ("headers in continuations", open(), frame(CONTINUATION, 0, 1, &endless), Protocol),
        ("empty continuations", open(), frame(CONTINUATION, 0, 1, &[]), Protocol),
        ("informational answers", Vec::new(), head(103, END_HEADERS, 1), Protocol),
        ("empty data", head(200, END_HEADERS, 1), frame(DATA, 0, 1, &[]), Protocol),
        ("oversized frames", head(200, END_HEADERS, 1), frame(DATA, 0, 1, &[0; 20_000]), Protocol),
        ("trailers", head(200, END_HEADERS, 1), frame(HEADERS, END_HEADERS, 1, &endless), Protocol),
    ] {
        check(name, ForEver(first, again), Err(expected), LEFT).await;
    }
}

/// 16 KiB of it made 65,571 characters for each attempt, which filled a queue, and a log line.
#[tokio::test]
async fn what_an_endpoint_says_as_it_leaves_is_cut_and_cannot_steer_a_terminal() {
    for said in [[b'\xff'; 16_000], [b'\x1b'; 16_000], [b'\n'; 16_000], [b'x'; 16_000]] {
        let mut last = goaway(1, ENHANCE_YOUR_CALM);
        last.extend(said);
        let length = u32::try_from(last.len() - 9).unwrap().to_be_bytes();
        last[..3].copy_from_slice(&length[1..]);
        let server = Server::start(Close(last), &[]).await;
        let sent = server.send(message().body).await;
        let Outcome::Failed(failure) = &sent.outcome else { panic!("{:?}", sent.outcome) };
        assert!(failure.detail.len() <= Detail::MAX, "{}", failure.detail.len());
        assert!(!failure.detail.contains(char::is_control), "{failure}");
    }
}

/// Either it meets the window, or so much is read before that it counts.
#[tokio::test]
async fn data_without_end_is_cut_off() {
    let data = ForEver(head(200, END_HEADERS, 1), frame(DATA, 0, 1, &[0; 1000]));
    let server = Server::start(data, &[]).await;
    let sent = server.send(message().body).await;
    assert!(sent.outcome == answered(200) || kind(&sent) == Some(Protocol), "{:?}", sent.outcome);
    assert!(sent.duration < TIMEOUT);
    assert_eq!(server.send(message().body).await.outcome, answered(204));
    assert_eq!(server.seen(), LEFT);
    eventually(BOUND, "it is closed", async || server.receiver.open_connections() == 1).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_taken() {
    let fields = field("x-filler", &"e".repeat(100)).repeat(1000);
    let parts = fields.chunks(16_000).flat_map(|part| frame(CONTINUATION, 0, 1, part));
    let mut large = head(200, 0, 1);
    large.extend(parts);
    large.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    check("a head that is too large", Once(large), Err(Protocol), LEFT).await;
}

#[tokio::test]
async fn noise_without_end_is_cut_off() {
    for (name, others) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("answers to pings", frame(PING, ACK, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("unknown frames", frame(0xbe, 0, 0, b"who knows")),
    ] {
        let server = Server::start(ForEver(Vec::new(), others), &[]).await;
        let sent = server.send(message().body).await;
        assert_eq!(kind(&sent), Some(Protocol), "{name}: {:?}", sent.outcome);
        assert_eq!(server.send(message().body).await.outcome, answered(204), "{name}");
        assert_eq!(server.seen(), LEFT, "{name}");
        eventually(BOUND, name, async || server.receiver.open_connections() == 1).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_the_others_alone() {
    let start = head(200, END_HEADERS, 1);
    let part = frame(DATA, 0, 1, b"part");
    let whole = head(204, WHOLE, 1);
    let broken = |reason| [&start[..], &part, &reset(1, reason)].concat();
    let hints = [head(100, END_HEADERS, 1), head(103, END_HEADERS, 1), whole.clone()].concat();
    for (name, bytes, expected) in [
        ("an internal error", reset(1, INTERNAL_ERROR), Err(Protocol)),
        ("called off", reset(1, CANCEL), Err(Protocol)),
        ("no error, and no answer", reset(1, NO_ERROR), Err(Protocol)),
        ("an internal error in the body", broken(INTERNAL_ERROR), Err(Protocol)),
        ("called off in the body", broken(CANCEL), Err(Protocol)),
        // The answer had begun: it was looked at, whatever this says.
        ("refused in the body", broken(REFUSED_STREAM), Err(Protocol)),
        ("reset after the answer", [&whole[..], &reset(1, NO_ERROR)].concat(), Ok(204)),
        ("a body that does not come", [&start[..], &part].concat(), Err(BodyTimeout)),
        ("informational answers", hints, Ok(204)),
    ] {
        check(name, Once(bytes), expected, KEPT).await;
    }
    // For all that is known, it is dead.
    check("no answer", Once(Vec::new()), Err(ResponseTimeout), LEFT).await;
}

#[tokio::test]
async fn a_request_that_was_not_looked_at_goes_out_again_and_no_other() {
    check("refused", Once(reset(1, REFUSED_STREAM)), Ok(204), PASSED_ON).await;
    for reason in [NO_ERROR, ENHANCE_YOUR_CALM] {
        check("passed over by a goodbye", Once(goaway(0, reason)), Ok(204), PASSED_ON).await;
    }
    // It may have been acted on.
    check("taken on", Close(goaway(1, NO_ERROR)), Err(Protocol), LEFT).await;
    check("no goodbye", Close(Vec::new()), Err(Protocol), LEFT).await;
    let cut = head(204, WHOLE, 1)[..5].to_vec();
    check("the end in the middle of a frame", Close(cut), Err(Protocol), LEFT).await;
    let answered = [goaway(1, NO_ERROR), head(204, WHOLE, 1)].concat();
    check("taken on, and answered", Once(answered), Ok(204), LEFT).await;
    check("no frames at all", Once(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), Err(Protocol), LEFT).await;
}

/// A receiver that passes over every request costs an attempt no more than a bounded number of them.
#[tokio::test]
async fn nobody_is_asked_for_ever() {
    for (name, most) in [("refused", 2), ("passed over", 9)] {
        let authority = Authority::new();
        let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
        let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2"]);
        let receiver = Frames::start(config, &[], move |request: Request| {
            Once(if most == 2 { reset(request.stream, REFUSED_STREAM) } else { goaway(0, NO_ERROR) })
        });
        let receiver = receiver.await;
        let sent = send(&egress, &receiver.url("/")).await;
        assert_eq!(kind(&sent), Some(Protocol), "{name}: {:?}", sent.outcome);
        assert_eq!(receiver.count(), most, "{name}");
    }
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
    assert_eq!(server.seen(), LEFT);
}

#[tokio::test]
async fn a_body_is_read_as_far_as_is_good_for_anything() {
    let start = head(200, END_HEADERS, 1);
    let body = frame(DATA, 0, 1, &[b'x'; 16_384]);
    assert_eq!(MAX_RESPONSE_BODY, 4 * 16_384);
    let full = [&start[..], &body.repeat(4), &frame(DATA, END_STREAM, 1, &[])].concat();
    check("as much as is read", Once(full), Ok(200), KEPT).await;
}
