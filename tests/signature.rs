//! With a signing key every request is signed as Standard Webhooks says, and its libraries accept it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::{Sidecar, run};
use data_encoding::BASE64;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use support::{EVENTS, SOON, accept, binary, event, start};

const KEY_FILE: &str = "signing-keys/acme";
const SIGNED: &str = "signing_key = { file = \"../signing-keys/acme\" }\n";
/// The package that signatures are checked with, as it is installed.
const PACKAGE: &str = "standardwebhooks==1.1.0";
/// How long its installation may take.
const INSTALLED: Duration = Duration::from_secs(90);
/// How long the check may take.
const CHECKED: Duration = Duration::from_secs(30);

/// A key of this many bytes, each of them this one.
fn key(byte: u8, length: usize) -> String {
    format!("whsec_{}", BASE64.encode(&vec![byte; length]))
}

/// One organization that signs with `key`, and its webhook.
fn config(url: &str, key: &str) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.section("ingest", "listen = \"127.0.0.1:0\"\nmax_event_size = \"2MiB\"");
    config.section("delivery", "jitter = 0.0\nretry = [\"1500ms\"]");
    config.write(KEY_FILE, format!("{key}\n"));
    config.organization("acme", SIGNED);
    config.webhook("acme", "urban", "ops", url, &["*"], "");
    config
}

/// An event of the project `urban` with a body of about this many bytes.
fn large_event(bytes: usize) -> String {
    let filler = "a long story, ".repeat(bytes / 14);
    format!(
        r#"{{"event":"dataset-complete","project":"urban","dataset":{{"id":"ds_1","story":"{filler}"}}}}"#
    )
}

/// The signature that a request should have, from the definition of HMAC (RFC 2104) for keys of up to a block.
fn signature(key: &str, request: &Received) -> String {
    let key = BASE64.decode(key.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(&key);
    let hash = |pad: u8, text: &[u8]| {
        Sha256::new().chain_update(block.map(|b| b ^ pad)).chain_update(text).finalize()
    };
    let [id, timestamp] = ["webhook-id", "webhook-timestamp"].map(|name| request.header(name).unwrap());
    let signed = [format!("{id}.{timestamp}.").as_bytes(), &request.body].concat();
    format!("v1,{}", BASE64.encode(&hash(0x5c, &hash(0x36, &signed))))
}

#[track_caller]
fn is_signed(request: &Received, key: &str) {
    let signature = signature(key, request);
    assert_eq!(request.headers_named("webhook-signature"), [signature.as_bytes()]);
}

async fn reload(sidecar: &Sidecar) -> Value {
    let response = Client::new(sidecar.admin()).post("/v1/config/reload", &[], "").await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["changes"].take()
}

#[tokio::test]
async fn every_body_is_signed_with_the_values_that_its_request_carries() {
    let receiver = Receiver::start().await;
    let key = key(7, 32);
    let config = config(&receiver.url("/"), &key);
    let (_sidecar, client) = start(&config).await;
    let spaced = " { \"event\" : \"test\",\r\n\"project\":\"urban\" }\n";
    let bodies = [event("名前 🐟"), spaced.to_owned(), large_event(1_000_000)];
    for (number, body) in bodies.iter().enumerate() {
        accept(&client, EVENTS, body.as_str()).await;
        let received = receiver.wait_for(number + 1, SOON).await;
        assert_eq!(received[number].body, body.as_bytes());
        is_signed(&received[number], &key);
    }
}

#[tokio::test]
async fn a_retry_has_a_timestamp_and_a_signature_of_its_own() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let key = key(7, 32);
    let config = config(&receiver.url("/"), &key);
    let (_sidecar, client) = start(&config).await;
    accept(&client, EVENTS, event("ds_1")).await;

    let received = receiver.wait_for(2, SOON).await;
    for request in &received {
        is_signed(request, &key);
    }
    let header = |name: &str| [0, 1].map(|number: usize| received[number].header(name).unwrap().to_owned());
    let [ids, timestamps, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
    assert_eq!(ids[0], ids[1]);
    assert_ne!(timestamps[0], timestamps[1]);
    assert_ne!(signatures[0], signatures[1]);
}

#[tokio::test]
async fn a_new_key_signs_the_next_attempt_of_what_was_queued_before() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let (old, new) = (key(7, 32), key(8, 24));
    let config = config(&receiver.url("/"), &old);
    let (sidecar, client) = start(&config).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    config.write(KEY_FILE, &new);
    assert_eq!(reload(&sidecar).await, json!(["acme: signing key replaced"]));
    let received = receiver.wait_for(2, SOON).await;
    is_signed(&received[0], &old);
    is_signed(&received[1], &new);
    for key in [&old["whsec_".len()..], &new["whsec_".len()..]] {
        assert!(sidecar.logs().iter().all(|line| !line.contains(key)), "a key is in the log");
    }
}

#[tokio::test]
async fn a_key_that_is_gone_goes_on_signing() {
    let receiver = Receiver::start().await;
    let key = key(7, 64);
    let config = config(&receiver.url("/"), &key);
    let (sidecar, client) = start(&config).await;
    std::fs::remove_file(config.path().join(KEY_FILE)).unwrap();
    let line = sidecar.wait_for_log("configuration not used", SOON).await;
    assert!(line.contains(KEY_FILE) && line.contains("there is no such file"), "{line}");
    for (content, reason) in [("", "it is empty"), (&key[..20], "cut off")] {
        config.write(KEY_FILE, content);
        sidecar.wait_for_log(reason, SOON).await;
    }
    accept(&client, EVENTS, event("ds_1")).await;
    is_signed(&receiver.wait_for(1, SOON).await[0], &key);
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"), &key(7, 32));
    config.webhook("beta", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (sidecar, client) = start(&config).await;
    accept(&client, "/v1/organizations/beta/events", event("ds_1")).await;
    receiver.wait_for(1, SOON).await;

    config.organization("acme", "");
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    assert_eq!(reload(&sidecar).await, json!(["acme: signing key removed"]));
    accept(&client, EVENTS, event("ds_2")).await;
    for request in receiver.wait_for(2, SOON).await {
        assert_eq!(request.header("webhook-signature"), None);
        assert!(request.header("x-aquarium-secret").is_some());
    }
}

/// Organizations with keys of all lengths, one of them generated; and what was sent for each.
async fn requests() -> Vec<Value> {
    let receiver = Receiver::start().await;
    let mut config = config(&receiver.url("/"), &key(7, 24));
    config.organization("beta", "signing_key = { file = \"../signing-keys/beta\" }\n");
    config.webhook("beta", "urban", "ops", &receiver.url("/"), &["*"], "");
    let directory = config.path().display().to_string();
    let generate = ["secret", "generate", "beta", "--signing-key", "--config", &directory];
    let generated = run(binary(), &generate, "").await;
    assert!(generated.status.success(), "{}", generated.stderr);
    config.organization("gamma", "signing_key = { file = \"../signing-keys/gamma\" }\n");
    config.webhook("gamma", "urban", "ops", &receiver.url("/"), &["*"], "");
    config.write("signing-keys/gamma", key(8, 64));

    let (_sidecar, client) = start(&config).await;
    let bodies = [
        event("名前 🐟"),
        " {\"event\":\"test\",\n \"project\":\"urban\"} ".to_owned(),
        large_event(1_000_000),
    ];
    let mut requests = Vec::new();
    for (organization, body) in ["acme", "beta", "gamma"].into_iter().zip(bodies) {
        accept(&client, &format!("/v1/organizations/{organization}/events"), body).await;
        let received = receiver.wait_for(requests.len() + 1, SOON).await;
        let received = &received[requests.len()];
        let key = std::fs::read_to_string(config.path().join("signing-keys").join(organization)).unwrap();
        let headers: Value = received
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(str::from_utf8(value).unwrap())))
            .collect();
        requests.push(json!({
            "key": key.trim_end(), "headers": headers, "body": str::from_utf8(&received.body).unwrap(),
        }));
    }
    requests
}

/// Reads requests, accepts each as it came, and none that was changed.
const SCRIPT: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

def changed(request):
    headers = request["headers"]
    names = {name.lower(): name for name in headers}
    yield {**request, "body": request["body"] + " "}
    yield {**request, "body": request["body"].replace("urban", "Urban")}
    yield {**request, "key": "whsec_" + "A" * 32}
    for name in "webhook-id", "webhook-timestamp":
        value = headers[names[name]]
        yield {**request, "headers": {**headers, names[name]: value[:-1] + ("1" if value[-1] == "0" else "0")}}
    yield {**request, "headers": {name: value for name, value in headers.items() if name.lower() != "webhook-signature"}}

def verify(request):
    Webhook(request["key"]).verify(request["body"], request["headers"])

accepted = rejected = 0
for request in json.load(sys.stdin):
    verify(request)
    accepted += 1
    for other in changed(request):
        try:
            verify(other)
        except WebhookVerificationError:
            rejected += 1
print(accepted, "accepted,", rejected, "rejected")
"#;

#[tokio::test]
async fn the_official_package_accepts_what_is_sent_and_nothing_else() {
    let python = match timeout(INSTALLED, Python::install()).await {
        Ok(Ok(python)) => python,
        Ok(Err(reason)) => return skip(&reason),
        Err(_) => return skip("its installation takes too long"),
    };
    let input = Value::from(requests().await).to_string();
    let checked = timeout(CHECKED, python.run(SCRIPT, &input)).await.expect("the check ends in time");
    assert_eq!(checked.unwrap(), "3 accepted, 18 rejected\n");
}

/// Says that the package could not be asked, which is a failure where it has to be.
fn skip(reason: &str) {
    assert!(std::env::var_os("AQUARIUM_REQUIRE_PYTHON").is_none(), "{PACKAGE}: {reason}");
    // Not by `eprintln!`, which nobody gets to see of a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped: {PACKAGE}: {reason}");
}

/// A Python that has the package, in a directory that is deleted when this is dropped.
struct Python {
    directory: TempDir,
}

impl Python {
    async fn install() -> Result<Python, String> {
        let python = Python { directory: tempfile::tempdir().unwrap() };
        let environment = python.directory.path().join("environment");
        python.output(Command::new("python3").args(["-m", "venv"]).arg(environment), "").await?;
        let install =
            ["-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--retries", "2"];
        python.output(Command::new(python.interpreter()).args(install).arg(PACKAGE), "").await?;
        Ok(python)
    }

    fn interpreter(&self) -> PathBuf {
        self.directory.path().join("environment/bin/python3")
    }

    async fn run(&self, script: &str, input: &str) -> Result<String, String> {
        self.output(Command::new(self.interpreter()).args(["-c", script]), input).await
    }

    /// What a command prints, given this input.
    async fn output(&self, command: &mut Command, input: &str) -> Result<String, String> {
        let mut child = command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TMPDIR", self.directory.path())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("python3 cannot be started: {error}"))?;
        // A command that ends early says why in its output.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = child.wait_with_output().await.unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        if output.status.success() { Ok(out) } else { Err(format!("{}: {out}{err}", output.status)) }
    }
}
