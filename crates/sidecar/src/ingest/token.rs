//! The bearer token of a listener that others than this machine can reach.

use aquarium_config::Secret;
use aquarium_verify::{SECRET_HEADER, Secrets, Verifier};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::http::Problem;

/// Checks `Authorization: Bearer <token>` (RFC 6750) in constant time.
#[derive(Debug)]
pub(crate) struct Token(Verifier);

impl Token {
    /// `None` only for a token that the configuration would not have let pass.
    pub(crate) fn new(token: &Secret) -> Option<Self> {
        Secrets::new([token.expose()]).ok().map(|secrets| Self(Verifier::new(secrets)))
    }

    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let presented = presented(headers).ok_or_else(Problem::unauthorized)?;
        let mut secret = HeaderMap::with_capacity(1);
        secret.insert(SECRET_HEADER, presented);
        self.0.verify(&secret).map(drop).map_err(|_| Problem::unauthorized())
    }
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
