//! A connection that is being opened, for the one who asked and for those who wait.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Connection, Pool, Protocol};
use crate::endpoint::Origin;
use crate::http1::Http1;
use crate::http2::Http2;

/// The right to open a connection. Those who wait are told what comes of it, also when this is dropped.
#[derive(Debug)]
pub(crate) struct Opening {
    pool: Arc<Pool>,
    origin: Arc<Origin>,
    /// Whether others wait for it.
    awaited: bool,
}

impl Opening {
    pub(super) fn new(pool: &Arc<Pool>, origin: &Arc<Origin>, awaited: bool) -> Self {
        Self { pool: pool.clone(), origin: origin.clone(), awaited }
    }

    /// Where to.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where an HTTP/2 connection to it tells that there may be room.
    pub(crate) fn news(&self) -> watch::Sender<()> {
        let state = self.pool.state();
        state.origins.get(&*self.origin).map_or_else(watch::Sender::default, |entry| entry.news.clone())
    }

    /// It came to this. Whoever waits opens one for itself from now on.
    pub(crate) fn http1(mut self, http1: Box<Http1>) -> Connection {
        self.settle(Some(Protocol::Http1), 0);
        Connection::Http1(http1)
    }

    /// It came to this, which has room for others too. None if it ended in the meantime.
    pub(crate) fn http2(mut self, mut http2: Http2) -> Option<Connection> {
        let slot = http2.slot();
        let mut unkept = None;
        let mut state = self.pool.state();
        if state.closed {
            unkept = Some(http2);
        } else {
            state.origins.entry(self.origin.clone()).or_default().http2.push(http2);
            state.kept += 1;
        }
        let oldest = state.make_room();
        self.pool.keep_swept(&mut state);
        drop(state);
        drop((unkept, oldest));
        self.settle(Some(Protocol::Http2), 0);
        slot.map(Connection::Http2)
    }

    /// It came to nothing. Whoever waits goes on by itself.
    pub(crate) fn failed(mut self) {
        self.settle(None, 1);
    }

    fn settle(&mut self, protocol: Option<Protocol>, failures: u64) {
        let mut state = self.pool.state();
        let Some(entry) = state.origins.get_mut(&*self.origin) else { return };
        entry.protocol = protocol.or(entry.protocol);
        if std::mem::take(&mut self.awaited) {
            entry.opening = false;
            entry.failures += failures;
            entry.news.send_replace(());
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.awaited {
            self.settle(None, 0);
        }
    }
}
