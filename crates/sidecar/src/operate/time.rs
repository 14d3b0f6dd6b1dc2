//! Times as people write and read them.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A point in time, as it is given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Ago(Duration),
    At(SystemTime),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at = humantime::parse_rfc3339_weak(text);
        at.map(Self::At).map_err(|_| {
            "it is neither a time, such as 2026-11-23T08:00:00Z, nor how long ago, such as 2h or 30m"
                .to_owned()
        })
    }
}

impl When {
    /// The time in RFC 3339.
    pub(crate) fn from(self, now: SystemTime) -> String {
        let at = match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            Self::At(at) => at,
        };
        // What is further back than anything can be: all of it.
        let at = at.max(SystemTime::UNIX_EPOCH);
        humantime::format_rfc3339_millis(at).to_string()
    }
}

/// How far a time in RFC 3339 is from now: `12s ago`, `in 5m`. The text itself if it is no time.
pub(crate) fn relative(text: &str, now: SystemTime) -> String {
    let Ok(at) = humantime::parse_rfc3339_weak(text) else { return text.to_owned() };
    match now.duration_since(at) {
        Ok(ago) if ago < Duration::from_secs(1) => "now".to_owned(),
        Ok(ago) => format!("{} ago", coarse(ago)),
        Err(ahead) => format!("in {}", coarse(ahead.duration())),
    }
}

/// A duration in its largest unit, rounded down: `59s`, `2m`, `3h`, `10d`.
fn coarse(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-11-23T12:00:00Z").unwrap()
    }

    #[test]
    fn a_time_is_given_as_such_or_as_how_long_ago() {
        for (text, expected) in [
            ("2h", "2026-11-23T10:00:00.000Z"),
            ("1d 30m", "2026-11-22T11:30:00.000Z"),
            ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00.000Z"),
            ("2026-11-20 08:00:00", "2026-11-20T08:00:00.000Z"),
            ("999999y", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(text.parse::<When>().map(|when| when.from(now())), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "2", "2026-13-01T00:00:00Z", "-2h"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn how_far_a_time_is_from_now_is_told_in_one_unit() {
        for (text, expected) in [
            ("2026-11-23T12:00:00Z", "now"),
            ("2026-11-23T11:59:01Z", "59s ago"),
            ("2026-11-23T11:00:01Z", "59m ago"),
            ("2026-11-21T12:00:01Z", "47h ago"),
            ("2026-11-13T12:00:00Z", "10d ago"),
            ("2026-11-23T12:05:10Z", "in 5m"),
            ("never", "never"),
        ] {
            assert_eq!(relative(text, now()), expected, "{text}");
        }
    }
}
