//! Finds the file that the secret or the signing key of an organization belongs in.

use std::path::{Path, PathBuf};

use crate::diagnostic::{quote, shown};
use crate::document::Table;
use crate::load::{ORGANIZATIONS, read};
use crate::organization::{NAMES, is_name, name};
use crate::reader::{ReadError, Reader, Scope};
use crate::secret::{Place, place};
use crate::{Errors, SecretKind, Source};

/// How many of the known organizations a message names.
const SHOWN: usize = 10;

/// Why there is no file for the secret or the signing key of an organization.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoSecretFile {
    /// No organization can have this name.
    #[error("{} cannot name an organization; accepted: {NAMES}", quote(.organization))]
    Name {
        /// The name that was asked for.
        organization: String,
    },
    /// There is no organization of this name.
    #[error(
        "unknown organization {}: there is no {}{}",
        quote(.organization),
        shown(.file),
        instead(.suggestion.as_deref(), .known)
    )]
    Unknown {
        /// The name that was asked for.
        organization: String,
        /// The file that the organization would have.
        file: PathBuf,
        /// The name that was probably meant.
        suggestion: Option<String>,
        /// The names of all organizations that have a file, in order.
        known: Vec<String>,
    },
    /// The organization's file cannot be read, is not TOML, or is wrong about what was asked for.
    #[error(transparent)]
    Unusable(#[from] Errors),
    /// The organization's file does not name it.
    #[error(
        "{} names no {kind}; add {} = {{ file = \"../{}/{organization}\" }} at the top of that file",
        shown(.file),
        .kind.key(),
        directory(*.kind)
    )]
    Unnamed {
        /// What was asked for.
        kind: SecretKind,
        /// The organization.
        organization: String,
        /// Its file.
        file: PathBuf,
    },
    /// It is the value of an environment variable.
    #[error(
        "{} takes the {kind} from the environment variable {variable}: its value is set where the sidecar is started",
        shown(.file)
    )]
    Variable {
        /// What was asked for.
        kind: SecretKind,
        /// The organization's file.
        file: PathBuf,
        /// The name of the variable.
        variable: String,
    },
}

/// The directory that is proposed. It is another one for each kind: the files in it can have any organization's name.
const fn directory(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Secret => "secrets",
        SecretKind::SigningKey => "signing-keys",
    }
}

/// What to ask for instead of an organization that is not there.
fn instead(suggestion: Option<&str>, known: &[String]) -> String {
    let mut text = suggestion.map_or(String::new(), |name| format!("; did you mean {}?", quote(name)));
    if !known.is_empty() {
        let separator = if text.is_empty() { ";" } else { "" };
        text += &format!("{separator} known: {}", known[..known.len().min(SHOWN)].join(", "));
    }
    if known.len() > SHOWN {
        text += &format!(" and {} more", known.len() - SHOWN);
    }
    text
}

/// The file that the secret or the signing key of an organization is read from, whether or not it is there.
///
/// Of the whole configuration, only what the organization's file says about it has to be right.
///
/// # Errors
/// There is no such organization, its file cannot be used, or it is not in a file.
pub fn secret_file(
    dir: &Path,
    organization: &str,
    kind: SecretKind,
    source: &dyn Source,
) -> Result<PathBuf, NoSecretFile> {
    // The name becomes part of a path.
    if !is_name(organization) {
        return Err(NoSecretFile::Name { organization: organization.to_owned() });
    }
    let reader = Reader::new(source);
    let organizations = dir.join(ORGANIZATIONS);
    let file = organizations.join(format!("{organization}.toml"));
    if matches!(reader.document(&file), Err(ReadError::Missing)) {
        let known = known(&organizations, &reader);
        // A link that leads nowhere is there all the same: reading it will say what is wrong.
        if !known.iter().any(|name| name == organization) {
            let suggestion =
                aquarium_event::nearest(organization, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(NoSecretFile::Unknown {
                organization: organization.to_owned(),
                file,
                suggestion,
                known,
            });
        }
    }
    let mut diagnostics = Vec::new();
    let place =
        read(&file, &reader, &mut diagnostics, |table| place_of(kind, table, Scope::of(&file, &reader)));
    if !diagnostics.is_empty() {
        return Err(Errors { diagnostics, inputs: reader.finish(dir) }.into());
    }
    match place.flatten() {
        Some(Place::File(path)) => Ok(path),
        Some(Place::Variable(variable)) => Err(NoSecretFile::Variable { kind, file, variable }),
        None => Err(NoSecretFile::Unnamed { kind, organization: organization.to_owned(), file }),
    }
}

/// Where an organization's file says that it is. If it says nothing, a misspelt key is reported.
fn place_of(kind: SecretKind, mut table: Table<'_, '_>, scope: Scope<'_>) -> Option<Place> {
    let [secret, signing_key, _] = ["secret", "signing_key", "projects"].map(|key| table.take(key));
    let asked = match kind {
        SecretKind::Secret => secret,
        SecretKind::SigningKey => signing_key,
    };
    if asked.is_none() {
        table.finish();
    }
    place(asked?, scope)
}

/// The organizations that have a file; none if they cannot be listed.
fn known(dir: &Path, reader: &Reader<'_>) -> Vec<String> {
    let files = reader.list(dir).unwrap_or_default().files;
    files.iter().filter_map(|file| name(file)).filter(|name| is_name(name)).collect()
}
