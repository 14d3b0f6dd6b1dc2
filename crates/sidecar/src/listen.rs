//! `listen`: a receiver for trying things out. It checks the secret, and prints each event readably.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquarium_config::{Listen, Secret};
use aquarium_event::Event;
use aquarium_verify::{Secrets, Verifier};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::http::{Address, Answer, CONNECTIONS, Handler, Listener, Room, read, serve};
use crate::terminal::{print_data, visible};

/// The largest event that is taken, in bytes.
const MAX_EVENT: usize = 64 * 1024 * 1024;
/// Lines of an event that are printed.
const SHOWN_LINES: usize = 24;

pub(crate) async fn main(arguments: cli::Listen) -> anyhow::Result<ExitCode> {
    let secret = arguments.secret_file.as_deref().map(cli::secret_from).transpose()?;
    let mut stderr = anstream::stderr();
    if secret.is_none() {
        writeln!(stderr, "no --secret-file: nothing is verified")?;
    }
    let answer = Behaviour { status: StatusCode::from_u16(arguments.status)?, delay: arguments.delay };
    let mut receiver = Receiver::start(arguments.address, secret.as_ref(), answer).await?;
    writeln!(stderr, "listening on {}", receiver.address)?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            Some(received) = receiver.received.recv() => {
                print_data(format!("{}\n{}", received.summary(), received.details()).as_bytes())?;
            }
        }
    }
}

/// What a receiver answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    /// The status for a genuine event.
    pub(crate) status: StatusCode,
    /// The wait before it.
    pub(crate) delay: Duration,
}

/// A running receiver. It ends when this is dropped.
pub(crate) struct Receiver {
    pub(crate) address: Address,
    pub(crate) received: mpsc::Receiver<Received>,
    _stop: tokio_util::sync::DropGuard,
}

/// One request that came in.
#[derive(Debug)]
pub(crate) struct Received {
    verdict: Verdict,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Verified,
    Unverified,
    Rejected(aquarium_verify::Rejection),
}

impl Receiver {
    pub(crate) async fn start(
        address: SocketAddr,
        secret: Option<&Secret>,
        behaviour: Behaviour,
    ) -> anyhow::Result<Self> {
        let verifier = match secret {
            Some(secret) => Some(Verifier::new(Secrets::new([secret.expose()])?)),
            None => None,
        };
        let listener = Listener::bind(&Listen::Tcp(address), 0).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.address()?;
        let (sender, received) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let door = Arc::new(Door { verifier, behaviour, sender });
        tokio::spawn(serve(listener, door, Room::new(CONNECTIONS), stop.clone()));
        Ok(Self { address, received, _stop: stop.drop_guard() })
    }
}

struct Door {
    verifier: Option<Verifier>,
    behaviour: Behaviour,
    sender: mpsc::Sender<Received>,
}

impl Handler for Door {
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let verdict = match self.verifier.as_ref().map(|verifier| verifier.verify(&parts.headers)) {
            None => Verdict::Unverified,
            Some(Ok(_)) => Verdict::Verified,
            Some(Err(rejection)) => Verdict::Rejected(rejection),
        };
        let rejected = matches!(verdict, Verdict::Rejected(_));
        // Nothing of the body of a stranger is read.
        let body = match rejected {
            true => Bytes::new(),
            false => match read(body, MAX_EVENT).await {
                Ok(body) => body,
                Err(_) => return empty(StatusCode::BAD_REQUEST),
            },
        };
        // Whoever prints may have ended.
        let _ = self.sender.send(Received { verdict, headers: parts.headers, body }).await;
        if rejected {
            return empty(StatusCode::UNAUTHORIZED);
        }
        tokio::time::sleep(self.behaviour.delay).await;
        empty(self.behaviour.status)
    }
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = http::Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

impl Received {
    /// Whether the secret was checked and right.
    pub(crate) fn is_verified(&self) -> bool {
        self.verdict == Verdict::Verified
    }

    /// One line: was it genuine, what is it, and which attempt.
    pub(crate) fn summary(&self) -> String {
        let verdict = match &self.verdict {
            Verdict::Verified => "verified".to_owned(),
            Verdict::Unverified => "not verified".to_owned(),
            Verdict::Rejected(rejection) => return format!("REJECTED  {rejection}"),
        };
        let what = match Event::from_slice(&self.body) {
            Ok(event) => format!("{:<17} {}", event.name(), event.project()),
            Err(error) => format!("not an event: {error}"),
        };
        let header = |name| self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let (id, attempt) = (header("webhook-id"), header("aquarium-attempt"));
        visible(&format!("{verdict}  {what}  {id}  attempt {attempt}  {} bytes", self.body.len()))
    }

    /// The payload, indented; the rest of a long one is counted only.
    fn details(&self) -> String {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&self.body) else { return String::new() };
        let text = format!("{value:#}");
        let lines: Vec<_> = text.lines().collect();
        let mut shown: String = lines.iter().take(SHOWN_LINES).map(|line| format!("    {line}\n")).collect();
        if lines.len() > SHOWN_LINES {
            shown += &format!("    … {} more lines\n", lines.len() - SHOWN_LINES);
        }
        shown
    }
}
