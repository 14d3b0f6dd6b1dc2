//! What the kernel says of this process.

use std::fmt::{self, Write};

/// Writes the metrics of the process that are the same for all programs. Those that the system does not tell are left out.
pub(super) fn encode(text: &mut String) -> fmt::Result {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name, in parentheses, and may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let pages = rustix::param::page_size() as u64;
    if let (Some(user), Some(system)) = (number(14), number(15)) {
        let seconds = (user + system) as f64 / ticks;
        counter(text, "process_cpu_seconds", "Time on a processor, in seconds", seconds)?;
    }
    if let (Some(since_boot), Some(boot)) = (number(22), boot_time()) {
        let help = "When the process started, in seconds since 1970";
        gauge(text, "process_start_time_seconds", help, boot as f64 + since_boot as f64 / ticks)?;
    }
    if let Some(bytes) = number(23) {
        gauge(text, "process_virtual_memory_bytes", "Size of the address space", bytes as f64)?;
    }
    if let Some(resident) = number(24) {
        gauge(text, "process_resident_memory_bytes", "Memory in use", (resident * pages) as f64)?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge(text, "process_open_fds", "Open files and sockets", open.count() as f64)?;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        gauge(text, "process_max_fds", "How many files and sockets may be open", most as f64)?;
    }
    Ok(())
}

fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

fn counter(text: &mut String, name: &str, help: &str, value: f64) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} counter\n{name}_total {value}")
}

fn gauge(text: &mut String, name: &str, help: &str, value: f64) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}")
}
