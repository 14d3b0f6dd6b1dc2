//! The JSON bodies that the API takes.

use http::StatusCode;
use http::request::Parts;
use hyper::body::Incoming;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::Fields;
use crate::http::{Code, Problem, check_content_type, read};

/// The most that a body may have, in bytes.
const MAX: usize = 64 * 1024;

/// The JSON of a request, if it has a body. `null` is as good as none.
pub(super) async fn json(head: &Parts, body: Incoming) -> Result<Option<Value>, Problem> {
    let body = read(body, MAX).await?;
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    check_content_type(&head.headers, &["application/json"])?;
    serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::new(StatusCode::BAD_REQUEST, Code::MalformedJson, detail)
    })
}

/// For what takes no fields: a body may be left out, or be an empty object.
pub(super) async fn none(head: &Parts, body: Incoming) -> Result<(), Problem> {
    match json(head, body).await? {
        None => Ok(()),
        Some(value) => Fields::of_object::<Nothing>(value, "").map(drop),
    }
}

/// An object without fields.
#[derive(Debug, ToSchema)]
struct Nothing {}
