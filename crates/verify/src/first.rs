//! The first of several that is equal, found without a branch on any of them.

use subtle::{Choice, ConditionallySelectable};

/// Told of each in turn whether it is equal, it knows the first that was.
///
/// Being told takes the same time whatever is told.
#[derive(Clone, Copy)]
pub(crate) struct First {
    any: Choice,
    index: u64,
}

impl First {
    pub(crate) fn new() -> First {
        First { any: Choice::from(0), index: 0 }
    }

    pub(crate) fn tell(&mut self, index: u64, equal: Choice) {
        self.index.conditional_assign(&index, equal & !self.any);
        self.any |= equal;
    }

    /// Whether there was one, and which; 0 if there was none.
    pub(crate) fn get(self) -> (bool, usize) {
        // It is less than the length of a slice.
        (self.any.into(), self.index as usize)
    }
}
