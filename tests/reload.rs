//! A changed file changes what the running sidecar does, at once and as a whole.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::certificates::Authority;
use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::{Sidecar, Signal, run};
use serde_json::{Value, json};
use tokio::time::sleep;

use support::{EVENTS, JSON, SOON, accept, binary, event, start, text};

const RELOAD: &str = "/v1/config/reload";

fn ops(config: &mut ConfigDirectory, url: &str, extra: &str) {
    config.webhook("acme", "urban", "ops", url, &["*"], extra);
}

/// Reads the configuration now, and returns what is said to have changed.
async fn reload(sidecar: &Sidecar) -> Vec<String> {
    let response = Client::new(sidecar.admin()).post(RELOAD, &[], "").await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_value(response.json()["changes"].clone()).unwrap()
}

async fn status(sidecar: &Sidecar) -> Value {
    let response = Client::new(sidecar.admin()).get("/v1/config").await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

#[tokio::test]
async fn a_file_that_was_changed_is_followed() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/old"), "");
    let (sidecar, client) = start(&config).await;
    let before = status(&sidecar).await;
    assert_eq!((&before["generation"], &before["rejected"]), (&json!(1), &Value::Null));
    assert_eq!((&before["watch_error"], &before["needs_restart"]), (&Value::Null, &json!([])));

    ops(&mut config, &receiver.url("/new"), "headers = { X-Team = \"blue\" }");
    let line = sidecar.wait_for_log("is in force", SOON).await;
    assert!(line.ends_with("configuration 2 is in force: acme/urban/ops: new url, new headers"), "{line}");
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    let received = &receiver.wait_for(1, SOON).await[0];
    assert_eq!((received.path.as_str(), received.header("x-team")), ("/new", Some("blue")));
    let after = status(&sidecar).await;
    assert_eq!(after["generation"], 2);
    assert_ne!(after["digest"], before["digest"]);
    assert!(text(&after, "/loaded_at") > text(&before, "/loaded_at"));
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_told_once_with_its_place() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;

    ops(&mut config, &receiver.url("/other"), "timeuot = \"3s\"");
    let line = sidecar.wait_for_log("configuration not used", SOON).await;
    assert!(line.contains("ERROR") && line.contains("1 stays in force"), "{line}");
    assert!(
        line.contains("organizations/acme.toml:7:1: unknown key \"timeuot\"; did you mean \"timeout\"?"),
        "{line}"
    );

    let admin = Client::new(sidecar.admin());
    for _ in 0..2 {
        let refused = admin.post(RELOAD, &[], "").await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.json()["code"].as_str()), (422, Some("invalid-config")));
        assert!(text(&refused.json(), "/errors/0").contains("acme.toml:7:1"), "{}", refused.text());
    }
    let told = sidecar.logs().iter().filter(|line| line.contains("timeuot")).count();
    assert_eq!(told, 1, "{:#?}", sidecar.logs());
    let status = status(&sidecar).await;
    assert_eq!((&status["generation"], &status["rejections"]), (&json!(1), &json!(1)));
    assert!(text(&status, "/rejected/errors/0").contains("acme.toml:7:1"), "{status}");
    accept(&client, EVENTS, event("ds_1")).await;
    assert_eq!(receiver.wait_for(1, SOON).await[0].path, "/");

    ops(&mut config, &receiver.url("/other"), "timeout = \"3s\"");
    sidecar.wait_for_log("configuration 2 is in force: acme/urban/ops: new url, new timeout", SOON).await;
}

#[tokio::test]
async fn sighup_reads_the_configuration() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (mut sidecar, _) = start(&config).await;
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log("configuration 1 stays in force: nothing that matters has changed", SOON).await;
    ops(&mut config, &receiver.url("/"), "active = false");
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log("configuration 2 is in force: acme/urban/ops: deactivated", SOON).await;
    assert!(sidecar.running());
}

#[tokio::test]
async fn a_new_secret_is_used_for_what_was_queued_before() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "jitter = 0.0\nretry = [\"1500ms\"]");
    ops(&mut config, &receiver.url("/"), "");
    let old = config.secret("acme").to_owned();
    let (sidecar, client) = start(&config).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    let new = config.new_secret("acme");
    assert_eq!(reload(&sidecar).await, ["acme: secret replaced"]);
    let received = receiver.wait_for(2, SOON).await;
    let secrets = [0, 1].map(|number: usize| received[number].header("x-aquarium-secret"));
    assert_eq!(secrets, [Some(old.as_str()), Some(new.as_str())]);
    for secret in [old, new] {
        assert!(sidecar.logs().iter().all(|line| !line.contains(&secret)), "a secret is in the log");
    }
}

#[tokio::test]
async fn a_secret_that_was_generated_is_used_at_once() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    let directory = config.path().display().to_string();
    let arguments = ["secret", "generate", "acme", "--replace", "--config", &directory];
    let generated = run(binary(), &arguments, "").await;
    assert!(generated.status.success(), "{}", generated.stderr);
    sidecar.wait_for_log("configuration 2 is in force: acme: secret replaced", SOON).await;
    accept(&client, EVENTS, event("ds_1")).await;
    let received = &receiver.wait_for(1, SOON).await[0];
    assert_eq!(received.header("x-aquarium-secret"), Some(generated.stdout.trim_end()));
}

#[tokio::test]
async fn a_secret_that_is_gone_is_not_left_out() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    let secret = config.path().join("secrets/acme");

    std::fs::remove_file(&secret).unwrap();
    let line = sidecar.wait_for_log("configuration not used", SOON).await;
    assert!(line.contains("secrets/acme") && line.contains("there is no such file"), "{line}");
    std::fs::write(&secret, "").unwrap();
    sidecar.wait_for_log("it is empty", SOON).await;
    accept(&client, EVENTS, event("ds_1")).await;
    let received = &receiver.wait_for(1, SOON).await[0];
    assert_eq!(received.header("x-aquarium-secret"), Some(config.secret("acme")));
}

#[tokio::test]
async fn an_inactive_webhook_gets_nothing_and_goes_on_with_what_was_held() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "jitter = 0.0\nretry = [\"2s\"]");
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;

    let held = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_held")).await;
    ops(&mut config, &receiver.url("/"), "active = false");
    assert_eq!(reload(&sidecar).await, ["acme/urban/ops: deactivated"]);
    let skipped = accept(&client, EVENTS, event("ds_skipped")).await;
    assert_eq!(
        (&skipped["deliveries"], &skipped["skipped"][0]["webhook"]),
        (&json!([]), &json!("acme/urban/ops"))
    );
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(receiver.count(), 1, "something was sent to it");

    ops(&mut config, &receiver.url("/"), "");
    assert_eq!(reload(&sidecar).await, ["acme/urban/ops: activated"]);
    let fresh = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_fresh")).await;
    assert_eq!(fresh["deliveries"][0]["outcome"]["state"], "delivered", "{fresh}");
    receiver.wait_for(3, SOON).await;
    let times = [&held, &fresh, &skipped].map(|event| receiver.times(&text(event, "/id")));
    assert_eq!(times, [2, 1, 0]);
}

#[tokio::test]
async fn a_webhook_that_is_removed_keeps_its_deliveries_until_it_is_back() {
    let receiver = Receiver::builder()
        .script(Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]))
        .start()
        .await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "jitter = 0.0\nretry = [\"4s\", \"1s\"]");
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    config.remove_webhook("acme", "urban", "ops");
    assert_eq!(reload(&sidecar).await, ["acme/urban/ops: removed"]);
    let unwanted = accept(&client, EVENTS, event("ds_2")).await;
    assert_eq!(unwanted["deliveries"], json!([]));
    // Longer than the retry schedule says.
    sleep(Duration::from_millis(4_500)).await;
    assert_eq!(receiver.count(), 1);

    ops(&mut config, &receiver.url("/back"), "");
    assert_eq!(reload(&sidecar).await, ["acme/urban/ops: added"]);
    let received = receiver.wait_for(2, SOON).await;
    assert_eq!((received[1].path.as_str(), received[1].header("aquarium-attempt")), ("/back", Some("2")));
}

#[tokio::test]
async fn a_suspended_webhook_goes_on_when_its_url_changes() {
    let script = |request: &Received| Behaviour::status(if request.path == "/gone" { 410 } else { 204 });
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/gone"), "");
    let (sidecar, client) = start(&config).await;
    let answer = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "held", "{answer}");

    ops(&mut config, &receiver.url("/here"), "");
    assert_eq!(reload(&sidecar).await, ["acme/urban/ops: new url"]);
    assert_eq!(receiver.wait_for(2, SOON).await[1].path, "/here");
}

/// The file of a header is followed, and what waits gets what it holds by then.
#[tokio::test]
async fn a_header_from_a_file_is_read_again() {
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.write("ops-token", "Bearer first");
    config.section("delivery", "jitter = 0.0\nretry = [\"5s\"]");
    let headers = "headers = { Authorization = { file = \"../ops-token\" } }";
    ops(&mut config, &receiver.url("/"), headers);
    let (sidecar, client) = start(&config).await;
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    config.write("ops-token", "Bearer second");
    sidecar.wait_for_log("acme/urban/ops: new headers", SOON).await;
    accept(&client, EVENTS, event("ds_2")).await;
    let received = receiver.wait_for(3, SOON).await;
    let authorized: Vec<_> = received.iter().filter_map(|request| request.header("authorization")).collect();
    assert_eq!(authorized, ["Bearer first", "Bearer second", "Bearer second"]);
    assert!(!sidecar.logs().iter().any(|line| line.contains("Bearer")), "its value is told nowhere");
}

#[tokio::test]
async fn an_organization_comes_and_goes() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    let beta = "/v1/organizations/beta/events";
    assert_eq!(client.post(beta, JSON, event("ds_1")).await.unwrap().status, 404);

    config.webhook("beta", "urban", "ops", &receiver.url("/beta"), &["*"], "");
    assert_eq!(reload(&sidecar).await, ["beta: organization added", "beta/urban/ops: added"]);
    accept(&client, beta, event("ds_1")).await;
    assert_eq!(receiver.wait_for(1, SOON).await[0].path, "/beta");
    config.remove_organization("beta");
    sidecar.wait_for_log("beta: organization removed; beta/urban/ops: removed", SOON).await;
    assert_eq!(client.post(beta, JSON, event("ds_2")).await.unwrap().status, 404);
}

/// A volume that is unmounted leaves an empty directory. Apps must not be told that their organization does not exist.
#[tokio::test]
async fn organizations_that_vanish_all_at_once_stay_until_an_operator_says_so() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    let ghost = "/v1/organizations/ghost/events";
    assert_eq!(client.post(ghost, JSON, event("ds_0")).await.unwrap().status, 404);

    config.remove_organization("acme");
    let line = sidecar.wait_for_log("configuration not used", SOON).await;
    assert!(
        line.contains("organizations: no organization has a file in it any more, and there were 1"),
        "{line}"
    );
    accept(&client, EVENTS, event("ds_1")).await;
    receiver.wait_for(1, SOON).await;
    let uncertain = client.post(ghost, JSON, event("ds_0")).await.unwrap();
    assert_eq!(uncertain.status, 503, "{}", uncertain.text());
    assert_eq!(uncertain.json()["code"], "organization-uncertain");
    assert_eq!(uncertain.header("retry-after"), Some("5"));

    let command = async |arguments: &[&str]| {
        let admin = sidecar.admin();
        run(binary(), &[&["config", "reload"], arguments, &["--admin", admin]].concat(), "").await
    };
    let refused = command(&[]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("config reload --allow-empty"), "{}", refused.stderr);
    let allowed = command(&["--allow-empty"]).await;
    assert_eq!(allowed.status.code(), Some(0), "{}", allowed.stderr);
    for path in [EVENTS, ghost] {
        assert_eq!(client.post(path, JSON, event("ds_2")).await.unwrap().status, 404);
    }
    let admin = Client::new(sidecar.admin());
    let wrong = admin.post(&format!("{RELOAD}?allow_empty=yes"), &[], "").await.unwrap();
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["field"]),
        (400, &json!("allow_empty")),
        "{}",
        wrong.text()
    );
}

#[tokio::test]
async fn check_and_run_agree_on_what_lies_in_the_directory_of_the_organizations() {
    let mut config = ConfigDirectory::new();
    ops(&mut config, "http://127.0.0.1:10009/", "");
    config.write("organizations/BETA.TOML", "version = 1\n");
    config.write("organizations/eu/x.toml", "version = 1\n");
    let directory = config.path().display().to_string();
    let checked = run(binary(), &["check", "--config", &directory], "").await;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stderr);
    let mut sidecar = Sidecar::start(binary(), &config).await;
    assert!(sidecar.running());
    let logs = sidecar.logs().join("\n");
    for unread in ["BETA.TOML", "eu/x.toml"] {
        assert!(
            checked.stderr.contains(unread) && logs.contains(unread),
            "{unread}: {}\n{logs}",
            checked.stderr
        );
    }
    drop(sidecar);

    config.write("organizations/gamma.toml/x", "");
    for command in ["check", "run"] {
        let refused = run(binary(), &[command, "--config", &directory], "").await;
        assert_eq!(refused.status.code(), Some(78), "{command}: {}", refused.stderr);
        assert!(refused.stderr.contains("is a directory"), "{command}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn settings_of_the_doors_and_of_the_way_out_apply_at_once() {
    let authority = Authority::new();
    let receiver = Receiver::builder().tls(authority.server(&["localhost"])).start().await;
    let mut config = ConfigDirectory::new();
    config.write("ca.pem", authority.pem());
    config.section("egress", "allow = [\"127.0.0.0/8\", \"::1\"]\nroots = { file = \"ca.pem\" }");
    let url = format!("https://localhost:{}/", receiver.address().port());
    config.section("delivery", "retry = []");
    ops(&mut config, &url, "");
    let (sidecar, client) = start(&config).await;
    let outcome = async |id: &str| {
        let answer = accept(&client, &format!("{EVENTS}?wait=10s"), event(id)).await;
        answer["deliveries"][0]["outcome"].clone()
    };
    assert_eq!(outcome("ds_1").await["state"], "delivered");

    config.section("egress", "roots = { file = \"ca.pem\" }");
    assert_eq!(reload(&sidecar).await, ["egress.allow: changed"]);
    let refused = outcome("ds_2").await;
    assert!(text(&refused, "/error").contains("address-not-allowed"), "{refused}");

    config.write("ca.pem", Authority::new().pem());
    config.section("egress", "allow = [\"127.0.0.0/8\", \"::1\"]\nroots = { file = \"ca.pem\" }");
    assert_eq!(reload(&sidecar).await, ["egress.allow: changed", "egress.roots: changed"]);
    let refused = outcome("ds_3").await;
    assert!(text(&refused, "/error").contains("tls"), "{refused}");

    config.write("ca.pem", "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n");
    sidecar.wait_for_log("egress.roots", SOON).await;
    config.write("ca.pem", authority.pem());
    sidecar.wait_for_log("configuration 4 is in force: egress.roots: changed", SOON).await;
    assert_eq!(outcome("ds_4").await["state"], "delivered");

    config.section("events", "custom = [\"model-trained\"]");
    config.write("ingest.token", "a-token-for-the-ingest");
    config.section(
        "ingest",
        "listen = \"127.0.0.1:0\"\nmax_event_size = \"1KiB\"\ntoken = { file = \"ingest.token\" }",
    );
    let changes = ["ingest.token: changed", "ingest.max_event_size: changed", "events.custom: changed"];
    assert_eq!(reload(&sidecar).await, changes);
    let custom = r#"{"event":"model-trained","project":"urban"}"#;
    assert_eq!(client.post(EVENTS, JSON, custom).await.unwrap().status, 401);
    let mut headers = JSON.to_vec();
    headers.push(("Authorization", "Bearer a-token-for-the-ingest"));
    assert_eq!(client.post(EVENTS, &headers, custom).await.unwrap().status, 202);
    assert_eq!(client.post(EVENTS, &headers, event(&"x".repeat(1024))).await.unwrap().status, 413);
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_waits_for_it() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    config.section("queue", "path = \"elsewhere.db\"");
    config.section("ingest", "listen = \"127.0.0.1:1\"");
    let line = sidecar.wait_for_log("is in force", SOON).await;
    assert!(line.ends_with("ingest.listen: needs a restart; queue.path: needs a restart"), "{line}");
    assert_eq!(status(&sidecar).await["needs_restart"], json!(["ingest.listen", "queue.path"]));
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    assert!(!config.path().join("elsewhere.db").exists());
}

#[tokio::test]
async fn the_door_for_reloads_is_not_open_to_web_pages() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, _) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    let from =
        async |origin: &str| admin.post(RELOAD, &[("Origin", origin)], "").await.unwrap().status.as_u16();
    assert_eq!(from(sidecar.admin()).await, 200);
    for foreign in ["https://evil.example.com", "null", "http://127.0.0.1:1", "http://localhost"] {
        assert_eq!(from(foreign).await, 403, "{foreign}");
    }
    let method = admin.request("GET", RELOAD, &[], "").await.unwrap();
    assert_eq!((method.status.as_u16(), method.header("allow")), (405, Some("POST")));
    assert_eq!(admin.post("/v1/config", &[], "").await.unwrap().status, 405);

    config.write("admin.token", "a-token-for-the-admin");
    config.section("admin", "listen = \"127.0.0.1:0\"\ntoken = { file = \"admin.token\" }");
    assert_eq!(reload(&sidecar).await, ["admin.token: changed"]);
    assert_eq!(admin.post(RELOAD, &[], "").await.unwrap().status, 401);
    assert_eq!(admin.get("/v1/config").await.unwrap().status, 401);
    let token = [("Authorization", "Bearer a-token-for-the-admin")];
    assert_eq!(admin.post(RELOAD, &token, "").await.unwrap().status, 200);
}
