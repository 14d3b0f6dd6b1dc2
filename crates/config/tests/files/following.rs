//! The reload task at work on real files, and what can be seen of it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_config::reload::{
    FileWatch, Handle, Hints, POLL, Parts, Reloader, Status, Target, Watch, WatchError,
};
use aquarium_config::{Config, Diff, Entry, Fs, Inputs, Secret, Source, load};
use aquarium_delivery::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber as _;

use crate::Files;
use crate::log::Log;

/// Longer than anything takes that is not broken.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What the environment variable `ACME_SECRET` holds.
pub(crate) const ACME_SECRET: &str = "a-secret-of-the-environment";

/// How changes are to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By the real watcher.
    Watcher,
    /// By the poll, since there is no watcher.
    Poll,
}

/// Files that are followed.
pub(crate) struct Following {
    pub(crate) files: Files,
    pub(crate) handle: Handle,
    by: By,
    started: Instant,
    source: Arc<Counting>,
    history: Arc<Mutex<Vec<String>>>,
    log: Log,
}

impl Following {
    /// Follows these files, and is at rest.
    pub(crate) async fn start(files: Files, by: By) -> Self {
        let following = Self::start_late(files, by, |_| {});
        following.rest().await;
        following
    }

    /// Follows these files, in which something changes after they were loaded and before anything watches them.
    pub(crate) fn start_late(files: Files, by: By, change: impl FnOnce(&Files)) -> Self {
        let hints = Hints::new();
        let watch: Box<dyn Watch> = match by {
            By::Watcher => Box::new(FileWatch::new(hints.clone())),
            By::Poll => Box::new(Blind),
        };
        Self::with(files, by, watch, hints, change)
    }

    /// Follows these files with a watch of its own kind.
    pub(crate) fn with(
        files: Files,
        by: By,
        watch: Box<dyn Watch>,
        hints: Hints,
        change: impl FnOnce(&Files),
    ) -> Self {
        let (source, history, log) = (Arc::new(Counting::default()), Arc::default(), Log::default());
        let dir = files.path("");
        let loaded = load(&dir, &*source).unwrap_or_else(|errors| panic!("{errors}"));
        change(&files);
        let parts = Parts {
            dir,
            source: source.clone(),
            watch,
            hints,
            target: Keeping(Arc::clone(&history)),
            now: Box::new(Timestamp::default),
        };
        let (reloader, handle) = Reloader::new(parts, loaded);
        let started = Instant::now();
        tokio::spawn(reloader.run(CancellationToken::new()).with_subscriber(log.clone()));
        Self { files, handle, by, started, source, history, log }
    }

    /// Waits until all that was noticed so far has been dealt with.
    pub(crate) async fn rest(&self) {
        // What comes of it is seen in the status.
        let _ = self.handle.reload().await;
    }

    /// Does something that is noticed, and waits until it has been dealt with.
    pub(crate) async fn noticed(&self, act: impl FnOnce(&Files)) {
        let mut looks = self.source.looks.subscribe();
        act(&self.files);
        let look = timeout_at(self.patience(), looks.changed()).await;
        look.expect("nobody noticed").unwrap();
        self.rest().await;
    }

    /// Waits for the poll, when all is at rest.
    pub(crate) async fn poll(&self) {
        let mut looks = self.source.looks.subscribe();
        timeout_at(Instant::now() + LONG, looks.changed()).await.expect("nobody looks").unwrap();
    }

    /// From now on changes must be noticed by a watcher. A poll has just been.
    pub(crate) fn has_watcher(&mut self) {
        (self.by, self.started) = (By::Watcher, Instant::now());
    }

    /// Waits until this holds. If there is a watcher, it must be what brings it about: there is no poll until then.
    pub(crate) async fn soon(&self, holds: impl Fn(&Config, &Status) -> bool) {
        self.wait(self.patience(), holds).await;
    }

    /// Waits until this holds, whatever brings it about.
    pub(crate) async fn eventually(&self, holds: impl Fn(&Config, &Status) -> bool) {
        self.wait(Instant::now() + LONG, holds).await;
    }

    /// Waits, as [`soon`](Self::soon), until the webhook of `acme` is at this path, and nothing is wrong.
    pub(crate) async fn comes(&self, at: &str) {
        self.soon(|config, status| place(config).as_deref() == Some(at) && status.rejected.is_none()).await;
    }

    /// Waits, as [`soon`](Self::soon), until the files are rejected, and returns the first reason, with paths as they
    /// are in the directory of the configuration.
    pub(crate) async fn rejected(&self) -> String {
        self.soon(|_, status| status.rejected.is_some()).await;
        let error = self.handle.status().rejected.as_ref().unwrap().errors[0].clone();
        error.replace(&format!("{}/", self.files.path("").display()), "")
    }

    fn patience(&self) -> Instant {
        match self.by {
            By::Watcher => self.started + POLL,
            By::Poll => Instant::now() + LONG,
        }
    }

    /// Every change of the status is told in the log, so a line there is when to look again.
    async fn wait(&self, until: Instant, holds: impl Fn(&Config, &Status) -> bool) {
        let mut lines = self.log.lines();
        let met = async {
            while !holds(&self.config(), &self.handle.status()) {
                lines.changed().await.unwrap();
            }
        };
        if timeout_at(until, met).await.is_err() {
            let after = self.started.elapsed();
            panic!("not within {after:?}: {:#?}\n{:#?}", self.handle.status(), self.told());
        }
    }

    /// Who holds on to it holds up the task.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.handle.config().borrow().clone()
    }

    /// Where the webhook of `acme` is.
    pub(crate) fn place(&self) -> Option<String> {
        place(&self.config())
    }

    /// The secret of `acme`.
    pub(crate) fn secret(&self) -> Option<String> {
        secret(&self.config())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.handle.status().generation
    }

    /// How many times the files could not be used.
    pub(crate) fn rejections(&self) -> u64 {
        self.handle.status().rejections
    }

    /// What each configuration that came in force has changed, from the first to the last.
    pub(crate) fn history(&self) -> Vec<String> {
        self.history.lock().unwrap().clone()
    }

    /// That these changes came in force one after the other and nothing else did, and that nothing was ever wrong.
    #[track_caller]
    pub(crate) fn came(&self, history: &[&str]) {
        assert_eq!(self.history(), history);
        assert_eq!(self.rejections(), 0, "{:#?}", self.told());
    }

    /// What was logged.
    pub(crate) fn told(&self) -> Vec<String> {
        self.log.lines().borrow().clone()
    }

    /// How many times the files were looked at, to load them or to see whether they have changed.
    pub(crate) fn looks(&self) -> usize {
        *self.source.looks.borrow()
    }

    /// How many times the whole was loaded.
    pub(crate) fn loads(&self) -> usize {
        self.source.loads.load(Ordering::Relaxed)
    }
}

/// Where the webhook of `acme` is.
pub(crate) fn place(config: &Config) -> Option<String> {
    let ops = config.webhook(&"acme/p/ops".parse().unwrap())?;
    Some(ops.url.path().trim_start_matches('/').to_owned())
}

/// The secret of `acme`.
pub(crate) fn secret(config: &Config) -> Option<String> {
    config.organization("acme")?.secret.as_ref().map(Secret::expose).map(str::to_owned)
}

/// The file system, and a count of what is done with it.
#[derive(Default)]
struct Counting {
    /// How often `aquarium.toml` was read, to load it or to see whether it has changed.
    looks: watch::Sender<usize>,
    /// How often the mode of the token's file was asked for, which only loading does.
    loads: AtomicUsize,
}

impl Source for Counting {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        if path.ends_with("aquarium.toml") {
            self.looks.send_modify(|looks| *looks += 1);
        }
        Fs.read(path, limit)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        Fs.list(dir)
    }

    fn device(&self, dir: &Path) -> Option<u64> {
        Fs.device(dir)
    }

    fn env(&self, name: &str) -> Option<OsString> {
        (name == "ACME_SECRET").then(|| ACME_SECRET.into())
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        if path.ends_with("ingest.token") {
            self.loads.fetch_add(1, Ordering::Relaxed);
        }
        Fs.mode(path)
    }
}

/// Takes every configuration, and notes what it changes.
struct Keeping(Arc<Mutex<Vec<String>>>);

impl Target for Keeping {
    async fn prepare(&mut self, _next: &Config, diff: &Diff) -> Result<(), String> {
        self.0.lock().unwrap().push(diff.to_string());
        Ok(())
    }
}

/// Cannot watch anything.
pub(crate) struct Blind;

impl Watch for Blind {
    fn watch(&mut self, _inputs: &Inputs) -> Result<(), WatchError> {
        self.renew()
    }

    fn renew(&mut self) -> Result<(), WatchError> {
        Err(WatchError("there is no watcher here".to_owned()))
    }
}
