//! Where to look for what is wanted.

use super::super::schema::code;
use super::wanted::codes;
use crate::history::{Filter, StateKind};

/// How deliveries are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// In the order of their keys, where blocks do not tell that there are none.
    Scan,
    /// By the indexes of those that are not delivered.
    Indexes {
        /// Those that are pending are wanted.
        pending: bool,
        /// Those in these states are wanted.
        rare: Vec<i64>,
    },
}

/// Decides how to look for deliveries. Delivered ones are in no index: there are too many, and each would have to be put
/// there when it is settled.
pub(super) fn plan(filter: &Filter) -> Plan {
    let states = &filter.states;
    // One event's deliveries lie side by side.
    if filter.event.is_some() || states.is_empty() || states.contains(&StateKind::Delivered) {
        return Plan::Scan;
    }
    let mut rare = codes(states);
    rare.retain(|state| *state != code::PENDING);
    Plan::Indexes { pending: states.contains(&StateKind::Pending), rare }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_delivered_is_found_by_the_indexes_and_all_else_by_key() {
        use StateKind::{Delivered, Exhausted, Pending, Skipped};
        let planned = |states: &[StateKind]| {
            plan(&Filter { states: states.iter().copied().collect(), ..Filter::default() })
        };
        assert_eq!(planned(&[]), Plan::Scan);
        assert_eq!(planned(&[Delivered]), Plan::Scan);
        assert_eq!(planned(&[Pending, Delivered]), Plan::Scan);
        assert_eq!(planned(&[Pending]), Plan::Indexes { pending: true, rare: vec![] });
        assert_eq!(planned(&[Exhausted]), Plan::Indexes { pending: false, rare: vec![2, 3, 5] });
        assert_eq!(
            planned(&[Skipped, Exhausted, Pending]),
            Plan::Indexes { pending: true, rare: vec![2, 3, 5, 4] }
        );
        let event = Some(aquarium_delivery::EventId::from_bytes([7; 16]));
        assert_eq!(plan(&Filter { event, states: [Pending].into(), ..Filter::default() }), Plan::Scan);
    }
}
