//! What is said to have changed.

use aquarium_config::{Change, SecretKind, diff};

use super::{config, directory, loaded};

const OPS: &str = "[projects.p.webhooks.ops]\nurl = \"https://ops.example.com/\"\nevents = [\"test\"]\n";

#[test]
fn a_change_is_told_in_words() {
    let secret = "secret = { file = \"../secrets/acme\" }\n";
    let table = [
        ("", "", &*format!("{OPS}active = false"), "acme/p/ops: deactivated"),
        ("", "", &OPS.replace("ops.example", "new.example"), "acme/p/ops: new url"),
        ("", "", &OPS.replace("\"test\"", "\"*\""), "acme/p/ops: new events"),
        ("", "", &format!("{OPS}headers = {{ X-A = \"a\" }}"), "acme/p/ops: new headers"),
        ("", "", &format!("{OPS}timeout = \"3s\""), "acme/p/ops: new timeout, new connect_timeout"),
        (
            "",
            "",
            &format!("{OPS}retry = []\nconcurrency = 1"),
            "acme/p/ops: new concurrency, new retry schedule",
        ),
        ("", "", &OPS.replace("ops]", "two]"), "acme/p/two: added\nacme/p/ops: removed"),
        ("", "", "", "acme/p/ops: removed"),
        ("", "", &format!("{secret}{OPS}"), "acme: secret added"),
        ("", "[delivery]\nbreaker_failures = 9", OPS, "acme/p/ops: new breaker_failures"),
        ("", "[delivery]\nrate_limit = \"50/s\"", OPS, "acme/p/ops: new rate_limit"),
        ("", "", &format!("{OPS}order = \"fifo\""), "acme/p/ops: new order"),
        ("", "[ingest]\nlisten = \"127.0.0.1:1\"", OPS, "ingest.listen: needs a restart"),
        ("", "shutdown_grace = \"1s\"", OPS, "shutdown_grace: changed"),
        ("", "[queue]\nretention = \"1d\"", OPS, "queue.retention: needs a restart"),
        ("", "[admin]\ntoken = { file = \"secrets/acme\" }", OPS, "admin.token: changed"),
        (
            "[admin]\nlisten = \"0.0.0.0:1\"\ntoken = { file = \"secrets/acme\" }",
            "",
            OPS,
            "admin.listen: needs a restart\nadmin.token: needs a restart",
        ),
        ("[ingest]\nmax_event_size = \"2MiB\"", "", OPS, "ingest.max_event_size: changed"),
        ("[egress]\nallow = [\"10.0.0.0/8\"]", "", OPS, "egress.allow: changed"),
        (
            "[egress]\nallow = [\"::1\", \"10.0.0.0/8\"]",
            "[egress]\nallow = [\"10.0.0.0/8\", \"::1\"]",
            OPS,
            "",
        ),
        ("", "[egress]\nproxy = \"http://proxy:4750\"", OPS, "egress.proxy: changed"),
        ("[egress]\nproxy = \"http://PROXY/\"", "[egress]\nproxy = \"http://proxy:80\"", OPS, ""),
        ("", "[traces]\notlp = \"http://otel:4318\"", OPS, "traces.otlp: changed"),
        (
            "[traces]\notlp = \"http://otel/\"",
            "[traces]\notlp = \"http://otel/v1/traces\"\nsample = 1",
            OPS,
            "",
        ),
        ("", "[traces]\npropagate = false", OPS, "traces.propagate: changed"),
        ("[events]\ncustom = [\"a\"]", "", OPS, "events.custom: changed"),
    ];
    for (before, after, acme, words) in table {
        let (old, new) = (config(&directory(before, OPS)), config(&directory(after, acme)));
        let changes = diff(&old, &new);
        assert_eq!(changes.to_string(), words);
        assert_eq!(changes.is_empty(), words.is_empty());
        assert_eq!(diff(&new, &old).is_empty(), words.is_empty());
        assert!(diff(&new, &new).is_empty());
    }
}

#[test]
fn what_became_of_a_signing_key_is_told_without_it() {
    let none = directory("", OPS);
    let one = directory("", &format!("signing_key = {{ file = \"../signing-keys/acme\" }}\n{OPS}"));
    let two = one.clone().file("signing-keys/acme", format!("whsec_{}", "A".repeat(40)));
    for (old, new, words) in [
        (&none, &one, "acme: signing key added"),
        (&one, &two, "acme: signing key replaced"),
        (&two, &none, "acme: signing key removed"),
    ] {
        let changes = diff(&config(old), &config(new));
        assert_eq!(changes.to_string(), words);
        assert_eq!(changes.secrets[0].1, SecretKind::SigningKey);
    }
}

#[test]
fn what_a_tls_session_needs_is_followed_and_a_key_is_not_told() {
    const HEADER: &str = "-----BEGIN CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nZq7\n-----END PRIVATE KEY-----\n";
    let tls = "tls = { ca = { file = \"../ca.pem\" }, certificate = { file = \"../c.pem\" }, key = { file = \"../k.pem\" } }";
    let one =
        directory("", &format!("{OPS}{tls}")).file("ca.pem", HEADER).file("c.pem", HEADER).file("k.pem", KEY);
    let inputs = loaded(&one).inputs;
    for (file, content) in [("ca.pem", "a"), ("c.pem", "b"), ("k.pem", "c")] {
        assert!(inputs.files().into_iter().any(|path| path.ends_with(file)), "{file} is watched");
        let two = one.clone().file(file, format!("{HEADER}{KEY}{content}"));
        let (one, two) = (config(&one), config(&two));
        let changes = diff(&one, &two);
        assert_eq!(changes.to_string(), "acme/p/ops: new tls", "{file}");
        let said = format!("{one:?} {two:?} {changes:?}");
        assert!(!said.contains("Zq7"), "{said}");
    }
    let config = config(&one);
    let tls = &config.webhooks().next().unwrap().tls;
    assert_eq!(tls.client.as_ref().unwrap().key.expose(), KEY.trim_end());
}

#[test]
fn organizations_come_and_go_with_their_webhooks() {
    let (one, two) = (
        directory("", OPS),
        directory("", OPS).file("organizations/beta.toml", format!("version = 1\n{OPS}")),
    );
    let (one, two) = (config(&one), config(&two));
    assert_eq!(diff(&one, &two).to_string(), "beta: organization added\nbeta/p/ops: added");
    assert_eq!(diff(&two, &one).to_string(), "beta: organization removed\nbeta/p/ops: removed");
    let off = config(&directory("", &format!("{OPS}active = false")));
    assert_eq!(diff(&off, &one).changed[0].changes, [Change::Activated]);
}
