//! From an error deep inside the client to a kind that an operator can act on.

use std::error::Error;
use std::io;

use aquarium_delivery::{Failure, FailureKind};

use crate::Blocked;
use crate::connect::{ConnectTimeout, ResolveError};

/// Names what went wrong. `connected` tells whether there was a connection when it did.
pub(crate) fn classify(error: &(dyn Error + 'static), connected: bool) -> Failure {
    let chain = chain(error);
    let find = |kind: FailureKind, test: fn(&(dyn Error + 'static)) -> bool| {
        let found = chain.iter().find(|error| test(**error))?;
        Some(Failure { kind, detail: found.to_string() })
    };
    find(FailureKind::Blocked, |error| error.is::<Blocked>())
        .or_else(|| find(FailureKind::Dns, |error| error.is::<ResolveError>()))
        .or_else(|| find(FailureKind::Tls, |error| error.is::<rustls::Error>()))
        .or_else(|| find(FailureKind::ConnectTimeout, |error| error.is::<ConnectTimeout>()))
        .unwrap_or_else(|| Failure {
            kind: if connected { FailureKind::Protocol } else { FailureKind::Connect },
            detail: innermost(&chain),
        })
}

/// What was allowed for this has passed, and there is still no `what`.
pub(crate) fn timed_out(kind: FailureKind, what: &str) -> Failure {
    Failure { kind, detail: format!("{what} within the time allowed") }
}

/// The innermost cause says most: "connection refused", "connection reset by peer", "invalid HTTP header".
fn innermost(chain: &[&(dyn Error + 'static)]) -> String {
    chain.last().map(ToString::to_string).unwrap_or_default()
}

/// The error and its sources. An `io::Error` hides the error that it wraps from `source`, and is opened.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    const DEEPEST: usize = 16;
    let mut chain: Vec<&'a (dyn Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if chain.len() == DEEPEST {
            break;
        }
        chain.push(error);
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_inside_nested_io_errors() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner));
        let failure = classify(&error, false);
        assert_eq!(failure.kind, FailureKind::Tls);
        assert!(failure.detail.contains("Expired"), "{failure}");
    }

    #[test]
    fn without_a_connection_it_is_the_connection_that_failed() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(classify(&error, false).kind, FailureKind::Connect);
        assert_eq!(classify(&error, true).kind, FailureKind::Protocol);
    }
}
