//! Receives webhook calls with axum.
//!
//! ```text
//! AQUARIUM_SECRET=correct-horse-battery-staple cargo run -p aquarium-verify --example axum
//! ```

use std::error::Error;
use std::io;
use std::time::Duration;

use aquarium_event::Event;
use aquarium_verify::axum::{Limits, Webhook};
use aquarium_verify::{Secrets, Verified, Verifier};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let verifier = Verifier::new(Secrets::from_env("AQUARIUM_SECRET")?);
    let (queue, events) = channel(100);
    tokio::spawn(work(events));
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
    // To take a `Webhook` is all: there is none whose secret was not checked.
    let receive = async move |call: Webhook| match queue.send((call.verified, call.event)).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let limits = Limits::default().time(Duration::from_secs(5));
    let app =
        Router::new().route("/hooks/aquarium", post(receive)).layer(Extension(limits)).with_state(verifier);
    axum::serve(listener, app).await
}

async fn work(mut events: Receiver<(Verified, Event)>) {
    while let Some((verified, event)) = events.recv().await {
        println!("secret {} {:?}", verified.index, verified.label);
        match event {
            Event::DatasetComplete(e) => println!("{}: {:?} is complete", e.project, e.entity),
            Event::IssuesCreated(e) => println!("{}: {} issues", e.project, e.issues().len()),
            Event::Custom(e) => println!("{}: {} {:?}", e.project, e.name, e.rest),
            other => println!("{}: not interested in {}", other.project(), other.name()),
        }
    }
}
