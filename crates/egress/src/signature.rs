//! Signatures, by which a receiver can tell who sent a request, when, and that nothing of it was changed.
//!
//! They are those of [Standard Webhooks], symmetric: HMAC-SHA256 over the id, the timestamp and the body of a request.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::fmt;

use data_encoding::BASE64;
use http::HeaderValue;
use ring::hmac;
use tokio::task::yield_now;

/// How much of a body is hashed in one go, in bytes: a large one must not keep other attempts waiting.
const SLICE: usize = 256 * 1024;

/// What requests are signed with. Its [`Debug`](fmt::Debug) form tells nothing.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// The key made of these bytes, which are meant to be 24 to 64 random ones.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The value of `Webhook-Signature` for a request with these values of `Webhook-Id` and `Webhook-Timestamp`.
    pub(crate) async fn sign(&self, id: &HeaderValue, timestamp: &HeaderValue, body: &[u8]) -> HeaderValue {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b"."] {
            context.update(part);
        }
        for (number, slice) in body.chunks(SLICE).enumerate() {
            if number > 0 {
                yield_now().await;
            }
            context.update(slice);
        }
        header(context.sign())
    }
}

/// A signature as it is sent: its version, and base64.
fn header(signature: hmac::Tag) -> HeaderValue {
    let text = format!("v1,{}", BASE64.encode(signature.as_ref()));
    // Letters, digits, "+", "/", "=" and a comma.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sign(key: &str, id: &'static str, timestamp: u64, body: &[u8]) -> HeaderValue {
        let key = SigningKey::new(&BASE64.decode(key.as_bytes()).unwrap());
        key.sign(&HeaderValue::from_static(id), &HeaderValue::from(timestamp), body).await
    }

    /// From the tests of the reference libraries of Standard Webhooks for Python and for Rust.
    #[tokio::test]
    async fn a_signature_is_that_of_the_reference_libraries() {
        let key = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signature = sign(key, id, 1_614_265_330, body).await;
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");

        let key = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = sign(key, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body).await;
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[tokio::test]
    async fn a_body_that_is_hashed_in_parts_is_signed_as_a_whole() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        for length in [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE + 5] {
            let body: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let whole = [b"evt_1.5.", &body[..]].concat();
            let signature = SigningKey(key.clone())
                .sign(&HeaderValue::from_static("evt_1"), &HeaderValue::from_static("5"), &body)
                .await;
            assert_eq!(signature, header(hmac::sign(&key, &whole)), "{length}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", SigningKey::new(&[7; 32])), "SigningKey(..)");
    }
}
