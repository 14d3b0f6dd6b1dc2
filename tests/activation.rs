//! Sockets that a service manager passes on: who connects during a restart waits, and is not refused.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{EVENTS, JSON, SOON, accept, binary, event, text};

/// Passes standard input and output on as the third and the fourth descriptor, as systemd does.
const PASS_ON: &str =
    "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=${PID-$$} exec \"$0\" run --config \"$1\"";

struct Activated {
    child: Child,
    log: PathBuf,
}

fn spawn(config: &ConfigDirectory, sockets: [OwnedFd; 2], names: &str, extra: &[(&str, &str)]) -> Activated {
    let log = config.scratch().join("log");
    let [first, second] = sockets;
    let count = names.split(':').count().to_string();
    let child = Command::new("sh")
        .args(["-c", PASS_ON])
        .arg(binary())
        .arg(config.path())
        .env("LISTEN_FDS", count)
        .env("LISTEN_FDNAMES", names)
        .env("AQUARIUM_LOG_FORMAT", "text")
        .envs(extra.iter().copied())
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .stderr(File::options().create(true).append(true).open(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Activated { child, log }
}

impl Activated {
    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn ready(&self, admin: &str) {
        let ready =
            async || Client::new(admin).get("/readyz").await.is_ok_and(|response| response.status == 200);
        let started = Instant::now();
        while !ready().await {
            assert!(started.elapsed() < SOON, "it is not ready, and said: {}", self.logged());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(SOON, self.child.wait()).await.expect("it ends").unwrap()
    }

    async fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.ended().await
    }
}

fn local() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

/// Posts, over a new connection each time, until it is told to stop, and returns the ids of what was accepted.
async fn post(ingest: String, name: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let body = event(&format!("{name}-{}", accepted.len()));
        let response = Client::new(&ingest).post(EVENTS, JSON, body).await.expect("no connection is refused");
        assert_eq!(response.status, 202, "{}", response.text());
        accepted.push(text(&response.json(), "/id"));
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_notice_restarts() {
    let receiver = Receiver::builder().record_bodies(false).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let ((ingest, at), (admin, admin_at)) = (local(), local());
    let mut activated = spawn(&config, [copy(&ingest), copy(&admin)], "ingest:admin", &[]);
    activated.ready(&admin_at).await;
    let listening = format!("ingest: listening on {at}");
    eventually(SOON, "it says where it listens", async || activated.logged().contains(&listening)).await;

    let (stop, mut posting) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for name in 0..4 {
        posting.spawn(post(at.clone(), name, stop.clone()));
    }
    for _ in 0..5 {
        let before = receiver.tally().unique;
        eventually(SOON, "events arrive", async || receiver.tally().unique >= before + 20).await;
        assert_eq!(activated.terminate().await.code(), Some(0), "{}", activated.logged());
        activated = spawn(&config, [copy(&ingest), copy(&admin)], "ingest:admin", &[]);
        activated.ready(&admin_at).await;
    }
    stop.store(true, Ordering::Relaxed);
    let accepted: Vec<_> = posting.join_all().await.into_iter().flatten().collect();
    eventually(SOON, "all that was accepted arrives", async || accepted.iter().all(|id| receiver.has(id)))
        .await;
    assert!(accepted.len() >= 100, "{}", accepted.len());
    assert_eq!(activated.terminate().await.code(), Some(0), "{}", activated.logged());
}

#[tokio::test]
async fn unix_sockets_are_taken_and_stay_when_it_ends() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let path = |name: &str| config.scratch().join(name);
    let (ingest, admin) = (path("i.sock"), path("a.sock"));
    let sockets = [&admin, &ingest].map(|path| OwnedFd::from(UnixListener::bind(path).unwrap()));
    let mut activated = spawn(&config, sockets, "admin:ingest", &[]);
    let url = |path: &Path| format!("unix:{}", path.display());
    activated.ready(&url(&admin)).await;
    accept(&Client::unix(&ingest), EVENTS, event("ds_1")).await;
    let logged = activated.logged();
    assert!(logged.contains("WARN ingest: the socket that was passed is at unix:"), "{logged}");
    assert!(logged.contains("ingest.listen says 127.0.0.1:0, and is not used"), "{logged}");
    assert_eq!(activated.terminate().await.code(), Some(0));
    assert!(ingest.exists() && admin.exists(), "they are not the sidecar's to remove");
}

#[tokio::test]
async fn one_socket_without_a_name_is_that_of_the_ingest() {
    for name in ["", "aquarium-sidecar.socket", "ingest"] {
        let mut config = ConfigDirectory::new();
        config.organization("acme", "");
        let admin = config.scratch().join("a.sock");
        config.section("admin", &format!("listen = \"unix:{}\"", admin.display()));
        let ((ingest, at), nothing) = (local(), File::open("/dev/null").unwrap());
        let activated = spawn(&config, [copy(&ingest), nothing.into()], name, &[]);
        activated.ready(&format!("unix:{}", admin.display())).await;
        accept(&Client::new(&at), EVENTS, event("ds_1")).await;
    }
}

#[tokio::test]
async fn what_is_passed_to_another_process_is_left_alone() {
    let mut config = ConfigDirectory::new();
    let admin = config.scratch().join("a.sock");
    config.section("admin", &format!("listen = \"unix:{}\"", admin.display()));
    let (ingest, at) = local();
    let nothing = File::open("/dev/null").unwrap();
    let activated = spawn(&config, [copy(&ingest), nothing.into()], "ingest", &[("PID", "1")]);
    activated.ready(&format!("unix:{}", admin.display())).await;
    assert!(!activated.logged().contains(&at), "{}", activated.logged());
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_told_with_the_remedy() {
    let public = || OwnedFd::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let config = ConfigDirectory::new();
    let datagram = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let unix_datagram = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    let tcp = || OwnedFd::from(local().0);
    let connected = || {
        let (listener, _) = local();
        OwnedFd::from(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let rows: [(OwnedFd, OwnedFd, &str, i32, &str); 7] = [
        (datagram(), tcp(), "ingest:admin", 1, "ListenStream="),
        (tcp(), unix_datagram(), "ingest:admin", 1, "ListenStream="),
        (connected(), tcp(), "ingest:admin", 1, "Accept=no"),
        (tcp(), tcp(), "ingest:web", 1, "\"web\""),
        (tcp(), tcp(), "ingest:ingest", 1, "two sockets"),
        (tcp(), tcp(), "aquarium.socket:aquarium.socket", 1, "FileDescriptorName="),
        (public(), tcp(), "ingest:admin", 78, "token"),
    ];
    for (first, second, names, code, mentions) in rows {
        let mut activated = spawn(&config, [first, second], names, &[]);
        let (status, logged) = (activated.ended().await, activated.logged());
        assert_eq!(status.code(), Some(code), "{names}: {logged}");
        let last = logged.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(mentions), "{names}: {logged}");
    }
}
