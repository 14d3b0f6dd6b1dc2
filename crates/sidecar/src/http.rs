//! What both doors and the local receiver share: listening, connections, and answers.

mod body;
mod code;
mod head;
mod listener;
mod problem;
mod request_id;
mod room;
mod server;
mod stream;
mod turned_away;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

pub(crate) use body::{BodyError, check_content_type, read};
pub(crate) use code::Code;
pub(crate) use head::HeadCheck;
pub(crate) use listener::{Address, Listener};
pub(crate) use problem::{Problem, ProblemDetails};
pub(crate) use request_id::RequestIds;
pub(crate) use room::{CONNECTIONS, REFUSED_AT_ONCE, Room};
pub(crate) use server::{Handler, serve};
pub(crate) use turned_away::TurnedAway;

/// An answer whose body is in memory.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers with JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Our own types have no maps with keys that are not strings, which is all that could fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_body(status, HeaderValue::from_static("application/json"), body.into())
}

/// Answers with a body of this type.
pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
