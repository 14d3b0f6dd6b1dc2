//! Requests that are made beforehand, and written over for each event.

use crate::ledger::Ledger;
use crate::payload::{Mark, write_digits};

/// Projects of each organization.
pub(crate) const PROJECTS_OF_ORGANIZATION: u32 = 100;
/// Digits of an organization's number.
const ORGANIZATION: usize = 3;

/// Whom events are posted to, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The sidecar, one by one.
    Single,
    /// The sidecar, so many in a batch.
    Batch(u64),
    /// A relay, which passes them on to the path that they are posted to.
    Relay,
}

impl Door {
    /// Events in each request.
    pub(crate) fn events(self) -> u64 {
        match self {
            Door::Single | Door::Relay => 1,
            Door::Batch(events) => events,
        }
    }

    /// The status of an answer that takes responsibility.
    pub(crate) fn status(self) -> u64 {
        match self {
            Door::Single | Door::Batch(_) => 202,
            Door::Relay => 204,
        }
    }
}

/// A request that is sent again and again, each time with other events.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    organization_at: Option<usize>,
    bodies: Vec<usize>,
}

impl Request {
    pub(crate) fn new(door: Door, ledger: &Ledger) -> Request {
        let event = ledger.payload().bytes();
        let (path, kind, each) = match door {
            Door::Single => ("/v1/organizations/o000/events", "application/json", event.len()),
            Door::Batch(_) => {
                ("/v1/organizations/o000/events/batch", "application/x-ndjson", event.len() + 1)
            }
            Door::Relay => ("/h/0", "application/json", event.len()),
        };
        let events = usize::try_from(door.events()).unwrap_or(1);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            each * events
        );
        let organization_at = (door != Door::Relay).then(|| "POST /v1/organizations/o".len());
        let mut bytes = head.into_bytes();
        let mut bodies = Vec::new();
        for _ in 0..events {
            bodies.push(bytes.len());
            bytes.extend_from_slice(event);
            bytes.extend_from_slice(if each > event.len() { b"\n" } else { b"" });
        }
        Request { bytes, organization_at, bodies }
    }

    /// The request for the events from `first` on, which are of one organization.
    pub(crate) fn with(&mut self, first: u64, ledger: &Ledger) -> &[u8] {
        if let Some(at) = self.organization_at {
            let organization = ledger.spread().project(first) / PROJECTS_OF_ORGANIZATION;
            write_digits(&mut self.bytes[at..][..ORGANIZATION], organization.into());
        }
        for (sequence, body) in (first..).zip(&self.bodies) {
            let mark = Mark { project: ledger.spread().project(sequence), sequence };
            ledger.payload().write(&mut self.bytes[*body..], mark);
        }
        &self.bytes
    }
}

/// The name of an organization in the configuration.
pub(crate) fn organization(number: u32) -> String {
    format!("o{number:0ORGANIZATION$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Spread;
    use crate::payload::Payload;

    #[test]
    fn a_batch_has_an_event_with_its_number_on_each_line() {
        let ledger = Ledger::new(Payload::dataset(256), Spread::one(1), 10);
        let mut request = Request::new(Door::Batch(3), &ledger);
        let text = String::from_utf8(request.with(4, &ledger).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/organizations/o000/events/batch HTTP/1.1\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let marks: Vec<_> =
            body.lines().map(|line| ledger.payload().read(line.as_bytes()).unwrap()).collect();
        assert_eq!(marks, [4, 5, 6].map(|sequence| Mark { project: 0, sequence }));
    }

    #[test]
    fn a_request_goes_to_the_organization_of_its_project() {
        let spread = Spread { projects: 10_000, active: 1_000, turn: 10_000, webhooks: 1 };
        let ledger = Ledger::new(Payload::dataset(256), spread, 20_000);
        let mut request = Request::new(Door::Single, &ledger);
        let text = String::from_utf8(request.with(10_234, &ledger).to_vec()).unwrap();
        assert!(text.starts_with("POST /v1/organizations/o012/events HTTP/1.1\r\n"), "{text}");
        assert!(text.contains(r#""project":"p01234""#), "{text}");
        assert_eq!(organization(12), "o012");
    }
}
