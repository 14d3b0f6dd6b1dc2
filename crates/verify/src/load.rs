//! Secrets and keys from where a service keeps them: one a line, in a file or an environment variable.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

/// The most that a file may have, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why secrets or keys cannot be read from where they are. It repeats nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from}: {reason}")]
pub struct LoadError {
    from: String,
    reason: String,
}

impl LoadError {
    pub(crate) fn in_file(path: &Path, reason: impl Display) -> LoadError {
        LoadError { from: path.display().to_string(), reason: reason.to_string() }
    }
}

/// What an environment variable holds, as `parse` reads it.
pub(crate) fn from_env<T, E: Display>(
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, LoadError> {
    let unusable = |reason: String| LoadError { from: format!("environment variable {name}"), reason };
    match std::env::var(name) {
        Ok(text) => parse(&Zeroizing::new(text)).map_err(|error| unusable(error.to_string())),
        Err(std::env::VarError::NotPresent) => Err(unusable("it is not set".to_owned())),
        Err(std::env::VarError::NotUnicode(_)) => Err(unusable("it is not text".to_owned())),
    }
}

/// What a file holds, as `parse` reads it.
pub(crate) fn from_file<T, E: Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, LoadError> {
    let text = read(path)?;
    parse(&text).map_err(|error| LoadError::in_file(path, error))
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, LoadError> {
    let unreadable = |error: std::io::Error| LoadError::in_file(path, error);
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE) + 1;
    // Room for all of it at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default()));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::in_file(path, format!("it has more than {MAX_FILE} bytes")));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(LoadError::in_file(path, "it is not UTF-8 text"))
        }
    }
}

/// The secrets of a text with their labels, a line each; `None` for a line that has more than these two words.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Option<(Option<&str>, &str)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(label), Some(secret), None) => Some((Some(label), secret)),
            (Some(secret), None, None) => Some((None, secret)),
            _ => None,
        }
    })
}
