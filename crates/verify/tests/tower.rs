//! The middleware: what reaches the inner service, and what is answered without it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::convert::Infallible;
use std::future::{Pending, Ready, pending};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aquarium_verify::tower::{ResponseBody, Verify, VerifyLayer};
use aquarium_verify::{Rejection, SECRET_HEADER, Secrets, Verified, Verifier};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

const NEW: &str = "the-new-secret-of-acme";
const OLD: &str = "the-old-secret-of-acme";

fn verifier(secrets: &[(&str, &str)]) -> Verifier {
    Verifier::new(Secrets::labelled(secrets.iter().copied()).unwrap())
}

/// A call with these secrets, and a body that tells when it is read or dropped.
fn call(secrets: &[&str]) -> (Request<Tattler>, Tattler) {
    let body = Tattler::default();
    let mut request = Request::new(body.clone());
    for secret in secrets {
        request.headers_mut().append(SECRET_HEADER, secret.parse().unwrap());
    }
    (request, body)
}

#[derive(Clone, Default)]
struct Tattler {
    read: Arc<AtomicBool>,
    alive: Arc<()>,
}

impl Tattler {
    /// Whether no one else has it, and nobody read it.
    fn was_dropped_unread(&self) -> bool {
        Arc::strong_count(&self.alive) == 1 && !self.read.load(Ordering::Relaxed)
    }
}

impl Body for Tattler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.read.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    }
}

/// Answers what it was told of the call.
fn inner<B: Send + 'static>()
-> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    service_fn(async |request: Request<B>| {
        let told = format!("{:?} {:?}", request.extensions().get::<Verified>(), request.headers());
        Ok(Response::new(Full::from(told)))
    })
}

#[tokio::test]
async fn a_genuine_call_goes_on_with_what_was_found() {
    let service = VerifyLayer::new(verifier(&[("new", NEW), ("old", OLD)])).layer(inner());
    let (request, body) = call(&[OLD]);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let told = response.into_body().collect().await.unwrap().to_bytes();
    let expected = r#"Some(Verified { index: 1, label: Some("old") }) {"x-aquarium-secret": Sensitive}"#;
    assert_eq!(told, expected);
    assert!(body.was_dropped_unread());
}

#[tokio::test]
async fn any_other_is_answered_the_same_and_goes_nowhere() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let verifier = verifier(&[("new", NEW)]).on_rejection(move |rejection| {
        tell.lock().unwrap().push(rejection);
    });
    let unreachable = service_fn(|_: Request<Tattler>| -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
        panic!("the inner service was called")
    });
    let service = VerifyLayer::new(verifier).layer(unreachable);

    for secrets in [&[][..], &[NEW, NEW], &[OLD], &[""]] {
        let (request, body) = call(secrets);
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(body.was_dropped_unread(), "{secrets:?}");
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 401);
        let mut headers: Vec<_> = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        headers.sort_unstable();
        let expected: [(&str, &[u8]); 2] =
            [("content-type", b"application/problem+json"), ("www-authenticate", b"Aquarium-Secret")];
        assert_eq!(headers, expected);
        let length = body.size_hint().exact().unwrap();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"type":"about:blank","title":"Unauthorized","status":401}"#);
        assert_eq!(length, body.len() as u64);
    }
    let expected = [Rejection::Missing, Rejection::Repeated, Rejection::Wrong, Rejection::Wrong];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test]
async fn another_verifier_checks_again_and_the_same_one_does_not() {
    let (ours, theirs) = (verifier(&[("ours", NEW), ("both", OLD)]), verifier(&[("both", OLD)]));
    let status = async |outer: &Verifier, inside: &Verifier, secret: &str| {
        let service = VerifyLayer::new(inside.clone()).layer(inner());
        let inside = inside.clone();
        // Between them the secrets change: who has checked the call before does not look again.
        let service = service.map_request(move |request: Request<Tattler>| {
            inside.replace(Secrets::labelled([("late", "another-secret-of-acme")]).unwrap());
            request
        });
        let response = VerifyLayer::new(outer.clone()).layer(service).oneshot(call(&[secret]).0).await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(status(&ours, &theirs, OLD).await, 401, "what others found is not enough");
    assert_eq!(status(&ours, &ours.clone(), NEW).await, 200);
}

#[tokio::test]
async fn it_is_ready_when_the_inner_service_is() {
    struct NeverReady;

    impl Service<Request<()>> for NeverReady {
        type Response = Response<Full<Bytes>>;
        type Error = &'static str;
        type Future = Pending<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            pending()
        }
    }

    let mut service = VerifyLayer::new(verifier(&[("new", NEW)])).layer(NeverReady);
    assert_eq!(service.ready().await.err(), Some("broken"));
}

#[test]
fn the_log_has_the_reason_and_nothing_of_the_call() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let mut service = VerifyLayer::new(verifier(&[("new", NEW)])).layer(inner());
    tracing::subscriber::with_default(subscriber, || drop(service.call(call(&[OLD]).0)));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let expected = " WARN aquarium_verify: rejected a call reason=the X-Aquarium-Secret header holds no accepted secret\n";
    assert_eq!(log, expected);
}

/// What tonic asks of the layers of a server, and axum of those of a router, in their words.
#[test]
fn it_fits_where_it_has_to() {
    fn tonic<S, R>(_: &S)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
    }

    let layer = VerifyLayer::new(verifier(&[("new", NEW)]));
    tonic(&layer.layer(inner()));
    let _: Verify<axum::Router> = layer.layer(axum::Router::new());
    let _: axum::Router = axum::Router::new().layer(layer);
    assert!(ResponseBody::<Full<Bytes>>::default().is_end_stream());
}
