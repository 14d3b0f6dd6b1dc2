//! What changed between two configurations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aquarium_delivery::WebhookName;

use crate::{Config, Organization, SecretKind, Traces, Webhook};

/// What changed from one configuration to the next. [`Display`](fmt::Display) says it in words, a line for each
/// organization, webhook or setting; no secret and no header value is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Organizations that are new.
    pub organizations_added: Vec<Arc<str>>,
    /// Organizations that are gone.
    pub organizations_removed: Vec<Arc<str>>,
    /// What became of the secrets and signing keys of organizations that are in both.
    pub secrets: Vec<(Arc<str>, SecretKind, SecretChange)>,
    /// Webhooks that are new.
    pub added: Vec<WebhookName>,
    /// Webhooks that are gone.
    pub removed: Vec<WebhookName>,
    /// Webhooks that are not as they were.
    pub changed: Vec<ChangedWebhook>,
    /// Other settings that changed, as they are written in the configuration, and can take effect at once.
    pub settings: Vec<&'static str>,
    /// Other settings that changed, as they are written in the configuration, and wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

/// What became of a secret or a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretChange {
    /// There was none.
    Added,
    /// There was another.
    Replaced,
    /// There is none any more.
    Removed,
}

/// A webhook that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedWebhook {
    /// Which one.
    pub name: WebhookName,
    /// What is different; at least one thing.
    pub changes: Vec<Change>,
}

/// What is different about a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It is sent to again.
    Activated,
    /// Nothing is sent to it any more.
    Deactivated,
    /// Its URL.
    Url,
    /// The events it wants.
    Events,
    /// Its own headers.
    Headers,
    /// What is special about its TLS sessions: an authority, a certificate, a key.
    Tls,
    /// The time for one attempt.
    Timeout,
    /// The time for connecting.
    ConnectTimeout,
    /// How many attempts may be under way at once.
    Concurrency,
    /// When to try again.
    Schedule,
    /// What opens the breaker.
    BreakerFailures,
    /// How many attempts may start in a time.
    RateLimit,
    /// Which deliveries wait for which.
    Order,
}

/// What changed from `old` to `new`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    settings(old, new, &mut diff);
    for (before, after) in paired(&old.organizations, &new.organizations) {
        match (before, after) {
            (None, Some(added)) => {
                diff.organizations_added.push(added.name.clone());
                diff.added.extend(added.webhooks().map(|webhook| webhook.name.clone()));
            }
            (Some(removed), None) => {
                diff.organizations_removed.push(removed.name.clone());
                diff.removed.extend(removed.webhooks().map(|webhook| webhook.name.clone()));
            }
            (Some(before), Some(after)) if !Arc::ptr_eq(before, after) => {
                organization(before, after, &mut diff);
            }
            _ => {}
        }
    }
    diff
}

impl Diff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }

    /// What changed in words, a line each: `acme/urban-driving/ops: deactivated`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let settings = self.settings.iter().map(|setting| format!("{setting}: changed"));
        let restart = self.needs_restart.iter().map(|setting| format!("{setting}: needs a restart"));
        let added = self.organizations_added.iter().map(|name| format!("{name}: organization added"));
        let removed = self.organizations_removed.iter().map(|name| format!("{name}: organization removed"));
        let secrets = self.secrets.iter().map(|(name, kind, change)| format!("{name}: {kind} {change}"));
        let new = self.added.iter().map(|name| format!("{name}: added"));
        let gone = self.removed.iter().map(|name| format!("{name}: removed"));
        let changed = self.changed.iter().map(ToString::to_string);
        settings
            .chain(restart)
            .chain(added)
            .chain(removed)
            .chain(secrets)
            .chain(new)
            .chain(gone)
            .chain(changed)
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            write!(f, "{}{line}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for ChangedWebhook {
    /// `acme/urban-driving/ops: activated, new url, new events`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changes.iter().enumerate() {
            if index == 0 {
                write!(f, "{}: {change}", self.name)?;
            } else {
                write!(f, ", {change}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Activated => "activated",
            Change::Deactivated => "deactivated",
            Change::Url => "new url",
            Change::Events => "new events",
            Change::Headers => "new headers",
            Change::Tls => "new tls",
            Change::Timeout => "new timeout",
            Change::ConnectTimeout => "new connect_timeout",
            Change::Concurrency => "new concurrency",
            Change::Schedule => "new retry schedule",
            Change::BreakerFailures => "new breaker_failures",
            Change::RateLimit => "new rate_limit",
            Change::Order => "new order",
        })
    }
}

impl fmt::Display for SecretChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretChange::Added => "added",
            SecretChange::Replaced => "replaced",
            SecretChange::Removed => "removed",
        })
    }
}

/// Settings that are there once. A listener and an open database do not move while they are in use; all else does. A
/// token belongs to the listener that it guards: it does not change before its listener does.
fn settings(old: &Config, new: &Config, diff: &mut Diff) {
    let mut note = |setting, changed: bool, live: bool| match (changed, live) {
        (true, true) => diff.settings.push(setting),
        (true, false) => diff.needs_restart.push(setting),
        (false, _) => {}
    };
    let ingest_stays = old.ingest.listen == new.ingest.listen;
    let admin_stays = old.admin.listen == new.admin.listen;
    note("shutdown_grace", old.shutdown_grace != new.shutdown_grace, true);
    note("ingest.listen", !ingest_stays, false);
    note("ingest.mode", old.ingest.mode != new.ingest.mode, false);
    note("ingest.token", old.ingest.token != new.ingest.token, ingest_stays);
    note("ingest.max_event_size", old.ingest.max_event_size != new.ingest.max_event_size, true);
    note("admin.listen", !admin_stays, false);
    note("admin.mode", old.admin.mode != new.admin.mode, false);
    note("admin.token", old.admin.token != new.admin.token, admin_stays);
    note("queue.engine", old.queue.engine != new.queue.engine, false);
    note("queue.path", old.queue.path != new.queue.path, false);
    note("queue.max_size", old.queue.max_size != new.queue.max_size, false);
    note("queue.retention", old.queue.retention != new.queue.retention, false);
    note("egress.allow", old.egress.allow != new.egress.allow, true);
    note("egress.deny", old.egress.deny != new.egress.deny, true);
    note("egress.deny_ports", old.egress.deny_ports != new.egress.deny_ports, true);
    note("egress.roots", old.egress.roots != new.egress.roots, true);
    note("egress.proxy", old.egress.proxy != new.egress.proxy, true);
    let by_address = old.egress.proxy_by_address != new.egress.proxy_by_address;
    note("egress.proxy_connect", by_address, true);
    let Traces { propagate, export } = &*new.traces;
    note("traces.propagate", old.traces.propagate != *propagate, true);
    note("traces.otlp", old.traces.export != *export, true);
    note("events.custom", old.types != new.types, true);
}

fn organization(old: &Organization, new: &Organization, diff: &mut Diff) {
    let secrets = [
        (SecretKind::Secret, secret(old.secret.as_ref(), new.secret.as_ref())),
        (SecretKind::SigningKey, secret(old.signing_key.as_ref(), new.signing_key.as_ref())),
    ];
    for (kind, change) in secrets {
        diff.secrets.extend(change.map(|change| (new.name.clone(), kind, change)));
    }
    let empty = BTreeMap::new();
    for (before, after) in paired(&old.projects, &new.projects) {
        let before = before.map_or(&empty, |project| &project.webhooks);
        let after = after.map_or(&empty, |project| &project.webhooks);
        for pair in paired(before, after) {
            match pair {
                (None, Some(added)) => diff.added.push(added.name.clone()),
                (Some(removed), None) => diff.removed.push(removed.name.clone()),
                (Some(before), Some(after)) if before != after => {
                    diff.changed
                        .push(ChangedWebhook { name: after.name.clone(), changes: webhook(before, after) });
                }
                _ => {}
            }
        }
    }
}

fn secret<T: PartialEq>(old: Option<&T>, new: Option<&T>) -> Option<SecretChange> {
    match (old, new) {
        (None, Some(_)) => Some(SecretChange::Added),
        (Some(_), None) => Some(SecretChange::Removed),
        (Some(old), Some(new)) if old != new => Some(SecretChange::Replaced),
        _ => None,
    }
}

fn webhook(old: &Webhook, new: &Webhook) -> Vec<Change> {
    // Every field is named, so that a new one cannot be forgotten here.
    let Webhook {
        name: _,
        url,
        events,
        active,
        headers,
        tls,
        timeout,
        connect_timeout,
        concurrency,
        schedule,
        breaker_failures,
        rate_limit,
        order,
    } = new;
    let all = [
        (Change::Activated, *active && !old.active),
        (Change::Deactivated, !active && old.active),
        (Change::Url, *url != old.url),
        (Change::Events, *events != old.events),
        (Change::Headers, *headers != old.headers),
        (Change::Tls, *tls != old.tls),
        (Change::Timeout, *timeout != old.timeout),
        (Change::ConnectTimeout, *connect_timeout != old.connect_timeout),
        (Change::Concurrency, *concurrency != old.concurrency),
        (Change::Schedule, *schedule != old.schedule),
        (Change::BreakerFailures, *breaker_failures != old.breaker_failures),
        (Change::RateLimit, *rate_limit != old.rate_limit),
        (Change::Order, *order != old.order),
    ];
    all.into_iter().filter(|(_, changed)| *changed).map(|(change, _)| change).collect()
}

/// The values of both maps side by side, in the order of their keys.
fn paired<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (Option<&'a V>, Option<&'a V>)> {
    let mut old = old.iter().peekable();
    let mut new = new.iter().peekable();
    std::iter::from_fn(move || match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some((before, _)), Some((after, _))) if before == after => {
            Some((old.next().map(|(_, value)| value), new.next().map(|(_, value)| value)))
        }
        (Some((before, _)), after) if after.is_none_or(|(after, _)| before < after) => {
            Some((old.next().map(|(_, value)| value), None))
        }
        _ => Some((None, new.next().map(|(_, value)| value))),
    })
}
