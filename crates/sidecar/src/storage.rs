//! `queue`: looking after the file that the queue is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aquarium_config::{Fs, load};
use aquarium_dispatch::Chance;
use aquarium_queue::sqlite::maintenance::{Closed, Exported, Exports, Stats, export, stats};
use aquarium_queue::sqlite::recover::{Lost, Recovered, Recovery, recover};
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::cli::{self, At};
use crate::terminal::{Data, print_json, visible};

pub(crate) fn main(command: cli::Queue) -> anyhow::Result<ExitCode> {
    match command {
        cli::Queue::Stats { at, json } => {
            let Some(path) = path(at)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
            print(&stats(&path)?, json)?;
        }
        cli::Queue::Verify { at, json } => {
            let Some(path) = path(at)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
            let wrong = Closed::open(&path)?.verify();
            let fine = wrong.is_empty();
            if json {
                print_json(&json!({ "valid": fine, "errors": wrong }))?;
            } else if fine {
                writeln!(anstream::stderr(), "{} is as it should be", path.display())?;
            } else {
                for line in wrong {
                    writeln!(anstream::stdout(), "{}", visible(&line))?;
                }
            }
            return Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        cli::Queue::Compact { at } => {
            let Some(path) = path(at)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
            let (before, after) = Closed::open(&path)?.compact()?;
            let (before, after) = (ByteSize(before), ByteSize(after));
            writeln!(anstream::stderr(), "{}: {before} before, {after} now", path.display())?;
        }
        cli::Queue::Export { at, pending } => {
            let Some(path) = path(at)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
            let mut out = Data::stdout();
            let Exports { events, damaged, unreadable } =
                export(&path, pending, |event| out.write(format!("{}\n", as_json(&event)).as_bytes()))?;
            out.flush()?;
            let mut err = anstream::stderr();
            writeln!(err, "{events} events")?;
            if damaged > 0 {
                writeln!(err, "{damaged} of them damaged: the payload may not be what was posted")?;
            }
            if unreadable > 0 {
                anyhow::bail!(
                    "{unreadable} events, or ranges of events, could not be read; see `queue recover`"
                );
            }
        }
        cli::Queue::Recover { at, new } => {
            let Some(path) = path(at)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
            let (mut out, chance) = (Data::stdout(), Chance::system());
            let recovered = recover(Recovery {
                from: &path,
                to: &new,
                random: &mut || chance.bytes(),
                lost: &mut |lost| out.write(format!("{}\n", lost_as_json(&lost)).as_bytes()),
            })?;
            out.flush()?;
            tell(&recovered, &path, &new)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that is meant. `None` if the configuration that would say so cannot be used, which has been reported.
fn path(at: At) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = at.file {
        return Ok(Some(path));
    }
    match load(&at.config, &Fs) {
        Ok(loaded) => Ok(Some(loaded.config.queue.path)),
        Err(errors) => {
            cli::report(&errors.diagnostics)?;
            writeln!(
                anstream::stderr(),
                "error: {} cannot be used; or name the file with --file",
                at.config.display()
            )?;
            Ok(None)
        }
    }
}

fn print(stats: &Stats, json: bool) -> io::Result<()> {
    let Stats { schema, file, log, free, events, pending, delivered, exhausted, skipped, suspended } = *stats;
    let mut out = anstream::stdout();
    if json {
        let stats = json!({
            "schema": schema, "file_bytes": file, "log_bytes": log, "free_bytes": free, "events": events,
            "pending": pending, "delivered": delivered, "exhausted": exhausted, "skipped": skipped,
            "suspended_webhooks": suspended,
        });
        return print_json(&stats);
    }
    let (file, log, free) = (ByteSize(file), ByteSize(log), ByteSize(free));
    writeln!(out, "file       {file}, of which {free} are free")?;
    writeln!(out, "log        {log}")?;
    writeln!(out, "schema     version {schema}")?;
    writeln!(out, "events     {events}")?;
    writeln!(out, "pending    {pending}")?;
    writeln!(out, "delivered  {delivered}")?;
    writeln!(out, "exhausted  {exhausted}")?;
    writeln!(out, "skipped    {skipped}")?;
    writeln!(out, "suspended  {suspended} webhooks")
}

/// Says what was saved, and what to do with it.
fn tell(recovered: &Recovered, from: &Path, to: &Path) -> io::Result<()> {
    let Recovered { events, deliveries, pending, rebuilt, lost, wrong, unreadable } = recovered;
    let mut err = anstream::stderr();
    writeln!(
        err,
        "saved in {}: {events} events, {deliveries} deliveries, of which {pending} are pending",
        to.display()
    )?;
    if *rebuilt > 0 {
        writeln!(
            err,
            "{rebuilt} pending deliveries were made anew from the index: with new identifiers and no attempts, in no order"
        )?;
    }
    for (table, ranges) in unreadable {
        writeln!(err, "{table}: {ranges} rows, or ranges of rows, could not be read")?;
    }
    if *lost > 0 {
        writeln!(err, "{lost} deliveries were lost with their event or webhook: they are listed on stdout")?;
    }
    for line in wrong {
        writeln!(err, "in the new file: {line}")?;
    }
    writeln!(
        err,
        "{} is as it was. To go on: move it and its -wal away, move the new file to its place, and start",
        from.display()
    )
}

fn lost_as_json(lost: &Lost) -> Value {
    json!({ "delivery": lost.id.map(|id| id.to_string()), "webhook": lost.webhook, "pending": lost.pending })
}

/// The payload is text, so that it stays as it was posted, byte for byte.
fn as_json(event: &Exported) -> Value {
    let deliveries = event.deliveries.iter().map(|delivery| {
        json!({
            "id": delivery.id.to_string(),
            "webhook": delivery.webhook.as_str(),
            "state": delivery.state.as_str(),
            "attempts": delivery.attempts,
        })
    });
    json!({
        "id": event.id.to_string(),
        "organization": event.organization,
        "project": event.project,
        "event_type": event.kind,
        "accepted_at": event.accepted_at.to_string(),
        "deliveries": deliveries.collect::<Vec<_>>(),
        "damaged": event.damaged,
        "payload": String::from_utf8_lossy(&event.body),
    })
}
