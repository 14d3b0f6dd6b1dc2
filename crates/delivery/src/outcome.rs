//! What an attempt came to.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::{Detail, Timestamp};

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with a status.
    Answered {
        /// The HTTP status code.
        status: u16,
        /// What its `Retry-After` header asked for.
        retry_after: Option<RetryAfter>,
    },
    /// There was no complete answer.
    Failed(Failure),
}

impl Outcome {
    /// True for a 2xx answer, the only success there is.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Outcome::Answered { status: 200..=299, .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Answered { status, .. } => write!(f, "status {status}"),
            Outcome::Failed(failure) => failure.fmt(f),
        }
    }
}

/// An attempt that brought no complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which step went wrong.
    pub kind: FailureKind,
    /// What went wrong, in words for an operator. Never holds a secret or a part of the payload.
    pub detail: Detail,
}

impl Failure {
    /// A failure of this kind, with what `detail` prints, cut to [`Detail::MAX`].
    pub fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: Detail::new(detail) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// The step of an attempt that failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureKind {
            $($(#[$doc])* $variant,)*
        }

        impl FailureKind {
            /// Every kind.
            pub const ALL: &[FailureKind] = &[$(FailureKind::$variant,)*];

            /// The stable name, as it is stored and printed.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(FailureKind::$variant => $code,)*
                }
            }
        }
    };
}

failure_kinds! {
    /// The host name could not be resolved.
    Dns = "dns",
    /// The address is not one that the operator allows.
    Blocked = "address-not-allowed",
    /// No TCP connection came about.
    Connect = "connect",
    /// The proxy that all requests go through could not be reached, or refused.
    Proxy = "proxy",
    /// The TLS handshake failed.
    Tls = "tls",
    /// The deadline passed before there was a connection.
    ConnectTimeout = "connect-timeout",
    /// The deadline passed while the answer's head was awaited.
    ResponseTimeout = "response-timeout",
    /// The deadline passed while the answer's body was read.
    BodyTimeout = "body-timeout",
    /// The connection broke, or what came over it was not HTTP within the limits.
    Protocol = "protocol",
    /// The request could not be made from what is configured or stored.
    Request = "request",
}

impl FailureKind {
    /// The kind of this stable name.
    pub fn parse(name: &str) -> Option<FailureKind> {
        FailureKind::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The value of a `Retry-After` header (RFC 9110, section 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So long after the answer.
    Delay(Duration),
    /// Not before this.
    Date(Timestamp),
}

impl RetryAfter {
    /// The longest wait that an endpoint can ask for; what goes beyond is cut to this.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Reads a header's value: a number of seconds, or an HTTP date in any of the three forms of RFC 9110, section
    /// 5.6.7. Anything else is no hint.
    pub fn parse(value: &[u8]) -> Option<RetryAfter> {
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit are as good as the longest wait.
            let seconds = text.parse().unwrap_or(u64::MAX);
            return Some(RetryAfter::Delay(Duration::from_secs(seconds)));
        }
        let date: SystemTime = httpdate::parse_http_date(text).ok()?;
        Some(RetryAfter::Date(date.into()))
    }

    /// The point in time that is meant, at most [`RetryAfter::LONGEST`] from `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        let at = match self {
            RetryAfter::Delay(delay) => now + delay,
            RetryAfter::Date(date) => date,
        };
        at.clamp(now, now + Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_more_than_a_day() {
        let now = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let day = RetryAfter::LONGEST;
        for (value, wait) in [
            ("120", Some(Duration::from_secs(120))),
            (" 0 ", Some(Duration::ZERO)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(Duration::from_secs(60))),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(Duration::from_secs(60))),
            ("Sun Nov  6 08:50:37 1994", Some(Duration::from_secs(60))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO)),
            ("90000", Some(day)),
            ("99999999999999999999999999", Some(day)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(day)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let found = RetryAfter::parse(value.as_bytes()).map(|hint| hint.at(now).since(now));
            assert_eq!(found, wait, "{value:?}");
        }
        assert_eq!(RetryAfter::parse(b"\xff"), None);
    }

    #[test]
    fn a_failure_kind_reads_back_from_its_name() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::parse(kind.as_str()), Some(*kind));
        }
    }
}
