//! What a process writes to stderr, line by line.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many lines are kept.
const MAX_LINES: usize = 10_000;
/// How long to wait for what was written by a process that has ended. It may have left children with its stderr.
const END: Duration = Duration::from_secs(1);

/// The last lines of a stream, which are collected until it ends or this is dropped.
#[derive(Debug)]
pub(super) struct Log {
    lines: Arc<Mutex<Lines>>,
    /// Changes with each line. The reader holds the other end.
    changed: watch::Receiver<()>,
    _reader: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    forgotten: usize,
}

impl Log {
    pub(super) fn of(stream: impl AsyncRead + Unpin + Send + 'static) -> Log {
        let lines = Arc::<Mutex<Lines>>::default();
        let (change, changed) = watch::channel(());
        let mut reader = JoinSet::new();
        reader.spawn(read(stream, Arc::clone(&lines), change));
        Log { lines, changed, _reader: reader }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        lock(&self.lines).kept.iter().cloned().collect()
    }

    /// The first line of this kind, once there is one.
    pub(super) async fn find(&self, wanted: impl Fn(&str) -> bool, within: Duration) -> Option<String> {
        let mut changed = self.changed.clone();
        let mut seen = 0;
        let looking = async {
            loop {
                changed.mark_unchanged();
                if let Some(line) = lock(&self.lines).find_after(&mut seen, &wanted) {
                    return line;
                }
                if changed.changed().await.is_err() {
                    // The stream has ended without it.
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(within, looking).await.ok()
    }

    /// Waits until the stream has ended.
    pub(super) async fn end(&self) {
        let mut changed = self.changed.clone();
        let ended = async { while changed.changed().await.is_ok() {} };
        // Over time, what there is has to do.
        let _ = timeout(END, ended).await;
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Lines {
    fn push(&mut self, line: String) {
        if self.kept.len() == MAX_LINES {
            self.kept.pop_front();
            self.forgotten += 1;
        }
        self.kept.push_back(line);
    }

    /// The first line of this kind, of those that were not seen yet.
    fn find_after(&self, seen: &mut usize, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut unseen = self.kept.iter().skip(seen.saturating_sub(self.forgotten));
        let found = unseen.find(|line| wanted(line)).cloned();
        *seen = self.forgotten + self.kept.len();
        found
    }
}

async fn read(stream: impl AsyncRead + Unpin, lines: Arc<Mutex<Lines>>, change: watch::Sender<()>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        lock(&lines).push(without_colours(text.trim_end()));
        change.send_replace(());
        line.clear();
    }
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text without ANSI escape sequences: ESC, `[`, and what follows up to a letter.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or("");
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_found_without_colours_and_the_oldest_are_forgotten() {
        let text = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m ready\n".to_owned()
            + &"more\n".repeat(MAX_LINES);
        let log = Log::of(std::io::Cursor::new(text));
        log.end().await;
        assert_eq!(log.lines().len(), MAX_LINES);
        assert_eq!(log.find(|line| line.contains("ready"), Duration::ZERO).await, None);

        let log = Log::of(std::io::Cursor::new("\u{1b}[2m12:00\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m ready"));
        assert_eq!(log.find(|line| line.contains("ready"), END).await.as_deref(), Some("12:00  INFO ready"));
    }
}
