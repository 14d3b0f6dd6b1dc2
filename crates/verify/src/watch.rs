//! Secrets and keys from a file that is followed: feature `watch`.

use std::fmt;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::load::{self, LoadError};
use crate::{Secrets, Verifier};

/// How often a file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

impl Verifier {
    /// A verifier with the secrets of a file, as [`Secrets::from_file`] reads them, which takes over what is changed
    /// there: a rotation needs no restart.
    ///
    /// A thread reads the file once a second. That sees every way in which a file changes, on network file systems and
    /// on what Kubernetes mounts too (mount the directory: a file mounted by `subPath` never changes). What it reads is
    /// taken over when it is good, and the same twice in a row: a change counts after one to two seconds, and a file that
    /// is just being written does not. While the file is missing, empty or cannot be used, the secrets of before stay.
    ///
    /// Only who wrote a part of the file and died leaves something that may look like a whole one: write another file
    /// and rename it.
    ///
    /// `tell` learns of each change, once, on that thread; it is the place to log it. Nothing it is told holds a secret.
    /// The thread ends when [`Following`] is dropped; the verifier goes on with the secrets it has.
    ///
    /// ```
    /// use aquarium_verify::Verifier;
    /// # let path = std::env::temp_dir().join(format!("aquarium-verify-{}", std::process::id()));
    /// # std::fs::write(&path, "the-new-secret-of-acme\n")?;
    ///
    /// let (verifier, _following) = Verifier::follow_file(&path, |change| eprintln!("{change}"))?;
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As those of [`Secrets::from_file`]; or it is not a regular file. Who starts without secrets would reject
    /// everything.
    pub fn follow_file(
        path: impl Into<PathBuf>,
        tell: impl FnMut(Change) + Send + 'static,
    ) -> Result<(Verifier, Following), LoadError> {
        follow(path.into(), INTERVAL, Secrets::parse, Verifier::new, Verifier::replace, tell)
    }
}

#[cfg(feature = "signature")]
impl crate::signature::Verifier {
    /// A verifier with the keys of a file, as [`Keys::from_file`](crate::signature::Keys::from_file) reads them, which
    /// takes over what is changed there. It is followed as [`Verifier::follow_file`](crate::Verifier::follow_file) says.
    ///
    /// # Errors
    /// As those of [`Keys::from_file`](crate::signature::Keys::from_file); or it is not a regular file.
    pub fn follow_file(
        path: impl Into<PathBuf>,
        tell: impl FnMut(Change) + Send + 'static,
    ) -> Result<(Self, Following), LoadError> {
        follow(path.into(), INTERVAL, crate::signature::Keys::parse, Self::new, Self::replace, tell)
    }
}

/// What became of a file that is followed. It repeats nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// What is in the file now is accepted from now on, and nothing else.
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file cannot be used, or the file cannot be read: what was accepted before still is.
    Kept(LoadError),
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Replaced { path } => write!(f, "{}: it has changed, and is in use now", path.display()),
            Change::Kept(error) => write!(f, "{error}; what was accepted before still is"),
        }
    }
}

/// Follows a file until it is dropped, which waits for a look that is being taken to end. Keep it in a variable with a
/// name: `_` drops it at once.
#[must_use = "dropped, it ends the following of the file"]
#[derive(Debug)]
pub struct Following {
    /// Dropped, it wakes the thread to end.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // It does not panic, and if it did nothing could be done about it here.
            let _ = thread.join();
        }
    }
}

/// Makes something of what is in a file, and has it replaced as the file changes.
fn follow<T, E, V>(
    path: PathBuf,
    interval: Duration,
    parse: fn(&str) -> Result<T, E>,
    make: fn(T) -> V,
    replace: fn(&V, T),
    mut tell: impl FnMut(Change) + Send + 'static,
) -> Result<(V, Following), LoadError>
where
    T: 'static,
    E: Display + 'static,
    V: Clone + Send + 'static,
{
    let (seen, value) = look(&path, parse);
    let made = make(value?);
    let handle = made.clone();
    let mut looks = Looks::after(seen);
    let (stop, stopped) = mpsc::channel();
    let spawned = thread::Builder::new().name("follow-file".to_owned()).spawn({
        let path = path.clone();
        move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let (seen, value) = look(&path, parse);
                if !looks.settle(seen) {
                    continue;
                }
                let change = match value {
                    Ok(value) => {
                        replace(&handle, value);
                        Change::Replaced { path: path.clone() }
                    }
                    Err(error) => Change::Kept(error),
                };
                // Who cannot be told must not end the following.
                let _ = catch_unwind(AssertUnwindSafe(|| tell(change)));
            }
        }
    });
    let thread = spawned.map_err(|error| LoadError::in_file(&path, error))?;
    Ok((made, Following { stop: Some(stop), thread: Some(thread) }))
}

/// What was seen at one look: the hash of the text, or why there is none.
type Seen = Result<[u8; 32], LoadError>;

fn look<T, E: Display>(path: &Path, parse: fn(&str) -> Result<T, E>) -> (Seen, Result<T, LoadError>) {
    match regular(path).and_then(|()| load::read(path)) {
        Ok(text) => {
            let value = parse(&text).map_err(|error| LoadError::in_file(path, error));
            (Ok(Sha256::digest(text.as_bytes()).into()), value)
        }
        Err(error) => (Err(error.clone()), Err(error)),
    }
}

/// A pipe or a device would keep the reader waiting, and has other bytes each time.
fn regular(path: &Path) -> Result<(), LoadError> {
    let metadata = std::fs::metadata(path).map_err(|error| LoadError::in_file(path, error))?;
    if metadata.is_file() { Ok(()) } else { Err(LoadError::in_file(path, "it is not a regular file")) }
}

/// Which looks say that a file has changed.
struct Looks {
    /// What was acted upon.
    settled: Seen,
    /// What the last look saw.
    last: Seen,
}

impl Looks {
    fn after(seen: Seen) -> Looks {
        Looks { settled: seen.clone(), last: seen }
    }

    /// Whether this is to be acted upon: it was seen twice in a row, and differs from what was acted upon last.
    fn settle(&mut self, seen: Seen) -> bool {
        let twice = self.last == seen;
        self.last = seen;
        if !twice || self.settled == self.last {
            return false;
        }
        self.settled = self.last.clone();
        true
    }
}

#[cfg(test)]
mod tests;
