//! What is answered to a call that is not genuine.

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::verifier::Rejection;

/// The body of the answer.
pub(crate) const UNAUTHORIZED: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;
/// The type of that body, and of every other that tells of a problem (RFC 9457).
pub(crate) const PROBLEM: &str = "application/problem+json";
/// The scheme of the challenge. A 401 has to carry one (RFC 9110, section 15.5.2).
pub(crate) const CHALLENGE: &str = "Aquarium-Secret";

impl Rejection {
    /// The answer to a call that was rejected: a 401 that is the same for every reason. Who has no secret learns nothing
    /// from it.
    ///
    /// Middleware and extractors answer with it by themselves. Without them, give its body the type that you need:
    ///
    /// ```
    /// use aquarium_verify::Rejection;
    ///
    /// let answer: http::Response<Vec<u8>> = Rejection::Missing.response().map(Vec::from);
    /// assert_eq!(answer.status(), 401);
    /// assert_eq!(answer.headers()["www-authenticate"], "Aquarium-Secret");
    /// assert_eq!(answer.body(), br#"{"type":"about:blank","title":"Unauthorized","status":401}"#);
    /// ```
    pub fn response(self) -> Response<&'static str> {
        let mut response = Response::new(UNAUTHORIZED);
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        response
    }
}

/// The answer to a gRPC call that was rejected; `None` if these are not the headers of a gRPC call.
///
/// It is a response that consists of trailers only ("PROTOCOL-HTTP2" of gRPC, "Responses"): a client that is answered with
/// a 401 that has a body reports whatever it makes of the first bytes of that body.
#[cfg(feature = "tower")]
pub(crate) fn grpc(request: &http::HeaderMap) -> Option<Response<&'static str>> {
    let content_type = request.get(CONTENT_TYPE)?;
    let subtype = content_type.as_bytes().strip_prefix(b"application/grpc")?;
    if !matches!(subtype.first(), None | Some(b'+' | b';' | b'-' | b' ')) {
        return None;
    }
    let mut response = Response::new("");
    // Without parameters, so that no more of what the caller sent is repeated than what it is for.
    let end = content_type.as_bytes().iter().position(|byte| matches!(byte, b';' | b' '));
    let end = end.unwrap_or(content_type.len());
    if let Ok(content_type) = HeaderValue::from_bytes(&content_type.as_bytes()[..end]) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response.headers_mut().insert("grpc-status", HeaderValue::from_static("16"));
    response.headers_mut().insert("grpc-message", HeaderValue::from_static("Unauthorized"));
    Some(response)
}
