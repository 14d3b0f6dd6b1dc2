//! A process is started, watched, measured and ended. Shell scripts stand in for the sidecar.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::sidecar::{Sidecar, Signal, run};

const LONG: Duration = Duration::from_secs(10);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name)
}

#[tokio::test]
async fn a_sidecar_is_started_signalled_restarted_and_killed() {
    let config = ConfigDirectory::new();
    let binary = script("runs");
    let mut sidecar = Sidecar::start(&binary, &config).await;
    assert_eq!((sidecar.ingest(), sidecar.admin()), ("unix:/tmp/x.sock", "http://127.0.0.1:7879"));
    assert_eq!(sidecar.logs()[0], "already run --config");
    assert!(sidecar.resident_bytes() > 100_000 && sidecar.open_files() >= 3);
    assert!(sidecar.cpu_time() < LONG);

    sidecar.signal(Signal::USR1);
    assert_eq!(sidecar.wait_for_log("reload", LONG).await, "reloaded");
    assert_eq!(sidecar.terminate(LONG).await.code(), Some(7));

    let first = sidecar.pid();
    sidecar.restart().await;
    assert_ne!(sidecar.pid(), first);
    sidecar.kill().await;
    assert!(!sidecar.running());
    assert_eq!(sidecar.terminate(LONG).await.signal(), Some(9));
}

#[tokio::test]
async fn a_process_that_ends_tells_how_and_what_it_said() {
    let config = ConfigDirectory::new();
    let binary = script("refuses");
    let exited = Sidecar::try_start(&binary, &config).await.unwrap_err();
    assert_eq!((exited.status.code(), exited.stderr.as_str()), (Some(78), "no"));

    let output = run(&binary, &["check"], "input").await;
    assert_eq!(
        (output.status.code(), output.stdout.as_str(), output.stderr.as_str()),
        (Some(78), "input", "no\n")
    );
}
