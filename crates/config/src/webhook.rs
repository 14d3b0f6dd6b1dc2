//! Reads a webhook.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use aquarium_delivery::WebhookName;
use aquarium_event::{Type, Types};
use ipnet::IpNet;

use crate::delivery::Delivery;
use crate::diagnostic::quote;
use crate::document::Value;
use crate::endpoint::endpoint;
use crate::headers::headers;
use crate::reader::Scope;
use crate::tls::tls;
use crate::{Subscription, Webhook};

/// The most entries of `events`: more than there can be event types.
const MAX_EVENTS: usize = 512;
/// The longest name of an event type, in bytes.
const MAX_TYPE: usize = 64;

/// What `aquarium.toml` says about webhooks.
pub(crate) struct Rules {
    /// The known types; none if they could not be read, and any name may be one.
    pub(crate) types: Option<Types>,
    /// The networks that may be reached; none if they could not be read, and any may be one.
    pub(crate) allow: Option<Vec<IpNet>>,
    /// Where the sidecar itself listens.
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) delivery: Delivery,
}

/// The webhook of this name; none if it cannot be used, which has been reported.
pub(crate) fn webhook(
    name: WebhookName,
    value: Value<'_, '_>,
    rules: &Rules,
    scope: Scope<'_>,
) -> Option<Webhook> {
    let mut table = value.into_table()?;
    let url = match table.take("url") {
        Some(value) => endpoint(&value, rules.allow.as_deref(), &rules.listeners),
        None => {
            table.missing("url", "https://host/path");
            None
        }
    };
    let events = match table.take("events") {
        Some(value) => events(value, rules.types.as_ref()),
        None => {
            table.missing("events", "[\"*\"] for all, or an array of event types");
            None
        }
    };
    let active = table.read("active", true, Value::flag);
    let headers = table.take("headers").and_then(|value| headers(value, scope)).unwrap_or_default();
    let tls = table.take("tls").and_then(|value| tls(value, url.as_ref(), scope)).unwrap_or_default();
    let Delivery { timeout, connect_timeout, concurrency, schedule, breaker_failures, rate_limit, order } =
        Delivery::read(&mut table, &rules.delivery);
    table.finish();
    Some(Webhook {
        name,
        url: url?,
        events: events?,
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
    })
}

fn events(value: Value<'_, '_>, types: Option<&Types>) -> Option<Subscription> {
    let empty = value.problem("\"events\" is empty: the webhook would get nothing");
    let too_many = value.problem("\"events\" has too many entries");
    let redundant = value.warning("\"*\" is all events: the others need not be named");
    let findings = value.findings;
    let items = value.items("an array of event types")?;
    if items.is_empty() {
        findings.add(empty.help("[\"*\"] for all; active = false to send nothing"));
        return None;
    }
    if items.len() > MAX_EVENTS {
        findings.add(too_many.accepted(format!("up to {MAX_EVENTS}")));
        return None;
    }
    let mut all = false;
    let mut only = BTreeSet::new();
    for item in &items {
        let Some(text) = item.text("an array of strings") else { continue };
        let is_new = match text {
            "*" => !std::mem::replace(&mut all, true),
            _ => event(item, text, types).is_none_or(|kind| only.insert(kind)),
        };
        if !is_new {
            item.report(item.warning(format!("{} is there twice", quote(text))));
        }
    }
    if all && items.iter().any(|item| item.inner.as_str() != Some("*")) {
        findings.add(redundant);
    }
    Some(if all { Subscription::All } else { Subscription::Only(only) })
}

fn event(item: &Value<'_, '_>, text: &str, types: Option<&Types>) -> Option<Type> {
    let Some(types) = types else { return Type::built_in(text) };
    if text.len() > MAX_TYPE {
        item.report(item.problem(format!("unknown event {}", quote(text))));
        return None;
    }
    match types.parse(text) {
        Ok(kind) => Some(kind),
        Err(unknown) => {
            let problem = item.problem(format!("unknown event {}", quote(text)));
            let known = unknown.known.join(", ");
            item.report(problem.suggestion(unknown.nearest).accepted(format!("\"*\", {known}")));
            None
        }
    }
}
