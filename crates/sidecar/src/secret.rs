//! `secret`: makes the secret of an organization.

pub(crate) mod file;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use aquarium_config::{Fs, NoSecretFile, Secret, secret_file};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli;

/// How many random bytes are in a secret.
const BYTES: usize = 32;

pub(crate) fn main(command: &cli::Secret) -> anyhow::Result<ExitCode> {
    match command {
        cli::Secret::Generate(arguments) => generate(arguments),
    }
}

fn generate(arguments: &cli::Generate) -> anyhow::Result<ExitCode> {
    let path = match secret_file(&arguments.config, &arguments.organization, &Fs) {
        Ok(path) => path,
        Err(NoSecretFile::Unusable(errors)) => {
            cli::report(&errors.diagnostics)?;
            return Ok(ExitCode::from(cli::BAD_CONFIG));
        }
        Err(error) => return Err(error.into()),
    };
    let secret = random()?;
    let written = file::write(&path, &secret, arguments.replace)?;
    // First where it is: that has to be known also if the secret cannot be printed.
    explain(&arguments.organization, &path, written.replaced);
    print(arguments, &path, &secret, written.replaced.is_some())
        .with_context(|| format!("the new secret is in {}, but cannot be printed", path.display()))?;
    written.synced?;
    Ok(ExitCode::SUCCESS)
}

/// A secret that nobody can guess: 256 bits of the system's generator, as base64url (RFC 4648, section 5).
pub(crate) fn random() -> anyhow::Result<Secret> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(&mut *bytes).context("the system gives no random numbers")?;
    // Room for all of it at once: a text that grows leaves copies behind.
    let mut text = String::with_capacity(BASE64URL_NOPAD.encode_len(BYTES));
    BASE64URL_NOPAD.encode_append(&*bytes, &mut text);
    Ok(Secret::new(text)?)
}

/// Tells what was written where, and what follows from it. `replaced` are the permission bits of the previous file.
fn explain(organization: &str, path: &Path, replaced: Option<u32>) {
    let path = path.display();
    say(format_args!("{path} (mode 0600) holds a new secret of {organization}."));
    if let Some(mode) = replaced {
        say(format_args!(
            "The previous secret is no longer valid: a running sidecar follows the file, and sends the new one from\n\
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
    // If stderr is gone, there is nobody to tell; the secret is written all the same.
    let _ = writeln!(anstream::stderr(), "{text}");
}

fn print(arguments: &cli::Generate, path: &Path, secret: &Secret, replaced: bool) -> std::io::Result<()> {
    let mut stdout = anstream::stdout();
    if !arguments.json {
        return writeln!(stdout, "{}", secret.expose());
    }
    let printed = json!({
        "organization": arguments.organization,
        "file": path.to_string_lossy(),
        "secret": secret.expose(),
        "replaced": replaced,
    });
    writeln!(stdout, "{printed:#}")
}
