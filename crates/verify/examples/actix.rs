//! Receives webhook calls with actix-web.
//!
//! ```text
//! AQUARIUM_SECRET=correct-horse-battery-staple cargo run -p aquarium-verify --features actix --example actix
//! ```

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use aquarium_event::Event;
use aquarium_verify::actix::{Limits, VerifyWebhooks, Webhook};
use aquarium_verify::{Secrets, Verifier};

/// What is done with a call.
pub type OnCall = dyn Fn(Webhook) + Send + Sync;

/// A server that takes genuine calls at `/hooks/aquarium`.
pub fn server(listener: TcpListener, verifier: Verifier, on_call: Arc<OnCall>) -> io::Result<Server> {
    let on_call = web::Data::from(on_call);
    let server = HttpServer::new(move || {
        let hooks = web::scope("/hooks")
            .wrap(VerifyWebhooks::new(verifier.clone()))
            .app_data(Limits::default().time(Duration::from_secs(5)))
            .app_data(on_call.clone())
            .route("/aquarium", web::post().to(receive));
        App::new().service(hooks)
    });
    Ok(server.listen(listener)?.run())
}

/// Answers with a 204 when the call was taken care of: what has another answer than 2xx, or none, is sent again.
async fn receive(call: Webhook, on_call: web::Data<OnCall>) -> HttpResponse {
    on_call(call);
    HttpResponse::NoContent().finish()
}

fn print(call: Webhook) {
    match call.event {
        Event::DatasetComplete(e) => println!("{} has a dataset: {:?}", e.project, e.entity),
        Event::IssuesCreated(e) => println!("{} has {} more issues", e.project, e.issues().len()),
        Event::Custom(e) => println!("{} has {}: {:?}", e.project, e.name, e.rest),
        other => println!("{} has {}, which is not for us", other.project(), other.name()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let verifier = Verifier::new(Secrets::from_env("AQUARIUM_SECRET")?);
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    actix_web::rt::System::new().block_on(server(listener, verifier, Arc::new(print))?)?;
    Ok(())
}
