//! Guarantee 7, on the operator's side: what an app, an endpoint or a caller wrote does not steer the terminal that shows it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::sidecar::run;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use support::{EVENTS, SOON, accept, binary, start};

/// C1, DEL and a change of direction, as JSON lets them stand in a string.
const PAYLOAD: &str = "{\"event\":\"dataset-complete\",\"project\":\"urban\u{202e}\",\
                       \"dataset\":{\"id\":\"\u{9d}52;c;AAAA\u{9c} \u{7f}\u{9b}2J \u{2066}\"}}";

/// A terminal with a command in it: what is printed comes out of the channel until the command has ended.
struct Terminal {
    child: Child,
    printed: mpsc::UnboundedReceiver<String>,
}

impl Terminal {
    fn run(args: &[&str]) -> Terminal {
        let (controller, terminal) = pair();
        let child = Command::new(binary())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::from(terminal.try_clone().unwrap()))
            .stderr(Stdio::from(terminal))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (send, printed) = mpsc::unbounded_channel();
        // Reading ends with an error when nothing has the terminal open any more.
        std::thread::spawn(move || {
            let mut controller = File::from(controller);
            let mut buffer = [0; 4096];
            while let Ok(length) = controller.read(&mut buffer) {
                if length == 0 || send.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err()
                {
                    break;
                }
            }
        });
        Terminal { child, printed }
    }

    /// Everything up to this text, or up to the end.
    async fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            match timeout(SOON, self.printed.recv()).await.expect("it prints something") {
                Some(part) => all += &part,
                None => break,
            }
        }
        all
    }
}

fn pair() -> (OwnedFd, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    (controller, OpenOptions::new().read(true).write(true).open(name).unwrap())
}

/// Colours are the only sequences that a command prints.
#[track_caller]
fn assert_harmless(args: &[&str], printed: &str) {
    let plain = anstream::adapter::strip_str(printed).to_string();
    let escapes = printed.matches('\u{1b}').count();
    let colours = printed.matches("\u{1b}[").count();
    assert_eq!(escapes, colours, "{args:?}: {printed:?}");
    assert!(!printed.contains("\u{1b}[2J"), "{args:?}: {printed:?}");
    let harmful: Vec<_> = plain
        .chars()
        .filter(|c| !aquarium_event::is_visible(*c) && !matches!(c, '\n' | '\r' | '\t'))
        .collect();
    assert_eq!(harmful, [], "{args:?}: {printed:?}");
}

#[tokio::test]
async fn data_is_escaped_on_a_terminal_and_nowhere_else() {
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban\u{202e}", "ops", "https://ops.invalid/", &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    let accepted = accept(&client, EVENTS, PAYLOAD).await;
    let event = accepted["id"].as_str().unwrap().to_owned();
    let delivery = accepted["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let (admin, ingest) = (sidecar.admin().to_owned(), sidecar.ingest().to_owned());
    let directory = config.path().display().to_string();
    let admin = ["--admin", &*admin];
    let commands: &[&[&str]] = &[
        &["events", "payload", &event],
        &["events", "show", &event, "--json"],
        &["events", "show", &event],
        &["events", "list", "--json"],
        &["events", "list"],
        &["deliveries", "show", &delivery, "--json"],
        &["deliveries", "list"],
        &["webhooks", "list"],
    ];
    for command in commands {
        let args = [*command, &admin].concat();
        let mut terminal = Terminal::run(&args);
        let printed = terminal.until("\u{0}").await;
        assert!(terminal.child.wait().await.unwrap().success(), "{printed}");
        assert!(printed.contains("urban"), "{args:?}: {printed:?}");
        assert_harmless(&args, &printed);
    }
    let mut terminal = Terminal::run(&["events", "payload", &event, admin[0], admin[1]]);
    let printed = terminal.until("}}").await;
    assert_eq!(
        serde_json::from_str::<Value>(&printed).unwrap(),
        serde_json::from_str::<Value>(PAYLOAD).unwrap(),
        "it means the same"
    );
    let piped = run(binary(), &["events", "payload", &event, admin[0], admin[1]], "").await;
    assert_eq!(piped.stdout, PAYLOAD, "byte for byte");

    let check = ["check", "--config", &directory];
    assert_harmless(&check, &Terminal::run(&check).until("\u{0}").await);
    let send = ["send", "--url", &*ingest, "--organization", "a\u{9b}2J\u{202e}", "--sample", "test"];
    assert_harmless(&send, &Terminal::run(&send).until("\u{0}").await);

    drop(client);
    assert!(sidecar.terminate(SOON).await.success());
    let export = ["queue", "export", "--config", &directory];
    let printed = Terminal::run(&export).until("1 events").await;
    assert!(printed.contains("urban"), "{printed}");
    assert_harmless(&export, &printed);
}

#[tokio::test]
async fn what_a_stranger_posts_to_listen_does_not_steer_the_terminal() {
    let address = format!("127.0.0.1:{}", support::free_port());
    let mut terminal = Terminal::run(&["listen", "--address", &address]);
    terminal.until("listening on").await;
    let client = Client::new(&format!("http://{address}"));
    for body in [
        PAYLOAD,
        r#"{"event":"\u001b]0;owned\u0007\u001b[2J","project":"\u009b2J\u202e"}"#,
        r#"{"event":"test","project":"p","\u001b[2J":{"\u009d52;c;AAAA\u009c":1}}"#,
        "\u{1b}[2J not JSON \u{9b}2J",
    ] {
        let headers = [("Content-Type", "application/json"), ("Webhook-Id", "evt_1")];
        let answer =
            timeout(Duration::from_secs(20), client.post("/", &headers, body)).await.unwrap().unwrap();
        assert_eq!(answer.status, 204);
        let printed = terminal.until("bytes").await;
        assert_harmless(&[body], &printed);
    }
}
