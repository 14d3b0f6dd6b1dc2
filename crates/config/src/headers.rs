//! The headers of a webhook's own.

use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use crate::Header;
use crate::diagnostic::quote;
use crate::document::Value;
use crate::findings::Problem;
use crate::reader::Scope;
use crate::secret;

/// The most headers of one webhook.
const MAX_HEADERS: usize = 32;
/// The longest value of a header, in bytes.
const MAX_VALUE: usize = 8 << 10;

/// The headers in a table of names, each with a text, `{ file = … }` or `{ env = … }`.
pub(crate) fn headers(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Vec<Header>> {
    let table = value.into_table()?;
    if table.len() > MAX_HEADERS {
        let problem = Problem::error(table.span.clone(), "there are too many headers");
        table.findings.add(problem.accepted(format!("up to {MAX_HEADERS}")));
        table.mask();
        return None;
    }
    let mut headers: Vec<Header> = Vec::with_capacity(table.len());
    for entry in table.entries() {
        let span = entry.key.1.clone();
        let findings = entry.findings;
        // Whatever the kind of value, and whatever is wrong with it.
        if !matches!(entry.inner, DeValue::Table(_)) {
            entry.mask();
        }
        let Some(name) = name(&entry) else { continue };
        if headers.iter().any(|header| header.name == name) {
            let message = format!("header {} is there already", quote(&entry.key.0));
            findings.add(Problem::error(span, message).help("names of headers are the same in any case"));
            continue;
        }
        if let Some(value) = header_value(entry, scope) {
            headers.push(Header { name, value });
        }
    }
    headers.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Some(headers)
}

fn name(entry: &Value<'_, '_>) -> Option<HeaderName> {
    let (text, span) = &entry.key;
    let Ok(name) = text.parse::<HeaderName>() else {
        let problem = Problem::error(span.clone(), format!("{} is not the name of a header", quote(text)));
        entry.report(problem.accepted("letters, digits and \"-\""));
        return None;
    };
    if let Some(reason) = reserved(name.as_str()) {
        entry.report(Problem::error(span.clone(), format!("header {} cannot be set: {reason}", quote(text))));
        return None;
    }
    Some(name)
}

/// Why a webhook cannot set this header; none if it can.
fn reserved(name: &str) -> Option<&'static str> {
    match name {
        "content-type" => Some("the body is always application/json"),
        "content-length" | "transfer-encoding" | "trailer" => Some("it follows from the body"),
        "host" => Some("it follows from the URL"),
        "connection" | "keep-alive" | "te" | "upgrade" | "expect" => {
            Some("it is between this sender and the next hop (RFC 9110, section 7.6.1)")
        }
        "user-agent" => Some("it names this sender"),
        "traceparent" => Some("it follows from the event"),
        _ if name.starts_with("proxy-") => Some("it is for proxies, which the secret is not meant for"),
        _ if ["x-aquarium-", "aquarium-", "webhook-"].iter().any(|prefix| name.starts_with(prefix)) => {
            Some("receivers rely on it to be set by this sender")
        }
        _ => None,
    }
}

fn header_value(entry: Value<'_, '_>, scope: Scope<'_>) -> Option<HeaderValue> {
    let (key, span, findings) = (entry.key.0.clone(), entry.span.clone(), entry.findings);
    let (text, origin) = match &entry.inner {
        DeValue::String(text) => {
            (zeroize::Zeroizing::new(text.to_string()), format!("header {}", quote(&key)))
        }
        DeValue::Table(_) => {
            let referred = secret::referred(entry, scope)?;
            (referred.text, referred.origin)
        }
        _ => {
            entry.mismatch("a string, { file = \"…\" } or { env = \"…\" }");
            return None;
        }
    };
    let wrong = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_VALUE {
        "is too long for a header; accepted: up to 8192 bytes"
    } else if text.trim() != text.as_str() {
        "starts or ends with white space, which receivers do not get to see"
    } else if let Some(mut value) = text.is_ascii().then(|| HeaderValue::from_str(&text)).and_then(Result::ok)
    {
        value.set_sensitive(true);
        return Some(value);
    } else {
        "has a character that cannot be in a header; accepted: visible ASCII, space and tab"
    };
    findings.add(Problem::error(span, format!("{origin} {wrong}")));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sender_sets_itself_is_reserved_and_nothing_else() {
        for name in [
            "Content-Type",
            "Content-Length",
            "Transfer-Encoding",
            "Trailer",
            "Host",
            "Connection",
            "Keep-Alive",
            "TE",
            "Upgrade",
            "Expect",
            "User-Agent",
            "Traceparent",
            "Proxy-Authorization",
            "Proxy-Connection",
            "X-Aquarium-Secret",
            "Aquarium-Delivery",
            "Aquarium-Attempt",
            "Webhook-Id",
            "Webhook-Timestamp",
            "Webhook-Signature",
        ] {
            let name: HeaderName = name.parse().unwrap();
            assert!(reserved(name.as_str()).is_some(), "{name}");
        }
        for name in ["Authorization", "X-Api-Key", "X-Webhook-Id", "Cookie", "Forwarded"] {
            let name: HeaderName = name.parse().unwrap();
            assert!(reserved(name.as_str()).is_none(), "{name}");
        }
    }
}
