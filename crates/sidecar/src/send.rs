//! `send`: posts an event to a running sidecar.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use aquarium_event::{Types, sample};
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::terminal::print_data;
use crate::{cli, client};

/// How long an answer may take, besides what `--wait` asks for.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) async fn main(arguments: cli::Send) -> anyhow::Result<ExitCode> {
    let body = body(&arguments)?;
    let mut headers = HeaderMap::new();
    if let Some(file) = &arguments.token_file {
        let token = cli::secret_from(file)?;
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", token.expose()))?);
    }
    if let Some(key) = &arguments.idempotency_key {
        let key = HeaderValue::from_str(key).context("an idempotency key has visible ASCII characters")?;
        headers.insert("idempotency-key", key);
    }
    let wait = arguments.wait.map(|wait| format!("?wait={}ms", wait.as_millis())).unwrap_or_default();
    let path = format!("/v1/organizations/{}/events{wait}", arguments.organization);
    let limit = PATIENCE + arguments.wait.unwrap_or_default();
    let (status, answer) = client::ask(Method::POST, &arguments.url, &path, headers, body, limit).await?;
    if !status.is_success() {
        bail!("{}", client::reason(status, &answer));
    }
    print_data(&[&answer[..], b"\n"].concat())?;
    Ok(ExitCode::SUCCESS)
}

fn body(arguments: &cli::Send) -> anyhow::Result<Bytes> {
    if let Some(kind) = &arguments.sample {
        let kind = Types::default().parse(kind).map_err(|unknown| {
            let nearest = unknown
                .nearest
                .iter()
                .map(|nearest| format!("; did you mean {nearest:?}?"))
                .collect::<String>();
            anyhow::anyhow!("{unknown}{nearest} there are samples of: {}", unknown.known.join(", "))
        })?;
        let sample = sample(&kind).with_context(|| format!("there is no sample of {kind}"))?;
        return Ok(Bytes::from_static(sample.as_bytes()));
    }
    match arguments.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            std::fs::read(path).map(Bytes::from).with_context(|| format!("cannot read {}", path.display()))
        }
        _ => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body).context("cannot read stdin")?;
            Ok(body.into())
        }
    }
}
