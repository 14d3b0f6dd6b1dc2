//! What every engine promises of sending again, one function for each promise.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquarium_delivery::{DeliveryId, Exhaustion, Order, ReplayId};
use aquarium_queue::history::{
    Added, Direction, Filter, History, Job, JobFilter, JobState, JobStep, MOST_JOBS, Missed, Replay,
    Replayed, Select, StateKind,
};
use aquarium_queue::{Commits, Delivery, Key, PARKED, Settled, State};

use crate::fixture::{
    NOW, accept, after, claim, event, ids, ordered, random, settlement, submission, webhook,
};
use crate::history::{deliveries, missed, mixed, select, settle};

fn replay(at: u64, deliveries: &[&Delivery]) -> Replay {
    let deliveries = deliveries.iter().map(|delivery| delivery.key).collect();
    Replay { at: after(at), deliveries, ..Replay::default() }
}

pub(crate) async fn what_has_ended_is_sent_again_and_keeps_its_attempts(
    queue: impl History,
    mut commits: Commits,
) {
    let mut new: Vec<_> = (1..=4).map(|n| event(n, n, &["ops"])).collect();
    new[3].targets[0].skipped = true;
    let skipped = new[3].targets[0].delivery;
    let offered = accept(&queue, &mut commits, new).await;
    settle(&queue, &offered[0], 10, Settled::Delivered).await;
    settle(&queue, &offered[1], 10, Settled::Exhausted(Exhaustion::Age)).await;
    settle(&queue, &offered[2], 10, Settled::Exhausted(Exhaustion::Attempts)).await;
    let skipped = queue.delivery(skipped).await.unwrap().unwrap();
    let mut keys: Vec<_> = offered.iter().map(|delivery| delivery.key).collect();
    keys.extend([skipped.key, Key(offered[0].key.0 + 7), Key(u64::from(u32::MAX))]);
    let done = queue.replay(Replay { at: after(20), deliveries: keys, ..Replay::default() }).await.unwrap();
    assert_eq!(done, Replayed { revived: 4, ..Replayed::default() });

    let again = commits.recv().await.unwrap();
    assert_eq!(ids(&again), [offered[0].id, offered[1].id, offered[2].id, skipped.id]);
    let claimed = claim(&queue, "ops", 20).await.deliveries;
    assert_eq!(ids(&claimed), ids(&again));
    for (again, attempts) in again.iter().chain(&claimed).zip([1, 1, 1, 0, 1, 1, 1, 0]) {
        assert_eq!((again.attempts, again.earlier_attempts, again.due_at), (attempts, attempts, after(20)));
        assert_eq!(
            (again.replayed_at, again.ordered, again.attempts_of_schedule()),
            (Some(after(20)), false, 0)
        );
        assert_eq!(again.since(), after(20));
    }
    assert_eq!(again[0].body, None, "it is read when its turn comes");
    let listed = queue.delivery(again[0].id).await.unwrap().unwrap();
    assert_eq!((listed.state, listed.replayed_at), (State::Pending { due_at: after(20) }, Some(after(20))));

    settle(&queue, &again[0], 30, Settled::Retry(after(60))).await;
    let later = claim(&queue, "ops", 60).await.deliveries;
    let first = later.iter().find(|delivery| delivery.key == again[0].key).unwrap();
    assert_eq!((first.attempts, first.earlier_attempts), (2, 1));
    settle(&queue, first, 61, Settled::Delivered).await;
    let record = queue.record(first.key).await.unwrap().unwrap();
    assert_eq!(record.state, State::Delivered);
    assert_eq!(record.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
}

pub(crate) async fn what_is_pending_is_hastened_unless_it_is_parked(
    queue: impl History,
    mut commits: Commits,
) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"]), event(2, 1, &["ops"])]).await;
    settle(&queue, &offered[0], 1, Settled::Retry(after(900))).await;
    let done = queue.replay(replay(10, &[&offered[0], &offered[1]])).await.unwrap();
    assert_eq!(done, Replayed { hastened: 2, ..Replayed::default() });
    let told = commits.recv().await.unwrap();
    assert_eq!(ids(&told), [offered[0].id, offered[1].id]);
    assert!(
        told.iter().all(|delivery| delivery.replayed_at == Some(after(10))),
        "lanes have to look at them"
    );
    let due: Vec<_> =
        claim(&queue, "ops", 10).await.deliveries.iter().map(|d| (d.due_at, d.replayed_at)).collect();
    assert_eq!(due, [(after(1), None), (after(10), None)], "it counts on by its schedule");

    let line = (3..=4).map(|n| ordered(event(n, n, &["line"]), Order::Fifo, &[])).collect();
    queue.accept(submission(line)).await.unwrap();
    let first = commits.recv().await.unwrap().remove(0);
    let page = queue.deliveries(select(Filter::default(), Direction::NewestFirst, 1)).await.unwrap();
    assert_eq!(page.items[0].state, State::Pending { due_at: PARKED });
    let parked = Replay { at: after(10), deliveries: vec![page.items[0].key], ..Replay::default() };
    assert_eq!(queue.replay(parked).await.unwrap(), Replayed::default());
    assert_eq!(ids(&claim(&queue, "line", 99).await.deliveries), [first.id]);
}

pub(crate) async fn a_replayed_delivery_stands_in_no_line(queue: impl History, mut commits: Commits) {
    let line = |n| ordered(event(n, n, &["ops"]), Order::Fifo, &[]);
    let first = accept(&queue, &mut commits, vec![line(1)]).await.remove(0);
    settle(&queue, &first, 2, Settled::Exhausted(Exhaustion::Attempts)).await;
    queue.replay(replay(5, &[&first])).await.unwrap();
    let again = commits.recv().await.unwrap().remove(0);
    let fresh = accept(&queue, &mut commits, vec![line(2)]).await.remove(0);
    assert_eq!(fresh.due_at, after(2), "it does not wait for a replayed one");
    queue.accept(submission(vec![line(3)])).await.unwrap();
    let released = queue.settle(vec![settlement(again.key, 6, Settled::Delivered)]).await.unwrap();
    assert_eq!(released, 0, "nobody waited for it");
    assert_eq!(ids(&claim(&queue, "ops", 99).await.deliveries), [fresh.id]);
    assert_eq!(queue.settle(vec![settlement(fresh.key, 6, Settled::Delivered)]).await.unwrap(), 1);
}

pub(crate) async fn a_delivery_is_added_once_to_an_old_event(queue: impl History, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"]), event(2, 1, &["ops"])]).await;
    let added = |number: u64, event: Key, name: &str| Added {
        event,
        delivery: DeliveryId::new(NOW, random(100 + number)),
        webhook: webhook(name),
    };
    let event_key = offered[0].event_key;
    let replay = Replay {
        at: after(50),
        added: vec![
            added(1, event_key, "new"),
            added(2, event_key, "new"),
            added(3, event_key, "ops"),
            added(4, Key(999), "new"),
        ],
        ..Replay::default()
    };
    assert_eq!(queue.replay(replay.clone()).await.unwrap(), Replayed { added: 1, ..Replayed::default() });
    assert_eq!(queue.replay(replay.clone()).await.unwrap(), Replayed::default());
    let offers = commits.recv().await.unwrap();
    let [offer] = &offers[..] else { panic!("{offers:?}") };
    assert_eq!((offer.id, &offer.webhook), (replay.added[0].delivery, &webhook("new")));
    assert_eq!((offer.replayed_at, offer.due_at, offer.attempts), (Some(after(50)), after(50), 0));
    assert_eq!((offer.event, offer.accepted_at), (offered[0].event, offered[0].accepted_at));
    assert_eq!(ids(&claim(&queue, "new", 50).await.deliveries), [offer.id]);
    assert_eq!(queue.delivery(offer.id).await.unwrap().unwrap().key, offer.key);
    let all = deliveries(&queue, Filter::default(), Direction::OldestFirst, 9).await;
    assert_eq!(all, [offered[0].id, offer.id, offered[1].id], "beside the others of its event");
    settle(&queue, offer, 51, Settled::Delivered).await;
    assert_eq!(queue.record(offer.key).await.unwrap().unwrap().attempts.len(), 1);
}

pub(crate) async fn events_that_a_webhook_missed_are_found(queue: impl History, mut commits: Commits) {
    let offered = mixed(&queue, &mut commits).await;
    let mut all: Vec<_> = offered.iter().map(|delivery| delivery.event).collect();
    all.dedup();
    let of = |name: &str| Missed { webhook: webhook(name), kinds: None, since: None, until: None };
    // The events of `acme/urban` are the first and the fourth; the second of these is not for `labels`.
    for limit in [1, 9] {
        assert_eq!(missed(&queue, of("new"), limit).await, [all[0], all[3]]);
        assert_eq!(missed(&queue, of("labels"), limit).await, [all[3]]);
        assert_eq!(missed(&queue, of("ops"), limit).await, []);
    }
    let kinds = |kind: &str| Some(Arc::new(BTreeSet::from([kind.to_owned(), "other".to_owned()])));
    assert_eq!(missed(&queue, Missed { kinds: kinds("test"), ..of("new") }, 9).await, [all[0]]);
    assert_eq!(missed(&queue, Missed { kinds: Some(Arc::default()), ..of("new") }, 9).await, []);
    assert_eq!(missed(&queue, Missed { since: Some(after(1)), ..of("new") }, 9).await, [all[3]]);
    assert_eq!(missed(&queue, Missed { until: Some(after(30)), ..of("new") }, 9).await, [all[0]]);
}

fn job_id(number: u64) -> ReplayId {
    ReplayId::new(NOW, random(number))
}

fn step(id: ReplayId, next: Option<Key>, passed_over: u64) -> Option<JobStep> {
    Some(JobStep { id, next, passed_over })
}

pub(crate) async fn a_job_is_stored_as_it_was_asked_for_and_goes_on_step_by_step(
    queue: impl History,
    mut commits: Commits,
) {
    let offered = accept(&queue, &mut commits, (1..=6).map(|n| event(n, n, &["ops"])).collect()).await;
    for delivery in &offered[..4] {
        settle(&queue, delivery, 9, Settled::Delivered).await;
    }
    let filter = Filter {
        organization: Some("acme".into()),
        project: Some("urban".into()),
        webhook: Some(webhook("ops")),
        kind: Some("test".into()),
        states: StateKind::ALL.iter().copied().collect(),
        since: Some(after(1)),
        until: Some(after(9)),
        event: None,
    };
    let kinds = Some(Arc::new(BTreeSet::from(["a".to_owned(), "b".to_owned()])));
    let whats = [
        JobFilter::Deliveries(filter.clone()),
        JobFilter::Deliveries(Filter { event: Some(offered[2].event), ..Filter::default() }),
        JobFilter::Missed(Missed { webhook: webhook("new"), kinds, since: None, until: Some(after(7)) }),
    ];
    let mut jobs = Vec::new();
    for (number, what) in (1..).zip(whats) {
        let job = queue.create_job(job_id(number), what.clone(), after(10)).await.unwrap();
        assert_eq!((&job.what, job.state, job.created_at), (&what, JobState::Running, after(10)));
        assert!(job.start < job.end);
        assert_eq!(queue.job(job.id).await.unwrap().as_ref(), Some(&job));
        jobs.insert(0, job);
    }
    assert_eq!(queue.jobs(9).await.unwrap(), jobs);
    assert_eq!(queue.jobs(1).await.unwrap(), jobs[..1], "the latest first");
    assert_eq!(queue.job(job_id(77)).await.unwrap(), None);

    let job = jobs.pop().unwrap();
    let later = accept(&queue, &mut commits, vec![event(7, 7, &["ops"])]).await;
    assert!(offered.iter().all(|delivery| (job.start..job.end).contains(&delivery.key)));
    assert!(later[0].key >= job.end, "what is accepted later is beyond it");
    let select = Select { from: Some(job.start), ..select(filter, Direction::OldestFirst, 2) };
    let page = queue.deliveries(select).await.unwrap();
    assert_eq!(page.items[0].id, offered[0].id);
    let taken = Replay { step: step(job.id, page.next, 3), ..replay(20, &[&offered[0], &offered[1]]) };
    assert_eq!(queue.replay(taken).await.unwrap().revived, 2);
    let expected = Job { next: page.next, replayed: 2, passed_over: 3, ..job.clone() };
    assert_eq!(queue.job(job.id).await.unwrap(), Some(expected.clone()));
    let last = Replay { step: step(job.id, None, 1), ..replay(30, &[&offered[2], &offered[5]]) };
    assert_eq!(queue.replay(last).await.unwrap(), Replayed { revived: 1, hastened: 1, added: 0 });
    let (state, state_since, next) = (JobState::Done, after(30), Some(job.end));
    let expected = Job { state, state_since, next, replayed: 3, passed_over: 4, ..expected };
    assert_eq!(queue.job(job.id).await.unwrap(), Some(expected));
}

pub(crate) async fn a_cancelled_job_does_nothing_more(queue: impl History, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 1, &["ops"])]).await;
    settle(&queue, &offered[0], 2, Settled::Delivered).await;
    let what = JobFilter::Deliveries(Filter::default());
    let job = queue.create_job(job_id(1), what, after(10)).await.unwrap();
    let cancelled = queue.cancel_job(job.id, after(11)).await.unwrap().unwrap();
    assert_eq!((cancelled.state, cancelled.state_since), (JobState::Cancelled, after(11)));
    assert_eq!(
        queue.cancel_job(job.id, after(12)).await.unwrap().unwrap(),
        cancelled,
        "it is cancelled once"
    );
    assert_eq!(queue.cancel_job(job_id(2), after(12)).await.unwrap(), None);
    for id in [job.id, job_id(2)] {
        let replay = Replay { step: step(id, None, 1), ..replay(20, &[&offered[0]]) };
        assert_eq!(queue.replay(replay).await.unwrap(), Replayed::default());
    }
    assert_eq!(queue.job(job.id).await.unwrap(), Some(cancelled));
    assert_eq!(queue.record(offered[0].key).await.unwrap().unwrap().state, State::Delivered);
}

pub(crate) async fn the_latest_jobs_are_kept(queue: impl History, _commits: Commits) {
    let what = JobFilter::Deliveries(Filter::default());
    for number in 0..MOST_JOBS as u64 + 2 {
        let job = queue.create_job(job_id(number), what.clone(), after(number)).await.unwrap();
        if number != 1 {
            queue.replay(Replay { step: step(job.id, None, 0), ..replay(number, &[]) }).await.unwrap();
        }
    }
    let jobs = queue.jobs(usize::MAX).await.unwrap();
    let kept: Vec<_> = jobs.iter().rev().take(3).map(|job| job.id).collect();
    assert_eq!(
        (jobs.len(), kept),
        (MOST_JOBS, vec![job_id(1), job_id(3), job_id(4)]),
        "one that runs is kept"
    );
}

pub(crate) async fn purging_forgets_jobs_that_ended(queue: impl History, _commits: Commits) {
    let what = JobFilter::Deliveries(Filter::default());
    for number in 1..=3 {
        queue.create_job(job_id(number), what.clone(), after(number)).await.unwrap();
    }
    queue.cancel_job(job_id(1), after(10)).await.unwrap();
    queue.cancel_job(job_id(2), after(30)).await.unwrap();
    queue.purge(after(20), Arc::default(), 100).await.unwrap();
    let kept: Vec<_> = queue.jobs(9).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(kept, [job_id(3), job_id(2)]);
}
