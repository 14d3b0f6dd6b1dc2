//! Receives webhook calls as a function that gets a whole call from the platform it runs on: a gateway has read the body
//! before, and what is left is a `http::HeaderMap` and bytes. Here a small server stands for the gateway.
//!
//! ```text
//! AQUARIUM_SECRET=correct-horse-battery-staple cargo run -p aquarium-verify --example headers
//! ```

use std::error::Error;
use std::io;
use std::time::Duration;

use aquarium_event::Event;
use aquarium_verify::{Secrets, Verified, Verifier};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

/// The function.
async fn receive(
    verifier: &Verifier,
    queue: &Sender<(Verified, Event)>,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<&'static str> {
    let verified = match verifier.verify(headers) {
        Ok(verified) => verified,
        Err(rejection) => {
            eprintln!("rejected a call: {rejection}");
            return rejection.response();
        }
    };
    if !is_json(headers) {
        return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let Ok(event) = Event::from_slice(body) else { return status(StatusCode::BAD_REQUEST) };
    match queue.send((verified, event)).await {
        Ok(()) => status(StatusCode::NO_CONTENT),
        Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn status(status: StatusCode) -> Response<&'static str> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

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

/// The gateway: it reads at most 1 MiB, for at most 5 s.
pub async fn serve(
    listener: TcpListener,
    verifier: Verifier,
    queue: Sender<(Verified, Event)>,
) -> io::Result<()> {
    let gateway = async move |request: Request| {
        let (head, body) = request.into_parts();
        let answer = match timeout(Duration::from_secs(5), whole(body)).await {
            Ok(Ok(body)) => receive(&verifier, &queue, &head.headers, &body).await,
            Ok(Err(refused)) => status(refused),
            Err(_) => status(StatusCode::REQUEST_TIMEOUT),
        };
        answer.map(Body::from)
    };
    axum::serve(listener, Router::new().fallback(gateway)).await
}

async fn whole(mut body: Body) -> Result<Vec<u8>, StatusCode> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if whole.len() + data.len() > 1 << 20 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}
