//! `config`: the configuration that a running sidecar follows.

use std::process::ExitCode;

use serde_json::Value;

use super::api::{Api, Query, text};
use super::arguments::Configuration;
use super::time::relative;
use super::{now, print_fields, say};
use crate::terminal::print_json;

pub(crate) async fn main(command: Configuration) -> anyhow::Result<ExitCode> {
    match command {
        Configuration::Show { admin } => {
            let found = Api::new(&admin)?.get("/v1/config", &Query::new()).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                show(&found)?;
            }
        }
        Configuration::Reload { allow_empty, admin } => {
            let path = if allow_empty { "/v1/config/reload?allow_empty=true" } else { "/v1/config/reload" };
            let found = Api::new(&admin)?.post(path, None).await?;
            if admin.json {
                print_json(&found)?;
            } else {
                let generation = text(&found, "/generation");
                let changes = lines(&found["changes"]);
                match changes.is_empty() {
                    true => say(&format!("configuration {generation} stays in force: nothing has changed"))?,
                    false => say(&format!("configuration {generation} is in force: {}", changes.join(", ")))?,
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(value: &Value) -> Vec<String> {
    let lines = value.as_array().into_iter().flatten();
    lines.map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned)).collect()
}

fn show(status: &Value) -> anyhow::Result<()> {
    let now = now();
    print_fields(&[
        ("generation", text(status, "/generation")),
        ("digest", text(status, "/digest")),
        ("loaded", relative(&text(status, "/loaded_at"), now)),
        ("needs a restart", lines(&status["needs_restart"]).join(", ")),
        ("watching failed", text(status, "/watch_error")),
        ("rejected", relative(&text(status, "/rejected/at"), now)),
    ])?;
    for error in lines(&status["rejected"]["errors"]) {
        say(&error)?;
    }
    Ok(())
}
