//! Random operations on the durable engine and on the map lead to the same answers, reopened in between too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aquarium_delivery::{DeliveryId, Exhaustion, Order};
use aquarium_queue::{
    Accepted, Claim, Commits, Delivery, Error, Key, NewEvent, Page, Queue, Settled, memory,
};
use proptest::prelude::*;
use tokio::sync::mpsc;

use crate::fixture::{after, claim_of, event, keyed, open_sqlite, ordered, settlement, submission, webhook};

const WEBHOOKS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Operation {
    Accept { webhooks: Vec<usize>, skip: bool, key: Option<(u8, u8)>, order: Order, subjects: Vec<u64> },
    Settle { which: prop::sample::Index, how: u8, delay: u64 },
    Claim { webhook: usize, limit: usize, bytes: usize, hold: usize, parked: bool },
    Resume { webhook: usize },
    Purge { age: u64, configured: usize },
    Reopen,
    Wait { seconds: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let webhooks = prop::sample::subsequence(vec![0_usize, 1, 2], 0..=3);
    let order = prop::sample::select(vec![Order::None, Order::Fifo, Order::Entity, Order::Entity]);
    let subjects = prop::sample::subsequence(vec![7_u64, 8, u64::MAX], 0..=3);
    prop_oneof![
        4 => (webhooks, prop::bool::weighted(0.1), prop::option::weighted(0.3, (0_u8..4, 0_u8..2)), order, subjects)
            .prop_map(|(webhooks, skip, key, order, subjects)| {
                Operation::Accept { webhooks, skip, key, order, subjects }
            }),
        4 => (any::<prop::sample::Index>(), 0_u8..5, 0_u64..50)
            .prop_map(|(which, how, delay)| Operation::Settle { which, how, delay }),
        3 => (0_usize..3, 0_usize..6, 0_usize..60, 0_usize..4, any::<bool>())
            .prop_map(|(webhook, limit, bytes, hold, parked)| {
                Operation::Claim { webhook, limit, bytes, hold, parked }
            }),
        1 => (0_usize..3).prop_map(|webhook| Operation::Resume { webhook }),
        1 => (0_u64..60, 0_usize..4).prop_map(|(age, configured)| Operation::Purge { age, configured }),
        1 => Just(Operation::Reopen),
        2 => (1_u64..30).prop_map(|seconds| Operation::Wait { seconds }),
    ]
}

/// One engine, and its own handles of the deliveries that were accepted.
struct Side<Q> {
    queue: Q,
    commits: Commits,
    keys: BTreeMap<DeliveryId, Key>,
}

/// What of an answer does not depend on the engine.
type Seen = (Vec<(DeliveryId, u64, u32, Option<Vec<u8>>)>, Option<u64>);

impl<Q: Queue> Side<Q> {
    async fn accept(&mut self, event: NewEvent, key: Option<(u8, u8)>) -> Result<Accepted, Error> {
        let expected = event.targets.iter().filter(|target| !target.skipped).count();
        let submission = match key {
            Some((key, body)) => keyed("acme", &key.to_string(), body, vec![event]),
            None => submission(vec![event]),
        };
        let accepted = self.queue.accept(submission).await;
        if matches!(accepted, Ok(Accepted::Stored)) && expected > 0 {
            let offers: Vec<Delivery> = self.commits.recv().await.unwrap();
            self.keys.extend(offers.iter().map(|delivery| (delivery.id, delivery.key)));
        }
        accepted
    }

    async fn claim(&self, claim: Claim, hold: usize) -> Seen {
        let held: HashSet<_> = self.keys.values().take(hold).copied().collect();
        let page: Page = self.queue.claim(Claim { held, ..claim }).await.unwrap();
        let seen = |delivery: &Delivery| {
            let body = delivery.body.as_ref().map(|body| body.to_vec());
            (delivery.id, delivery.due_at.as_millis(), delivery.attempts, body)
        };
        (page.deliveries.iter().map(seen).collect(), page.next_due.map(|due| due.as_millis()))
    }

    async fn purge(&self, age: u64, now: u64, configured: usize) -> (usize, usize) {
        let configured: Arc<HashSet<_>> =
            Arc::new(WEBHOOKS[..configured].iter().map(|name| webhook(name)).collect());
        let (mut events, mut abandoned) = (0, 0);
        loop {
            let step = self.queue.purge(after(now.saturating_sub(age)), configured.clone(), 3).await.unwrap();
            events += step.events;
            abandoned += step.abandoned;
            if !step.more {
                return (events, abandoned);
            }
        }
    }
}

fn settled(how: u8, now: u64, delay: u64) -> Settled {
    match how {
        0 | 1 => Settled::Delivered,
        2 => Settled::Retry(after(now + delay)),
        3 => Settled::Exhausted(Exhaustion::Attempts),
        _ => Settled::Suspended { url: "https://gone.example/".to_owned() },
    }
}

async fn compare(operations: Vec<Operation>) {
    let directory = tempfile::tempdir().unwrap();
    let (queue, commits, mut threads) = open_sqlite(directory.path());
    let mut durable = Side { queue, commits, keys: BTreeMap::new() };
    let (queue, commits) = memory::open(usize::MAX);
    let mut model = Side { queue, commits, keys: BTreeMap::new() };
    let mut now = 0;
    for (number, operation) in (1..).zip(operations) {
        match operation {
            Operation::Accept { webhooks, skip, key, order, subjects } => {
                let names: Vec<_> = webhooks.iter().map(|index| WEBHOOKS[*index]).collect();
                let new = || {
                    let mut new = ordered(event(number, now, &names), order, &subjects);
                    new.watcher = Some(mpsc::channel(9).0);
                    new.targets.iter_mut().for_each(|target| target.skipped = skip);
                    new
                };
                match (durable.accept(new(), key).await, model.accept(new(), key).await) {
                    (Ok(durable), Ok(model)) => assert_eq!(durable, model),
                    (Err(Error::Conflict), Err(Error::Conflict)) => {}
                    differing => panic!("{differing:?}"),
                }
            }
            Operation::Settle { which, how, delay } => {
                // Only what is pending is settled: a lane settles what it holds.
                let pending = |page: Seen| page.0.into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
                let mut ids = Vec::new();
                for name in WEBHOOKS {
                    // Whatever is parked may be settled too: it was sent without order.
                    let all = Claim { parked: true, ..claim_of(name, u64::from(u32::MAX)) };
                    ids.extend(pending(model.claim(all, 0).await));
                }
                if ids.is_empty() {
                    continue;
                }
                let id = *which.get(&ids);
                let settling = |key| vec![settlement(key, now, settled(how, now, delay))];
                let released = durable.queue.settle(settling(durable.keys[&id])).await.unwrap();
                assert_eq!(released, model.queue.settle(settling(model.keys[&id])).await.unwrap());
                let recorded = durable.queue.record(durable.keys[&id]).await.unwrap();
                assert_eq!(recorded, model.queue.record(model.keys[&id]).await.unwrap());
            }
            Operation::Claim { webhook, limit, bytes, hold, parked } => {
                let claim = Claim { limit, bytes, parked, ..claim_of(WEBHOOKS[webhook], now) };
                assert_eq!(durable.claim(claim.clone(), hold).await, model.claim(claim, hold).await);
            }
            Operation::Resume { webhook: index } => {
                durable.queue.resume(webhook(WEBHOOKS[index])).await.unwrap();
                model.queue.resume(webhook(WEBHOOKS[index])).await.unwrap();
            }
            Operation::Purge { age, configured } => {
                assert_eq!(
                    durable.purge(age, now, configured).await,
                    model.purge(age, now, configured).await
                );
            }
            Operation::Reopen => {
                let keys = durable.keys;
                drop((durable.queue, durable.commits));
                threads.join();
                let (queue, commits, reopened) = open_sqlite(directory.path());
                threads = reopened;
                durable = Side { queue, commits, keys };
            }
            Operation::Wait { seconds } => now += seconds,
        }
        assert_eq!(durable.queue.backlog().await.unwrap(), model.queue.backlog().await.unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_durable_engine_agrees_with_the_map(operations in prop::collection::vec(operation(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare(operations));
    }
}
