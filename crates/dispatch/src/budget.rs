//! A budget of bytes that bodies in memory share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which bytes are counted; what is smaller counts as one unit.
const UNIT: usize = 1_024;

/// So many bytes may be in memory at once. Cheap to clone; clones share the budget.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: usize,
}

/// A part of a budget, which goes back when this is dropped.
#[derive(Debug)]
#[must_use = "the bytes go back to the budget when this is dropped"]
pub struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl Reserved {
    /// Gives back what is more than `bytes`. What was reserved is never less than one unit.
    pub fn shrink(&mut self, bytes: usize) {
        let excess = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT).max(1));
        drop(self.permit.split(excess));
    }
}

impl Budget {
    /// A budget of `bytes`, rounded down to whole kibibytes, at least one.
    pub fn new(bytes: usize) -> Self {
        let total = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { units: Arc::new(Semaphore::new(total)), total }
    }

    /// Reserves `bytes` if they are there at once.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permit = self.units.clone().try_acquire_many_owned(self.units_of(bytes)).ok()?;
        Some(Reserved { permit })
    }

    /// Reserves `bytes` of the half that is to spare, if they are there at once.
    pub fn try_reserve_spare(&self, bytes: usize) -> Option<Reserved> {
        // Somebody else may take some between the two. That goes beyond the half by a little, and never beyond the whole.
        if self.spare() >= bytes { self.try_reserve(bytes) } else { None }
    }

    /// The bytes that are there now, of one half; the other is for what cannot do without.
    pub fn spare(&self) -> usize {
        self.available().saturating_sub(self.total.div_ceil(2) * UNIT)
    }

    /// Waits until `bytes` are there, first come, first served. A body larger than the whole budget takes all of it.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        // The semaphore is never closed.
        loop {
            if let Ok(permit) = self.units.clone().acquire_many_owned(self.units_of(bytes)).await {
                return Reserved { permit };
            }
        }
    }

    /// The bytes that are there now.
    pub fn available(&self) -> usize {
        self.units.available_permits() * UNIT
    }

    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.total);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_is_larger_than_all_takes_all() {
        let budget = Budget::new(10 * UNIT);
        let half = budget.try_reserve(5 * UNIT).unwrap();
        assert!(budget.try_reserve(6 * UNIT).is_none());
        assert_eq!(budget.available(), 5 * UNIT);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(usize::MAX).await }
        });
        tokio::task::yield_now().await;
        assert!(budget.try_reserve(1).is_none(), "nobody overtakes one who waits");
        drop(half);
        let all = waiting.await.unwrap();
        assert_eq!(budget.available(), 0);
        drop(all);
        assert_eq!(budget.available(), 10 * UNIT);
    }

    #[test]
    fn what_is_not_needed_goes_back_at_once() {
        let budget = Budget::new(10 * UNIT);
        let mut reserved = budget.try_reserve(8 * UNIT).unwrap();
        for (bytes, left) in [(usize::MAX, 2), (8 * UNIT, 2), (5 * UNIT + 1, 4), (9 * UNIT, 4), (0, 9)] {
            reserved.shrink(bytes);
            assert_eq!(budget.available(), left * UNIT, "shrunk to {bytes}");
        }
        drop(reserved);
        assert_eq!(budget.available(), 10 * UNIT);
    }
}
