//! What an operator asks a running sidecar, over its admin API.

mod api;
pub(crate) mod arguments;
mod configuration;
mod deliveries;
mod events;
mod health;
mod log;
mod manual;
mod matching;
mod replay;
mod table;
mod test;
mod time;
mod webhooks;

use std::io::{self, Write};
use std::time::SystemTime;

use aquarium_dispatch::Clock;
use serde_json::Value;

pub(crate) use configuration::main as configuration;
pub(crate) use deliveries::main as deliveries;
pub(crate) use events::main as events;
pub(crate) use health::main as healthcheck;
pub(crate) use log::main as log;
pub(crate) use manual::{completions, man};
pub(crate) use matching::main as matching;
pub(crate) use replay::main as replay;
pub(crate) use test::main as test;
pub(crate) use webhooks::{main as webhooks, resume};

use api::{Query, text};
use arguments::Filter;
use table::styled;

use crate::terminal::{visible, visible_lines};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(Clock::system().now().as_millis())
}

/// Prints lines of a name and what belongs to it. Lines that say nothing are left out.
fn print_fields(fields: &[(&str, String)]) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    let told = || fields.iter().filter(|(_, value)| !value.is_empty());
    let width = told().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in told() {
        writeln!(stdout, "{name:width$}  {}", styled(&visible(value)))?;
    }
    Ok(())
}

/// Says something beside the data.
fn say(line: &str) -> io::Result<()> {
    writeln!(anstream::stderr(), "{}", visible_lines(line))
}

/// A path whose last segments are the parts of a webhook's name.
fn of_webhook(name: &aquarium_delivery::WebhookName, rest: &str) -> String {
    // A name has no character that would have to be escaped.
    format!("/v1/webhooks/{name}{rest}")
}

/// A path that ends in an identifier, whatever the user took for one.
fn of_id(path: &str, id: &str, rest: &str) -> String {
    let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("{path}/{id}{rest}")
}

/// The query that a filter stands for.
fn query(filter: &Filter) -> Query {
    let now = now();
    let given = [
        ("organization", filter.organization.clone()),
        ("project", filter.project.clone()),
        ("webhook", filter.webhook.as_ref().map(ToString::to_string)),
        ("event_type", filter.event_type.clone()),
        ("state", (!filter.state.is_empty()).then(|| filter.state.join(","))),
        ("since", filter.since.map(|when| when.from(now))),
        ("until", filter.until.map(|when| when.from(now))),
        ("event", filter.event.clone()),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// How long something took: `12 ms`.
fn milliseconds(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_f64) {
        Some(milliseconds) if milliseconds < 10.0 => format!("{milliseconds:.1} ms"),
        Some(milliseconds) => format!("{milliseconds:.0} ms"),
        None => String::new(),
    }
}

/// What an attempt came to: its status, or what failed.
fn outcome(attempt: &Value) -> String {
    let status = text(attempt, "/status");
    if !status.is_empty() {
        return status;
    }
    match (text(attempt, "/error/kind"), text(attempt, "/error/detail")) {
        (kind, detail) if detail.is_empty() => kind,
        (kind, detail) => format!("{kind}: {detail}"),
    }
}

/// The parts of an attempt's time that it had.
fn phases(attempt: &Value) -> String {
    let parts = [
        ("dns", "DNS"),
        ("connect", "connect"),
        ("tls", "TLS"),
        ("first_byte", "first byte"),
        ("body", "body"),
    ];
    let part = |(key, name): (&str, &str)| {
        let took = milliseconds(attempt, &format!("/phases/{key}_ms"));
        (!took.is_empty()).then(|| format!("{name} {took}"))
    };
    parts.into_iter().filter_map(part).collect::<Vec<_>>().join(", ")
}
