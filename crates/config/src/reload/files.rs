//! The files as the reload task sees them. All of it blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::presence::refusal;
use super::settle::Reading;
use super::uncertain::Uncertain;
use crate::load::ORGANIZATIONS;
use crate::reload::{Watch, WatchError};
use crate::{Config, Diagnostic, Diff, Errors, Inputs, Loaded, Severity, Source, diff, load_at_rest};

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

/// What the files are read for.
pub(super) struct Question<'a> {
    /// The reading that need not be repeated.
    pub(super) earlier: Option<&'a Inputs>,
    /// What the configuration in force was made from.
    pub(super) in_force: &'a Inputs,
    pub(super) running: &'a Config,
    /// Whether the operator has said that there may be no organization any more.
    pub(super) allow_empty: bool,
}

impl Finding {
    /// What decides whether it is believed.
    pub(super) fn reading(&self, in_force: &Inputs) -> Option<Reading> {
        let (inputs, invalid) = match self {
            Finding::Unchanged => return None,
            Finding::Invalid(errors) => (&errors.inputs, true),
            Finding::Valid(candidate) => (&candidate.inputs, false),
        };
        Some(Reading {
            doubtful: invalid || inputs.lack_something_of(in_force),
            fingerprint: (!inputs.are_torn()).then(|| inputs.fingerprint()),
        })
    }

    /// Which organizations there may be besides those that run.
    pub(super) fn uncertain(&self, in_force: &Inputs, running: &Config) -> Uncertain {
        match self {
            Finding::Unchanged => Uncertain::default(),
            Finding::Invalid(errors) => Uncertain::new(&errors.inputs, in_force, running),
            Finding::Valid(candidate) => Uncertain::new(&candidate.inputs, in_force, running),
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

    /// Reads the files, unless they are what an earlier attempt found.
    pub(super) fn read(&self, question: &Question<'_>) -> (Result<(), WatchError>, Finding) {
        if question.earlier.is_some_and(|earlier| !self.have_changed(earlier)) {
            return (self.renew_watch(), Finding::Unchanged);
        }
        let result = load_at_rest(&self.dir, &*self.source);
        let inputs = match &result {
            Ok(loaded) => &loaded.inputs,
            Err(errors) => &errors.inputs,
        };
        let watched = self.watch(inputs);
        let finding = match result {
            Ok(loaded) => self.judge(loaded, question),
            Err(errors) => Finding::Invalid(errors),
        };
        (watched, finding)
    }

    /// Refuses what says nothing wrong, and yet is most likely a volume that is not mounted.
    fn judge(&self, loaded: Loaded, question: &Question<'_>) -> Finding {
        let differs = loaded.inputs.fingerprint() != question.in_force.fingerprint();
        let refused = if question.allow_empty || !differs {
            None
        } else {
            refusal(&question.in_force.presence(), &loaded.inputs.presence())
        };
        match refused {
            None => Finding::Valid(Box::new(Candidate::new(loaded, question.running))),
            Some(refusal) => {
                let dir = self.dir.join(ORGANIZATIONS);
                let mut diagnostic = Diagnostic::of_file(Severity::Error, dir, refusal.to_string());
                diagnostic.help = Some(refusal.help().to_owned());
                Finding::Invalid(Errors { diagnostics: vec![diagnostic], inputs: loaded.inputs })
            }
        }
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
