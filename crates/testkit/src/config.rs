//! A configuration on disk that a test can write, and rewrite while it is in use.
//!
//! Each call replaces the file it is about by renaming another one over it: who reads it at that moment gets the old
//! one or the new one.
//!
//! ```
//! use aquarium_testkit::config::ConfigDirectory;
//!
//! let mut config = ConfigDirectory::new();
//! config.section("delivery", "timeout = \"1s\"\nretry = [\"100ms\"]");
//! config.webhook("acme", "urban-driving", "ops", "http://127.0.0.1:10009/hooks", &["*"], "concurrency = 1");
//!
//! let organization = std::fs::read_to_string(config.path().join("organizations/acme.toml"))?;
//! assert!(organization.contains("concurrency = 1"));
//! assert_eq!(config.secret("acme").len(), 40);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::random;

/// A directory with an `aquarium.toml`, and what belongs to it. It is deleted when it is dropped.
///
/// It begins with listeners on free ports of 127.0.0.1, a queue of its own, and leave to call 127.0.0.0/8.
///
/// # Panics
/// All methods do when the file system fails.
#[derive(Debug)]
pub struct ConfigDirectory {
    root: TempDir,
    main: Main,
    organizations: BTreeMap<String, Organization>,
    secrets: BTreeMap<String, String>,
}

/// The text of `aquarium.toml`: what stands first, then the sections.
#[derive(Debug)]
struct Main {
    preamble: String,
    sections: Vec<(String, String)>,
}

/// The text of an organization's file: what stands first, then the webhooks by project and name.
#[derive(Debug, Default)]
struct Organization {
    preamble: String,
    webhooks: BTreeMap<(String, String), String>,
}

impl ConfigDirectory {
    /// A directory for this test alone.
    #[expect(clippy::new_without_default, reason = "a default does not write files")]
    pub fn new() -> ConfigDirectory {
        let root = TempDir::with_prefix("aquarium-").expect("a directory for temporary files");
        let mut config = ConfigDirectory {
            main: Main { preamble: "version = 1\n".to_owned(), sections: Vec::new() },
            organizations: BTreeMap::new(),
            secrets: BTreeMap::new(),
            root,
        };
        for directory in ["config", "config/organizations", "config/secrets", "data"] {
            // That of the queue as the sidecar makes it, which warns of others.
            let mode = if directory == "data" { 0o700 } else { 0o755 };
            let made = DirBuilder::new().mode(mode).create(config.root.path().join(directory));
            must(made, directory);
        }
        let queue = format!("path = {}", quoted(&config.queue().to_string_lossy()));
        config.main.set("ingest", "listen = \"127.0.0.1:0\"");
        config.main.set("admin", "listen = \"127.0.0.1:0\"");
        config.main.set("queue", &queue);
        config.main.set("egress", "allow = [\"127.0.0.0/8\"]");
        config.write_main();
        config
    }

    /// The directory, as `--config` takes it.
    pub fn path(&self) -> PathBuf {
        self.root.path().join("config")
    }

    /// The database of the queue, unless a section says otherwise.
    pub fn queue(&self) -> PathBuf {
        self.root.path().join("data/queue.db")
    }

    /// A directory next to the configuration and the queue that nothing else uses, such as for sockets.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// Sets a section of `aquarium.toml`: the lines below `[name]`, in place of those that were there.
    pub fn section(&mut self, name: &str, lines: &str) -> &mut Self {
        self.main.set(name, lines);
        self.write_main();
        self
    }

    /// Adds lines to `aquarium.toml` that stand before all sections.
    pub fn top(&mut self, lines: &str) -> &mut Self {
        self.main.preamble += &format!("{lines}\n");
        self.write_main();
        self
    }

    /// Replaces `aquarium.toml` as a whole. Sections that are set later are added to it.
    pub fn main_toml(&mut self, text: impl Into<String>) -> &mut Self {
        self.main = Main { preamble: text.into(), sections: Vec::new() };
        self.write_main();
        self
    }

    /// Adds an organization, or replaces all that it has but its secret.
    ///
    /// Its file begins with the version and a secret, which has 40 characters and is in `secrets/<name>`; `toml` follows.
    pub fn organization(&mut self, name: &str, toml: &str) -> &mut Self {
        if !self.secrets.contains_key(name) {
            self.new_secret(name);
        }
        let secret = quoted(&format!("../secrets/{name}"));
        self.organization_raw(name, &format!("version = 1\nsecret = {{ file = {secret} }}\n{toml}"))
    }

    /// Adds an organization, or replaces it, with this text as its file.
    pub fn organization_raw(&mut self, name: &str, toml: &str) -> &mut Self {
        let organization = Organization { preamble: toml.to_owned(), webhooks: BTreeMap::new() };
        self.organizations.insert(name.to_owned(), organization);
        self.write_organization(name);
        self
    }

    /// Deletes the file of an organization.
    pub fn remove_organization(&mut self, name: &str) -> &mut Self {
        self.organizations.remove(name);
        let file = self.path().join(organization_file(name));
        must(fs::remove_file(&file), &file.to_string_lossy());
        self
    }

    /// Adds a webhook, or replaces it; and its organization, if there is none of that name.
    ///
    /// `extra` are further lines of its table.
    pub fn webhook(
        &mut self,
        organization: &str,
        project: &str,
        name: &str,
        url: &str,
        events: &[&str],
        extra: &str,
    ) -> &mut Self {
        let events: Vec<_> = events.iter().map(|event| quoted(event)).collect();
        let text = format!(
            "[projects.{}.webhooks.{}]\nurl = {}\nevents = [{}]\n{extra}",
            quoted(project),
            quoted(name),
            quoted(url),
            events.join(", "),
        );
        if !self.organizations.contains_key(organization) {
            self.organization(organization, "");
        }
        let file = self.organizations.entry(organization.to_owned()).or_default();
        file.webhooks.insert((project.to_owned(), name.to_owned()), text);
        self.write_organization(organization);
        self
    }

    /// Takes a webhook out that [`ConfigDirectory::webhook`] put in.
    ///
    /// # Panics
    /// If it did not.
    pub fn remove_webhook(&mut self, organization: &str, project: &str, name: &str) -> &mut Self {
        let file = self.organizations.get_mut(organization);
        let removed = file.and_then(|file| file.webhooks.remove(&(project.to_owned(), name.to_owned())));
        assert!(removed.is_some(), "there is no webhook {organization}/{project}/{name}");
        self.write_organization(organization);
        self
    }

    /// The secret of an organization.
    ///
    /// # Panics
    /// If it got none here.
    pub fn secret(&self, organization: &str) -> &str {
        match self.secrets.get(organization) {
            Some(secret) => secret,
            None => panic!("no secret was written for {organization}"),
        }
    }

    /// Gives an organization a new secret, and returns it.
    pub fn new_secret(&mut self, organization: &str) -> String {
        let secret = random::text();
        self.replace(format!("secrets/{organization}"), format!("{secret}\n").as_bytes(), 0o600);
        self.secrets.insert(organization.to_owned(), secret.clone());
        secret
    }

    /// Writes any other file, or one of these as it should not be. The path is relative to [`ConfigDirectory::path`].
    pub fn write(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        self.replace(relative, contents.as_ref(), 0o644);
    }

    fn write_main(&self) {
        let mut text = self.main.preamble.clone();
        for (name, lines) in &self.main.sections {
            text += &format!("\n[{name}]\n{lines}\n");
        }
        self.write("aquarium.toml", text);
    }

    fn write_organization(&self, name: &str) {
        let Some(Organization { preamble, webhooks }) = self.organizations.get(name) else { return };
        let mut text = preamble.clone();
        for webhook in webhooks.values() {
            text += &format!("\n{webhook}\n");
        }
        self.write(organization_file(name), text);
    }

    /// Renames a finished file over the one that is there. It is made where nobody watches.
    fn replace(&self, relative: impl AsRef<Path>, contents: &[u8], mode: u32) {
        let path = self.path().join(relative);
        let replace = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = NamedTempFile::new_in(self.root.path())?;
            file.write_all(contents)?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.persist(&path)?;
            Ok(())
        };
        must(replace(), &path.to_string_lossy());
    }
}

impl Main {
    fn set(&mut self, name: &str, lines: &str) {
        match self.sections.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => lines.clone_into(old),
            None => self.sections.push((name.to_owned(), lines.to_owned())),
        }
    }
}

fn organization_file(name: &str) -> String {
    format!("organizations/{name}.toml")
}

/// A TOML basic string. JSON's is one, as far as names and URLs go.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn must(result: io::Result<()>, what: &str) {
    if let Err(error) = result {
        panic!("{what}: {error}");
    }
}
