//! `secret generate`: a new secret or signing key in its file, and nothing else changed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::sidecar::{Output, run};
use serde_json::{Value, json};
use tokio::process::Command;

use support::binary;

/// A user and a group that own nothing here.
const STRANGER: u32 = 4711;
const STRANGERS: u32 = 4712;

/// The organization `acme`, whose secret file is not there yet.
fn config() -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    config.organization_raw("acme", "version = 1\nsecret = { file = \"../secrets/acme\" }\n");
    config.webhook("acme", "urban", "ops", "https://ops.example.com/hooks", &["*"], "");
    config
}

/// The same with a secret file that others may read, as it must not be.
fn config_with_secret() -> ConfigDirectory {
    let config = config();
    config.write("secrets/acme", "correct-horse-battery-staple\n");
    config
}

fn file(config: &ConfigDirectory) -> PathBuf {
    config.path().join("secrets/acme")
}

async fn generate(config: &ConfigDirectory, args: &[&str]) -> Output {
    let directory = config.path().display().to_string();
    run(binary(), &[&["secret", "generate", "--config", &directory][..], args].concat(), "").await
}

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", output.stdout, output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

/// The secret that was printed: it is the one in the file, which its owner alone may read.
#[track_caller]
fn printed(output: &Output, file: &Path) -> String {
    ended(output, 0);
    let secret = output.stdout.strip_suffix('\n').unwrap();
    assert_eq!(secret.len(), 43, "{secret}");
    assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{secret}");
    assert_eq!(fs::read_to_string(file).unwrap(), output.stdout);
    assert_eq!(mode(file), 0o600);
    assert!(output.stderr.contains("only time"), "{}", output.stderr);
    assert!(!output.stderr.contains(secret), "{}", output.stderr);
    secret.to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The names of everything in the directory of the secrets.
fn secrets(config: &ConfigDirectory) -> Vec<String> {
    names(&config.path().join("secrets"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_new_secret_is_what_the_configuration_lacked() {
    let config = config();
    let directory = config.path().display().to_string();
    let check = ["check", "--config", &directory];
    ended(&run(binary(), &check, "").await, 78);

    let output = generate(&config, &["acme"]).await;
    printed(&output, &file(&config));
    assert!(output.stderr.contains("secrets/acme"), "{}", output.stderr);
    assert!(!output.stderr.contains("no longer valid"), "{}", output.stderr);
    assert_eq!(secrets(&config), ["acme"]);

    let checked = run(binary(), &check, "").await;
    ended(&checked, 0);
    assert_eq!(checked.stderr, "");
}

#[tokio::test]
async fn a_secret_that_is_there_is_not_overwritten() {
    for content in ["correct-horse-battery-staple\n", ""] {
        let config = config();
        config.write("secrets/acme", content);
        let output = generate(&config, &["acme"]).await;
        ended(&output, 1);
        assert_eq!(output.stdout, "");
        for part in ["secrets/acme", "--replace", "stops being valid"] {
            assert!(output.stderr.contains(part), "no {part:?} in:\n{}", output.stderr);
        }
        assert_eq!(fs::read_to_string(file(&config)).unwrap(), content);
        assert_eq!(mode(&file(&config)), 0o644);
        assert_eq!(secrets(&config), ["acme"]);
    }
}

#[tokio::test]
async fn replace_puts_a_new_secret_in_the_place_of_the_previous_one() {
    let config = config_with_secret();
    let file = file(&config);
    let output = generate(&config, &["acme", "--replace"]).await;
    let first = printed(&output, &file);
    for part in ["no longer valid", "0644", "chmod g+r"] {
        assert!(output.stderr.contains(part), "no {part:?} in:\n{}", output.stderr);
    }
    assert_eq!(secrets(&config), ["acme"]);

    let output = generate(&config, &["acme", "--replace"]).await;
    assert_ne!(printed(&output, &file), first);
    assert!(!output.stderr.contains("chmod"), "the group could not read it before: {}", output.stderr);
}

#[tokio::test]
async fn json_has_the_secret_and_where_it_is() {
    let config = config();
    for replaced in [false, true] {
        let output = generate(&config, &["acme", "--json", "--replace"]).await;
        ended(&output, 0);
        let secret = fs::read_to_string(file(&config)).unwrap();
        let path = config.path().join("organizations/../secrets/acme");
        let expected = json!({
            "organization": "acme", "file": path, "secret": secret.trim_end(), "replaced": replaced,
        });
        assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap(), expected);
        assert_eq!(output.stderr.contains("no longer valid"), replaced, "{}", output.stderr);
        assert!(!output.stderr.contains(secret.trim_end()), "{}", output.stderr);
    }
}

/// The organization `signed`, whose secret and signing key are not there yet.
fn signed_config() -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    let toml =
        "version = 1\nsecret = { file = \"../secrets/s\" }\nsigning_key = { file = \"../signing-keys/k\" }\n";
    config.organization_raw("signed", toml);
    config
}

#[tokio::test]
async fn a_new_signing_key_is_written_like_a_secret_and_beside_it() {
    let config = signed_config();
    let [secret, key] = ["secrets/s", "signing-keys/k"].map(|file| config.path().join(file));
    let directory = config.path().display().to_string();

    let made = generate(&config, &["signed", "--signing-key"]).await;
    ended(&made, 0);
    let text = made.stdout.strip_suffix('\n').unwrap();
    let random = text.strip_prefix("whsec_").unwrap();
    assert_eq!(data_encoding::BASE64.decode(random.as_bytes()).unwrap().len(), 32);
    assert_eq!((fs::read_to_string(&key).unwrap(), mode(&key)), (made.stdout.clone(), 0o600));
    assert_eq!(mode(key.parent().unwrap()), 0o700);
    for part in ["a new signing key of signed", "only time"] {
        assert!(made.stderr.contains(part) && !made.stderr.contains(random), "{}", made.stderr);
    }
    assert!(!secret.exists(), "a secret was made too");

    ended(&generate(&config, &["signed"]).await, 0);
    let checked = run(binary(), &["check", "--config", &directory], "").await;
    ended(&checked, 0);
    assert!(checked.stdout.contains("signed (with a secret, signed)"), "{}", checked.stdout);
    assert_eq!(checked.stderr, "");

    let refused = generate(&config, &["signed", "--signing-key"]).await;
    ended(&refused, 1);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&key).unwrap(), made.stdout);

    let before = fs::read(&secret).unwrap();
    let replaced = generate(&config, &["signed", "--signing-key", "--replace", "--json"]).await;
    ended(&replaced, 0);
    let now = fs::read_to_string(&key).unwrap();
    assert_ne!(now, made.stdout);
    let expected = json!({
        "organization": "signed", "file": config.path().join("organizations/../signing-keys/k"),
        "signing_key": now.trim_end(), "replaced": true,
    });
    assert_eq!(serde_json::from_str::<Value>(&replaced.stdout).unwrap(), expected);
    assert!(replaced.stderr.contains("previous signing key is no longer valid"), "{}", replaced.stderr);
    assert_eq!(fs::read(&secret).unwrap(), before);
}

#[tokio::test]
async fn a_link_stays_and_what_it_leads_to_is_written() {
    let config = config();
    let (link, vault) = (file(&config), config.path().join("vault/deep"));
    symlink("second", &link).unwrap();
    symlink("../vault/deep/acme", config.path().join("secrets/second")).unwrap();

    let first = printed(&generate(&config, &["acme"]).await, &vault.join("acme"));
    assert_eq!((mode(&vault), mode(vault.parent().unwrap())), (0o700, 0o700));
    ended(&generate(&config, &["acme"]).await, 1);
    let second = printed(&generate(&config, &["acme", "--replace"]).await, &vault.join("acme"));
    assert_ne!(first, second);

    assert_eq!(fs::read_link(&link).unwrap(), Path::new("second"));
    assert_eq!(secrets(&config), ["acme", "second"]);
    assert_eq!(names(&vault), ["acme"]);
}

#[tokio::test]
async fn links_in_a_circle_are_refused() {
    let config = config();
    symlink("acme", file(&config)).unwrap();
    let output = generate(&config, &["acme", "--replace"]).await;
    ended(&output, 1);
    assert!(output.stderr.contains("symbolic links"), "{}", output.stderr);
    assert_eq!(secrets(&config), ["acme"]);
}

#[tokio::test]
async fn without_a_file_to_write_to_nothing_is_written() {
    let mut config = config();
    config.organization_raw("environment", "version = 1\nsecret = { env = \"ACME_SECRET\" }\n");
    config.organization_raw("none", "version = 1\n");
    config.organization_raw("broken", "version = 1\nsecret = {\n");
    config.organization_raw("below", "version = 1\nsecret = { file = \"../aquarium.toml/below\" }\n");
    config.organization_raw("directory", "version = 1\nsecret = { file = \"../secrets\" }\n");
    let main = fs::read(config.path().join("aquarium.toml")).unwrap();

    let unnamed = generate(&config, &["acme", "--signing-key"]).await;
    ended(&unnamed, 1);
    let add = "add signing_key = { file = \"../signing-keys/acme\" }";
    assert!(unnamed.stderr.contains(add), "{}", unnamed.stderr);

    let cases: [(&str, i32, &[&str]); 7] = [
        ("acne", 1, &["organizations/acne.toml", "did you mean \"acme\"", "known: acme, below"]),
        ("../organizations/acme", 1, &["cannot name an organization"]),
        ("environment", 1, &["environment.toml", "environment variable ACME_SECRET"]),
        ("none", 1, &["none.toml", "secret = { file = \"../secrets/none\" }"]),
        ("broken", 78, &["broken.toml:2"]),
        ("below", 1, &["aquarium.toml/below"]),
        ("directory", 1, &["secrets is not a regular file"]),
    ];
    for (organization, code, parts) in cases {
        let output = generate(&config, &[organization, "--replace"]).await;
        ended(&output, code);
        assert_eq!(output.stdout, "");
        for part in parts {
            assert!(output.stderr.contains(part), "{organization}: no {part:?} in:\n{}", output.stderr);
        }
    }
    assert_eq!(names(&config.path()), ["aquarium.toml", "organizations", "secrets"]);
    assert_eq!(secrets(&config), [""; 0]);
    assert_eq!(fs::read(config.path().join("aquarium.toml")).unwrap(), main);
}

#[tokio::test]
async fn a_secret_that_cannot_be_printed_is_told_to_be_in_its_file() {
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    // A reader that has gone is no error for any command.
    for (stdout, code) in [(Stdio::from(full), 1), (Stdio::from(gone), 0)] {
        let config = config();
        let command = Command::new(binary())
            .args(["secret", "generate", "acme", "--config"])
            .arg(config.path())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = command.wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("secrets/acme") && !stderr.contains("panicked"), "{stderr}");
        assert_eq!(fs::read(file(&config)).unwrap().len(), 44);
    }
}

#[tokio::test]
async fn the_owner_of_the_file_stays_its_owner() {
    let config = config_with_secret();
    let file = file(&config);
    if fs::metadata(&file).unwrap().uid() != 0 {
        return; // Only root can give files away.
    }
    chown(&file, Some(STRANGER), Some(STRANGERS)).unwrap();
    printed(&generate(&config, &["acme", "--replace"]).await, &file);
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (STRANGER, STRANGERS));
}

#[tokio::test]
async fn a_file_whose_owner_cannot_be_kept_is_left_alone() {
    let config = config_with_secret();
    let (file, directory) = (file(&config), config.path().join("secrets"));
    if fs::metadata(&file).unwrap().uid() != 0 {
        return; // Only root can become somebody else.
    }
    fs::set_permissions(config.scratch(), Permissions::from_mode(0o755)).unwrap();
    chown(&directory, Some(STRANGER), Some(STRANGERS)).unwrap();
    let command = Command::new(binary())
        .args(["secret", "generate", "acme", "--replace", "--config"])
        .arg(config.path())
        .uid(STRANGER)
        .gid(STRANGERS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = match command {
        Ok(command) => command.wait_with_output().await.unwrap(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return, // The binary is root's alone.
        Err(error) => panic!("{error}"),
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("user 0 and group 0"), "{stderr}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "correct-horse-battery-staple\n");
    assert_eq!(secrets(&config), ["acme"]);
}
