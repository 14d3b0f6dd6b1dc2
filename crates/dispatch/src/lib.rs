//! Lanes: claim, send, settle.
//!
//! A [`Dispatcher`] runs one lane for each webhook that has something to send. A lane owns its state in one task: there
//! are no locks and no shared maps. What it does next is decided by [`lane::Lane`], a plain value without I/O, clock or
//! chance; the task around it carries the decisions out.
//!
//! The configuration may change at any time. What did not change is not disturbed. What did counts for every request that
//! has not been handed to a connection yet: an attempt is made from one configuration as a whole, the newest.
//!
//! Memory does not depend on the backlog. A lane holds a bounded number of deliveries, bodies in memory have one byte
//! [`Budget`] for the whole process, and whatever has no room stays in the queue until it is claimed.

mod attempt;
mod budget;
mod clock;
mod control;
mod dispatcher;
mod endpoint;
pub mod lane;
mod observe;
mod replays;
mod runner;
mod sender;
mod slots;

pub use budget::{Budget, Reserved};
pub use clock::{Chance, Clock};
pub use control::{Control, LaneStatus, Load};
pub use dispatcher::{Dispatcher, Limits};
pub use endpoint::{Unusable, endpoint};
pub use observe::{Observe, ObserveLane, Traced, Unobserved};
pub use replays::{Replays, Waker};
pub use sender::Sender;
