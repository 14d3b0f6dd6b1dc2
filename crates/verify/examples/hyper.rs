//! Receives webhook calls with hyper alone.
//!
//! ```text
//! AQUARIUM_SECRET=correct-horse-battery-staple cargo run -p aquarium-verify --example hyper
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use aquarium_event::Event;
use aquarium_verify::{Secrets, Verified, Verifier};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

const MAX_BODY: usize = 1 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let verifier = Verifier::new(Secrets::from_env("AQUARIUM_SECRET")?);
    let (queue, mut events) = channel::<(Verified, Event)>(100);
    tokio::spawn(async move {
        while let Some((verified, event)) = events.recv().await {
            println!("secret {} {:?}: {event:?}", verified.index, verified.label);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    Ok(serve(listener, verifier, queue).await?)
}

/// Puts each event into a queue, and answers: the sender waits 15 s. An event that was answered with 204 does not come
/// again, so a queue that must not lose one is a database.
pub async fn serve(
    listener: TcpListener,
    verifier: Verifier,
    queue: Sender<(Verified, Event)>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (verifier, queue) = (verifier.clone(), queue.clone());
        let service = service_fn(move |request| {
            let (verifier, queue) = (verifier.clone(), queue.clone());
            async move { Ok::<_, Infallible>(receive(request, &verifier, &queue).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(MAX_TIME)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn receive(
    request: Request<Incoming>,
    verifier: &Verifier,
    queue: &Sender<(Verified, Event)>,
) -> Response<String> {
    // First, before any of the body is read.
    let verified = match verifier.verify(request.headers()) {
        Ok(verified) => verified,
        Err(rejection) => {
            eprintln!("rejected a call: {rejection}");
            return rejection.response().map(str::to_owned);
        }
    };
    let status = match read(request).await {
        Ok(event) => match queue.send((verified, event)).await {
            Ok(()) => StatusCode::NO_CONTENT,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        Err(status) => status,
    };
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// The event in a call, or what to answer when there is none.
async fn read(request: Request<Incoming>) -> Result<Event, StatusCode> {
    if !is_json(request.headers()) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = timeout(MAX_TIME, whole(request.into_body())).await;
    let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)??;
    Event::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)
}

/// All of the body, copied: each piece of it holds the buffer that it was read into, however small it is.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, StatusCode> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if whole.len() + data.len() > MAX_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
