//! Reading points in time: RFC 3339, section 5.6.

use aquarium_delivery::Timestamp;

/// A text that is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time in RFC 3339 is expected, such as 2026-11-23T12:00:00Z")]
pub(super) struct NotATime;

const DAY: i64 = 24 * 60 * 60;

/// Reads `2026-11-23T12:00:00.123Z`, also with an offset. What lies before 1970 becomes its beginning.
pub(super) fn parse(text: &str) -> Result<Timestamp, NotATime> {
    read(text.as_bytes()).ok_or(NotATime)
}

fn read(text: &[u8]) -> Option<Timestamp> {
    let [y, m, d, hours, minutes, seconds] =
        [0..4, 5..7, 8..10, 11..13, 14..16, 17..19].map(|range| text.get(range).and_then(digits));
    let (year, month, day) = (y?, m?, d?);
    let (hour, minute, second) = (hours?, minutes?, seconds?);
    let separators =
        [text[4], text[7], text[13], text[16]] == *b"--::" && matches!(text[10], b'T' | b't' | b' ');
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    // Second 60 is a leap second: as good as the next one.
    if !separators || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let places = fraction[..length].iter().copied().chain([b'0'; 3]).take(3);
        millis = places.fold(0, |millis, digit| millis * 10 + i64::from(digit - b'0'));
        rest = fraction.get(length..).filter(|_| length > 0)?;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 5 && offset[2] == b':' => {
            let (hours, minutes) = (digits(&offset[..2])?, digits(&offset[3..])?);
            let seconds = (hours * 60 + minutes) * 60;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days_since_1970(year, month, day) * DAY + (hour * 60 + minute) * 60 + second - offset;
    Some(Timestamp::from_millis(u64::try_from(seconds * 1_000 + millis).unwrap_or(0)))
}

fn digits(text: &[u8]) -> Option<i64> {
    let value = |value: i64, digit: &u8| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'));
    text.iter().try_fold(0, value)
}

/// Of the Gregorian calendar. A year is counted from March here, so that a leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for millis in [0, 951_782_400_123, 1_700_000_000_999, 4_107_542_399_000, 253_402_300_799_999] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(parse(&time.to_string()), Ok(time));
        }
    }

    #[test]
    fn offsets_and_fractions_are_understood() {
        for (text, printed) in [
            ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00.000Z"),
            ("2026-11-23t12:00:00.5z", "2026-11-23T12:00:00.500Z"),
            ("2026-11-23 12:00:00.1239+02:00", "2026-11-23T10:00:00.123Z"),
            ("2024-02-29T23:30:00-01:30", "2024-03-01T01:00:00.000Z"),
            ("1999-12-31T23:59:60Z", "2000-01-01T00:00:00.000Z"),
            ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00.000Z"),
            ("0000-01-01T00:00:00+23:59", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(parse(text).map(|time| time.to_string()).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-23",
            "2026-11-23T12:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T12:00:00.Z",
            "2026-11-23T12:00:00+2:00",
            "2026-11-23T12:00:00Zz",
            "2026/11/23T12:00:00Z",
            "2026-11-23T12:00:00+24:00",
            "+026-11-23T12:00:00Z",
        ] {
            assert_eq!(parse(text), Err(NotATime), "{text}");
        }
    }
}
