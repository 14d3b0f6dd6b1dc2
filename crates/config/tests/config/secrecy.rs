//! No secret and no header's value is told, also when the file that holds one is wrong in some other way.

use std::path::Path;

use aquarium_config::{Memory, Secret, SigningKey, diff, load};
use proptest::prelude::*;

use super::{KEY, config, directory, errors};

/// What must not be seen. No part of it is anywhere else.
const HIDDEN: &str = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7";

/// Secrets where they belong, and where they do not.
const ACME: &str = r#"version = 1
secret = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7"
secert = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7"
signing_key = "whsec_Zq7Zq7Zq7Zq7Zq7Zq7Zq7"
signing_kye = "whsec_Zq7Zq7Zq7Zq7Zq7Zq7Zq7"

[projects.p.webhooks.inline]
url = "https://user:Zq7Zq7Zq7Zq7Zq7Zq7Zq7@x.example.com/"
headers = { Authorization = "Bearer Zq7Zq7Zq7Zq7Zq7Zq7Zq7", "a b" = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7" }
events = ["nothing"]
timeout = 5

[projects.p.webhooks.table]
url = "https://x.example.com/"
events = [
    "*",
    "nothing",
]

[projects.p.webhooks.table.headers]
X-Literal = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7"
Host = """
Zq7Zq7Zq7Zq7Zq7Zq7Zq7
"""
X-Wrong = { env = "WRONG", value = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7" }
X-Env = { env = "OPS_TOKEN" }
"#;

fn all_that_is_said(acme: &[u8]) -> String {
    let source = directory("", "")
        .file("organizations/acme.toml", acme)
        .variable("WRONG", format!("{HIDDEN}\u{1}"))
        .variable("OPS_TOKEN", HIDDEN);
    match load(Path::new(""), &source) {
        Ok(loaded) => format!("{loaded:?}"),
        Err(errors) => {
            let rendered = errors.diagnostics.iter().map(|d| d.render(false) + &d.render(true));
            format!("{errors}\n{errors:?}\n{}", rendered.collect::<String>())
        }
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_without_being_told() {
    let said = all_that_is_said(ACME.as_bytes());
    assert!(!said.contains("Zq7"), "{said}");
    assert_eq!(said.matches("must not stand in the configuration itself").count(), 8, "{said}");
}

#[test]
fn a_secret_in_the_right_place_is_read_and_not_told() {
    let webhook = "secret = { file = \"../secrets/acme\" }\n[projects.p.webhooks.w]\nurl = \"https://x/\"\n\
        events = [\"*\"]\nheaders = { X-A = \"Zq7-literal\", Authorization = { env = \"OPS_TOKEN\" } }\n";
    let source = |secret: &str| {
        directory("[ingest]\ntoken = { file = \"token\" }", webhook)
            .file("token", "Zq7-0123456789abcdef\r\n")
            .file("secrets/acme", format!("{secret}\n"))
            .variable("OPS_TOKEN", "Bearer Zq7")
    };
    let (old, new) = (config(&source("Zq7-0123456789abcdef")), config(&source("Zq7-another-secret")));
    let secret = |config: &aquarium_config::Config| config.organizations["acme"].secret.clone();
    assert_eq!(secret(&old), Secret::new("Zq7-0123456789abcdef").ok());
    assert_eq!(
        secret(&old),
        old.ingest.token,
        "the line break at the end of a file is not part of its secret"
    );
    let headers = &old.webhooks().next().unwrap().headers;
    let headers: Vec<_> = headers.iter().map(|h| (h.name.as_str(), h.value.to_str().unwrap())).collect();
    assert_eq!(headers, [("authorization", "Bearer Zq7"), ("x-a", "Zq7-literal")]);

    let changes = diff(&old, &new);
    let said = format!("{old:?} {new:?} {changes:?} {changes}");
    assert!(!said.contains("Zq7"), "{said}");
}

#[test]
fn a_secret_that_is_none_is_refused_since_sending_without_it_would_be_worse() {
    for (content, reason) in [
        ("", "it is empty"),
        ("\n", "it is empty"),
        (
            "sha256:cbe6beb26479b568e5f15b50217c6c83c0ee051dc4e522b9840d8e291d6aaf46\n",
            "it looks like the SHA-256 of a secret, by which receivers know one; write the secret itself",
        ),
        (
            "whsec_Zq7Zq7Zq7Zq7Zq7Zq7Zq7\n",
            "it is a signing key (whsec_); accepted: the secret that X-Aquarium-Secret carries",
        ),
        ("'correct-horse-battery-staple'", "it is in quotes; accepted: the secret without them"),
        (
            "ACME_SECRET=correct-horse-battery-staple",
            "it is an assignment, NAME=value; accepted: the value alone",
        ),
        ("${ACME_SECRET}", "it is a placeholder that was not replaced; accepted: the secret"),
        ("too-short\n", "it has 9 characters, which is too few; accepted: 16 or more"),
        ("two lines\nof a secret\n", "its character 4 is not visible ASCII (0x21 to 0x7e)"),
        ("0123456789abcdef\n\n", "its character 17 is not visible ASCII (0x21 to 0x7e)"),
    ] {
        let source = directory("", "secret = { file = \"../secrets/acme\" }").file("secrets/acme", content);
        let said = errors(&source).to_string();
        assert!(said.ends_with(&format!("secrets/acme\" holds no usable secret: {reason}")), "{said}");
    }
}

/// A configuration whose signing key is in a file with this content.
fn signed_with(content: &str) -> Memory {
    directory("", "signing_key = { file = \"../signing-keys/acme\" }").file("signing-keys/acme", content)
}

#[test]
fn a_signing_key_is_read_and_not_told() {
    let text = |part: &str| format!("whsec_{}", part.repeat(12));
    let (old, new) = (config(&signed_with(&text("Zq7"))), config(&signed_with(&(text("Zq8") + "\r\n"))));
    let key = old.organizations["acme"].signing_key.clone();
    assert_eq!(key, SigningKey::new(&text("Zq7")).ok());
    assert_eq!(key.unwrap().expose().len(), 27);
    let changes = diff(&old, &new);
    let said = format!("{old:?} {new:?} {changes:?} {changes}");
    for part in ["Zq7", "Zq8", "whsec", "102, 174"] {
        assert!(!said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_signing_key_that_is_none_is_refused_without_being_told() {
    const CUT_OFF: &str = "its base64 is cut off, or not padded with \"=\" (RFC 4648, section 4)";
    const PREFIX: &str = "it does not start with \"whsec_\"";
    let character = |position: usize| {
        format!(
            "its character {position} is not base64 (RFC 4648, section 4: letters, digits, \"+\" and \"/\")"
        )
    };
    let (key, ten) = ("Zq7".repeat(12), "Zq7".repeat(10));
    for (content, reason) in [
        ("", "it is empty"),
        ("\n", "it is empty"),
        (&key, PREFIX),
        (&format!("whpk_{key}"), PREFIX),
        (&format!("WHSEC_{key}"), PREFIX),
        (&format!(" whsec_{key}"), PREFIX),
        (&format!("whsec_{ten}"), CUT_OFF),
        (&format!("whsec_{key}Zq"), CUT_OFF),
        (&format!("whsec_{key}Zq7"), CUT_OFF),
        (&format!("whsec_{key}="), CUT_OFF),
        (&format!("whsec_{key}Z==="), CUT_OFF),
        (&format!("whsec_{key}Zr=="), CUT_OFF),
        (&format!("whsec_Zq==Zq7={key}"), &character(9)),
        (&format!("whsec_Zq7-{key}Zq7"), &character(10)),
        (&format!("whsec_{key}\n\n"), &character(43)),
        ("whsec_", "it has 0 bytes, which is too few; accepted: 24 to 64"),
        (&format!("whsec_{ten}Y="), "it has 23 bytes, which is too few; accepted: 24 to 64"),
        (&format!("whsec_{key}{key}{key}"), "it has 81 bytes, which is too many; accepted: 24 to 64"),
        (
            &format!("whsec_{key}{key}Zq7Zq7Zq7Zq7ZqY="),
            "it has 65 bytes, which is too many; accepted: 24 to 64",
        ),
    ] {
        let errors = errors(&signed_with(content));
        let said = errors.to_string();
        let expected = format!("signing-keys/acme\" holds no usable signing key: {reason}");
        assert!(said.ends_with(&expected), "{content:?}: {said}");
        let rendered: String = errors.diagnostics.iter().map(|d| d.render(false)).collect();
        assert!(!format!("{said}{errors:?}{rendered}").contains("Zq7"), "{said}");
    }
    for length in [24, 64] {
        let text = format!("whsec_{}", data_encoding::BASE64.encode(&vec![7; length]));
        assert!(config(&signed_with(&text)).organizations["acme"].signing_key.is_some());
    }
}

#[test]
fn a_signing_key_that_every_request_would_tell_is_refused() {
    let acme = "secret = { file = \"../signing-keys/acme\" }\nsigning_key = { env = \"KEY\" }";
    let key = format!("whsec_{}", "Zq7".repeat(12));
    let said = |secret: &str| {
        errors(&directory("", acme).file("signing-keys/acme", secret).variable("KEY", &key)).to_string()
    };
    assert_eq!(
        said(&key["whsec_".len()..]),
        "organizations/acme.toml:3:23: environment variable \"KEY\" is the secret too, \
         which every request carries: whoever gets one could sign"
    );
    assert!(said(&key).contains("holds no usable secret: it is a signing key (whsec_)"), "{}", said(&key));
}

#[test]
fn only_a_secret_that_strangers_may_read_is_warned_about() {
    let warnings = |mode: u32, mount: bool| {
        let acme = "secret = { file = \"../secrets/acme\" }\nsigning_key = { file = \"../secrets/key\" }";
        let source = directory("", acme)
            .file_with_mode("secrets/acme", "correct-horse-battery-staple", mode)
            .file_with_mode("secrets/key", KEY, mode);
        let source = if mount { source.file("secrets/..data", "") } else { source };
        super::loaded(&source).warnings.len()
    };
    assert_eq!([warnings(0o600, false), warnings(0o640, false), warnings(0o644, false)], [0, 0, 2]);
    assert_eq!(warnings(0o644, true), 0, "a Kubernetes mount is 0644 by default");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Somebody is editing the file: characters are missing, or too many.
    #[test]
    fn a_file_that_is_being_edited_tells_no_secret(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), proptest::option::of("[\\[\\]{}=\"'\n,. #x]")), 1..4)
    ) {
        let mut text = ACME.to_owned();
        for (index, edit) in edits {
            let at = index.index(text.len());
            // A secret that is cut in two is not what this is about.
            if text[..at].chars().next_back().is_some_and(|c| "Zq7".contains(c)) || text[at..].starts_with(['Z', 'q', '7']) {
                continue;
            }
            match edit {
                Some(character) => text.insert_str(at, &character),
                None => drop(text.remove(at)),
            }
        }
        let said = all_that_is_said(text.as_bytes());
        let told: Vec<_> = said.lines().filter(|line| line.contains("Zq7")).collect();
        prop_assert!(told.is_empty(), "{text}\n{told:#?}");
    }
}
