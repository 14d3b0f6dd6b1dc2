//! What the time of an attempt was spent on.

use std::time::Duration;

/// How long the parts of an attempt took. What did not happen, or did not end, is missing: over a connection that was
/// there, a request needs neither of the first three.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Until the name was looked up.
    pub dns: Option<Duration>,
    /// From there until there was a TCP connection.
    pub connect: Option<Duration>,
    /// From there until there was a TLS session.
    pub tls: Option<Duration>,
    /// From the hand-over of the request until the head of the answer was there.
    pub first_byte: Option<Duration>,
    /// From there until its body had ended, or enough of it was read.
    pub body: Option<Duration>,
}
