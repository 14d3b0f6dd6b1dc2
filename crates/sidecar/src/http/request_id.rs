//! Ids of requests: what an app, an answer and the log call the same request by.
//!
//! A client's `X-Request-Id` is kept if it is short and plain; else the request gets a new one. It is in the answer, in the
//! problem if there is one, and in what is logged while the request is handled. That is all at the level `debug`: at `info`,
//! a request costs no span and no line.

use aquarium_dispatch::Chance;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use tracing::{Level, Span, debug, debug_span, enabled};

use super::{Answer, Problem};

/// The header, in requests and in answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id of a client that is kept, in bytes.
const LONGEST: usize = 128;
/// The most of a path that is logged, in characters.
const LONGEST_PATH: usize = 512;

/// Makes ids that hardly any other request has.
#[derive(Debug)]
pub(crate) struct RequestIds(Chance);

impl RequestIds {
    pub(crate) fn new(chance: &Chance) -> Self {
        Self(chance.clone())
    }

    /// What `request` is called.
    pub(crate) fn identify<B>(&self, request: &Request<B>) -> Identified {
        let id = of_client(request.headers()).unwrap_or_else(|| self.fresh());
        if !enabled!(Level::DEBUG) {
            return Identified { id, span: Span::none(), told: None };
        }
        let told = Some((request.method().clone(), request.uri().clone()));
        Identified { span: debug_span!("request", request_id = text(&id)), id, told }
    }

    /// Names a problem with a head that could not be read, and that has no id of the client therefore.
    pub(crate) fn name(&self, problem: Problem) -> Problem {
        let id = self.fresh();
        debug!(request_id = text(&id), code = problem.code(), "refused");
        problem.of_request(text(&id)).header(REQUEST_ID, id)
    }

    /// 16 hexadecimal digits.
    fn fresh(&self) -> HeaderValue {
        let number = u64::from_ne_bytes(self.0.bytes());
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * place) & 0xf) as usize];
        }
        HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// The client's id, if there is one and it is fit for a header, a log and a file's name.
fn of_client(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:+/=@".contains(byte);
    let fit = (1..=LONGEST).contains(&value.len()) && value.as_bytes().iter().all(plain);
    fit.then(|| value.clone())
}

fn text(id: &HeaderValue) -> &str {
    // It is ASCII: both kinds are made of that.
    id.to_str().unwrap_or_default()
}

/// A request that has an id.
#[derive(Debug)]
pub(crate) struct Identified {
    id: HeaderValue,
    span: Span,
    /// What a line about a refusal tells, if there are such lines.
    told: Option<(Method, Uri)>,
}

impl Identified {
    /// In which the request is handled.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The answer to it.
    pub(crate) fn answer(self, answer: Result<Answer, Problem>) -> Answer {
        let (mut answer, code) = match answer {
            Ok(answer) => (answer, ""),
            Err(problem) => {
                let code = problem.code();
                (problem.of_request(text(&self.id)).answer(), code)
            }
        };
        self.tell(answer.status(), code);
        answer.headers_mut().insert(REQUEST_ID, self.id);
        answer
    }

    fn tell(&self, status: StatusCode, code: &str) {
        let Some((method, uri)) = self.told.as_ref().filter(|_| status.as_u16() >= 400) else { return };
        let (id, status) = (text(&self.id), status.as_u16());
        // A path may be anything, and a whole head long.
        let path: String = uri.path().escape_default().take(LONGEST_PATH).collect();
        debug!(request_id = id, %method, path, status, code, "refused");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_made_is_16_digits_each_time_others() {
        let ids = RequestIds::new(&Chance::seeded(7));
        let made: HashSet<_> = (0..10_000).map(|_| ids.fresh()).collect();
        assert_eq!(made.len(), 10_000);
        for id in &made {
            assert_eq!(id.len(), 16);
            assert!(of_client(&HeaderMap::from_iter([(REQUEST_ID, id.clone())])).is_some(), "{id:?}");
        }
    }

    #[test]
    fn an_id_of_the_client_is_kept_if_it_is_short_and_plain() {
        let kept = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            }
            of_client(&headers).is_some()
        };
        assert!(kept(&[b"4bf92f35-77b3_4da6.a3ce:92/9d0e+0e4736=@~"]));
        assert!(kept(&[&[b'x'; 128]]));
        let refused: [&[&[u8]]; 8] =
            [&[], &[b""], &[&[b'x'; 129]], &[b"a b"], &[b"a\"b"], &[b"<b>"], &[b"\xc3\xa4"], &[b"a", b"b"]];
        for values in refused {
            assert!(!kept(values), "{values:?}");
        }
    }
}
