//! The keys that calls are signed with, and the signing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::{BASE64, BASE64_NOPAD, Encoding};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Verifier, unix_seconds};
use crate::load::{self, At, Entry, LoadError, Misplaced};

/// What begins a key, so that it is seen what it is.
const PREFIX: &str = "whsec_";

/// A signature that is being made. The hashes it consists of wipe their state when they are dropped.
type Signing = Hmac<Sha256>;
/// One with each of several keys.
pub(super) type Running = Vec<Signing>;

/// One or several keys, which sign, and each of which is accepted. Cheap to clone.
///
/// A key is [`Keys::MIN`] to [`Keys::MAX`] random bytes as base64, which may have `whsec_` in front of it. What is kept of
/// it is what HMAC makes of it, which can sign as well; it is wiped when the last clone is dropped.
///
/// ```
/// use aquarium_verify::signature::Keys;
///
/// let keys = Keys::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
/// assert_eq!(format!("{keys:?}"), "Keys(1)");
/// assert_eq!(
///     keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, br#"{"test": 2432232314}"#).unwrap(),
///     "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
/// );
/// ```
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

struct Key {
    /// A signature of nothing yet.
    signing: Signing,
    label: Option<Arc<str>>,
}

impl Keys {
    /// The fewest bytes of a key (Standard Webhooks, "Signature scheme").
    pub const MIN: usize = 24;
    /// The most bytes of a key (Standard Webhooks, "Signature scheme").
    pub const MAX: usize = 64;

    /// The keys; one that is used no more can stand behind the one that replaces it.
    ///
    /// # Errors
    /// There must be at least one, and each must be [`Keys::MIN`] to [`Keys::MAX`] bytes as base64 with the letters `+`
    /// and `/`, padded or not, which may follow `whsec_`.
    pub fn new<I>(keys: I) -> Result<Keys, InvalidKey>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::collect(
            keys.into_iter().enumerate().map(|(index, key)| Key::new(At::Index(index), key.as_ref(), None)),
        )
    }

    /// The same, with a label for each, by which [`Signed`](super::Signed) tells which one was used.
    ///
    /// # Errors
    /// As those of [`Keys::new`].
    pub fn labelled<L, K>(keys: impl IntoIterator<Item = (L, K)>) -> Result<Keys, InvalidKey>
    where
        L: Into<Arc<str>>,
        K: AsRef<str>,
    {
        let keys = keys.into_iter().enumerate();
        Self::collect(
            keys.map(|(index, (label, key))| Key::new(At::Index(index), key.as_ref(), Some(label.into()))),
        )
    }

    /// The keys in the text of a file: one a line, with or without a label, and comments, as
    /// [`Secrets::parse`](crate::Secrets::parse) says.
    ///
    /// # Errors
    /// As those of [`Keys::new`]; or a line is [`Misplaced`](crate::Misplaced).
    pub fn parse(text: &str) -> Result<Keys, InvalidKey> {
        Self::entries(load::lines(text))
    }

    /// The keys in an environment variable: one or several, divided by spaces, commas or line breaks. They have no labels,
    /// and there are no comments.
    ///
    /// # Errors
    /// The variable is not set or is not text; or as those of [`Keys::new`].
    pub fn from_env(name: &str) -> Result<Keys, LoadError> {
        load::from_env(name, |text| Self::entries(load::words(text)))
    }

    /// The keys in a file of at most 64 KiB, as [`Keys::parse`] reads them.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 text, is too large, or [`Keys::parse`] refuses it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Keys, LoadError> {
        load::from_file(path.as_ref(), Self::parse)
    }

    /// What a call with this id, time (in seconds since 1970) and body carries in its [`SIGNATURE_HEADER`]: a signature
    /// with each key, so that a receiver who has one of them accepts it.
    ///
    /// # Errors
    /// The id must be 1 to [`Verifier::MAX_ID`] visible ASCII characters, and have no full stop: it ends where the time
    /// begins.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Result<String, InvalidId> {
        let id = self::id(id.as_bytes()).ok_or(InvalidId)?;
        let mut header = String::with_capacity(self.0.len() * 48);
        for mut signing in self.start(id, timestamp) {
            signing.update(body);
            header.push_str(if header.is_empty() { "v1," } else { " v1," });
            BASE64.encode_append(&signing.finalize().into_bytes(), &mut header);
        }
        Ok(header)
    }

    /// The three headers of a call with this id and body that is made at this time.
    ///
    /// # Errors
    /// As those of [`Keys::sign`].
    pub fn headers(&self, id: &str, at: SystemTime, body: &[u8]) -> Result<HeaderMap, InvalidId> {
        let timestamp = unix_seconds(at);
        let signature = self.sign(id, timestamp, body)?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| InvalidId);
        Ok(HeaderMap::from_iter([
            (ID_HEADER, value(id)?),
            (TIMESTAMP_HEADER, timestamp.into()),
            (SIGNATURE_HEADER, value(&signature)?),
        ]))
    }

    /// The signatures of a call, before its body.
    pub(super) fn start(&self, id: &str, timestamp: u64) -> Running {
        let before_the_body = format!("{id}.{timestamp}.");
        self.0.iter().map(|key| key.signing.clone().chain_update(&before_the_body)).collect()
    }

    pub(super) fn label(&self, index: usize) -> Option<Arc<str>> {
        self.0[index].label.clone()
    }

    fn entries<'t>(
        entries: impl Iterator<Item = Result<Entry<'t>, (At, Misplaced)>>,
    ) -> Result<Keys, InvalidKey> {
        Self::collect(entries.map(|entry| {
            let Entry { at, label, value } = entry.map_err(|(at, why)| InvalidKey::Misplaced { at, why })?;
            Key::new(at, value, label.map(Into::into))
        }))
    }

    fn collect(keys: impl Iterator<Item = Result<Key, InvalidKey>>) -> Result<Keys, InvalidKey> {
        let keys: Arc<[Key]> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(InvalidKey::NoKey) } else { Ok(Keys(keys)) }
    }
}

impl fmt::Debug for Keys {
    /// How many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Key {
    fn new(at: At, key: &str, label: Option<Arc<str>>) -> Result<Key, InvalidKey> {
        if key.starts_with("whsk_") || key.starts_with("whpk_") {
            return Err(InvalidKey::Asymmetric { at });
        }
        let padded = key.strip_prefix(PREFIX).unwrap_or(key);
        let text = padded.trim_end_matches('=');
        if text.len() < padded.len() && padded.len() != text.len().next_multiple_of(4) {
            return Err(InvalidKey::Base64 { at });
        }
        // HMAC fills a shorter key up with zeros (RFC 2104 section 2).
        let mut bytes = Zeroizing::new([0; Keys::MAX]);
        let base64 = base64().ok_or(InvalidKey::Base64 { at })?;
        let length = base64.decode_len(text.len()).map_err(|_| InvalidKey::Base64 { at })?;
        if !(Keys::MIN..=Keys::MAX).contains(&length) {
            return Err(InvalidKey::Length { at, length });
        }
        let decoded = base64.decode_mut(text.as_bytes(), &mut bytes[..length]);
        decoded.map_err(|_| InvalidKey::Base64 { at })?;
        Ok(Key { signing: Signing::new((&*bytes).into()), label })
    }
}

/// Base64 without padding, of which the last letter may have bits that are no part of the bytes: some keys were made by
/// drawing letters, and the libraries of Standard Webhooks take them.
fn base64() -> Option<Encoding> {
    let mut specification = BASE64_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.encoding().ok()
}

/// An id that can be signed. A full stop would let the id, the time and the body be divided in another way than they
/// were when they were signed.
pub(super) fn id(bytes: &[u8]) -> Option<&str> {
    let allowed = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
    if bytes.is_empty() || bytes.len() > Verifier::MAX_ID || !bytes.iter().all(allowed) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// An id cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id to sign is not 1 to {} visible ASCII characters without a full stop", Verifier::MAX_ID)]
pub struct InvalidId;

/// Why [`Keys`] cannot be made of what was given. It repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The list is empty: every call would be rejected.
    #[error("no key was given")]
    NoKey,
    /// A key is not base64.
    #[error(
        "the key {at} is not base64; accepted: whsec_ and {} to {} bytes as base64",
        Keys::MIN,
        Keys::MAX
    )]
    Base64 {
        /// Which key.
        at: At,
    },
    /// A key is shorter than [`Keys::MIN`] or longer than [`Keys::MAX`]. An empty one is what an unset variable leaves
    /// behind.
    #[error("the key {at} has {length} bytes; accepted: {} to {}", Keys::MIN, Keys::MAX)]
    Length {
        /// Which key.
        at: At,
        /// How many bytes it has.
        length: usize,
    },
    /// A key is one of a pair, which signatures of version `v1a` are made with.
    #[error("the key {at} is one of a pair (whsk_, whpk_), which cannot be used here; accepted: whsec_")]
    Asymmetric {
        /// Which key.
        at: At,
    },
    /// A key is not written as one is in a file or a variable.
    #[error("the key {at} {why}")]
    Misplaced {
        /// Which key.
        at: At,
        /// What is wrong.
        why: Misplaced,
    },
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_a_key_is_wiped() {
        // An HMAC is two of these, and is not marked itself.
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<sha2::Sha256>();
    }
}
