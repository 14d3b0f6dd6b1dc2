//! Directories that come and go.

use aquarium_config::reload::QUIET;
use tokio::time::sleep;

use crate::{ACME, By, Files, Following, SECRET, acme};

const BETA: &str = "organizations/beta.toml";
const NEW_URL: &str = "acme/p/ops: new url";

pub(crate) async fn added_and_removed(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.write(BETA, acme("beta"));
    following.soon(|config, status| config.organization("beta").is_some() && status.generation == 2).await;
    following.rest().await;
    following.files.remove(BETA);
    following.soon(|config, status| config.organization("beta").is_none() && status.generation == 3).await;
    assert_eq!(
        following.history(),
        ["beta: organization added\nbeta/p/ops: added", "beta: organization removed\nbeta/p/ops: removed"]
    );
    assert_eq!((following.place().unwrap().as_str(), following.rejections()), ("first", 0));
}

#[tokio::test]
async fn an_organization_comes_and_goes_with_its_file() {
    added_and_removed(By::Watcher).await;
}

#[tokio::test]
async fn organizations_that_are_made_anew_are_read_and_followed() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.clear("organizations");
    following.files.write(BETA, acme("beta"));
    following.soon(|config, status| config.organization("beta").is_some() && status.generation == 2).await;
    assert!(following.config().organization("acme").is_none());
    following.rest().await;

    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    assert_eq!(following.rejections(), 0);
}

pub(crate) async fn organizations_removed(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.clear("organizations");
    let error = following.rejected().await;
    assert!(error.starts_with("organizations: there is no such directory"), "{error}");
    assert_eq!((following.place().unwrap().as_str(), following.history()), ("first", vec![]));

    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    following.rest().await;
    following.files.write(ACME, acme("third"));
    following.comes("third").await;
    assert_eq!((following.history(), following.rejections()), (vec![NEW_URL.to_owned(); 2], 1));
}

#[tokio::test]
async fn organizations_that_are_gone_for_a_while_are_followed_again() {
    organizations_removed(By::Watcher).await;
}

pub(crate) async fn secrets_removed(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.clear("secrets");
    let error = following.rejected().await;
    assert!(
        error.ends_with("cannot read file \"organizations/../secrets/acme\": there is no such file"),
        "{error}"
    );
    assert_eq!(following.secret().unwrap(), "the-first-secret-of-acme");

    following.files.write(SECRET, "the-second-secret-of-acme\n");
    following.soon(|_, status| status.rejected.is_none()).await;
    assert_eq!(following.secret().unwrap(), "the-second-secret-of-acme");
    following.rest().await;

    following.files.replace(SECRET, "the-third-secret-of-acme\n");
    following.soon(|_, status| status.generation == 3).await;
    assert_eq!(following.secret().unwrap(), "the-third-secret-of-acme");
    assert_eq!(following.rejections(), 1);
}

#[tokio::test]
async fn secrets_whose_directory_is_made_anew_are_read_and_followed() {
    secrets_removed(By::Watcher).await;
}

/// A secret appears, step by step, in a directory that was not there when it was asked for first.
async fn secret_appears_in(directory: &str, steps: &[&str]) {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.replace(ACME, acme("second").replace("../secrets", &format!("../{directory}")));
    following.rejected().await;
    for step in steps {
        following.files.make(step);
        // Whatever is noticed of that has been dealt with by then.
        sleep(2 * QUIET).await;
    }
    following.files.write(&format!("{directory}/acme"), "the-second-secret-of-acme\n");
    following.comes("second").await;
    assert_eq!(following.secret().unwrap(), "the-second-secret-of-acme");
}

#[tokio::test]
async fn a_directory_that_was_not_there_is_noticed_when_it_appears() {
    tokio::join!(secret_appears_in("new", &[]), secret_appears_in("new", &["new"]));
}

#[tokio::test]
async fn directories_that_were_not_there_are_noticed_when_they_appear() {
    tokio::join!(
        secret_appears_in("new/one", &["new", "new/one"]),
        secret_appears_in("../elsewhere/new", &["../elsewhere", "../elsewhere/new"]),
    );
}

pub(crate) async fn secrets_elsewhere_removed(by: By) {
    let files = Files::new();
    files.write(ACME, acme("first").replace("../secrets", "../../elsewhere"));
    files.write("../elsewhere/acme", "the-first-secret-of-acme\n");
    let following = Following::start(files, by).await;
    following.files.clear("../elsewhere");
    following.rejected().await;
    following.files.write("../elsewhere/acme", "the-second-secret-of-acme\n");
    following.soon(|_, status| status.rejected.is_none()).await;
    assert_eq!(following.secret().unwrap(), "the-second-secret-of-acme");
}

#[tokio::test]
async fn secrets_elsewhere_whose_directory_is_made_anew_are_read() {
    secrets_elsewhere_removed(By::Watcher).await;
}

pub(crate) async fn everything_removed(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.rename("", "../old");
    let error = following.rejected().await;
    assert_eq!(error, "aquarium.toml: cannot be read: there is no such file");
    following.files.write("../old/organizations/acme.toml", acme("second"));
    following.rest().await;
    assert_eq!(following.place().unwrap(), "first");
    following.files.rename("../old", "../config");
    following.comes("second").await;
    following.rest().await;
    following.files.replace(ACME, acme("third"));
    following.comes("third").await;
    assert_eq!(following.rejections(), 1);
}

#[tokio::test]
async fn a_configuration_that_is_gone_for_a_while_is_followed_again() {
    everything_removed(By::Watcher).await;
}
