//! A webhook's own authority and client certificate: checked, shown, and followed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use aquarium_testkit::certificates::{Authority, Shown};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::Receiver;
use serde_json::Value;

use support::{EVENTS, SOON, accept, event, start, text};

const TLS: &str = "retry = []\ntls = { ca = { file = \"../tls/ca.pem\" }, \
    certificate = { file = \"../tls/client.pem\" }, key = { file = \"../tls/client.key\" } }";

fn show(config: &ConfigDirectory, shown: &Shown) {
    config.write("tls/client.pem", &shown.certificate);
    config.write("tls/client.key", &shown.key);
}

#[tokio::test]
async fn a_new_client_certificate_is_shown_by_the_next_attempt_and_an_unfit_one_never() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let receiver = Receiver::builder().tls(authority.requiring(&["127.0.0.1"], &clients)).start().await;
    let mut config = ConfigDirectory::new();
    config.write("tls/ca.pem", authority.pem());
    show(&config, &Authority::new().client_certificate("stranger"));
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], TLS);
    let (sidecar, client) = start(&config).await;
    let wait = format!("{EVENTS}?wait=10s");

    let refused = accept(&client, &wait, event("ds_1")).await;
    let error = text(&refused, "/deliveries/0/outcome/error");
    assert!(
        error.starts_with("tls: ") && error.contains("does not accept the client certificate"),
        "{error}"
    );

    // Of two files that belong together, one comes first: nothing is used until both are there.
    let good = clients.client_certificate("sidecar");
    config.write("tls/client.pem", &good.certificate);
    let line = sidecar.wait_for_log("configuration not used", SOON).await;
    assert!(line.contains("acme/urban/ops: its tls cannot be used"), "{line}");
    assert!(line.contains("the private key does not belong to the certificate"), "{line}");
    show(&config, &good);
    sidecar.wait_for_log("is in force: acme/urban/ops: new tls", SOON).await;
    let delivered = accept(&client, &wait, event("ds_2")).await;
    assert_eq!(delivered.pointer("/deliveries/0/outcome/state"), Some(&Value::from("delivered")));
    assert_eq!(receiver.count(), 1);
    for line in sidecar.logs() {
        assert!(!line.contains("PRIVATE KEY"), "{line}");
    }
}
