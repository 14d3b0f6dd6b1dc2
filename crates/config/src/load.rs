//! Loads a directory: a pure function of what its [`Source`] holds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::aquarium::Aquarium;
use crate::diagnostic::{quote, shown};
use crate::document::{self, Table};
use crate::findings::{Findings, Problem};
use crate::organization::{NAMES, is_name, name, organization};
use crate::reader::{Listing, ReadError, Reader, Scope};
use crate::strays::{Stray, stray};
use crate::webhook::Rules;
use crate::{Config, Diagnostic, Inputs, Organization, Severity, Source};

/// The file that holds everything but the organizations.
const AQUARIUM: &str = "aquarium.toml";
/// The directory of the organizations' files.
pub(crate) const ORGANIZATIONS: &str = "organizations";

/// How many files that are not read are warned about one by one.
const WARNINGS: usize = 20;
/// How many directories below that of the organizations are looked into.
const NESTED: usize = 64;

/// A configuration, and what it was made from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not as it should be.
    pub warnings: Vec<Diagnostic>,
    /// What it was made from.
    pub inputs: Inputs,
}

/// Why there is no configuration: everything that is wrong with the files.
#[derive(Debug, Clone)]
pub struct Errors {
    /// Errors, and warnings too, in the order of the files and their lines. At least one is an error.
    pub diagnostics: Vec<Diagnostic>,
    /// What was read, or should have been.
    pub inputs: Inputs,
}

impl Errors {
    /// Only the errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Errors {
    /// One line for each finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            write!(f, "{}{diagnostic}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Reads `aquarium.toml` and `organizations/*.toml` in a directory, and the secrets and certificates they name.
///
/// # Errors
/// All that is wrong with all of the files, not just the first of it. Nothing of them is used then.
pub fn load(dir: &Path, source: &dyn Source) -> Result<Loaded, Errors> {
    let reader = Reader::new(source);
    let mut diagnostics = Vec::new();
    let file = dir.join(AQUARIUM);
    let aquarium = read(&file, &reader, &mut diagnostics, |table| {
        Aquarium::read(&file, table, Scope::of(&file, &reader))
    });
    let found = aquarium.is_some();
    let aquarium = aquarium.unwrap_or_else(|| Aquarium::unknown(&file));
    let organizations = organizations(dir, found, &aquarium.rules, &reader, &mut diagnostics);

    let inputs = reader.finish(dir);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Errors { diagnostics, inputs });
    }
    let Aquarium { shutdown_grace, ingest, admin, queue, egress, traces, rules } = aquarium;
    let types = rules.types.unwrap_or_default();
    let (egress, traces) = (Arc::new(egress), Arc::new(traces));
    let config = Config { shutdown_grace, ingest, admin, queue, egress, traces, types, organizations };
    Ok(Loaded { config, warnings: diagnostics, inputs })
}

/// How many times files that change all the time are read in a row.
const READINGS: usize = 5;

/// Loads a directory in a state that all of its files had at one moment.
///
/// Files are read one after the other. While several are being replaced, one reading may see an old file and a new one together that
/// never were on disk together. So everything is read once more: if nothing differs, all of it was so in between.
///
/// # Errors
/// As [`load`], and if the files changed during each of several readings.
pub fn load_at_rest(dir: &Path, source: &dyn Source) -> Result<Loaded, Errors> {
    let mut result = load(dir, source);
    for _ in 1..READINGS {
        let inputs = match &result {
            Ok(loaded) => &loaded.inputs,
            Err(errors) => &errors.inputs,
        };
        if inputs.are_read_again(source) {
            return result;
        }
        result = load(dir, source);
    }
    let inputs = match result {
        Ok(loaded) => loaded.inputs,
        Err(errors) => errors.inputs,
    };
    let message = format!("the files changed while they were read, {READINGS} times in a row");
    let mut diagnostic = Diagnostic::of_file(Severity::Error, dir.to_owned(), message);
    diagnostic.help = Some("write each file elsewhere, and rename it when it is complete".to_owned());
    Err(Errors { diagnostics: vec![diagnostic], inputs: inputs.torn() })
}

/// Every organization that has a file. A directory that is not there is a mistake, such as a mount that failed: to take
/// it for an empty one would remove every webhook.
fn organizations(
    dir: &Path,
    aquarium_found: bool,
    rules: &Rules,
    reader: &Reader<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Arc<str>, Arc<Organization>> {
    let dir = dir.join(ORGANIZATIONS);
    let listing = match reader.list(&dir) {
        Ok(listing) => listing,
        Err(ReadError::Missing) => {
            // If nothing at all is there, then it is the directory that is wrong.
            if aquarium_found {
                let message = "there is no such directory".to_owned();
                let mut diagnostic = Diagnostic::of_file(Severity::Error, dir, message);
                diagnostic.help = Some("it may be empty, if there is no organization yet".to_owned());
                diagnostics.push(diagnostic);
            }
            return BTreeMap::new();
        }
        Err(error) => {
            let message = format!("cannot be listed: {error}");
            diagnostics.push(Diagnostic::of_file(Severity::Error, dir, message));
            return BTreeMap::new();
        }
    };
    let mut organizations = BTreeMap::new();
    for file in &listing.files {
        let Some(name) = name(file) else { continue };
        if !is_name(&name) {
            let message = format!("{} cannot name an organization", quote(&name));
            let mut diagnostic = Diagnostic::of_file(Severity::Error, file.clone(), message);
            diagnostic.accepted = Some(NAMES.to_owned());
            diagnostics.push(diagnostic);
        }
        let scope = Scope::of(file, reader);
        let read = read(file, reader, diagnostics, |table| organization(&name, table, rules, scope));
        if let Some(organization) = read {
            organizations.insert(organization.name.clone(), Arc::new(organization));
        }
    }
    for path in &listing.misplaced {
        let message = "is a directory, and has the name of an organization's file".to_owned();
        let mut diagnostic = Diagnostic::of_file(Severity::Error, path.clone(), message);
        diagnostic.help = Some("put the file itself there, or rename the directory".to_owned());
        diagnostics.push(diagnostic);
    }
    unread(&dir, &listing, reader, diagnostics);
    organizations
}

/// Warns about files that look as if they were an organization's and are not read, and of there being none.
fn unread(dir: &Path, listing: &Listing, reader: &Reader<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut warnings = Vec::new();
    let mut warn = |file: &Path, message: String, help: String| {
        let mut diagnostic = Diagnostic::of_file(Severity::Warning, file.to_owned(), message);
        diagnostic.help = Some(help);
        warnings.push(diagnostic);
    };
    if listing.files.is_empty() && listing.misplaced.is_empty() {
        let message = "there is no organization: every event is refused with 404".to_owned();
        warn(dir, message, "add NAME.toml for each; or is a volume not mounted?".to_owned());
    }
    for file in listing.strays.iter().filter(|file| !reader.has_read(file)) {
        if let Some(Stray { reason, help }) = stray(file) {
            warn(file, format!("is not read: {reason}"), help);
        }
    }
    // Links may lead in circles.
    let mut directories: VecDeque<PathBuf> = listing.directories.iter().cloned().collect();
    let mut seen = 0;
    while let Some(directory) = directories.pop_front().filter(|_| seen < NESTED) {
        seen += 1;
        let Ok(below) = reader.list(&directory) else { continue };
        directories.extend(below.directories);
        for file in below.files.iter().filter(|file| !reader.has_read(file)) {
            let message = "is not read: the files of organizations are not in directories of their own";
            warn(file, message.to_owned(), format!("move it to {}", shown(dir)));
        }
    }
    let more = warnings.len().saturating_sub(WARNINGS);
    warnings.truncate(WARNINGS);
    if more > 0 {
        let message = format!("{more} more files in it are not read");
        warnings.push(Diagnostic::of_file(Severity::Warning, dir.to_owned(), message));
    }
    diagnostics.append(&mut warnings);
}

/// Reads one TOML file with `interpret`, and tells where everything is that was found in it.
pub(crate) fn read<T>(
    file: &Path,
    reader: &Reader<'_>,
    diagnostics: &mut Vec<Diagnostic>,
    interpret: impl FnOnce(Table<'_, '_>) -> T,
) -> Option<T> {
    let bytes = match reader.document(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot be read: {error}");
            diagnostics.push(Diagnostic::of_file(Severity::Error, file.to_owned(), message));
            return None;
        }
    };
    let findings = Findings::default();
    let text = match str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let text = String::from_utf8_lossy(&bytes);
            findings.add(Problem::syntax(at..at + 1, "the file is not UTF-8 text"));
            diagnostics.extend(findings.into_diagnostics(file, &text));
            return None;
        }
    };
    let value = document::open(text, &findings).map(|table| {
        reader.note_keys(file, table.key_hashes());
        interpret(table)
    });
    diagnostics.extend(findings.into_diagnostics(file, text));
    value
}
