//! What a call that is not genuine is answered: always the same, whatever is wrong with it.

/// The body of the 401, as `application/problem+json` (RFC 9457).
pub(crate) const UNAUTHORIZED: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;
