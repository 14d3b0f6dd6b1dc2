//! `run`: the wiring of all rooms.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquarium_config::reload::Handle;
use aquarium_config::{Config, Fs, Loaded, load_at_rest};
use aquarium_dispatch::{Chance, Clock, Dispatcher, Limits, Replays};
use aquarium_egress::Egress;
use aquarium_queue::{Commits, sqlite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::cli;
use crate::http::{Address, HeadCheck, Listener, Room, serve};
use crate::ingest::{self, Bodies, Ingest};
use crate::service::{Passed, Sockets};
use crate::telemetry::{Exporting, Metrics, Observer, Tracer};
use crate::{files, housekeeping, log, reload, service};

/// How long the queue may take to write back its log at the end.
const CLOSE: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT. A second one ends at once.
pub(crate) async fn main(arguments: cli::Run, sockets: Sockets) -> anyhow::Result<ExitCode> {
    let Some(mut loaded) = configuration(&arguments.config)? else {
        return Ok(ExitCode::from(cli::BAD_CONFIG));
    };
    let log = log::start(&arguments.log, arguments.log_format)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangup = signal(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    if let Err(error) = sockets.apply(&mut loaded.config) {
        cli::failed(&error);
        return Ok(ExitCode::from(cli::BAD_CONFIG));
    }
    let mut running = start(&arguments.config, loaded, sockets, Some(log), &shutdown).await?;
    info!("ready");
    service::ready(&shutdown);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = reload::on_hangup(running.configuration.clone(), hangup) => {}
        () = running.ended() => {}
    }
    service::stopping();
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
fn configuration(directory: &Path) -> anyhow::Result<Option<Loaded>> {
    match load_at_rest(directory, &Fs) {
        Ok(loaded) => {
            cli::report(&loaded.warnings)?;
            if let Err(error) = reload::unusable(loaded.config.webhooks()) {
                eprintln!("error: {error}");
                return Ok(None);
            }
            Ok(Some(loaded))
        }
        Err(errors) => {
            cli::report(&errors.diagnostics)?;
            let errors = cli::counted(errors.errors().count(), "error");
            eprintln!("error: {} cannot be used: {errors}", directory.display());
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
    configuration: Handle,
    doors: JoinSet<()>,
    dispatcher: JoinHandle<Dispatched>,
    /// How the dispatcher ended, if it did so by itself.
    ended: Option<Result<Dispatched, JoinError>>,
    threads: sqlite::Threads,
    exporting: Exporting,
    close_doors: CancellationToken,
    stop_sending: CancellationToken,
}

/// Starts a sidecar with the configuration that was loaded from `directory`, and follows it there. It listens where that says,
/// unless `sockets` were passed. It accepts events when this returns.
#[allow(clippy::too_many_lines, reason = "wiring: one part after the other")]
pub(crate) async fn start(
    directory: &Path,
    loaded: Loaded,
    sockets: Sockets,
    log: Option<log::Filter>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Running> {
    let (clock, chance, config) = (Clock::system(), Chance::system(), &loaded.config);
    let options = reload::egress_options(config).map_err(anyhow::Error::msg)?;
    let share = files::share();
    let (ingest_listener, admin_listener) = listeners(config, sockets).await?;
    let (ingest, admin) = (ingest_listener.address()?, admin_listener.address()?);
    let own = [&ingest, &admin].into_iter().filter_map(Address::tcp).collect();
    let egress = Egress::new(options, own).context("egress cannot be set up")?.keeping_at_most(share.kept);
    let metrics = Metrics::new();
    let (queue, commits, threads) = open_queue(&config.queue, &metrics).await?;

    let (reloader, configuration) = reload::follow(directory, loaded, egress.clone(), clock.clone());
    let config = configuration.config();
    let (close_doors, stop_sending) = (shutdown.child_token(), CancellationToken::new());
    let (tracer, spans) = Tracer::new(metrics.clone(), clock.clone(), chance.clone());
    let exporting = Exporting::start(spans, config.clone(), metrics.clone(), chance.clone());
    let bodies = Bodies::new();
    let ingest_door = Arc::new(Ingest::new(ingest::Parts {
        queue: queue.clone(),
        configuration: configuration.clone(),
        clock: clock.clone(),
        chance: chance.clone(),
        metrics: metrics.clone(),
        tracer: tracer.clone(),
        head: HeadCheck::of(&ingest),
        bodies: bodies.clone(),
        connections: share.connections,
    }));
    let dispatcher = Dispatcher::new(
        queue.clone(),
        commits,
        egress,
        config.clone(),
        clock.clone(),
        chance.clone(),
        Limits { in_flight: share.attempts, ..Limits::default() },
    )
    .observed_by(Arc::new(Observer::new(metrics.clone(), tracer)));
    let (replays, waker) = Replays::new(queue.clone(), config.clone(), clock.clone(), chance.clone());
    let room = Room::new(share.connections);
    let admin_door = Arc::new(Admin::new(admin::Parts {
        configuration: configuration.clone(),
        queue: queue.clone(),
        control: dispatcher.control(),
        replays: waker,
        clock: clock.clone(),
        chance,
        metrics,
        head: HeadCheck::of(&admin),
        room: room.clone(),
        bodies,
        log,
    })?);
    let dispatcher = tokio::spawn(dispatcher.run(stop_sending.clone()));

    let mut doors = JoinSet::new();
    doors.spawn(serve(ingest_listener, ingest_door, room, close_doors.clone()));
    doors.spawn(serve(admin_listener, admin_door, Room::new(share.connections), close_doors.clone()));
    doors.spawn(replays.run(close_doors.clone()));
    doors.spawn(housekeeping::index(queue.clone(), close_doors.clone()));
    doors.spawn(housekeeping::run(queue, config, clock, close_doors.clone()));
    doors.spawn(reloader.run(close_doors.clone()));
    info!("ingest: listening on {ingest}");
    info!("admin: listening on {admin}");
    Ok(Running {
        ingest,
        admin,
        configuration,
        doors,
        dispatcher,
        ended: None,
        threads,
        exporting,
        close_doors,
        stop_sending,
    })
}

async fn open_queue(
    config: &aquarium_config::Queue,
    metrics: &Metrics,
) -> anyhow::Result<(sqlite::Sqlite, Commits, sqlite::Threads)> {
    let options = sqlite::Options {
        observer: Arc::new(metrics.clone()),
        ..sqlite::Options::new(config.path.clone(), config.max_size)
    };
    Ok(tokio::task::spawn_blocking(move || sqlite::open(&options)).await??)
}

/// Where events come in, and where operators ask.
async fn listeners(config: &Config, sockets: Sockets) -> anyhow::Result<(Listener, Listener)> {
    let ingest = bind("ingest", &config.ingest.listen, config.ingest.mode, sockets.ingest).await?;
    let admin = bind("admin", &config.admin.listen, config.admin.mode, sockets.admin).await?;
    Ok((ingest, admin))
}

async fn bind(
    door: &str,
    listen: &aquarium_config::Listen,
    mode: u32,
    passed: Option<Passed>,
) -> anyhow::Result<Listener> {
    if let Some(passed) = passed {
        return Listener::adopt(passed).with_context(|| format!("{door}: the socket that was passed"));
    }
    Listener::bind(listen, mode).await.with_context(|| format!("{door}.listen: cannot listen on {listen}"))
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
        let (closed, ()) = tokio::join!(tokio::time::timeout(CLOSE, closing), self.exporting.stop());
        if closed.is_err() {
            warn!(
                "the queue did not close in time; what was accepted is safe, and the log is written back at the next start"
            );
        }
        dispatched.context("the queue could not be read")
    }
}
