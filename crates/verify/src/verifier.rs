//! The check of one call.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderMap, HeaderName};

use crate::secrets::Secrets;

/// The header in which a call carries the secret.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-aquarium-secret");

/// Checks that a call carries one of the accepted [`Secrets`]. Cheap to clone; clones are the same verifier, also after
/// its secrets were replaced.
#[derive(Clone)]
pub struct Verifier {
    secrets: Arc<RwLock<Secrets>>,
    on_rejection: Option<Arc<OnRejection>>,
}

type OnRejection = dyn Fn(Rejection) + Send + Sync;

impl Verifier {
    /// A verifier that accepts `secrets`.
    pub fn new(secrets: Secrets) -> Verifier {
        Verifier { secrets: Arc::new(RwLock::new(secrets)), on_rejection: None }
    }

    /// Has middleware and extractors tell why they rejected a call: to count it, say. Who called is told nothing.
    ///
    /// It is called on the request's way, and must not block.
    #[must_use]
    pub fn on_rejection(mut self, tell: impl Fn(Rejection) + Send + Sync + 'static) -> Verifier {
        self.on_rejection = Some(Arc::new(tell));
        self
    }

    /// Accepts these secrets from now on, and no others. Calls that are being checked end with those of before.
    ///
    /// ```
    /// use aquarium_verify::{SECRET_HEADER, Secrets, Verifier};
    /// use http::HeaderMap;
    ///
    /// let verifier = Verifier::new(Secrets::new(["the-old-secret-of-acme"]).unwrap());
    /// let handle = verifier.clone();
    /// handle.replace(Secrets::new(["the-new-secret-of-acme"]).unwrap());
    ///
    /// let headers = HeaderMap::from_iter([(SECRET_HEADER, "the-new-secret-of-acme".parse().unwrap())]);
    /// assert!(verifier.verify(&headers).is_ok());
    /// ```
    pub fn replace(&self, secrets: Secrets) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    /// Whether a call with these headers is genuine. It needs no body, so ask before reading it.
    ///
    /// The value is compared as bytes, whether or not it is text. How long that takes depends on the length of what
    /// was presented and on the number of secrets, and on nothing that is secret.
    ///
    /// # Errors
    /// The call is to be answered with a 401, and with nothing else: the reason is for the log of the receiver.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Verified, Rejection> {
        self.verify_values(headers.get_all(SECRET_HEADER).iter().map(http::HeaderValue::as_bytes))
    }

    /// The same, for who has headers of another type: the values of every [`SECRET_HEADER`] of the call.
    ///
    /// # Errors
    /// As those of [`Verifier::verify`].
    pub fn verify_values<'v>(
        &self,
        values: impl IntoIterator<Item = &'v [u8]>,
    ) -> Result<Verified, Rejection> {
        let mut values = values.into_iter();
        let value = values.next().ok_or(Rejection::Missing)?;
        if values.next().is_some() {
            return Err(Rejection::Repeated);
        }
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (index, label) = secrets.find(value).ok_or(Rejection::Wrong)?;
        Ok(Verified { index, label })
    }
}

/// For middleware and extractors, which answer by themselves.
#[cfg(any(feature = "actix", feature = "tower"))]
impl Verifier {
    /// Checks a call, and tells why it is rejected if it is.
    #[cfg(feature = "tower")]
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Verified, Rejection> {
        self.check_values(headers.get_all(SECRET_HEADER).iter().map(http::HeaderValue::as_bytes))
    }

    /// The same for the values of every [`SECRET_HEADER`] of the call.
    pub(crate) fn check_values<'v>(
        &self,
        values: impl IntoIterator<Item = &'v [u8]>,
    ) -> Result<Verified, Rejection> {
        self.verify_values(values).inspect_err(|rejection| {
            tracing::warn!(target: "aquarium_verify", reason = %rejection, "rejected a call");
            if let Some(tell) = &self.on_rejection {
                tell(*rejection);
            }
        })
    }

    /// Whether they are clones of one another.
    #[cfg(feature = "tower")]
    pub(crate) fn is(&self, other: &Verifier) -> bool {
        Arc::ptr_eq(&self.secrets, &other.secrets)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

/// A call is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Which of the accepted secrets it carried, from 0 in the order they were given.
    pub index: usize,
    /// The label of that secret, if it has one. When the one of an old secret does not come up any more, it can go.
    pub label: Option<Arc<str>>,
}

/// Why a call is not genuine. It repeats nothing of what was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// It carries no secret.
    #[error("the X-Aquarium-Secret header is missing")]
    Missing,
    /// It carries several, be they equal: who sends it adds to a header that Aquarium sets once.
    #[error("there is more than one X-Aquarium-Secret header")]
    Repeated,
    /// It carries something that is not an accepted secret.
    #[error("the X-Aquarium-Secret header holds no accepted secret")]
    Wrong,
}
#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NEW: &str = "the-new-secret-of-acme";
    const OLD: &str = "the-old-secret-of-acme";

    #[test]
    fn exactly_one_header_with_an_accepted_secret_is_genuine() {
        type Row<'a> = (&'a [&'a [u8]], Result<usize, Rejection>);
        let table: &[Row<'_>] = &[
            (&[NEW.as_bytes()], Ok(0)),
            (&[OLD.as_bytes()], Ok(1)),
            (&[], Err(Rejection::Missing)),
            (&[b""], Err(Rejection::Wrong)),
            (&[b"the-new-secret-of-acm"], Err(Rejection::Wrong)),
            (&[b"the-new-secret-of-acme2"], Err(Rejection::Wrong)),
            (&[b"The-new-secret-of-acme"], Err(Rejection::Wrong)),
            (&[b"the-new-secret-of-acme,the-old-secret-of-acme"], Err(Rejection::Wrong)),
            (&[b"\xff\xfe"], Err(Rejection::Wrong)),
            (&[&[b'a'; 1 << 20]], Err(Rejection::Wrong)),
            (&[NEW.as_bytes(), NEW.as_bytes()], Err(Rejection::Repeated)),
            (&[NEW.as_bytes(), b"anything"], Err(Rejection::Repeated)),
        ];
        let verifier = Verifier::new(Secrets::new([NEW, OLD, NEW]).unwrap());
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append("X-Aquarium-Secret", HeaderValue::from_bytes(value).unwrap());
            }
            let outcome = verifier.verify(&headers).map(|verified| verified.index);
            assert_eq!(outcome, *expected, "{values:?}");
        }
    }
}
