//! How long a commit waits for company, and what it takes along.
//!
//! A commit costs about the same whether it holds one request or a hundred: an `fsync`, and the pages that it touches.
//! So when many requests come, it is worth a moment to let them share one. Who waits decides how long:
//!
//! * An accept is urgent, its caller waits for it. It is kept waiting only while fewer have come than shared the largest
//!   of the last commits, so that one caller at a time is never held up, and for [`URGENT`] at the most.
//! * A settlement is not: nobody waits for it, and should the process be killed before it is recorded then the delivery
//!   is made twice, which it may be anyway. It waits until there are [`MANY`], or for [`UNHURRIED`]; commits of accepts
//!   that come before pass it over. One that others may have waited for is urgent all the same.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// The longest that urgent requests wait for company.
const URGENT: Duration = Duration::from_micros(500);
/// How often it is looked whether enough company has come. To be woken by each of them would cost more.
const GLANCE: Duration = Duration::from_micros(200);
/// The longest that settlements wait to be recorded.
const UNHURRIED: Duration = Duration::from_millis(8);
/// As many settlements are recorded without waiting for more.
const MANY: usize = 512;

/// What waits to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Requests whose callers wait.
    pub(super) urgent: usize,
    /// For how long it has been known of urgent ones.
    pub(super) urgent_for: Duration,
    /// Settlements.
    pub(super) settlements: usize,
    /// How long the first of them has waited.
    pub(super) settlements_for: Duration,
    /// Further requests have come; what they are is not known yet.
    pub(super) unseen: usize,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Commit what is urgent, and settlements if they are due.
    Commit { settlements: bool },
    /// Look again after this time.
    Glance(Duration),
    /// Look again when another request comes, or after this time if there is one.
    Await(Option<Duration>),
}

/// How many urgent requests to expect after so many shared a commit. What was expected before is forgotten by and by.
pub(super) fn expect(expected: usize, shared: usize) -> usize {
    shared.max(expected - expected.div_ceil(8))
}

/// Decides when to commit what, when as many urgent requests are `expected`.
pub(super) fn decide(waiting: Waiting, expected: usize) -> Decision {
    let Waiting { urgent, urgent_for, settlements, settlements_for, unseen } = waiting;
    let due = settlements >= MANY || (settlements > 0 && settlements_for >= UNHURRIED);
    match urgent {
        0 if due => Decision::Commit { settlements: true },
        0 if settlements > 0 => Decision::Await(Some(UNHURRIED - settlements_for)),
        0 => Decision::Await(None),
        _ if urgent + unseen >= expected || urgent_for >= URGENT => Decision::Commit { settlements: due },
        _ => Decision::Glance(GLANCE.min(URGENT - urgent_for)),
    }
}

/// Receives what has come, or what comes first, within `limit` if there is one. False if nothing did.
pub(super) fn receive<T>(
    receiver: &mut mpsc::Receiver<T>,
    into: &mut Vec<T>,
    most: usize,
    limit: Option<Duration>,
) -> bool {
    let Some(limit) = limit else { return receiver.blocking_recv_many(into, most) > 0 };
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let deadline = Instant::now() + limit;
    loop {
        if let Poll::Ready(received) = receiver.poll_recv_many(&mut context, into, most) {
            return received > 0;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urgent(urgent: usize, unseen: usize, micros: u64, expected: usize) -> Decision {
        let urgent_for = Duration::from_micros(micros);
        decide(Waiting { urgent, unseen, urgent_for, ..Waiting::default() }, expected)
    }

    fn mixed(urgent: usize, settlements: usize, millis: u64) -> Decision {
        let settlements_for = Duration::from_millis(millis);
        decide(Waiting { urgent, settlements, settlements_for, ..Waiting::default() }, 1)
    }

    #[test]
    fn an_accept_waits_only_while_fewer_came_than_before() {
        let commit = Decision::Commit { settlements: false };
        assert_eq!(urgent(1, 0, 0, 0), commit, "the first one");
        assert_eq!(urgent(1, 0, 0, 1), commit, "one caller at a time");
        assert_eq!(urgent(3, 0, 0, 40), Decision::Glance(GLANCE));
        assert_eq!(urgent(3, 37, 0, 40), commit, "enough company");
        assert_eq!(
            urgent(3, 0, 400, 40),
            Decision::Glance(Duration::from_micros(100)),
            "never beyond the limit"
        );
        assert_eq!(urgent(3, 0, 500, 40), commit, "the time is up");
    }

    #[test]
    fn a_burst_is_expected_again_for_a_while_only() {
        assert_eq!(expect(0, 64), 64);
        assert_eq!(expect(64, 1), 56);
        let commits = std::iter::successors(Some(64), |expected| Some(expect(*expected, 1)));
        assert_eq!(
            commits.take_while(|expected| *expected > 1).count(),
            20,
            "then one caller waits for nobody"
        );
    }

    #[test]
    fn settlements_wait_until_they_are_many_or_old() {
        assert_eq!(mixed(0, 0, 0), Decision::Await(None), "there is nothing");
        assert_eq!(mixed(0, 1, 3), Decision::Await(Some(Duration::from_millis(5))));
        assert_eq!(mixed(1, 1, 3), Decision::Commit { settlements: false }, "accepts go ahead");
        for decided in [mixed(0, 1, 8), mixed(1, 1, 8), mixed(0, MANY, 0), mixed(1, MANY, 0)] {
            assert_eq!(decided, Decision::Commit { settlements: true });
        }
    }

    #[test]
    fn what_comes_while_waiting_is_received_at_once_and_the_wait_is_bounded() {
        let (sender, mut receiver) = mpsc::channel(4);
        let mut received = Vec::new();
        assert!(!receive(&mut receiver, &mut received, 9, Some(Duration::from_millis(1))));
        let sending = thread::spawn(move || sender.blocking_send(7).unwrap());
        assert!(receive(&mut receiver, &mut received, 9, Some(Duration::from_secs(60))));
        assert_eq!(received, [7]);
        sending.join().unwrap();
        assert!(!receive(&mut receiver, &mut received, 9, Some(Duration::from_secs(60))), "nobody is left");
    }
}
