//! What follows from attempts: for their deliveries, and for the lane.

use aquarium_delivery::{
    Decision, Exhaustion, Next, Outcome, State, Timestamp, is_too_old, next, next_of_test,
};
use aquarium_queue::{Attempt, Delivery, Key, Pause, Report, Settled, Settlement};

use super::{Concluded, Lane, Made, Notice, Sending, UNRECORDED};

impl Lane {
    /// While the breaker is open, what is too old is given up without an attempt: its turn may not come for long, and
    /// the queue must not fill up with it. Whatever else is too old still gets its attempt.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<Concluded> {
        if !self.breaker.is_open() || self.recording.len() >= UNRECORDED {
            return None;
        }
        let first = self.ready.first_entry()?;
        if !is_too_old(first.get().delivery.since(), &self.webhook.schedule, now) {
            return None;
        }
        let delivery = first.remove().delivery;
        Some(self.give_up(&delivery, Exhaustion::Age, now))
    }

    /// What is stored of a delivery is damaged: it is given up without an attempt, and says nothing of its endpoint. `None` if
    /// this lane did not start it.
    pub fn damaged(&mut self, key: Key, now: Timestamp) -> Option<Concluded> {
        let Sending { delivery, probe, .. } = self.sending.remove(&key)?;
        if probe {
            self.breaker.cancel_probe(now);
        }
        Some(self.give_up(&delivery, Exhaustion::Damaged, now))
    }

    /// Gives a delivery up without an attempt.
    fn give_up(&mut self, delivery: &Delivery, why: Exhaustion, now: Timestamp) -> Concluded {
        self.recording.insert(delivery.key, None);
        Concluded {
            since: delivery.since(),
            settlement: Settlement {
                delivery: delivery.key,
                at: now,
                attempt: None,
                state: Settled::Exhausted(why),
                ordered: delivery.ordered,
                pause: None,
            },
            report: None,
            notices: vec![Notice::Exhausted(delivery.id, why, None)],
        }
    }

    /// An attempt could not even be tried: it does not count, and the delivery stays in the queue until `retry_at`.
    pub fn untried(&mut self, key: Key, retry_at: Timestamp) {
        if let Some(Sending { probe, .. }) = self.sending.remove(&key) {
            self.stored.add(retry_at);
            if probe {
                self.breaker.cancel_probe(retry_at);
            }
        }
    }

    /// An attempt has ended. `jitter` and `probe_jitter` are from 0 up to 1. `None` if this lane did not start it.
    pub fn attempted(
        &mut self,
        key: Key,
        Made { at, webhook, sent, traced: _ }: Made,
        now: Timestamp,
        (jitter, probe_jitter): (f64, f64),
    ) -> Option<Concluded> {
        let was_full = self.sending.len() >= self.places();
        let Sending { delivery, probe, breaker_open } = self.sending.remove(&key)?;
        self.window.ended(&sent.outcome, at, sent.duration, now, was_full);
        let number = delivery.attempts.saturating_add(1);
        let mut decision = if delivery.test {
            next_of_test(&sent.outcome, now)
        } else {
            let attempts = delivery.attempts_of_schedule().saturating_add(1);
            let state = State { accepted_at: delivery.since(), attempts };
            next(state, &self.webhook.schedule, &sent.outcome, now, jitter)
        };
        if webhook.url != self.webhook.url {
            // It is the previous URL that is gone, perhaps the reason for the new one, or that wants a pause.
            if decision.next == Next::Suspend {
                decision.next = Next::RetryAt(now);
            }
            decision.pause_until = None;
        }
        let mut notices = self.note(&sent.outcome, &decision, probe, now, probe_jitter);
        let settled = match decision.next {
            Next::Delivered => Settled::Delivered,
            Next::RetryAt(at) => Settled::Retry(at),
            Next::Suspend => Settled::Suspended { url: self.webhook.url.to_string() },
            Next::Exhausted(why) => {
                notices.push(Notice::Exhausted(delivery.id, why, Some(sent.outcome.clone())));
                Settled::Exhausted(why)
            }
        };
        let due_again = match settled {
            Settled::Retry(at) => Some(at),
            Settled::Suspended { .. } => Some(now),
            Settled::Delivered | Settled::Exhausted(_) => None,
        };
        self.recording.insert(key, due_again);
        if let Some(at) = due_again {
            self.stored.add(at);
        }
        let (since, ordered) = (delivery.since(), delivery.ordered);
        let report = delivery.watcher.map(|watcher| {
            let report = Report {
                delivery: delivery.id,
                outcome: sent.outcome.clone(),
                duration: sent.duration,
                phases: sent.phases,
                excerpt: sent.excerpt.clone(),
                next: settled.clone(),
            };
            (watcher, report)
        });
        let attempt = Attempt {
            number,
            started_at: at,
            duration: sent.duration,
            phases: sent.phases,
            breaker_open,
            outcome: sent.outcome,
            excerpt: sent.excerpt,
        };
        let pause = notices.iter().find_map(|notice| match notice {
            Notice::Paused(until) => Some(Pause { until: *until, url: self.webhook.url.to_string() }),
            _ => None,
        });
        let settlement =
            Settlement { delivery: key, at: now, attempt: Some(attempt), state: settled, ordered, pause };
        Some(Concluded { since, settlement, report, notices })
    }

    /// Draws the lane's own conclusions from an outcome.
    fn note(
        &mut self,
        outcome: &Outcome,
        decision: &Decision,
        probe: bool,
        now: Timestamp,
        random: f64,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        if outcome.is_delivered() {
            if self.breaker.success() {
                notices.push(Notice::BreakerClosed);
            }
            return notices;
        }
        if self.breaker.failure(now, probe, random) {
            notices.push(Notice::BreakerOpened(outcome.clone()));
        }
        if let Some(until) =
            decision.pause_until.filter(|until| self.paused_until.is_none_or(|known| known < *until))
        {
            self.paused_until = Some(until);
            notices.push(Notice::Paused(until));
        }
        if decision.next == Next::Suspend && self.suspended.is_none() {
            self.suspended = Some(self.webhook.url.to_string());
            // What waits here goes back to the queue, where it is held.
            self.ready.clear();
            notices.push(Notice::Suspended);
        }
        if !notices.is_empty() {
            self.drop_bodies();
        }
        notices
    }
}
