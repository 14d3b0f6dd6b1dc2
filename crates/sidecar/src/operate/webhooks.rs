//! `webhooks` and `resume`.

use std::process::ExitCode;

use serde_json::Value;

use super::api::{Api, Query, count, text};
use super::arguments::{Resume, Webhooks};
use super::table::Table;
use super::time::relative;
use super::{now, of_webhook, print_fields, say};
use crate::terminal::print_json;

pub(crate) async fn main(command: Webhooks) -> anyhow::Result<ExitCode> {
    match command {
        Webhooks::List { organization, project, status, admin } => {
            let query = [("organization", organization), ("project", project), ("status", status)];
            let query: Query = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let list = Api::new(&admin)?.list("/v1/webhooks", query, u32::MAX).await?;
            if admin.json {
                print_json(&Value::Array(list.items))?;
            } else {
                print(&list.items)?;
            }
        }
        Webhooks::Show { webhook, admin } => {
            let found = Api::new(&admin)?.get(&of_webhook(&webhook, ""), &Query::new()).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                show(&found)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn resume(arguments: Resume) -> anyhow::Result<ExitCode> {
    let admin = &arguments.admin;
    let found = Api::new(admin)?.post(&of_webhook(&arguments.webhook, "/resume"), None).await?;
    if admin.json {
        print_json(&found)?;
    } else {
        say(&format!("{} is resumed: {} deliveries go on", arguments.webhook, count(&found["pending"])))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(webhooks: &[Value]) -> anyhow::Result<()> {
    if webhooks.is_empty() {
        say("there are no such webhooks")?;
        return Ok(());
    }
    let now = now();
    let mut table = Table::new(["WEBHOOK", "STATUS", "PENDING", "OLDEST", "EXHAUSTED", "URL"]);
    for webhook in webhooks {
        let status = match text(webhook, "/status") {
            status if status == "active" && text(webhook, "/breaker/state") != "closed" => {
                "failing".to_owned()
            }
            status => status,
        };
        table.row([
            text(webhook, "/webhook"),
            status,
            count(&webhook["pending"]),
            relative(&text(webhook, "/oldest_pending"), now),
            count(&webhook["exhausted"]),
            text(webhook, "/url"),
        ]);
    }
    Ok(table.print(true)?)
}

fn show(webhook: &Value) -> anyhow::Result<()> {
    let now = now();
    let events = webhook["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let suspended = match text(webhook, "/suspended/since") {
        since if since.is_empty() => since,
        since => format!("{}, by {}", relative(&since, now), text(webhook, "/suspended/url")),
    };
    let probe = text(webhook, "/breaker/probe_at");
    let breaker = match text(webhook, "/breaker/state") {
        state if probe.is_empty() => state,
        state => format!("{state}, next probe {}", relative(&probe, now)),
    };
    Ok(print_fields(&[
        ("webhook", text(webhook, "/webhook")),
        ("url", text(webhook, "/url")),
        ("events", events.collect::<Vec<_>>().join(", ")),
        ("status", text(webhook, "/status")),
        ("held", text(webhook, "/held_because")),
        ("suspended", suspended),
        ("breaker", breaker),
        ("paused until", relative(&text(webhook, "/paused_until"), now)),
        ("pending", count(&webhook["pending"])),
        ("next due", relative(&text(webhook, "/next_due"), now)),
        ("oldest", relative(&text(webhook, "/oldest_pending"), now)),
        ("exhausted", count(&webhook["exhausted"])),
        ("skipped", count(&webhook["skipped"])),
    ])?)
}
