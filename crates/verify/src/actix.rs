//! Middleware and an extractor for actix-web 4.
//!
//! - [`VerifyWebhooks`] stands before an `App`, a scope or a resource, and lets genuine calls pass. The rest is answered
//!   before anything of the body is asked for.
//! - [`Webhook`] is what a handler takes: the event, and what came with it. It verifies too, unless the middleware has
//!   done it: without either there is no event.
//!
//! ```no_run
//! use actix_web::{App, HttpResponse, HttpServer, web};
//! use aquarium_event::Event;
//! use aquarium_verify::actix::{VerifyWebhooks, Webhook};
//! use aquarium_verify::{Secrets, Verifier};
//!
//! async fn receive(call: Webhook) -> HttpResponse {
//!     match call.event {
//!         Event::DatasetComplete(e) => println!("{:?} of {} is complete", e.entity, e.project),
//!         other => println!("{} in {}", other.name(), other.project()),
//!     }
//!     HttpResponse::NoContent().finish()
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let verifier = Verifier::new(Secrets::from_env("AQUARIUM_SECRET")?);
//! let server = HttpServer::new(move || {
//!     App::new().service(
//!         web::scope("/hooks")
//!             .wrap(VerifyWebhooks::new(verifier.clone()))
//!             .route("/aquarium", web::post().to(receive)),
//!     )
//! });
//! actix_web::rt::System::new().block_on(server.bind(("127.0.0.1", 8080))?.run())?;
//! # Ok(())
//! # }
//! ```
//!
//! A refused call is answered with a connection that closes, where its body was not read to the end: otherwise actix
//! reads and discards the rest, for as long as somebody sends it.

mod error;
mod extract;
mod middleware;

pub use error::{Error, Reason};
pub use extract::{Webhook, WebhookConfig};
pub use middleware::{VerifyService, VerifyWebhooks};

use actix_web::http::header::HeaderMap;

use crate::verifier::{Rejection, SECRET_HEADER, Verified, Verifier};

fn check(verifier: &Verifier, headers: &HeaderMap) -> Result<Verified, Rejection> {
    verifier.check_values(headers.get_all(SECRET_HEADER.as_str()).map(|value| value.as_bytes()))
}
