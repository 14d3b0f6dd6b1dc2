//! What a running sidecar tells of itself.

mod exposition;
mod metrics;
mod process;

pub(crate) use exposition::{Format, Read, expose};
pub(crate) use metrics::Metrics;
