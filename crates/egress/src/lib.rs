//! The only way out.
//!
//! [`Egress`] makes one request and says what it came to. It promises that an attempt ends by its deadline, that no
//! more of an answer is read than [`MAX_RESPONSE_BODY`], that no redirect is followed, that a connection goes only to an
//! address that the [`Guard`] let pass, and that a request which was withdrawn is not handed to a connection. It knows
//! nothing of queues, retries or configuration files.

mod answer;
mod attempt;
mod connect;
mod endpoint;
mod failure;
mod guard;
mod http1;
mod http2;
mod pool;
mod request;
mod resolve;
mod send;
mod signature;
mod tls;
mod transport;

pub use connect::{InvalidProxy, Proxy};
pub use endpoint::{Endpoint, InvalidEndpoint, USER_AGENT};
pub use guard::{BAD_PORTS, Blocked, Guard};
pub use pool::MAX_KEPT;
pub use request::Message;
pub use resolve::{Resolve, Resolving, Unresolved};
pub use send::{Egress, MAX_EXCERPT, MAX_RESPONSE_BODY, Options, Sent};
pub use signature::SigningKey;
pub use tls::{ClientCertificate, Roots, Tls, TlsError, client_config};

/// What is private otherwise, for the fuzz targets. No part of the API.
#[doc(hidden)]
pub mod fuzzing {
    /// What is shown of a certificate; none, if it cannot be read.
    pub fn certificate_summary(der: &[u8]) -> Option<String> {
        crate::tls::certificate_summary(der).map(|summary| summary.to_string())
    }
}

/// The most that an answer's head may take, in bytes.
pub(crate) const MAX_RESPONSE_HEAD: usize = 64 * 1024;
