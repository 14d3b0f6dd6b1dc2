//! The file of an organization's secret or signing key is found before there is one, and whatever else is wrong.

use std::path::{Path, PathBuf};

use aquarium_config::{Memory, NoSecretFile, SecretKind, load, secret_file};

use super::directory;

fn found(acme: &str) -> Result<PathBuf, NoSecretFile> {
    secret_file(Path::new(""), "acme", SecretKind::Secret, &directory("", acme))
}

fn refused(organization: &str, source: &Memory) -> NoSecretFile {
    secret_file(Path::new(""), organization, SecretKind::Secret, source).unwrap_err()
}

#[test]
fn a_path_is_relative_to_the_file_that_names_it() {
    let source = Memory::new()
        .file("etc/organizations/acme.toml", "version = 1\nsecret = { file = \"../secrets/acme\" }")
        .file("etc/organizations/zenith.toml", "version = 1\nsecret = { file = \"/run/zenith\" }");
    let file =
        |organization| secret_file(Path::new("etc"), organization, SecretKind::Secret, &source).unwrap();
    assert_eq!(file("acme"), Path::new("etc/organizations/../secrets/acme"));
    assert_eq!(file("zenith"), Path::new("/run/zenith"));
}

#[test]
fn only_what_is_said_about_the_secret_has_to_be_right() {
    let source = directory("[ingest]\nlisten = 1", "").file("organizations/zenith.toml", "no TOML").file(
        "organizations/acme.toml",
        "version = 1\nsecret = { file = \"new\" }\nunknown = 1\n[projects.p.webhooks.w]\nurl = \"nowhere\"",
    );
    assert!(load(Path::new(""), &source).is_err());
    let file = secret_file(Path::new(""), "acme", SecretKind::Secret, &source).unwrap();
    assert_eq!(file, Path::new("organizations/new"));
}

/// What `acme.toml` says after its version, and what is said about it.
const WRONG: &[(&str, &str)] = &[
    (
        "[projects.p.webhooks.w]\nurl = \"https://x/\"",
        "organizations/acme.toml names no secret; \
         add secret = { file = \"../secrets/acme\" } at the top of that file",
    ),
    (
        "secret = { env = \"ACME_SECRET\" }",
        "organizations/acme.toml takes the secret from the environment variable ACME_SECRET: \
         its value is set where the sidecar is started",
    ),
    (
        "secert = { file = \"../secrets/acme\" }",
        "organizations/acme.toml:2:1: unknown key \"secert\"; did you mean \"secret\"? \
         accepted: version, secret, signing_key, projects",
    ),
    (
        "secret = { file = \"a\" }\nsecret = { file = \"b\" }",
        "organizations/acme.toml:3:1: this key is there already",
    ),
    (
        "secret = { file = \"a\", env = \"B\" }",
        "organizations/acme.toml:2:10: \"secret\" has two sources; accepted: { file = \"…\" }, { env = \"…\" }",
    ),
    ("secret = { file = \"\" }", "organizations/acme.toml:2:19: \"\" is not a path"),
    (
        "secret = { env = \"Zq7 Zq7\" }",
        "organizations/acme.toml:2:18: this is not the name of an environment variable; \
         accepted: letters, digits and \"_\", not starting with a digit",
    ),
    (
        "secret = \"Zq7Zq7Zq7Zq7Zq7Zq7Zq7\"",
        "organizations/acme.toml:2:10: \"secret\" must not stand in the configuration itself; \
         accepted: { file = \"…\" }, { env = \"…\" }",
    ),
    ("secret = { file = ", "organizations/acme.toml:2:18: unclosed inline table"),
];

#[test]
fn what_is_wrong_about_the_secret_is_said_where_it_is() {
    for (acme, said) in WRONG {
        let error = found(acme).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(said), "{acme}\n{text}");
        assert!(!format!("{error:?}{text}").contains("Zq7"), "{acme}\n{error:?}");
        let in_file = !said.starts_with("organizations/acme.toml ");
        assert_eq!(matches!(error, NoSecretFile::Unusable(_)), in_file, "{error:?}");
    }
}

#[test]
fn a_signing_key_has_a_file_of_its_own() {
    let key = |acme: &str| {
        let source = directory("", acme);
        secret_file(Path::new(""), "acme", SecretKind::SigningKey, &source).map_err(|error| error.to_string())
    };
    let both = "secret = { file = \"s\" }\nsigning_key = { file = \"k\" }";
    assert_eq!(found(both).unwrap(), Path::new("organizations/s"));
    assert_eq!(key(both).unwrap(), Path::new("organizations/k"));
    for (acme, said) in [
        (
            "secret = { file = \"s\" }",
            "organizations/acme.toml names no signing key; \
             add signing_key = { file = \"../signing-keys/acme\" } at the top of that file",
        ),
        (
            "signing_key = { env = \"ACME_KEY\" }",
            "organizations/acme.toml takes the signing key from the environment variable ACME_KEY: \
             its value is set where the sidecar is started",
        ),
        (
            "signing-key = { file = \"k\" }",
            "organizations/acme.toml:2:1: unknown key \"signing-key\"; did you mean \"signing_key\"? \
             accepted: version, secret, signing_key, projects",
        ),
    ] {
        assert_eq!(key(acme).unwrap_err(), said);
    }
}

#[test]
fn an_organization_that_is_not_there_is_refused_with_those_that_are() {
    let mut source = directory("", "").file("organizations/.hidden.toml", "").file("organizations/notes", "");
    assert_eq!(
        refused("acne", &source).to_string(),
        "unknown organization \"acne\": there is no organizations/acne.toml; did you mean \"acme\"? known: acme"
    );
    for number in 10..22 {
        source = source.file(format!("organizations/o{number}.toml"), "");
    }
    assert_eq!(
        refused("zenith", &source).to_string(),
        "unknown organization \"zenith\": there is no organizations/zenith.toml; \
         known: acme, o10, o11, o12, o13, o14, o15, o16, o17, o18 and 3 more"
    );
    assert_eq!(
        refused("acme", &Memory::new()).to_string(),
        "unknown organization \"acme\": there is no organizations/acme.toml"
    );
}

#[test]
fn a_name_cannot_lead_out_of_the_directory() {
    let evil = "version = 1\nsecret = { file = \"evil\" }";
    let source = directory("", "")
        .file("evil.toml", evil)
        .file("/evil.toml", evil)
        .file("organizations/.evil.toml", evil)
        .file("organizations/below/evil.toml", evil)
        .file("organizations/.toml", evil);
    for name in
        ["../evil", "/evil", ".evil", "below/evil", "below\\evil", "", "..", "evil\0", &"e".repeat(129)]
    {
        let error = refused(name, &source);
        assert!(matches!(error, NoSecretFile::Name { .. }), "{name:?}: {error:?}");
        assert!(error.to_string().len() < 300, "{error}");
    }
    assert_eq!(
        refused("../evil", &source).to_string(),
        "\"../evil\" cannot name an organization; \
         accepted: up to 128 letters, digits, \".\", \"_\" and \"-\", not starting with a sign"
    );
}
