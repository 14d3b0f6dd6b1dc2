//! What can go wrong between a queue and its users.

use std::sync::Arc;

/// Why a queue did not do what it was asked for. Nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The queue has reached its largest size; it has room again when deliveries were settled and forgotten.
    #[error("the queue is full: {size} of {max_size} bytes are in use")]
    Full {
        /// The bytes in use.
        size: u64,
        /// The largest size, as configured.
        max_size: u64,
    },
    /// The idempotency key was used before, for something else.
    #[error("the idempotency key was used before with another body")]
    Conflict,
    /// What is stored of an event does not match its checksum. It is not given out.
    #[error("the stored event is damaged: it does not match its checksum")]
    DamagedEvent,
    /// The storage failed. It is being reopened.
    #[error("the queue is not available: {0}")]
    Unavailable(Arc<str>),
    /// The file is damaged. That does not pass: it needs an operator, and a restart.
    #[error("the queue's file is damaged: {0}")]
    Damaged(Arc<str>),
    /// The queue has been closed.
    #[error("the queue is closed")]
    Closed,
}
