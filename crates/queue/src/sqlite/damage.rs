//! A damaged file is an outage that lasts: nothing in this process can mend it.
//!
//! Whatever thread meets with damage tells the others here, and the log once. From then on nothing is read from the file or
//! written to it: a write could make worse what may still be saved, and what is sent without being recorded is sent again
//! after the repair. The operator's way back is `queue recover`, or a back-up, and a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::ErrorCode;
use tracing::error;

use super::OpenError;
use crate::{Error, Observe, OutageReason};

/// Whether the file was found to be damaged. Clones are told together.
#[derive(Debug, Clone)]
pub(super) struct Damage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    observer: Arc<dyn Observe>,
    found: OnceLock<Arc<str>>,
    /// Held while the observer is called, so that the last call is the one that counts.
    telling: Mutex<()>,
}

impl Damage {
    pub(super) fn none(path: PathBuf, observer: Arc<dyn Observe>) -> Self {
        Self(Arc::new(Shared { path, observer, found: OnceLock::new(), telling: Mutex::default() }))
    }

    /// What everything is refused with, if damage was found.
    pub(super) fn found(&self) -> Option<Error> {
        self.0.found.get().map(|reason| Error::Damaged(reason.clone()))
    }

    /// Tells the observer of another outage, or of its end, unless the file is damaged.
    pub(super) fn tell(&self, reason: Option<OutageReason>) {
        let _telling = self.0.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.found.get().is_none() {
            self.0.observer.outage(reason);
        }
    }

    /// Judges a failure: what to answer if it is damage. The first one is logged.
    pub(super) fn judge(&self, failure: &rusqlite::Error) -> Option<Error> {
        if is_damage(failure) {
            self.report(failure.to_string());
        }
        self.found()
    }

    /// The same of a failure to open the file.
    pub(super) fn judge_opening(&self, failure: &OpenError) -> Option<Error> {
        if let OpenError::Damaged { .. } | OpenError::Foreign { .. } = failure {
            self.report(failure.to_string());
        }
        self.found()
    }

    fn report(&self, reason: String) {
        let Shared { path, observer, found, telling } = &*self.0;
        let _telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
        if found.get().is_none() {
            let reason = found.get_or_init(|| reason.into());
            error!(path = %path.display(), error = %reason, "queue: the file is damaged; nothing is accepted or sent any more. Stop the sidecar, keep a copy of the file and its log, save what can be read with `aquarium-sidecar queue recover`, and restart it with that");
            observer.outage(Some(OutageReason::Damaged));
        }
    }
}

/// Whether SQLite says that the file is not what was written.
pub(super) fn is_damage(failure: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    let (code, message) = match failure {
        E::SqliteFailure(failure, message) => (failure.code, message.as_deref()),
        E::SqlInputError { error, msg, .. } => (error.code, Some(msg.as_str())),
        _ => return false,
    };
    match code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
        // A table or a column that every version makes: the schema is damaged.
        _ => message.is_some_and(|message| message.starts_with("no such ")),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn damage_is_told_from_a_disk_that_fails_and_from_a_file_that_is_busy() {
        let failed = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in
            [ffi::SQLITE_CORRUPT, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_CORRUPT_SEQUENCE, ffi::SQLITE_NOTADB]
        {
            assert!(is_damage(&failed(code)), "{code}");
        }
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_SHORT_READ,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_ERROR,
            ffi::SQLITE_SCHEMA,
        ] {
            assert!(!is_damage(&failed(code)), "{code}");
        }
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for sql in [
            "SELECT * FROM events",
            "SELECT missing FROM sqlite_schema",
            "SELECT 1 FROM sqlite_schema INDEXED BY missing",
        ] {
            assert!(is_damage(&connection.prepare(sql).unwrap_err()), "{sql}");
        }
        assert!(!is_damage(&connection.prepare("SELECT (").unwrap_err()), "that is a bug");
        assert!(!is_damage(&rusqlite::Error::QueryReturnedNoRows));
    }
}
