//! The bearer token of a listener that others than this machine can reach.

use aquarium_config::Secret;
use aquarium_verify::{SECRET_HEADER, Secrets, Verifier};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::http::Problem;

/// Checks `Authorization: Bearer <token>` (RFC 6750) in constant time. Where no token is set, everything passes.
pub(crate) fn check_token(token: Option<&Secret>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(token) = token else { return Ok(()) };
    // One that cannot be compared with lets nobody in.
    let secrets = Secrets::new([token.expose()]).map_err(|_| Problem::unauthorized())?;
    let presented = presented(headers).ok_or_else(Problem::unauthorized)?;
    let secret = HeaderMap::from_iter([(SECRET_HEADER, presented)]);
    Verifier::new(secrets).verify(&secret).map(drop).map_err(|_| Problem::unauthorized())
}

fn presented(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return None;
    }
    HeaderValue::from_bytes(token).ok()
}
