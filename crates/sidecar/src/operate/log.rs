//! `log`: what a running sidecar logs.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::api::{Api, Query, text};
use super::arguments::Log;
use crate::terminal::print_json;

const PATH: &str = "/v1/log";

pub(crate) async fn main(arguments: Log) -> anyhow::Result<ExitCode> {
    let Log { filter, admin } = arguments;
    let api = Api::new(&admin)?;
    let found = match filter {
        Some(filter) => api.post(PATH, Some(&json!({ "filter": filter }))).await?,
        None => api.get(PATH, &Query::new()).await?,
    };
    if admin.json {
        print_json(&found)?;
    } else {
        writeln!(anstream::stdout(), "{}", text(&found, "/filter"))?;
    }
    Ok(ExitCode::SUCCESS)
}
