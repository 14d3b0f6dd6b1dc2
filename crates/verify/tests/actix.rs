//! The actix-web middleware and extractor over real sockets, with what a caller can get wrong, and with callers who do it
//! on purpose.

#![cfg(feature = "actix")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "real sockets take real time")]

#[path = "../examples/actix.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main function is not run")]
mod example;

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::rt::System;
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer};
use aquarium_event::Event;
use aquarium_verify::actix::{Error, Limits, Reason, VerifyWebhooks, Webhook};
use aquarium_verify::{Rejection, Secrets, Verified, Verifier};

const SECRET: &str = "the-new-secret-of-acme";
const OLD: &str = "the-old-secret-of-acme";
const WRONG: &str = "the-lost-secret-of-acme";
const EVENT: &str = r#" {"event": "dataset-complete", "project": "urban", "dataset": {"id": "ds_1"}}"#;
const UNAUTHORIZED: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;
/// What must not take long takes no longer.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_genuine_call_is_received_with_all_that_came_with_it() {
    let (server, calls) = example(&verifier());
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("X-Aquarium-Secret", OLD),
        ("Webhook-Id", "evt_1"),
        ("Webhook-Timestamp", "1700000000"),
        ("Aquarium-Delivery", "dlv_2"),
        ("Aquarium-Attempt", "3"),
    ];
    let answer = server.call(&post("/hooks/aquarium", &headers, EVENT));
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));

    let call = calls.recv_timeout(SOON).unwrap();
    assert!(matches!(&call.event, Event::DatasetComplete(e) if e.project == "urban"), "{:?}", call.event);
    assert_eq!(call.body, EVENT);
    assert_eq!((call.verified.index, call.verified.label.as_deref()), (1, Some("2025-03")));
    assert_eq!((call.id.as_deref(), call.delivery.as_deref()), (Some("evt_1"), Some("dlv_2")));
    assert_eq!((call.attempt, call.timestamp), (Some(3), Some(1_700_000_000)));

    // What is not there, or not what it should be, is no reason to refuse a genuine call.
    let odd = [JSON, ("X-Aquarium-Secret", SECRET), ("Webhook-Id", "ä"), ("Aquarium-Attempt", "first")];
    assert_eq!(server.call(&post("/hooks/aquarium", &odd, EVENT)).status, 204);
    let call = calls.recv_timeout(SOON).unwrap();
    assert_eq!((call.verified.index, call.verified.label.as_deref()), (0, Some("2026-11")));
    assert_eq!((call.id, call.delivery, call.attempt, call.timestamp), (None, None, None, None));
}

#[test]
fn every_call_that_is_not_genuine_has_the_same_answer_and_only_the_operator_learns_why() {
    let (tell, told) = mpsc::channel();
    let verifier = verifier().on_rejection(move |rejection| tell.send(rejection).unwrap());
    let (server, calls) = example(&verifier);
    let bare = extractor_alone(verifier);

    let long = "l".repeat(100_000);
    let table: &[(&[&[u8]], Rejection)] = &[
        (&[], Rejection::Missing),
        (&[b""], Rejection::Wrong),
        (&[WRONG.as_bytes()], Rejection::Wrong),
        (&[&SECRET.as_bytes()[1..]], Rejection::Wrong),
        (&[b"\xff\xfe\x80"], Rejection::Wrong),
        (&[long.as_bytes()], Rejection::Wrong),
        (&[b"the-new-secret-of-acme, the-new-secret-of-acme"], Rejection::Wrong),
        (&[SECRET.as_bytes(), SECRET.as_bytes()], Rejection::Repeated),
        (&[SECRET.as_bytes(), OLD.as_bytes()], Rejection::Repeated),
        (&[WRONG.as_bytes(), SECRET.as_bytes()], Rejection::Repeated),
    ];
    for (secrets, reason) in table {
        let mut call = b"POST /hooks/aquarium HTTP/1.1\r\nHost: here\r\n".to_vec();
        for secret in *secrets {
            call.extend([b"X-Aquarium-Secret: ", *secret, b"\r\n"].concat());
        }
        write!(call, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{EVENT}", EVENT.len())
            .unwrap();
        for server in [&server, &bare] {
            server.call(&call).assert_unauthorized();
            assert_eq!(told.recv_timeout(SOON), Ok(*reason));
        }
    }
    assert!(calls.try_recv().is_err() && told.try_recv().is_err());

    let log = LOG.text();
    assert!(log.contains("rejected a call reason=the X-Aquarium-Secret header holds no accepted"), "{log}");
    assert!(log.contains("WARN aquarium_verify: "), "{log}");
    assert!(!log.contains("-secret-of-acme") && !log.contains("llll"), "{log}");
}

#[test]
fn a_header_of_a_megabyte_is_refused_and_the_next_call_is_served() {
    let (server, calls) = example(&verifier());
    let secret = "s".repeat(1 << 20);
    let call = post("/hooks/aquarium", &[JSON, ("X-Aquarium-Secret", &secret)], EVENT);
    // The server may well hang up before it has all of it.
    let mut connection = server.connect();
    let _ = connection.write_all(&call);
    if let Ok(answer) = read_answer(&mut connection) {
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    assert!(calls.try_recv().is_err());
    assert_eq!(server.call(&genuine(EVENT)).status, 204);
}

#[test]
fn secrets_are_replaced_while_connections_are_open() {
    let verifier = Verifier::new(Secrets::new([OLD]).unwrap());
    let (server, _calls) = example(&verifier);
    let mut connection = server.connect();
    let old = post("/hooks/aquarium", &[JSON, ("X-Aquarium-Secret", OLD)], EVENT);
    let new = genuine(EVENT);
    let mut status = |call: &[u8]| {
        connection.write_all(call).unwrap();
        read_answer(&mut connection).unwrap().status
    };
    assert_eq!(status(&old), 204);
    verifier.replace(Secrets::new([SECRET, OLD]).unwrap());
    assert_eq!((status(&old), status(&new)), (204, 204));
    verifier.replace(Secrets::new([SECRET]).unwrap());
    assert_eq!((status(&new), status(&old)), (204, 401));
}

#[test]
fn a_wrong_secret_is_answered_before_any_of_the_body_is_sent() {
    let (server, calls) = example(&verifier());
    let bare = extractor_alone(verifier());
    for framing in ["Content-Length: 1000", "Content-Length: 100000000000", "Transfer-Encoding: chunked"] {
        for server in [&server, &bare] {
            let started = Instant::now();
            let mut connection = server.connect();
            connection.write_all(&head("application/json", WRONG, framing)).unwrap();
            read_answer(&mut connection).unwrap().assert_unauthorized();
            // It does not wait for the body afterwards either.
            assert_eq!(connection.read(&mut [0; 16]).unwrap(), 0, "{framing}");
            assert!(started.elapsed() < SOON, "{framing}: {:?}", started.elapsed());
        }
    }
    assert!(calls.try_recv().is_err());
}

#[test]
fn a_body_without_end_does_not_keep_a_connection() {
    let (server, calls) = example(&verifier());
    let bare = extractor_alone(verifier());
    for (secret, status) in [(SECRET, 413), (WRONG, 401)] {
        for server in [&server, &bare] {
            let started = Instant::now();
            let mut connection = server.connect();
            connection.write_all(&head("application/json", secret, "Transfer-Encoding: chunked")).unwrap();
            let mut sending = connection.try_clone().unwrap();
            let sending = thread::spawn(move || {
                let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
                while started.elapsed() < 2 * SOON && sending.write_all(&chunk).is_ok() {}
            });
            let answer = read_answer(&mut connection).unwrap();
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{answer:?}");
            sending.join().unwrap();
            assert!(started.elapsed() < SOON, "{status}: {:?}", started.elapsed());
        }
    }
    assert!(calls.try_recv().is_err());
}

#[test]
fn a_body_is_refused_by_its_size_before_or_while_it_is_read() {
    let (server, calls) = example(&verifier());
    const LIMIT: usize = 1 << 20;
    let too_large = "the body has more than 1048576 bytes";

    let mut connection = server.connect();
    let announced = format!("Content-Length: {}", LIMIT + 1);
    connection.write_all(&head("application/json", SECRET, &announced)).unwrap();
    read_answer(&mut connection).unwrap().assert_problem(413, "Payload Too Large", too_large);

    let chunked = |length: usize| {
        let mut call = head("application/json", SECRET, "Transfer-Encoding: chunked");
        write!(call, "{length:x}\r\n{}\r\n0\r\n\r\n", padded(length)).unwrap();
        server.call(&call)
    };
    chunked(LIMIT + 1).assert_problem(413, "Payload Too Large", too_large);
    assert!(calls.try_recv().is_err());

    assert_eq!(chunked(LIMIT).status, 204);
    assert_eq!(calls.recv_timeout(SOON).unwrap().body.len(), LIMIT);
    assert_eq!(server.call(&genuine(&padded(LIMIT))).status, 204);
    assert_eq!(calls.recv_timeout(SOON).unwrap().body.len(), LIMIT);
}

#[test]
fn the_limits_of_a_body_are_those_of_the_app_data() {
    let verifier = verifier();
    let server = Running::configured(move |app| {
        let config = Limits::default().size(100).time(Duration::from_millis(400));
        app.app_data(verifier.clone()).app_data(config).route("/hooks/aquarium", web::post().to(no_content));
    });
    assert_eq!(server.call(&genuine(&padded(100))).status, 204);
    let answer = server.call(&genuine(&padded(101)));
    answer.assert_problem(413, "Payload Too Large", "the body has more than 100 bytes");

    // A byte now and then: what counts is the time of the whole.
    let started = Instant::now();
    let mut connection = server.connect();
    connection.write_all(&head("application/json", SECRET, "Content-Length: 100")).unwrap();
    let mut dripping = connection.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        while started.elapsed() < SOON && dripping.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let answer = read_answer(&mut connection).unwrap();
    answer.assert_problem(408, "Request Timeout", "the body did not arrive within 400ms");
    assert!((Duration::from_millis(400)..SOON).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(answer.header("connection"), Some("close"));
    dripping.join().unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn a_genuine_call_that_brings_no_event_is_told_what_is_wrong() {
    let (server, calls) = example(&verifier());
    for content_type in ["text/plain", "application/jsonp", "application/problem+json", ""] {
        let headers = [("Content-Type", content_type), ("X-Aquarium-Secret", SECRET)];
        let answer = server.call(&post("/hooks/aquarium", &headers, EVENT));
        answer.assert_problem(
            415,
            "Unsupported Media Type",
            "the Content-Type of a webhook call is application/json",
        );
    }
    let none = post("/hooks/aquarium", &[("X-Aquarium-Secret", SECRET)], EVENT);
    assert_eq!(server.call(&none).status, 415);

    let table = [
        ("", "an event is JSON, this is not"),
        ("{\"event\": \"test\"", "an event is JSON, this is not"),
        ("[]", "an event is a JSON object"),
        (r#"{"event": "test"}"#, r#"an event has a string in "project""#),
    ];
    for (body, detail) in table {
        server.call(&genuine(body)).assert_problem(400, "Bad Request", detail);
    }

    // Half of it, and then nothing more.
    let mut connection = server.connect();
    let cut = genuine(EVENT);
    connection.write_all(&cut[..cut.len() - 1]).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    read_answer(&mut connection).unwrap().assert_problem(400, "Bad Request", "the body broke off");
    assert!(calls.try_recv().is_err());
}

#[test]
fn without_a_verifier_no_call_passes_and_the_log_says_what_to_add() {
    let verifier = verifier();
    let server = Running::configured(move |app| {
        // In this wrapping it is not looked for.
        app.app_data(web::Data::new(verifier.clone())).route("/hooks/aquarium", web::post().to(no_content));
    });
    let answer = server.call(&genuine(EVENT));
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(
        answer.body, r#"{"status":500,"title":"Internal Server Error","type":"about:blank"}"#,
        "who called is not told"
    );
    let log = LOG.text();
    assert!(log.contains("ERROR aquarium_verify: "), "{log}");
    assert!(log.contains("`.wrap(VerifyWebhooks::new(verifier))` or `.app_data(verifier)`"), "{log}");
}

#[test]
fn a_handler_can_take_the_error_and_answers_as_if_it_had_not() {
    async fn receive(call: Result<Webhook, Error>) -> Result<HttpResponse, Error> {
        match call {
            Err(error) if matches!(error.reason(), Reason::NotAnEvent(_)) => {
                Ok(HttpResponse::Accepted().body(error.to_string()))
            }
            call => call.map(|call| HttpResponse::Ok().body(call.event.name().to_owned())),
        }
    }
    let verifier = verifier();
    let server = Running::configured(move |app| {
        app.app_data(verifier.clone()).route("/hooks/aquarium", web::post().to(receive));
    });
    let answer = server.call(&genuine(EVENT));
    assert_eq!((answer.status, answer.body.as_str()), (200, "dataset-complete"));
    let answer = server.call(&genuine("{"));
    assert_eq!((answer.status, answer.body.as_str()), (202, "an event is JSON, this is not"));
    server.call(&post("/hooks/aquarium", &[("X-Aquarium-Secret", WRONG)], EVENT)).assert_unauthorized();
}

#[test]
fn the_middleware_guards_what_it_wraps_and_nothing_else() {
    async fn label(verified: Option<web::ReqData<Verified>>, body: Bytes) -> String {
        let label = verified.and_then(|verified| verified.label.clone());
        format!("{} {}", label.as_deref().unwrap_or("unverified"), body.len())
    }
    let verifier = verifier();
    let other = verifier.clone();
    let server = Running::configured(move |app| {
        let guard = || VerifyWebhooks::new(verifier.clone());
        let only = VerifyWebhooks::new(Verifier::new(Secrets::labelled([("only", WRONG)]).unwrap()));
        app.service(web::scope("/scope").wrap(guard()).route("/in", web::post().to(label)))
            .service(web::resource("/resource").wrap(guard()).route(web::post().to(label)))
            .service(web::scope("/other").wrap(only).route("/in", web::post().to(label)))
            .route("/open", web::post().to(label));
    });
    let call = |path: &str, secret| server.call(&post(path, &[JSON, ("X-Aquarium-Secret", secret)], "12345"));
    for path in ["/scope/in", "/resource"] {
        let answer = call(path, SECRET);
        assert_eq!((answer.status, answer.body.as_str()), (200, "2026-11 5"), "{path}");
        call(path, WRONG).assert_unauthorized();
    }
    call("/scope/none", WRONG).assert_unauthorized();
    assert_eq!(call("/scope/none", SECRET).status, 404);
    call("/other/in", SECRET).assert_unauthorized();
    assert_eq!(call("/other/in", WRONG).body, "only 5");
    assert_eq!(call("/open", WRONG).body, "unverified 5");
    assert_eq!(call("/none", WRONG).status, 404);

    let server = Running::start(move |listener| {
        let app =
            move || App::new().wrap(VerifyWebhooks::new(other.clone())).route("/open", web::post().to(label));
        Ok(HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run())
    });
    let call = |path: &str, secret| server.call(&post(path, &[JSON, ("X-Aquarium-Secret", secret)], "12345"));
    call("/open", WRONG).assert_unauthorized();
    call("/none", WRONG).assert_unauthorized();
    assert_eq!(call("/open", OLD).body, "2025-03 5");
}

#[test]
fn the_verifier_that_is_nearest_to_the_handler_decides() {
    async fn label(call: Webhook) -> String {
        call.verified.label.as_deref().unwrap_or_default().to_owned()
    }
    fn tenant_b() -> Verifier {
        Verifier::new(Secrets::labelled([("b", OLD)]).unwrap())
    }
    let server = Running::configured(|app| {
        let middleware = || VerifyWebhooks::new(verifier());
        let post = || web::post().to(label);
        let (other, again) = (tenant_b(), tenant_b());
        app.app_data(other)
            // Of b: what is within the middleware.
            .service(
                web::scope("/b/resource")
                    .wrap(middleware())
                    .service(web::resource("/in").app_data(tenant_b()).route(post())),
            )
            .service(
                web::scope("/b/scope").wrap(middleware()).service(
                    web::scope("/in").app_data(again.clone()).service(web::resource("").route(post())),
                ),
            )
            .service(web::scope("/b/same").app_data(again.clone()).service(
                web::scope("/in").wrap(middleware()).service(web::resource("").app_data(again).route(post())),
            ))
            .service(
                web::scope("/b/middleware")
                    .wrap(middleware())
                    .service(web::resource("/in").wrap(VerifyWebhooks::new(tenant_b())).route(post())),
            )
            .service(web::resource("/b/alone/in").route(post()))
            // Of a: the middleware within what has a verifier of b.
            .service(web::resource("/a/resource/in").wrap(middleware()).route(post()))
            .service(web::resource("/a/both/in").wrap(middleware()).app_data(tenant_b()).route(post()))
            .service(
                web::scope("/a/scope")
                    .app_data(tenant_b())
                    .service(web::resource("/in").wrap(middleware()).route(post())),
            );
    });
    let call = |path: &str, secret| server.call(&post(path, &[JSON, ("X-Aquarium-Secret", secret)], EVENT));
    for path in ["/b/resource/in", "/b/scope/in", "/b/same/in", "/b/middleware/in", "/b/alone/in"] {
        let answer = call(path, OLD);
        assert_eq!((answer.status, answer.body.as_str()), (200, "b"), "{path}");
        call(path, SECRET).assert_unauthorized();
        call(path, WRONG).assert_unauthorized();
    }
    for path in ["/a/resource/in", "/a/both/in", "/a/scope/in"] {
        let answer = call(path, SECRET);
        assert_eq!((answer.status, answer.body.as_str()), (200, "2026-11"), "{path}");
        assert_eq!(call(path, OLD).body, "2025-03", "{path}");
        call(path, WRONG).assert_unauthorized();
    }
}

#[test]
fn behind_the_middleware_no_handler_runs_for_a_stranger_whatever_it_takes() {
    async fn optional(call: Option<Webhook>) -> String {
        call.map_or("not an event", |_| "an event").to_owned()
    }
    async fn bytes(_: Bytes) -> &'static str {
        "bytes"
    }
    let server = Running::configured(|app| {
        app.service(
            web::scope("/in")
                .wrap(VerifyWebhooks::new(verifier()))
                .route("/optional", web::post().to(optional))
                .route("/bytes", web::post().to(bytes)),
        );
    });
    for path in ["/in/optional", "/in/bytes"] {
        server.call(&post(path, &[JSON, ("X-Aquarium-Secret", WRONG)], EVENT)).assert_unauthorized();
        server.call(&post(path, &[JSON], EVENT)).assert_unauthorized();
    }
    let call = |body| server.call(&post("/in/optional", &[JSON, ("X-Aquarium-Secret", SECRET)], body));
    assert_eq!((call(EVENT).body.as_str(), call("{}").body.as_str()), ("an event", "not an event"));
}

async fn no_content(_: Webhook) -> HttpResponse {
    HttpResponse::NoContent().finish()
}

fn verifier() -> Verifier {
    Verifier::new(Secrets::labelled([("2026-11", SECRET), ("2025-03", OLD)]).unwrap())
}

/// The example, and the calls that it receives.
fn example(verifier: &Verifier) -> (Running, Receiver<Webhook>) {
    let (send, calls) = mpsc::channel();
    let verifier = verifier.clone();
    let on_call = move |call| send.send(call).unwrap();
    (Running::start(move |listener| example::server(listener, verifier, Arc::new(on_call))), calls)
}

/// The same without the middleware.
fn extractor_alone(verifier: Verifier) -> Running {
    Running::configured(move |app| {
        app.app_data(verifier.clone()).route("/hooks/aquarium", web::post().to(no_content));
    })
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A call with a whole body.
fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut call = format!("POST {path} HTTP/1.1\r\nHost: here\r\n");
    for (name, value) in headers {
        write!(call, "{name}: {value}\r\n").unwrap();
    }
    write!(call, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    call.into_bytes()
}

fn genuine(body: &str) -> Vec<u8> {
    post("/hooks/aquarium", &[JSON, ("X-Aquarium-Secret", SECRET)], body)
}

/// The head of a call; `framing` is the header that tells where its body ends.
fn head(content_type: &str, secret: &str, framing: &str) -> Vec<u8> {
    format!(
        "POST /hooks/aquarium HTTP/1.1\r\nHost: here\r\nContent-Type: {content_type}\r\n\
         X-Aquarium-Secret: {secret}\r\n{framing}\r\n\r\n"
    )
    .into_bytes()
}

/// The event with as many spaces after it as make this length.
fn padded(length: usize) -> String {
    EVENT.to_owned() + &" ".repeat(length - EVENT.len())
}

/// A server in a thread of its own. It ends when it is dropped.
struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(server: impl FnOnce(TcpListener) -> io::Result<Server> + Send + 'static) -> Running {
        LazyLock::force(&LOG);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            System::new().block_on(async {
                let server = server(listener).unwrap();
                send.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Running { address, handle: started.recv_timeout(SOON).unwrap(), thread: Some(thread) }
    }

    fn configured(configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) -> Running {
        Running::start(move |listener| {
            let app = move || App::new().configure(configure.clone());
            Ok(HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run())
        })
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(SOON)).unwrap();
        connection.set_write_timeout(Some(SOON)).unwrap();
        connection
    }

    fn call(&self, call: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.write_all(call).unwrap();
        read_answer(&mut connection).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case, and sorted.
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn assert_unauthorized(&self) {
        assert_eq!((self.status, self.body.as_str()), (401, UNAUTHORIZED));
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| name != "date");
        let expected = [
            ("connection", "close"),
            ("content-length", "58"),
            ("content-type", "application/problem+json"),
            ("www-authenticate", "Aquarium-Secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers, expected);
    }

    fn assert_problem(&self, status: u16, title: &str, detail: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")));
        let expected =
            serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&self.body).unwrap(), expected);
    }
}

fn read_answer(connection: &mut TcpStream) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    headers.sort();
    let mut answer = Answer { status, headers, body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    answer.body = String::from_utf8(body).unwrap();
    Ok(answer)
}

/// What all servers of these tests log.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
