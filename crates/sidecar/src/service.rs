//! What a service manager is told: systemd's notifications (`sd_notify(3)`); and what it passes on. Without one, nothing is.

mod sockets;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use sockets::{Passed, Sockets};

/// The sidecar accepts events. If the service manager watches over it, then it hears from it until `shutdown`: as long as
/// the runtime turns.
pub(crate) fn ready(shutdown: &CancellationToken) {
    notify(&[NotifyState::Ready]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        // Twice as often as it has to be.
        let mut ticks = tokio::time::interval(limit / 2);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => notify(&[NotifyState::Watchdog]),
            }
        }
    });
}

/// The sidecar was asked to stop.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}
