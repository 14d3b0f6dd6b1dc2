//! The extractor.

use std::future::Future;
use std::pin::Pin;

use actix_web::body::{BodyStream, to_bytes_limited};
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use aquarium_event::Event;

use super::error::{Error, Reason};
use super::{Checked, check, nearest};
use crate::verifier::Verified;
use crate::webhook::{Limits, Webhook, is_json};

impl FromRequest for Webhook {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Webhook, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let mut unread = payload.take();
        Box::pin(
            async move { extract(&request, &mut unread).await.map_err(|reason| Error::new(reason, unread)) },
        )
    }
}

async fn extract(request: &HttpRequest, payload: &mut Payload) -> Result<Webhook, Reason> {
    let verified = verified(request)?;
    let limits = request.app_data().unwrap_or(&Limits::DEFAULT);
    check_head(request, limits)?;
    let body = read(payload, limits).await?;
    let event = Event::from_slice(&body)?;
    Ok(Webhook::new(event, body, verified, |name| header(request, name)))
}

/// What the verifier that is nearest to the handler finds: that of the middleware, or one in the `app_data` of what the
/// middleware wraps.
fn verified(request: &HttpRequest) -> Result<Verified, Reason> {
    let nearest = nearest(request);
    if let Some(Checked { verified, seen }) = request.extensions().get()
        && *seen == nearest.map(|(_, address)| address)
    {
        return Ok(verified.clone());
    }
    let Some((verifier, _)) = nearest else {
        tracing::error!(
            target: "aquarium_verify",
            "refused a webhook call, since there is nothing to verify it with: add \
             `.wrap(VerifyWebhooks::new(verifier))` or `.app_data(verifier)` to the App, the scope or the resource. \
             A `web::Data<Verifier>` is not looked for"
        );
        return Err(Reason::NoVerifier);
    };
    check(verifier, request.headers()).map_err(Reason::Unauthorized)
}

/// Refuses what need not be read to be refused.
fn check_head(request: &HttpRequest, limits: &Limits) -> Result<(), Reason> {
    if !is_json(header(request, CONTENT_TYPE.as_str())) {
        return Err(Reason::ContentType);
    }
    let announced = header(request, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<usize>().ok());
    match announced {
        Some(length) if length > limits.size => Err(Reason::TooLarge { limit: limits.size }),
        _ => Ok(()),
    }
}

async fn read(payload: &mut Payload, limits: &Limits) -> Result<Bytes, Reason> {
    let &Limits { size: limit, time: within } = limits;
    match timeout(within, to_bytes_limited(BodyStream::new(payload), limit)).await {
        Err(_) => Err(Reason::TooSlow { within }),
        Ok(Err(_)) => Err(Reason::TooLarge { limit }),
        Ok(Ok(body)) => body.map_err(Reason::Broken),
    }
}

/// The value of a header that is there once, and is text.
fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    let mut values = request.headers().get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
