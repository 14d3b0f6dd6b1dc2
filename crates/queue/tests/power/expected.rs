//! What has to be there after a power cut, by what was said before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::workload::{Load, OLD_EVENTS, is_old_and_settled};

/// What was said up to a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Events that were submitted together, by the number of the first.
    pub(crate) submissions: BTreeMap<u64, Submitted>,
    /// Events whose settlement has begun, and those for which it was acknowledged.
    settling: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    /// Events that a purge may have removed, and those that one has.
    purgeable: BTreeSet<u64>,
    purged: BTreeSet<u64>,
    /// What was settled when the purge began that is going on.
    purging: Option<BTreeSet<u64>>,
}

/// Events that were submitted together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    /// How many.
    pub(crate) count: u64,
    /// Whether it has an idempotency key.
    pub(crate) keyed: bool,
    /// Whether it was acknowledged.
    pub(crate) stored: bool,
}

/// What is found of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is to be delivered.
    Pending,
    /// It was.
    Delivered,
}

impl Expected {
    /// Before anything was said.
    pub(crate) fn before(load: Load) -> Expected {
        let mut expected = Expected::default();
        if load.migrated {
            for number in 1..=OLD_EVENTS {
                let old = Submitted { count: 1, keyed: false, stored: true };
                expected.submissions.insert(number, old);
                if is_old_and_settled(number) {
                    expected.settling.insert(number);
                    expected.settled.insert(number);
                }
            }
        }
        expected
    }

    /// Takes a mark.
    pub(crate) fn hear(&mut self, mark: &[u8]) {
        let mark = std::str::from_utf8(mark).unwrap();
        let (verb, rest) = mark.split_once(' ').unwrap_or((mark, ""));
        let numbers: Vec<u64> = rest.split_whitespace().map(|number| number.parse().unwrap()).collect();
        match (verb, &numbers[..]) {
            ("submit", &[first, count, keyed]) => {
                self.submissions.insert(first, Submitted { count, keyed: keyed == 1, stored: false });
            }
            ("stored", [first]) => self.submissions.get_mut(first).unwrap().stored = true,
            ("settling", &[number]) => {
                self.settling.insert(number);
                if self.purging.is_some() {
                    self.purgeable.insert(number);
                }
            }
            ("settled", &[number]) => drop(self.settled.insert(number)),
            ("purging", []) => {
                self.purgeable.extend(&self.settling);
                self.purging = Some(self.settled.clone());
            }
            ("purged", []) => self.purged.extend(self.purging.take().unwrap()),
            _ => panic!("{mark}"),
        }
    }

    /// How many events were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.submissions.values().filter(|submitted| submitted.stored).map(|submitted| submitted.count).sum()
    }

    /// What is wrong with what was found: a line each.
    pub(crate) fn compare(&self, found: &BTreeMap<u64, Found>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut unknown: BTreeSet<u64> = found.keys().copied().collect();
        for (&first, submitted) in &self.submissions {
            let numbers = first..first + submitted.count;
            let there = numbers.clone().filter(|number| found.contains_key(number)).count() as u64;
            for number in numbers {
                unknown.remove(&number);
                wrong.extend(self.wrong_with(number, submitted.stored, found.get(&number).copied()));
            }
            if !submitted.stored && there != 0 && there != submitted.count && self.purgeable.is_empty() {
                wrong.push(format!("{there} of {} events that were submitted at {first}", submitted.count));
            }
        }
        wrong.extend(unknown.iter().map(|number| format!("event {number} is there, and was not submitted")));
        wrong
    }

    fn wrong_with(&self, number: u64, stored: bool, found: Option<Found>) -> Option<String> {
        let wrong = match found {
            None if stored && !self.purgeable.contains(&number) => "was acknowledged, and is lost",
            Some(Found::Delivered) if !self.settling.contains(&number) => "is delivered, and never was sent",
            Some(Found::Pending) if self.settled.contains(&number) => "was settled, and is pending",
            Some(_) if self.purged.contains(&number) => "was purged, and is there",
            _ => return None,
        };
        Some(format!("event {number} {wrong}"))
    }
}
