//! The validated configuration: what the other rooms are given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::{Order, Rate, Schedule, WebhookName};
use aquarium_event::{Type, Types};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use url::Url;

use crate::{Secret, SigningKey, Tls};

/// A configuration that was found to be valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How long attempts under way may go on once a stop was asked for.
    pub shutdown_grace: Duration,
    /// Where the app posts events.
    pub ingest: Ingest,
    /// Where operators ask.
    pub admin: Admin,
    /// Where deliveries wait.
    pub queue: Queue,
    /// What requests may leave for.
    pub egress: Arc<Egress>,
    /// What is told of distributed traces, and to whom.
    pub traces: Arc<Traces>,
    /// The event types that are known: the built-in ones and the operator's own.
    pub types: Types,
    /// The organizations, by name.
    pub organizations: BTreeMap<Arc<str>, Arc<Organization>>,
}

impl Config {
    /// The organization of this name.
    pub fn organization(&self, name: &str) -> Option<&Arc<Organization>> {
        self.organizations.get(name)
    }

    /// The webhook of this name.
    pub fn webhook(&self, name: &WebhookName) -> Option<&Arc<Webhook>> {
        self.organization(name.organization())?.projects.get(name.project())?.webhooks.get(name.webhook())
    }

    /// Every webhook, ordered by organization, project and webhook.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.organizations.values().flat_map(|organization| organization.webhooks())
    }
}

/// Where the app posts events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// Where it listens.
    pub listen: Listen,
    /// Who may connect to a unix socket: the mode of its file.
    pub mode: u32,
    /// The largest event that is accepted, in bytes.
    pub max_event_size: u64,
    /// What a request must present; always there if others than this machine can connect.
    pub token: Option<Secret>,
}

/// Where operators ask: health, metrics, API, web page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: Listen,
    /// Who may connect to a unix socket: the mode of its file.
    pub mode: u32,
    /// What a request must present; always there if others than this machine can connect.
    pub token: Option<Secret>,
}

/// An address to listen at. Printed as it is written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `127.0.0.1:7878`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:/run/aquarium/ingest.sock`
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where deliveries wait until they are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// What keeps them.
    pub engine: Engine,
    /// Where it keeps them.
    pub path: PathBuf,
    /// How large it may become, in bytes; past that nothing more is accepted.
    pub max_size: u64,
    /// How long settled deliveries and their attempts are kept.
    pub retention: Duration,
}

/// What keeps the deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// An SQLite database.
    Sqlite,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Sqlite => f.write_str("sqlite"),
        }
    }
}

/// What is told of distributed traces (W3C Trace Context), and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Whether endpoints are sent a `traceparent`, if the event belongs to a trace.
    pub propagate: bool,
    /// Where spans are exported to; without it there are none.
    pub export: Option<TraceExport>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { propagate: true, export: None }
    }
}

/// Where spans are exported to, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceExport {
    /// Where they are posted.
    pub otlp: Url,
    /// Headers that they are posted with.
    pub headers: Vec<Header>,
    /// The part of the events that come without a `traceparent` for which a trace is started, from 0 to 1.
    pub sample: f64,
}

/// What requests may leave for, and whom they trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// Networks that endpoints may live in besides the public ones, in order. None of them by default.
    pub allow: Vec<IpNet>,
    /// Networks that nothing is sent to, whatever is allowed.
    pub deny: Vec<IpNet>,
    /// Ports that nothing is sent to. None: those that browsers do not connect to.
    pub deny_ports: Option<Vec<u16>>,
    /// Whose certificates endpoints are trusted by.
    pub roots: Roots,
    /// What requests go through, if not directly: `http://host:port`.
    pub proxy: Option<Arc<str>>,
    /// Whether the proxy is asked for the checked address of `https://` endpoints, and not for their name.
    pub proxy_by_address: bool,
}

/// Whose certificates endpoints are trusted by.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Those that the system trusts.
    #[default]
    Native,
    /// Those that Mozilla trusts, as compiled in.
    Webpki,
    /// Those in a PEM file, which has at least one. They were not parsed.
    File {
        /// The file.
        path: PathBuf,
        /// What was in it when the configuration was read.
        pem: Arc<[u8]>,
    },
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Roots::Native => f.write_str("Native"),
            Roots::Webpki => f.write_str("Webpki"),
            Roots::File { path, .. } => f.debug_struct("File").field("path", path).finish_non_exhaustive(),
        }
    }
}

/// Owns one secret and one signing key, which apply to all webhooks of all its projects.
#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    /// The name of its file, without `.toml`.
    pub name: Arc<str>,
    /// What its webhooks are told so that they know the sender.
    pub secret: Option<Secret>,
    /// What its requests are signed with, if they are.
    pub signing_key: Option<SigningKey>,
    /// Its projects, by name.
    pub projects: BTreeMap<Arc<str>, Project>,
}

impl Organization {
    /// The webhooks of a project that want an event of this type, in name order. Those that are not active are among
    /// them: what becomes of their events is for the caller to say.
    pub fn matching<'a>(
        &'a self,
        project: &str,
        kind: &'a Type,
    ) -> impl Iterator<Item = &'a Arc<Webhook>> + use<'a> {
        let project = self.projects.get(project);
        let webhooks = project.into_iter().flat_map(|project| project.webhooks.values());
        webhooks.filter(move |webhook| webhook.events.wants(kind))
    }

    /// Every webhook of every project, in name order.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.projects.values().flat_map(|project| project.webhooks.values())
    }
}

/// Where events originate.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its name within the organization.
    pub name: Arc<str>,
    /// Its webhooks, by their own names.
    pub webhooks: BTreeMap<Arc<str>, Arc<Webhook>>,
}

/// An endpoint, and the events that it wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// What it is known by.
    pub name: WebhookName,
    /// Where its events go: `http` or `https`, with a host, without user or fragment.
    pub url: Url,
    /// The events it wants.
    pub events: Subscription,
    /// Whether anything is sent to it.
    pub active: bool,
    /// Headers that each request has besides the sender's own, ordered by name.
    pub headers: Vec<Header>,
    /// What is special about its TLS sessions.
    pub tls: Tls,
    /// The time for one attempt, from resolving the name to the end of the answer.
    pub timeout: Duration,
    /// The part of it that connecting may take; never more than `timeout`.
    pub connect_timeout: Duration,
    /// How many attempts may be under way at once; at least 1.
    pub concurrency: usize,
    /// When to try again.
    pub schedule: Schedule,
    /// How many failed attempts in a row open the breaker; at least 1.
    pub breaker_failures: u32,
    /// How many attempts may start in a time; as many as there can be if it is not there.
    pub rate_limit: Option<Rate>,
    /// Which deliveries wait for which.
    pub order: Order,
}

/// The events that a webhook wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// Every one, also of types that are declared later.
    All,
    /// Those of these types; there is at least one.
    Only(BTreeSet<Type>),
}

impl Subscription {
    /// Whether an event of this type is wanted.
    pub fn wants(&self, kind: &Type) -> bool {
        match self {
            Subscription::All => true,
            Subscription::Only(types) => types.contains(kind),
        }
    }
}

/// A header of a webhook's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name; none that the sender sets itself.
    pub name: HeaderName,
    /// Its value, marked sensitive: it does not show in `Debug`, and HPACK does not index it.
    pub value: HeaderValue,
}
