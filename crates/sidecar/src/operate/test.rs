//! `test`: what an endpoint makes of a delivery, now.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, text};
use super::arguments::Test;
use super::table::styled;
use super::{milliseconds, of_webhook, outcome, phases, print_fields, say};
use crate::terminal::{print_json, visible};

/// How long the answer may take: an attempt's timeout is an hour at the most.
const PATIENCE: Duration = Duration::from_secs(3_700);

/// Fails if the endpoint did not take the delivery.
pub(crate) async fn main(arguments: Test) -> anyhow::Result<ExitCode> {
    let admin = &arguments.admin;
    let body = arguments.event.as_ref().map(|event| json!({ "event_type": event }));
    let path = of_webhook(&arguments.webhook, "/test");
    let result = Api::new(admin)?.post_within(&path, body.as_ref(), PATIENCE).await?;
    let delivered = text(&result, "/result") == "delivered";
    if admin.json {
        print_json(&result)?;
    } else {
        print(&result)?;
    }
    Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(result: &Value) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout();
    writeln!(stdout, "{}  {}", styled(&text(result, "/result")), visible(&text(result, "/webhook")))?;
    let (took, phases) = (milliseconds(result, "/duration_ms"), phases(result));
    print_fields(&[
        ("outcome", outcome(result)),
        ("phase", text(result, "/error/phase")),
        ("took", if phases.is_empty() { took } else { format!("{took} ({phases})") }),
        ("event", text(result, "/event")),
        ("delivery", text(result, "/delivery")),
    ])?;
    for line in text(result, "/body").lines() {
        writeln!(stdout, "  | {}", visible(line))?;
    }
    let advice = text(result, "/advice");
    if !advice.is_empty() {
        say(&advice)?;
    }
    Ok(())
}
