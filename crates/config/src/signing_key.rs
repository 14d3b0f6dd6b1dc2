//! The key that an organization's requests are signed with.

use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::Secret;
use crate::document::Value;
use crate::findings::Problem;
use crate::reader::Scope;
use crate::secret::referred;

/// A symmetric key of [Standard Webhooks], written as `whsec_` and base64 (RFC 4648, section 4).
///
/// It can be compared, to find out whether it was replaced, and read with [`SigningKey::expose`]. It has no text form,
/// its [`Debug`](fmt::Debug) form tells nothing, and its memory is wiped when it is dropped.
///
/// ```
/// use aquarium_config::SigningKey;
///
/// let key = SigningKey::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
/// assert_eq!(key.expose().len(), 24);
/// assert_eq!(format!("{key:?}"), "SigningKey(..)");
/// assert!(SigningKey::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_err());
/// ```
///
/// [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
// Equality stops at the first difference, as that of `Secret` does, and for the same reason may.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// What the text of a key starts with.
    pub const PREFIX: &str = "whsec_";
    /// The fewest bytes of a key, as Standard Webhooks has it.
    pub const MIN: usize = 24;
    /// The most bytes of a key, as Standard Webhooks has it.
    pub const MAX: usize = 64;

    /// The key that is written as `text`.
    ///
    /// # Errors
    /// It must be [`SigningKey::PREFIX`], and then [`SigningKey::MIN`] to [`SigningKey::MAX`] bytes in base64 with
    /// padding.
    pub fn new(text: &str) -> Result<SigningKey, InvalidSigningKey> {
        if text.is_empty() {
            return Err(InvalidSigningKey::Empty);
        }
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(InvalidSigningKey::Prefix)?;
        let symbol = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        if let Some(at) = encoded.trim_end_matches('=').chars().position(|c| !symbol(c)) {
            return Err(InvalidSigningKey::Character { position: Self::PREFIX.len() + at + 1 });
        }
        let bytes = decoded(encoded).ok_or(InvalidSigningKey::Encoding)?;
        match bytes.len() {
            length if length < Self::MIN => Err(InvalidSigningKey::TooShort { length }),
            length if length > Self::MAX => Err(InvalidSigningKey::TooLong { length }),
            _ => Ok(SigningKey(bytes)),
        }
    }

    /// The key in clear. Keep it out of logs, errors and answers.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes, of which nothing is left behind if there are none.
fn decoded(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    let room = BASE64.decode_len(encoded.len()).ok()?;
    let mut bytes = Zeroizing::new(vec![0; room]);
    let length = BASE64.decode_mut(encoded.as_bytes(), &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Why a text cannot be a signing key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningKey {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It does not start with [`SigningKey::PREFIX`].
    #[error("it does not start with \"{}\"", SigningKey::PREFIX)]
    Prefix,
    /// It holds a character that is not base64.
    #[error("its character {position} is not base64 (RFC 4648, section 4: letters, digits, \"+\" and \"/\")")]
    Character {
        /// Which character of the whole text, from 1.
        position: usize,
    },
    /// Its base64 does not end as it should.
    #[error("its base64 is cut off, or not padded with \"=\" (RFC 4648, section 4)")]
    Encoding,
    /// It is shorter than [`SigningKey::MIN`].
    #[error("it has {length} bytes, which is too few; accepted: {} to {}", SigningKey::MIN, SigningKey::MAX)]
    TooShort {
        /// How many bytes it has.
        length: usize,
    },
    /// It is longer than [`SigningKey::MAX`].
    #[error("it has {length} bytes, which is too many; accepted: {} to {}", SigningKey::MIN, SigningKey::MAX)]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
}

/// The signing key that a value refers to. `secret` is what the same organization sends in clear.
pub(crate) fn signing_key(
    value: Value<'_, '_>,
    secret: Option<&Secret>,
    scope: Scope<'_>,
) -> Option<SigningKey> {
    let findings = value.findings;
    let referred = referred(value, scope)?;
    let wrong = match SigningKey::new(&referred.text) {
        Ok(_) if secret.is_some_and(|secret| is_same(secret.expose(), &referred.text)) => {
            "is the secret too, which every request carries: whoever gets one could sign".to_owned()
        }
        Ok(key) => return Some(key),
        Err(error) => format!("holds no usable signing key: {error}"),
    };
    findings.add(Problem::error(referred.span, format!("{} {wrong}", referred.origin)));
    None
}

/// Whether a secret gives a key away.
fn is_same(secret: &str, key: &str) -> bool {
    secret.strip_prefix(SigningKey::PREFIX).unwrap_or(secret) == &key[SigningKey::PREFIX.len()..]
}
