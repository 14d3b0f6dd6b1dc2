//! Loads a directory: a pure function of what its [`Source`] holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::aquarium::Aquarium;
use crate::diagnostic::quote;
use crate::document::{self, Table};
use crate::findings::{Findings, Problem};
use crate::organization::{NAMES, is_name, name, organization};
use crate::reader::{ReadError, Reader, Scope};
use crate::webhook::Rules;
use crate::{Config, Diagnostic, Inputs, Organization, Severity, Source};

/// The file that holds everything but the organizations.
const AQUARIUM: &str = "aquarium.toml";
/// The directory of the organizations' files.
pub(crate) const ORGANIZATIONS: &str = "organizations";

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
    let files = match reader.organizations(&dir) {
        Ok(files) => files,
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
    for file in files {
        let Some(name) = name(&file) else { continue };
        if !is_name(&name) {
            let message = format!("{} cannot name an organization", quote(&name));
            let mut diagnostic = Diagnostic::of_file(Severity::Error, file.clone(), message);
            diagnostic.accepted = Some(NAMES.to_owned());
            diagnostics.push(diagnostic);
        }
        let scope = Scope::of(&file, reader);
        let read = read(&file, reader, diagnostics, |table| organization(&name, table, rules, scope));
        if let Some(organization) = read {
            organizations.insert(organization.name.clone(), Arc::new(organization));
        }
    }
    organizations
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
    let value = document::open(text, &findings).map(interpret);
    diagnostics.extend(findings.into_diagnostics(file, text));
    value
}
