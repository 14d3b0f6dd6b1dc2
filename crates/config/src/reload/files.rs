//! The files as the reload task sees them. All of it blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::reload::{Watch, WatchError};
use crate::{Config, Diagnostic, Diff, Errors, Inputs, Loaded, Source, diff, load};

/// Where the configuration is, and what watches it.
pub(super) struct Files {
    dir: PathBuf,
    source: Arc<dyn Source + Send + Sync>,
    watch: Mutex<Box<dyn Watch>>,
}

/// What a reading came to.
pub(super) enum Finding {
    /// The same as an earlier one.
    Unchanged,
    Invalid(Errors),
    Valid(Box<Candidate>),
}

/// A configuration that may take the place of the one in force.
pub(super) struct Candidate {
    pub(super) config: Config,
    /// What it changes.
    pub(super) diff: Diff,
    /// What it would change after a restart only.
    pub(super) needs_restart: Vec<&'static str>,
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) inputs: Inputs,
}

impl Finding {
    /// Whether it may be that somebody is in the middle of writing: something is wrong, or an organization is gone.
    pub(super) fn is_doubtful(&self) -> bool {
        match self {
            Finding::Unchanged => false,
            Finding::Invalid(_) => true,
            Finding::Valid(candidate) => !candidate.diff.organizations_removed.is_empty(),
        }
    }
}

impl Files {
    pub(super) fn new(dir: PathBuf, source: Arc<dyn Source + Send + Sync>, watch: Box<dyn Watch>) -> Self {
        Self { dir, source, watch: Mutex::new(watch) }
    }

    /// Whether reading would find something else than `inputs`.
    pub(super) fn have_changed(&self, inputs: &Inputs) -> bool {
        !inputs.are_unchanged(&*self.source)
    }

    /// Reads the files, unless they are what an `earlier` attempt found.
    pub(super) fn read(
        &self,
        earlier: Option<&Inputs>,
        running: &Config,
    ) -> (Result<(), WatchError>, Finding) {
        if earlier.is_some_and(|earlier| !self.have_changed(earlier)) {
            return (self.renew_watch(), Finding::Unchanged);
        }
        let result = load(&self.dir, &*self.source);
        let inputs = match &result {
            Ok(loaded) => &loaded.inputs,
            Err(errors) => &errors.inputs,
        };
        let watched = self.watch(inputs);
        let finding = match result {
            Ok(loaded) => Finding::Valid(Box::new(Candidate::new(loaded, running))),
            Err(errors) => Finding::Invalid(errors),
        };
        (watched, finding)
    }

    /// Watches where these were found.
    pub(super) fn watch(&self, inputs: &Inputs) -> Result<(), WatchError> {
        self.watching(|watch| watch.watch(inputs))
    }

    /// Watches what is to be watched, also where it could not be until now, or something else has taken its place.
    pub(super) fn renew_watch(&self) -> Result<(), WatchError> {
        self.watching(|watch| watch.renew())
    }

    /// A watcher whose thread has died panics when it is asked for something: the files are read all the same.
    fn watching(&self, ask: impl FnOnce(&mut dyn Watch) -> Result<(), WatchError>) -> Result<(), WatchError> {
        let asked = catch_unwind(AssertUnwindSafe(|| ask(&mut **self.watcher())));
        asked.unwrap_or_else(|_| Err(WatchError("the watcher broke off".to_owned())))
    }

    fn watcher(&self) -> MutexGuard<'_, Box<dyn Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidate {
    fn new(loaded: Loaded, running: &Config) -> Self {
        let Loaded { config, warnings, inputs } = loaded;
        let diff = diff(running, &config);
        let needs_restart = diff.needs_restart.clone();
        Self { config: config.succeeding(running), diff, needs_restart, warnings, inputs }
    }
}
