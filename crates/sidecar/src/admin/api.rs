//! What the handlers of the admin API work with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aquarium_config::Config;
use aquarium_config::reload::Handle;
use aquarium_dispatch::{Budget, Chance, Clock, Control, Waker};
use bytes::Bytes;
use http::request::Parts;
use hyper::body::Incoming;

use super::fields::Fields;
use super::router::Captured;
use super::test::Tests;
use crate::http::{Answer, Problem, Room};
use crate::ingest::Bodies;
use crate::log::Filter;
use crate::telemetry::Metrics;

/// What requests are answered from.
#[derive(Debug)]
pub(super) struct Api<Q> {
    pub(super) configuration: Handle,
    pub(super) queue: Q,
    pub(super) control: Control,
    /// Wakes the replays.
    pub(super) replays: Waker,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    pub(super) metrics: Metrics,
    /// Of the ingest.
    pub(super) room: Room,
    /// Of the ingest.
    pub(super) bodies: Bodies,
    /// Changes what is logged, if the process logs.
    pub(super) log: Option<Filter>,
    /// Bytes of payloads that are being answered with.
    pub(super) payloads: Budget,
    /// Tests under way.
    pub(super) tests: Tests,
    /// The OpenAPI document.
    pub(super) document: Bytes,
}

impl<Q> Api<Q> {
    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.configuration.config().borrow().clone()
    }
}

/// A request on its way to what answers it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) head: Parts,
    pub(super) path: Captured,
    pub(super) body: Incoming,
}

impl Call {
    /// The parameters of the query, of which there may be these.
    pub(super) fn query(&self, known: &[String]) -> Result<Fields, Problem> {
        Fields::of_query(self.head.uri.query(), known)
    }

    /// Refuses parameters.
    pub(super) fn no_query(&self) -> Result<(), Problem> {
        self.query(&[]).map(drop)
    }
}

/// What answers a request.
pub(super) type Answers<Q> = for<'a> fn(&'a Api<Q>, Call) -> Answering<'a>;

/// An answer that is being made.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>>;
