//! Relays to compare with. They pass requests on and store nothing.

pub(crate) mod hyper;
mod nginx;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::process;

/// The longest that a relay may take to start.
const START: Duration = Duration::from_secs(10);

/// A relay at work. It ends when it is dropped, with all processes that belong to it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
    child: Child,
    pid: u32,
}

impl Relay {
    /// A relay made of hyper: this binary, in a process of its own.
    pub(crate) async fn hyper(to: SocketAddr) -> Result<Relay> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hyper-relay", "--to", &to.to_string()]);
        // It ends with its standard input, so also when this process is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, pid) = spawn(command)?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START, lines.next_line()).await.context("the hyper relay does not start")??;
        let address = line.context("the hyper relay ended")?.parse()?;
        Ok(Relay { address, child, pid })
    }

    /// nginx; none, if it is not installed. Its files are in `directory`.
    pub(crate) async fn nginx(to: SocketAddr, directory: &Path) -> Result<Option<Relay>> {
        let Some(binary) = nginx::find() else { return Ok(None) };
        let address = free_address()?;
        let config = directory.join("nginx.conf");
        std::fs::write(&config, nginx::config(address, to, directory))?;
        let mut command = Command::new(binary);
        command.arg("-p").arg(directory).arg("-c").arg(&config).arg("-e").arg(directory.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (child, pid) = spawn(command)?;
        let mut relay = Relay { address, child, pid };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = relay.child.try_wait()? {
                let log = std::fs::read_to_string(directory.join("error.log")).unwrap_or_default();
                bail!("nginx ended with {status}: {log}");
            }
            if Instant::now() > deadline {
                bail!("nginx does not start");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(relay))
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = process::children(self.pid)?;
        pids.push(self.pid);
        Ok(pids)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The group has the workers of nginx as well. While the child was not waited for, its number is its own.
        if let (Ok(None), Some(group)) = (self.child.try_wait(), Pid::from_raw(self.pid.cast_signed())) {
            // It may be ending by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Starts a process in a group of its own.
fn spawn(mut command: Command) -> Result<(Child, u32)> {
    let child = command.process_group(0).kill_on_drop(true).spawn().context("a relay cannot be run")?;
    let pid = child.id().context("it was just started")?;
    Ok((child, pid))
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// The version of nginx, if it is installed.
pub(crate) fn nginx_version() -> Option<String> {
    let output = std::process::Command::new(nginx::find()?).arg("-v").output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}
