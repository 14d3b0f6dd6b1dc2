//! Links, and the volumes that Kubernetes makes of them.

use std::fs;
use std::io;

use aquarium_config::reload::QUIET;
use tokio::time::sleep;

use crate::{ACME, AQUARIUM, By, Files, Following, SECRET, acme};

/// A mounted volume as the kubelet keeps it: all that is to be seen leads through the link `..data` to a directory, and
/// another takes the place of that directory at once.
struct Volume {
    at: &'static str,
    version: u32,
}

impl Volume {
    fn new(at: &'static str) -> Self {
        Self { at, version: 0 }
    }

    fn path(&self, name: &str) -> String {
        format!("{}{}{name}", self.at, if self.at.is_empty() { "" } else { "/" })
    }

    /// Puts these in the place of what is there. Nothing is written in place.
    fn publish(&mut self, on: &Files, files: &[(&str, &str)]) {
        self.version += 1;
        let (old, new) = (format!("..2026_{:02}", self.version - 1), format!("..2026_{:02}", self.version));
        for (name, content) in files {
            on.write(&self.path(&format!("{new}/{name}")), content);
        }
        on.link(&new, &self.path("..data"));
        for (name, _) in files {
            let shown = name.split('/').next().unwrap();
            match std::os::unix::fs::symlink(format!("..data/{shown}"), on.path(&self.path(shown))) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.unwrap(),
            }
        }
        for entry in fs::read_dir(on.path(self.at)).unwrap() {
            let path = entry.unwrap().path();
            if !path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        if self.version > 1 {
            on.clear(&self.path(&old));
        }
    }
}

pub(crate) async fn organizations_mounted(by: By) {
    let files = Files::new();
    files.remove(ACME);
    let mut volume = Volume::new("organizations");
    volume.publish(&files, &[("acme.toml", &acme("first")), ("beta.toml", &acme("beta"))]);
    let following = Following::start(files, by).await;
    volume.publish(&following.files, &[("acme.toml", &acme("second")), ("beta.toml", &acme("beta"))]);
    following.comes("second").await;
    following.rest().await;
    volume.publish(&following.files, &[("acme.toml", &acme("third"))]);
    following.comes("third").await;
    following.came(&[
        "acme/p/ops: new url",
        "beta: organization removed\nbeta/p/ops: removed\nacme/p/ops: new url",
    ]);
}

#[tokio::test]
async fn organizations_of_a_mounted_config_map_are_followed() {
    organizations_mounted(By::Watcher).await;
}

pub(crate) async fn secrets_mounted(by: By) {
    let files = Files::new();
    files.remove(SECRET);
    let mut volume = Volume::new("secrets");
    volume.publish(&files, &[("acme", "the-first-secret-of-acme")]);
    let following = Following::start(files, by).await;
    for (generation, secret) in [(2, "the-second-secret-of-acme"), (3, "the-third-secret-of-acme")] {
        volume.publish(&following.files, &[("acme", secret)]);
        following.soon(|_, status| status.generation == generation).await;
        assert_eq!(following.secret().unwrap(), secret);
        following.rest().await;
    }
    following.came(&["acme: secret replaced", "acme: secret replaced"]);
}

#[tokio::test]
async fn secrets_of_a_mounted_secret_are_followed() {
    secrets_mounted(By::Watcher).await;
}

pub(crate) async fn everything_mounted(by: By) {
    let files = Files::empty();
    let mut volume = Volume::new("");
    let mut publish = |files: &Files, at: &str| {
        let aquarium = "version = 1\n\n[ingest]\ntoken = { file = \"ingest.token\" }\n";
        let (token, secret) = ("the-token-of-the-ingest", "the-first-secret-of-acme");
        let all = [(AQUARIUM, aquarium), ("ingest.token", token), (ACME, &acme(at)), (SECRET, secret)];
        volume.publish(files, &all);
    };
    publish(&files, "first");
    let following = Following::start(files, by).await;
    publish(&following.files, "second");
    following.comes("second").await;
    following.rest().await;
    publish(&following.files, "third");
    following.comes("third").await;
    following.came(&["acme/p/ops: new url", "acme/p/ops: new url"]);
}

#[tokio::test]
async fn a_configuration_that_is_mounted_as_a_whole_is_followed() {
    everything_mounted(By::Watcher).await;
}

pub(crate) async fn retargeted(by: By) {
    let files = Files::new();
    files.write("../elsewhere/one.toml", acme("first"));
    files.write("../elsewhere/two.toml", acme("second"));
    files.link("../../elsewhere/one.toml", ACME);
    let following = Following::start(files, by).await;
    following.files.link("../../elsewhere/two.toml", ACME);
    following.comes("second").await;
    following.came(&["acme/p/ops: new url"]);
}

#[tokio::test]
async fn a_link_that_leads_to_another_file_is_followed() {
    retargeted(By::Watcher).await;
}

pub(crate) async fn target_edited(by: By) {
    let files = Files::new();
    files.write("../one/acme.toml", acme("first"));
    files.write("../two/acme.toml", acme("second"));
    files.link("../../one/acme.toml", ACME);
    let following = Following::start(files, by).await;
    following.files.write("../one/acme.toml", acme("edited"));
    following.comes("edited").await;
    following.rest().await;

    // It is what the link leads to now that is watched.
    following.files.link("../../two/acme.toml", ACME);
    following.comes("second").await;
    following.rest().await;
    following.files.write("../two/acme.toml", acme("third"));
    following.comes("third").await;
    following.came(&["acme/p/ops: new url"; 3]);
}

#[tokio::test]
async fn a_file_that_is_changed_where_a_link_leads_to_is_read() {
    target_edited(By::Watcher).await;
}

#[tokio::test]
async fn what_a_link_does_not_lead_to_any_more_is_left_alone() {
    let files = Files::new();
    files.write("../one/acme.toml", acme("first"));
    files.write("../two/acme.toml", acme("second"));
    files.link("../../one/acme.toml", ACME);
    let following = Following::start(files, By::Watcher).await;
    following.files.link("../../two/acme.toml", ACME);
    following.comes("second").await;
    following.rest().await;

    let looks = following.looks();
    following.files.write("../one/acme.toml", acme("third"));
    sleep(4 * QUIET).await;
    assert_eq!(following.looks(), looks);
}

pub(crate) async fn organizations_retargeted(by: By) {
    let files = Files::new();
    files.clear("organizations");
    files.write("one/acme.toml", acme("first"));
    files.write("two/acme.toml", acme("second"));
    files.link("one", "organizations");
    let following = Following::start(files, by).await;
    following.files.link("two", "organizations");
    following.comes("second").await;
    following.rest().await;
    following.files.write("two/acme.toml", acme("third"));
    following.comes("third").await;
    following.came(&["acme/p/ops: new url", "acme/p/ops: new url"]);
}

#[tokio::test]
async fn organizations_that_are_a_link_are_followed_to_where_it_leads() {
    organizations_retargeted(By::Watcher).await;
}

/// As deployments and secret stores do it: what is used leads through a link that is somewhere else.
pub(crate) async fn retargeted_on_the_way(by: By) {
    let files = Files::new();
    files.write("../store/one/acme", "the-first-secret-of-acme\n");
    files.write("../store/two/acme", "the-second-secret-of-acme\n");
    files.make("../run");
    files.link("../store/one", "../run/current");
    files.link("../../run/current/acme", SECRET);
    let following = Following::start(files, by).await;
    following.files.link("../store/two", "../run/current");
    following.soon(|_, status| status.generation == 2).await;
    assert_eq!(following.secret().unwrap(), "the-second-secret-of-acme");
    following.came(&["acme: secret replaced"]);
}

#[tokio::test]
async fn a_link_on_the_way_that_leads_elsewhere_is_followed() {
    retargeted_on_the_way(By::Watcher).await;
}

/// The directory of the configuration is itself a link to a release.
pub(crate) async fn release(by: By) {
    let files = Files::new();
    files.rename("", "../one");
    files.link("one", "../config");
    for path in [AQUARIUM, "ingest.token", SECRET] {
        files.write(&format!("../two/{path}"), files.read(path));
    }
    files.write("../two/organizations/acme.toml", acme("second"));
    let following = Following::start(files, by).await;
    following.files.link("two", "../config");
    following.comes("second").await;
    following.rest().await;
    following.files.replace(ACME, acme("third"));
    following.comes("third").await;
    following.came(&["acme/p/ops: new url", "acme/p/ops: new url"]);
}

#[tokio::test]
async fn a_configuration_that_is_a_link_is_followed_to_where_it_leads() {
    release(By::Watcher).await;
}
