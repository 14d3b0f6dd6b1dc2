//! What the reload task does and when, in virtual time.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_config::reload::{
    Handle, Hints, POLL, Parts, QUIET, QUIET_AT_MOST, Refused, Reloader, SETTLE, Target, Watch, WatchError,
};
use aquarium_config::{Config, Diff, Entry, Inputs, Memory, Secret, SigningKey, Source, load};
use aquarium_delivery::Timestamp;
use tokio::time::{Instant, advance, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::KEY;

pub(crate) const OPS: &str =
    "[projects.p.webhooks.ops]\nurl = \"https://ops.example.com/\"\nevents = [\"*\"]\n";
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Files that change while they are followed.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    memory: Mutex<Memory>,
    reads: AtomicUsize,
    restless: AtomicBool,
}

impl Disk {
    pub(crate) fn change(&self, change: impl FnOnce(Memory) -> Memory) {
        let mut memory = self.0.memory.lock().unwrap();
        *memory = change(std::mem::take(&mut *memory));
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        self.change(|memory| memory.file(path, content));
    }

    /// Whether a file changes at each reading.
    pub(crate) fn restless(&self, restless: bool) {
        self.0.restless.store(restless, Ordering::Relaxed);
    }

    pub(crate) fn acme(&self, toml: &str) {
        self.write(
            "organizations/acme.toml",
            &format!("version = 1\nsecret = {{ file = \"../acme\" }}\n{toml}\n"),
        );
    }

    pub(crate) fn memory(&self) -> Memory {
        self.0.memory.lock().unwrap().clone()
    }
}

impl Source for Disk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        if path.ends_with("aquarium.toml") {
            let reads = self.0.reads.fetch_add(1, Ordering::Relaxed);
            if self.0.restless.load(Ordering::Relaxed) {
                self.write("aquarium.toml", &format!("version = 1 # {reads}\n"));
            }
        }
        self.memory().read(path, limit)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.memory().list(dir)
    }

    fn device(&self, dir: &Path) -> Option<u64> {
        self.memory().device(dir)
    }

    fn env(&self, name: &str) -> Option<OsString> {
        self.memory().env(name)
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.memory().mode(path)
    }
}

/// Fails while it is told to.
#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<Option<&'static str>>>);

impl Watch for Watcher {
    fn watch(&mut self, _inputs: &Inputs) -> Result<(), WatchError> {
        self.renew()
    }

    fn renew(&mut self) -> Result<(), WatchError> {
        let reason = *self.0.lock().unwrap();
        assert_ne!(reason, Some("panic"), "this watcher breaks off on purpose");
        reason.map_or(Ok(()), |reason| Err(WatchError(reason.to_owned())))
    }
}

/// Refuses what changes the named setting.
struct Picky(&'static str);

impl Target for Picky {
    async fn prepare(&mut self, _next: &Config, diff: &Diff) -> Result<(), String> {
        if diff.settings.contains(&self.0) { Err(format!("{} is not good", self.0)) } else { Ok(()) }
    }
}

pub(crate) struct Following {
    pub(crate) disk: Disk,
    pub(crate) hints: Hints,
    watcher: Watcher,
    pub(crate) handle: Handle,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Follows a good configuration with the organizations `acme` and `beta`.
pub(crate) async fn follow() -> Following {
    let memory = Memory::new()
        .file("aquarium.toml", "version = 1\n")
        .file("acme", "the-first-secret-of-acme\n")
        .file("organizations/beta.toml", format!("version = 1\n{OPS}"));
    let disk = Disk(Arc::new(Inner {
        memory: Mutex::new(memory),
        reads: AtomicUsize::new(0),
        restless: AtomicBool::new(false),
    }));
    disk.acme(OPS);
    follow_these(disk.memory()).await
}

/// Follows these files.
pub(crate) async fn follow_these(memory: Memory) -> Following {
    let disk = Disk(Arc::new(Inner {
        memory: Mutex::new(memory),
        reads: AtomicUsize::new(0),
        restless: AtomicBool::new(false),
    }));
    let loaded = load(Path::new(""), &disk).unwrap();
    let (hints, watcher, stop) = (Hints::new(), Watcher::default(), CancellationToken::new());
    let origin = Instant::now();
    let parts = Parts {
        dir: PathBuf::new(),
        source: Arc::new(disk.clone()),
        watch: Box::new(watcher.clone()),
        hints: hints.clone(),
        target: Picky("egress.roots"),
        now: Box::new(move || Timestamp::default() + origin.elapsed()),
    };
    let (reloader, handle) = Reloader::new(parts, loaded);
    let task = tokio::spawn(reloader.run(stop.clone()));
    sleep(TICK).await;
    Following { disk, hints, watcher, handle, stop, task }
}

impl Following {
    pub(crate) fn generation(&self) -> u64 {
        self.handle.status().generation
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.handle.config().borrow().clone()
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.handle.status().rejected.as_ref().map_or(Vec::new(), |rejected| rejected.errors.clone())
    }

    /// The time until something else is in force.
    pub(crate) async fn next(&self) -> Duration {
        let (started, mut config) = (Instant::now(), self.handle.config());
        config.mark_unchanged();
        timeout(Duration::from_secs(60), config.changed()).await.unwrap().unwrap();
        started.elapsed()
    }

    /// Lets everything come to rest: a round, and a settle if it needs one.
    pub(crate) async fn rest(&self) {
        sleep(QUIET_AT_MOST + SETTLE + TICK).await;
    }

    pub(crate) async fn hint(&self) {
        self.hints.give();
        self.rest().await;
    }

    pub(crate) fn timeout_of_ops(&self) -> Duration {
        let ops = "acme/p/ops".parse().unwrap();
        self.config().webhook(&ops).unwrap().timeout
    }
}

/// Whether a time is this, up to the timer's granularity.
#[track_caller]
pub(crate) fn about(found: Duration, expected: Duration) {
    assert!(found >= expected && found <= expected + 5 * TICK, "{found:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_in_force_after_the_files_were_quiet() {
    let following = follow().await;
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    following.hints.give();
    about(following.next().await, QUIET);
    assert_eq!((following.generation(), following.timeout_of_ops().as_secs()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn files_that_never_rest_are_read_all_the_same() {
    let following = follow().await;
    let hints = following.hints.clone();
    let stirring = tokio::spawn(async move {
        loop {
            hints.give();
            sleep(QUIET / 2).await;
        }
    });
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    about(following.next().await, QUIET_AT_MOST);
    stirring.abort();
}

#[tokio::test(start_paused = true)]
async fn what_no_hint_told_of_is_found_by_the_poll() {
    let following = follow().await;
    sleep(POLL / 2).await;
    following.disk.write("acme", "the-second-secret-of-acme\n");
    let waited = following.next().await;
    assert!(waited > POLL / 3 && waited <= POLL / 2 + QUIET + 5 * TICK, "{waited:?}");
    assert_eq!(
        following.config().organizations["acme"].secret,
        Secret::new("the-second-secret-of-acme").ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_reads_and_parses_nothing_that_has_not_changed() {
    let following = follow().await;
    let before = following.disk.0.reads.load(Ordering::Relaxed);
    sleep(10 * POLL).await;
    assert_eq!(following.disk.0.reads.load(Ordering::Relaxed) - before, 10);
    assert_eq!((following.generation(), following.handle.status().loaded_at), (1, Timestamp::default()));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_read_again_before_it_is_judged() {
    let following = follow().await;
    following.disk.write("organizations/acme.toml", "");
    following.hints.give();
    sleep(QUIET + SETTLE / 2).await;
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    about(following.next().await, SETTLE / 2);
    assert_eq!((following.handle.status().rejections, following.generation()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_changes_nothing_and_is_told_once() {
    let following = follow().await;
    let before = following.config();
    following.disk.acme(&format!("{OPS}timeuot = \"3s\""));
    following.hint().await;
    let errors = following.errors();
    assert!(
        errors[0].starts_with("organizations/acme.toml:6:1: unknown key \"timeuot\"; did you mean"),
        "{errors:?}"
    );
    assert!(Arc::ptr_eq(&following.config(), &before));

    sleep(5 * POLL).await;
    following.hint().await;
    let Err(Refused::Rejected(again)) = following.handle.reload().await else { panic!("it is not in force") };
    assert_eq!((again.errors.clone(), following.handle.status().rejections), (errors, 1));

    // Wrong in another way.
    following.disk.acme("what is this?");
    following.hint().await;
    assert_eq!((following.handle.status().rejections, following.generation()), (2, 1));

    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    following.hint().await;
    assert_eq!((following.errors(), following.generation()), (vec![], 2));
    assert_eq!(following.timeout_of_ops().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_taken_back_leaves_things_as_they_were() {
    let following = follow().await;
    let good = following.disk.memory();
    following.disk.acme("");
    following.disk.write("aquarium.toml", "version = 2");
    following.hint().await;
    assert_eq!(following.handle.status().rejections, 1);
    following.disk.change(|_| good);
    following.hint().await;
    let status = following.handle.status();
    assert_eq!((status.rejected.clone(), status.generation, status.rejections), (None, 1, 1));
    assert_eq!(following.handle.reload().await.unwrap().changes, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_gone_stays_what_it_was() {
    let following = follow().await;
    let first = Secret::new("the-first-secret-of-acme").ok();
    let gone: [fn(Memory) -> Memory; 3] =
        [|m| m.without("acme"), |m| m.file("acme", ""), |m| m.file("acme", "short\n")];
    for (number, change) in (1..).zip(gone) {
        following.disk.change(change);
        following.hint().await;
        assert_eq!(following.config().organizations["acme"].secret, first);
        assert_eq!(following.handle.status().rejections, number);
    }
    following.disk.write("acme", "the-second-secret-of-acme");
    following.hint().await;
    assert_eq!(
        following.config().organizations["acme"].secret,
        Secret::new("the-second-secret-of-acme").ok()
    );
    assert_eq!(following.handle.status().rejected, None);
}

#[tokio::test(start_paused = true)]
async fn a_signing_key_that_is_gone_goes_on_signing() {
    let following = follow().await;
    following.disk.write("key", KEY);
    following.disk.acme(&format!("signing_key = {{ file = \"../key\" }}\n{OPS}"));
    assert_eq!(following.handle.reload().await.unwrap().changes, ["acme: signing key added"]);
    let first = SigningKey::new(KEY).ok();
    let gone: [fn(Memory) -> Memory; 3] =
        [|m| m.without("key"), |m| m.file("key", ""), |m| m.file("key", &KEY[..20])];
    for (number, change) in (1..).zip(gone) {
        following.disk.change(change);
        following.hint().await;
        assert_eq!(following.config().organizations["acme"].signing_key, first);
        assert_eq!(following.handle.status().rejections, number);
    }
    let second = format!("whsec_{}", "A".repeat(40));
    following.disk.write("key", &second);
    following.hint().await;
    assert_eq!(following.config().organizations["acme"].signing_key, SigningKey::new(&second).ok());
    assert_eq!(following.handle.status().rejected, None);
}

#[tokio::test(start_paused = true)]
async fn a_comment_is_read_and_changes_nothing() {
    let following = follow().await;
    let mut config = following.handle.config();
    let digest = following.handle.status().digest;
    following.disk.acme(&format!("# as agreed\n{OPS}"));
    let reloaded = following.handle.reload().await.unwrap();
    assert_eq!((reloaded.generation, reloaded.changes), (2, vec![]));
    assert_ne!(following.handle.status().digest, digest);
    assert!(!config.has_changed().unwrap());
    config.mark_unchanged();
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_what_changed() {
    let following = follow().await;
    following.disk.acme(&format!("{OPS}active = false"));
    following.disk.write("acme", "the-second-secret-of-acme\n");
    let started = Instant::now();
    let (one, another) = tokio::join!(following.handle.reload(), following.handle.reload());
    about(started.elapsed(), QUIET);
    let one = one.unwrap();
    assert_eq!(one.changes, ["acme: secret replaced", "acme/p/ops: deactivated"]);
    assert_eq!((one.generation, &one), (2, &another.unwrap()));
    let status = following.handle.status();
    about(status.loaded_at.since(Timestamp::default()), QUIET + TICK);
}

#[tokio::test(start_paused = true)]
async fn not_more_may_ask_than_can_be_answered() {
    let following = follow().await;
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let handle = following.handle.clone();
            tokio::spawn(async move { handle.reload().await })
        })
        .collect();
    let mut busy = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => {}
            Err(Refused::Busy) => busy += 1,
            Err(refused) => panic!("{refused}"),
        }
    }
    assert!((1..100).contains(&busy), "{busy}");
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_the_same_as_before() {
    let following = follow().await;
    let two = OPS.replace("ops", "two");
    following.disk.acme(&format!("{OPS}{two}"));
    following.hint().await;
    let before = following.config();
    following.disk.acme(&format!("{OPS}{two}timeout = \"3s\""));
    following.hint().await;
    let after = following.config();
    let same = |name: &str| {
        let name = name.parse().unwrap();
        Arc::ptr_eq(before.webhook(&name).unwrap(), after.webhook(&name).unwrap())
    };
    assert_eq!((same("acme/p/ops"), same("acme/p/two")), (true, false));
    assert!(Arc::ptr_eq(&before.organizations["beta"], &after.organizations["beta"]));
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_restart_is_told_once_and_not_half_applied() {
    let following = follow().await;
    following.disk.write(
        "aquarium.toml",
        "version = 1\n[ingest]\nlisten = \"0.0.0.0:1\"\ntoken = { file = \"acme\" }\nmax_event_size = \"2MiB\"\n",
    );
    let reloaded = following.handle.reload().await.unwrap();
    assert_eq!(
        reloaded.changes,
        ["ingest.max_event_size: changed", "ingest.listen: needs a restart", "ingest.token: needs a restart"]
    );
    let config = following.config();
    assert_eq!((config.ingest.listen.to_string().as_str(), &config.ingest.token), ("127.0.0.1:7878", &None));
    assert_eq!(config.ingest.max_event_size, 2 << 20);
    assert_eq!(following.handle.status().needs_restart, ["ingest.listen", "ingest.token"]);

    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    let reloaded = following.handle.reload().await.unwrap();
    assert_eq!(reloaded.changes, ["acme/p/ops: new timeout, new connect_timeout"]);
    assert_eq!(following.handle.status().needs_restart, ["ingest.listen", "ingest.token"]);

    following.disk.write("aquarium.toml", "version = 1\n[queue]\nretention = \"1d\"");
    let reloaded = following.handle.reload().await.unwrap();
    assert_eq!(reloaded.changes, ["ingest.max_event_size: changed", "queue.retention: needs a restart"]);
    assert_eq!(following.handle.status().needs_restart, ["queue.retention"]);
    assert_eq!(following.config().queue.retention.as_secs(), 7 * 24 * 3600);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_put_in_force_is_rejected_as_a_whole() {
    let following = follow().await;
    following.disk.write("aquarium.toml", "version = 1\n[egress]\nroots = \"webpki\"");
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    following.hint().await;
    assert_eq!(following.errors(), ["egress.roots is not good"]);
    assert_eq!((following.generation(), following.timeout_of_ops().as_secs()), (1, 15));
    sleep(3 * POLL).await;
    assert_eq!(following.handle.status().rejections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_done_when_nobody_acts_on_what_it_replaced() {
    let following = follow().await;
    let organization = |name: &str| following.config().organizations[name].clone();

    // Who acts on what stays is not waited for.
    let _untouched = organization("beta");
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    let started = Instant::now();
    following.handle.reload().await.unwrap();
    about(started.elapsed(), QUIET);

    let acting = organization("acme");
    tokio::spawn(async move {
        sleep(QUIET + Duration::from_millis(400)).await;
        drop(acting);
    });
    following.disk.acme(&format!("{OPS}timeout = \"4s\""));
    let started = Instant::now();
    let ((), reloaded) = tokio::join!(
        async {
            // It is in force before that.
            about(following.next().await, QUIET);
        },
        following.handle.reload()
    );
    about(started.elapsed(), QUIET + Duration::from_millis(400));
    assert_eq!(reloaded.unwrap().generation, 3);

    let _acting_for_ever = organization("acme");
    following.disk.acme(&format!("{OPS}timeout = \"5s\""));
    let started = Instant::now();
    following.handle.reload().await.unwrap();
    about(started.elapsed(), QUIET + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn failing_to_watch_is_no_failure_to_follow() {
    let following = follow().await;
    *following.watcher.0.lock().unwrap() = Some("there is no room");
    sleep(POLL).await;
    let watched = following.handle.status().watched.clone();
    assert_eq!(watched.unwrap_err(), "the configuration's files cannot be watched: there is no room");
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    following.next().await;
    *following.watcher.0.lock().unwrap() = Some("panic");
    following.disk.acme(OPS);
    following.next().await;
    let watched = following.handle.status().watched.clone();
    assert_eq!(watched.unwrap_err(), "the configuration's files cannot be watched: the watcher broke off");
    *following.watcher.0.lock().unwrap() = None;
    sleep(POLL).await;
    assert_eq!(following.handle.status().watched, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_it_is_told_to() {
    let following = follow().await;
    following.disk.acme("nonsense");
    following.hints.give();
    advance(QUIET + SETTLE / 2).await;
    let started = Instant::now();
    following.stop.cancel();
    following.task.await.unwrap();
    about(started.elapsed(), Duration::ZERO);
    assert!(matches!(following.handle.reload().await, Err(Refused::Stopped)));
}
