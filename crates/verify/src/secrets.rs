//! The secrets that are accepted, as digests.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// One or several secrets, each of which is accepted. Cheap to clone.
///
/// Only SHA-256 digests of them are kept. Two digests have the same length, so comparing them tells nothing about the
/// length of a secret, and a copy of the memory does not hold what could be presented as one.
///
/// ```
/// use aquarium_verify::Secrets;
///
/// let secrets = Secrets::new(["correct-horse-battery-staple"]).unwrap();
/// assert_eq!(format!("{secrets:?}"), "Secrets(..)");
/// assert!(Secrets::new(["too short"]).is_err());
/// ```
#[derive(Clone)]
pub struct Secrets(Arc<[[u8; 32]]>);

impl Secrets {
    /// The fewest characters of a secret: less can be guessed.
    pub const MIN: usize = 16;
    /// The most characters of a secret: it travels in a header.
    pub const MAX: usize = 1024;

    /// The accepted secrets; one that is used no more can stand behind the one that replaces it.
    ///
    /// They are taken as they are. A secret that was read from a file often has a line break at its end, which never
    /// arrives in a header: it is refused here.
    ///
    /// # Errors
    /// There must be at least one, and each must be [`Secrets::MIN`] to [`Secrets::MAX`] visible ASCII characters (0x21
    /// to 0x7e).
    pub fn new<I>(secrets: I) -> Result<Secrets, InvalidSecret>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let digests = secrets
            .into_iter()
            .enumerate()
            .map(|(index, secret)| {
                let secret = secret.as_ref();
                check(index, secret).map(|()| digest(secret.as_bytes()))
            })
            .collect::<Result<Arc<_>, _>>()?;
        if digests.is_empty() { Err(InvalidSecret::NoSecret) } else { Ok(Secrets(digests)) }
    }

    /// Which of the secrets was presented; the first one, if several are equal.
    ///
    /// Every secret is compared to its end, whether or not one before it matched.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<usize> {
        let presented = digest(presented);
        let (mut found, mut index) = (Choice::from(0), 0_u64);
        for (at, secret) in (0_u64..).zip(self.0.iter()) {
            let equal = secret.ct_eq(&presented);
            index.conditional_assign(&at, equal & !found);
            found |= equal;
        }
        // It is less than the length of a slice.
        bool::from(found).then_some(index as usize)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_could_be_guessed_or_never_arrives_is_refused() {
        let at_most = "s".repeat(Secrets::MAX);
        let longer = "s".repeat(Secrets::MAX + 1);
        let good = "0123456789abcdef";
        let table: &[(&[&str], Option<InvalidSecret>)] = &[
            (&[good], None),
            (&["!~!~!~!~!~!~!~!~"], None),
            (&[&at_most], None),
            (&[good, good], None),
            (&[], Some(InvalidSecret::NoSecret)),
            (&[""], Some(InvalidSecret::TooShort { index: 0, length: 0 })),
            (&[good, "0123456789abcde"], Some(InvalidSecret::TooShort { index: 1, length: 15 })),
            (&[&longer], Some(InvalidSecret::TooLong { index: 0, length: 1025 })),
            (&["0123456789abcdef\n"], Some(InvalidSecret::Character { index: 0, position: 17 })),
            (&["0123456789 abcdef"], Some(InvalidSecret::Character { index: 0, position: 11 })),
            (&["0123456789abcdef\u{7f}"], Some(InvalidSecret::Character { index: 0, position: 17 })),
            (&["schlüssel-schlüssel"], Some(InvalidSecret::Character { index: 0, position: 5 })),
        ];
        for (secrets, expected) in table {
            assert_eq!(Secrets::new(*secrets).err(), *expected, "{secrets:?}");
        }
    }
}
