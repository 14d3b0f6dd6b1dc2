//! What a delivery is, and what happens to it next.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no randomness. Time is a [`Timestamp`] that
//! the caller read, chance is a number that the caller drew.
mod breaker;
mod detail;
mod hops;
mod id;
mod name;
mod next;
mod order;
mod outcome;
mod phases;
mod rate;
mod schedule;
mod time;
mod trace;
mod window;

pub use breaker::{Breaker, BreakerStatus, FIRST_PROBE_INTERVAL, LONGEST_PROBE_INTERVAL, Permit};
pub use detail::Detail;
pub use hops::{Hops, InvalidHops};
pub use id::{DeliveryId, ENCODED_LENGTH, EventId, InvalidId, ReplayId};
pub use name::{InvalidName, MAX_NAME, WebhookName, check_name};
pub use next::{Decision, Exhaustion, Next, State, is_too_old, jittered, next, next_of_test};
pub use order::{Order, Subject};
pub use outcome::{Failure, FailureKind, Outcome, RetryAfter};
pub use phases::Phases;
pub use rate::{Limiter, Per, Rate};
pub use schedule::Schedule;
pub use time::Timestamp;
pub use trace::{InvalidTraceContext, SpanId, TraceContext};
pub use window::{SLOW, Window};
