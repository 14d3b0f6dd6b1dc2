//! `secret`: makes the secret or the signing key of an organization.

pub(crate) mod file;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use aquarium_config::{Fs, NoSecretFile, Secret, SecretKind, SigningKey, secret_file};
use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli;
use crate::terminal::print_json;

/// How many random bytes are in a secret, or in a signing key.
const BYTES: usize = 32;

pub(crate) fn main(command: &cli::Secret) -> anyhow::Result<ExitCode> {
    match command {
        cli::Secret::Generate(arguments) => generate(arguments),
    }
}

fn generate(arguments: &cli::Generate) -> anyhow::Result<ExitCode> {
    let kind = if arguments.signing_key { SecretKind::SigningKey } else { SecretKind::Secret };
    let path = match secret_file(&arguments.config, &arguments.organization, kind, &Fs) {
        Ok(path) => path,
        Err(NoSecretFile::Unusable(errors)) => {
            cli::report(&errors.diagnostics)?;
            return Ok(ExitCode::from(cli::BAD_CONFIG));
        }
        Err(error) => return Err(error.into()),
    };
    let text = random_text(kind)?;
    let written = file::write(&path, &text, arguments.replace)?;
    // First where it is: that has to be known also if it cannot be printed.
    explain(kind, &arguments.organization, &path, written.replaced);
    print(kind, arguments, &path, &text, written.replaced.is_some())
        .with_context(|| format!("the new {kind} is in {}, but cannot be printed", path.display()))?;
    written.synced?;
    Ok(ExitCode::SUCCESS)
}

/// A secret that nobody can guess.
pub(crate) fn random() -> anyhow::Result<Secret> {
    Ok(Secret::new(random_text(SecretKind::Secret)?.as_str())?)
}

/// A new secret as base64url (RFC 4648, section 5), or a new signing key as Standard Webhooks writes it.
fn random_text(kind: SecretKind) -> anyhow::Result<Zeroizing<String>> {
    match kind {
        SecretKind::Secret => random_bytes("", &BASE64URL_NOPAD),
        SecretKind::SigningKey => random_bytes(SigningKey::PREFIX, &BASE64),
    }
}

/// 256 bits of the system's generator.
fn random_bytes(prefix: &str, encoding: &Encoding) -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(&mut *bytes).context("the system gives no random numbers")?;
    // Room for all of it at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + encoding.encode_len(BYTES)));
    text.push_str(prefix);
    encoding.encode_append(&*bytes, &mut text);
    Ok(text)
}

/// Tells what was written where, and what follows from it. `replaced` are the permission bits of the previous file.
fn explain(kind: SecretKind, organization: &str, path: &Path, replaced: Option<u32>) {
    let path = path.display();
    say(format_args!("{path} (mode 0600) holds a new {kind} of {organization}."));
    if let Some(mode) = replaced {
        let used = match kind {
            SecretKind::Secret => "sends the new one",
            SecretKind::SigningKey => "signs with the new one",
        };
        say(format_args!(
            "The previous {kind} is no longer valid: a running sidecar follows the file, and {used} from\n\
             the next attempt on. Give the new one to all receivers of {organization}."
        ));
        if mode & 0o040 != 0 {
            say(format_args!(
                "note: the group could read the previous file (mode {mode:04o}), but not the new one; \
                 to let it, chmod g+r {path}"
            ));
        }
    }
    say("This is the only time that it is shown:");
}

fn say(text: impl Display) {
    // If stderr is gone, there is nobody to tell; it is written all the same.
    let _ = writeln!(anstream::stderr(), "{text}");
}

fn print(
    kind: SecretKind,
    arguments: &cli::Generate,
    path: &Path,
    text: &str,
    replaced: bool,
) -> std::io::Result<()> {
    if !arguments.json {
        return writeln!(anstream::stdout(), "{text}");
    }
    let printed = json!({
        "organization": arguments.organization,
        "file": path.to_string_lossy(),
        (kind.key()): text,
        "replaced": replaced,
    });
    print_json(&printed)
}
