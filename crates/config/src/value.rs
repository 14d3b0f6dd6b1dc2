//! Reads single values: durations, sizes, numbers. What is out of bounds is refused with the bounds.

use std::time::Duration;

use aquarium_delivery::{Per, Rate};
use bytesize::ByteSize;
use toml::de::DeValue;

use crate::diagnostic::quote;
use crate::document::Value;

/// The least and the greatest value that are accepted, and how to say so.
pub(crate) struct Bounds<T> {
    pub(crate) least: T,
    pub(crate) greatest: T,
    pub(crate) accepted: &'static str,
}

impl<T: PartialOrd> Bounds<T> {
    /// The number, if it is within the bounds.
    fn check(&self, number: T, value: &Value<'_, '_>) -> Option<T> {
        let fits = self.least <= number && number <= self.greatest;
        if !fits {
            let message = format!("{} is out of bounds", quote(&value.key.0));
            value.report(value.problem(message).accepted(self.accepted));
        }
        fits.then_some(number)
    }
}

/// A text; or a report of a number that lacks its unit, or of another type.
fn with_unit<'v>(value: &'v Value<'_, '_>, wanted: &str, unit: &str, accepted: &str) -> Option<&'v str> {
    let digits = match &value.inner {
        DeValue::String(text) if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => {
            return Some(text);
        }
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        _ => {
            value.mismatch(wanted);
            return None;
        }
    };
    let problem = value.problem(format!("{} needs a unit", quote(&value.key.0)));
    let short = digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit());
    value.report(problem.suggestion(short.then(|| format!("{digits}{unit}"))).accepted(accepted));
    None
}

/// A duration such as `15s` or `1h 30m`.
pub(crate) fn duration(value: &Value<'_, '_>, bounds: &Bounds<Duration>) -> Option<Duration> {
    let text = with_unit(value, "a duration such as \"15s\"", "s", bounds.accepted)?;
    match humantime::parse_duration(text) {
        Ok(duration) => bounds.check(duration, value),
        Err(_) => {
            let message = format!("{} is not a duration", quote(text));
            value.report(
                value.problem(message).accepted("numbers with a unit, such as \"15s\" or \"1h 30m\""),
            );
            None
        }
    }
}

/// A number of bytes such as `1MiB`.
pub(crate) fn size(value: &Value<'_, '_>, bounds: &Bounds<u64>) -> Option<u64> {
    let text = with_unit(value, "a size such as \"1MiB\"", "B", bounds.accepted)?;
    match text.parse::<ByteSize>() {
        Ok(size) => bounds.check(size.as_u64(), value),
        Err(_) => {
            let message = format!("{} is not a size", quote(text));
            value.report(
                value.problem(message).accepted("a number with a unit, such as \"64KiB\" or \"1.5GiB\""),
            );
            None
        }
    }
}

/// A number of attempts for a time such as `50/s`; `none` is no limit.
pub(crate) fn rate(value: &Value<'_, '_>) -> Option<Option<Rate>> {
    const ACCEPTED: &str =
        "1 to 1000000 for each second, minute or hour, such as \"50/s\", \"300/m\", \"1000/h\"; \"none\"";
    let text = with_unit(value, "a rate such as \"50/s\"", "/s", ACCEPTED)?;
    if text == "none" {
        return Some(None);
    }
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let (number, unit) = (number.trim(), unit.trim());
    let per = Per::ALL.into_iter().find(|per| per.as_str() == unit);
    if let (Some(per), Ok(number @ 1..=1_000_000)) = (per, number.parse()) {
        return Some(Some(Rate::new(number, per)));
    }
    let message = match per {
        Some(_) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{} is out of bounds", quote(&value.key.0))
        }
        _ => format!("{} is not a rate", quote(text)),
    };
    // `50/sec`, `50/minute`: the letter is what counts.
    let meant = Per::ALL.into_iter().find(|per| unit.to_lowercase().starts_with(per.as_str()));
    let meant =
        meant.filter(|_| per.is_none() && number.parse::<u32>().is_ok_and(|n| (1..=1_000_000).contains(&n)));
    let suggestion = meant.map(|per| format!("{number}/{}", per.as_str()));
    value.report(value.problem(message).suggestion(suggestion).accepted(ACCEPTED));
    None
}

/// A whole number.
pub(crate) fn integer(value: &Value<'_, '_>, bounds: &Bounds<i64>) -> Option<i64> {
    let DeValue::Integer(number) = &value.inner else {
        value.mismatch("an integer");
        return None;
    };
    // A number too large to be read is out of any bounds.
    bounds.check(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX), value)
}

/// A number from 0 to 1, which may be written as an integer.
pub(crate) fn fraction(value: &Value<'_, '_>) -> Option<f64> {
    const BOUNDS: Bounds<f64> = Bounds { least: 0.0, greatest: 1.0, accepted: "a number from 0 to 1" };
    let number = match &value.inner {
        DeValue::Float(number) => number.as_str().parse(),
        DeValue::Integer(number) => Ok(i64::from_str_radix(number.as_str(), number.radix())
            .map_or(f64::INFINITY, |number| number as f64)),
        _ => {
            value.mismatch("a number from 0 to 1");
            return None;
        }
    };
    // What is no number is in no bounds either.
    BOUNDS.check(number.unwrap_or(f64::NAN), value)
}

/// One of a few words.
pub(crate) fn word<T: Copy>(value: &Value<'_, '_>, words: &[(&str, Option<T>)]) -> Option<T> {
    let text = value.text("a string")?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, Some(meaning))) => Some(*meaning),
        Some((_, None)) => {
            let message = format!("{} {} is not available yet in this version", value.key.0, quote(text));
            value.report(value.problem(message).accepted(available(words)));
            None
        }
        None => {
            let message = format!("unknown {} {}", value.key.0, quote(text));
            value.report(value.problem(message).accepted(available(words)));
            None
        }
    }
}

fn available<T>(words: &[(&str, Option<T>)]) -> String {
    let available = words.iter().filter(|(_, meaning)| meaning.is_some());
    available.map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}
