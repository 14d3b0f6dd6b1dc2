//! Reads `[traces]`.

use crate::document::Table;
use crate::reader::Scope;
use crate::{TraceExport, Traces, endpoint, headers, value};

/// Where spans are posted at a collector (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

pub(crate) fn traces(mut table: Table<'_, '_>, scope: Scope<'_>) -> Traces {
    let propagate = table.read("propagate", true, |value| value.flag());
    let otlp = table.take("otlp");
    let headers = table.take("headers");
    let sample = table.take("sample");
    if otlp.is_none() && (headers.is_some() || sample.is_some()) {
        table.missing("otlp", "the URL of a collector, such as \"http://127.0.0.1:4318\"");
    }
    table.finish();
    let url = otlp.and_then(|value| endpoint::collector(&value)).map(|mut url| {
        if url.path() == "/" && url.query().is_none() {
            url.set_path(PATH);
        }
        url
    });
    let headers = headers.and_then(|value| headers::headers(value, scope)).unwrap_or_default();
    let sample = sample.and_then(|value| value::fraction(&value)).unwrap_or(1.0);
    Traces { propagate, export: url.map(|otlp| TraceExport { otlp, headers, sample }) }
}
