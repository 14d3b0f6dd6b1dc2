//! `replay`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::api::{Api, Query, text};
use super::arguments::{Admin, Filter, Replay, Watch};
use super::table::Table;
use super::time::relative;
use super::{deliveries, now, of_id, print_fields, query, say};
use crate::terminal::print_json;

const PATH: &str = "/v1/replays";
/// How often a replay that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The steps of a progress bar.
const STEPS: f64 = 1_000.0;

pub(crate) async fn main(command: Replay) -> anyhow::Result<ExitCode> {
    match command {
        Replay::Delivery { delivery, admin } => {
            let found = Api::new(&admin)?.post(&of_id(deliveries::PATH, &delivery, "/replay"), None).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                say(&format!("{} is sent again", text(&found, "/id")))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Replay::Start { filter, everything, watch, admin } => {
            let body = match (everything, wanted(&filter)) {
                (true, wanted) if wanted.is_empty() => json!({ "everything": true }),
                (true, _) => bail!("--everything goes with no other filter"),
                (false, wanted) if wanted.is_empty() => {
                    bail!(
                        "say what to send again, by --webhook, --state, --since or another filter, or with --everything"
                    )
                }
                (false, wanted) => json!({ "filter": wanted }),
            };
            start(&body, &watch, &admin).await
        }
        Replay::Missed { webhook, event_type, since, until, watch, admin } => {
            let now = now();
            let mut missed = json!({ "webhook": webhook.to_string() });
            if !event_type.is_empty() {
                missed["event_type"] = json!(event_type);
            }
            for (name, when) in [("since", since), ("until", until)] {
                if let Some(when) = when {
                    missed[name] = json!(when.from(now));
                }
            }
            start(&json!({ "missed": missed }), &watch, &admin).await
        }
        Replay::List { admin } => {
            let list = Api::new(&admin)?.get(PATH, &Query::new()).await?;
            if admin.json {
                print_json(&list["items"])?;
            } else {
                print(list["items"].as_array().map_or(&[][..], Vec::as_slice))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Replay::Show { replay, admin } => {
            let found = Api::new(&admin)?.get(&of_id(PATH, &replay, ""), &Query::new()).await?;
            show(&found, &admin)
        }
        Replay::Watch { replay, admin } => {
            let api = Api::new(&admin)?;
            let found = api.get(&of_id(PATH, &replay, ""), &Query::new()).await?;
            show(&wait(&api, found).await?, &admin)
        }
        Replay::Cancel { replay, admin } => {
            let found = Api::new(&admin)?.post(&of_id(PATH, &replay, "/cancel"), None).await?;
            show(&found, &admin)
        }
    }
}

/// A filter as the API takes it.
fn wanted(filter: &Filter) -> Map<String, Value> {
    let value = |name: &str, value: String| match name {
        "state" => json!(filter.state),
        _ => Value::String(value),
    };
    query(filter).into_iter().map(|(name, given)| (name.to_owned(), value(name, given))).collect()
}

async fn start(body: &Value, watch: &Watch, admin: &Admin) -> anyhow::Result<ExitCode> {
    let api = Api::new(admin)?;
    let started = api.post(PATH, Some(body)).await?;
    if watch.detach {
        return show(&started, admin);
    }
    say(&format!("{} goes on in the background, also after Ctrl-C", text(&started, "/id")))?;
    show(&wait(&api, started).await?, admin)
}

/// Waits until a replay has ended, with a progress bar on a terminal.
async fn wait(api: &Api, mut replay: Value) -> anyhow::Result<Value> {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(STEPS as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}  {eta}") {
        bar.set_style(style);
    }
    let path = of_id(PATH, &text(&replay, "/id"), "");
    while text(&replay, "/state") == "running" {
        bar.set_position((replay["progress"].as_f64().unwrap_or_default().clamp(0.0, 1.0) * STEPS) as u64);
        bar.set_message(format!("{} sent again", text(&replay, "/replayed")));
        sleep(LOOK).await;
        replay = api.get(&path, &Query::new()).await?;
    }
    bar.finish_and_clear();
    Ok(replay)
}

fn percent(replay: &Value) -> String {
    format!("{:.0} %", replay["progress"].as_f64().unwrap_or_default() * 100.0)
}

fn print(replays: &[Value]) -> anyhow::Result<()> {
    let now = now();
    let mut table = Table::new(["REPLAY", "STATE", "PROGRESS", "SENT AGAIN", "STARTED", "WHAT"]);
    for replay in replays {
        table.row([
            text(replay, "/id"),
            text(replay, "/state"),
            percent(replay),
            text(replay, "/replayed"),
            relative(&text(replay, "/created_at"), now),
            text(replay, "/what"),
        ]);
    }
    if table.is_empty() {
        return Ok(say("there are no replays")?);
    }
    Ok(table.print(true)?)
}

fn show(replay: &Value, admin: &Admin) -> anyhow::Result<ExitCode> {
    if admin.json {
        print_json(replay)?;
    } else {
        print_fields(&[
            ("replay", text(replay, "/id")),
            ("state", text(replay, "/state")),
            ("what", text(replay, "/what")),
            ("progress", percent(replay)),
            ("sent again", text(replay, "/replayed")),
            ("passed over", text(replay, "/passed_over")),
            ("started", relative(&text(replay, "/created_at"), now())),
        ])?;
    }
    Ok(ExitCode::SUCCESS)
}
