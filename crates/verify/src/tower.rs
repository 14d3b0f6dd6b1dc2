//! Middleware for every server of [`http`] requests that is a tower service: axum, tonic, and hyper by way of
//! `hyper_util::service::TowerToHyperService`.
//!
//! A call that is genuine goes on to the inner service, with a [`Verified`] among its extensions, which tells which
//! secret was used. Any other is answered with a 401: the inner service is not called, and nothing of the body is read.
//!
//! # In axum
//!
//! A route of its own beside others that are open to everybody:
//!
//! ```
//! use aquarium_verify::tower::VerifyLayer;
//! use aquarium_verify::{Secrets, Verified, Verifier};
//! use axum::routing::{get, post};
//! use axum::{Extension, Router};
//!
//! async fn receive(Extension(verified): Extension<Verified>, body: String) {
//!     println!("{} bytes, sent with the secret {:?}", body.len(), verified.label);
//! }
//!
//! let secrets = Secrets::labelled([("new", "the-new-secret-of-acme"), ("old", "the-old-secret-of-acme")])?;
//! let verify = VerifyLayer::new(Verifier::new(secrets));
//! let app: Router = Router::new()
//!     .route("/hooks", post(receive).layer(verify))
//!     .route("/health", get(|| async { "ok" }));
//! # Ok::<(), aquarium_verify::InvalidSecret>(())
//! ```
//!
//! Or all that a router has: the routes *above* the layer, and what there is no route for, if the router has a fallback of
//! its own. Without one, a path below `/hooks` that no route matches is answered by the router that it is nested in, which
//! the layer does not guard.
//!
//! ```
//! # use aquarium_verify::tower::VerifyLayer;
//! # use aquarium_verify::{Secrets, Verifier};
//! # use axum::{Router, http::StatusCode, routing::post};
//! # let verify = VerifyLayer::new(Verifier::new(Secrets::new(["the-secret-of-acme"])?));
//! let hooks: Router = Router::new()
//!     .route("/labeling", post(|| async { "labeled" }))
//!     .route("/ops", post(|| async { "noted" }))
//!     .fallback(|| async { StatusCode::NOT_FOUND })
//!     .layer(verify);
//! let app: Router = Router::new().nest("/hooks", hooks);
//! # Ok::<(), aquarium_verify::InvalidSecret>(())
//! ```
//!
//! A route that is added below the layer is open to everybody. What the feature `axum` extracts is not: it checks the
//! call itself where no layer has done so.
//!
//! # In tonic
//!
//! `Server::builder().layer(VerifyLayer::new(verifier))`. A gRPC call that is not genuine ends with status 16,
//! `UNAUTHENTICATED`, in a response of trailers only; its HTTP status is 200, as gRPC has it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::grpc;
use crate::verifier::{Rejection, SECRET_HEADER, Verified, Verifier};

/// Lets genuine calls through to a service, and no others. See the [module](self).
#[derive(Debug, Clone)]
pub struct VerifyLayer {
    verifier: Verifier,
}

impl VerifyLayer {
    /// A layer that asks this verifier, also after its secrets were replaced.
    pub fn new(verifier: Verifier) -> VerifyLayer {
        VerifyLayer { verifier }
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = Verify<S>;

    fn layer(&self, inner: S) -> Verify<S> {
        Verify { inner, verifier: self.verifier.clone() }
    }
}

/// A service that only genuine calls reach. [`VerifyLayer`] makes it.
#[derive(Debug, Clone)]
pub struct Verify<S> {
    inner: S,
    verifier: Verifier,
}

impl<S, B, R> Service<Request<B>> for Verify<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let state = match admit(&self.verifier, &mut parts) {
            Ok(_) => State::Admitted { inner: self.inner.call(Request::from_parts(parts, body)) },
            Err(rejection) => {
                let response = grpc(&parts.headers).unwrap_or_else(|| rejection.response());
                State::Rejected { response: Some(response) }
            }
        };
        ResponseFuture { state }
    }
}

/// Tells those behind that a call was checked, and by whom.
#[derive(Clone)]
struct Checked {
    verifier: Verifier,
    verified: Verified,
}

/// Checks a call, unless this verifier has found it genuine before; another one may accept what this one does not.
///
/// What was found goes into the extensions. The secret is marked as sensitive, so that what prints the headers of the
/// request later leaves it out.
pub(crate) fn admit(verifier: &Verifier, parts: &mut Parts) -> Result<Verified, Rejection> {
    if let Some(checked) = parts.extensions.get::<Checked>()
        && checked.verifier.is(verifier)
    {
        return Ok(checked.verified.clone());
    }
    let verified = verifier.check(&parts.headers)?;
    if let Some(secret) = parts.headers.get_mut(SECRET_HEADER) {
        secret.set_sensitive(true);
    }
    parts.extensions.insert(Checked { verifier: verifier.clone(), verified: verified.clone() });
    parts.extensions.insert(verified.clone());
    Ok(verified)
}

pin_project! {
    /// What a [`Verify`] service answers, once it is there.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Admitted { #[pin] inner: F },
        Rejected { response: Option<Response<&'static str>> },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { inner } => {
                let response = ready!(inner.poll(cx))?;
                Poll::Ready(Ok(response.map(|body| ResponseBody { content: Content::Inner { body } })))
            }
            StateProjection::Rejected { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(ResponseBody::rejection))),
                // It was answered already: polled once more, against the contract of futures.
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// The body of what a [`Verify`] service answers: that of the inner service, or that of the 401.
    #[derive(Debug)]
    pub struct ResponseBody<R> {
        #[pin]
        content: Content<R>,
    }
}

pin_project! {
    #[project = ContentProjection]
    #[derive(Debug)]
    enum Content<R> {
        Inner { #[pin] body: R },
        Rejection { text: Option<&'static str> },
    }
}

impl<R> ResponseBody<R> {
    fn rejection(text: &'static str) -> ResponseBody<R> {
        // An empty one has no data frame: the head of the response ends it.
        let text = Some(text).filter(|text| !text.is_empty());
        ResponseBody { content: Content::Rejection { text } }
    }
}

impl<R> http_body::Body for ResponseBody<R>
where
    R: http_body::Body,
    R::Data: From<&'static [u8]>,
{
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        match self.project().content.project() {
            ContentProjection::Inner { body } => body.poll_frame(cx),
            ContentProjection::Rejection { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text.as_bytes().into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body } => body.is_end_stream(),
            Content::Rejection { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Inner { body } => body.size_hint(),
            Content::Rejection { text } => SizeHint::with_exact(text.map_or(0, str::len) as u64),
        }
    }
}

/// The inner body's default, which other middleware needs to answer by itself.
impl<R: Default> Default for ResponseBody<R> {
    fn default() -> Self {
        ResponseBody { content: Content::Inner { body: R::default() } }
    }
}
