//! The extractor: what a handler gets, and what it never sees.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aquarium_event::{Event, NotAnEvent};
use aquarium_verify::axum::{Limits, Rejected, Webhook};
use aquarium_verify::tower::VerifyLayer;
use aquarium_verify::{Rejection, Secrets, Verified, Verifier};
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRef, Request};
use axum::http::{Response, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Extension, Router};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tower::ServiceExt as _;

const SECRET: &str = "the-secret-of-acme";
const OTHER: &str = "the-secret-of-others";
const BODY: &str = r#"{"event":"issues-created","project":"urban","issues":[{"id":"iss_1"}]}"#;

fn verifier() -> Verifier {
    Verifier::new(Secrets::labelled([("only", SECRET)]).unwrap())
}

/// A handler that answers with what it got.
fn app() -> Router<Verifier> {
    Router::new().route("/", post(async |call: Webhook| format!("{call:?}")))
}

fn request(headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn genuine(body: impl Into<Body>) -> Request {
    request(&[("X-Aquarium-Secret", SECRET), ("Content-Type", "application/json")], body)
}

async fn ask(app: Router<Verifier>, request: Request) -> (u16, String) {
    let response = app.with_state(verifier()).oneshot(request).await.unwrap();
    read(response).await
}

async fn read(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A body that sends pieces of a size without end, or says how much it has and must not be read.
struct Endless {
    piece: usize,
    /// What it announces.
    length: Option<u64>,
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert_eq!(self.length, None, "it is read");
        match self.piece {
            0 => Poll::Pending,
            piece => Poll::Ready(Some(Ok(Frame::data(vec![b' '; piece].into())))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test]
async fn a_handler_gets_the_event_and_all_that_came_with_it() {
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let app = Router::new().route("/", post(async move |call: Webhook| *keep.lock().unwrap() = Some(call)));
    let headers = [
        ("X-Aquarium-Secret", SECRET),
        ("Content-Type", "Application/JSON ; charset=utf-8"),
        ("Webhook-Id", "evt_1"),
        ("Webhook-Timestamp", "1790000000"),
        ("Aquarium-Delivery", "dlv_1"),
        ("Aquarium-Attempt", "3"),
    ];
    assert_eq!(ask(app, request(&headers, BODY)).await, (200, String::new()));

    let call = seen.lock().unwrap().take().unwrap();
    assert!(matches!(&call.event, Event::IssuesCreated(e) if e.issues()[0].id.as_deref() == Some("iss_1")));
    assert_eq!(call.body, BODY);
    assert_eq!((call.verified.index, call.verified.label.as_deref()), (0, Some("only")));
    assert_eq!((call.id.as_deref(), call.delivery.as_deref()), (Some("evt_1"), Some("dlv_1")));
    assert_eq!((call.attempt, call.timestamp), (Some(3), Some(1_790_000_000)));
}

#[tokio::test]
async fn headers_that_are_missing_or_make_no_sense_are_none() {
    for headers in [
        &[][..],
        &[("Webhook-Timestamp", "99999999999999999999"), ("Aquarium-Attempt", "-1")],
        &[("Webhook-Id", "evt_1"), ("Webhook-Id", "evt_2")],
    ] {
        let mut request = genuine(BODY);
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (status, call) = ask(app(), request).await;
        assert_eq!(status, 200, "{call}");
        let all = "id: None, delivery: None, attempt: None, timestamp: None";
        assert!(call.contains(all), "{call}");
    }
}

#[tokio::test]
async fn what_is_no_delivery_is_refused_with_a_problem() {
    let secret = ("X-Aquarium-Secret", SECRET);
    let json = ("Content-Type", "application/json");
    let large = " ".repeat((1 << 20) + 1);
    type Row<'a> = (u16, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let table: &[Row<'_>] = &[
        (401, &[json], BODY, ""),
        (401, &[json, ("X-Aquarium-Secret", OTHER)], BODY, ""),
        (401, &[json, secret, secret], BODY, ""),
        (401, &[("Content-Type", "text/plain")], "", ""),
        (415, &[secret], BODY, "the Content-Type is not application/json"),
        (415, &[secret, ("Content-Type", "application/jsonp")], BODY, "the Content-Type"),
        (415, &[secret, ("Content-Type", "text/plain; application/json")], BODY, "the Content-Type"),
        (415, &[secret, json, json], BODY, "the Content-Type"),
        (413, &[secret, json], &large, "the body has more than 1048576 bytes"),
        (400, &[secret, json], &large[1..], "an event is JSON"),
        (400, &[secret, json], "", "an event is JSON"),
        (400, &[secret, json], "[]", "an event is a JSON object"),
        (400, &[secret, json], r#"{"project":"p"}"#, "an event has a string in \"event\""),
    ];
    for (status, headers, body, detail) in table {
        let response =
            app().with_state(verifier()).oneshot(request(headers, (*body).to_owned())).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{headers:?}");
        assert_eq!(response.headers().contains_key("www-authenticate"), *status == 401, "{headers:?}");
        let (answered, body) = read(response).await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, &problem["status"]), (*status, &(*status).into()), "{headers:?} {body}");
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string());
        match problem.get("detail") {
            Some(told) => assert!(!detail.is_empty() && told.as_str().unwrap().starts_with(detail), "{told}"),
            None => assert_eq!((*detail, problem.as_object().unwrap().len()), ("", 3), "{body}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_within_limits() {
    let endless = |piece, length| genuine(Body::new(Endless { piece, length }));
    let began = Instant::now();
    assert_eq!(ask(app(), endless(1 << 16, None)).await.0, 413);
    assert_eq!(ask(app(), endless(1, Some((1 << 20) + 1))).await.0, 413, "it says so before it is read");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ask(app(), endless(0, None)).await.0, 408);
    assert_eq!(began.elapsed().as_secs(), 15);

    let limits = Limits::default().size(BODY.len()).time(Duration::from_secs(2));
    let app = app().layer(Extension(limits));
    assert_eq!(ask(app.clone(), genuine(BODY)).await.0, 200);
    assert_eq!(ask(app.clone(), genuine(format!("{BODY} "))).await.0, 413);
    let began = Instant::now();
    assert_eq!(ask(app.clone(), endless(0, None)).await.0, 408);
    assert_eq!(began.elapsed().as_secs(), 2);
    let wrong = request(&[("X-Aquarium-Secret", OTHER)], Body::new(Endless { piece: 0, length: None }));
    assert_eq!(ask(app, wrong).await.0, 401);
    assert_eq!(began.elapsed().as_secs(), 2, "what is not genuine is not waited for");
}

/// A body of many pieces, each of which holds a buffer.
struct Crumbs {
    left: usize,
    buffers: Arc<()>,
}

struct Buffer(#[expect(dead_code, reason = "it counts those that are there")] Arc<()>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        b" "
    }
}

impl HttpBody for Crumbs {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert_eq!(Arc::strong_count(&self.buffers), 1, "a buffer is kept");
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        let buffer = Buffer(Arc::clone(&self.buffers));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(buffer)))))
    }
}

#[tokio::test]
async fn a_body_in_many_pieces_takes_no_more_memory_than_in_one() {
    let crumbs = Crumbs { left: 1000, buffers: Arc::default() };
    assert_eq!(ask(app(), genuine(Body::new(crumbs))).await.0, 400, "it is blank");
}

#[tokio::test]
async fn a_layer_that_has_checked_the_call_is_enough_if_it_is_of_the_same_verifier() {
    let state = verifier();
    let changed = state.clone();
    let change = from_fn(move |request: Request, next: Next| {
        changed.replace(Secrets::new([OTHER]).unwrap());
        next.run(request)
    });
    let same = app().layer(change).layer(VerifyLayer::new(state.clone())).with_state(state);
    assert_eq!(same.oneshot(genuine(BODY)).await.unwrap().status(), 200);

    let others = Verifier::new(Secrets::new([SECRET, OTHER]).unwrap());
    let nested = app().layer(VerifyLayer::new(others)).with_state(verifier());
    let mut request = genuine(BODY);
    request.headers_mut().insert("X-Aquarium-Secret", OTHER.parse().unwrap());
    assert_eq!(nested.oneshot(request).await.unwrap().status(), 401, "what others found is not enough");
}

#[tokio::test]
async fn a_handler_can_take_the_rejection() {
    let app = Router::new().route(
        "/",
        post(async |call: Result<Webhook, Rejected>| match call {
            Ok(_) => StatusCode::OK.into_response(),
            Err(Rejected::Unauthorized(Rejection::Missing)) => "missing".into_response(),
            Err(Rejected::NotAnEvent(NotAnEvent::Field { field })) => field.into_response(),
            Err(rejected) => rejected.into_response(),
        }),
    );
    assert_eq!(ask(app.clone(), request(&[], BODY)).await, (200, "missing".to_owned()));
    let nameless = genuine(r#"{"event":"test"}"#);
    assert_eq!(ask(app, nameless).await, (200, "project".to_owned()));
    let rejected = Rejected::Unauthorized(Rejection::Repeated);
    assert_eq!(rejected.to_string(), "the call is not genuine", "the reason is not what one prints");
}

#[tokio::test]
async fn a_handler_can_read_the_body_by_itself() {
    #[derive(Clone)]
    struct App {
        verifier: Verifier,
    }

    impl FromRef<App> for Verifier {
        fn from_ref(app: &App) -> Verifier {
            app.verifier.clone()
        }
    }

    let app = Router::new()
        .route("/", post(async |verified: Verified, body: Bytes| format!("{:?} {body:?}", verified.label)))
        .with_state(App { verifier: verifier() });
    let ask = async |request| read(app.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(ask(genuine("?")).await, (200, "Some(\"only\") b\"?\"".to_owned()));
    assert_eq!(ask(request(&[], "?")).await.0, 401);
}

#[tokio::test]
async fn a_nested_router_with_a_fallback_of_its_own_guards_what_it_has_no_route_for() {
    let hooks = || Router::new().route("/labeling", post(async || "labeled"));
    let guard = || VerifyLayer::new(verifier());
    let app = |hooks: Router| Router::new().nest("/hooks", hooks).fallback(async || "open to everybody");
    let status = async |app: Router, path: &str, secret: &str| {
        let request = Request::post(path).header("X-Aquarium-Secret", secret).body(Body::empty()).unwrap();
        app.oneshot(request).await.unwrap().status().as_u16()
    };
    let guarded = app(hooks().fallback(async || StatusCode::NOT_FOUND).layer(guard()));
    for path in ["/hooks/labeling", "/hooks/none", "/hooks", "/hooks/none/deeper"] {
        assert_eq!(status(guarded.clone(), path, OTHER).await, 401, "{path}");
    }
    assert_eq!(status(guarded.clone(), "/hooks/none", SECRET).await, 404);
    assert_eq!(status(guarded.clone(), "/hooks/labeling", SECRET).await, 200);
    assert_eq!(status(guarded, "/none", OTHER).await, 200, "the outer router is not guarded");

    // What the documentation warns of.
    let without = app(hooks().layer(guard()));
    assert_eq!(status(without.clone(), "/hooks/labeling", OTHER).await, 401);
    assert_eq!(status(without, "/hooks/none", OTHER).await, 200);
}
