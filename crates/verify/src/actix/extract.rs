//! The extractor.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use actix_web::body::{BodyStream, to_bytes_limited};
use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use aquarium_event::Event;

use super::check;
use super::error::{Error, Reason};
use crate::verifier::{Verified, Verifier};

/// A genuine call, with the event that it brings.
///
/// It takes the body: a handler has no other extractor of the body beside it. What it refuses is answered, unless the
/// handler takes a `Result<Webhook, `[`Error`]`>`.
///
/// Where [`VerifyWebhooks`](super::VerifyWebhooks) has verified the call, it does not ask again. Elsewhere it needs a
/// [`Verifier`] in the `app_data` of the `App`, the scope or the resource: the verifier itself, not a
/// `web::Data<Verifier>`. Without one no call passes: each is answered with a 500, and the log says what to add.
///
/// ```
/// use actix_web::{App, HttpResponse, web};
/// use aquarium_event::Event;
/// use aquarium_verify::actix::Webhook;
/// use aquarium_verify::{Secrets, Verifier};
///
/// async fn receive(call: Webhook) -> HttpResponse {
///     match &call.event {
///         Event::IssuesCreated(e) => println!("{} issues in {}", e.issues().len(), e.project),
///         Event::Custom(e) if e.name == "model-trained" => println!("a model in {}: {:?}", e.project, e.rest),
///         other => println!("not interested in {}", other.name()),
///     }
///     HttpResponse::NoContent().finish()
/// }
///
/// let verifier = Verifier::new(Secrets::new(["correct-horse-battery-staple"]).unwrap());
/// App::new().app_data(verifier).route("/hooks/aquarium", web::post().to(receive));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Webhook {
    /// What happened.
    pub event: Event,
    /// The body as it came.
    pub body: Bytes,
    /// Which secret the call carried.
    pub verified: Verified,
    /// `Webhook-Id`: the event, the same in every call that brings it. Deduplicate on it.
    pub id: Option<String>,
    /// `Aquarium-Delivery`: the event on its way to this webhook.
    pub delivery: Option<String>,
    /// `Aquarium-Attempt`: how many calls were made for the delivery, this one included.
    pub attempt: Option<u32>,
    /// `Webhook-Timestamp`: when the call was made, in seconds since 1970.
    pub timestamp: Option<u64>,
}

/// How much of a body [`Webhook`] reads, and for how long. Like the [`Verifier`], it goes into the `app_data` as it is,
/// not as a `web::Data`.
///
/// ```
/// use std::time::Duration;
///
/// use actix_web::App;
/// use aquarium_verify::actix::WebhookConfig;
///
/// App::new().app_data(WebhookConfig::default().limit(16 << 20).timeout(Duration::from_secs(60)));
/// ```
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    limit: usize,
    timeout: Duration,
}

impl WebhookConfig {
    const DEFAULT: WebhookConfig = WebhookConfig { limit: 1 << 20, timeout: Duration::from_secs(15) };

    /// The most bytes that a body may have; 1 MiB, unless set. An `issue-exported` can have several.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> WebhookConfig {
        self.limit = bytes;
        self
    }

    /// The longest that a body may take to arrive; 15 s, unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> WebhookConfig {
        self.timeout = timeout;
        self
    }
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig::DEFAULT
    }
}

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
    let config = request.app_data().unwrap_or(&WebhookConfig::DEFAULT);
    check_head(request, config)?;
    let body = read(payload, config).await?;
    Ok(Webhook {
        event: Event::from_slice(&body)?,
        body,
        verified,
        id: header(request, "webhook-id"),
        delivery: header(request, "aquarium-delivery"),
        attempt: header(request, "aquarium-attempt"),
        timestamp: header(request, "webhook-timestamp"),
    })
}

/// What the middleware found, or else what the verifier of the application finds.
fn verified(request: &HttpRequest) -> Result<Verified, Reason> {
    if let Some(verified) = request.extensions().get::<Verified>() {
        return Ok(verified.clone());
    }
    let Some(verifier) = request.app_data::<Verifier>() else {
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
fn check_head(request: &HttpRequest, config: &WebhookConfig) -> Result<(), Reason> {
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Reason::ContentType);
    }
    let announced: Option<usize> = header(request, CONTENT_LENGTH.as_str());
    match announced {
        Some(length) if length > config.limit => Err(Reason::TooLarge { limit: config.limit }),
        _ => Ok(()),
    }
}

async fn read(payload: &mut Payload, config: &WebhookConfig) -> Result<Bytes, Reason> {
    let &WebhookConfig { limit, timeout: within } = config;
    match timeout(within, to_bytes_limited(BodyStream::new(payload), limit)).await {
        Err(_) => Err(Reason::TooSlow { within }),
        Ok(Err(_)) => Err(Reason::TooLarge { limit }),
        Ok(Ok(body)) => body.map_err(Reason::Broken),
    }
}

/// The value of a header, if it is there and what it should be.
fn header<T: FromStr>(request: &HttpRequest, name: &str) -> Option<T> {
    request.headers().get(name)?.to_str().ok()?.parse().ok()
}
