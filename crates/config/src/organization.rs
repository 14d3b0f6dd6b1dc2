//! Reads the file of an organization.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aquarium_delivery::{MAX_NAME, WebhookName, check_name};

use crate::diagnostic::quote;
use crate::document::{Table, Value};
use crate::findings::Problem;
use crate::reader::Scope;
use crate::secret::secret;
use crate::signing_key::signing_key;
use crate::webhook::{Rules, webhook};
use crate::{Organization, Project, Webhook};

/// The name of the organization whose file this is; none if it is not the file of one.
///
/// Editors and mounts leave other things in a directory: only what ends in `.toml` and does not start with a dot is
/// meant to be read.
pub(crate) fn name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy();
    let stem = name.strip_suffix(".toml")?;
    (!name.starts_with('.')).then(|| stem.to_owned())
}

/// What [`is_name`] accepts.
pub(crate) const NAMES: &str = "up to 128 letters, digits, \".\", \"_\" and \"-\", not starting with a sign";

/// Whether a text can be the name of an organization: it is the name of a file and part of a URL.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The organization of this name; what cannot be used in it is reported and left out.
pub(crate) fn organization(
    name: &str,
    mut table: Table<'_, '_>,
    rules: &Rules,
    scope: Scope<'_>,
) -> Organization {
    let secret = table.take("secret").and_then(|value| secret(value, scope));
    let signing_key = table.take("signing_key").and_then(|value| signing_key(value, secret.as_ref(), scope));
    let projects = table.section("projects");
    table.finish();
    let projects = projects.entries().filter_map(|value| {
        let project = named(&value, "project")?;
        let mut table = value.into_table()?;
        let webhooks = table.section("webhooks");
        table.finish();
        let webhooks = webhooks.entries().filter_map(|value| {
            let own = named(&value, "webhook")?;
            let full = WebhookName::new(name, &project, &own).ok()?;
            Some((own, Arc::new(webhook(full, value, rules, scope)?)))
        });
        let webhooks: BTreeMap<Arc<str>, Arc<Webhook>> = webhooks.collect();
        Some((project.clone(), Project { name: project, webhooks }))
    });
    let projects = projects.collect();
    Organization { name: name.into(), secret, signing_key, projects }
}

/// The key as a name, if it can be one.
fn named(value: &Value<'_, '_>, what: &str) -> Option<Arc<str>> {
    let (text, span) = &value.key;
    if let Err(error) = check_name(text) {
        value.report(Problem::error(span.clone(), format!("{} cannot name a {what}: {error}", quote(text))));
        return None;
    }
    Some(text.as_str().into())
}
