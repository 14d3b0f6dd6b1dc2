//! Several files that are replaced while they are read: what is put in force was on disk at one moment.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquarium_config::reload::{DOUBT_AT_MOST, POLL, QUIET_AT_MOST};
use aquarium_config::{Config, Entry, Memory, Source, load, load_at_rest};
use tokio::time::sleep;

use crate::reloading::{OPS, follow};

/// Files in which a change is made before each of some steps of reading.
struct Changing {
    memory: Mutex<Memory>,
    /// Before which steps which version of which file is put in its place.
    changes: Vec<(usize, &'static str, String)>,
    steps: AtomicUsize,
}

impl Changing {
    fn new(changes: Vec<(usize, &'static str, String)>) -> Self {
        let memory = Memory::new()
            .file("aquarium.toml", "version = 1\n")
            .file(ACME, acme("old"))
            .file("acme", secret("old"));
        Self { memory: Mutex::new(memory), changes, steps: AtomicUsize::new(0) }
    }

    fn step(&self) -> Memory {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let mut memory = self.memory.lock().unwrap();
        for (_, path, content) in self.changes.iter().filter(|(at, ..)| *at == step) {
            *memory = memory.clone().file(path, content.as_str());
        }
        memory.clone()
    }
}

impl Source for Changing {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        self.step().read(path, limit)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.step().list(dir)
    }

    fn device(&self, dir: &Path) -> Option<u64> {
        self.step().device(dir)
    }

    fn env(&self, _name: &str) -> Option<OsString> {
        None
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.step().mode(path)
    }
}

const ACME: &str = "organizations/acme.toml";

fn acme(version: &str) -> String {
    let url = OPS.replace("example.com/", &format!("example.com/{version}"));
    format!("version = 1\nsecret = {{ file = \"../acme\" }}\n{url}")
}

fn secret(version: &str) -> String {
    format!("the-{version}-secret-of-acme\n")
}

/// Which versions of the URL and of the secret go together.
fn pair(config: &Config) -> (String, String) {
    let acme = &config.organizations["acme"];
    let url = acme.webhooks().next().unwrap().url.path().trim_start_matches('/').to_owned();
    (url, acme.secret.as_ref().unwrap().expose()[4..7].to_owned())
}

#[test]
fn an_old_file_and_a_new_one_that_never_were_together_are_not_read_together() {
    let (mut torn, mut tried) = (0, 0);
    for first in 0..24 {
        for second in first..24 {
            let changes = || vec![(first, ACME, acme("new")), (second, "acme", secret("new"))];
            let never = ("old".to_owned(), "new".to_owned());
            let read = pair(&load_at_rest(Path::new(""), &Changing::new(changes())).unwrap().config);
            assert_ne!(read, never, "changed before steps {first} and {second}");
            torn +=
                usize::from(pair(&load(Path::new(""), &Changing::new(changes())).unwrap().config) == never);
            tried += 1;
        }
    }
    println!("{tried} interleavings; a single reading tears {torn} of them");
    assert!(torn > 0, "there is nothing to be seen in this");
}

#[test]
fn files_that_change_during_each_reading_are_an_error() {
    let changes =
        (0..200).map(|step| (step, "acme", format!("the-secret-of-acme-number-{step}\n"))).collect();
    let errors = load_at_rest(Path::new(""), &Changing::new(changes)).unwrap_err();
    let text = errors.to_string();
    assert!(
        text.contains("the files changed while they were read, 5 times in a row; write each file elsewhere"),
        "{text}"
    );
    assert!(
        !errors.inputs.are_unchanged(&Changing::new(vec![])),
        "whatever was read is no reason not to read again"
    );
}

#[tokio::test(start_paused = true)]
async fn files_that_changed_all_the_time_are_taken_when_they_rest() {
    let following = follow().await;
    following.disk.restless(true);
    following.hints.give();
    sleep(QUIET_AT_MOST + DOUBT_AT_MOST).await;
    let errors = following.errors();
    assert!(errors[0].contains("the files changed while they were read"), "{errors:?}");
    assert!(following.handle.status().uncertain.contains("anyone"));
    following.disk.restless(false);
    sleep(2 * POLL).await;
    assert_eq!(following.errors(), [""; 0]);
}
