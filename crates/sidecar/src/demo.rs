//! `demo`: the whole way of an event on this machine.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use aquarium_config::{Fs, Loaded, load};
use aquarium_event::samples;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::listen::{Behaviour, Receiver};
use crate::run::{self, Running};
use crate::service::Sockets;
use crate::{cli, client, secret};

/// How long an event may take here.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn main(arguments: cli::Demo) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir().context("a temporary directory cannot be made")?;
    let secret_file = directory.path().join("secrets/acme");
    let secret = secret::random()?;
    secret::file::write(&secret_file, secret.expose(), false)?;
    let behaviour = Behaviour { status: StatusCode::NO_CONTENT, delay: Duration::ZERO };
    let mut receiver = Receiver::start(([127, 0, 0, 1], 0).into(), Some(&secret), behaviour).await?;
    let loaded = configuration(directory.path(), &receiver.address.to_string())?;
    let shutdown = CancellationToken::new();
    let running = run::start(directory.path(), loaded, Sockets::default(), None, &shutdown).await?;

    let mut stdout = anstream::stdout();
    writeln!(stdout, "receiver  {}  (checks X-Aquarium-Secret)", receiver.address)?;
    writeln!(stdout, "ingest    {}", running.ingest)?;
    writeln!(stdout, "admin     {}", running.admin)?;
    writeln!(stdout, "config    {}\n", directory.path().display())?;
    show_every_event(&running, &mut receiver).await?;
    if !arguments.once {
        let example = r#"{"event":"dataset-complete","project":"urban-driving","dataset":{"id":"ds_1"}}"#;
        writeln!(stdout, "\nTry it yourself:\n")?;
        writeln!(stdout, "curl -i '{}/v1/organizations/acme/events?wait=10s' \\", running.ingest)?;
        writeln!(stdout, "  -H 'Content-Type: application/json' \\\n  -d '{example}'\n\nCtrl-C ends it.\n")?;
        until_interrupted(&mut receiver).await?;
    }
    running.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// Sends one event of every kind, and waits until each has arrived.
async fn show_every_event(running: &Running, receiver: &mut Receiver) -> anyhow::Result<()> {
    let base = running.ingest.to_string();
    for (name, sample) in samples() {
        let path = "/v1/organizations/acme/events";
        let body = Bytes::from_static(sample.as_bytes());
        let (status, answer) =
            client::ask(Method::POST, &base, path, HeaderMap::new(), body, PATIENCE).await?;
        if status != StatusCode::ACCEPTED {
            bail!("{name} was refused with {status}: {}", String::from_utf8_lossy(&answer));
        }
        let received = tokio::time::timeout(PATIENCE, receiver.received.recv()).await;
        let received = received.ok().flatten().with_context(|| format!("{name} did not arrive"))?;
        writeln!(anstream::stdout(), "{}", received.summary())?;
        if !received.is_verified() {
            bail!("{name} arrived, but not with the right secret");
        }
    }
    Ok(())
}

async fn until_interrupted(receiver: &mut Receiver) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            Some(received) = receiver.received.recv() => writeln!(anstream::stdout(), "{}", received.summary())?,
        }
    }
}

/// Writes and loads a configuration whose one webhook is the receiver.
fn configuration(directory: &Path, receiver: &str) -> anyhow::Result<Loaded> {
    std::fs::create_dir_all(directory.join("organizations"))?;
    let main = "version = 1\n\n[ingest]\nlisten = \"127.0.0.1:0\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
                [egress]\nallow = [\"127.0.0.0/8\"]\nroots = \"webpki\"\n";
    std::fs::write(directory.join("aquarium.toml"), main)?;
    let organization = format!(
        "version = 1\nsecret = {{ file = \"../secrets/acme\" }}\n\n\
         [projects.urban-driving.webhooks.everything]\nurl = \"{receiver}/aquarium\"\nevents = [\"*\"]\n"
    );
    std::fs::write(directory.join("organizations/acme.toml"), organization)?;
    Ok(load(directory, &Fs)?)
}
