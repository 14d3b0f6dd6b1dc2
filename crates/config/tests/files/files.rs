//! A configuration on disk, to be changed in the ways that programs change files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

pub(crate) const AQUARIUM: &str = "aquarium.toml";
pub(crate) const ACME: &str = "organizations/acme.toml";
pub(crate) const SECRET: &str = "secrets/acme";

/// The file of an organization whose one webhook, `p/ops`, is at this path of its host.
pub(crate) fn acme(at: &str) -> String {
    format!(
        "version = 1\nsecret = {{ file = \"../secrets/acme\" }}\n\n\
        [projects.p.webhooks.ops]\nurl = \"https://ops.example.com/{at}\"\nevents = [\"*\"]\n"
    )
}

/// Paths are relative to the directory of the configuration, which is in a directory of its own: `../` is not watched
/// unless something leads there.
pub(crate) struct Files(TempDir);

impl Files {
    /// Only the directory.
    pub(crate) fn empty() -> Self {
        let files = Self(TempDir::new().unwrap());
        fs::create_dir(files.path("")).unwrap();
        files
    }

    /// One organization, whose webhook is at `first`.
    pub(crate) fn new() -> Self {
        let files = Self::empty();
        files.write(AQUARIUM, "version = 1\n\n[ingest]\ntoken = { file = \"ingest.token\" }\n");
        files.write("ingest.token", "the-token-of-the-ingest\n");
        files.write(ACME, acme("first"));
        files.write(SECRET, "the-first-secret-of-acme\n");
        files
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        match path.strip_prefix("../") {
            Some(outside) => self.0.path().join(outside),
            None if path.is_empty() => self.0.path().join("config"),
            None => self.0.path().join("config").join(path),
        }
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Writes a file in place, in a new directory if need be.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.make(path.rsplit_once('/').map_or("", |(directory, _)| directory));
        fs::write(self.path(path), content).unwrap();
    }

    /// Puts another file in the place of this one.
    pub(crate) fn replace(&self, path: &str, content: impl AsRef<[u8]>) {
        let new = format!("{path}.new");
        self.write(&new, content);
        self.rename(&new, path);
    }

    /// Makes a directory and those that it is in.
    pub(crate) fn make(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Removes a file or a link.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    /// Removes a directory and all that is in it.
    pub(crate) fn clear(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).unwrap();
    }

    /// Makes a link, or puts it in the place of another.
    pub(crate) fn link(&self, to: &str, path: &str) {
        let new = format!("{path}.new");
        symlink(to, self.path(&new)).unwrap();
        self.rename(&new, path);
    }
}
