//! What the extractors of axum and actix-web hand to a handler.

use std::str::FromStr;
use std::time::Duration;

use aquarium_event::Event;
use bytes::Bytes;

use crate::verifier::Verified;

/// A genuine call, and the event that it brings: an extractor for axum and for actix-web.
///
/// Deliveries are at least once: when an answer was lost, the same event comes again with the same
/// [`id`](Webhook::id). Whoever has the secret can leave the headers out; the sidecar sends them all.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Webhook {
    /// What happened.
    pub event: Event,
    /// The body as it came.
    pub body: Bytes,
    /// Which of the accepted secrets the call carried.
    pub verified: Verified,
    /// `Webhook-Id`: the event, the same in every call that brings it. Deduplicate on it.
    pub id: Option<String>,
    /// `Aquarium-Delivery`: the event on its way to this webhook.
    pub delivery: Option<String>,
    /// `Aquarium-Attempt`: which attempt of the delivery this is, from 1.
    pub attempt: Option<u32>,
    /// `Webhook-Timestamp`: when the attempt was made, in seconds since 1970.
    pub timestamp: Option<u64>,
}

impl Webhook {
    /// Made of what was read; `header` looks one up by its name.
    pub(crate) fn new<'h>(
        event: Event,
        body: Bytes,
        verified: Verified,
        header: impl Fn(&'static str) -> Option<&'h str>,
    ) -> Webhook {
        Webhook {
            event,
            body,
            verified,
            id: header("webhook-id").map(str::to_owned),
            delivery: header("aquarium-delivery").map(str::to_owned),
            attempt: header("aquarium-attempt").and_then(parsed),
            timestamp: header("webhook-timestamp").and_then(parsed),
        }
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Whether this is the type of a body in JSON, with or without parameters.
pub(crate) fn is_json(content_type: Option<&str>) -> bool {
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// How much of a body is read for a [`Webhook`], and for how long.
///
/// In axum they are an `Extension`, in actix-web they go into the `app_data` as they are; without them the defaults apply.
/// The limits that these frameworks have for other extractors do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(crate) size: usize,
    pub(crate) time: Duration,
}

impl Limits {
    pub(crate) const DEFAULT: Limits = Limits { size: 1 << 20, time: Duration::from_secs(15) };

    /// The most bytes that a body may have. An `issue-exported` can have several megabytes.
    #[must_use]
    pub fn size(self, bytes: usize) -> Limits {
        Limits { size: bytes, ..self }
    }

    /// How long it may take until the whole body is there.
    #[must_use]
    pub fn time(self, time: Duration) -> Limits {
        Limits { time, ..self }
    }
}

impl Default for Limits {
    /// 1 MiB, which is what the sidecar accepts from an app unless it is configured otherwise; and 15 s, after which it
    /// waits no longer for an answer.
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
