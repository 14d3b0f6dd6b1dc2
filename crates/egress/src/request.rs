//! The headers of a request.

use std::fmt::{Display, Write};

use aquarium_delivery::{DeliveryId, EventId, Hops, Timestamp, TraceContext};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{Endpoint, SigningKey};

const SECRET: HeaderName = HeaderName::from_static("x-aquarium-secret");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const DELIVERY: HeaderName = HeaderName::from_static("aquarium-delivery");
const ATTEMPT: HeaderName = HeaderName::from_static("aquarium-attempt");
const HOPS: HeaderName = HeaderName::from_static("aquarium-hops");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What one attempt sends.
#[derive(Debug, Clone)]
pub struct Message {
    /// The payload, byte for byte.
    pub body: Bytes,
    /// The event, the same on every attempt.
    pub event: EventId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it starts.
    pub at: Timestamp,
    /// The organization's secret. It is marked as sensitive, so that HTTP/2 does not index it and no log shows it.
    pub secret: Option<HeaderValue>,
    /// What the request is signed with; without it there is no signature.
    pub signing_key: Option<SigningKey>,
    /// What the receiver is told of the trace that this belongs to (W3C Trace Context, section 3.2).
    pub trace: Option<TraceContext>,
    /// How many sidecars the event has come through.
    pub hops: Hops,
}

/// Gives each header that differs from request to request its place, so that a copy of the map need not grow.
pub(crate) fn reserve(headers: &mut HeaderMap) {
    for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, DELIVERY, ATTEMPT, HOPS, SECRET, WEBHOOK_SIGNATURE] {
        headers.insert(name, HeaderValue::from_static(""));
    }
}

/// All headers of a request.
pub(crate) async fn headers(endpoint: &Endpoint, message: &Message) -> HeaderMap {
    let mut headers = endpoint.headers.clone();
    let (id, timestamp) = (printed(message.event), HeaderValue::from(message.at.as_secs()));
    match &message.signing_key {
        Some(key) => {
            // It takes a while and some room; most requests have neither to spend.
            let signature = Box::pin(key.sign(&id, &timestamp, &message.body)).await;
            headers.insert(WEBHOOK_SIGNATURE, signature);
        }
        None => drop(headers.remove(WEBHOOK_SIGNATURE)),
    }
    match message.secret.clone() {
        Some(mut secret) => {
            secret.set_sensitive(true);
            headers.insert(SECRET, secret);
        }
        None => drop(headers.remove(SECRET)),
    }
    headers.insert(WEBHOOK_ID, id);
    headers.insert(WEBHOOK_TIMESTAMP, timestamp);
    headers.insert(DELIVERY, printed(message.delivery));
    headers.insert(ATTEMPT, message.attempt.into());
    headers.insert(HOPS, hops(message.hops));
    if let Some(trace) = message.trace {
        headers.insert(TRACEPARENT, printed(trace));
    }
    headers
}

/// Nearly always the first, which takes no room of its own.
fn hops(hops: Hops) -> HeaderValue {
    match hops {
        Hops::FIRST => HeaderValue::from_static("1"),
        hops => u16::from(hops.get()).into(),
    }
}

/// An identifier as a value: at most 55 letters, digits, hyphens and underscores.
fn printed(id: impl Display) -> HeaderValue {
    let mut text = Text { bytes: [0; 64], length: 0 };
    // It fits; and if it did not, there would be no identifier rather than a part of one.
    let bytes = write!(text, "{id}").map_or(&[][..], |()| &text.bytes[..text.length]);
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A text on the stack.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = self.length + part.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}
