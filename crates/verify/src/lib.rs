//! Tells whether a webhook call is genuine.
//!
//! Aquarium puts the secret of the organization into the `X-Aquarium-Secret` header of every call it makes. Who
//! receives the call compares it with the secret that they were given. `==` gives the secret away: it stops at the
//! first byte that differs, and the time it takes says how many were right. A [`Verifier`] takes the same time whatever
//! is presented, and knows the rest of what can go wrong:
//!
//! - Exactly one header counts. Of two, a proxy may look at one and the application at the other.
//! - Several secrets can be accepted, so that replacing one loses no call. [`Verified`] tells which one matched, which
//!   is how to see that the old one is out of use.
//! - An empty or guessable secret is refused at the start, when somebody looks, and not accepted for ever.
//! - It keeps digests, not secrets: nothing of them is in an error, a log, or the [`Debug`] form of any type here.
//!
//! ```
//! use aquarium_verify::{Rejection, SECRET_HEADER, Secrets, Verified, Verifier};
//! use http::HeaderMap;
//!
//! let verifier = Verifier::new(Secrets::new(["the-new-secret-of-acme", "the-old-secret-of-acme"])?);
//!
//! let mut headers = HeaderMap::new();
//! assert_eq!(verifier.verify(&headers), Err(Rejection::Missing));
//!
//! headers.insert(SECRET_HEADER, "the-old-secret-of-acme".parse()?);
//! assert!(matches!(verifier.verify(&headers), Ok(Verified { index: 1, .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not tell: that a call is new. Calls are repeated when an answer was lost; a [`Guard`] deduplicates on
//! `Webhook-Id`.

#[cfg(feature = "actix")]
pub mod actix;
mod answer;
#[cfg(feature = "axum")]
pub mod axum;
mod first;
mod guard;
mod load;
mod secrets;
#[cfg(feature = "signature")]
pub mod signature;
#[cfg(feature = "tower")]
pub mod tower;
mod verifier;
#[cfg(feature = "watch")]
mod watch;
#[cfg(any(feature = "actix", feature = "axum"))]
mod webhook;

pub use guard::{Claim, Guard, Repeated};
pub use load::{At, LoadError, Misplaced};
pub use secrets::{InvalidSecret, Mistake, Secrets};
pub use verifier::{Rejection, SECRET_HEADER, Verified, Verifier};
#[cfg(feature = "watch")]
pub use watch::{Change, Following};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
