//! Whatever stands in the files: an answer, and never a panic.

use std::path::Path;

use aquarium_config::{Memory, diff, load};
use proptest::prelude::*;

/// Pieces of files, right and wrong, that meet in any order.
const PIECES: &[&str] = &[
    "version = 1\n",
    "version",
    "=",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    ",",
    ".",
    "\"",
    "'",
    "\"\"\"",
    "\n",
    "\r\n",
    " ",
    "#",
    "\u{feff}",
    "\u{fc}\u{1f980}",
    "\u{0}",
    "\t",
    "0",
    "-1",
    "1.5",
    "inf",
    "true",
    "1979-05-27",
    "\"15s\"",
    "\"1MiB\"",
    "\"*\"",
    "[ingest]\n",
    "[admin]\n",
    "[queue]\n",
    "[delivery]\n",
    "[egress]\n",
    "[events]\n",
    "listen = ",
    "token = ",
    "max_event_size = ",
    "engine = ",
    "path = ",
    "retention = ",
    "timeout = ",
    "connect_timeout = ",
    "retry = ",
    "jitter = ",
    "breaker_failures = ",
    "order = ",
    "rate_limit = ",
    "\"50/s\"",
    "allow = ",
    "roots = ",
    "custom = ",
    "secret = ",
    "signing_key = ",
    "[projects.p.webhooks.w]\n",
    "[[projects.p.webhooks.w]]\n",
    "projects.p.webhooks.w.url = ",
    "[projects.p.webhooks.w.headers]\n",
    "url = ",
    "events = ",
    "headers = ",
    "active = ",
    "\"https://x.example.com/\"",
    "\"http://127.0.0.1/\"",
    "\"unix:x\"",
    "\"0.0.0.0:1\"",
    "\"10.0.0.0/8\"",
    "\"::/0\"",
    "{ file = \"x\" }",
    "{ env = \"X\" }",
    "[\"*\"]",
    "[\"5s\"]",
    "[]",
    "x = ",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(proptest::sample::select(PIECES), 0..40)
            .prop_map(|pieces| pieces.concat().into_bytes()),
        proptest::collection::vec(proptest::sample::select(PIECES), 0..40).prop_map(|pieces| [
            "version = 1\n",
            &pieces.concat()
        ]
        .concat()
        .into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(aquarium in text(), acme in text(), secret in text()) {
        let source = Memory::new()
            .file("aquarium.toml", aquarium)
            .file("organizations/acme.toml", acme)
            .file("organizations/x", secret);
        let diagnostics = match load(Path::new(""), &source) {
            Ok(loaded) => {
                prop_assert!(diff(&loaded.config, &loaded.config.clone()).is_empty());
                loaded.warnings
            }
            Err(errors) => {
                prop_assert!(errors.errors().next().is_some());
                errors.diagnostics
            }
        };
        for diagnostic in diagnostics {
            prop_assert_eq!(diagnostic.to_string().lines().count(), 1);
            prop_assert!(!diagnostic.render(false).is_empty());
        }
    }
}
