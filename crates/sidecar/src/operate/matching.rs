//! `match`: who would get an event, and why nobody else.

use std::process::ExitCode;

use super::api::{Api, text};
use super::arguments::Match;
use super::say;
use super::table::Table;
use crate::terminal::print_json;

pub(crate) async fn main(arguments: Match) -> anyhow::Result<ExitCode> {
    let Match { organization, project, event_type, admin } = arguments;
    let query = vec![("organization", organization), ("project", project), ("event_type", event_type)];
    let found = Api::new(&admin)?.get("/v1/match", &query).await?;
    if admin.json {
        print_json(&found["items"])?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["WEBHOOK", "GETS IT", "REASON"]);
    for webhook in found["items"].as_array().into_iter().flatten() {
        let sends = webhook["sends"].as_bool().unwrap_or_default();
        let sends = if sends { "yes" } else { "no" };
        table.row([text(webhook, "/webhook"), sends.to_owned(), text(webhook, "/reason")]);
    }
    if table.is_empty() {
        say("the organization has no webhooks")?;
    } else {
        table.print(true)?;
    }
    Ok(ExitCode::SUCCESS)
}
