//! The sidecar as a process of its own, to be asked, signalled, killed and measured.
//!
//! It counts as started when it has said on stderr where it listens, and that it is ready:
//!
//! ```text
//! … ingest: listening on http://127.0.0.1:40123
//! … admin: listening on http://127.0.0.1:40124
//! … ready
//! ```

mod command;
mod launch;
mod log;

use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

pub use command::{Output, run};
pub use launch::Launch;
pub use rustix::process::Signal;

use crate::config::ConfigDirectory;
use log::Log;

/// The longest that it may take to start.
const START: Duration = Duration::from_secs(20);
/// The longest that it may take to stop for a restart.
const STOP: Duration = Duration::from_secs(20);

/// A running sidecar. It is killed when it is dropped.
#[derive(Debug)]
pub struct Sidecar {
    launch: Launch,
    config: PathBuf,
    child: Child,
    pid: Pid,
    log: Log,
    ingest: String,
    admin: String,
}

/// It ended instead of starting.
#[derive(Debug)]
pub struct Exited {
    /// How.
    pub status: ExitStatus,
    /// What it said.
    pub stderr: String,
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the sidecar ended with {}, and said:\n{}", self.status, self.stderr)
    }
}

impl std::error::Error for Exited {}

impl Sidecar {
    /// Runs `<binary> run --config <directory>`, and waits until it is ready. A [`Launch`] tells more than a path.
    ///
    /// # Panics
    /// If it ends instead, or is not ready after 20 s; the message has what it said on stderr.
    pub async fn start(launch: impl Into<Launch>, config: &ConfigDirectory) -> Sidecar {
        match Sidecar::try_start(launch, config).await {
            Ok(sidecar) => sidecar,
            Err(exited) => panic!("{exited}"),
        }
    }

    /// The same, where it may well end.
    ///
    /// # Errors
    /// How it ended, and what it said.
    ///
    /// # Panics
    /// If it is not ready after 20 s, but runs.
    pub async fn try_start(launch: impl Into<Launch>, config: &ConfigDirectory) -> Result<Sidecar, Exited> {
        Sidecar::spawn(launch.into(), config.path()).await
    }

    async fn spawn(launch: Launch, config: PathBuf) -> Result<Sidecar, Exited> {
        let spawned = launch
            .command()
            .arg("run")
            .arg("--config")
            .arg(&config)
            .env("AQUARIUM_LOG_FORMAT", "text")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("{} cannot be run: {error}", launch.binary().display()),
        };
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        let log = Log::of(child.stderr.take().expect("stderr is piped"));
        tokio::select! {
            ready = log.find(says_ready, START) => if ready.is_none() {
                panic!("the sidecar was not ready after {START:?}, and said:\n{log}");
            },
            status = child.wait() => {
                let status = status.expect("a child can be waited for");
                log.end().await;
                return Err(Exited { status, stderr: log.to_string() });
            }
        }
        let ingest = address(&log, "ingest: listening on ");
        let admin = address(&log, "admin: listening on ");
        Ok(Sidecar { launch, config, child, pid, log, ingest, admin })
    }

    /// Where it takes events: `http://127.0.0.1:<port>`, or `unix:<path>`. [`Client::new`](crate::client::Client::new)
    /// takes both.
    pub fn ingest(&self) -> &str {
        &self.ingest
    }

    /// Where it is administered.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The last 10,000 lines that it wrote to stderr, without colours.
    pub fn logs(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits for a line that contains this, which may be there already, and returns the first one.
    ///
    /// # Panics
    /// If there is none within the time; the message has those that there are.
    pub async fn wait_for_log(&self, part: &str, within: Duration) -> String {
        match self.log.find(|line| line.contains(part), within).await {
            Some(line) => line,
            None => panic!("no line with {part:?} within {within:?}, but:\n{}", self.log),
        }
    }

    /// Kills it (SIGKILL), and waits until it is gone.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
        self.log.end().await;
    }

    /// Asks it to end (SIGTERM), and waits until it is gone.
    ///
    /// # Panics
    /// If it does not end within the time; the message has what it said on stderr.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        if self.running() {
            self.signal(Signal::TERM);
        }
        self.wait(within).await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not end within the time; the message has what it said on stderr.
    pub async fn wait(&mut self, within: Duration) -> ExitStatus {
        let Ok(status) = timeout(within, self.child.wait()).await else {
            panic!("the sidecar did not end within {within:?}, and said:\n{}", self.log);
        };
        self.log.end().await;
        status.expect("a child can be waited for")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it runs no more: its id may belong to another process.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.running(), "the sidecar has ended, and said:\n{}", self.log);
        kill_process(self.pid, signal).expect("a child can be signalled");
    }

    /// Whether it runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Starts it again with the same configuration, after terminating it if it runs. Free ports will be others, and the
    /// log begins anew.
    ///
    /// # Panics
    /// If it does not end, or does not start.
    pub async fn restart(&mut self) {
        if self.running() {
            self.terminate(STOP).await;
        }
        match Sidecar::spawn(self.launch.clone(), self.config.clone()).await {
            Ok(started) => *self = started,
            Err(exited) => panic!("{exited}"),
        }
    }

    /// The bytes of memory that it has in use (`VmRSS`).
    ///
    /// # Panics
    /// If it runs no more.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("a running process has a VmRSS") * 1024
    }

    /// The time that it has spent computing, in user and in kernel mode.
    ///
    /// # Panics
    /// If it runs no more.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // proc_pid_stat(5): after the name, which may contain anything, come the third field and those after it. The
        // 14th and 15th are wanted.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0));
        let ticks: u64 = ticks.sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// How many files and sockets it has open.
    ///
    /// # Panics
    /// If it runs no more.
    pub fn open_files(&self) -> usize {
        self.descriptors().count()
    }

    /// How many of them are sockets.
    ///
    /// # Panics
    /// If it runs no more.
    pub fn open_sockets(&self) -> usize {
        let leads_to = self.descriptors().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        leads_to.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    }

    fn descriptors(&self) -> std::fs::ReadDir {
        let path = format!("/proc/{}/fd", self.pid());
        match std::fs::read_dir(&path) {
            Ok(files) => files,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Whether a line has this word: `already` is another one.
fn says_ready(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready")
}

/// What follows after `prefix` in the log.
fn address(log: &Log, prefix: &str) -> String {
    let found = log.lines().iter().find_map(|line| {
        let (_, rest) = line.split_once(prefix)?;
        Some(rest.split_whitespace().next()?.to_owned())
    });
    match found {
        Some(address) => address,
        None => panic!("the sidecar was ready without a line with {prefix:?}:\n{log}"),
    }
}
