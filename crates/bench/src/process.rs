//! What the kernel tells of a process: `/proc/<pid>/…`, see proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

/// What processes have used since they started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time computed, in user and in kernel mode, to 10 ms or so.
    pub(crate) cpu: Duration,
    /// Context switches, voluntary and not, of threads that there still are.
    pub(crate) switches: u64,
}

impl Usage {
    /// Of these processes together.
    pub(crate) fn of(pids: &[u32]) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in pids {
            let stat = read(*pid, "stat")?;
            let (_, ticks) = stat_of(&stat).context("/proc/<pid>/stat")?;
            let micros = ticks * 1_000_000 / rustix::param::clock_ticks_per_second();
            sum.cpu += Duration::from_micros(micros);
            for status in of_threads(*pid, "status")? {
                sum.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
                sum.switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// The time that the threads which a process has now have computed, to the nanosecond.
pub(crate) fn exact_cpu(pid: u32) -> Result<Duration> {
    let threads = of_threads(pid, "schedstat")?;
    let nanos = threads.iter().filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    Ok(Duration::from_nanos(nanos.sum()))
}

/// Memory in use: all that is resident.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    kibibytes(pid, "status", "VmRSS:")
}

/// The most that was ever resident.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    kibibytes(pid, "status", "VmHWM:")
}

/// Memory in use, where what is shared with others counts in part.
pub(crate) fn proportional(pid: u32) -> Result<u64> {
    kibibytes(pid, "smaps_rollup", "Pss:")
}

/// Bytes that it has caused to be written to storage. It may have ended, if nobody has waited for it yet.
pub(crate) fn written(pid: u32) -> Result<u64> {
    field(&read(pid, "io")?, "write_bytes:").context("/proc/<pid>/io")
}

/// The processes that it has started.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let text = read(pid, &format!("task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Waits until it has ended, and nobody has waited for it: what it used can still be read.
pub(crate) async fn ended(pid: u32, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        let stat = read(pid, "stat")?;
        if stat_of(&stat).context("/proc/<pid>/stat")?.0 == 'Z' {
            return Ok(());
        }
        sleep(Duration::from_millis(2)).await;
    }
    bail!("process {pid} did not end within {within:?}")
}

fn kibibytes(pid: u32, file: &str, name: &str) -> Result<u64> {
    let found = field(&read(pid, file)?, name);
    Ok(found.with_context(|| format!("no {name} in /proc/{pid}/{file}"))? * 1_024)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).context(path)
}

/// A file of each thread. Threads may end meanwhile.
fn of_threads(pid: u32, file: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).context(path)?;
    Ok(threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect())
}

/// State and ticks of computing: fields 3, and 14 and 15 (proc_pid_stat(5)). The name before them may contain anything.
fn stat_of(text: &str) -> Option<(char, u64)> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((fields.first()?.chars().next()?, ticks(11)? + ticks(12)?))
}

/// The number after a name that begins a line.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        let stat = "4711 (a ) S) Z 1 1 1 0 -1 4194560 99 0 1 0 250 50 3 4 20 0 1 0 5 6 7 8";
        assert_eq!(stat_of(stat), Some(('Z', 300)));
        assert_eq!(stat_of("4711 (a) S"), None);
        let status = "Name:\ta\nVmHWM:\t  2048 kB\nvoluntary_ctxt_switches:\t12\n";
        assert_eq!(field(status, "VmHWM:"), Some(2_048));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(field(status, "VmRSS:"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        let before = Usage::of(&[pid]).unwrap();
        assert!(Usage::of(&[pid]).unwrap().since(before).cpu < Duration::from_secs(60));
        assert!(peak(pid).unwrap() >= resident(pid).unwrap() / 2);
        assert!(proportional(pid).unwrap() > 0);
        assert!(exact_cpu(pid).unwrap() > Duration::ZERO);
        written(pid).unwrap();
    }
}
