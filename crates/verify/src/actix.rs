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
//! Where [`VerifyWebhooks`] has verified the call, [`Webhook`] does not verify it again. Elsewhere it needs a [`Verifier`] in
//! the `app_data` of the `App`, the scope or the resource: the verifier itself, not a `web::Data<Verifier>`. Where there are
//! both, or several, the one that is nearest to the handler decides; of a scope or resource that has both, the middleware.
//! Without any no call passes: each is answered with a 500, and the log says what to add.
//!
//! It takes the body: a handler has no other extractor of the body beside it. What it refuses is answered, unless the
//! handler takes a `Result<Webhook, `[`Error`]`>`, which has to return the error. Do not take an `Option<Webhook>` without
//! the middleware: actix-web makes `None` of every refusal and runs the handler, and no extractor can prevent that. Behind
//! the middleware a handler never runs for a call that is not genuine, whatever it takes.
//!
//! ```
//! use std::time::Duration;
//!
//! use actix_web::{App, HttpResponse, web};
//! use aquarium_verify::actix::{Limits, Webhook};
//! use aquarium_verify::{Secrets, Verifier};
//!
//! let verifier = Verifier::new(Secrets::new(["correct-horse-battery-staple"]).unwrap());
//! App::new()
//!     .app_data(verifier)
//!     .app_data(Limits::default().size(16 << 20).time(Duration::from_secs(60)))
//!     .route("/hooks/aquarium", web::post().to(async |_: Webhook| HttpResponse::NoContent()));
//! ```
//!
//! A refused call is answered with a connection that closes, where its body was not read to the end: otherwise actix
//! reads and discards the rest, for as long as somebody sends it.

mod error;
mod extract;
mod middleware;

pub use error::{Error, Reason};
pub use middleware::{VerifyService, VerifyWebhooks};

pub use crate::webhook::{Limits, Webhook};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;

use crate::verifier::{Rejection, SECRET_HEADER, Verified, Verifier};

/// Tells the extractor that the middleware found a call genuine.
#[derive(Debug)]
struct Checked {
    verified: Verified,
    /// Which [`Verifier`] of the `app_data` the middleware saw, if there was one: see [`nearest`].
    seen: Option<usize>,
}

/// Which [`Verifier`] of the `app_data` is the nearest to where a request has come to.
///
/// A scope or a resource adds its `app_data` to a request before the request comes to its middleware. So what the extractor
/// sees and the middleware did not was added within the middleware, and is nearer to the handler. It is told by its
/// address: the containers of `app_data` stay where they are as long as the application runs.
fn nearest(request: &HttpRequest) -> Option<(&Verifier, usize)> {
    request.app_data::<Verifier>().map(|verifier| (verifier, std::ptr::from_ref(verifier).addr()))
}

fn check(verifier: &Verifier, headers: &HeaderMap) -> Result<Verified, Rejection> {
    verifier.check_values(headers.get_all(SECRET_HEADER.as_str()).map(|value| value.as_bytes()))
}
