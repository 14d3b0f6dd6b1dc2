//! What the operator's commands take.

use std::path::PathBuf;

use aquarium_delivery::WebhookName;
use clap::{Args, Subcommand};

use super::time::When;

/// Where the admin API is, and how it is spoken to.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Where the sidecar's admin API is: http://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7879", env = "AQUARIUM_ADMIN")]
    pub(crate) admin: String,
    /// The file that holds the admin token
    #[arg(long, value_name = "FILE", env = "AQUARIUM_ADMIN_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which sidecar is asked whether it is ready.
#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    /// The directory that holds aquarium.toml, which says where the admin API is
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// Where it is, whatever a configuration says: http://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL", env = "AQUARIUM_ADMIN")]
    pub(crate) admin: Option<String>,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which events or deliveries are meant. What is left out admits all.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only of this organization
    #[arg(long, value_name = "NAME")]
    pub(crate) organization: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Only to this webhook
    #[arg(long, value_name = "ORG/PROJECT/WEBHOOK")]
    pub(crate) webhook: Option<WebhookName>,
    /// Only of this event type
    #[arg(long, value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Only with deliveries in these states: pending, delivered, exhausted, skipped
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = ["pending", "delivered", "exhausted", "skipped"])]
    pub(crate) state: Vec<String>,
    /// Only what was accepted then or later: a time, such as 2026-11-23T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<When>,
    /// Only what was accepted before then
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<When>,
    /// Only of this event
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
}

/// How much of a list is shown.
#[derive(Debug, Args)]
pub(crate) struct Paging {
    /// How many to show at the most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Start with what was accepted first
    #[arg(long)]
    pub(crate) oldest_first: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// List webhooks: where they go, how they are, what waits for them
    List {
        /// Only of this organization
        #[arg(long, value_name = "NAME")]
        organization: Option<String>,
        /// Only of this project
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        /// Only those that are so: active, inactive, suspended, removed
        #[arg(long, value_name = "STATUS", value_parser = ["active", "inactive", "suspended", "removed"])]
        status: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show one webhook: why what waits for it is held, and how its breaker stands
    Show {
        /// The webhook
        #[arg(value_name = "ORG/PROJECT/WEBHOOK")]
        webhook: WebhookName,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// List events, the latest first
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        paging: Paging,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show one event, and where it went
    Show {
        /// The event: evt_…
        event: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Print the payload of one event, byte for byte
    Payload {
        /// The event: evt_…
        event: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// List deliveries, the latest first
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        paging: Paging,
        /// Go on printing those that come, until Ctrl-C
        #[arg(long, short, conflicts_with = "oldest_first")]
        follow: bool,
        /// Say how many there are, too
        #[arg(long, conflicts_with = "follow")]
        count: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show one delivery, and each of its attempts
    Show {
        /// The delivery: dlv_…
        delivery: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The webhook
    #[arg(value_name = "ORG/PROJECT/WEBHOOK")]
    pub(crate) webhook: WebhookName,
    /// Send the sample of this event type instead of the minimal payload
    #[arg(long, value_name = "TYPE")]
    pub(crate) event: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Replay {
    /// Send one delivery again
    Delivery {
        /// The delivery: dlv_…
        delivery: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Send again, in the background, all deliveries that a filter admits
    Start {
        #[command(flatten)]
        filter: Filter,
        /// Every delivery that is stored, if there is no other filter
        #[arg(long)]
        everything: bool,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        admin: Admin,
    },
    /// Send a webhook the events that it has never got: those from before it was there, say
    Missed {
        /// The webhook
        #[arg(value_name = "ORG/PROJECT/WEBHOOK")]
        webhook: WebhookName,
        /// Only of these event types; all that it wants, if left out
        #[arg(long, value_name = "TYPE", value_delimiter = ',')]
        event_type: Vec<String>,
        /// Only what was accepted then or later: a time, such as 2026-11-23T08:00:00Z, or how long ago, such as 2h
        #[arg(long, value_name = "WHEN")]
        since: Option<When>,
        /// Only what was accepted before then
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        admin: Admin,
    },
    /// List replays, the latest first
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Show how far a replay has come
    Show {
        /// The replay: rpl_…
        replay: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Wait for the end of a replay
    Watch {
        /// The replay: rpl_…
        replay: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Cancel a replay; what it has sent again stays so
    Cancel {
        /// The replay: rpl_…
        replay: String,
        #[command(flatten)]
        admin: Admin,
    },
}

/// Whether a replay is waited for.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Do not wait for its end
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The webhook
    #[arg(value_name = "ORG/PROJECT/WEBHOOK")]
    pub(crate) webhook: WebhookName,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Match {
    /// The organization
    #[arg(value_name = "ORG")]
    pub(crate) organization: String,
    /// The project in which the event happens
    #[arg(value_name = "PROJECT")]
    pub(crate) project: String,
    /// The event type
    #[arg(value_name = "TYPE")]
    pub(crate) event_type: String,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Log this from now on: a level, or a filter such as "info,aquarium_dispatch=debug"
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Configuration {
    /// Show which configuration is in force, and what was wrong with the last one that is not
    Show {
        #[command(flatten)]
        admin: Admin,
    },
    /// Read the configuration now
    Reload {
        /// Use it although no organization is left, or their directory is on another device: it is not a volume that is not mounted
        #[arg(long)]
        allow_empty: bool,
        #[command(flatten)]
        admin: Admin,
    },
}
