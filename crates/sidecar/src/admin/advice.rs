//! What a customer can do about the outcome of a test: one sentence. A pure function of the outcome.

use aquarium_delivery::{Failure, FailureKind, Outcome, Phases};

/// The part of an attempt that failed.
pub(super) fn phase(kind: FailureKind, phases: &Phases) -> Option<&'static str> {
    match kind {
        FailureKind::Dns => Some("dns"),
        FailureKind::Blocked | FailureKind::Connect | FailureKind::Proxy => Some("connect"),
        FailureKind::Tls => Some("tls"),
        FailureKind::ConnectTimeout if phases.dns.is_none() => Some("dns"),
        FailureKind::ConnectTimeout if phases.connect.is_none() => Some("connect"),
        FailureKind::ConnectTimeout => Some("tls"),
        FailureKind::BodyTimeout => Some("body"),
        FailureKind::ResponseTimeout => Some("first_byte"),
        FailureKind::Protocol if phases.first_byte.is_some() => Some("body"),
        FailureKind::Protocol => Some("first_byte"),
        FailureKind::Request => None,
    }
}

/// What to do about it.
pub(super) fn advice(outcome: &Outcome, phases: &Phases) -> String {
    match outcome {
        Outcome::Answered { status, .. } => of_status(*status),
        Outcome::Failed(failure) => of_failure(failure, phases),
    }
}

fn of_status(status: u16) -> String {
    let text = match status {
        200..=299 => "The endpoint took the event: nothing is to be done.",
        300..=399 => {
            "The endpoint redirects, and redirects are not followed: configure the URL that it leads to."
        }
        400 | 422 => "The endpoint does not accept the event: its answer may say what it expects.",
        401 | 403 => {
            "The endpoint does not accept the sender: check that it knows the organization's secret, and which \
             headers it wants."
        }
        404 => "There is nothing at this URL: check its path.",
        405 => "The endpoint takes no POST at this URL: check its path.",
        408 | 504 => {
            "The endpoint, or what is in front of it, took too long: answer first, and work afterwards."
        }
        410 => {
            "The endpoint says that it is gone for good: an event answered so suspends the webhook; change its URL, \
             or remove it."
        }
        411 | 413 => "The endpoint does not accept a body of this size: raise its limit.",
        415 => "The endpoint does not accept application/json: let it.",
        421 => "The server does not serve this host name: check the URL, and the server's configuration.",
        429 => "The endpoint gets more than it wants: give the webhook a rate_limit.",
        503 => "The endpoint is not available now: see whether it runs, and what is in front of it.",
        500..=599 => "The endpoint failed: its log should say why.",
        _ => "The endpoint answered with a status that means no success: answer with 200 or 204.",
    };
    text.to_owned()
}

fn of_failure(failure: &Failure, phases: &Phases) -> String {
    let text = match failure.kind {
        FailureKind::Dns => "The host name cannot be looked up: check how it is spelt, and its DNS records.",
        FailureKind::Blocked => {
            "The host name leads to an address that requests may not go to: use a public one, or have the operator \
             add its network to egress.allow."
        }
        FailureKind::Connect => {
            "Nothing listens there, or a firewall refuses: check host and port, and that the server runs."
        }
        FailureKind::Proxy => {
            "The operator's proxy (egress.proxy) cannot be reached, or refuses this endpoint."
        }
        // The certificate's problem, with its names and dates, is the reason.
        FailureKind::Tls => {
            return format!("The TLS session did not come about; fix this: {}.", failure.detail);
        }
        FailureKind::ConnectTimeout => match phase(failure.kind, phases) {
            Some("dns") => "Looking up the host name took too long: check its DNS servers.",
            Some("tls") => "The TLS handshake took too long: see whether the server is overloaded.",
            _ => {
                "The server could not be reached in time: check host and port, and that no firewall drops packets."
            }
        },
        FailureKind::ResponseTimeout => {
            "The endpoint took the request and did not answer in time: answer first and work afterwards, or raise \
             the webhook's timeout."
        }
        FailureKind::BodyTimeout => {
            "The endpoint began to answer and did not end in time: send a short body, or none."
        }
        FailureKind::Protocol => {
            "The connection broke, or what came was not HTTP: check that the URL's scheme and port belong together."
        }
        FailureKind::Request => "The request could not be made: check the webhook's URL, headers and secret.",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed(Failure::new(kind, "it expired on 2026-01-01"))
    }

    #[test]
    fn each_status_has_its_advice() {
        for (status, part) in [
            (204, "nothing is to be done"),
            (301, "redirects are not followed"),
            (401, "secret"),
            (403, "secret"),
            (404, "check its path"),
            (410, "gone for good"),
            (429, "rate_limit"),
            (500, "its log"),
            (503, "not available now"),
            (418, "200 or 204"),
        ] {
            let advice = advice(&Outcome::Answered { status, retry_after: None }, &Phases::default());
            assert!(advice.contains(part), "{status}: {advice}");
        }
    }

    #[test]
    fn each_failure_has_its_phase_and_its_advice() {
        let took = Some(Duration::from_millis(1));
        let none = Phases::default();
        let looked_up = Phases { dns: took, ..none };
        let connected = Phases { connect: took, ..looked_up };
        let answering = Phases { first_byte: took, ..connected };
        for (kind, phases, where_, part) in [
            (FailureKind::Dns, none, Some("dns"), "DNS records"),
            (FailureKind::Blocked, looked_up, Some("connect"), "egress.allow"),
            (FailureKind::Connect, looked_up, Some("connect"), "host and port"),
            (FailureKind::Proxy, looked_up, Some("connect"), "egress.proxy"),
            (FailureKind::Tls, connected, Some("tls"), "it expired on 2026-01-01"),
            (FailureKind::ConnectTimeout, none, Some("dns"), "DNS servers"),
            (FailureKind::ConnectTimeout, looked_up, Some("connect"), "firewall"),
            (FailureKind::ConnectTimeout, connected, Some("tls"), "handshake"),
            (FailureKind::ResponseTimeout, connected, Some("first_byte"), "answer first"),
            (FailureKind::BodyTimeout, answering, Some("body"), "short body"),
            (FailureKind::Protocol, connected, Some("first_byte"), "not HTTP"),
            (FailureKind::Protocol, answering, Some("body"), "not HTTP"),
            (FailureKind::Request, none, None, "headers and secret"),
        ] {
            assert_eq!(phase(kind, &phases), where_, "{kind}");
            let advice = advice(&failed(kind), &phases);
            assert!(advice.contains(part), "{kind}: {advice}");
            assert_eq!(advice.matches(". ").count(), 0, "one sentence: {advice}");
        }
    }
}
