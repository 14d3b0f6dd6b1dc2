//! Named values of a query string or of a JSON object, each taken once, nothing left over.
//!
//! Which names there are is told by the same types that describe them in the OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;

use http::StatusCode;
use serde_json::Value;
use url::form_urlencoded;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema};

use super::word::{clip, suggestion_and};
use crate::http::{Code, Problem};

/// Values by name.
#[derive(Debug)]
pub(super) struct Fields {
    /// The JSON pointer of the object; `None` if it is a query string.
    object: Option<&'static str>,
    values: BTreeMap<String, Value>,
}

/// The names of these parameters.
pub(super) fn parameters<P: IntoParams>() -> Vec<String> {
    P::into_params(|| None).into_iter().map(|parameter| parameter.name).collect()
}

impl Fields {
    /// The parameters of a query string, in which none may stand twice.
    pub(super) fn of_query(query: Option<&str>, known: &[String]) -> Result<Self, Problem> {
        let mut fields = Self { object: None, values: BTreeMap::new() };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            fields.check_known(&name, known)?;
            if fields.values.insert(name.clone().into_owned(), value.into_owned().into()).is_some() {
                return Err(fields.wrong(&name, "it is there twice"));
            }
        }
        Ok(fields)
    }

    /// The fields of a JSON object that stands at `pointer`.
    pub(super) fn of_object<S: PartialSchema>(value: Value, pointer: &'static str) -> Result<Self, Problem> {
        let Value::Object(values) = value else {
            let detail =
                format!("{}: an object is expected", if pointer.is_empty() { "the body" } else { pointer });
            return Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidBody, detail).about(pointer));
        };
        let known = match S::schema() {
            RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let fields = Self { object: Some(pointer), values: values.into_iter().collect() };
        fields.values.keys().try_for_each(|name| fields.check_known(name, &known))?;
        Ok(fields)
    }

    fn check_known(&self, name: &str, known: &[String]) -> Result<(), Problem> {
        if known.iter().any(|known| known == name) {
            return Ok(());
        }
        let (code, what) = match self.object {
            None => (Code::UnknownParameter, "parameter"),
            Some(_) => (Code::UnknownField, "field"),
        };
        let accepted = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let rest = suggestion_and(name, known.iter().map(String::as_str), &format!("accepted: {accepted}"));
        let detail = format!("unknown {what} {:?}{rest}", clip(name));
        Err(Problem::new(StatusCode::BAD_REQUEST, code, detail).about(self.place(name)))
    }

    fn place(&self, name: &str) -> String {
        match self.object {
            None => clip(name),
            Some(pointer) => format!("{pointer}/{}", clip(name).replace('~', "~0").replace('/', "~1")),
        }
    }

    /// Something is wrong with the value of this name.
    pub(super) fn wrong(&self, name: &str, why: impl Display) -> Problem {
        let code = if self.object.is_some() { Code::InvalidBody } else { Code::InvalidQuery };
        let place = self.place(name);
        Problem::new(StatusCode::BAD_REQUEST, code, format!("{place}: {why}")).about(place)
    }

    /// Whether none is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What is left, as it was written, for those that ask for the next page of the same.
    pub(super) fn remembered(&self, but: &[&str]) -> String {
        let kept = self.values.iter().filter(|(name, _)| !but.contains(&name.as_str()));
        kept.map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// A value as it is.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a text is expected")),
        }
    }

    /// A text that has to be there.
    pub(super) fn required(&mut self, name: &str) -> Result<String, Problem> {
        let text = self.text(name)?;
        text.ok_or_else(|| self.wrong(name, "it is missing"))
    }

    /// A text that means something.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|error| self.wrong(name, error))
    }

    /// Some of these words: an array of them, or divided by commas in a query string.
    pub(super) fn words<T: Copy + Ord>(
        &mut self,
        name: &str,
        known: &[(&str, T)],
    ) -> Result<BTreeSet<T>, Problem> {
        let texts = self.texts(name)?;
        texts.iter().map(|text| self.word(name, text, known)).collect()
    }

    /// The one of these words that `text` is.
    fn word<T: Copy>(&self, name: &str, text: &str, known: &[(&str, T)]) -> Result<T, Problem> {
        let found = known.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
            let accepted = format!("accepted: {}", words.join(", "));
            let rest = suggestion_and(text, words.iter().copied(), &accepted);
            self.wrong(name, format!("unknown {:?}{rest}", clip(text)))
        })
    }

    /// One of these words.
    pub(super) fn one_of<T: Copy>(&mut self, name: &str, known: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        self.word(name, &text, known).map(Some)
    }

    /// Several texts: an array of them, or divided by commas in a query string.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        let expected = "an array of texts is expected";
        match self.values.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) if self.object.is_none() => {
                Ok(text.split(',').map(str::to_owned).collect())
            }
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(self.wrong(name, expected)),
                })
                .collect(),
            Some(_) => Err(self.wrong(name, expected)),
        }
    }

    /// A whole number within these bounds.
    pub(super) fn number(
        &mut self,
        name: &str,
        bounds: RangeInclusive<usize>,
    ) -> Result<Option<usize>, Problem> {
        let number = self.parsed(name, str::parse::<usize>).ok();
        let (least, most) = bounds.clone().into_inner();
        match number {
            Some(None) => Ok(None),
            Some(Some(number)) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, format!("a whole number from {least} to {most} is expected"))),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if self.object.is_none() && (text == "true" || text == "false") => {
                Ok(Some(text == "true"))
            }
            Some(_) => Err(self.wrong(name, "true or false is expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["organization", "limit", "state", "count"].map(str::to_owned).to_vec()
    }

    fn query(query: &str) -> Result<Fields, Problem> {
        Fields::of_query(Some(query), &known())
    }

    #[test]
    fn values_are_decoded_and_taken_once() {
        let mut fields = query("organization=a%20b+c&limit=7&state=pending,exhausted&count=true").unwrap();
        assert_eq!(fields.text("organization").unwrap().as_deref(), Some("a b c"));
        assert_eq!(fields.number("limit", 1..=1_000).unwrap(), Some(7));
        let states = fields.words("state", &[("pending", 1), ("exhausted", 2)]).unwrap();
        assert_eq!(states, BTreeSet::from([1, 2]));
        assert_eq!(fields.flag("count").unwrap(), Some(true));
        assert!(fields.is_empty());
        assert_eq!(fields.text("organization").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name() {
        let told = |problem: Problem| String::from_utf8(problem.body()).unwrap();
        let unknown = told(query("organisation=acme").unwrap_err());
        assert!(unknown.contains("did you mean \\\"organization\\\"?"), "{unknown}");
        assert!(unknown.contains("\"field\":\"organisation\""), "{unknown}");
        assert!(told(query("limit=1&limit=2").unwrap_err()).contains("twice"));
        for text in ["0", "1001", "-1", "x", ""] {
            let wrong = query(&format!("limit={text}")).unwrap().number("limit", 1..=1_000).unwrap_err();
            assert!(told(wrong).contains("limit: a whole number from 1 to 1000"), "{text}");
        }
    }
}
