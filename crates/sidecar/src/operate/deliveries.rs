//! `deliveries`.

use std::collections::HashSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::api::{Api, Query, count, text};
use super::arguments::{Admin, Deliveries, Filter, Paging};
use super::table::Table;
use super::time::{When, relative};
use super::{milliseconds, now, of_id, outcome, phases, print_fields, query, say};
use crate::terminal::{print_data, print_json, visible};

pub(super) const PATH: &str = "/v1/deliveries";
/// How often `--follow` looks.
const FOLLOW: Duration = Duration::from_millis(500);
/// How far back `--follow` looks each time: events are not stored quite in the order in which they were accepted.
const OVERLAP: Duration = Duration::from_secs(5);

pub(crate) async fn main(command: Deliveries) -> anyhow::Result<ExitCode> {
    match command {
        Deliveries::List { filter, paging, follow: true, admin, .. } => {
            follow(&filter, &paging, &admin).await?
        }
        Deliveries::List { filter, paging, count, admin, .. } => {
            list(&filter, &paging, count, &admin).await?
        }
        Deliveries::Show { delivery, admin } => {
            let found = Api::new(&admin)?.get(&of_id(PATH, &delivery, ""), &Query::new()).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                show(&found)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(filter: &Filter, paging: &Paging, counted: bool, admin: &Admin) -> anyhow::Result<()> {
    let mut query = query(filter);
    if paging.oldest_first {
        query.push(("order", "oldest".to_owned()));
    }
    if counted {
        query.push(("count", "true".to_owned()));
    }
    let list = Api::new(admin)?.list(PATH, query, paging.limit).await?;
    if admin.json {
        return Ok(print_json(&Value::Array(list.items))?);
    }
    if list.items.is_empty() {
        return Ok(say("there are no such deliveries")?);
    }
    print(&list.items, true)?;
    match list.count {
        Some(found) => say(&format!("{} deliveries", count(&found)))?,
        None if list.more => say("there are more: see --limit, --since and --until")?,
        None => {}
    }
    Ok(())
}

/// Prints what is there, and then each delivery that comes. With `--json`, one line each.
async fn follow(filter: &Filter, paging: &Paging, admin: &Admin) -> anyhow::Result<()> {
    let api = Api::new(admin)?;
    let mut found = api.list(PATH, query(filter), paging.limit).await?.items;
    found.reverse();
    let mut shown = HashSet::new();
    let mut latest: Option<String> = None;
    let mut head = true;
    loop {
        // What was seen by the last look is all that this one can see again.
        let seen: HashSet<_> = found.iter().map(|delivery| text(delivery, "/id")).collect();
        found.retain(|delivery| !shown.contains(&text(delivery, "/id")));
        if admin.json {
            for delivery in &found {
                print_data(format!("{delivery}\n").as_bytes())?;
            }
        } else if !found.is_empty() {
            print(&found, std::mem::take(&mut head))?;
        }
        shown = seen;
        let last = found.iter().map(|delivery| text(delivery, "/event/accepted_at")).max();
        latest = latest.max(last);
        sleep(FOLLOW).await;
        let mut further = query(filter);
        if let Some(latest) = latest.as_ref().and_then(|latest| humantime::parse_rfc3339_weak(latest).ok()) {
            further.retain(|(name, _)| *name != "since");
            further.push(("since", When::At(latest - OVERLAP).from(now())));
        }
        further.push(("order", "oldest".to_owned()));
        found = api.list(PATH, further, u32::MAX).await?.items;
    }
}

pub(super) fn print(deliveries: &[Value], head: bool) -> anyhow::Result<()> {
    let now = now();
    let mut table =
        Table::new(["DELIVERY", "ACCEPTED", "STATE", "ATTEMPTS", "TYPE", "WEBHOOK", "LAST ATTEMPT"]);
    for delivery in deliveries {
        table.row([
            text(delivery, "/id"),
            relative(&text(delivery, "/event/accepted_at"), now),
            text(delivery, "/state"),
            text(delivery, "/attempts"),
            text(delivery, "/event/event_type"),
            text(delivery, "/webhook"),
            match text(delivery, "/held_because") {
                held if held.is_empty() => outcome(&delivery["last_attempt"]),
                held => format!("held: {held}"),
            },
        ]);
    }
    Ok(table.print(head)?)
}

pub(super) fn show(delivery: &Value) -> anyhow::Result<()> {
    let now = now();
    let at = |pointer| match text(delivery, pointer) {
        at if at.is_empty() => at,
        at => format!("{at} ({})", relative(&at, now)),
    };
    let flag = |pointer| if text(delivery, pointer) == "true" { "yes".to_owned() } else { String::new() };
    print_fields(&[
        ("delivery", text(delivery, "/id")),
        ("webhook", text(delivery, "/webhook")),
        ("state", text(delivery, "/state")),
        ("exhausted", text(delivery, "/exhausted_because")),
        ("held", text(delivery, "/held_because")),
        ("due", at("/due_at")),
        ("waits behind another", flag("/waits_behind_another")),
        ("event", text(delivery, "/event/id")),
        ("type", text(delivery, "/event/event_type")),
        ("accepted", at("/event/accepted_at")),
        ("settled", at("/settled_at")),
        ("replayed", at("/replayed_at")),
        ("test", flag("/test")),
    ])?;
    let attempts = match &delivery["attempts"] {
        Value::Array(attempts) => attempts.as_slice(),
        _ => delivery["history"].as_array().map_or(&[][..], Vec::as_slice),
    };
    for attempt in attempts {
        let mut stdout = anstream::stdout();
        writeln!(stdout)?;
        let started_at = text(attempt, "/started_at");
        let phases = phases(attempt);
        let took = milliseconds(attempt, "/duration_ms");
        print_fields(&[
            ("attempt", text(attempt, "/number")),
            ("started", format!("{started_at} ({})", relative(&started_at, now))),
            ("outcome", outcome(attempt)),
            ("took", if phases.is_empty() { took } else { format!("{took} ({phases})") }),
            (
                "breaker",
                if text(attempt, "/breaker_open") == "true" { "open".to_owned() } else { String::new() },
            ),
        ])?;
        for line in text(attempt, "/body").lines() {
            writeln!(stdout, "  | {}", visible(line))?;
        }
    }
    Ok(())
}
