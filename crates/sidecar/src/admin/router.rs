//! From a method and a path to what answers.

use http::{Method, StatusCode};
use matchit::InsertError;
use percent_encoding::percent_decode_str;

use super::word::{clip, suggestion_and};
use crate::http::{Code, Problem};

/// What answers at which paths. `HEAD` is answered as `GET` is.
#[derive(Debug)]
pub(super) struct Router<T> {
    paths: matchit::Router<Methods<T>>,
    known: Vec<&'static str>,
}

#[derive(Debug)]
struct Methods<T> {
    get: Option<T>,
    post: Option<T>,
}

/// One method at one path, such as `/v1/events/{id}`.
#[derive(Debug)]
pub(super) struct Route<T> {
    path: &'static str,
    post: bool,
    answers: T,
}

/// What answers a `GET` at this path.
pub(super) fn get<T>(path: &'static str, answers: T) -> Route<T> {
    Route { path, post: false, answers }
}

/// What answers a `POST` at this path.
pub(super) fn post<T>(path: &'static str, answers: T) -> Route<T> {
    Route { path, post: true, answers }
}

#[cfg(test)]
impl<T> Route<T> {
    /// The method and the path.
    pub(super) fn name(&self) -> String {
        format!("{} {}", if self.post { "POST" } else { "GET" }, self.path)
    }
}

/// The parts of a path that stand for something, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Captured(Vec<(String, String)>);

impl Captured {
    /// The part of this name; empty, if the path has none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl<T> Router<T> {
    /// A router of these routes.
    ///
    /// # Errors
    /// Two paths that cannot be told apart.
    pub(super) fn new(routes: impl IntoIterator<Item = Route<T>>) -> Result<Self, InsertError> {
        let mut collected: Vec<(&'static str, Methods<T>)> = Vec::new();
        for Route { path, post, answers } in routes {
            let index = collected.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
                collected.push((path, Methods { get: None, post: None }));
                collected.len() - 1
            });
            let methods = &mut collected[index].1;
            *if post { &mut methods.post } else { &mut methods.get } = Some(answers);
        }
        let known = collected.iter().map(|(path, _)| *path).collect();
        let mut paths = matchit::Router::new();
        for (path, methods) in collected {
            paths.insert(path, methods)?;
        }
        Ok(Self { paths, known })
    }

    /// What answers `method` at `path`, and what the path's variable parts are.
    ///
    /// # Errors
    /// 404 and 405, with what was probably meant.
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<(&T, Captured), Problem> {
        let Ok(found) = self.paths.at(path) else { return Err(self.unknown(path)) };
        let methods = found.value;
        let answers = match *method {
            Method::GET | Method::HEAD => methods.get.as_ref(),
            Method::POST => methods.post.as_ref(),
            _ => None,
        };
        let answers = answers.ok_or_else(|| Problem::method(methods.allowed()))?;
        let captured = found.params.iter().map(|(name, value)| (name.to_owned(), decoded(value)));
        Ok((answers, Captured(captured.collect())))
    }

    fn unknown(&self, path: &str) -> Problem {
        let rest = suggestion_and(path, self.known.iter().copied(), "see /v1/openapi.json");
        let detail = format!("there is nothing at {:?}{rest}", clip(path));
        Problem::new(StatusCode::NOT_FOUND, Code::UnknownPath, detail)
    }
}

impl<T> Methods<T> {
    fn allowed(&self) -> &'static str {
        match (self.get.is_some(), self.post.is_some()) {
            (true, true) => "GET, HEAD, POST",
            (true, false) => "GET, HEAD",
            (false, _) => "POST",
        }
    }
}

/// A part of a path without its escapes. Bytes that are no text become U+FFFD, which no name has.
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router<&'static str> {
        let routes = [
            get("/v1/events", "list"),
            get("/v1/events/{id}", "show"),
            get("/v1/replays", "jobs"),
            post("/v1/replays", "new job"),
            post("/v1/webhooks/{organization}/{project}/{webhook}/test", "test"),
        ];
        Router::new(routes).unwrap()
    }

    #[test]
    fn a_method_and_a_path_lead_to_what_answers() {
        let router = router();
        let find = |method, path| router.find(&method, path).map(|(found, _)| *found).ok();
        for (method, path, found) in [
            (Method::GET, "/v1/events", Some("list")),
            (Method::HEAD, "/v1/events", Some("list")),
            (Method::GET, "/v1/events/evt_1", Some("show")),
            (Method::GET, "/v1/replays", Some("jobs")),
            (Method::POST, "/v1/replays", Some("new job")),
            (Method::GET, "/v1/events/", None),
            (Method::GET, "/v1/webhooks/a/b/c/test", None),
        ] {
            assert_eq!(find(method, path), found, "{path}");
        }
    }

    #[test]
    fn variable_parts_are_decoded() {
        let (router, path) = (router(), "/v1/webhooks/acme/urban%20driving/a%2Fb/test");
        let (_, captured) = router.find(&Method::POST, path).unwrap();
        let parts = ["organization", "project", "webhook", "other"].map(|name| captured.get(name));
        assert_eq!(parts, ["acme", "urban driving", "a/b", ""]);
    }

    #[test]
    fn another_method_and_another_path_are_told_apart() {
        let router = router();
        let refused = |method, path| router.find(&method, path).unwrap_err().answer();
        let wrong = refused(Method::DELETE, "/v1/replays");
        assert_eq!(
            (wrong.status().as_u16(), &wrong.headers()["allow"]),
            (405, &"GET, HEAD, POST".parse().unwrap())
        );
        assert_eq!(refused(Method::GET, "/v1/event").status(), 404);
    }
}
