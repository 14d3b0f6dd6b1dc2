//! How long a commit waits for company.
//!
//! A commit costs about the same whether it holds one request or a hundred: an `fsync`, and the pages that it touches.
//! So when many requests come, it is worth a fraction of a millisecond to let them share one. Who waits decides how
//! long:
//!
//! * An accept is urgent, its caller waits for it. It is kept waiting only while fewer have come than shared the commit
//!   before, so that one caller at a time is never held up, and for [`URGENT`] at the most.
//! * A settlement is not: nobody waits for it, and should the process be killed before it is recorded then the delivery
//!   is made twice, which it may be anyway. It waits for an accept to come along, for [`UNHURRIED`] at the most.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// The longest that urgent requests wait for company.
const URGENT: Duration = Duration::from_micros(1_000);
/// How often it is looked whether enough company has come. To be woken by each of them would cost more.
const GLANCE: Duration = Duration::from_micros(200);
/// The longest that requests wait of which none is urgent.
const UNHURRIED: Duration = Duration::from_millis(4);

/// What waits to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Requests whose callers wait.
    pub(super) urgent: usize,
    /// Further requests have come; what they are is not known yet.
    pub(super) unseen: usize,
    /// Since the first one was seen.
    pub(super) since: Duration,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Commit,
    /// Look again after this time.
    Glance(Duration),
    /// Look again when another request comes, or after this time.
    Await(Duration),
}

/// Decides when to commit. `previous` is how many urgent requests shared the commit before.
pub(super) fn decide(waiting: Waiting, previous: usize) -> Decision {
    let Waiting { urgent, unseen, since } = waiting;
    match urgent {
        0 if since >= UNHURRIED => Decision::Commit,
        0 => Decision::Await(UNHURRIED - since),
        _ if urgent + unseen >= previous || since >= URGENT => Decision::Commit,
        _ => Decision::Glance(GLANCE.min(URGENT - since)),
    }
}

/// Receives what has come, or what comes first within `limit`. False if nothing did.
pub(super) fn receive_within<T>(
    receiver: &mut mpsc::Receiver<T>,
    into: &mut Vec<T>,
    most: usize,
    limit: Duration,
) -> bool {
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

    fn after(urgent: usize, unseen: usize, micros: u64, previous: usize) -> Decision {
        decide(Waiting { urgent, unseen, since: Duration::from_micros(micros) }, previous)
    }

    #[test]
    fn an_accept_waits_only_while_fewer_came_than_before() {
        assert_eq!(after(1, 0, 0, 0), Decision::Commit, "the first one");
        assert_eq!(after(1, 0, 0, 1), Decision::Commit, "one caller at a time");
        assert_eq!(after(3, 0, 0, 40), Decision::Glance(GLANCE));
        assert_eq!(after(3, 37, 0, 40), Decision::Commit, "enough company");
        assert_eq!(
            after(3, 0, 900, 40),
            Decision::Glance(Duration::from_micros(100)),
            "never beyond the limit"
        );
        assert_eq!(after(3, 0, 1_000, 40), Decision::Commit, "the time is up");
    }

    #[test]
    fn settlements_alone_wait_for_an_accept_and_not_for_ever() {
        assert_eq!(after(0, 0, 0, 0), Decision::Await(UNHURRIED));
        assert_eq!(after(0, 9, 3_000, 1), Decision::Await(Duration::from_millis(1)));
        assert_eq!(after(0, 0, 4_000, 40), Decision::Commit);
    }

    #[test]
    fn what_comes_while_waiting_is_received_at_once_and_the_wait_is_bounded() {
        let (sender, mut receiver) = mpsc::channel(4);
        let mut received = Vec::new();
        assert!(!receive_within(&mut receiver, &mut received, 9, Duration::from_millis(1)));
        let sending = thread::spawn(move || sender.blocking_send(7).unwrap());
        assert!(receive_within(&mut receiver, &mut received, 9, Duration::from_secs(60)));
        assert_eq!(received, [7]);
        sending.join().unwrap();
        assert!(!receive_within(&mut receiver, &mut received, 9, Duration::from_secs(60)), "nobody is left");
    }
}
