//! Errors as RFC 9457 problem details. Every refusal of a door is one of these.

use std::time::Duration;

use http::header::{ALLOW, CONNECTION, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Code, json};

/// A refusal: what it is about, in a form for programs and one for people.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<ProblemDetails>);

/// What went wrong, by RFC 9457.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDetails {
    /// A URN made of the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong, in words.
    detail: String,
    /// What is wrong, for programs: it stays the same from version to version.
    code: &'static str,
    /// What it is about: the name of a parameter, or a JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Where in the body it is, in bytes from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    /// In which line of a batch it is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// All that is wrong, if it is more than one thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    /// What the request is called: the same as `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem whose `code` stays the same from one version to the next.
    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        let code = code.as_str();
        Self(Box::new(ProblemDetails {
            kind: format!("urn:aquarium:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            field: None,
            offset: None,
            line: None,
            errors: Vec::new(),
            request_id: None,
            headers: Vec::new(),
        }))
    }

    /// Its code.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    /// Where in the body it is: a JSON pointer (RFC 6901), and a byte offset from 0.
    pub(crate) fn at(mut self, field: String, offset: usize) -> Self {
        (self.0.field, self.0.offset) = (Some(field), Some(offset));
        self
    }

    /// What it is about: the name of a parameter, or a JSON pointer into the body.
    pub(crate) fn about(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same with another status.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        (self.0.status, self.0.title) = (status.as_u16(), status.canonical_reason().unwrap_or("Error"));
        self
    }

    /// In which line of a batch it is, from 1.
    pub(crate) fn in_line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    /// All that is wrong, a line each.
    pub(crate) fn errors(mut self, errors: Vec<String>) -> Self {
        self.0.errors = errors;
        self
    }

    /// What the request is called that it answers.
    pub(super) fn of_request(mut self, id: &str) -> Self {
        self.0.request_id = Some(id.to_owned());
        self
    }

    /// It passes: worth another try after this.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        self.header(RETRY_AFTER, wait.as_secs().max(1).into())
    }

    /// The rest of the body was not read, so the connection cannot be used again.
    pub(crate) fn closing(self) -> Self {
        self.header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// There is nothing at this path.
    pub(crate) fn no_such_path(path: &str, known: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Code::UnknownPath,
            format!("there is nothing at {path:?}; there is {known}"),
        )
    }

    /// The path takes another method.
    pub(crate) fn method(allowed: &'static str) -> Self {
        let detail = format!("this path takes {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::WrongMethod, detail)
            .header(ALLOW, HeaderValue::from_static(allowed))
    }

    /// The token is missing or wrong; which of the two is not said.
    pub(crate) fn unauthorized() -> Self {
        let detail = "this listener wants the header \"Authorization: Bearer <token>\" with its token";
        Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// As many connections as there may be are served.
    pub(crate) fn too_many_connections() -> Self {
        let detail = "all connections that this listener serves at once are in use";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyConnections, detail)
            .retry_after(Duration::from_secs(1))
            .closing()
    }

    /// The head is no head of an HTTP/1.1 request, which the status says, or is too large.
    pub(super) fn of_head(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => (
                Code::HeadTooLarge,
                "the head of the request is too large; accepted: 32 KiB, with at most 100 headers",
            ),
            _ => (Code::MalformedHead, "what came is no head of an HTTP/1.1 request"),
        };
        Self::new(status, code, detail).closing()
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Vec<u8> {
        // It has no maps, whose keys are all that could fail.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// The answer as it goes over a connection on which there is no request.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (answer, body) = (self.answer(), self.body());
        let mut bytes =
            format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", answer.status(), body.len()).into_bytes();
        for (name, value) in answer.headers() {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        [bytes, b"\r\n".to_vec(), body].concat()
    }

    /// The answer to send.
    pub(crate) fn answer(&self) -> Answer {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = json(status, &self.0);
        let headers = answer.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.0.headers.iter().cloned());
        answer
    }
}
