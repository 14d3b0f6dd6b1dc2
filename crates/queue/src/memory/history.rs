//! History of the engine in memory: every question looks at everything.

use std::collections::BTreeSet;

use aquarium_delivery::{DeliveryId, EventId, ReplayId, Timestamp, WebhookName};

use super::{Memory, Stored, StoredDelivery, StoredEvent, event_of, first_delivery_of};
use crate::history::{
    Added, Count, DeliverySummary, Direction, EventSummary, Filter, History, Job, JobFilter, JobState,
    LONGEST_PAGE, Listed, MOST_JOBS, Missed, Replay, Replayed, Select, StateKind, WebhookStats,
};
use crate::{Delivery, Error, Key, PARKED, State};

impl Stored {
    fn event_summary(&self, key: Key) -> Option<EventSummary> {
        let event = self.events.get(&key)?;
        Some(EventSummary {
            key,
            id: event.id,
            organization: event.organization.clone(),
            project: event.project.clone(),
            kind: event.kind.clone(),
            accepted_at: event.accepted_at,
            size: event.body.len(),
        })
    }

    fn delivery_summary(&self, key: Key) -> Option<DeliverySummary> {
        let delivery = self.deliveries.get(&key)?;
        Some(DeliverySummary {
            key,
            id: delivery.id,
            event: self.event_summary(delivery.event)?,
            webhook: delivery.webhook.clone(),
            state: delivery.state,
            attempts: delivery.made,
            last_attempt: delivery.attempts.last().cloned(),
            settled_at: delivery.settled_at,
            replayed_at: delivery.replayed_at,
            test: delivery.test,
        })
    }

    /// The keys of deliveries that are wanted, in order.
    fn wanted(&self, filter: &Filter) -> BTreeSet<Key> {
        let wanted = |delivery: &StoredDelivery| {
            let event = self.events.get(&delivery.event);
            event.is_some_and(|event| admits_event(filter, event)) && admits_delivery(filter, delivery)
        };
        self.deliveries.iter().filter(|(_, delivery)| wanted(delivery)).map(|(key, _)| *key).collect()
    }

    fn wanted_events(&self, filter: &Filter) -> BTreeSet<Key> {
        if filter.webhook.is_some() || !filter.states.is_empty() {
            return self.wanted(filter).into_iter().map(event_of).collect();
        }
        self.events.iter().filter(|(_, event)| admits_event(filter, event)).map(|(key, _)| *key).collect()
    }

    fn missed(&self, missed: &Missed) -> BTreeSet<Key> {
        let filter = Filter {
            organization: Some(missed.webhook.organization().into()),
            project: Some(missed.webhook.project().into()),
            since: missed.since,
            until: missed.until,
            ..Filter::default()
        };
        let mut events = self.wanted_events(&filter);
        events.retain(|key| {
            let wanted =
                |event: &StoredEvent| missed.kinds.as_ref().is_none_or(|kinds| kinds.contains(&*event.kind));
            self.events.get(key).is_some_and(wanted)
                && !self.of_event(*key).any(|(_, delivery)| delivery.webhook == missed.webhook)
        });
        events
    }

    fn stats(&self, webhook: WebhookName, bound: usize) -> WebhookStats {
        let of_webhook = || self.deliveries.values().filter(|delivery| delivery.webhook == webhook);
        let count = |kind| {
            let found = of_webhook().filter(|delivery| delivery.state.kind() == kind).count();
            Count { at_least: found.min(bound) as u64, exact: found <= bound }
        };
        let pending = self.pending(&webhook);
        let oldest = pending.keys().take(bound.max(1)).map(|(_, key)| event_of(*key)).min();
        WebhookStats {
            pending: count(StateKind::Pending),
            next_due: pending.keys().next().map(|(due_at, _)| *due_at).filter(|due_at| *due_at != PARKED),
            oldest_pending: oldest.and_then(|event| Some(self.events.get(&event)?.accepted_at)),
            exhausted: count(StateKind::Exhausted),
            skipped: count(StateKind::Skipped),
            suspension: self.suspended.get(&webhook).cloned(),
            webhook,
        }
    }

    fn replay(&mut self, replay: Replay) -> (Replayed, Vec<Delivery>) {
        let (mut replayed, mut offers) = (Replayed::default(), Vec::new());
        let is_running = |job: &&mut Job| job.state == JobState::Running;
        if let Some(step) = &replay.step
            && self.jobs.iter_mut().filter(is_running).all(|job| job.id != step.id)
        {
            return (replayed, offers);
        }
        let watched = |delivery| Delivery { watcher: replay.watcher.clone(), ..delivery };
        for key in replay.deliveries {
            match self.revive(key, replay.at) {
                Some(true) => {
                    replayed.revived += 1;
                    offers.extend(self.offer(key, replay.at).map(watched));
                }
                Some(false) => {
                    replayed.hastened += 1;
                    offers.extend(self.offer(key, replay.at));
                }
                None => {}
            }
        }
        for added in replay.added {
            if let Some(key) = self.add(added, replay.at) {
                replayed.added += 1;
                offers.extend(self.offer(key, replay.at).map(watched));
            }
        }
        if let Some(step) = replay.step
            && let Some(job) = self.jobs.iter_mut().find(|job| job.id == step.id)
        {
            job.next = Some(step.next.unwrap_or(job.end));
            job.replayed += (replayed.revived + replayed.added) as u64;
            job.passed_over += step.passed_over;
            if step.next.is_none() {
                (job.state, job.state_since) = (JobState::Done, replay.at);
            }
        }
        (replayed, offers)
    }

    /// True if it had ended, false if it was pending.
    fn revive(&mut self, key: Key, at: Timestamp) -> Option<bool> {
        let delivery = self.deliveries.get_mut(&key)?;
        match delivery.state {
            State::Pending { due_at: PARKED } => None,
            State::Pending { due_at } => {
                delivery.state = State::Pending { due_at: due_at.min(at) };
                Some(false)
            }
            State::Delivered | State::Exhausted(_) | State::Skipped => {
                delivery.state = State::Pending { due_at: at };
                delivery.settled_at = at;
                delivery.replayed_at = Some(at);
                delivery.earlier_attempts = delivery.made;
                delivery.subjects.clear();
                Some(true)
            }
        }
    }

    fn add(&mut self, added: Added, at: Timestamp) -> Option<Key> {
        self.events.get(&added.event)?;
        if self.of_event(added.event).any(|(_, delivery)| delivery.webhook == added.webhook) {
            return None;
        }
        let last = self.of_event(added.event).last().map(|(key, _)| *key);
        let key = last.map_or(first_delivery_of(added.event), |last| Key(last.0 + 1));
        let stored = StoredDelivery {
            id: added.delivery,
            event: added.event,
            webhook: added.webhook,
            subjects: Vec::new(),
            state: State::Pending { due_at: at },
            settled_at: at,
            made: 0,
            attempts: Vec::new(),
            earlier_attempts: 0,
            replayed_at: Some(at),
            test: false,
        };
        self.deliveries.insert(key, stored);
        Some(key)
    }

    fn offer(&self, key: Key, at: Timestamp) -> Option<Delivery> {
        let delivery = self.deliveries.get(&key)?;
        let event = self.events.get(&delivery.event)?;
        Some(Delivery {
            key,
            id: delivery.id,
            webhook: delivery.webhook.clone(),
            event: event.id,
            event_key: delivery.event,
            accepted_at: event.accepted_at,
            due_at: at,
            attempts: delivery.made,
            earlier_attempts: delivery.earlier_attempts,
            replayed_at: Some(at),
            test: delivery.test,
            ordered: false,
            size: event.body.len(),
            body: None,
            trace: None,
            hops: aquarium_delivery::Hops::FIRST,
            damaged: false,
            watcher: None,
        })
    }

    fn create_job(&mut self, id: ReplayId, what: JobFilter, at: Timestamp) -> Result<Job, Error> {
        if let Some(known) = self.job(id) {
            return Ok(known);
        }
        if self.jobs.len() >= MOST_JOBS {
            let ended = self.jobs.iter().position(|job| job.state != JobState::Running);
            let Some(ended) = ended else {
                return Err(Error::Unavailable(format!("{MOST_JOBS} replays are running").into()));
            };
            self.jobs.remove(ended);
        }
        let beyond = Key(self.last_event + 1);
        let oldest = self.events.keys().next().copied().unwrap_or(beyond);
        let (start, end) = match &what {
            JobFilter::Deliveries(_) => (first_delivery_of(oldest), first_delivery_of(beyond)),
            JobFilter::Missed(_) => (oldest, beyond),
        };
        let job = Job {
            id,
            what,
            created_at: at,
            state: JobState::Running,
            state_since: at,
            next: None,
            end,
            start,
            replayed: 0,
            passed_over: 0,
        };
        self.jobs.push(job.clone());
        Ok(job)
    }

    fn job(&self, id: ReplayId) -> Option<Job> {
        self.jobs.iter().find(|job| job.id == id).cloned()
    }

    fn cancel_job(&mut self, id: ReplayId, at: Timestamp) -> Option<Job> {
        let job = self.jobs.iter_mut().find(|job| job.id == id)?;
        if job.state == JobState::Running {
            (job.state, job.state_since) = (JobState::Cancelled, at);
        }
        Some(job.clone())
    }
}

fn admits_event(filter: &Filter, event: &StoredEvent) -> bool {
    filter.organization.as_ref().is_none_or(|wanted| *wanted == event.organization)
        && filter.project.as_ref().is_none_or(|wanted| *wanted == event.project)
        && filter.kind.as_ref().is_none_or(|wanted| *wanted == event.kind)
        && filter.since.is_none_or(|since| event.accepted_at >= since)
        && filter.until.is_none_or(|until| event.accepted_at < until)
        && filter.event.is_none_or(|wanted| wanted == event.id)
}

fn admits_delivery(filter: &Filter, delivery: &StoredDelivery) -> bool {
    filter.webhook.as_ref().is_none_or(|wanted| *wanted == delivery.webhook)
        && (filter.states.is_empty() || filter.states.contains(&delivery.state.kind()))
}

/// The page of these keys that starts at `from`.
fn page<T>(
    keys: &BTreeSet<Key>,
    from: Option<Key>,
    direction: Direction,
    limit: usize,
    summary: impl Fn(Key) -> Option<T>,
) -> Listed<T> {
    let limit = limit.clamp(1, LONGEST_PAGE);
    let mut keys: Vec<Key> = match (direction, from) {
        (Direction::OldestFirst, from) => {
            keys.range(from.unwrap_or(Key(0))..).take(limit + 1).copied().collect()
        }
        (Direction::NewestFirst, from) => {
            keys.range(..=from.unwrap_or(Key(u64::MAX))).rev().take(limit + 1).copied().collect()
        }
    };
    let next = keys.get(limit).copied();
    keys.truncate(limit);
    Listed { items: keys.into_iter().filter_map(summary).collect(), next }
}

impl History for Memory {
    async fn events(&self, select: Select) -> Result<Listed<EventSummary>, Error> {
        let stored = self.stored();
        let wanted = stored.wanted_events(&select.filter);
        Ok(page(&wanted, select.from, select.direction, select.limit, |key| stored.event_summary(key)))
    }

    async fn deliveries(&self, select: Select) -> Result<Listed<DeliverySummary>, Error> {
        let stored = self.stored();
        let wanted = stored.wanted(&select.filter);
        Ok(page(&wanted, select.from, select.direction, select.limit, |key| stored.delivery_summary(key)))
    }

    async fn count(&self, filter: Filter) -> Result<Count, Error> {
        Ok(Count { at_least: self.stored().wanted(&filter).len() as u64, exact: true })
    }

    async fn event(&self, id: EventId) -> Result<Option<EventSummary>, Error> {
        let stored = self.stored();
        let found = stored.events.iter().find(|(_, event)| event.id == id);
        Ok(found.and_then(|(key, _)| stored.event_summary(*key)))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliverySummary>, Error> {
        let stored = self.stored();
        let found = stored.deliveries.iter().find(|(_, delivery)| delivery.id == id);
        Ok(found.and_then(|(key, _)| stored.delivery_summary(*key)))
    }

    async fn missed(
        &self,
        missed: Missed,
        from: Option<Key>,
        limit: usize,
    ) -> Result<Listed<EventSummary>, Error> {
        let stored = self.stored();
        let wanted = stored.missed(&missed);
        Ok(page(&wanted, from, Direction::OldestFirst, limit, |key| stored.event_summary(key)))
    }

    async fn webhooks(&self, names: Vec<WebhookName>, bound: usize) -> Result<Vec<WebhookStats>, Error> {
        let stored = self.stored();
        Ok(names.into_iter().map(|name| stored.stats(name, bound)).collect())
    }

    async fn waiting(&self) -> Result<Vec<WebhookName>, Error> {
        Ok(self.stored().backlog().waiting.into_iter().map(|(webhook, _)| webhook).collect())
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, Error> {
        let (replayed, offers) = self.stored().replay(replay);
        if !offers.is_empty() {
            // Nobody may be sending.
            let _ = self.committed.send(offers).await;
        }
        Ok(replayed)
    }

    async fn create_job(&self, id: ReplayId, what: JobFilter, at: Timestamp) -> Result<Job, Error> {
        self.stored().create_job(id, what, at)
    }

    async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error> {
        Ok(self.stored().jobs.iter().rev().take(limit).cloned().collect())
    }

    async fn job(&self, id: ReplayId) -> Result<Option<Job>, Error> {
        Ok(self.stored().job(id))
    }

    async fn cancel_job(&self, id: ReplayId, at: Timestamp) -> Result<Option<Job>, Error> {
        Ok(self.stored().cancel_job(id, at))
    }

    async fn index(&self) -> Result<bool, Error> {
        Ok(false)
    }
}
