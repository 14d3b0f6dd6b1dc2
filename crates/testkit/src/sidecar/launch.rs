//! How the binary is started.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A binary, and what it is started with. A restart keeps all of it.
///
/// ```
/// use std::path::Path;
/// use aquarium_testkit::sidecar::Launch;
///
/// let launch = Launch::new("/usr/bin/aquarium-sidecar").env("LD_PRELOAD", "/tmp/faults.so").through(["nice", "-n", "5"]);
/// # let _ = launch;
/// let plain: Launch = Path::new("/usr/bin/aquarium-sidecar").into();
/// # let _ = plain;
/// ```
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    wrapper: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// The binary as it is.
    pub fn new(binary: impl Into<PathBuf>) -> Launch {
        Launch { binary: binary.into(), wrapper: Vec::new(), environment: Vec::new() }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it by another command, which gets the binary and its arguments after these. The command has to become the
    /// binary (`exec`): signals and measurements are for the process that was started.
    pub fn through(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// What is run, for messages.
    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(super) fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(self.binary.as_os_str()));
        command.args(words).env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl From<&Path> for Launch {
    fn from(binary: &Path) -> Launch {
        Launch::new(binary)
    }
}

impl From<&PathBuf> for Launch {
    fn from(binary: &PathBuf) -> Launch {
        Launch::new(binary)
    }
}

impl From<&Launch> for Launch {
    fn from(launch: &Launch) -> Launch {
        launch.clone()
    }
}
