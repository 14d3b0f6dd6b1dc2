//! Secrets that are not as they should be.

use crate::following::ACME_SECRET;
use crate::{ACME, By, Files, Following, SECRET, acme};

const NONE: &str = "file \"organizations/../secrets/acme\" holds no usable secret: ";

/// A secret that cannot be used is told, the one before it stays, and the next good one takes its place.
async fn unusable(by: By, spoil: impl FnOnce(&Files), reason: &str) {
    let following = Following::start(Files::new(), by).await;
    spoil(&following.files);
    let error = following.rejected().await;
    assert!(error.starts_with(&format!("organizations/acme.toml:2:19: {reason}")), "{error}");
    assert!(!error.contains("short-secret"), "{error}");
    assert_eq!(following.secret().unwrap(), "the-first-secret-of-acme");
    assert_eq!((following.generation(), following.history()), (1, vec![]));

    following.files.write(SECRET, "the-second-secret-of-acme\n");
    following.soon(|_, status| status.generation == 2 && status.rejected.is_none()).await;
    assert_eq!(following.secret().unwrap(), "the-second-secret-of-acme");
    assert_eq!((following.history(), following.rejections()), (vec!["acme: secret replaced".to_owned()], 1));
}

pub(crate) async fn gone(by: By) {
    let reason = "cannot read file \"organizations/../secrets/acme\": there is no such file";
    unusable(by, |files| files.remove(SECRET), reason).await;
}

#[tokio::test]
async fn a_secret_that_is_gone_stays_what_it_was() {
    gone(By::Watcher).await;
}

#[tokio::test]
async fn a_secret_that_is_emptied_stays_what_it_was() {
    unusable(By::Watcher, |files| files.write(SECRET, ""), &format!("{NONE}it is empty")).await;
}

#[tokio::test]
async fn a_secret_that_is_too_short_does_not_replace_a_good_one() {
    let short = |files: &Files| files.replace(SECRET, "short-secret\n");
    unusable(By::Watcher, short, &format!("{NONE}it has 12 characters, which is too few")).await;
}

#[tokio::test]
async fn a_secret_of_the_environment_does_not_depend_on_files() {
    let env = |at| acme(at).replace("file = \"../secrets/acme\"", "env = \"ACME_SECRET\"");
    let files = Files::new();
    files.write(ACME, env("first"));
    let following = Following::start(files, By::Watcher).await;
    // Nothing names it any more.
    following.files.clear("secrets");
    following.files.replace(ACME, env("second"));
    following.comes("second").await;
    assert_eq!(following.secret().unwrap(), ACME_SECRET);
    assert_eq!((following.history(), following.rejections()), (vec!["acme/p/ops: new url".to_owned()], 0));
}
