//! The middleware.

use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::HttpMessage as _;
use actix_web::body::EitherBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};

use super::error::unauthorized;
use super::{Checked, check, nearest};
use crate::verifier::Verifier;

/// Lets only genuine calls pass; for an `App`, a scope or a resource.
///
/// Any other is answered with a 401: neither is its body asked for, nor does it reach what is wrapped. Of a genuine one,
/// [`Verified`](crate::Verified) is in the extensions of the request: a handler takes it as `web::ReqData<Verified>`,
/// or as a part of [`Webhook`](super::Webhook).
///
/// ```
/// use actix_web::{App, HttpResponse, web};
/// use aquarium_verify::actix::VerifyWebhooks;
/// use aquarium_verify::{Secrets, Verified, Verifier};
///
/// async fn receive(verified: web::ReqData<Verified>, body: web::Bytes) -> HttpResponse {
///     println!("{} bytes, with the secret at index {}", body.len(), verified.index);
///     HttpResponse::NoContent().finish()
/// }
///
/// let verifier = Verifier::new(Secrets::new(["correct-horse-battery-staple"]).unwrap());
/// App::new().service(
///     web::resource("/hooks/aquarium").wrap(VerifyWebhooks::new(verifier)).route(web::post().to(receive)),
/// );
/// ```
#[derive(Debug, Clone)]
pub struct VerifyWebhooks {
    verifier: Verifier,
}

impl VerifyWebhooks {
    /// Middleware that asks `verifier`, of which it takes a clone: secrets that are replaced there are replaced here.
    pub fn new(verifier: Verifier) -> VerifyWebhooks {
        VerifyWebhooks { verifier }
    }
}

impl<S, B> Transform<S, ServiceRequest> for VerifyWebhooks
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>>,
    S::Future: 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = S::Error;
    type Transform = VerifyService<S>;
    type InitError = ();
    type Future = Ready<Result<VerifyService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(VerifyService { service, verifier: self.verifier.clone() }))
    }
}

/// What [`VerifyWebhooks`] puts before a service.
#[derive(Debug)]
pub struct VerifyService<S> {
    service: S,
    verifier: Verifier,
}

impl<S, B> Service<ServiceRequest> for VerifyService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>>,
    S::Future: 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        match check(&self.verifier, request.headers()) {
            Ok(verified) => {
                let seen = nearest(request.request()).map(|(_, address)| address);
                request.extensions_mut().insert(Checked { verified: verified.clone(), seen });
                request.extensions_mut().insert(verified);
                let answer = self.service.call(request);
                Box::pin(async move { answer.await.map(ServiceResponse::map_into_left_body) })
            }
            Err(_) => {
                let unread = request.take_payload();
                let answer = request.into_response(unauthorized(unread)).map_into_right_body();
                Box::pin(ready(Ok(answer)))
            }
        }
    }
}
