//! What a receiver does with a request.

use std::time::Duration;

use http::StatusCode;

use super::Received;

/// What to do with a request. Well-behaved endpoints answer; the rest is what a sender has to survive.
///
/// What does it before the body has arrived is [`Builder::before_body`](super::Builder::before_body).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers, with a `Content-Length` unless the headers have their own framing.
    Answer {
        /// The status; it may be one that does not exist.
        status: u16,
        /// Headers, as they are to be written.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Waits, then does the other; nothing, if the sender hangs up in the meantime.
    Delay(Duration, Box<Behaviour>),
    /// Answers with `100 Continue` and `103 Early Hints`, then does the other.
    Informational(Box<Behaviour>),
    /// Does the other, then closes the connection without having announced it.
    CloseAfter(Box<Behaviour>),
    /// Never answers, and keeps the connection open until the sender hangs up.
    Hang,
    /// Closes the connection instead of answering.
    Close,
    /// Resets the connection (RST) instead of answering.
    Reset,
    /// Answers 200 with a body that never ends, as fast as it is read.
    EndlessBody,
    /// Answers 200 with a body of which one byte comes at each interval, for ever.
    DripBody {
        /// From one byte to the next.
        interval: Duration,
    },
    /// Answers 200 with a head of which one byte comes at each interval, for ever.
    DripHead {
        /// From one byte to the next.
        interval: Duration,
    },
    /// Answers `100 Continue` for ever, as fast as it is read.
    EndlessInformational,
    /// Writes the first bytes, then the others for ever, as fast as they are read.
    ForEver {
        /// What comes first.
        first: Vec<u8>,
        /// What comes again and again.
        again: Vec<u8>,
    },
    /// Writes these bytes, and resets the connection (RST) when they have had time to arrive.
    ResetAfter(Vec<u8>),
    /// Answers 200 with headers that never end, as fast as they are read.
    EndlessHeaders,
    /// Answers 200 with one header whose value has this many bytes.
    HugeHeader(usize),
    /// Answers 200 with 10 bytes of the 1000 that it announces, then closes the connection.
    TruncatedBody,
    /// Writes these bytes, and expects the next request. In [`Behaviour::CloseAfter`], it closes the connection.
    Raw(Vec<u8>),
}

impl Behaviour {
    /// An answer with this status, and nothing else.
    pub fn status(status: u16) -> Behaviour {
        Behaviour::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The answer with one more header.
    ///
    /// # Panics
    /// If it is not a [`Behaviour::Answer`].
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Behaviour {
        match &mut self {
            Behaviour::Answer { headers, .. } => headers.push((name.to_owned(), value.to_owned())),
            other => panic!("only an answer has headers, not {other:?}"),
        }
        self
    }

    /// The answer with this body.
    ///
    /// # Panics
    /// If it is not a [`Behaviour::Answer`].
    #[must_use]
    pub fn with_body(mut self, with: impl Into<Vec<u8>>) -> Behaviour {
        match &mut self {
            Behaviour::Answer { body, .. } => *body = with.into(),
            other => panic!("only an answer has a body, not {other:?}"),
        }
        self
    }

    /// The same, after a delay.
    #[must_use]
    pub fn after(self, delay: Duration) -> Behaviour {
        Behaviour::Delay(delay, Box::new(self))
    }

    /// The same, after informational answers.
    #[must_use]
    pub fn after_informational(self) -> Behaviour {
        Behaviour::Informational(Box::new(self))
    }

    /// The same, and the connection is closed.
    #[must_use]
    pub fn then_close(self) -> Behaviour {
        Behaviour::CloseAfter(Box::new(self))
    }

    /// A script: one behaviour after the other, in the order in which the requests arrive; then the last one for ever.
    ///
    /// # Panics
    /// If there is none.
    pub fn in_turn(
        behaviours: impl IntoIterator<Item = Behaviour>,
    ) -> impl Fn(&Received) -> Behaviour + Send + Sync + 'static {
        let behaviours: Vec<_> = behaviours.into_iter().collect();
        assert!(!behaviours.is_empty(), "a script needs a behaviour");
        move |request| behaviours[request.number.min(behaviours.len() - 1)].clone()
    }
}

/// An answer as it goes over the wire.
pub(super) fn answer(status: u16, headers: &[(String, String)], body: &[u8], method: &str) -> Vec<u8> {
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    let mut bytes = head(status);
    for (name, value) in headers {
        line(&mut bytes, name, value);
    }
    let framed = headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    if !framed && !bodiless {
        line(&mut bytes, "Content-Length", &body.len().to_string());
    }
    bytes.extend_from_slice(b"\r\n");
    if !bodiless && method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// The status line.
pub(super) fn head(status: u16) -> Vec<u8> {
    let known = StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason()).unwrap_or("Unknown");
    format!("HTTP/1.1 {status:03} {reason}\r\n").into_bytes()
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
}
