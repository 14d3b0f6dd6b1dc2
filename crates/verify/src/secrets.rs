//! The secrets that are accepted, as digests.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::first::First;
use crate::load::{self, At, Entry, LoadError, Misplaced};

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
    /// to 0x7e), or `sha256:` and 64 hexadecimal digits. What is [no secret at all](Mistake) is refused.
    pub fn new<I>(secrets: I) -> Result<Secrets, InvalidSecret>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::collect(
            secrets
                .into_iter()
                .enumerate()
                .map(|(index, secret)| accepted(At::Index(index), secret.as_ref(), None)),
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
            secrets.map(|(index, (label, secret))| {
                accepted(At::Index(index), secret.as_ref(), Some(label.into()))
            }),
        )
    }

    /// The secrets in the text of a file: one a line, which may have a label in front of it, and spaces around both. A
    /// label has 1 to 15 visible ASCII characters: fewer than a secret, so that no secret is ever taken for a label.
    /// Empty lines are passed over, and comments: lines of which the first character is `#`. What looks commented out in
    /// another way (`//`, `;`, `--`) is refused.
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
    /// As those of [`Secrets::new`]; or a line is [`Misplaced`](crate::Misplaced).
    pub fn parse(text: &str) -> Result<Secrets, InvalidSecret> {
        Self::entries(load::lines(text))
    }

    /// The secrets in an environment variable: one or several, divided by spaces, commas or line breaks. They have no
    /// labels, and there are no comments.
    ///
    /// # Errors
    /// The variable is not set or is not text; or as those of [`Secrets::new`].
    pub fn from_env(name: &str) -> Result<Secrets, LoadError> {
        load::from_env(name, Self::parse_variable)
    }

    fn parse_variable(text: &str) -> Result<Secrets, InvalidSecret> {
        Self::entries(load::words(text))
    }

    /// The secrets in a file of at most 64 KiB, as [`Secrets::parse`] reads them.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 text, is too large, or [`Secrets::parse`] refuses it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Secrets, LoadError> {
        load::from_file(path.as_ref(), Self::parse)
    }

    fn entries<'t>(
        entries: impl Iterator<Item = Result<Entry<'t>, (At, Misplaced)>>,
    ) -> Result<Secrets, InvalidSecret> {
        Self::collect(entries.map(|entry| {
            let Entry { at, label, value } =
                entry.map_err(|(at, why)| InvalidSecret::Misplaced { at, why })?;
            accepted(at, value, label.map(Into::into))
        }))
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

fn accepted(at: At, secret: &str, label: Option<Arc<str>>) -> Result<Accepted, InvalidSecret> {
    let digest = match secret.strip_prefix(HASHED) {
        Some(hex) => unhex(hex).ok_or(InvalidSecret::Hash { at })?,
        None => {
            check(at, secret)?;
            digest(secret.as_bytes())
        }
    };
    Ok(Accepted { digest: Zeroizing::new(digest), label })
}

fn check(at: At, secret: &str) -> Result<(), InvalidSecret> {
    if let Some(what) = Mistake::of(secret) {
        Err(InvalidSecret::Mistake { at, what })
    } else if let Some(position) = secret.chars().position(|c| !c.is_ascii_graphic()) {
        Err(InvalidSecret::Character { at, position: position + 1 })
    } else if secret.len() < Secrets::MIN {
        Err(InvalidSecret::TooShort { at, length: secret.len() })
    } else if secret.len() > Secrets::MAX {
        Err(InvalidSecret::TooLong { at, length: secret.len() })
    } else {
        Ok(())
    }
}

/// `$NAME` and `%NAME%`, as a shell would replace them.
fn is_variable(secret: &str) -> bool {
    let percent = secret.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
    percent.or_else(|| secret.strip_prefix('$')).is_some_and(|name| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

/// `NAME=value`. The padding at the end of base64 is no value.
fn is_assignment(secret: &str) -> bool {
    let Some((name, value)) = secret.split_once('=') else { return false };
    let name = name.strip_prefix("export").map_or(name, str::trim_start);
    let identifier = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(identifier)
        && !value.trim_matches('=').is_empty()
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
    #[error("the secret {at} has {length} characters, which is too few; accepted: {} or more", Secrets::MIN)]
    TooShort {
        /// Which secret.
        at: At,
        /// How many characters it has.
        length: usize,
    },
    /// A secret is longer than [`Secrets::MAX`].
    #[error("the secret {at} has {length} characters, which is too many; accepted: up to {}", Secrets::MAX)]
    TooLong {
        /// Which secret.
        at: At,
        /// How many characters it has.
        length: usize,
    },
    /// A secret holds a character that a header does not carry.
    #[error("the secret {at} has a character that is not visible ASCII, as its character {position}")]
    Character {
        /// Which secret.
        at: At,
        /// Which character of it, from 1.
        position: usize,
    },
    /// A secret begins with `sha256:`, and what follows is not a SHA-256.
    #[error("the secret {at} begins with \"sha256:\"; accepted after it: 64 hexadecimal digits")]
    Hash {
        /// Which secret.
        at: At,
    },
    /// What was given is not a secret, but something that is easily put in its place. No call would carry it.
    #[error("the secret {at} is {what}")]
    Mistake {
        /// Which secret.
        at: At,
        /// What it looks like.
        what: Mistake,
    },
    /// A secret is not written as one is in a file or a variable.
    #[error("the secret {at} {why}")]
    Misplaced {
        /// Which secret.
        at: At,
        /// What is wrong.
        why: Misplaced,
    },
}

/// What was given in place of a secret. One that really looks like this can be given by its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// `whsec_…`: signatures are checked with it.
    #[error("a signing key (whsec_); accepted: the secret that X-Aquarium-Secret carries")]
    SigningKey,
    /// `SHA256:…`, `sha256=…`, `sha-256:…`.
    #[error(
        "a hash that is not written as one; accepted: \"sha256:\" in lower case and 64 hexadecimal digits"
    )]
    Hash,
    /// `"…"`, `'…'` or `` `…` ``.
    #[error("in quotes; accepted: the secret without them")]
    Quoted,
    /// `${NAME}`, `$(…)`, `{{…}}`, `$NAME` or `%NAME%`.
    #[error("a placeholder that was not replaced; accepted: the secret")]
    Placeholder,
    /// `NAME=value`.
    #[error("an assignment, NAME=value; accepted: the value alone")]
    Assignment,
}

impl Mistake {
    /// What a text is instead of a secret, if it looks like something else.
    pub fn of(secret: &str) -> Option<Mistake> {
        let enclosed = |open: &str, close: &str| {
            secret.len() >= open.len() + close.len() && secret.starts_with(open) && secret.ends_with(close)
        };
        let hash = secret.get(..6).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sha256"))
            || secret.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sha-256"));
        if secret.starts_with("whsec_") {
            Some(Mistake::SigningKey)
        } else if hash && secret[6..].contains([':', '=', '-']) {
            Some(Mistake::Hash)
        } else if ["\"", "'", "`"].into_iter().any(|quote| enclosed(quote, quote)) {
            Some(Mistake::Quoted)
        } else if enclosed("${", "}") || enclosed("$(", ")") || enclosed("{{", "}}") || is_variable(secret) {
            Some(Mistake::Placeholder)
        } else if is_assignment(secret) {
            Some(Mistake::Assignment)
        } else {
            None
        }
    }
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
            (&[""], Some(InvalidSecret::TooShort { at: At::Index(0), length: 0 })),
            (&[good, "0123456789abcde"], Some(InvalidSecret::TooShort { at: At::Index(1), length: 15 })),
            (&[&longer], Some(InvalidSecret::TooLong { at: At::Index(0), length: 1025 })),
            (&["0123456789abcdef\n"], Some(InvalidSecret::Character { at: At::Index(0), position: 17 })),
            (&["0123456789 abcdef"], Some(InvalidSecret::Character { at: At::Index(0), position: 11 })),
            (&["0123456789abcdef\u{7f}"], Some(InvalidSecret::Character { at: At::Index(0), position: 17 })),
            (&["schlüssel-schlüssel"], Some(InvalidSecret::Character { at: At::Index(0), position: 5 })),
            (&[good, &hash[..70]], Some(InvalidSecret::Hash { at: At::Index(1) })),
            (&[&format!("{hash}0")], Some(InvalidSecret::Hash { at: At::Index(0) })),
            (&[&hash.replace('F', "+")], Some(InvalidSecret::Hash { at: At::Index(0) })),
            (&[&hash.replace("aF", "é")], Some(InvalidSecret::Hash { at: At::Index(0) })),
            (&["sha256:correct-horse-battery-staple"], Some(InvalidSecret::Hash { at: At::Index(0) })),
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
    fn what_stands_in_place_of_a_secret_is_refused_at_the_start_and_not_shown() {
        use Mistake::*;
        let hex = "0123456789abcdef".repeat(4);
        let table = [
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SigningKey),
            (&format!("SHA256:{hex}"), Hash),
            (&format!("Sha256:{hex}"), Hash),
            (&format!("sha256={hex}"), Hash),
            (&format!("sha256-{hex}"), Hash),
            (&format!("SHA-256:{hex}"), Hash),
            ("\"correct-horse-battery-staple\"", Quoted),
            ("'correct-horse-battery-staple'", Quoted),
            ("`correct-horse-battery-staple`", Quoted),
            ("${AQUARIUM_SECRET}", Placeholder),
            ("${AQUARIUM_SECRET:-}", Placeholder),
            ("$(cat /run/secrets/aquarium)", Placeholder),
            ("{{ .Values.secret }}", Placeholder),
            ("$AQUARIUM_SECRET", Placeholder),
            ("%AQUARIUM_SECRET%", Placeholder),
            ("AQUARIUM_SECRET=correct-horse-battery-staple", Assignment),
            ("export AQUARIUM_SECRET=correct-horse-battery-staple", Assignment),
            ("secret=correct-horse-battery-staple", Assignment),
        ];
        for (given, what) in table {
            let refused = Secrets::new([given]).unwrap_err();
            assert_eq!(refused, InvalidSecret::Mistake { at: At::Index(0), what }, "{given}");
            if !given.contains(' ') {
                let at = At::Line(2);
                assert_eq!(
                    Secrets::parse(&format!("\n{given}")).unwrap_err(),
                    InvalidSecret::Mistake { at, what },
                    "{given}"
                );
                let refused = Secrets::parse_variable(given).unwrap_err();
                assert_eq!(refused, InvalidSecret::Mistake { at: At::Word(1), what }, "{given}");
                assert!(!refused.to_string().contains("horse") && !refused.to_string().contains("0123"));
            }
        }
        // Secrets that only begin or end like one of these.
        for given in [
            "0123456789abcdefghij==",
            "sha256isnotahashhere",
            "$ecret-horse-battery",
            "it's-a-horse-battery",
            "1=correct-horse-battery",
            "correct-horse=battery",
        ] {
            assert!(Secrets::new([given]).is_ok(), "{given}");
        }
    }

    #[test]
    fn what_was_commented_out_is_no_longer_accepted_and_no_secret_becomes_a_label() {
        const A: &str = "correct-horse-battery-staple";
        const B: &str = "another-horse-another-battery";
        let accepts = |secrets: &Secrets, presented: &str| secrets.find(presented.as_bytes());
        for mark in ["#", "# ", "##", "  #"] {
            let secrets = Secrets::parse(&format!("new {A}\n{mark}old {B}\n{mark}{B}")).unwrap();
            assert_eq!(accepts(&secrets, A), Some((0, Some("new".into()))), "{mark}");
            for presented in [B.to_owned(), format!("{mark}{B}"), format!("#{B}")] {
                assert_eq!(accepts(&secrets, &presented), None, "{mark}: {presented}");
            }
        }
        for text in [format!("{A} {B}"), format!("{A}, {B}"), format!("{A}\r{B}"), format!("{A}\n{B}\n")] {
            let secrets = Secrets::parse_variable(&text).unwrap();
            assert_eq!(accepts(&secrets, A), Some((0, None)), "{text:?}");
            assert_eq!(accepts(&secrets, B), Some((1, None)), "{text:?}");
        }
        let refused = Secrets::parse(&format!("{A} {B}")).unwrap_err().to_string();
        assert!(refused.starts_with("the secret in line 1 has a label of 28 characters; "), "{refused}");
        assert!(!refused.contains("horse"));
        assert_eq!(Secrets::parse(" \n# nothing\n").unwrap_err(), InvalidSecret::NoSecret);
        assert_eq!(Secrets::parse_variable(" , ").unwrap_err(), InvalidSecret::NoSecret);
    }

    #[test]
    fn what_cannot_be_read_says_where_it_is() {
        let missing = Secrets::from_env("AQUARIUM_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(missing.to_string(), "environment variable AQUARIUM_NO_SUCH_VARIABLE: it is not set");
        let missing = Secrets::from_file("/no/such/file").unwrap_err().to_string();
        assert!(missing.starts_with("/no/such/file: "), "{missing}");
    }
}
