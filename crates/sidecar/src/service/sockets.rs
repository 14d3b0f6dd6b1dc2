//! Sockets that a service manager has opened and passes on (`sd_listen_fds(3)`).
//!
//! They outlive the process: who connects while it is restarted waits in the kernel, and is not refused.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aquarium_config::{Config, Listen, Secret};
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use tracing::warn;

/// The sockets that were passed, each of them listening.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) ingest: Option<Passed>,
    pub(crate) admin: Option<Passed>,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Passed {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Sockets {
    /// Takes what was passed to this process, so that no other one is taken to have got it. It changes the environment, and
    /// so is for the start, when there are no threads.
    ///
    /// # Errors
    /// Sockets that nobody here has a use for.
    pub(crate) fn take() -> anyhow::Result<Self> {
        // Checks that they are meant for this process, and has children not inherit them.
        let count = sd_notify::listen_fds().context("LISTEN_FDS")?.len();
        if count == 0 {
            return Ok(Self::default());
        }
        let named = std::env::var("LISTEN_FDNAMES").unwrap_or_else(|_| ":".repeat(count - 1));
        if named.split(':').count() != count {
            bail!("LISTEN_FDNAMES has not as many names as there are sockets, which are {count}");
        }
        let (mut descriptors, mut sockets) = (ListenFd::from_env(), Self::default());
        for (index, name) in named.split(':').enumerate() {
            let passed = Passed::take(&mut descriptors, index, name)?;
            let place = match name {
                "ingest" => &mut sockets.ingest,
                "admin" => &mut sockets.admin,
                // What systemd calls a socket that was given no name.
                name if count == 1 && (name.is_empty() || name.ends_with(".socket")) => &mut sockets.ingest,
                _ => bail!(
                    "a socket was passed that is named {name:?}; set FileDescriptorName= of its unit to \"ingest\" or \"admin\""
                ),
            };
            if place.replace(passed).is_some() {
                bail!("two sockets were passed that are named {name:?}; each listener has one");
            }
        }
        Ok(sockets)
    }

    /// Has the configuration say where these sockets are. What it says otherwise is told.
    ///
    /// # Errors
    /// One that others than this machine can reach, without a token.
    pub(crate) fn apply(&self, config: &mut Config) -> anyhow::Result<()> {
        if let Some(passed) = &self.ingest {
            passed.apply("ingest", &mut config.ingest.listen, config.ingest.token.as_ref())?;
        }
        if let Some(passed) = &self.admin {
            passed.apply("admin", &mut config.admin.listen, config.admin.token.as_ref())?;
        }
        Ok(())
    }
}

impl Passed {
    fn take(descriptors: &mut ListenFd, index: usize, name: &str) -> anyhow::Result<Self> {
        let found = match descriptors.take_tcp_listener(index) {
            Ok(tcp) => tcp.map(Self::Tcp),
            Err(_) => descriptors.take_unix_listener(index).ok().flatten().map(Self::Unix),
        };
        let found = found.with_context(|| {
            format!("the socket {name:?} that was passed is neither TCP nor a unix stream socket: use ListenStream=")
        })?;
        let listens = match &found {
            Self::Tcp(listener) => socket_acceptconn(listener),
            Self::Unix(listener) => socket_acceptconn(listener),
        };
        if !listens? {
            bail!("the socket {name:?} that was passed does not listen: use Accept=no");
        }
        Ok(found)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> io::Result<Listen> {
        Ok(match self {
            Self::Tcp(listener) => Listen::Tcp(listener.local_addr()?),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Listen::Unix(address.as_pathname().map_or_else(|| PathBuf::from("@"), Path::to_owned))
            }
        })
    }

    fn apply(&self, door: &str, listen: &mut Listen, token: Option<&Secret>) -> anyhow::Result<()> {
        let address = self.address()?;
        if !address.is_local() && token.is_none() {
            bail!(
                "{door}: the socket that was passed is at {address}, where others than this machine could connect: add token = {{ file = \"…\" }} to [{door}], or have the socket listen at 127.0.0.1"
            );
        }
        let same = match (&*listen, &address) {
            (Listen::Tcp(said), Listen::Tcp(is)) => said == is || said.port() == 0 && said.ip() == is.ip(),
            (said, is) => said == is,
        };
        if !same {
            warn!(
                "{door}: the socket that was passed is at {address}; {door}.listen says {listen}, and is not used"
            );
            *listen = address;
        }
        Ok(())
    }
}
