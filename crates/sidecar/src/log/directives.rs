//! What a log filter may be: checked before tracing-subscriber sees it, which takes an unknown word for the name of a
//! module and then logs nothing else, and compiles patterns of fields to regular expressions of any size.

use std::fmt;
use std::str::FromStr;

use aquarium_event::nearest;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The most bytes of a filter.
const MAX_LENGTH: usize = 1024;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// What other programs call levels.
const ALIASES: [(&str, &str); 8] = [
    ("warning", "warn"),
    ("err", "error"),
    ("critical", "error"),
    ("fatal", "error"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
];

/// A filter of log lines: a level, levels of modules, or both, such as `info,aquarium_dispatch=debug`.
///
/// A module's level may be that of its spans alone, by their name or fields: `aquarium_sidecar[request]=debug`. Values of
/// fields are compared as they are. Where only modules have a level, errors of all others are still logged; `off` leaves
/// them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directives(String);

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFilter {
    #[error("a log filter has at most {MAX_LENGTH} bytes, this one has {0}")]
    TooLong(usize),
    #[error("it is empty; {ACCEPTED}")]
    Empty,
    #[error("{at}{word:?} is not a level; {hint}{ACCEPTED}")]
    Level { at: String, word: String, hint: String },
    #[error("{0:?} is not a module with its level; {ACCEPTED}")]
    Directive(String),
}

const ACCEPTED: &str = "accepted: off, error, warn, info, debug or trace, and modules with a level of their own, such as \
                        \"info,aquarium_dispatch=debug\"";

impl Directives {
    /// What is logged if nothing is said.
    pub(crate) const DEFAULT: &str = "info";

    /// The filter that a command line or variable gives. An empty one is the default: that is how a variable is often left.
    pub(crate) fn or_default(text: &str) -> Result<Directives, InvalidFilter> {
        if text.trim().is_empty() { Self::DEFAULT.parse() } else { text.parse() }
    }

    /// What tracing-subscriber makes of it.
    pub(super) fn filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        EnvFilter::builder().with_regex(false).parse(&self.0)
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Directives {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Directives, InvalidFilter> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidFilter::TooLong(text.len()));
        }
        let directives: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if directives.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        let mut for_all = false;
        for directive in &directives {
            for_all |= check(directive)?;
        }
        let rest = if for_all { "" } else { "error," };
        let directives = Directives(format!("{rest}{}", directives.join(",")));
        // What is left are spans and fields that are not written as they should be.
        match directives.filter() {
            Ok(_) => Ok(directives),
            Err(_) => Err(wrong(text)),
        }
    }
}

/// Whether a directive is a level for everything. Otherwise it is a module, or a span, with its level.
fn check(directive: &str) -> Result<bool, InvalidFilter> {
    let (module, span, level) = match directive.split_once('[') {
        Some((module, rest)) => {
            let (span, level) = rest.rsplit_once(']').ok_or_else(|| wrong(directive))?;
            (module, Some(span), level.strip_prefix('=').ok_or_else(|| wrong(directive))?)
        }
        None => match directive.split_once('=') {
            Some((module, level)) => (module, None, level),
            None => return self::level(directive, "").map(|()| true),
        },
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
    let named = module.chars().all(word) && !(module.is_empty() && span.is_none());
    let plain = span.is_none_or(|span| !span.is_empty() && !span.contains(char::is_control));
    if !named || !plain {
        return Err(wrong(directive));
    }
    self::level(level, &format!("{:?}: ", shown(directive))).map(|()| false)
}

fn wrong(directive: &str) -> InvalidFilter {
    InvalidFilter::Directive(shown(directive))
}

/// Checks a level; `at` begins what is said of it.
fn level(word: &str, at: &str) -> Result<(), InvalidFilter> {
    let lower = word.to_ascii_lowercase();
    if LEVELS.contains(&&*lower) && word.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, level)| *level);
    let hint = match alias.or_else(|| nearest(&lower, LEVELS)) {
        Some(level) => format!("did you mean {level:?}? "),
        None if lower.starts_with("aquarium") || lower.contains("::") => {
            format!("did you mean {:?}? ", format!("{}=debug", shown(word)))
        }
        None => String::new(),
    };
    Err(InvalidFilter::Level { at: at.to_owned(), word: shown(word), hint })
}

/// The beginning of what was written, for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        text.parse::<Directives>().map(|directives| directives.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_filter_has_levels_and_modules_with_levels() {
        for text in [
            "info",
            "off",
            "TRACE",
            "info,aquarium_dispatch=debug",
            "warn,hyper=off,aquarium_egress::pool=trace",
            "info,[request{id=abc}]=debug",
            "info,aquarium_sidecar[request]=debug",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
            assert!(text.parse::<Directives>().unwrap().filter().is_ok(), "{text}");
        }
        assert_eq!(parse(" info , aquarium_dispatch=debug,").as_deref(), Ok("info,aquarium_dispatch=debug"));
        assert_eq!(parse("aquarium_dispatch=debug").as_deref(), Ok("error,aquarium_dispatch=debug"));
        for empty in ["", " ", "\t\n"] {
            assert_eq!(Directives::or_default(empty).unwrap().to_string(), "info");
            assert_eq!(empty.parse::<Directives>(), Err(InvalidFilter::Empty));
        }
    }

    #[test]
    fn what_would_silence_everything_is_refused_with_what_was_probably_meant() {
        for (text, said) in [
            ("warning", "\"warning\" is not a level; did you mean \"warn\"? accepted: off, error, "),
            ("inf", "\"inf\" is not a level; did you mean \"info\"? "),
            ("verbose", "\"verbose\" is not a level; did you mean \"debug\"? "),
            ("9", "\"9\" is not a level; accepted: "),
            ("3", "\"3\" is not a level; accepted: "),
            ("info debug", "\"info debug\" is not a level; "),
            ("aquarium_dispatch", "did you mean \"aquarium_dispatch=debug\"?"),
            ("aquarium_dispatch=", "\"\" is not a level; "),
            ("aquarium_dispatch=warning", "\"warning\" is not a level; did you mean \"warn\"?"),
            ("aquarium_dispatch=info=debug", "\"info=debug\" is not a level"),
            (
                "info;aquarium_dispatch=debug",
                "\"info;aquarium_dispatch=debug\" is not a module with its level",
            ),
            ("=debug", "\"=debug\" is not a module with its level"),
            ("[request", "\"[request\" is not a module with its level"),
            ("[request]", "\"[request]\" is not a module with its level"),
            ("[]=info", "\"[]=info\" is not a module with its level"),
            ("in\u{1b}[31mfo", "is not a module with its level"),
            ("[send{a=b{c=d}]=trace}]=trace", "is not a module with its level"),
            ("f\0r::x", "did you mean \"f\\0r::x=debug\"?"),
            (",,", "it is empty; accepted: "),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(said), "{text:?}: {refused}");
            assert!(!refused.contains(char::is_control) && refused.len() < 400, "{refused}");
        }
        let long = "info,".repeat(300);
        assert_eq!(parse(&long), Err("a log filter has at most 1024 bytes, this one has 1500".to_owned()));
    }

    /// A pattern that took 18 s and 826 MiB to compile as a regular expression.
    #[test]
    fn no_filter_is_compiled_to_a_regular_expression() {
        for text in [
            r"info,[x{y=(((((a{1000}){1000}){1000}){1000}){1000})}]=debug",
            r"info,[x{y=\w{999}\w{999}\w{999}\w{999}}]=debug",
            r"info,[x{y=[^a]{65535}(((b*)*)*)*$}]=debug",
        ] {
            let started = Instant::now();
            let directives = text.parse::<Directives>();
            let taken = directives.is_ok_and(|directives| directives.filter().is_ok());
            assert!(started.elapsed() < Duration::from_secs(5), "{text} ({taken})");
        }
    }
}
