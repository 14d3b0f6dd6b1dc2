//! What a good directory comes to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquarium_config::{
    Engine, Fs, Inputs, Listen, Memory, Roots, Secret, SigningKey, Subscription, Traces, load,
};
use aquarium_delivery::Order;
use aquarium_event::Type;

use super::{KEY, config, directory, errors, loaded};

const HOUR: u64 = 3600;

/// The example of the documentation, with what it has in comments.
const AQUARIUM: &str = r#"
version = 1                            # required: an empty or half-written file is never a valid config

[ingest]                               # where the app posts events
listen = "127.0.0.1:7878"              # or "unix:/run/aquarium/ingest.sock"
max_event_size = "1MiB"
token = { file = "ingest.token" }      # required when not loopback or a unix socket

[admin]                                # health, metrics, API, web page
listen = "127.0.0.1:7879"

[queue]
engine = "sqlite"
path = "data/queue.db"
max_size = "4GiB"                      # past it the ingest answers 503 with Retry-After
retention = "7d"                       # how long settled deliveries and their attempts are kept

[delivery]                             # defaults for every webhook; a webhook may set its own
timeout = "15s"
connect_timeout = "5s"
concurrency = 16
retry = ["5s", "5m", "30m", "2h", "5h", "10h", "10h"]
jitter = 0.2
give_up_after = "3d"
breaker_failures = 5
order = "none"

[egress]
allow = ["127.0.0.0/8"]                # private networks that endpoints may live in; public addresses always may
proxy = "http://egress-proxy:4750"
roots = { file = "ca.pem" }

[traces]
propagate = true
otlp = "https://otel.example.com"
headers = { Authorization = { env = "OPS_TOKEN" } }
sample = 0.1

[events]
custom = []
"#;

const ACME: &str = r#"
version = 1
secret = { file = "../secrets/acme" }          # or { env = "ACME_SECRET" }
signing_key = { file = "../signing-keys/acme" }

[projects.urban-driving.webhooks.labeling]
url = "https://labels.example.com/aquarium"
events = ["issue-exported"]

[projects.urban-driving.webhooks.ops]
url = "https://ops.example.com/hooks"
events = ["dataset-complete", "dataset-failed"]   # ["*"] for all
active = false                                     # sending stops at once
headers = { Authorization = { env = "OPS_TOKEN" } }
"#;

fn example() -> Memory {
    Memory::new()
        .file("config/aquarium.toml", AQUARIUM)
        .file("config/ingest.token", "a-token-for-the-ingest\n")
        .file("config/ca.pem", "-----BEGIN CERTIFICATE-----\n")
        .file("config/organizations/acme.toml", ACME)
        .file("config/secrets/acme", "correct-horse-battery-staple\n")
        .file("config/signing-keys/acme", format!("{KEY}\r\n"))
        .variable("OPS_TOKEN", "Bearer 123")
}

#[test]
fn the_documented_example_loads() {
    let loaded = load(Path::new("config"), &example()).unwrap();
    assert_eq!(loaded.warnings, []);
    let files = [
        "aquarium.toml",
        "ca.pem",
        "ingest.token",
        "organizations/../secrets/acme",
        "organizations/../signing-keys/acme",
        "organizations/acme.toml",
    ];
    let files = files.map(|file| Path::new("config").join(file));
    assert!(loaded.inputs.files().into_iter().eq(&files));

    let config = loaded.config;
    assert_eq!(config.ingest.token, Secret::new("a-token-for-the-ingest").ok());
    assert!(matches!(&config.egress.roots, Roots::File { path, .. } if path == Path::new("config/ca.pem")));
    assert_eq!(config.egress.proxy.as_deref(), Some("http://egress-proxy:4750"));
    let export = config.traces.export.as_ref().unwrap();
    assert_eq!((export.otlp.as_str(), export.sample), ("https://otel.example.com/v1/traces", 0.1));
    assert_eq!((export.headers.len(), export.headers[0].value.is_sensitive()), (1, true));
    let acme = config.organization("acme").unwrap();
    assert_eq!(acme.secret, Secret::new("correct-horse-battery-staple").ok());
    assert_eq!(acme.signing_key, SigningKey::new(KEY).ok());
    let names = |kind: &Type| -> Vec<_> {
        acme.matching("urban-driving", kind).map(|webhook| webhook.name.webhook().to_owned()).collect()
    };
    assert_eq!(names(&Type::IssueExported), ["labeling"]);
    assert_eq!(names(&Type::DatasetFailed), ["ops"], "those that are not active are among them");
    assert_eq!(acme.matching("another-project", &Type::DatasetFailed).count(), 0);

    let ops = config.webhook(&"acme/urban-driving/ops".parse().unwrap()).unwrap();
    assert!(!ops.active);
    assert_eq!((ops.headers[0].name.as_str(), ops.headers[0].value.is_sensitive()), ("authorization", true));
    assert_eq!(config.webhooks().count(), 2);
}

#[test]
fn defaults_are_as_documented() {
    let webhook = "[projects.p.webhooks.w]\nurl = \"https://x.example.com\"\nevents = [\"*\"]";
    let config = config(&directory("", webhook));
    assert_eq!(config.ingest.listen.to_string(), "127.0.0.1:7878");
    assert_eq!((config.ingest.max_event_size, &config.ingest.token), (1 << 20, &None));
    assert_eq!((config.admin.listen.to_string().as_str(), &config.admin.token), ("127.0.0.1:7879", &None));
    assert_eq!((config.queue.engine, config.queue.path), (Engine::Sqlite, PathBuf::from("data/queue.db")));
    assert_eq!((config.queue.max_size, config.queue.retention.as_secs()), (4 << 30, 7 * 24 * HOUR));
    assert_eq!((&config.egress.allow, &config.egress.roots), (&vec![], &Roots::Native));
    assert_eq!(*config.traces, Traces { propagate: true, export: None });
    assert_eq!(config.types.names().count(), Type::BUILT_IN.len());

    let acme = &config.organizations["acme"];
    assert_eq!((&acme.secret, &acme.signing_key), (&None, &None));
    let webhook = acme.webhooks().next().unwrap();
    assert_eq!((webhook.active, webhook.headers.len(), &webhook.events), (true, 0, &Subscription::All));
    assert_eq!((webhook.timeout.as_secs(), webhook.connect_timeout.as_secs()), (15, 5));
    assert_eq!((webhook.concurrency, webhook.breaker_failures), (16, 5));
    assert_eq!((webhook.rate_limit, webhook.order), (None, Order::None));
    let retry = [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR].map(Duration::from_secs);
    assert_eq!(webhook.schedule.retry, retry);
    assert_eq!((webhook.schedule.jitter, webhook.schedule.give_up_after.as_secs()), (0.2, 72 * HOUR));
}

#[test]
fn a_webhook_inherits_what_it_does_not_set() {
    let webhooks = "[projects.p.webhooks.a]\nurl = \"https://x/\"\nevents = [\"issue-update\", \"model-trained\"]\n\
        timeout = \"3s\"\nretry = []\njitter = 1\n\
        [projects.p.webhooks.b]\nurl = \"http://127.0.0.1:80/\"\nevents = [\"*\"]\nconnect_timeout = \"9s\"\n";
    let aquarium = "[delivery]\nconcurrency = 2\nconnect_timeout = \"7s\"\n[events]\ncustom = [\"model-trained\"]\n\
        [egress]\nallow = [\"127.0.0.1\"]";
    let config = config(&directory(aquarium, webhooks));
    let [a, b] = [0, 1].map(|n| config.webhooks().nth(n).unwrap());
    let kinds = BTreeSet::from([Type::IssueUpdated, Type::Custom("model-trained".into())]);
    assert_eq!(a.events, Subscription::Only(kinds));
    assert_eq!((a.concurrency, a.schedule.retry.len(), a.schedule.jitter), (2, 0, 1.0));
    let seconds = |d: Duration| d.as_secs();
    assert_eq!((seconds(a.timeout), seconds(a.connect_timeout)), (3, 3), "an inherited 7 s gives way");
    assert_eq!((seconds(b.timeout), seconds(b.connect_timeout)), (15, 9));
}

#[test]
fn paths_start_at_the_file_that_names_them() {
    let source = Memory::new()
        .file("/etc/a/aquarium.toml", "version = 1\n[ingest]\nlisten = \"unix:run/in.sock\"\n[admin]\nlisten = \"unix:/run/admin.sock\"\n[queue]\npath = \"../q.db\"\n")
        .file("/etc/a/organizations/o.toml", "version = 1\nsecret = { file = \"o.secret\" }")
        .file("/etc/a/organizations/o.secret", "0123456789abcdef");
    let config = load(Path::new("/etc/a"), &source).unwrap().config;
    assert_eq!(config.ingest.listen, Listen::Unix("/etc/a/run/in.sock".into()));
    assert_eq!(config.admin.listen.to_string(), "unix:/run/admin.sock");
    assert_eq!(config.queue.path, Path::new("/etc/a/../q.db"));
    assert!(config.organizations["o"].secret.is_some());
}

#[test]
fn the_fingerprint_follows_all_that_was_read_and_nothing_else() {
    let print = |source: &Memory| inputs(source).fingerprint();
    let before = inputs(&example());
    let same = [
        example(),
        example().file("config/organizations/acme.toml~", "").file("config/organizations/.acme.toml.swp", ""),
        example().file("config/organizations/..data/acme.toml", "").file("config/README", ""),
    ];
    for source in same {
        assert_eq!(print(&source), before.fingerprint());
        assert!(before.are_unchanged(&source));
    }
    let different = [
        example().file("config/aquarium.toml", "version = 1"),
        example().file("config/organizations/beta.toml", "version = 1"),
        example().file("config/secrets/acme", "correct-horse-battery-stable\n"),
        example().file("config/signing-keys/acme", format!("whsec_{}", "A".repeat(40))),
        example().file("config/ca.pem", "-----BEGIN CERTIFICATE-----\n\n"),
        example().variable("OPS_TOKEN", "Bearer 124"),
        example().without("config/secrets/acme"),
        example().without("config/organizations/acme.toml"),
    ];
    for source in different {
        assert_ne!(print(&source), before.fingerprint());
        assert!(!before.are_unchanged(&source));
    }
}

#[test]
fn the_digest_is_of_the_configuration_itself() {
    let digest = inputs(&example()).digest();
    assert_eq!(digest.to_string().len(), 16);
    for same in [
        example().file("config/secrets/acme", "another-secret-that-is-as-long"),
        example().file("config/signing-keys/acme", format!("whsec_{}", "A".repeat(40))),
        example().without("config/ca.pem"),
    ] {
        assert_eq!(inputs(&same).digest(), digest);
    }
    for different in [
        example().file("config/organizations/acme.toml", "version = 1"),
        example().file("config/organizations/beta.toml", "version = 1"),
        example().without("config/organizations/acme.toml"),
    ] {
        assert_ne!(inputs(&different).digest(), digest);
    }
    let elsewhere = |dir: &str| {
        let source = Memory::new().file(format!("{dir}/aquarium.toml"), "version = 1");
        let source = source.file(format!("{dir}/organizations/acme.toml"), "version = 1");
        load(Path::new(dir), &source).unwrap().inputs.digest()
    };
    assert_eq!(elsewhere("config"), elsewhere("/etc/aquarium"));
}

fn inputs(source: &Memory) -> Inputs {
    match load(Path::new("config"), source) {
        Ok(loaded) => loaded.inputs,
        Err(errors) => errors.inputs,
    }
}

#[test]
fn what_could_not_be_read_is_among_the_files_to_watch() {
    let errors = errors(&directory("", "secret = { file = \"../secrets/later\" }"));
    let files = ["aquarium.toml", "organizations/../secrets/later", "organizations/acme.toml"];
    assert!(errors.inputs.files().into_iter().eq(files.map(Path::new)));
    let directories = [".", "organizations", "organizations/../secrets"];
    assert_eq!(errors.inputs.directories(), directories.map(PathBuf::from).into());
}

#[test]
fn a_directory_on_disk_is_read_through_its_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for made in ["organizations/..2024", "organizations/sub", "secrets"] {
        std::fs::create_dir_all(root.join(made)).unwrap();
    }
    let write = |file: &str, text: &str| std::fs::write(root.join(file), text).unwrap();
    write("aquarium.toml", "version = 1");
    write("secrets/acme", "correct-horse-battery-staple\n");
    write("organizations/..2024/acme.toml", "version = 1\nsecret = { file = \"../secrets/acme\" }");
    write("organizations/acme.toml~", "not read");
    #[cfg(unix)]
    {
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link("..2024", "organizations/..data");
        link("..data/acme.toml", "organizations/acme.toml");
        let names: Vec<_> = load(root, &Fs).unwrap().config.organizations.into_keys().collect();
        assert_eq!(names, ["acme".into()]);
        link("nowhere", "organizations/beta.toml");
        let errors = load(root, &Fs).unwrap_err().to_string();
        assert!(
            errors.ends_with("organizations/beta.toml: cannot be read: there is no such file"),
            "{errors}"
        );
    }
}

#[test]
fn a_bad_allow_list_or_event_list_does_not_make_every_webhook_bad() {
    let webhook = "[projects.p.webhooks.w]\nurl = \"http://10.0.0.1/\"\nevents = [\"model-trained\"]";
    let said =
        errors(&directory("[egress]\nallow = [\"10.0.0.0\\\\8\"]\n[events]\ncustom = [\"Model\"]", webhook));
    assert_eq!(said.diagnostics.len(), 2, "{said}");
    assert_eq!(
        loaded(&directory(
            "[egress]\nallow = [\"10.0.0.0/8\"]\n[events]\ncustom = [\"model-trained\"]",
            webhook
        ))
        .warnings,
        []
    );
}

#[test]
fn a_rate_limit_is_inherited_replaced_and_lifted() {
    let webhook = |name: &str, line: &str| {
        format!("[projects.p.webhooks.{name}]\nurl = \"https://x.example.com\"\nevents = [\"*\"]\n{line}\n")
    };
    let lines = ["", "rate_limit = \"3 / m\"", "rate_limit = \"none\""];
    let webhooks = ["a", "b", "c"].into_iter().zip(lines).map(|(name, line)| webhook(name, line));
    let config = config(&directory("[delivery]\nrate_limit = \"50/s\"", &webhooks.collect::<String>()));
    let rates = config.webhooks().map(|webhook| webhook.rate_limit.map(|rate| rate.to_string()));
    assert!(rates.eq([Some("50/s".to_owned()), Some("3/m".to_owned()), None]));
}
