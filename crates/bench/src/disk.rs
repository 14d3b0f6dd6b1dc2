//! Waiting until the disk has nothing else to do.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

/// The longest that is waited.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a write may take on a disk at rest.
const FAST: Duration = Duration::from_millis(10);
/// So many in a row have to be that fast.
const IN_A_ROW: usize = 10;
/// Time between them.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until writes to this directory are fast, for a while at the most. The queue of the run before was deleted just
/// now, which can hold up a disk for hundreds of milliseconds (mounted with `discard`, say): no cost of the next run.
pub(crate) async fn rest(directory: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut in_a_row = 0;
    while in_a_row < IN_A_ROW && Instant::now() < deadline {
        let started = Instant::now();
        probe(directory).with_context(|| format!("cannot write to {}", directory.display()))?;
        in_a_row = if started.elapsed() < FAST { in_a_row + 1 } else { 0 };
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Writes a little to a file that grows, as a queue does.
fn probe(directory: &Path) -> std::io::Result<()> {
    let mut file = File::options().create(true).append(true).open(directory.join("probe"))?;
    file.write_all(&[0; 4_096])?;
    file.sync_all()
}
