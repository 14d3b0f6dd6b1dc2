//! What the tests and benchmarks share. Nothing of it is part of the product.
//!
//! - [`receiver`]: an endpoint that does what a script says, however badly that is.
//! - [`frames`]: one that writes whatever frames of HTTP/2 a script says.
//! - [`certificates`]: an authority for it, and certificates that a client has to refuse.
//! - [`proxy`]: an HTTP proxy between a sender and it.
//! - [`config`]: a configuration on disk that can be edited while it is in use.
//! - [`faults`]: a disk that fails on demand, for the binary.
//! - [`recorder`]: what a process does to its files, in order, and [`power`]: what a disk could hold of it at a moment.
//! - [`random`]: numbers that a seed decides.
//! - [`volume`]: a file system small enough to be filled, for the same.
//! - [`sidecar`]: the binary as a process, to be signalled, killed and measured.
//! - [`client`]: an HTTP client for what the sidecar serves.
//! - [`eventually`]: waits with a bound.
//!
//! Whatever waits here is bounded, and panics with what is known about the reason. Whatever runs is owned, and ends when
//! its owner is dropped.

pub mod certificates;
pub mod client;
pub mod config;
mod eventually;
pub mod faults;
pub mod frames;
pub mod power;
mod preload;
pub mod proxy;
pub mod random;
pub mod receiver;
pub mod recorder;
pub mod sidecar;
pub mod volume;

pub use eventually::{Found, eventually};
