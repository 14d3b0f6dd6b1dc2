//! How one configuration takes the place of another.

use std::sync::Arc;

use crate::{Config, Organization};

impl Config {
    /// This configuration as it can be put in force in place of `running`.
    ///
    /// What waits for a restart stays as it runs. What is equal to what runs is shared with it, so that who holds a
    /// part of a configuration can tell by its address that it has not changed.
    pub(crate) fn succeeding(mut self, running: &Config) -> Config {
        if self.ingest.listen != running.ingest.listen {
            self.ingest.listen.clone_from(&running.ingest.listen);
            self.ingest.token.clone_from(&running.ingest.token);
        }
        self.ingest.mode = running.ingest.mode;
        if self.admin.listen != running.admin.listen {
            self.admin = running.admin.clone();
        }
        self.admin.mode = running.admin.mode;
        self.queue = running.queue.clone();
        if self.egress == running.egress {
            self.egress = running.egress.clone();
        }
        if self.traces == running.traces {
            self.traces = running.traces.clone();
        }
        for (name, organization) in &mut self.organizations {
            match running.organizations.get(name) {
                Some(old) if old == organization => *organization = old.clone(),
                Some(old) => share_webhooks(organization, old),
                None => {}
            }
        }
        self
    }
}

fn share_webhooks(organization: &mut Arc<Organization>, running: &Organization) {
    for (project, new) in &mut Arc::make_mut(organization).projects {
        let Some(old) = running.projects.get(project) else { continue };
        for (name, webhook) in &mut new.webhooks {
            match old.webhooks.get(name) {
                Some(old) if old == webhook => *webhook = old.clone(),
                _ => {}
            }
        }
    }
}
