//! Speaking to the admin API.

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::arguments::Admin;
use crate::{cli, client};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most rows that the API gives on one page.
const PAGE: u32 = 1_000;

/// The admin API of a running sidecar.
pub(super) struct Api {
    base: String,
    headers: HeaderMap,
}

/// The query of a request, a name and a value each.
pub(super) type Query = Vec<(&'static str, String)>;

impl Api {
    pub(super) fn new(admin: &Admin) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(file) = &admin.token_file {
            let token = cli::secret_from(file)?;
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { base: admin.admin.clone(), headers })
    }

    pub(super) async fn get(&self, path: &str, query: &Query) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(path, query).await?)?)
    }

    /// The body of an answer as it is.
    pub(super) async fn bytes(&self, path: &str, query: &Query) -> anyhow::Result<Bytes> {
        let query = Serializer::new(String::new()).extend_pairs(query).finish();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask(Method::GET, &path, Bytes::new(), PATIENCE).await
    }

    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.post_within(path, body, PATIENCE).await
    }

    pub(super) async fn post_within(
        &self,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        Ok(serde_json::from_slice(&self.ask(Method::POST, path, body.into(), limit).await?)?)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, limit: Duration) -> anyhow::Result<Bytes> {
        let headers = self.headers.clone();
        let (status, answer) = client::ask(method, &self.base, path, headers, body, limit).await?;
        match status {
            StatusCode::UNAUTHORIZED if self.headers.is_empty() => {
                bail!("{} wants a token: give the file that holds it with --token-file", self.base)
            }
            StatusCode::UNAUTHORIZED => bail!("{} does not accept this token", self.base),
            status if status.is_success() => Ok(answer),
            status => bail!("{}", client::reason(status, &answer)),
        }
    }

    /// Up to `limit` rows of a list, page by page.
    pub(super) async fn list(&self, path: &str, mut query: Query, limit: u32) -> anyhow::Result<List> {
        let mut list = List::default();
        let mut cursor: Option<String> = None;
        loop {
            let missing = limit.saturating_sub(u32::try_from(list.items.len()).unwrap_or(u32::MAX));
            query.retain(|(name, _)| !matches!(*name, "limit" | "cursor"));
            query.push(("limit", missing.min(PAGE).to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query).await?;
            query.retain(|(name, _)| *name != "count");
            list.count = list.count.or_else(|| page.get("count").cloned());
            match page["items"].take() {
                Value::Array(items) => list.items.extend(items),
                _ => bail!("{} does not answer as a sidecar does", self.base),
            }
            cursor = page["next"].as_str().map(str::to_owned);
            list.more = cursor.is_some();
            if cursor.is_none() || list.items.len() >= limit as usize {
                return Ok(list);
            }
        }
    }
}

/// Rows of a list.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    /// True if there are further ones.
    pub(super) more: bool,
    /// How many there are, if that was asked for.
    pub(super) count: Option<Value>,
}

/// The text at a JSON pointer (RFC 6901): empty if there is none, a number as it is.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A count: `12`, or `1000+` if it did not end there.
pub(super) fn count(value: &Value) -> String {
    let exact = value["exact"].as_bool().unwrap_or(true);
    format!("{}{}", text(value, "/at_least"), if exact { "" } else { "+" })
}
