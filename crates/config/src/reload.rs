//! Follows a configuration while it is in use.
//!
//! One task, [`Reloader::run`], wakes on a hint that a file may have changed, on a poll, and on request. It waits until
//! the files are quiet, reads them, and puts what they say in force, or keeps what is in force and says why. A hint tells
//! nothing but that it is worth looking: what counts is what is read. All files are read as they were at one moment. What is wrong,
//! or lacks something that is in force, may be half saved: it counts when the files have stayed so.
//!
//! What is in force is one `Arc<Config>`, published on a watch channel. Who acts on an organization keeps its `Arc` while
//! doing so: a reload is reported when nobody acts on what it replaced any more, or after a second.

mod files;
mod presence;
mod settle;
mod status;
mod uncertain;
mod watcher;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aquarium_delivery::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use files::{Candidate, Files, Finding, Question};
use settle::{Doubt, Step, step};
pub use status::{Refused, Rejected, Reloaded, Status};
pub use uncertain::Uncertain;
pub use watcher::{FileWatch, Hints, Watch, WatchError};

use crate::{Config, Diagnostic, Diff, Inputs, Loaded, Organization, Source};

/// How often the files are looked at without a hint.
pub const POLL: Duration = Duration::from_secs(5);
/// How long no hint may come before the files are read.
pub const QUIET: Duration = Duration::from_millis(200);
/// After this time they are read although hints keep coming.
pub const QUIET_AT_MOST: Duration = Duration::from_secs(2);
/// How long files have to stay as they are before an error, or that something is missing, counts: a program may be in the middle of
/// writing one.
pub const SETTLE: Duration = Duration::from_secs(1);
/// After this time it counts although the files keep changing.
pub const DOUBT_AT_MOST: Duration = Duration::from_secs(5);
/// How long a reload waits at most until nobody acts on what it replaced.
const RELEASE: Duration = Duration::from_secs(1);
const RELEASE_CHECK: Duration = Duration::from_millis(2);
/// Requests for a reload that may wait for an answer at once.
const REQUESTS: usize = 32;
/// How long a request waits for its answer, which a file system that hangs may never give.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Changes, and warnings, of one reload that the log tells one by one.
const TOLD: usize = 20;

/// What a configuration is put in force in.
pub trait Target: Send + 'static {
    /// Gets ready for a configuration, which is put in force right afterwards: the last that may fail.
    ///
    /// The error is why it cannot be used; what is in force stays then.
    fn prepare(&mut self, next: &Config, diff: &Diff) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a [`Reloader`] works with.
pub struct Parts<T> {
    /// The directory that holds `aquarium.toml`.
    pub dir: PathBuf,
    /// Where it is read from.
    pub source: Arc<dyn Source + Send + Sync>,
    /// What watches the files, and gives `hints`.
    pub watch: Box<dyn Watch>,
    /// Where it is told that something may have changed.
    pub hints: Hints,
    /// What the configuration is put in force in.
    pub target: T,
    /// Tells the time.
    pub now: Box<dyn Fn() -> Timestamp + Send>,
}

impl<T: fmt::Debug> fmt::Debug for Parts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("dir", &self.dir).field("target", &self.target).finish_non_exhaustive()
    }
}

/// The configuration in force, what became of the attempts to replace it, and a way to ask for another.
#[derive(Debug, Clone)]
pub struct Handle {
    config: watch::Receiver<Arc<Config>>,
    status: watch::Receiver<Arc<Status>>,
    requests: mpsc::Sender<Request>,
}

type Answer = Result<Reloaded, Arc<Rejected>>;

/// What an operator says about a reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadOptions {
    /// There may be no organization any more, or their directory may be on another device than before. Otherwise that is taken for a
    /// volume that is not mounted, and refused.
    pub allow_empty: bool,
}

struct Request {
    options: ReloadOptions,
    answer: oneshot::Sender<Answer>,
}

impl Handle {
    /// The configuration in force, and each that comes after it.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.clone()
    }

    /// What is in force since when, and what is wrong.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Reads the files, and answers when what they say is in force.
    ///
    /// # Errors
    /// They cannot be used, or could not be read in time.
    pub async fn reload(&self) -> Result<Reloaded, Refused> {
        self.reload_with(ReloadOptions::default()).await
    }

    /// The same, with what the operator says about it.
    ///
    /// # Errors
    /// They cannot be used, or could not be read in time.
    pub async fn reload_with(&self, options: ReloadOptions) -> Result<Reloaded, Refused> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { options, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopped,
        })?;
        match timeout(REQUEST_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer.map_err(Refused::Rejected),
            Ok(Err(_)) => Err(Refused::Stopped),
            Err(_) => Err(Refused::TimedOut(REQUEST_TIMEOUT)),
        }
    }
}

/// Keeps the configuration in force what the files say.
pub struct Reloader<T> {
    files: Arc<Files>,
    hints: Hints,
    target: T,
    now: Box<dyn Fn() -> Timestamp + Send>,
    requests: mpsc::Receiver<Request>,
    config: watch::Sender<Arc<Config>>,
    status: watch::Sender<Arc<Status>>,
    /// What the last attempt read, whatever came of it.
    attempted: Arc<Inputs>,
    /// What the configuration in force was made from.
    in_force: Arc<Inputs>,
    /// Those of the last configuration, as they were logged.
    warnings: BTreeSet<String>,
    watched: Result<(), String>,
}

impl<T: fmt::Debug> fmt::Debug for Reloader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.borrow();
        f.debug_struct("Reloader")
            .field("target", &self.target)
            .field("status", &status)
            .finish_non_exhaustive()
    }
}

/// Why the task woke up.
enum Wake {
    Changed,
    Asked(Request),
    Poll,
    Shutdown,
}

impl<T: Target> Reloader<T> {
    /// Goes on from a configuration that has just been loaded, and is in force as generation 1.
    pub fn new(parts: Parts<T>, loaded: Loaded) -> (Self, Handle) {
        let Loaded { config, warnings, inputs } = loaded;
        let status = Status::first(inputs.digest(), (parts.now)());
        let (config, configs) = watch::channel(Arc::new(config));
        let (status, statuses) = watch::channel(Arc::new(status));
        let (asked, requests) = mpsc::channel(REQUESTS);
        let inputs = Arc::new(inputs);
        let reloader = Self {
            files: Arc::new(Files::new(parts.dir, parts.source, parts.watch)),
            hints: parts.hints,
            target: parts.target,
            now: parts.now,
            requests,
            config,
            status,
            attempted: inputs.clone(),
            in_force: inputs,
            warnings: warnings.iter().map(ToString::to_string).collect(),
            watched: Ok(()),
        };
        (reloader, Handle { config: configs, status: statuses, requests: asked })
    }

    /// Follows the files until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.watch().await;
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = tokio::select! {
                () = shutdown.cancelled() => Wake::Shutdown,
                () = self.hints.noticed() => Wake::Changed,
                Some(request) = self.requests.recv() => Wake::Asked(request),
                _ = poll.tick() => Wake::Poll,
            };
            let mut waiting = Vec::new();
            match wake {
                Wake::Shutdown => return,
                Wake::Poll => {
                    if !self.has_changed().await {
                        continue;
                    }
                }
                Wake::Asked(request) => waiting.push(request),
                Wake::Changed => {}
            }
            let round = async {
                self.quiet(&mut waiting, Instant::now() + QUIET_AT_MOST).await;
                let answer = self.round(&mut waiting).await;
                for request in waiting {
                    // The caller may have gone.
                    let _ = request.answer.send(answer.clone());
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = round => {}
            }
        }
    }

    async fn watch(&mut self) {
        let (files, inputs) = (self.files.clone(), self.attempted.clone());
        if let Some(watched) = blocking(move || files.watch(&inputs)).await {
            self.note_watched(watched);
        }
    }

    /// Whether a look at the files shows that there is something to read; they are watched from then on.
    async fn has_changed(&mut self) -> bool {
        let (files, inputs) = (self.files.clone(), self.attempted.clone());
        match blocking(move || (files.renew_watch(), files.have_changed(&inputs))).await {
            Some((watched, changed)) => {
                self.note_watched(watched);
                changed
            }
            None => false,
        }
    }

    /// Waits until nothing has changed for a while. Requests that come meanwhile get the same answer.
    async fn quiet(&mut self, waiting: &mut Vec<Request>, latest: Instant) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(latest.min(Instant::now() + QUIET)) => return,
                () = self.hints.noticed() => {}
                Some(request) = self.requests.recv(), if waiting.len() < REQUESTS => waiting.push(request),
            }
        }
    }

    /// Waits until it is time to read doubtful files again, or they have changed.
    async fn settle(&mut self, waiting: &mut Vec<Request>, until: Instant, latest: Instant) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = self.hints.noticed() => return self.quiet(waiting, latest.min(Instant::now() + QUIET_AT_MOST)).await,
                Some(request) = self.requests.recv(), if waiting.len() < REQUESTS => waiting.push(request),
            }
        }
    }

    /// Reads the files until what they say is believed, and puts them in force if they are good and new.
    async fn round(&mut self, waiting: &mut Vec<Request>) -> Answer {
        let mut doubt: Option<Doubt> = None;
        let finding = loop {
            let allow_empty = waiting.iter().any(|request| request.options.allow_empty);
            // A refused reading may be good with the operator's word.
            let earlier = (doubt.is_none() && !allow_empty).then(|| self.attempted.clone());
            let Some(finding) = self.read(earlier, allow_empty).await else {
                return self
                    .reject(vec!["reading the configuration failed".to_owned()], Uncertain::default());
            };
            let Some(reading) = finding.reading(&self.in_force) else { break finding };
            let (next, known) = step(doubt, reading, Instant::now());
            doubt = known;
            let (Step::ReadAgain(at), Some(known)) = (next, known) else { break finding };
            let uncertain = finding.uncertain(&self.in_force, &self.config.borrow());
            self.update(|status| status.uncertain = uncertain);
            self.settle(waiting, at, known.ends()).await;
        };
        let uncertain = finding.uncertain(&self.in_force, &self.config.borrow());
        match finding {
            Finding::Unchanged => self.stands(),
            Finding::Invalid(errors) => {
                self.attempted = Arc::new(errors.inputs.clone());
                let lines = errors.errors().map(ToString::to_string).collect();
                self.reject(lines, uncertain)
            }
            Finding::Valid(candidate) => self.accept(*candidate, uncertain).await,
        }
    }

    /// What the files say, unless it is what an earlier attempt found.
    async fn read(&mut self, earlier: Option<Arc<Inputs>>, allow_empty: bool) -> Option<Finding> {
        let (files, running) = (self.files.clone(), self.config.borrow().clone());
        let in_force = self.in_force.clone();
        let read = move || {
            let earlier = earlier.as_deref();
            files.read(&Question { earlier, in_force: &in_force, running: &running, allow_empty })
        };
        let (watched, finding) = blocking(read).await?;
        self.note_watched(watched);
        Some(finding)
    }

    /// The answer when there is nothing new to be read.
    fn stands(&self) -> Answer {
        let status = self.status.borrow();
        match &status.rejected {
            Some(rejected) => Err(rejected.clone()),
            None => Ok(Reloaded { generation: status.generation, changes: Vec::new() }),
        }
    }

    async fn accept(&mut self, candidate: Candidate, uncertain: Uncertain) -> Answer {
        let Candidate { config, diff, needs_restart, warnings, inputs } = candidate;
        self.attempted = Arc::new(inputs);
        if self.attempted.fingerprint() == self.in_force.fingerprint() {
            // The directory may be on another device by now.
            self.in_force = self.attempted.clone();
            self.recover();
            return self.stands();
        }
        if let Err(reason) = self.target.prepare(&config, &diff).await {
            return self.reject(vec![reason], uncertain);
        }
        let known = self.status.borrow().needs_restart.clone();
        let mut news = diff;
        news.needs_restart.retain(|setting| !known.contains(setting));
        let changes: Vec<_> = news.lines().collect();
        if !changes.is_empty() {
            self.publish(config).await;
        }
        self.in_force = self.attempted.clone();
        let (now, digest) = ((self.now)(), self.in_force.digest());
        let mut generation = 0;
        self.update(|status| {
            status.accept(digest, now, needs_restart);
            generation = status.generation;
        });
        self.warn(warnings);
        let told =
            if changes.is_empty() { "nothing that matters has changed".to_owned() } else { told(&changes) };
        info!("configuration {generation} is in force: {told}");
        Ok(Reloaded { generation, changes })
    }

    /// The files are what is in force; if they were something else meanwhile that was rejected, then that is over.
    fn recover(&mut self) {
        self.update(|status| status.uncertain = Uncertain::default());
        if self.status.borrow().rejected.is_some() {
            self.update(|status| status.rejected = None);
            let generation = self.status.borrow().generation;
            info!("configuration {generation} is in force: the files are again what they were");
        }
    }

    fn reject(&mut self, errors: Vec<String>, uncertain: Uncertain) -> Answer {
        let rejected = Arc::new(Rejected { at: (self.now)(), errors });
        self.update(|status| status.reject(rejected.clone(), uncertain));
        let generation = self.status.borrow().generation;
        error!("configuration not used, {generation} stays in force: {rejected}");
        Err(rejected)
    }

    /// Puts a configuration in force, and waits until nobody acts on what it replaces.
    async fn publish(&mut self, next: Config) {
        let next = Arc::new(next);
        let previous = self.config.send_replace(next.clone());
        let replaced: Vec<Weak<Organization>> = previous
            .organizations
            .iter()
            .filter(|(name, old)| next.organization(name).is_none_or(|new| !Arc::ptr_eq(old, new)))
            .map(|(_, old)| Arc::downgrade(old))
            .collect();
        let previous = {
            let whole = Arc::downgrade(&previous);
            drop(previous);
            whole
        };
        let deadline = Instant::now() + RELEASE;
        let in_use = || previous.strong_count() > 0 || replaced.iter().any(|old| old.strong_count() > 0);
        while in_use() && Instant::now() < deadline {
            sleep(RELEASE_CHECK).await;
        }
    }

    /// Logs the warnings that the last configuration did not have.
    fn warn(&mut self, warnings: Vec<Diagnostic>) {
        let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        for line in lines.iter().filter(|line| !self.warnings.contains(*line)).take(TOLD) {
            warn!("{line}");
        }
        self.warnings = lines.into_iter().collect();
    }

    fn note_watched(&mut self, watched: Result<(), WatchError>) {
        let watched = watched.map_err(|error| error.to_string());
        if self.watched == watched {
            return;
        }
        match &watched {
            Ok(()) => info!("the configuration's files are watched again"),
            Err(error) => warn!("{error}; changes are noticed by a look every {} s", POLL.as_secs()),
        }
        self.watched.clone_from(&watched);
        self.update(|status| status.watched = watched);
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }
}

/// Runs what may block. `None` if it panicked, or there is no time left for it.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn told(changes: &[String]) -> String {
    let (told, rest) = changes.split_at(changes.len().min(TOLD));
    let told = told.join("; ");
    if rest.is_empty() { told } else { format!("{told}; and {} more", rest.len()) }
}
