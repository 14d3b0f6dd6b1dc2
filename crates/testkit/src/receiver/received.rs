//! What arrived at a receiver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The header that is the same on every attempt of a delivery.
const WEBHOOK_ID: &str = "webhook-id";

/// A request, as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// How many requests arrived before it, on whatever connection. A request has arrived when its body has.
    pub number: usize,
    /// On which connection, from 0 in the order they were accepted.
    pub connection: usize,
    /// When it had arrived.
    pub at: Instant,
    /// The method, as sent.
    pub method: String,
    /// The path with the query, as sent.
    pub path: String,
    /// The headers, in the order and the spelling in which they were sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without the framing of chunks. Empty if the answer did not wait for it.
    pub body: Bytes,
}

impl Received {
    /// The value of the first header of this name in any spelling, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        str::from_utf8(value).ok()
    }

    /// The values of every header of this name in any spelling.
    pub fn headers_named(&self, name: &str) -> Vec<&[u8]> {
        let named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("request {} has no JSON body: {error}\n{:?}", self.number, self.body),
        }
    }
}

/// How many requests arrived, and how many of them were repeated: by their `Webhook-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// All requests.
    pub requests: usize,
    /// Different values of `Webhook-Id`.
    pub unique: usize,
    /// Requests with a `Webhook-Id` that had arrived before.
    pub duplicates: usize,
}

/// The book that a receiver keeps. It outlives the connections, and those who wait for it to fill.
#[derive(Debug)]
pub(super) struct Book {
    whole: bool,
    pages: Mutex<Pages>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Pages {
    count: usize,
    received: Vec<Arc<Received>>,
    ids: HashMap<Box<str>, usize>,
    duplicates: usize,
}

impl Book {
    /// A book that keeps whole requests, or else their number and their ids.
    pub(super) fn new(whole: bool) -> Book {
        Book { whole, pages: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// Enters a request, which gets its number here.
    pub(super) fn enter(&self, mut request: Received) -> Arc<Received> {
        let mut pages = self.pages();
        request.number = pages.count;
        pages.count += 1;
        if let Some(id) = request.header(WEBHOOK_ID) {
            if let Some(times) = pages.ids.get_mut(id) {
                *times += 1;
                pages.duplicates += 1;
            } else {
                pages.ids.insert(id.into(), 1);
            }
        }
        let request = Arc::new(request);
        if self.whole {
            pages.received.push(Arc::clone(&request));
        }
        // Under the lock, so that the count never goes back.
        self.count.send_replace(pages.count);
        request
    }

    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub(super) fn received(&self) -> Vec<Arc<Received>> {
        assert!(self.whole, "this receiver was told not to record requests: ask it for a tally");
        self.pages().received.clone()
    }

    pub(super) fn tally(&self) -> Tally {
        let pages = self.pages();
        Tally { requests: pages.count, unique: pages.ids.len(), duplicates: pages.duplicates }
    }

    /// How many requests had this `Webhook-Id`.
    pub(super) fn times(&self, id: &str) -> usize {
        self.pages().ids.get(id).copied().unwrap_or(0)
    }

    pub(super) async fn wait_for(&self, count: usize, within: Duration) {
        let mut arrived = self.count.subscribe();
        let enough = timeout(within, arrived.wait_for(|arrived| *arrived >= count)).await;
        if enough.is_err() {
            panic!("{count} requests did not arrive within {within:?}, but {}", self.summary());
        }
    }

    /// What did arrive, for somebody who missed something.
    fn summary(&self) -> String {
        const SHOWN: usize = 50;
        let pages = self.pages();
        let mut summary = format!("{} did", pages.count);
        for request in pages.received.iter().take(SHOWN) {
            let Received { number, connection, method, path, body, .. } = request.as_ref();
            let id = request.header(WEBHOOK_ID).unwrap_or("none");
            let length = body.len();
            summary += &format!(
                "\n  {number}: {method} {path}, {length} bytes, connection {connection}, webhook-id {id}"
            );
        }
        summary
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
