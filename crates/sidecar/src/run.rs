//! `run`: the wiring of all rooms.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquarium_config::{Config, Fs, Loaded, Roots, load};
use aquarium_dispatch::{Chance, Clock, Dispatcher, Limits};
use aquarium_egress::{self as egress, Egress, Guard};
use aquarium_queue::sqlite;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::Admin;
use crate::cli;
use crate::http::{Address, Listener, serve};
use crate::ingest::Ingest;
use crate::{housekeeping, log};

/// How long the queue may take to write back its log at the end.
const CLOSE: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT. A second one ends at once.
pub(crate) async fn main(arguments: cli::Run) -> anyhow::Result<ExitCode> {
    let Some(config) = configuration(&arguments.config)? else { return Ok(ExitCode::from(cli::BAD_CONFIG)) };
    log::start(&arguments.log)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let mut running = start(config, &shutdown).await?;
    info!("ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = running.ended() => {}
    }
    info!("stopping: attempts under way may end; a second signal ends at once");
    tokio::select! {
        stopped = running.stop() => stopped?,
        _ = terminate.recv() => return Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => return Ok(ExitCode::FAILURE),
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Loads the configuration, and reports what is wrong with it. `None` if it cannot be used.
fn configuration(directory: &Path) -> anyhow::Result<Option<Config>> {
    match load(directory, &Fs) {
        Ok(Loaded { config, warnings, .. }) => {
            cli::report(&warnings)?;
            Ok(Some(config))
        }
        Err(errors) => {
            cli::report(&errors.diagnostics)?;
            eprintln!("error: {} cannot be used: {} errors", directory.display(), errors.errors().count());
            Ok(None)
        }
    }
}

type Dispatched = Result<(), aquarium_queue::Error>;

/// A sidecar at work.
pub(crate) struct Running {
    /// Where it takes events.
    pub(crate) ingest: Address,
    /// Where it answers operators.
    pub(crate) admin: Address,
    doors: JoinSet<()>,
    dispatcher: JoinHandle<Dispatched>,
    /// How the dispatcher ended, if it did so by itself.
    ended: Option<Result<Dispatched, JoinError>>,
    threads: sqlite::Threads,
    close_doors: CancellationToken,
    stop_sending: CancellationToken,
    /// Kept open: the configuration may change as long as the sidecar runs.
    _config: watch::Sender<Arc<Config>>,
}

/// Starts a sidecar. It accepts events when this returns.
pub(crate) async fn start(config: Config, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let (clock, chance) = (Clock::system(), Chance::system());
    let egress = Egress::new(egress_options(&config)).context("egress cannot be set up")?;
    let ingest_listener = bind("ingest", &config.ingest.listen).await?;
    let admin_listener = bind("admin", &config.admin.listen).await?;
    let options = sqlite::Options { path: config.queue.path.clone(), max_size: config.queue.max_size };
    let (queue, commits, threads) = tokio::task::spawn_blocking(move || sqlite::open(&options)).await??;

    let admin_door = Arc::new(Admin::new(&config.admin));
    let (config_sender, config) = watch::channel(Arc::new(config));
    let (close_doors, stop_sending) = (shutdown.child_token(), CancellationToken::new());
    let ingest_door = Arc::new(Ingest::new(queue.clone(), config.clone(), clock.clone(), chance.clone()));
    let dispatcher = Dispatcher::new(
        queue.clone(),
        commits,
        egress,
        config.clone(),
        clock.clone(),
        chance,
        Limits::default(),
    );
    let dispatcher = tokio::spawn(dispatcher.run(stop_sending.clone()));

    let (ingest, admin) = (ingest_listener.address()?, admin_listener.address()?);
    let mut doors = JoinSet::new();
    doors.spawn(serve(ingest_listener, ingest_door, close_doors.clone()));
    doors.spawn(serve(admin_listener, admin_door, close_doors.clone()));
    doors.spawn(housekeeping::run(queue, config, clock, close_doors.clone()));
    info!("ingest: listening on {ingest}");
    info!("admin: listening on {admin}");
    Ok(Running {
        ingest,
        admin,
        doors,
        dispatcher,
        ended: None,
        threads,
        close_doors,
        stop_sending,
        _config: config_sender,
    })
}

async fn bind(door: &str, listen: &aquarium_config::Listen) -> anyhow::Result<Listener> {
    Listener::bind(listen).await.with_context(|| format!("{door}.listen: cannot listen on {listen}"))
}

fn egress_options(config: &Config) -> egress::Options {
    let roots = match &config.egress.roots {
        Roots::Webpki => egress::Roots::Webpki,
        Roots::File { pem, .. } => egress::Roots::Pem(pem.to_vec()),
        _ => egress::Roots::Native,
    };
    egress::Options { guard: Guard::new(config.egress.allow.clone()), roots }
}

impl Running {
    /// Completes if the dispatcher ends by itself, which is a failure.
    async fn ended(&mut self) {
        self.ended = Some((&mut self.dispatcher).await);
    }

    /// Stops accepting, lets attempts under way end, records them, and closes the queue.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.close_doors.cancel();
        while self.doors.join_next().await.is_some() {}
        self.stop_sending.cancel();
        let ended = match self.ended {
            Some(ended) => ended,
            None => self.dispatcher.await,
        };
        let dispatched = ended.context("the dispatcher broke off")?;
        let threads = self.threads;
        let closing = tokio::task::spawn_blocking(move || threads.join());
        if tokio::time::timeout(CLOSE, closing).await.is_err() {
            warn!(
                "the queue did not close in time; what was accepted is safe, and the log is written back at the next start"
            );
        }
        dispatched.context("the queue could not be read")
    }
}
