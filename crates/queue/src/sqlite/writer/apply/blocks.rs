//! Storing what was read of a block.

use super::super::super::history::blocks::{self, Block};
use super::Tables;

impl Tables<'_> {
    /// Stores the row of a block, unless deliveries were added to old events since it was read: `additions` is how often
    /// that had been done by then. It is read again in that case.
    pub(super) fn store_block(&mut self, (block, additions): &(Block, u64)) -> rusqlite::Result<()> {
        if *additions == self.additions { blocks::store(self.connection, block) } else { Ok(()) }
    }
}
