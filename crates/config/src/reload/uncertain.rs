//! Which organizations there may be, though they are not in force: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{Config, Inputs};

/// Organizations of which it cannot be said that they do not exist: what the files say is not in force, or not yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uncertain {
    /// The files do not tell which organizations there are.
    all: bool,
    /// These have a file that could not be used yet.
    some: BTreeSet<Arc<str>>,
}

impl Uncertain {
    /// Of files that cannot be used, or not yet, in place of those that are in force.
    pub(super) fn new(found: &Inputs, in_force: &Inputs, running: &Config) -> Self {
        let presence = found.presence();
        let elsewhere = presence.device != in_force.presence().device;
        if found.are_torn() || !presence.listed || presence.organizations == 0 || elsewhere {
            return Self { all: true, some: BTreeSet::new() };
        }
        let new = found.organizations().filter(|name| running.organization(name).is_none());
        Self { all: false, some: new.collect() }
    }

    /// Whether there may be an organization of this name.
    pub fn contains(&self, organization: &str) -> bool {
        self.all || self.some.contains(organization)
    }
}
