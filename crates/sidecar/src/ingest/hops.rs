//! How many sidecars an event has come through when it comes here.

use aquarium_delivery::{Hops, InvalidHops};
use http::StatusCode;
use http::header::HeaderMap;

use crate::http::{Code, Problem};

/// What `Aquarium-Hops` says; without it the event comes from an app.
pub(crate) fn hops(headers: &HeaderMap) -> Result<Hops, Problem> {
    let mut values = headers.get_all("aquarium-hops").iter();
    let hops = match (values.next(), values.next()) {
        (None, _) => return Ok(Hops::FIRST),
        (Some(value), None) => Hops::received(value.as_bytes()),
        (Some(_), Some(_)) => Err(InvalidHops::Malformed),
    };
    hops.map_err(|invalid| {
        let (status, code) = match invalid {
            InvalidHops::Malformed => (StatusCode::BAD_REQUEST, Code::InvalidHops),
            InvalidHops::TooMany => (StatusCode::LOOP_DETECTED, Code::LoopDetected),
        };
        Problem::new(status, code, invalid.to_string())
    })
}
