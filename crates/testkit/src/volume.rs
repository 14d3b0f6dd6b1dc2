//! A file system of its own, small enough to be filled, in a mount namespace that only those see who are started in it.
//!
//! It takes Linux with `unshare`, `nsenter` and `mount`, and either the right to make user namespaces, or root's.
//!
//! ```no_run
//! use aquarium_testkit::config::ConfigDirectory;
//! use aquarium_testkit::sidecar::{Launch, Sidecar};
//! use aquarium_testkit::volume::Volume;
//!
//! # async fn test() {
//! let config = ConfigDirectory::new();
//! let volume = Volume::mount(config.queue().parent().unwrap(), "4m").await.unwrap();
//! let launch = Launch::new("aquarium-sidecar").through(volume.entrance());
//! let sidecar = Sidecar::start(launch, &config).await;
//! // …
//! volume.resize("64m").await;
//! # }
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::sidecar::run;

/// The longest that mounting may take.
const MOUNT: Duration = Duration::from_secs(20);
/// Mounts, says so, and keeps the namespace for as long as its input is open.
const HOLD: &str = r#"mount -t tmpfs -o size="$2" aquarium "$1" && echo mounted && exec cat"#;

/// A mounted file system, in memory. It is gone when this is dropped, and whoever was started in it has ended.
#[derive(Debug)]
pub struct Volume {
    directory: PathBuf,
    entrance: Vec<String>,
    _holder: Child,
}

/// How to come by a mount namespace: what it is made with, and what it is entered with.
const WAYS: [(&[&str], &[&str]); 2] = [
    (&["--user", "--map-root-user", "--mount"], &["--user", "--preserve-credentials", "--mount"]),
    (&["--mount"], &["--mount"]),
];

impl Volume {
    /// Mounts one of this size, such as `4m`, on a directory.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub async fn mount(directory: &Path, size: &str) -> Result<Volume, String> {
        let mut reasons = Vec::new();
        for (make, enter) in WAYS {
            match timeout(MOUNT, hold(make, directory, size)).await {
                Ok(Ok((holder, pid))) => {
                    let target = format!("--target={pid}");
                    let words = ["nsenter", &target].into_iter().chain(enter.iter().copied()).chain(["--"]);
                    let entrance = words.map(str::to_owned).collect();
                    let volume = Volume { directory: directory.to_owned(), entrance, _holder: holder };
                    match volume.inside("true", &[]).await {
                        Ok(()) => return Ok(volume),
                        Err(reason) => reasons.push(reason),
                    }
                }
                Ok(Err(reason)) => reasons.push(reason.to_string()),
                Err(_) => reasons.push(format!("unshare took longer than {MOUNT:?}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// The words to put before a command, so that it runs where the file system is. They become that command.
    pub fn entrance(&self) -> &[String] {
        &self.entrance
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// If that is not possible.
    pub async fn resize(&self, size: &str) {
        let (options, directory) = (format!("remount,size={size}"), self.directory.to_string_lossy());
        if let Err(reason) = self.inside("mount", &["-o", &options, &directory]).await {
            panic!("{} cannot be given another size: {reason}", self.directory.display());
        }
    }

    async fn inside(&self, command: &str, arguments: &[&str]) -> Result<(), String> {
        let words = self.entrance.iter().skip(1).map(String::as_str);
        let words: Vec<_> = words.chain([command]).chain(arguments.iter().copied()).collect();
        let output = run(Path::new(&self.entrance[0]), &words, "").await;
        if output.status.success() { Ok(()) } else { Err(output.stderr) }
    }
}

/// Starts the process that holds the namespace.
async fn hold(make: &[&str], directory: &Path, size: &str) -> io::Result<(Child, u32)> {
    let mut holder = Command::new("unshare")
        .args(make)
        .args(["sh", "-c", HOLD, "sh"])
        .arg(directory)
        .arg(size)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (out, err) = (holder.stdout.take().expect("it is piped"), holder.stderr.take().expect("it is piped"));
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).await?;
    if line.trim_end() == "mounted"
        && let Some(pid) = holder.id()
    {
        return Ok((holder, pid));
    }
    let mut reason = String::new();
    BufReader::new(err).read_to_string(&mut reason).await?;
    Err(io::Error::other(reason.trim_end().to_owned()))
}
