//! What every engine promises, one function for each promise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::{
    DeliveryId, Exhaustion, Failure, FailureKind, Hops, Order, Outcome, RetryAfter, TraceContext,
};
use aquarium_queue::{
    Accepted, Claim, Commits, Error, Key, PARKED, Pause, Payload, Purged, Queue, Record, Settled, Settlement,
    State,
};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::fixture::{
    NOW, accept, after, answered, attempt, claim, claim_of, event, ids, keyed, ordered, settlement,
    submission, webhook,
};

pub(crate) async fn an_accepted_event_is_offered_claimed_and_settled(
    queue: impl Queue,
    mut commits: Commits,
) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops", "labels"])]).await;
    assert_eq!(
        offered.iter().map(|delivery| delivery.webhook.webhook()).collect::<Vec<_>>(),
        ["ops", "labels"]
    );
    assert_eq!(offered[0].body.as_deref(), Some(&b"{\"number\":1}"[..]));

    let page = claim(&queue, "ops", 0).await;
    assert_eq!(ids(&page.deliveries), ids(&offered[..1]));
    let claimed = &page.deliveries[0];
    assert_eq!((claimed.key, claimed.event), (offered[0].key, offered[0].event));
    assert_eq!((claimed.accepted_at, claimed.due_at, claimed.attempts), (NOW, NOW, 0));
    assert_eq!(claimed.body, offered[0].body);
    assert_eq!(page.next_due, None);

    queue.settle(vec![settlement(claimed.key, 1, Settled::Delivered)]).await.unwrap();
    assert_eq!(queue.record(claimed.key).await.unwrap().unwrap().state, State::Delivered);
    assert!(claim(&queue, "ops", 9).await.deliveries.is_empty());
    assert_eq!(claim(&queue, "labels", 9).await.deliveries.len(), 1, "the other delivery is not touched");
    assert_eq!(queue.backlog().await.unwrap().waiting, [(webhook("labels"), NOW)]);
}

pub(crate) async fn a_submission_is_stored_all_or_none_and_in_order(queue: impl Queue, mut commits: Commits) {
    let events = (1..=50).map(|number| event(number, 0, &["ops"])).collect();
    let offered = accept(&queue, &mut commits, events).await;
    let page = claim(&queue, "ops", 0).await;
    assert_eq!(ids(&page.deliveries), ids(&offered));
    assert!(page.deliveries.is_sorted_by_key(|delivery| delivery.key));

    let refused = queue.accept(keyed("acme", "k", 1, vec![])).await.unwrap();
    assert_eq!(refused, Accepted::Stored);
    let conflict =
        queue.accept(keyed("acme", "k", 2, vec![event(51, 0, &["ops"]), event(52, 0, &["ops"])])).await;
    assert!(matches!(conflict, Err(Error::Conflict)));
    assert_eq!(
        claim(&queue, "ops", 0).await.deliveries.len(),
        50,
        "nothing of a refused submission is stored"
    );
}

pub(crate) async fn a_body_is_kept_byte_for_byte_whatever_its_size(queue: impl Queue, mut commits: Commits) {
    for (number, size) in [(1_u64, 0), (2, 1), (3, 4_095), (4, 70_000), (5, 3_000_000)] {
        let body: Bytes = (0..size).map(|index| (index % 251) as u8).collect();
        let mut new = event(number, 0, &["ops"]);
        new.body = body.clone();
        // Every other one belongs to a trace.
        new.trace = number.is_multiple_of(2).then(|| TraceContext::start([3; 16], [7; 8]));
        new.hops = Hops::new(u8::try_from(number).unwrap());
        let (trace, hops) = (new.trace, new.hops);
        let offered = accept(&queue, &mut commits, vec![new]).await;
        assert_eq!((offered[0].size, offered[0].body.as_ref()), (size, Some(&body)));
        assert_eq!((offered[0].trace, offered[0].hops), (trace, hops));
        assert_eq!(queue.payload(offered[0].event_key).await.unwrap(), Some(Payload { body, trace, hops }));
    }
    let claimed = claim(&queue, "ops", 0).await.deliveries;
    assert_eq!(claimed.len(), 5);
    for (claimed, number) in claimed.iter().zip(1_u64..) {
        let known = claimed.body.is_some() && number.is_multiple_of(2);
        assert_eq!(claimed.trace.is_some(), known, "{number}");
        if claimed.body.is_some() {
            assert_eq!(u64::from(claimed.hops.get()), number);
        }
    }
    assert_eq!(queue.payload(Key(u64::from(u32::MAX))).await.unwrap(), None);
}

pub(crate) async fn a_claim_gives_the_oldest_due_first_and_tells_what_comes_next(
    queue: impl Queue,
    mut commits: Commits,
) {
    for (number, at) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        accept(&queue, &mut commits, vec![event(number, at, &["ops"])]).await;
    }
    let numbers = |page: &aquarium_queue::Page| -> Vec<u64> {
        page.deliveries.iter().map(|delivery| delivery.due_at.since(NOW).as_secs()).collect()
    };
    let page = claim(&queue, "ops", 20).await;
    assert_eq!((numbers(&page), page.next_due), (vec![10, 10, 20], Some(after(30))));
    let page = queue.claim(Claim { limit: 2, ..claim_of("ops", 99) }).await.unwrap();
    assert_eq!((numbers(&page), page.next_due), (vec![10, 10], Some(after(20))));
    let page = claim(&queue, "ops", 5).await;
    assert_eq!((numbers(&page), page.next_due), (vec![], Some(after(10))));
    let page = claim(&queue, "unheard-of", 99).await;
    assert_eq!((numbers(&page), page.next_due), (vec![], None));
}

pub(crate) async fn what_is_held_is_passed_over(queue: impl Queue, mut commits: Commits) {
    let events = (1..=6).map(|number| event(number, number, &["ops"])).collect();
    let offered = accept(&queue, &mut commits, events).await;
    let held: HashSet<_> = [0, 1, 3].map(|index: usize| offered[index].key).into();
    let page = queue.claim(Claim { limit: 2, held: held.clone(), ..claim_of("ops", 99) }).await.unwrap();
    assert_eq!(ids(&page.deliveries), [offered[2].id, offered[4].id]);
    assert_eq!(page.next_due, Some(after(6)));
    let all = offered.iter().map(|delivery| delivery.key).collect();
    let page = queue.claim(Claim { held: all, ..claim_of("ops", 99) }).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next_due), (0, None), "what is held is not what is due next");
}

pub(crate) async fn bodies_beyond_the_byte_limit_are_left_to_be_read_later(
    queue: impl Queue,
    mut commits: Commits,
) {
    let mut events: Vec<_> = (1..=4).map(|number| event(number, number, &["ops"])).collect();
    for event in &mut events {
        event.body = Bytes::from(vec![b'x'; 400]);
    }
    accept(&queue, &mut commits, events).await;
    let page = queue.claim(Claim { bytes: 1_000, ..claim_of("ops", 99) }).await.unwrap();
    let with_body: Vec<_> = page.deliveries.iter().map(|delivery| delivery.body.is_some()).collect();
    assert_eq!(with_body, [true, true, false, false]);
    assert_eq!(page.deliveries[3].size, 400);
    assert_eq!(queue.payload(page.deliveries[3].event_key).await.unwrap().unwrap().body.len(), 400);
}

pub(crate) async fn a_retry_is_pending_until_it_is_due(queue: impl Queue, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    queue.settle(vec![settlement(offered[0].key, 1, Settled::Retry(after(60)))]).await.unwrap();
    let page = claim(&queue, "ops", 59).await;
    assert_eq!((page.deliveries.len(), page.next_due), (0, Some(after(60))));
    assert_eq!(queue.backlog().await.unwrap().waiting, [(webhook("ops"), after(60))]);
    let page = claim(&queue, "ops", 60).await;
    assert_eq!((page.deliveries[0].attempts, page.deliveries[0].due_at), (1, after(60)));

    let given_up = Settlement {
        delivery: offered[0].key,
        at: after(61),
        attempt: None,
        state: Settled::Exhausted(Exhaustion::Age),
        ordered: false,
        pause: None,
    };
    queue.settle(vec![given_up]).await.unwrap();
    let record = queue.record(offered[0].key).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts.len()), (State::Exhausted(Exhaustion::Age), 1));
    assert_eq!(claim(&queue, "ops", 9_999).await.next_due, None);
}

pub(crate) async fn a_skipped_delivery_is_recorded_and_never_claimed(
    queue: impl Queue,
    mut commits: Commits,
) {
    let mut new = event(1, 0, &["ops", "labels"]);
    new.targets[0].skipped = true;
    let skipped = new.targets[0].delivery;
    queue.accept(keyed("acme", "once", 7, vec![new])).await.unwrap();
    let offered = commits.recv().await.unwrap();
    assert_eq!(offered.iter().map(|delivery| delivery.webhook.webhook()).collect::<Vec<_>>(), ["labels"]);
    assert!(claim(&queue, "ops", 99).await.deliveries.is_empty());
    let Accepted::Repeated(receipts) = queue.accept(keyed("acme", "once", 7, vec![])).await.unwrap() else {
        panic!("the key is known")
    };
    let entries: Vec<_> = receipts[0].deliveries.iter().map(|entry| (entry.id, entry.skipped)).collect();
    assert_eq!(entries, [(skipped, true), (offered[0].id, false)]);
}

pub(crate) async fn the_same_idempotency_key_leads_to_the_same_receipt(
    queue: impl Queue,
    mut commits: Commits,
) {
    let events = || vec![event(1, 0, &["ops", "labels"]), event(2, 0, &[])];
    let expected: Vec<_> = events().iter().map(|event| event.id).collect();
    assert_eq!(queue.accept(keyed("acme", "k", 1, events())).await.unwrap(), Accepted::Stored);
    commits.recv().await.unwrap();
    let again = vec![event(8, 0, &["ops"]), event(9, 0, &["ops"])];
    let Accepted::Repeated(receipts) = queue.accept(keyed("acme", "k", 1, again)).await.unwrap() else {
        panic!("stored twice")
    };
    assert_eq!(receipts.iter().map(|receipt| receipt.event).collect::<Vec<_>>(), expected);
    let names: Vec<_> = receipts[0].deliveries.iter().map(|entry| entry.webhook.webhook()).collect();
    assert_eq!((names, receipts[1].deliveries.len()), (vec!["ops", "labels"], 0));
    let conflict = queue.accept(keyed("acme", "k", 2, vec![event(10, 0, &["ops"])])).await;
    assert!(matches!(conflict, Err(Error::Conflict)));
    assert_eq!(claim(&queue, "ops", 99).await.deliveries.len(), 1, "nothing was stored twice");
}

pub(crate) async fn an_idempotency_key_belongs_to_one_organization(queue: impl Queue, _commits: Commits) {
    for organization in ["acme", "globex"] {
        let accepted =
            queue.accept(keyed(organization, "k", organization.len() as u8, vec![event(1, 0, &[])])).await;
        assert_eq!(accepted.unwrap(), Accepted::Stored);
    }
}

pub(crate) async fn a_suspension_is_remembered_until_it_is_resumed(queue: impl Queue, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    let url = "https://gone.example/hook".to_owned();
    queue.settle(vec![settlement(offered[0].key, 5, Settled::Suspended { url: url.clone() })]).await.unwrap();
    let backlog = queue.backlog().await.unwrap();
    assert_eq!(backlog.waiting, [(webhook("ops"), after(5))], "the delivery is held, not lost");
    let [suspension] = &backlog.suspended[..] else { panic!("{backlog:?}") };
    assert_eq!((&suspension.webhook, suspension.since, &suspension.url), (&webhook("ops"), after(5), &url));
    queue.resume(webhook("ops")).await.unwrap();
    queue.resume(webhook("unheard-of")).await.unwrap();
    assert!(queue.backlog().await.unwrap().suspended.is_empty());
}

pub(crate) async fn the_last_pause_of_a_webhook_is_remembered(queue: impl Queue, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops", "labels"])]).await;
    assert!(queue.backlog().await.unwrap().paused.is_empty());
    for until in [60, 90] {
        let pause = Pause { until: after(until), url: "https://busy.example/".to_owned() };
        let settled = settlement(offered[0].key, 5, Settled::Retry(after(until)));
        queue.settle(vec![Settlement { pause: Some(pause.clone()), ..settled }]).await.unwrap();
        // One that is none leaves it as it is.
        queue.settle(vec![settlement(offered[0].key, 5, Settled::Retry(after(until)))]).await.unwrap();
        assert_eq!(queue.backlog().await.unwrap().paused, [(webhook("ops"), pause)]);
    }
}

pub(crate) async fn attempts_are_recorded_with_what_they_came_to(queue: impl Queue, mut commits: Commits) {
    let offered = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    let failure = Failure::new(FailureKind::Tls, "certificate expired");
    let hint = Some(RetryAfter::Delay(Duration::from_secs(9)));
    let outcomes =
        [Outcome::Failed(failure), Outcome::Answered { status: 429, retry_after: hint }, answered(204)];
    for (number, outcome) in (1..).zip(outcomes.clone()) {
        let state = if number == 3 { Settled::Delivered } else { Settled::Retry(after(number.into())) };
        let attempt = Some(attempt(number, outcome));
        let at = after(number.into());
        let settled =
            Settlement { delivery: offered[0].key, at, attempt, state, ordered: false, pause: None };
        // A settlement whose answer was lost comes again.
        queue.settle(vec![settled.clone()]).await.unwrap();
        queue.settle(vec![settled]).await.unwrap();
    }
    let [failed, _, delivered] = outcomes;
    let expected = vec![attempt(1, failed), attempt(2, answered(429)), attempt(3, delivered)];
    let record = queue.record(offered[0].key).await.unwrap();
    assert_eq!(record, Some(Record { state: State::Delivered, attempts: expected }));
    assert_eq!(queue.record(Key(u64::from(u32::MAX))).await.unwrap(), None);
}

pub(crate) async fn purging_removes_what_is_settled_and_old_and_nothing_else(
    queue: impl Queue,
    mut commits: Commits,
) {
    let mut keys = Vec::new();
    queue.accept(keyed("acme", "k", 1, vec![event(6, 0, &[])])).await.unwrap();
    for (number, at, name) in [(1, 0, "ops"), (2, 0, "ops"), (3, 0, "ops"), (4, 0, "removed"), (5, 90, "ops")]
    {
        keys.push(accept(&queue, &mut commits, vec![event(number, at, &[name])]).await[0].key);
    }
    queue.settle(vec![settlement(keys[0], 1, Settled::Delivered)]).await.unwrap();
    queue.settle(vec![settlement(keys[1], 60, Settled::Delivered)]).await.unwrap();
    queue.settle(vec![settlement(keys[4], 91, Settled::Delivered)]).await.unwrap();

    let configured: Arc<HashSet<_>> = Arc::new([webhook("ops")].into());
    let mut total = Purged::default();
    for _ in 0..20 {
        let step = queue.purge(after(50), configured.clone(), 2).await.unwrap();
        total.events += step.events;
        total.abandoned += step.abandoned;
    }
    assert_eq!(
        (total.events, total.abandoned),
        (3, 1),
        "one delivered, one of a removed webhook, one for nobody"
    );
    let kept: Vec<_> = {
        let mut kept = Vec::new();
        for key in &keys {
            kept.push(queue.record(*key).await.unwrap().is_some());
        }
        kept
    };
    assert_eq!(
        kept,
        [false, true, true, false, true],
        "settled later, still pending, and accepted later are kept"
    );
    let again = queue.accept(keyed("acme", "k", 2, vec![event(7, 99, &[])])).await.unwrap();
    assert_eq!(again, Accepted::Stored, "the key of a forgotten event is free again");
}

pub(crate) async fn many_accepts_at_once_are_all_stored(queue: impl Queue, mut commits: Commits) {
    let accepts = (0..500).map(|number| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.accept(submission(vec![event(number, 0, &["ops"])])).await })
    });
    let accepts: Vec<_> = accepts.collect();
    let mut offered = HashSet::new();
    while offered.len() < 500 {
        for delivery in commits.recv().await.unwrap() {
            assert!(offered.insert(delivery.id), "offered twice");
        }
    }
    for accepted in accepts {
        assert_eq!(accepted.await.unwrap().unwrap(), Accepted::Stored);
    }
    let page = queue.claim(Claim { limit: 1_000, ..claim_of("ops", 0) }).await.unwrap();
    assert_eq!(ids(&page.deliveries).into_iter().collect::<HashSet<_>>(), offered);
}

/// The numbers of the deliveries that may be sent now.
async fn free(queue: &impl Queue, name: &str) -> Vec<DeliveryId> {
    ids(&claim(queue, name, 99).await.deliveries)
}

pub(crate) async fn behind_a_pending_delivery_about_the_same_others_are_parked(
    queue: impl Queue,
    mut commits: Commits,
) {
    let mut all = Vec::new();
    for (number, subjects) in [(1, &[7][..]), (2, &[7]), (3, &[8]), (4, &[7, 8]), (5, &[8, 9]), (6, &[])] {
        let mut new = ordered(event(number, number, &["ops"]), Order::Entity, subjects);
        new.watcher = Some(mpsc::channel(1).0);
        let [offered] = &accept(&queue, &mut commits, vec![new]).await[..] else { panic!("one each") };
        assert_eq!(offered.due_at == PARKED, [2, 4, 5].contains(&number), "{number}");
        assert_eq!(offered.ordered, number != 6);
        all.push((offered.id, offered.key));
    }
    let (id, key): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    assert_eq!(free(&queue, "ops").await, [id[0], id[2], id[5]]);
    assert_eq!(claim(&queue, "ops", 99).await.next_due, None);
    assert_eq!(queue.backlog().await.unwrap().parked, [webhook("ops")]);

    let settle =
        async |index: usize, state| queue.settle(vec![settlement(key[index], 50, state)]).await.unwrap();
    assert_eq!(settle(0, Settled::Retry(after(200))).await, 0);
    assert_eq!(free(&queue, "ops").await, [id[2], id[5]], "one that is tried again holds those behind it");
    assert_eq!(claim(&queue, "ops", 99).await.next_due, Some(after(200)));
    assert_eq!(
        settle(2, Settled::Delivered).await,
        0,
        "the fourth waits for the second, the fifth for the fourth"
    );
    assert_eq!(settle(0, Settled::Delivered).await, 1);
    assert_eq!(settle(0, Settled::Delivered).await, 0, "a settlement whose answer was lost comes again");
    assert_eq!(free(&queue, "ops").await, [id[1], id[5]]);
    assert_eq!(settle(1, Settled::Exhausted(Exhaustion::Attempts)).await, 1);
    assert_eq!(free(&queue, "ops").await, [id[3], id[5]], "oldest first");
    assert_eq!(settle(3, Settled::Delivered).await, 1);
    assert_eq!(free(&queue, "ops").await, [id[4], id[5]]);
    assert_eq!(queue.backlog().await.unwrap().parked, []);
}

pub(crate) async fn in_line_for_a_webhook_one_is_free_at_a_time(queue: impl Queue, mut commits: Commits) {
    let events = (1..=20).map(|number| ordered(event(number, 0, &["ops", "labels"]), Order::Fifo, &[7]));
    queue.accept(submission(events.collect())).await.unwrap();
    let offered = commits.recv().await.unwrap();
    assert_eq!(offered.len(), 2, "one for each of the webhooks; nobody watches the others");
    let mut last = None;
    for left in (0..20).rev() {
        let page = claim(&queue, "ops", 99).await;
        let [delivery] = &page.deliveries[..] else { panic!("{page:?}") };
        assert!(last < Some(delivery.key), "in the order in which they were accepted");
        last = Some(delivery.key);
        let released = queue.settle(vec![settlement(delivery.key, 1, Settled::Delivered)]).await.unwrap();
        assert_eq!(released, usize::from(left > 0));
    }
    assert_eq!(free(&queue, "labels").await.len(), 1, "another webhook is another line");
}

pub(crate) async fn who_wants_no_order_gets_what_is_parked_too(queue: impl Queue, mut commits: Commits) {
    let events = (1..=5).map(|number| ordered(event(number, number, &["ops"]), Order::Fifo, &[]));
    queue.accept(submission(events.collect())).await.unwrap();
    let first = commits.recv().await.unwrap().remove(0);
    queue.settle(vec![settlement(first.key, 6, Settled::Retry(after(200)))]).await.unwrap();
    let wanted = Claim { parked: true, ..claim_of("ops", 99) };
    let page = queue.claim(Claim { limit: 3, ..wanted.clone() }).await.unwrap();
    let due: Vec<_> = page.deliveries.iter().map(|delivery| delivery.due_at).collect();
    assert_eq!((due, page.next_due), (vec![after(2), after(3), after(4)], Some(after(5))));
    let held = page.deliveries.iter().map(|delivery| delivery.key).collect();
    let page = queue.claim(Claim { held, ..wanted.clone() }).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next_due), (1, Some(after(200))));
    let last = page.deliveries[0].key;
    assert_eq!(queue.settle(vec![settlement(last, 7, Settled::Delivered)]).await.unwrap(), 0);
    assert_eq!(
        queue.claim(Claim { parked: true, ..claim_of("ops", 1) }).await.unwrap().next_due,
        Some(after(2))
    );
}

pub(crate) async fn settling_nothing_is_answered_too(queue: impl Queue, _commits: Commits) {
    let settling = queue.settle(Vec::new());
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), settling).await.unwrap().unwrap(), 0);
}
