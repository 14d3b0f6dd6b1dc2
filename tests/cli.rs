//! The commands: what they print, where, and how they end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::process::Stdio;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::{Output, run};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use support::{SOON, binary, event, free_port, start};

async fn command(args: &[&str], stdin: &str) -> Output {
    run(binary(), args, stdin).await
}

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", output.stdout, output.stderr);
}

#[tokio::test]
async fn check_prints_what_is_configured() {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban-driving", "ops", "https://ops.example.com/hooks", &["*"], "");
    config.webhook(
        "acme",
        "parking",
        "labeling",
        "https://labels.example.com/",
        &["issue-exported"],
        "active = false",
    );
    config.webhook("zenith", "harbour", "all", "https://zenith.example.com/", &["test"], "");
    let directory = config.path().display().to_string();

    let output = command(&["check", "--config", &directory], "").await;
    ended(&output, 0);
    for part in ["acme", "urban-driving", "ops", "parking", "labeling", "zenith", "harbour", "issue-exported"]
    {
        assert!(output.stdout.contains(part), "no {part:?} in:\n{}", output.stdout);
    }
    let output = command(&["check", "--json", "--config", &directory], "").await;
    ended(&output, 0);
    let _: Value = serde_json::from_str(&output.stdout).expect("JSON");
    for secret in ["acme", "zenith"].map(|name| config.secret(name)) {
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret));
    }
}

#[tokio::test]
async fn check_reports_all_errors_with_their_places() {
    let mut config = ConfigDirectory::new();
    config.section("delivery", "timout = \"5s\"\nconcurrency = 0");
    config.webhook("acme", "urban", "ops", "https://ops.example.com/", &["dataset-completed"], "");
    config.organization_raw("zenith", "secret = { file = \"../secrets/acme\" }\n");
    let directory = config.path().display().to_string();

    for name in ["check", "run"] {
        let output = command(&[name, "--config", &directory], "").await;
        ended(&output, 78);
        assert_eq!(output.stdout, "");
        let places = ["timout", "concurrency", "dataset-completed"].map(|wrong| place(&config, wrong));
        for part in places.iter().map(String::as_str).chain(["timeout", "dataset-complete\"", "zenith.toml"])
        {
            assert!(output.stderr.contains(part), "{name}: no {part:?} in:\n{}", output.stderr);
        }
    }
}

/// Where something stands for the first time, as `file.toml:line`.
fn place(config: &ConfigDirectory, what: &str) -> String {
    for file in ["aquarium.toml", "organizations/acme.toml"] {
        let text = std::fs::read_to_string(config.path().join(file)).unwrap();
        if let Some(line) = text.lines().position(|line| line.contains(what)) {
            return format!("{file}:{}:", line + 1);
        }
    }
    panic!("{what} is nowhere");
}

#[tokio::test]
async fn send_posts_a_sample_a_file_or_stdin() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    for project in ["urban", "urban-driving"] {
        config.webhook("acme", project, "ops", &receiver.url("/"), &["*"], "");
    }
    let (sidecar, _) = start(&config).await;
    let send = ["send", "--url", sidecar.ingest(), "--organization", "acme"];
    let file = config.scratch().join("event.json");
    std::fs::write(&file, event("ds_1")).unwrap();
    let file = file.display().to_string();

    let kind = aquarium_event::Type::IssueExported;
    let sample = aquarium_event::sample(&kind).unwrap();
    let cases: [(&[&str], &str, &str); 3] = [
        (&["--sample", "issue-exported"], "", sample),
        (&[&file], "", &event("ds_1")),
        (&["--wait", "10s", "-"], &event("ds_2"), &event("ds_2")),
    ];
    for (number, (args, stdin, body)) in cases.into_iter().enumerate() {
        let output = command(&[&send[..], args].concat(), stdin).await;
        ended(&output, 0);
        let answer: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(answer["deliveries"].as_array().unwrap().len(), 1, "{answer}");
        let received = receiver.wait_for(number + 1, SOON).await;
        assert_eq!(received[number].header("webhook-id"), answer["id"].as_str());
        assert_eq!(received[number].body.trim_ascii(), body.as_bytes().trim_ascii());
    }

    let refused = command(&[&send[..], &["-"]].concat(), r#"{"event":"tset"}"#).await;
    ended(&refused, 1);
    assert!(refused.stderr.contains("tset"), "{}", refused.stderr);
}

#[tokio::test]
async fn send_says_when_nobody_is_there() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let output = command(&["send", "--url", &url, "--organization", "acme", "--sample", "test"], "").await;
    ended(&output, 1);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(&port.to_string()), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    for args in [&["runn"][..], &["run", "--confg", "x"], &["send", "--organization", "acme"], &[]] {
        let output = command(args, "").await;
        ended(&output, 2);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("Usage"), "{}", output.stderr);
    }
    ended(&command(&["--help"], "").await, 0);
    ended(&command(&["--version"], "").await, 0);
}

#[tokio::test]
async fn a_log_filter_that_would_silence_the_log_is_a_usage_error_and_an_empty_one_is_the_default() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let directory = config.path().display().to_string();
    for filter in ["warning", "inf", "verbose", "9", "info debug", "aquarium_dispatch", "info,[x{y=1"] {
        let output = command(&["run", "--config", &directory, "--log", filter], "").await;
        ended(&output, 2);
        assert!(output.stderr.contains("accepted: off, error, warn, info"), "{}", output.stderr);
    }
    let by_variable = async |filter: &str| {
        let started = Command::new(binary())
            .args(["run", "--config", &directory])
            .env("AQUARIUM_LOG", filter)
            .env("AQUARIUM_LOG_FORMAT", "text")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = started.unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        (child, first)
    };
    let (mut child, first) = by_variable("warning").await;
    assert!(first.contains("did you mean \"warn\"?"), "{first}");
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(2));
    let (_child, first) = by_variable(" ").await;
    assert!(first.contains("INFO"), "{first}");
}

const TYPES: [&str; 6] =
    ["dataset-complete", "dataset-failed", "issues-created", "issue-updated", "issue-exported", "test"];

#[tokio::test]
async fn demo_shows_every_event_verified_and_ends_at_ctrl_c() {
    let mut demo = Command::new(binary())
        .arg("demo")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (lines, mut printed) = mpsc::unbounded_channel();
    tokio::spawn(forward(demo.stdout.take().unwrap(), lines.clone()));
    tokio::spawn(forward(demo.stderr.take().unwrap(), lines));

    let mut text = String::new();
    let shown = async {
        while !(TYPES.iter().all(|kind| shows(&text, kind)) && text.contains("curl ")) {
            let line = printed.recv().await.expect("it runs until Ctrl-C");
            text += &format!("{line}\n");
        }
    };
    let shown = timeout(SOON, shown).await;
    assert!(shown.is_ok(), "not every event was shown as verified:\n{text}");
    assert!(!text.contains("not verified"), "{text}");

    interrupt(&demo).await;
    let status = timeout(SOON, demo.wait()).await.expect("it ends at Ctrl-C").unwrap();
    assert_eq!(status.code(), Some(0));
}

/// Whether a line says that an event of this type was verified.
fn shows(text: &str, kind: &str) -> bool {
    text.lines().any(|line| line.contains("verified") && line.split_whitespace().any(|word| word == kind))
}

async fn forward(stream: impl AsyncRead + Unpin, lines: mpsc::UnboundedSender<String>) {
    let mut stream = BufReader::new(stream).lines();
    while let Ok(Some(line)) = stream.next_line().await {
        // The test may have seen enough; the pipe is read on, so that nobody waits for it.
        let _ = lines.send(line);
    }
}

async fn interrupt(child: &Child) {
    let command = format!("kill -INT {}", child.id().unwrap());
    assert!(Command::new("sh").args(["-c", &command]).status().await.unwrap().success());
}
