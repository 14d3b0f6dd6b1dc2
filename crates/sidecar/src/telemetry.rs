//! What a running sidecar tells of itself.

mod export;
mod exposition;
mod metrics;
mod process;
mod spans;
mod tracer;

pub(crate) use export::Exporting;
pub(crate) use exposition::{Format, Read, expose};
pub(crate) use metrics::Metrics;
pub(crate) use tracer::{Accepting, Observer, Tracer, incoming};
