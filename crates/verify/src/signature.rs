//! Signed calls, as [Standard Webhooks] defines them: feature `signature`.
//!
//! A secret in a header says who calls. It does not say that the body is the one that was sent, and who has seen one
//! call can make others. A signature covers the id, the time and the body of one call, so what was seen can at most be
//! repeated as it is, for [`Verifier::TOLERANCE`]; a [`Guard`](crate::Guard) ends that too.
//!
//! ```
//! use aquarium_verify::signature::{Keys, Rejection, Verifier};
//! use std::time::SystemTime;
//!
//! let keys = Keys::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])?;
//! let verifier = Verifier::new(keys.clone());
//!
//! // What the sender does, and how a test makes a call that is genuine:
//! let body = br#"{"event":"test","project":"urban-driving"}"#;
//! let mut headers = keys.headers("evt_0190c0de", SystemTime::now(), body)?;
//!
//! let signed = verifier.verify(&headers, body)?;
//! assert_eq!(signed.id, "evt_0190c0de");
//!
//! assert_eq!(verifier.verify(&headers, b"another body"), Err(Rejection::Wrong));
//! headers.remove("webhook-id");
//! assert_eq!(verifier.verify(&headers, body), Err(Rejection::Missing("webhook-id")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Take the bytes of the body as they came: what was parsed and written again is another body.
//!
//! Only the symmetric signatures, `v1` (HMAC-SHA256), are looked at. Others, such as `v1a`, may stand beside them.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64_NOPAD;
use hmac::Mac as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq as _;

use crate::first::First;

mod keys;

use keys::Running;
pub use keys::{InvalidId, InvalidKey, Keys};

/// The header with the id of what happened: the same on every attempt to deliver it.
pub const ID_HEADER: HeaderName = HeaderName::from_static(ID);
/// The header with the time of this attempt, in seconds since 1970.
pub const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static(TIMESTAMP);
/// The header with the signatures of this attempt.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static(SIGNATURE);

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Checks that a call carries a signature made with one of the accepted [`Keys`], and is not old. Cheap to clone; clones
/// are the same verifier, also after its keys were replaced.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<RwLock<Keys>>,
    tolerance: Duration,
}

impl Verifier {
    /// How far the time of a call may be from that of the receiver, either way, unless [`Verifier::tolerance`] says
    /// otherwise: what the libraries of Standard Webhooks allow.
    pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);
    /// The most signatures of one call, of whatever version. While a key is being replaced there are two.
    pub const MAX_SIGNATURES: usize = 16;
    /// The most bytes of the header with the signatures.
    pub const MAX_HEADER: usize = 8 * 1024;
    /// The most characters of an id.
    pub const MAX_ID: usize = 256;

    /// A verifier that accepts what was signed with `keys`.
    pub fn new(keys: Keys) -> Verifier {
        Verifier { keys: Arc::new(RwLock::new(keys)), tolerance: Self::TOLERANCE }
    }

    /// Accepts calls whose time is this far from that of the receiver, either way, in whole seconds.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Verifier {
        self.tolerance = tolerance;
        self
    }

    /// Accepts these keys from now on, and no others. Calls that are being checked end with those of before.
    pub fn replace(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether a call with these headers and this body is genuine and recent.
    ///
    /// Every key is tried on every signature, to the end, whether or not one before it fitted. How long that takes
    /// depends on the lengths of what was sent and on the number of keys, and on nothing that is secret.
    ///
    /// # Errors
    /// The call is to be answered with a 401, and with nothing else: the reason is for the log of the receiver.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Signed, Rejection> {
        #[expect(clippy::disallowed_methods, reason = "`verify_at` is for who has a clock of their own")]
        let now = SystemTime::now();
        self.verify_at(headers, body, now)
    }

    /// The same at the time `now`.
    ///
    /// # Errors
    /// As those of [`Verifier::verify`].
    pub fn verify_at(&self, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<Signed, Rejection> {
        let mut check = self.begin(headers, now)?;
        check.update(body);
        check.finish()
    }

    /// Checks what can be told from the headers alone, before the body is read. What is returned is then told the body,
    /// in as many pieces as it comes in, and gives the answer.
    ///
    /// ```
    /// use aquarium_verify::signature::{Keys, Rejection, Verifier};
    /// use std::time::SystemTime;
    ///
    /// let keys = Keys::new(["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])?;
    /// let now = SystemTime::now();
    /// let headers = keys.headers("evt_0190c0de", now, b"a body in pieces")?;
    ///
    /// let mut check = Verifier::new(keys).begin(&headers, now)?;
    /// check.update(b"a body ");
    /// check.update(b"in pieces");
    /// assert!(check.finish().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As those of [`Verifier::verify`], except for [`Rejection::Wrong`].
    pub fn begin(&self, headers: &HeaderMap, now: SystemTime) -> Result<Check, Rejection> {
        self.begin_values(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes), now)
    }

    /// The same, for who has headers of another type: `values` gives the values of every header of a name.
    ///
    /// # Errors
    /// As those of [`Verifier::begin`].
    pub fn begin_values<'h, I>(
        &self,
        values: impl Fn(&'static str) -> I,
        now: SystemTime,
    ) -> Result<Check, Rejection>
    where
        I: IntoIterator<Item = &'h [u8]>,
    {
        let id = keys::id(only(ID, values(ID))?).ok_or(Rejection::Id)?;
        let timestamp = timestamp(only(TIMESTAMP, values(TIMESTAMP))?).ok_or(Rejection::Timestamp)?;
        let signatures = signatures(only(SIGNATURE, values(SIGNATURE))?)?;
        recent(timestamp, unix_seconds(now), self.tolerance)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let running = keys.start(id, timestamp);
        Ok(Check { id: id.to_owned(), timestamp, signatures, keys, running })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys).field("tolerance", &self.tolerance).finish()
    }
}

/// A call whose headers may be genuine, and whose body is awaited: see [`Verifier::begin`].
#[must_use = "nothing is known of the call before `finish`"]
pub struct Check {
    id: String,
    timestamp: u64,
    signatures: Vec<[u8; 32]>,
    keys: Keys,
    running: Running,
}

impl Check {
    /// The next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        for mac in &mut self.running {
            mac.update(piece);
        }
    }

    /// Whether the call is genuine, now that all of its body was told.
    ///
    /// # Errors
    /// [`Rejection::Wrong`]: no signature was made with an accepted key, for this id, time and body.
    pub fn finish(self) -> Result<Signed, Rejection> {
        let mut first = First::new();
        for (index, mac) in (0..).zip(self.running) {
            let expected: [u8; 32] = mac.finalize().into_bytes().into();
            for signature in &self.signatures {
                first.tell(index, expected.ct_eq(signature));
            }
        }
        let (found, index) = first.get();
        let signed = Signed { id: self.id, timestamp: self.timestamp, index, label: self.keys.label(index) };
        if found { Ok(signed) } else { Err(Rejection::Wrong) }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("id", &self.id)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// A call is genuine, and its id, time and body are those that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// The id of what happened: the same on every attempt to deliver it. Deduplicate on it.
    pub id: String,
    /// The time of this attempt, in seconds since 1970.
    pub timestamp: u64,
    /// Which of the accepted keys it was signed with, from 0 in the order they were given.
    pub index: usize,
    /// The label of that key, if it has one. When the one of an old key does not come up any more, it can go.
    pub label: Option<Arc<str>>,
}

impl Signed {
    /// What tells this attempt from all others: a [`Guard`](crate::Guard) that remembers it refuses a call that was
    /// recorded and sent again, and lets pass what the sender itself delivers once more.
    ///
    /// It is the id and the time. The text of the signature would not do: while a key is being replaced a call has two
    /// of them, and who repeats it can leave one out.
    pub fn attempt(&self) -> String {
        format!("{}.{}", self.id, self.timestamp)
    }
}

/// Why a call is not genuine, or not recent. It repeats nothing that is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The named header is missing.
    #[error("the {0} header is missing")]
    Missing(&'static str),
    /// The named header is there more than once, be it with equal values.
    #[error("there is more than one {0} header")]
    Repeated(&'static str),
    /// The id is none.
    #[error("the {ID} header is not 1 to {} visible ASCII characters without a full stop", Verifier::MAX_ID)]
    Id,
    /// The time is none. A sign, a space, a leading zero or a fraction is not accepted, and neither is what exceeds 64
    /// bits.
    #[error("the {TIMESTAMP} header is not a number of seconds since 1970")]
    Timestamp,
    /// The time of the call is long ago: it is a repeated one, or a clock is wrong.
    #[error("the {TIMESTAMP} header is {seconds} s in the past, which is too long ago")]
    TooOld {
        /// How long ago it is.
        seconds: u64,
    },
    /// The time of the call is in the future: a clock is wrong.
    #[error("the {TIMESTAMP} header is {seconds} s in the future")]
    TooNew {
        /// How far it is.
        seconds: u64,
    },
    /// There are more signatures than [`Verifier::MAX_SIGNATURES`], or more of them than [`Verifier::MAX_HEADER`].
    #[error(
        "the {SIGNATURE} header has more than {} signatures or {} bytes",
        Verifier::MAX_SIGNATURES,
        Verifier::MAX_HEADER
    )]
    TooMany,
    /// There is no signature of a kind that can be checked here.
    #[error("the {SIGNATURE} header has no v1 signature: \"v1,\" and 32 bytes as base64")]
    Unsigned,
    /// There is no signature for this id, time and body that was made with an accepted key.
    #[error(
        "no signature of the {SIGNATURE} header was made with an accepted key for this id, time and body"
    )]
    Wrong,
}

/// The value of a header that must be there once.
fn only<'h>(name: &'static str, values: impl IntoIterator<Item = &'h [u8]>) -> Result<&'h [u8], Rejection> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(Rejection::Missing(name))?;
    if values.next().is_some() { Err(Rejection::Repeated(name)) } else { Ok(value) }
}

/// A number as a sender writes it, so that there is one text for each.
fn timestamp(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    let canonical =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if canonical { digits.parse().ok() } else { None }
}

/// The signatures of version 1, of all that a header holds.
fn signatures(header: &[u8]) -> Result<Vec<[u8; 32]>, Rejection> {
    let all = || header.split(|byte| *byte == b' ').filter(|signature| !signature.is_empty());
    if header.len() > Verifier::MAX_HEADER || all().count() > Verifier::MAX_SIGNATURES {
        return Err(Rejection::TooMany);
    }
    let signatures: Vec<_> = all().filter_map(|signature| decode(signature.strip_prefix(b"v1,")?)).collect();
    if signatures.is_empty() { Err(Rejection::Unsigned) } else { Ok(signatures) }
}

/// 32 bytes from base64 with its padding.
fn decode(text: &[u8]) -> Option<[u8; 32]> {
    let text = text.strip_suffix(b"=")?;
    let mut bytes = [0; 32];
    if BASE64_NOPAD.decode_len(text.len()) != Ok(bytes.len()) {
        return None;
    }
    BASE64_NOPAD.decode_mut(text, &mut bytes).ok()?;
    Some(bytes)
}

fn recent(timestamp: u64, now: u64, tolerance: Duration) -> Result<(), Rejection> {
    let seconds = now.abs_diff(timestamp);
    if seconds <= tolerance.as_secs() {
        Ok(())
    } else if timestamp < now {
        Err(Rejection::TooOld { seconds })
    } else {
        Err(Rejection::TooNew { seconds })
    }
}

/// Whole seconds since 1970, and 0 before.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
