//! From an error deep inside a library to a kind that an operator can act on.

use std::error::Error;
use std::io::{self, ErrorKind};

use aquarium_delivery::{Failure, FailureKind};
use rustls::{CertificateError, OtherError};

/// Names what went wrong on a connection.
pub(crate) fn classify(error: &(dyn Error + 'static)) -> Failure {
    let chain = chain(error);
    match chain.iter().find_map(|error| error.downcast_ref::<rustls::Error>()) {
        Some(error) => Failure::new(FailureKind::Tls, tls(error)),
        None => {
            let detail = innermost(&chain);
            // HTTP/2 keeps of an error no more than its text.
            let alert = detail.strip_prefix("received fatal alert: ").map(alert);
            let kind = if alert.is_some() { FailureKind::Tls } else { FailureKind::Protocol };
            Failure::new(kind, alert.unwrap_or(detail))
        }
    }
}

fn tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string(),
        rustls::Error::AlertReceived(found) => alert(&format!("{found:?}")),
        error => error.to_string(),
    }
}

/// What the other side said when it ended the TLS session (RFC 8446, section 6.2).
fn alert(name: &str) -> String {
    let hint = match name {
        "CertificateRequired" => {
            ": it requires a client certificate (tls.certificate and tls.key of the webhook)"
        }
        "UnknownCA" | "BadCertificate" | "CertificateExpired" | "CertificateUnknown" | "AccessDenied" => {
            ": it does not accept the client certificate (tls.certificate of the webhook)"
        }
        _ => "",
    };
    format!("the endpoint ended the TLS session with the alert {name}{hint}")
}

/// What was allowed for this has passed, and there is still no `what`.
pub(crate) fn timed_out(kind: FailureKind, what: &str) -> Failure {
    Failure::new(kind, format_args!("{what} within the time allowed"))
}

/// Whether the connection ended, as opposed to what came over it being wrong.
pub(crate) fn broken_off(error: &hyper::Error) -> bool {
    let broken = |error: &io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected
                | ErrorKind::UnexpectedEof
        )
    };
    error.is_incomplete_message()
        || error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(broken)
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
        let failure = classify(&error);
        assert_eq!(failure.kind, FailureKind::Tls);
        assert!(failure.detail.contains("Expired"), "{failure}");
    }

    #[test]
    fn anything_else_is_told_by_its_innermost_cause() {
        let error = io::Error::other(io::Error::from(ErrorKind::ConnectionReset));
        let failure = classify(&error);
        assert_eq!((failure.kind, &*failure.detail), (FailureKind::Protocol, "connection reset"));
    }
}
