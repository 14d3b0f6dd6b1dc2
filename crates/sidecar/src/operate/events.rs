//! `events`.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::api::{Api, Query, text};
use super::arguments::Events;
use super::table::Table;
use super::time::relative;
use super::{deliveries, now, of_id, print_fields, query, say};
use crate::terminal::{print_data, print_json};

const PATH: &str = "/v1/events";

pub(crate) async fn main(command: Events) -> anyhow::Result<ExitCode> {
    match command {
        Events::List { filter, paging, admin } => {
            let mut query = query(&filter);
            if paging.oldest_first {
                query.push(("order", "oldest".to_owned()));
            }
            let list = Api::new(&admin)?.list(PATH, query, paging.limit).await?;
            if admin.json {
                print_json(&Value::Array(list.items))?;
            } else if list.items.is_empty() {
                say("there are no such events")?;
            } else {
                print(&list.items)?;
                if list.more {
                    say("there are more: see --limit, --since and --until")?;
                }
            }
        }
        Events::Show { event, admin } => {
            let found = Api::new(&admin)?.get(&of_id(PATH, &event, ""), &Query::new()).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                show(&found)?;
            }
        }
        Events::Payload { event, admin } => {
            let body = Api::new(&admin)?.bytes(&of_id(PATH, &event, "/payload"), &Query::new()).await?;
            // Byte for byte, unless it is shown: no line end is added.
            print_data(&body)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(events: &[Value]) -> anyhow::Result<()> {
    let now = now();
    let mut table = Table::new(["EVENT", "ACCEPTED", "TYPE", "SIZE", "PROJECT"]);
    for event in events {
        table.row([
            text(event, "/id"),
            relative(&text(event, "/accepted_at"), now),
            text(event, "/event_type"),
            text(event, "/size"),
            format!("{}/{}", text(event, "/organization"), text(event, "/project")),
        ]);
    }
    Ok(table.print(true)?)
}

fn show(event: &Value) -> anyhow::Result<()> {
    let accepted_at = text(event, "/accepted_at");
    print_fields(&[
        ("event", text(event, "/id")),
        ("type", text(event, "/event_type")),
        ("project", format!("{}/{}", text(event, "/organization"), text(event, "/project"))),
        ("accepted", format!("{accepted_at} ({})", relative(&accepted_at, now()))),
        ("size", format!("{} bytes", text(event, "/size"))),
    ])?;
    match event["deliveries"].as_array() {
        Some(found) if !found.is_empty() => {
            writeln!(anstream::stdout())?;
            deliveries::print(found, true)
        }
        _ => Ok(say("it went to no webhook")?),
    }
}
