//! The operator's commands, against a running sidecar: what they print, where, and how they end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::{Output, Sidecar, run};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use support::{EVENTS, SOON, accept, binary, event, free_port, start, text};

const OPS: &str = "acme/urban/ops";

/// A sidecar and its endpoints: `ops` takes everything, `gone` answers 410 until it is told otherwise, `refusing` 403.
struct World {
    receiver: Receiver,
    config: ConfigDirectory,
    sidecar: Sidecar,
    client: Client,
    /// Set when `gone` is there again.
    mended: Arc<AtomicBool>,
}

impl World {
    async fn start() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let script = move |request: &Received| match request.path.as_str() {
            "/gone" if !is_mended.load(Ordering::Relaxed) => Behaviour::status(410),
            "/refusing" => Behaviour::status(403),
            _ => Behaviour::status(204),
        };
        let receiver = Receiver::builder().script(script).start().await;
        let mut config = ConfigDirectory::new();
        let all: &[&str] = &["*"];
        config.webhook("acme", "urban", "ops", &receiver.url("/ops"), all, "");
        config.webhook("acme", "urban", "gone", &receiver.url("/gone"), &["dataset-failed"], "");
        config.webhook(
            "acme",
            "urban",
            "refusing",
            &receiver.url("/refusing"),
            &["issue-updated"],
            "retry = []",
        );
        let dead = format!("http://127.0.0.1:{}/", free_port());
        config.webhook("acme", "urban", "dead", &dead, &["issue-updated"], "");
        config.webhook("acme", "urban", "off", &receiver.url("/off"), all, "active = false");
        let (sidecar, client) = start(&config).await;
        Self { receiver, config, sidecar, client, mended }
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        run(binary(), &[arguments, &["--admin", self.sidecar.admin()]].concat(), "").await
    }

    /// What a command prints, which has to end well.
    async fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        ended(&output, 0);
        output.stdout
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat()).await).unwrap()
    }

    /// What a command says beside its data, and its exit code.
    async fn said(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.command(arguments).await;
        (output.stderr, output.status.code().unwrap())
    }

    async fn send(&self, body: &str) -> String {
        text(&accept(&self.client, &format!("{EVENTS}?wait=10s"), body).await, "/id")
    }
}

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", output.stdout, output.stderr);
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[tokio::test]
async fn webhooks_events_and_deliveries_are_listed_and_shown() {
    let world = World::start().await;
    let first = world.send(&event("ds_1")).await;
    let second = world.send(r#"{"event":"issue-updated","project":"urban","issue":{"id":"i_1"}}"#).await;

    has(&world.text(&["webhooks", "list"]).await, &["WEBHOOK", OPS, "inactive", "active"]);
    assert_eq!(
        world.json(&["webhooks", "list", "--status", "inactive"]).await[0]["webhook"],
        "acme/urban/off"
    );
    has(&world.text(&["webhooks", "show", "acme/urban/off"]).await, &["held", "inactive"]);

    let events = world.json(&["events", "list"]).await;
    assert_eq!(
        (text(&events, "/0/id"), text(&events, "/1/id")),
        (second.clone(), first.clone()),
        "the latest first"
    );
    has(
        &world.text(&["events", "show", &second]).await,
        &["issue-updated", "refusing", "exhausted", "403", "skipped"],
    );
    assert_eq!(world.text(&["events", "payload", &first]).await, event("ds_1"), "byte for byte");

    let exhausted = world.json(&["deliveries", "list", "--state", "exhausted"]).await;
    assert_eq!(exhausted.as_array().unwrap().len(), 1);
    let id = text(&exhausted, "/0/id");
    has(
        &world.text(&["deliveries", "show", &id]).await,
        &["acme/urban/refusing", "attempt", "403", "first byte"],
    );
    let listed = world.command(&["deliveries", "list", "--count", "--limit", "2", "--webhook", OPS]).await;
    ended(&listed, 0);
    has(&listed.stdout, &["DELIVERY", "delivered", "dataset-complete", "204"]);
    has(&listed.stderr, &["2 deliveries"]);
    for (filter, number) in [
        (&["--since", "1h"][..], 6),
        (&["--until", "1h"], 0),
        (&["--event-type", "issue-updated"], 4),
        (&["--event", &first], 2),
        (&["--organization", "acme", "--project", "urban", "--state", "delivered,skipped"], 4),
    ] {
        let found = world.json(&[&["deliveries", "list"], filter].concat()).await;
        assert_eq!(found.as_array().unwrap().len(), number, "{filter:?}: {found:#}");
    }
    let oldest = world.json(&["deliveries", "list", "--oldest-first", "--limit", "1"]).await;
    assert_eq!(oldest[0]["event"]["id"], first.as_str());
    assert!(
        !world.text(&["deliveries", "list"]).await.contains('\u{1b}'),
        "no colours where there is no terminal"
    );
}

#[tokio::test]
async fn an_endpoint_is_tested_and_what_is_wrong_with_it_is_said() {
    let world = World::start().await;
    has(&world.text(&["test", OPS]).await, &["delivered", "204"]);
    has(&world.text(&["test", OPS, "--event", "issue-exported"]).await, &["delivered"]);
    let received = world.receiver.received();
    let kinds: Vec<_> = received.iter().map(|request| text(&request.json(), "/event")).collect();
    assert_eq!(kinds, ["test", "issue-exported"]);

    for (webhook, parts) in [
        ("acme/urban/refusing", &["answered-with-error", "403"][..]),
        ("acme/urban/dead", &["failed", "connect", "refused"]),
    ] {
        let output = world.command(&["test", webhook]).await;
        ended(&output, 1);
        has(&output.stdout, parts);
        assert!(output.stderr.len() > 20, "advice: {}", output.stderr);
    }
    for (arguments, part) in [
        (&["test", "acme/urban/off"][..], "not active"),
        (&["test", "acme/urban/opps"], "did you mean \"acme/urban/ops\"?"),
        (&["test", OPS, "--event", "issue-exportd"], "issue-exported"),
    ] {
        let (said, code) = world.said(arguments).await;
        assert_eq!(code, 1, "{said}");
        has(&said, &[part]);
    }
    // Once, and not again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let tries = world.receiver.received().iter().filter(|request| request.path == "/refusing").count();
    assert_eq!(tries, 1);
}

#[tokio::test]
async fn what_was_skipped_or_given_up_is_sent_again() {
    let mut world = World::start().await;
    let id = world.send(r#"{"event":"issue-updated","project":"urban","issue":{"id":"i_1"}}"#).await;
    let exhausted = world.json(&["deliveries", "list", "--state", "exhausted"]).await;
    world.config.webhook("acme", "urban", "refusing", &world.receiver.url("/mended"), &["*"], "");
    world.config.webhook("acme", "urban", "off", &world.receiver.url("/off"), &["*"], "");
    let late = world.receiver.url("/late");
    world.config.webhook("acme", "urban", "late", &late, &["issue-updated"], "");
    has(&world.said(&["config", "reload"]).await.0, &["is in force", "acme/urban/late"]);

    let one = world.said(&["replay", "delivery", &text(&exhausted, "/0/id")]).await;
    assert_eq!(one.1, 0, "{}", one.0);
    for arguments in [
        &["replay", "start", "--state", "skipped", "--since", "1h"][..],
        &["replay", "missed", "acme/urban/late", "--since", "1h"],
    ] {
        let replay = world.json(arguments).await;
        assert_eq!((&replay["state"], &replay["replayed"]), (&"done".into(), &1.into()), "{replay:#}");
        let rpl = text(&replay, "/id");
        has(&world.text(&["replay", "list"]).await, &[&rpl, "done", "100 %"]);
        for verb in ["show", "watch"] {
            has(&world.text(&["replay", verb, &rpl]).await, &[&rpl, "done"]);
        }
    }
    for path in ["/mended", "/off", "/late"] {
        eventually(SOON, "it is sent again", async || {
            let received = world.receiver.received();
            received.iter().any(|r| r.path == path && r.header("webhook-id") == Some(&id))
        })
        .await;
    }
    let (said, code) = world.said(&["replay", "start"]).await;
    assert_eq!(code, 1);
    has(&said, &["--everything"]);
    let (said, code) = world.said(&["replay", "show", "rpl_nonsense"]).await;
    assert_eq!(code, 1, "{said}");
}

#[tokio::test]
async fn a_webhook_that_answered_gone_is_resumed() {
    let world = World::start().await;
    world.send(r#"{"event":"dataset-failed","project":"urban","dataset":{"id":"d"}}"#).await;
    has(&world.text(&["webhooks", "show", "acme/urban/gone"]).await, &["suspended", "410"]);
    let (said, code) = world.said(&["test", "acme/urban/gone"]).await;
    assert_eq!(code, 1);
    has(&said, &["410"]);
    world.mended.store(true, Ordering::Relaxed);
    has(&world.said(&["resume", "acme/urban/gone"]).await.0, &["acme/urban/gone is resumed"]);
    eventually(SOON, "what was held is sent", async || {
        world.json(&["deliveries", "list", "--webhook", "acme/urban/gone"]).await[0]["state"] == "delivered"
    })
    .await;
    let (said, code) = world.said(&["resume", "acme/urban/gone"]).await;
    assert_eq!(code, 1);
    has(&said, &["not suspended"]);
}

#[tokio::test]
async fn who_would_get_an_event_is_told_and_why_nobody_else() {
    let world = World::start().await;
    let table = world.text(&["match", "acme", "urban", "dataset-failed"]).await;
    let line =
        |webhook: &str| table.lines().find(|line| line.starts_with(webhook)).unwrap_or_default().to_owned();
    has(&line("acme/urban/ops"), &["yes"]);
    has(&line("acme/urban/dead"), &["no", "does not want"]);
    has(&line("acme/urban/off"), &["no", "not active"]);
    let (said, code) = world.said(&["match", "acme", "urban", "dataset-faild"]).await;
    assert_eq!(code, 1);
    has(&said, &["dataset-failed"]);
}

#[tokio::test]
async fn deliveries_are_followed() {
    let world = World::start().await;
    let mut ids = vec![world.send(&event("ds_0")).await];
    let mut following = Command::new(binary())
        .args([
            "deliveries",
            "list",
            "--follow",
            "--json",
            "--webhook",
            OPS,
            "--admin",
            world.sidecar.admin(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        text(&serde_json::from_str(&line).unwrap(), "/event/id")
    };
    assert_eq!(next().await, ids[0]);
    for number in 1..4 {
        ids.push(world.send(&event(&format!("ds_{number}"))).await);
    }
    for id in &ids[1..] {
        assert_eq!(&next().await, id, "in the order in which they came, and each once");
    }
}

#[tokio::test]
async fn a_sidecar_that_is_not_there_or_wants_a_token_is_told_of() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    for arguments in [&["webhooks", "list"][..], &["healthcheck"], &["test", OPS]] {
        let output = run(binary(), &[arguments, &["--admin", &dead]].concat(), "").await;
        ended(&output, 1);
        has(&output.stderr, &["is the sidecar running there?"]);
    }

    let mut config = ConfigDirectory::new();
    config.write("secrets/admin", "admin-token-0123456789");
    config.write("secrets/other", "other-token-0123456789");
    config.section("admin", "listen = \"127.0.0.1:0\"\ntoken = { file = \"secrets/admin\" }");
    let (sidecar, _) = start(&config).await;
    let file = |name: &str| config.path().join("secrets").join(name).display().to_string();
    let ask = async |more: &[&str]| {
        run(binary(), &[&["webhooks", "list", "--admin", sidecar.admin()], more].concat(), "").await
    };
    let output = ask(&[]).await;
    ended(&output, 1);
    has(&output.stderr, &["--token-file"]);
    let output = ask(&["--token-file", &file("other")]).await;
    ended(&output, 1);
    has(&output.stderr, &["does not accept this token"]);
    ended(&ask(&["--token-file", &file("admin")]).await, 0);
    let output = run(binary(), &["healthcheck", "--admin", sidecar.admin()], "").await;
    ended(&output, 0);
}

#[tokio::test]
async fn what_is_logged_can_be_changed() {
    let world = World::start().await;
    assert_eq!(world.text(&["log"]).await.trim(), "info");
    assert_eq!(
        world.text(&["log", "warn,aquarium_dispatch=debug"]).await.trim(),
        "aquarium_dispatch=debug,warn"
    );
    let (said, code) = world.said(&["log", "loud=="]).await;
    assert_eq!(code, 1);
    has(&said, &["\"loud==\": \"=\" is not a level"]);
    assert_eq!(world.text(&["log"]).await.trim(), "aquarium_dispatch=debug,warn");
}

#[tokio::test]
async fn completions_and_the_manual_name_every_command() {
    let commands = ["run", "test", "webhooks", "deliveries", "replay", "resume", "match", "config", "queue"];
    for shell in ["bash", "zsh", "fish"] {
        let output = run(binary(), &["completions", shell], "").await;
        ended(&output, 0);
        has(&output.stdout, &commands);
    }
    let output = run(binary(), &["man"], "").await;
    ended(&output, 0);
    has(&output.stdout, &["AQUARIUM-SIDECAR REPLAY MISSED", "ORG/PROJECT/WEBHOOK"]);
}
