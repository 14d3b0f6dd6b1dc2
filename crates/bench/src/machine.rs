//! What the figures were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::field;

/// The workspace that this was built from.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Facts about the machine, by name. What cannot be found out is left out.
pub(crate) fn describe(queues: &Path) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = || {
        let text = fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = || {
        let kibibytes = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
        Some(format!("{:.1} GiB", kibibytes as f64 / 1024.0 / 1024.0))
    };
    let kernel = || Some(fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned());
    let mounted = || mount_of(&fs::read_to_string("/proc/self/mounts").ok()?, queues);
    let load = || {
        let text = fs::read_to_string("/proc/loadavg").ok()?;
        Some(text.split_whitespace().next()?.to_owned())
    };
    let facts = [
        ("processor", Some(format!("{cores} × {}", model().unwrap_or_default()))),
        ("memory", memory()),
        ("kernel", kernel()),
        ("queue on", mounted()),
        ("load before", load()),
        ("commit", commit()),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect()
}

/// The file system that holds this path, by the text of `/proc/self/mounts`.
fn mount_of(mounts: &str, path: &Path) -> Option<String> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 3 && path.starts_with(fields[1]));
    // Of several at the same place the last one is seen.
    let longest = holding.max_by_key(|fields| fields[1].len())?;
    Some(format!("{} ({})", longest[2], longest[0]))
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(WORKSPACE).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}, with changes") } else { commit })
}

/// The time that all processors have spent computing since the machine started, and in all, in ticks.
pub(crate) fn busy() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    busy_of(&text).context("/proc/stat")
}

/// The first line has user, nice, system, idle, iowait, irq, softirq and steal (proc_stat(5)).
fn busy_of(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).take(8).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: u64 = ticks.iter().sum();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_file_system_is_named() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /run/x xfs rw 0 0\n";
        assert_eq!(mount_of(mounts, Path::new("/run/x/y")).unwrap(), "xfs (/dev/b)");
        assert_eq!(mount_of(mounts, Path::new("/run/xy")).unwrap(), "tmpfs (tmpfs)");
        assert_eq!(mount_of(mounts, Path::new("/elsewhere")).unwrap(), "ext4 (/dev/a)");
    }

    #[test]
    fn idle_time_and_waiting_for_disks_are_not_computing() {
        assert_eq!(busy_of("cpu  10 1 20 100 30 2 3 4 5 6\ncpu0 1"), Some((40, 170)));
    }
}
