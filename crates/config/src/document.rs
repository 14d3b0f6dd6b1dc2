//! Reads tables key by key.
//!
//! [`Table`] knows which keys were asked for: whatever remains at the end is unknown, and those asked for are what
//! would have been accepted. Nothing stops at the first error; a value that is not as it should be is reported where
//! it stands, and reads as none.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::quote;
use crate::findings::{Findings, Problem};
use crate::syntax;

/// The only version of the format there is.
const VERSION: &str = "1";

/// The top table of a file, if the file can be read any further: it is TOML, not empty, and of a known version.
pub(crate) fn open<'d, 'i>(text: &'i str, findings: &'d Findings) -> Option<Table<'d, 'i>> {
    const ADD: &str = "start the file with version = 1";
    let root = syntax::parse(text, findings)?;
    if root.is_empty() {
        if findings.len() == 0 {
            findings.add(Problem::error(0..0, "the file is empty, or not written yet").help(ADD));
        }
        return None;
    }
    let mut table = Table { span: 0..0, entries: root, accepted: Vec::new(), findings };
    match table.take("version") {
        None => findings.add(
            Problem::error(0..0, "\"version\" is missing: a file without it may be half written").help(ADD),
        ),
        Some(version) => match &version.inner {
            DeValue::Integer(number) if number.radix() == 10 && number.as_str() == VERSION => {}
            DeValue::Integer(_) => {
                version.report(version.problem("this version of the format is not known").accepted(VERSION));
                return None;
            }
            _ => version.mismatch("the integer 1"),
        },
    }
    Some(table)
}

/// A table whose keys are being taken out of it.
pub(crate) struct Table<'d, 'i> {
    /// Where it starts: its header, its braces, or its key.
    pub(crate) span: Range<usize>,
    entries: DeTable<'i>,
    accepted: Vec<&'static str>,
    pub(crate) findings: &'d Findings,
}

impl<'d, 'i> Table<'d, 'i> {
    /// Takes the value of a key, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value<'d, 'i>> {
        self.accepted.push(key);
        self.remove(key)
    }

    /// Takes the value of a key and reads it; `default` if it is not there, or not as it should be.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'d, 'i>) -> Option<T>,
    ) -> T {
        self.take(key).and_then(|value| read(&value)).unwrap_or(default)
    }

    /// Takes a table; an empty one if it is not there.
    pub(crate) fn section(&mut self, key: &'static str) -> Table<'d, 'i> {
        self.take(key).and_then(Value::into_table).unwrap_or_else(|| Table {
            span: self.span.clone(),
            entries: DeTable::new(),
            accepted: Vec::new(),
            findings: self.findings,
        })
    }

    /// Takes everything that is left, whatever the keys.
    pub(crate) fn entries(self) -> impl Iterator<Item = Value<'d, 'i>> {
        let findings = self.findings;
        self.entries.into_iter().map(move |(key, value)| Value {
            key: (key.get_ref().to_string(), key.span()),
            span: value.span(),
            inner: value.into_inner(),
            findings,
        })
    }

    /// Hashes of the paths of all keys in the table and below it, such as `projects.p.webhooks.ops.url`.
    pub(crate) fn key_hashes(&self) -> Vec<u64> {
        let mut hashes = Vec::new();
        key_hashes(&self.entries, &DefaultHasher::new(), &mut hashes);
        hashes
    }

    /// Keeps the values of all keys that have not been taken from being shown.
    pub(crate) fn mask(&self) {
        for value in self.entries.values() {
            mask(value.get_ref(), &value.span(), self.findings);
        }
    }

    /// How many keys have not been taken.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reports that a key is not there.
    pub(crate) fn missing(&self, key: &str, accepted: &str) {
        let problem = Problem::error(self.span.clone(), format!("{} is missing", quote(key)));
        self.findings.add(problem.accepted(accepted));
    }

    /// Reports every key that was not taken.
    pub(crate) fn finish(mut self) {
        let accepted = std::mem::take(&mut self.accepted);
        let findings = self.findings;
        for value in self.entries() {
            let (name, span) = &value.key;
            let nearest = aquarium_event::nearest(name, accepted.iter().copied());
            // A misspelt secret is one all the same.
            if !nearest.is_some_and(syntax::is_harmless) {
                value.mask();
            }
            findings.add(
                Problem::error(span.clone(), format!("unknown key {}", quote(name)))
                    .suggestion(nearest)
                    .accepted(accepted.join(", ")),
            );
        }
    }

    fn remove(&mut self, key: &str) -> Option<Value<'d, 'i>> {
        let (name, value) = self.entries.remove_entry(key)?;
        Some(Value {
            key: (key.to_owned(), name.span()),
            span: value.span(),
            inner: value.into_inner(),
            findings: self.findings,
        })
    }
}

/// A value, and where it stands.
pub(crate) struct Value<'d, 'i> {
    /// The key that it was found under, and where that is.
    pub(crate) key: (String, Range<usize>),
    pub(crate) span: Range<usize>,
    pub(crate) inner: DeValue<'i>,
    pub(crate) findings: &'d Findings,
}

impl<'d, 'i> Value<'d, 'i> {
    /// An error about this value.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::error(self.span.clone(), message)
    }

    /// A warning about this value.
    pub(crate) fn warning(&self, message: impl Into<String>) -> Problem {
        Problem::warning(self.span.clone(), message)
    }

    pub(crate) fn report(&self, problem: Problem) {
        self.findings.add(problem);
    }

    /// Reports that the value is of another type than it should be.
    pub(crate) fn mismatch(&self, wanted: &str) {
        let found = self.inner.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.report(self.problem(format!("{} must be {wanted}, not {article} {found}", quote(&self.key.0))));
    }

    /// The text, if it is a string.
    pub(crate) fn text(&self, wanted: &str) -> Option<&str> {
        let text = self.inner.as_str();
        if text.is_none() {
            self.mismatch(wanted);
        }
        text
    }

    /// The flag, if it is a boolean.
    pub(crate) fn flag(&self) -> Option<bool> {
        let flag = self.inner.as_bool();
        if flag.is_none() {
            self.mismatch("true or false");
        }
        flag
    }

    /// The items, if it is an array. They go by the key of the array.
    pub(crate) fn items(self, wanted: &str) -> Option<Vec<Value<'d, 'i>>> {
        let DeValue::Array(array) = self.inner else {
            self.mismatch(wanted);
            return None;
        };
        let items = array.into_iter().map(|item| Value {
            key: self.key.clone(),
            span: item.span(),
            inner: item.into_inner(),
            findings: self.findings,
        });
        Some(items.collect())
    }

    /// The table, if it is one.
    pub(crate) fn into_table(self) -> Option<Table<'d, 'i>> {
        let DeValue::Table(entries) = self.inner else {
            self.mismatch("a table");
            self.mask();
            return None;
        };
        Some(Table { span: self.span, entries, accepted: Vec::new(), findings: self.findings })
    }

    /// Keeps everything in the value from being shown.
    pub(crate) fn mask(&self) {
        mask(&self.inner, &self.span, self.findings);
    }
}

fn key_hashes(table: &DeTable<'_>, parent: &DefaultHasher, hashes: &mut Vec<u64>) {
    for (key, value) in table {
        let mut path = parent.clone();
        key.get_ref().hash(&mut path);
        hashes.push(path.finish());
        if let DeValue::Table(below) = value.get_ref() {
            key_hashes(below, &path, hashes);
        }
    }
}

fn mask(value: &DeValue<'_>, span: &Range<usize>, findings: &Findings) {
    match value {
        // The span of a table may be its header only: what must not be shown is in its values.
        DeValue::Table(table) => {
            table.values().for_each(|value| mask(value.get_ref(), &value.span(), findings));
        }
        DeValue::Array(items) => {
            items.iter().for_each(|item| mask(item.get_ref(), &item.span(), findings));
        }
        _ => findings.mask(span.clone()),
    }
}
