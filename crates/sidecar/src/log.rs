//! Logging to stderr.

mod filter;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::cli::LogFormat;

/// Changes what is logged while the process runs.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Arc<reload::Handle<EnvFilter, Registry>>);

impl Filter {
    /// Logs what passes `filter` from now on.
    ///
    /// # Errors
    /// What is wrong with it, in words: it stays as it was.
    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = parse(filter).map_err(|error| format!("{error:#}"))?;
        self.0.reload(parsed).map_err(|error| error.to_string())
    }

    /// What is logged, as a filter.
    pub(crate) fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    filter::parse(filter).with_context(|| format!("{filter:?} is not a log filter"))
}

/// Starts logging what passes `filter`.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<Filter> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match json {
        true => lines.json().flatten_event(true).boxed(),
        false => lines.with_ansi(terminal).with_target(false).boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    Ok(Filter(Arc::new(handle)))
}
