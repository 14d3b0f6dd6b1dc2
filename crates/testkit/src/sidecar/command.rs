//! One command of the binary, from its start to its end.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// The longest that a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command with this on its stdin, and waits until it has ended.
///
/// # Panics
/// If it cannot be run, or takes longer than 60 s.
pub async fn run(binary: &Path, args: &[&str], stdin: impl AsRef<[u8]>) -> Output {
    let spawned = Command::new(binary)
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => panic!("{} cannot be run: {error}", binary.display()),
    };
    let input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input {
            // A command need not read all of it.
            let _ = input.write_all(stdin.as_ref()).await;
        }
    };
    let Ok(((), output)) = timeout(TIMEOUT, async { tokio::join!(feed, child.wait_with_output()) }).await
    else {
        panic!("{} {args:?} did not end within {TIMEOUT:?}", binary.display());
    };
    let output = output.expect("a child can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
