//! `/metrics`: what was counted, and what can be read when somebody asks, as text.
//!
//! OpenMetrics (<https://prometheus.io/docs/specs/om/open_metrics_spec/>) to who asks for it, else the text format of
//! Prometheus (<https://prometheus.io/docs/instrumenting/exposition_formats/>), version 0.0.4. They differ in the names
//! that a counter's type and help stand under, in units, and in the line that ends it all.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::sync::Arc;

use aquarium_config::Config;
use aquarium_config::reload::Status;
use aquarium_delivery::{BreakerStatus, Timestamp, WebhookName};
use aquarium_dispatch::{LaneStatus, Load};
use aquarium_queue::history::WebhookStats;

use super::{Metrics, process};

/// In which format metrics are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The one that an `Accept` header asks for.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is read when somebody asks.
pub(crate) struct Read<'a> {
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Arc<Config>,
    pub(crate) status: &'a Status,
    pub(crate) load: Load,
    pub(crate) unusual: &'a [(WebhookName, LaneStatus)],
    /// Of the webhooks that have deliveries waiting, or are suspended; absent if the queue could not be read.
    pub(crate) waiting: Option<&'a [WebhookStats]>,
}

/// Everything, in this format.
pub(crate) fn expose(metrics: &Metrics, read: &Read<'_>, format: Format) -> Result<String, fmt::Error> {
    metrics.forget(read.config);
    let mut text = String::with_capacity(16 * 1024);
    metrics.encode(&mut text)?;
    of_process(&mut Gauges { text: &mut text }, metrics, read)?;
    of_webhooks(&mut Gauges { text: &mut text }, read)?;
    process::encode(&mut text)?;
    Ok(match format {
        Format::OpenMetrics => text + "# EOF\n",
        Format::Prometheus => as_prometheus(&text),
    })
}

/// Writes metrics: a name, what it says, and a line for each of its series.
struct Gauges<'t> {
    text: &'t mut String,
}

impl Gauges<'_> {
    fn family(&mut self, name: &str, help: &str) -> fmt::Result {
        writeln!(self.text, "# HELP aquarium_{name} {help}.\n# TYPE aquarium_{name} gauge")
    }

    fn one(&mut self, name: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
        self.family(name, help)?;
        writeln!(self.text, "aquarium_{name} {value}")
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        writeln!(self.text, "# HELP aquarium_{name} {help}.\n# TYPE aquarium_{name} counter")?;
        writeln!(self.text, "aquarium_{name}_total {value}")
    }

    fn of_webhooks<'w>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'w WebhookName, f64)>,
    ) -> fmt::Result {
        self.family(name, help)?;
        for (webhook, value) in values {
            // A name has no character that would have to be escaped.
            let (organization, project) = (webhook.organization(), webhook.project());
            let labels = format!(
                "organization=\"{organization}\",project=\"{project}\",webhook=\"{}\"",
                webhook.webhook()
            );
            writeln!(self.text, "aquarium_{name}{{{labels}}} {value}")?;
        }
        Ok(())
    }
}

fn of_process(gauges: &mut Gauges<'_>, metrics: &Metrics, read: &Read<'_>) -> fmt::Result {
    let Read { now, config, status, load, .. } = read;
    gauges.one("lanes", "Webhooks that something is being sent to, or waits for soon", load.lanes)?;
    gauges.one("attempts_in_flight", "Requests to endpoints that are under way", load.in_flight)?;
    gauges.one(
        "queue_max_size_bytes",
        "The size at which nothing more is accepted",
        config.queue.max_size,
    )?;
    let full = metrics.queue_size() >= config.queue.max_size;
    gauges.one("queue_full", "1 if nothing more is accepted for want of room, else 0", u8::from(full))?;
    gauges.one("config_generation", "Counts the configurations that were in force", status.generation)?;
    gauges.one(
        "config_load_age_seconds",
        "Since when the configuration is in force",
        now.since(status.loaded_at).as_secs_f64(),
    )?;
    gauges.counter("config_rejections", "Configurations that were not taken", status.rejections)?;
    let help = "1 if the last configuration that was found is not in force, since something is wrong with it, else 0";
    gauges.one("config_rejected", help, u8::from(status.rejected.is_some()))?;
    gauges.one(
        "config_watch_failed",
        "1 if changes of files are found by looking now and then only, else 0",
        u8::from(status.watched.is_err()),
    )?;
    gauges.one(
        "config_needs_restart",
        "Settings whose change counts after a restart only",
        status.needs_restart.len(),
    )?;
    gauges.one("webhooks", "Webhooks that are configured", config.webhooks().count())
}

fn of_webhooks(gauges: &mut Gauges<'_>, read: &Read<'_>) -> fmt::Result {
    let Read { now, config, unusual, waiting, .. } = read;
    let name = |(name, _): &'_ (WebhookName, LaneStatus)| name.clone();
    let open: HashSet<_> =
        unusual.iter().filter(|(_, lane)| lane.breaker != BreakerStatus::Closed).map(name).collect();
    let failing = config.webhooks().filter(|webhook| open.contains(&webhook.name));
    gauges.of_webhooks(
        "breaker_open",
        "1 if the breaker is open, since the endpoint keeps failing; absent if not",
        failing.map(|webhook| (&webhook.name, 1.0)),
    )?;
    let Some(waiting) = waiting else { return Ok(()) };
    let stats: HashMap<_, _> = waiting.iter().map(|stats| (&stats.webhook, stats)).collect();
    let held = |stats: &WebhookStats| match config.webhook(&stats.webhook) {
        Some(webhook) => !webhook.active || stats.suspension.is_some(),
        None => true,
    };
    // Of those that are configured only, so that the number of series is bounded.
    let configured = || config.webhooks().filter_map(|webhook| stats.get(&webhook.name).copied());
    let suspended = configured().filter(|stats| stats.suspension.is_some());
    gauges.of_webhooks(
        "webhook_suspended",
        "1 if the endpoint answered 410 Gone, and nothing is sent to it; absent if not",
        suspended.map(|stats| (&stats.webhook, 1.0)),
    )?;
    let pending = || configured().filter(|stats| stats.pending.at_least > 0);
    gauges.of_webhooks(
        "webhook_pending",
        "Deliveries that wait, counted up to 10000",
        pending().map(|stats| (&stats.webhook, stats.pending.at_least as f64)),
    )?;
    gauges.of_webhooks(
        "webhook_held",
        "Of the deliveries that wait, those that are held: the webhook is not active, or suspended",
        pending().filter(|stats| held(stats)).map(|stats| (&stats.webhook, stats.pending.at_least as f64)),
    )?;
    let oldest =
        pending().filter_map(|stats| Some((&stats.webhook, now.since(stats.oldest_pending?).as_secs_f64())));
    gauges.of_webhooks(
        "webhook_oldest_pending_age_seconds",
        "How long the oldest delivery that waits has waited",
        oldest,
    )?;
    let removed = waiting.iter().filter(|stats| config.webhook(&stats.webhook).is_none());
    let removed: u64 = removed.map(|stats| stats.pending.at_least).sum();
    let help = "Deliveries that are held for webhooks that are not configured any more, counted up to 10000 for each";
    gauges.one("removed_webhooks_held", help, removed)
}

/// OpenMetrics text in the text format of Prometheus.
fn as_prometheus(text: &str) -> String {
    // There a family has the name of its samples, and fewer types.
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let suffixes: HashMap<_, _> = typed
        .filter_map(|(name, kind)| match kind {
            "counter" => Some((name, "_total")),
            "info" => Some((name, "_info")),
            _ => None,
        })
        .collect();
    let mut converted = String::with_capacity(text.len() + 1_024);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), _) => continue,
            (Some("#"), Some(kind), Some(name)) => {
                let suffix = suffixes.get(name).copied().unwrap_or_default();
                let rest = match (kind, words.next().unwrap_or_default()) {
                    ("TYPE", "info" | "stateset") => "gauge",
                    ("TYPE", "unknown") => "untyped",
                    (_, rest) => rest,
                };
                converted.extend(["# ", kind, " ", name, suffix, " ", rest]);
            }
            _ => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_units_and_the_end_differ_between_the_formats() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\n# UNIT a_b seconds\na_b_total{x=\"# TYPE q counter\"} 1\n\
                    # HELP c A gauge.\n# TYPE c gauge\nc 2\n# TYPE d info\nd_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE q counter\"} 1\n\
                        # HELP c A gauge.\n# TYPE c gauge\nc 2\n# TYPE d_info gauge\nd_info{v=\"1\"} 1\n";
        assert_eq!(as_prometheus(open), expected);
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(Some(accept)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }
}
