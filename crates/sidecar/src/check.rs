//! `check`: what a configuration says, or everything that is wrong with it.

use std::io::Write;
use std::process::ExitCode;

use aquarium_config::{Config, Fs, Subscription, Webhook, load_at_rest};
use serde_json::{Value, json};

use crate::terminal::{print_json, visible_lines};
use crate::{cli, reload};

pub(crate) fn main(arguments: &cli::Check) -> anyhow::Result<ExitCode> {
    let loaded = match load_at_rest(&arguments.config, &Fs) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let count = errors.errors().count();
            if arguments.json {
                let lines: Vec<_> = errors.errors().map(ToString::to_string).collect();
                print_json(&json!({ "valid": false, "errors": lines }))?;
            } else {
                cli::report(&errors.diagnostics)?;
            }
            let errors = cli::counted(count, "error");
            writeln!(anstream::stderr(), "{}: {errors}", arguments.config.display())?;
            return Ok(ExitCode::from(cli::BAD_CONFIG));
        }
    };
    cli::report(&loaded.warnings)?;
    if let Err(error) = reload::unusable(loaded.config.webhooks()) {
        if arguments.json {
            print_json(&json!({ "valid": false, "errors": [error] }))?;
        } else {
            writeln!(anstream::stderr(), "error: {}", visible_lines(&error))?;
        }
        return Ok(ExitCode::from(cli::BAD_CONFIG));
    }
    if arguments.json {
        print_json(&as_json(&loaded.config))?;
    } else {
        let mut text = Vec::new();
        print(&mut text, &loaded.config)?;
        write!(anstream::stdout(), "{}", visible_lines(&String::from_utf8_lossy(&text)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, config: &Config) -> std::io::Result<()> {
    let queue = &config.queue;
    writeln!(out, "ingest  {}", config.ingest.listen)?;
    writeln!(out, "admin   {}", config.admin.listen)?;
    writeln!(out, "queue   {} {}", queue.engine, queue.path.display())?;
    if let Some(export) = &config.traces.export {
        writeln!(out, "traces  {}", export.otlp)?;
    }
    for organization in config.organizations.values() {
        let secret = if organization.secret.is_some() { "with a secret" } else { "without a secret" };
        let signed = if organization.signing_key.is_some() { ", signed" } else { "" };
        writeln!(out, "\n{} ({secret}{signed})", organization.name)?;
        for project in organization.projects.values() {
            writeln!(out, "  {}", project.name)?;
            for webhook in project.webhooks.values() {
                let inactive = if webhook.active { "" } else { "  (inactive)" };
                let events = events(webhook).join(", ");
                writeln!(out, "    {}  {}  {events}{inactive}", webhook.name.webhook(), webhook.url)?;
            }
        }
    }
    let webhooks = config.webhooks().count();
    let organizations = cli::counted(config.organizations.len(), "organization");
    writeln!(out, "\n{organizations}, {}", cli::counted(webhooks, "webhook"))
}

fn events(webhook: &Webhook) -> Vec<String> {
    match &webhook.events {
        Subscription::All => vec!["*".to_owned()],
        Subscription::Only(types) => types.iter().map(ToString::to_string).collect(),
    }
}

fn as_json(config: &Config) -> Value {
    let webhooks = config.webhooks().map(|webhook| {
        json!({
            "name": webhook.name.to_string(),
            "url": webhook.url.as_str(),
            "events": events(webhook),
            "active": webhook.active,
        })
    });
    json!({
        "valid": true,
        "ingest": config.ingest.listen.to_string(),
        "admin": config.admin.listen.to_string(),
        "queue": config.queue.path.to_string_lossy(),
        "traces": config.traces.export.as_ref().map(|export| export.otlp.as_str()),
        "organizations": config.organizations.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "webhooks": webhooks.collect::<Vec<_>>(),
    })
}
