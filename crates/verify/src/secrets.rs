//! The secrets that are accepted, as digests.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::first::First;
use crate::load::{self, LoadError};

/// What begins a secret that is given as its SHA-256.
const HASHED: &str = "sha256:";

/// One or several secrets, each of which is accepted. Cheap to clone.
///
/// A secret is given as it is, or as `sha256:` and the 64 hexadecimal digits of its SHA-256, so that a service need not
/// hold the plain text: `printf %s "$SECRET" | sha256sum`.
///
/// Only digests of them are kept, and wiped when the last clone is dropped. Two digests have the same length, so
/// comparing them tells nothing about the length of a secret, and a copy of the memory does not hold what could be
/// presented as one.
///
/// ```
/// use aquarium_verify::Secrets;
///
/// let secrets = Secrets::new(["correct-horse-battery-staple"]).unwrap();
/// assert_eq!(format!("{secrets:?}"), "Secrets(1)");
/// assert!(Secrets::new(["too short"]).is_err());
///
/// // While a secret is being replaced: the new one, and the old one by its hash.
/// Secrets::labelled([
///     ("2026-11", "another-horse-another-battery"),
///     ("2025-03", "sha256:cbe6beb26479b568e5f15b50217c6c83c0ee051dc4e522b9840d8e291d6aaf46"),
/// ]).unwrap();
/// ```
#[derive(Clone)]
pub struct Secrets(Arc<[Accepted]>);

struct Accepted {
    digest: Zeroizing<[u8; 32]>,
    label: Option<Arc<str>>,
}

impl Secrets {
    /// The fewest characters of a secret: less can be guessed.
    pub const MIN: usize = 16;
    /// The most characters of a secret: it travels in a header.
    pub const MAX: usize = 1024;

    /// The accepted secrets; one that is used no more can stand behind the one that replaces it.
    ///
    /// They are taken as they are. A secret that was read from a file often has a line break at its end, which never
    /// arrives in a header: it is refused here. [`Secrets::parse`] takes texts that were read.
    ///
    /// # Errors
    /// There must be at least one, and each must be [`Secrets::MIN`] to [`Secrets::MAX`] visible ASCII characters (0x21
    /// to 0x7e), or `sha256:` and 64 hexadecimal digits.
    pub fn new<I>(secrets: I) -> Result<Secrets, InvalidSecret>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::collect(
            secrets.into_iter().enumerate().map(|(index, secret)| accepted(index, secret.as_ref(), None)),
        )
    }

    /// The same, with a label for each, by which [`Verified`](crate::Verified) tells which one was used.
    ///
    /// # Errors
    /// As those of [`Secrets::new`].
    pub fn labelled<L, S>(secrets: impl IntoIterator<Item = (L, S)>) -> Result<Secrets, InvalidSecret>
    where
        L: Into<Arc<str>>,
        S: AsRef<str>,
    {
        let secrets = secrets.into_iter().enumerate();
        Self::collect(
            secrets.map(|(index, (label, secret))| accepted(index, secret.as_ref(), Some(label.into()))),
        )
    }

    /// The secrets in a text: one a line, which may have a label and spaces in front of it. Empty lines, and those that
    /// begin with `# `, are passed over.
    ///
    /// ```
    /// # use aquarium_verify::Secrets;
    /// let secrets = Secrets::parse("
    ///     new  correct-horse-battery-staple
    ///     old  sha256:cbe6beb26479b568e5f15b50217c6c83c0ee051dc4e522b9840d8e291d6aaf46
    /// ").unwrap();
    /// assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    /// ```
    ///
    /// # Errors
    /// As those of [`Secrets::new`]; or a line has more than a label and a secret.
    pub fn parse(text: &str) -> Result<Secrets, InvalidSecret> {
        Self::collect(load::lines(text).enumerate().map(|(index, line)| {
            let (label, secret) = line.ok_or(InvalidSecret::Words { index })?;
            accepted(index, secret, label.map(Into::into))
        }))
    }

    /// The secrets in an environment variable, as [`Secrets::parse`] reads them.
    ///
    /// # Errors
    /// The variable is not set, is not text, or [`Secrets::parse`] refuses it.
    pub fn from_env(name: &str) -> Result<Secrets, LoadError> {
        load::from_env(name, Self::parse)
    }

    /// The secrets in a file of at most 64 KiB, as [`Secrets::parse`] reads them.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 text, is too large, or [`Secrets::parse`] refuses it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Secrets, LoadError> {
        load::from_file(path.as_ref(), Self::parse)
    }

    fn collect(
        secrets: impl Iterator<Item = Result<Accepted, InvalidSecret>>,
    ) -> Result<Secrets, InvalidSecret> {
        let secrets: Arc<[Accepted]> = secrets.collect::<Result<_, _>>()?;
        if secrets.is_empty() { Err(InvalidSecret::NoSecret) } else { Ok(Secrets(secrets)) }
    }

    /// Which of the secrets was presented; the first one, if several are equal.
    ///
    /// Every secret is compared to its end, whether or not one before it matched.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<(usize, Option<Arc<str>>)> {
        // It cannot be one of them. The limit is no secret, and hashing what is sent for ever would cost time.
        if presented.len() > Self::MAX {
            return None;
        }
        let presented = digest(presented);
        let mut first = First::new();
        for (index, secret) in (0..).zip(self.0.iter()) {
            first.tell(index, secret.digest.ct_eq(&presented));
        }
        let (found, index) = first.get();
        // Taken whether or not it was found, so that the way to either answer is the same.
        let label = self.0[index].label.clone();
        found.then_some((index, label))
    }
}

impl fmt::Debug for Secrets {
    /// How many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

fn accepted(index: usize, secret: &str, label: Option<Arc<str>>) -> Result<Accepted, InvalidSecret> {
    let digest = match secret.strip_prefix(HASHED) {
        Some(hex) => unhex(hex).ok_or(InvalidSecret::Hash { index })?,
        None => {
            check(index, secret)?;
            digest(secret.as_bytes())
        }
    };
    Ok(Accepted { digest: Zeroizing::new(digest), label })
}

fn check(index: usize, secret: &str) -> Result<(), InvalidSecret> {
    if let Some(at) = secret.chars().position(|c| !c.is_ascii_graphic()) {
        Err(InvalidSecret::Character { index, position: at + 1 })
    } else if secret.len() < Secrets::MIN {
        Err(InvalidSecret::TooShort { index, length: secret.len() })
    } else if secret.len() > Secrets::MAX {
        Err(InvalidSecret::TooLong { index, length: secret.len() })
    } else {
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// 64 hexadecimal digits as bytes.
fn unhex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if digits.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

/// Why [`Secrets`] cannot be made of what was given. It repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecret {
    /// The list is empty: every call would be rejected.
    #[error("no secret was given")]
    NoSecret,
    /// A secret is shorter than [`Secrets::MIN`]. An empty one is what an unset variable leaves behind.
    #[error(
        "the secret at index {index} has {length} characters, which is too few; accepted: {} or more",
        Secrets::MIN
    )]
    TooShort {
        /// Which secret, from 0.
        index: usize,
        /// How many characters it has.
        length: usize,
    },
    /// A secret is longer than [`Secrets::MAX`].
    #[error(
        "the secret at index {index} has {length} characters, which is too many; accepted: up to {}",
        Secrets::MAX
    )]
    TooLong {
        /// Which secret, from 0.
        index: usize,
        /// How many characters it has.
        length: usize,
    },
    /// A secret holds a character that a header does not carry.
    #[error("the secret at index {index} has a character that is not visible ASCII, at position {position}")]
    Character {
        /// Which secret, from 0.
        index: usize,
        /// Which character of it, from 1.
        position: usize,
    },
    /// A secret begins with `sha256:`, and what follows is not a SHA-256.
    #[error("the secret at index {index} begins with \"sha256:\"; accepted after it: 64 hexadecimal digits")]
    Hash {
        /// Which secret, from 0.
        index: usize,
    },
    /// A line of a text has more than a label and a secret.
    #[error("the line of the secret at index {index} has more than two words; accepted: [label] secret")]
    Words {
        /// Which secret, from 0.
        index: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_could_be_guessed_or_never_arrives_is_refused() {
        let at_most = "s".repeat(Secrets::MAX);
        let longer = "s".repeat(Secrets::MAX + 1);
        let good = "0123456789abcdef";
        let hash = format!("sha256:{}", "0aF".repeat(22).split_at(64).0);
        let table: &[(&[&str], Option<InvalidSecret>)] = &[
            (&[good], None),
            (&["!~!~!~!~!~!~!~!~"], None),
            (&[&at_most], None),
            (&[good, good], None),
            (&[&hash], None),
            (&[], Some(InvalidSecret::NoSecret)),
            (&[""], Some(InvalidSecret::TooShort { index: 0, length: 0 })),
            (&[good, "0123456789abcde"], Some(InvalidSecret::TooShort { index: 1, length: 15 })),
            (&[&longer], Some(InvalidSecret::TooLong { index: 0, length: 1025 })),
            (&["0123456789abcdef\n"], Some(InvalidSecret::Character { index: 0, position: 17 })),
            (&["0123456789 abcdef"], Some(InvalidSecret::Character { index: 0, position: 11 })),
            (&["0123456789abcdef\u{7f}"], Some(InvalidSecret::Character { index: 0, position: 17 })),
            (&["schlüssel-schlüssel"], Some(InvalidSecret::Character { index: 0, position: 5 })),
            (&[good, &hash[..70]], Some(InvalidSecret::Hash { index: 1 })),
            (&[&format!("{hash}0")], Some(InvalidSecret::Hash { index: 0 })),
            (&[&hash.replace('F', "+")], Some(InvalidSecret::Hash { index: 0 })),
            (&[&hash.replace("aF", "é")], Some(InvalidSecret::Hash { index: 0 })),
            (&["sha256:correct-horse-battery-staple"], Some(InvalidSecret::Hash { index: 0 })),
        ];
        for (secrets, expected) in table {
            assert_eq!(Secrets::new(*secrets).err(), *expected, "{secrets:?}");
        }
    }

    #[test]
    fn a_secret_can_be_given_by_its_hash() {
        let secret = "correct-horse-battery-staple";
        let hash: String = digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
        let secrets =
            Secrets::labelled([("new", "another-horse-another-battery"), ("old", &format!("sha256:{hash}"))]);
        let secrets = secrets.unwrap();
        let found = |presented: &str| secrets.find(presented.as_bytes());
        assert_eq!(found(secret), Some((1, Some("old".into()))));
        assert_eq!(found(&hash), None, "the hash itself is no secret");
        assert_eq!(found(&format!("sha256:{hash}")), None);
    }

    #[test]
    fn a_text_has_a_secret_a_line() {
        let text = "# comment\n\nnew\t correct-horse-battery-staple\r\n  #another-horse-another-battery\n";
        let secrets = Secrets::parse(text).unwrap();
        let label = |secret: &str| secrets.find(secret.as_bytes()).unwrap().1.map(|label| label.to_string());
        assert_eq!(label("correct-horse-battery-staple").as_deref(), Some("new"));
        assert_eq!(label("#another-horse-another-battery"), None);
        assert_eq!(
            Secrets::parse("a b correct-horse-battery-staple").unwrap_err(),
            InvalidSecret::Words { index: 0 }
        );
        assert_eq!(Secrets::parse(" \n# nothing\n").unwrap_err(), InvalidSecret::NoSecret);
    }

    #[test]
    fn what_cannot_be_read_says_where_it_is() {
        let missing = Secrets::from_env("AQUARIUM_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(missing.to_string(), "environment variable AQUARIUM_NO_SUCH_VARIABLE: it is not set");
        let missing = Secrets::from_file("/no/such/file").unwrap_err().to_string();
        assert!(missing.starts_with("/no/such/file: "), "{missing}");
    }
}
