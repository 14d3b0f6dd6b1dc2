//! How fast a body has to come. A decision about times and sizes alone: what waits is [`super::bodies`].
//!
//! A body that does not come keeps a connection, and memory for what has come of it. So in each window of time a certain
//! number of bytes has to come, or the end. The window is short while others wait for the memory that the body holds.

use std::time::Duration;

use tokio::time::Instant;

/// What has to come in a window, in bytes, unless the body ends in it.
pub(super) const LEAST: usize = 32 * 1024;
/// The window, as long as no other body waits for memory.
pub(super) const PATIENT: Duration = Duration::from_secs(5);
/// The window while another one does.
pub(super) const CONTENDED: Duration = Duration::from_millis(250);
/// The longest that a body may take in all.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// How a body has come so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    began: Instant,
    window: Instant,
    came: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, window: now, came: 0 }
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.came += bytes;
        if self.came >= LEAST {
            (self.window, self.came) = (now, 0);
        }
    }

    /// The body was not read since `paused`, which is not its sender's fault.
    pub(super) fn resumed(&mut self, paused: Instant, now: Instant) {
        self.began += now - paused;
        (self.window, self.came) = (now, 0);
    }

    /// When it is too slow, if nothing more comes until then.
    pub(super) fn deadline(&self, contended: bool) -> Instant {
        let window = if contended { CONTENDED } else { PATIENT };
        (self.window + window).min(self.began + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a body of which these pieces come, each so long after its beginning, is too slow.
    fn slow_after(pieces: &[(Duration, usize)], contended: bool) -> Duration {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for (after, bytes) in pieces {
            let now = began + *after;
            if now >= pace.deadline(contended) {
                break;
            }
            pace.came(*bytes, now);
        }
        pace.deadline(contended) - began
    }

    #[test]
    fn each_window_wants_its_bytes() {
        let every = |interval: Duration, bytes: usize| -> Vec<_> {
            (1..10_000).map(|number| (interval * number, bytes)).collect()
        };
        for (name, pieces, patient, contended) in [
            ("nothing", vec![], PATIENT, CONTENDED),
            ("a byte", vec![(SECOND / 10, 1)], PATIENT, CONTENDED),
            ("drops", every(SECOND / 100, 1), PATIENT, CONTENDED),
            (
                "much at once, then nothing",
                vec![(SECOND / 10, 16 << 20)],
                PATIENT + SECOND / 10,
                SECOND * 35 / 100,
            ),
            ("just enough for patience", every(SECOND * 4, LEAST), LONGEST, CONTENDED),
            ("just enough", every(SECOND / 5, LEAST), LONGEST, LONGEST),
            ("just not enough", every(SECOND * 5, LEAST), PATIENT, CONTENDED),
            (
                "slower and slower",
                vec![(SECOND / 10, LEAST), (SECOND * 3, LEAST)],
                SECOND * 8,
                SECOND * 35 / 100,
            ),
        ] {
            assert_eq!(slow_after(&pieces, false), patient, "{name}");
            assert_eq!(slow_after(&pieces, true), contended, "{name}, while others wait");
        }
    }

    #[test]
    fn the_time_in_which_it_is_not_read_does_not_count() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.came(1, began + SECOND);
        pace.resumed(began + SECOND, began + 4 * SECOND);
        assert_eq!(pace.deadline(false), began + 4 * SECOND + PATIENT);
        for number in 1_u32..40 {
            pace.came(LEAST, began + 4 * SECOND + number * SECOND);
        }
        assert_eq!(pace.deadline(false), began + 3 * SECOND + LONGEST);
    }
}
