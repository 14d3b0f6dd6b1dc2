//! What every engine answers to an operator, one function for each promise.

use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Exhaustion, Order, Phases};
use aquarium_queue::history::{Count, Direction, Filter, History, Listed, Missed, Select, StateKind};
use aquarium_queue::{Attempt, Commits, Delivery, Settled, Settlement, State, Submission};

use crate::fixture::{
    NOW, accept, after, answered, attempt, claim, event, ids, ordered, settlement, submission, webhook,
};

/// A page of so many.
pub(crate) fn select(filter: Filter, direction: Direction, limit: usize) -> Select {
    Select { filter, direction, from: None, limit }
}

/// All of a list, page by page.
async fn every<T>(select: Select, page: impl AsyncFn(Select) -> Listed<T>) -> Vec<T> {
    let (mut items, mut from) = (Vec::new(), select.from);
    for _ in 0..10_000 {
        let listed = page(Select { from, ..select.clone() }).await;
        assert!(listed.items.len() <= select.limit);
        items.extend(listed.items);
        match listed.next {
            Some(next) => from = Some(next),
            None => return items,
        }
    }
    panic!("the list does not end");
}

/// The identifiers of all deliveries that are wanted, read in pages of so many.
pub(crate) async fn deliveries(
    queue: &impl History,
    filter: Filter,
    direction: Direction,
    limit: usize,
) -> Vec<DeliveryId> {
    let page = async |select| queue.deliveries(select).await.unwrap();
    every(select(filter, direction, limit), page).await.into_iter().map(|delivery| delivery.id).collect()
}

/// The identifiers of all events that are wanted, read in pages of so many.
pub(crate) async fn events(
    queue: &impl History,
    filter: Filter,
    direction: Direction,
    limit: usize,
) -> Vec<EventId> {
    let page = async |select| queue.events(select).await.unwrap();
    every(select(filter, direction, limit), page).await.into_iter().map(|event| event.id).collect()
}

/// The identifiers of all events that a webhook missed, read in pages of so many.
pub(crate) async fn missed(queue: &impl History, missed: Missed, limit: usize) -> Vec<EventId> {
    let page = async |select: Select| queue.missed(missed.clone(), select.from, limit).await.unwrap();
    let select = select(Filter::default(), Direction::OldestFirst, limit);
    every(select, page).await.into_iter().map(|event| event.id).collect()
}

fn in_states(states: &[StateKind]) -> Filter {
    Filter { states: states.iter().copied().collect(), ..Filter::default() }
}

pub(crate) async fn settle(queue: &impl History, delivery: &Delivery, at: u64, state: Settled) {
    let made = Attempt { number: delivery.attempts + 1, ..attempt(1, answered(500)) };
    let settled = Settlement { attempt: Some(made), ..settlement(delivery.key, at, state) };
    queue.settle(vec![settled]).await.unwrap();
}

pub(crate) async fn phases_and_the_breaker_are_recorded_with_each_attempt(
    queue: impl History,
    mut commits: Commits,
) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    let first_byte = Some(Duration::from_micros(100));
    for (number, breaker_open) in [(1, true), (2, false)] {
        let phases =
            Phases { dns: Some(Duration::from_micros(number.into())), first_byte, ..Phases::default() };
        let made = Attempt { phases, breaker_open, ..attempt(number, answered(500)) };
        let retry = Settled::Retry(after(60));
        let settled = Settlement { attempt: Some(made), ..settlement(offered[0].key, 1, retry) };
        queue.settle(vec![settled]).await.unwrap();
    }
    let attempts = queue.record(offered[0].key).await.unwrap().unwrap().attempts;
    let told = |attempt: &Attempt| (attempt.phases, attempt.breaker_open);
    let phases =
        |micros| Phases { dns: Some(Duration::from_micros(micros)), first_byte, ..Phases::default() };
    assert_eq!(attempts.iter().map(told).collect::<Vec<_>>(), [(phases(1), true), (phases(2), false)]);
    let listed = queue.delivery(offered[0].id).await.unwrap().unwrap();
    assert_eq!(listed.last_attempt.as_ref().map(told), Some((phases(2), false)));
    assert_eq!((listed.attempts, listed.settled_at), (2, after(1)));
}

pub(crate) async fn a_test_is_due_before_everything_else_and_known_as_one(
    queue: impl History,
    mut commits: Commits,
) {
    accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    let mut test = event(2, 5, &["ops"]);
    test.targets[0].test = true;
    let offered = accept(&queue, &mut commits, vec![test]).await;
    assert!(offered[0].test && offered[0].due_at < NOW);
    let page = claim(&queue, "ops", 9).await;
    let tests: Vec<_> = page.deliveries.iter().map(|delivery| (delivery.id, delivery.test)).collect();
    assert_eq!(tests[0], (offered[0].id, true));
    assert!(!tests[1].1);
    assert!(queue.delivery(offered[0].id).await.unwrap().unwrap().test);
}

pub(crate) async fn lists_go_both_ways_page_by_page(queue: impl History, mut commits: Commits) {
    let nothing = queue.deliveries(select(Filter::default(), Direction::NewestFirst, 5)).await.unwrap();
    assert_eq!((nothing.items.len(), nothing.next), (0, None));
    let new: Vec<_> = (1..=7).map(|number| event(number, number, &["ops", "labels"])).collect();
    let all_events: Vec<_> = new.iter().map(|event| event.id).collect();
    let all = ids(&accept(&queue, &mut commits, new).await);
    for limit in [1, 3, 14, 100] {
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            let in_order = |mut ids: Vec<_>| {
                if direction == Direction::NewestFirst {
                    ids.reverse();
                }
                ids
            };
            let found = deliveries(&queue, Filter::default(), direction, limit).await;
            assert_eq!(in_order(found), all, "{direction:?} {limit}");
            let mut found = events(&queue, Filter::default(), direction, limit).await;
            if direction == Direction::NewestFirst {
                found.reverse();
            }
            assert_eq!(found, all_events, "{direction:?} {limit}");
        }
    }
    let page = queue.events(select(Filter::default(), Direction::NewestFirst, 7)).await.unwrap();
    assert_eq!(page.next, None, "there is no empty page at the end");
    let newest = &page.items[0];
    assert_eq!((newest.size, newest.accepted_at), ("{\"number\":7}".len(), after(7)));
    assert_eq!((&*newest.organization, &*newest.project, &*newest.kind), ("acme", "urban", "test"));
    let page = queue.deliveries(select(Filter::default(), Direction::NewestFirst, 1)).await.unwrap();
    let newest = &page.items[0];
    assert_eq!((&newest.webhook, newest.event.id), (&webhook("labels"), all_events[6]));
    assert_eq!((newest.state, newest.last_attempt.as_ref()), (State::Pending { due_at: after(7) }, None));
}

/// Six events of two organizations, three projects and two types; to `ops` and, each other, to `labels`.
pub(crate) async fn mixed(queue: &impl History, commits: &mut Commits) -> Vec<Delivery> {
    let mut offered = Vec::new();
    for number in 0..6 {
        let names: &[&str] = if number % 2 == 0 { &["ops", "labels"] } else { &["ops"] };
        let mut new = event(number, number * 10, names);
        new.project = ["urban", "rural", "urban"][number as usize % 3].to_owned();
        new.kind = if number < 3 { "test".into() } else { "issues-created".into() };
        let organization = if number % 3 == 2 { "globex" } else { "acme" };
        let new = Submission { organization: organization.into(), ..submission(vec![new]) };
        queue.accept(new).await.unwrap();
        offered.extend(commits.recv().await.unwrap());
    }
    offered
}

type Admits<'a> = &'a dyn Fn(usize, &Delivery) -> bool;

fn cases<const N: usize>(cases: [(Filter, Admits<'_>); N]) -> [(Filter, Admits<'_>); N] {
    cases
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) async fn filters_count_together(queue: impl History, mut commits: Commits) {
    let offered = mixed(&queue, &mut commits).await;
    // Delivered, exhausted, pending; delivered, exhausted, pending; ...
    for (index, delivery) in offered.iter().enumerate() {
        match index % 3 {
            0 => settle(&queue, delivery, 70, Settled::Delivered).await,
            1 => settle(&queue, delivery, 70, Settled::Exhausted(Exhaustion::Age)).await,
            _ => {}
        }
    }
    let state = |index: usize| [StateKind::Delivered, StateKind::Exhausted, StateKind::Pending][index % 3];
    let number = |delivery: &Delivery| delivery.accepted_at.since(NOW).as_secs() / 10;
    let none = Filter::default;
    // What is admitted, told by the place in `offered` and the delivery.
    for (filter, admits) in cases([
        (none(), &|_, _| true),
        (Filter { organization: Some("acme".into()), ..none() }, &|_, d| number(d) % 3 != 2),
        (Filter { project: Some("urban".into()), ..none() }, &|_, d| number(d) % 3 != 1),
        (Filter { organization: Some("globex".into()), project: Some("rural".into()), ..none() }, &|_, _| {
            false
        }),
        (Filter { organization: Some("nobody".into()), ..none() }, &|_, _| false),
        (Filter { webhook: Some(webhook("labels")), ..none() }, &|_, d| d.webhook == webhook("labels")),
        (Filter { webhook: Some(webhook("unheard-of")), ..none() }, &|_, _| false),
        (Filter { kind: Some("test".into()), ..none() }, &|_, d| number(d) < 3),
        (Filter { since: Some(after(20)), ..none() }, &|_, d| number(d) >= 2),
        (Filter { until: Some(after(20)), ..none() }, &|_, d| number(d) < 2),
        (Filter { event: Some(offered[3].event), ..none() }, &|_, d| d.event == offered[3].event),
        (Filter { event: Some(EventId::new(NOW, [9; 10])), ..none() }, &|_, _| false),
        (in_states(&[StateKind::Pending]), &|i, _| state(i) == StateKind::Pending),
        (in_states(&[StateKind::Exhausted]), &|i, _| state(i) == StateKind::Exhausted),
        (in_states(&[StateKind::Skipped, StateKind::Delivered]), &|i, _| state(i) == StateKind::Delivered),
        (in_states(&[StateKind::Pending, StateKind::Exhausted]), &|i, _| state(i) != StateKind::Delivered),
        (Filter { webhook: Some(webhook("ops")), ..in_states(&[StateKind::Exhausted]) }, &|i, d| {
            state(i) == StateKind::Exhausted && d.webhook == webhook("ops")
        }),
        (Filter { event: Some(offered[0].event), ..in_states(&[StateKind::Exhausted]) }, &|i, d| {
            state(i) == StateKind::Exhausted && d.event == offered[0].event
        }),
        (
            Filter {
                organization: Some("acme".into()),
                kind: Some("test".into()),
                since: Some(after(0)),
                until: Some(after(11)),
                webhook: Some(webhook("ops")),
                ..in_states(&[StateKind::Pending, StateKind::Exhausted])
            },
            &|i, d| number(d) < 2 && d.webhook == webhook("ops") && state(i) != StateKind::Delivered,
        ),
    ]) {
        let admitted = offered.iter().enumerate().filter(|(index, delivery)| admits(*index, delivery));
        let expected: Vec<&Delivery> = admitted.map(|(_, delivery)| delivery).collect();
        let wanted: Vec<_> = expected.iter().map(|delivery| delivery.id).collect();
        for limit in [1, 2, 50] {
            let found = deliveries(&queue, filter.clone(), Direction::OldestFirst, limit).await;
            assert_eq!(found, wanted, "{filter:?}");
            let mut found = deliveries(&queue, filter.clone(), Direction::NewestFirst, limit).await;
            found.reverse();
            assert_eq!(found, wanted, "{filter:?}");
            let mut wanted: Vec<_> = expected.iter().map(|delivery| delivery.event).collect();
            wanted.dedup();
            assert_eq!(
                events(&queue, filter.clone(), Direction::OldestFirst, limit).await,
                wanted,
                "{filter:?}"
            );
            wanted.reverse();
            assert_eq!(
                events(&queue, filter.clone(), Direction::NewestFirst, limit).await,
                wanted,
                "{filter:?}"
            );
        }
        let counted = queue.count(filter.clone()).await.unwrap();
        assert_eq!(counted, Count { at_least: wanted.len() as u64, exact: true }, "{filter:?}");
    }
}

pub(crate) async fn events_are_listed_by_what_became_of_their_deliveries(
    queue: impl History,
    mut commits: Commits,
) {
    let new = vec![event(1, 0, &["a", "b", "c"]), event(2, 0, &["a", "b"]), event(3, 0, &[])];
    let all: Vec<_> = new.iter().map(|event| event.id).collect();
    let offered = accept(&queue, &mut commits, new).await;
    for delivery in [&offered[1], &offered[2]] {
        settle(&queue, delivery, 1, Settled::Exhausted(Exhaustion::Attempts)).await;
    }
    let exhausted = in_states(&[StateKind::Exhausted]);
    assert_eq!(events(&queue, exhausted, Direction::NewestFirst, 1).await, all[..1], "once, not twice");
    assert_eq!(events(&queue, Filter::default(), Direction::OldestFirst, 1).await, all, "for nobody too");
    let filter = Filter { webhook: Some(webhook("b")), ..in_states(&[StateKind::Pending]) };
    assert_eq!(events(&queue, filter, Direction::NewestFirst, 9).await, all[1..2]);
}

pub(crate) async fn pages_stay_right_while_rows_arrive_and_states_change(
    queue: impl History,
    mut commits: Commits,
) {
    let offered = accept(&queue, &mut commits, (1..=9).map(|n| event(n, n, &["ops"])).collect()).await;
    let page = async |filter: &Filter, direction, from| {
        let select = Select { from, ..select(filter.clone(), direction, 3) };
        let listed = queue.deliveries(select).await.unwrap();
        (listed.items.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), listed.next)
    };
    let (all, pending) = (Filter::default(), in_states(&[StateKind::Pending]));
    let (newest, from_all) = page(&all, Direction::NewestFirst, None).await;
    let (_, from_pending) = page(&pending, Direction::NewestFirst, None).await;
    let (_, forward) = page(&all, Direction::OldestFirst, None).await;
    assert_eq!(newest, [offered[8].id, offered[7].id, offered[6].id]);

    let later = accept(&queue, &mut commits, (10..=12).map(|n| event(n, n, &["ops"])).collect()).await;
    for delivery in [&offered[5], &offered[3], &offered[8]] {
        settle(&queue, delivery, 20, Settled::Delivered).await;
    }
    let next = page(&all, Direction::NewestFirst, from_all).await.0;
    assert_eq!(next, [offered[5].id, offered[4].id, offered[3].id]);
    let next = page(&pending, Direction::NewestFirst, from_pending).await.0;
    assert_eq!(next, [offered[4].id, offered[2].id, offered[1].id], "what is delivered now is not pending");
    let select = Select { from: forward, ..select(all, Direction::OldestFirst, 50) };
    let rest = queue.deliveries(select).await.unwrap();
    assert_eq!(rest.items.last().unwrap().id, later[2].id, "what has arrived comes last");
    assert_eq!(rest.items.len(), 9);
}

pub(crate) async fn events_and_deliveries_are_found_by_their_identifiers(
    queue: impl History,
    mut commits: Commits,
) {
    // The clock goes back and forth.
    let mut all = Vec::new();
    for (number, at) in [(1, 500), (2, 900), (3, 100), (4, 900), (5, 0), (6, 1_000)] {
        all.extend(accept(&queue, &mut commits, vec![event(number, at, &["ops", "labels"])]).await);
    }
    for delivery in &all {
        let found = queue.delivery(delivery.id).await.unwrap().unwrap();
        assert_eq!((found.key, found.id), (delivery.key, delivery.id));
        let found = queue.event(delivery.event).await.unwrap().unwrap();
        assert_eq!((found.key, found.id), (delivery.event_key, delivery.event));
    }
    assert_eq!(queue.event(EventId::new(after(100), [7; 10])).await.unwrap(), None);
    assert_eq!(queue.delivery(DeliveryId::new(after(100), [7; 10])).await.unwrap(), None);
    let summary = queue.event(all[0].event).await.unwrap().unwrap();
    assert_eq!(queue.payload(summary.key).await.unwrap().unwrap().body.len(), summary.size);
}

pub(crate) async fn a_webhook_tells_what_is_stored_for_it(queue: impl History, mut commits: Commits) {
    let mut skipped = event(1, 0, &["ops"]);
    skipped.targets[0].skipped = true;
    queue.accept(submission(vec![skipped])).await.unwrap();
    let offered = accept(&queue, &mut commits, (2..=9).map(|n| event(n, n, &["ops"])).collect()).await;
    settle(&queue, &offered[0], 10, Settled::Delivered).await;
    settle(&queue, &offered[1], 10, Settled::Exhausted(Exhaustion::Age)).await;
    settle(&queue, &offered[2], 10, Settled::Exhausted(Exhaustion::Attempts)).await;
    let gone = Settled::Suspended { url: "https://gone.example/".to_owned() };
    settle(&queue, &offered[3], 11, gone).await;
    let names = vec![webhook("unheard-of"), webhook("ops")];
    let stats = queue.webhooks(names.clone(), 100).await.unwrap();
    let exactly = |at_least| Count { at_least, exact: true };
    assert_eq!(stats[0].webhook, names[0]);
    assert_eq!((stats[0].pending, stats[0].next_due, stats[0].oldest_pending), (exactly(0), None, None));
    assert_eq!((stats[0].exhausted, stats[0].suspension.as_ref()), (exactly(0), None));
    let ops = &stats[1];
    assert_eq!((ops.pending, ops.exhausted, ops.skipped), (exactly(5), exactly(2), exactly(1)));
    assert_eq!((ops.next_due, ops.oldest_pending), (Some(after(6)), Some(after(5))));
    assert_eq!(ops.suspension.as_ref().map(|suspension| suspension.since), Some(after(11)));
    let bounded = &queue.webhooks(names, 2).await.unwrap()[1];
    assert_eq!(bounded.pending, Count { at_least: 2, exact: false });
    assert_eq!((bounded.exhausted, bounded.skipped), (exactly(2), exactly(1)));
    assert_eq!(queue.waiting().await.unwrap(), [webhook("ops")]);

    let parked = (10..=11).map(|n| ordered(event(n, n, &["line"]), Order::Fifo, &[])).collect();
    queue.accept(submission(parked)).await.unwrap();
    let first = commits.recv().await.unwrap().remove(0);
    let line = queue.webhooks(vec![webhook("line")], 9).await.unwrap().remove(0);
    assert_eq!((line.pending, line.next_due), (exactly(2), Some(after(10))));
    queue.settle(vec![settlement(first.key, 12, Settled::Retry(after(50)))]).await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), [webhook("line"), webhook("ops")]);
}
