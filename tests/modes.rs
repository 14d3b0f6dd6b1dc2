//! Guarantee 7: payloads and sockets are for the sidecar's own user, whatever the umask is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aquarium_testkit::config::ConfigDirectory;

use support::{EVENTS, SOON, accept, event, start};

#[track_caller]
fn mode(path: &Path) -> String {
    let metadata = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    format!("{:04o}", metadata.permissions().mode() & 0o7777)
}

fn beside(queue: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = queue.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// With the usual umask of 022 everybody could read them.
#[tokio::test]
async fn files_and_sockets_are_private_unless_the_operator_says_otherwise() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let scratch = config.scratch().to_owned();
    let queue = scratch.join("made/data/queue.db");
    config.section("queue", &format!("path = {:?}", queue.display().to_string()));
    let (ingest, admin) = (scratch.join("ingest.sock"), scratch.join("admin.sock"));
    config.section("ingest", &format!("listen = \"unix:{}\"\nmode = \"0660\"", ingest.display()));
    config.section("admin", &format!("listen = \"unix:{}\"", admin.display()));
    let (mut sidecar, client) = start(&config).await;
    accept(&client, EVENTS, event("ds_1")).await;
    for directory in [scratch.join("made"), scratch.join("made/data")] {
        assert_eq!(mode(&directory), "0700", "{}", directory.display());
    }
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&queue, suffix)), "0600", "{suffix}");
    }
    assert_eq!((mode(&ingest), mode(&admin)), ("0660".to_owned(), "0600".to_owned()));
    assert!(!sidecar.logs().iter().any(|line| line.contains("others can read")), "{:?}", sidecar.logs());

    // What is there already stays as it is, and is told.
    assert!(sidecar.terminate(SOON).await.success());
    set_permissions(&queue, Permissions::from_mode(0o644)).unwrap();
    set_permissions(scratch.join("made/data"), Permissions::from_mode(0o755)).unwrap();
    sidecar.restart().await;
    let line = sidecar.wait_for_log("others can read the file", SOON).await;
    assert!(line.contains("WARN") && line.contains("chmod 0600") && line.contains("0644"), "{line}");
    let line = sidecar.wait_for_log("others can read the directory", SOON).await;
    assert!(line.contains("chmod 0700") && line.contains("0755"), "{line}");
    assert_eq!(mode(&queue), "0644");
}
