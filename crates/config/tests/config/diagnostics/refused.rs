//! What is refused in each of the files, and what is said about it.

use super::{OPS, directory, errors};

/// What `aquarium.toml` says after its version, and what is said about it.
const AQUARIUM: &[(&str, &str)] = &[
    (
        r#"[ingest]
listne = "127.0.0.1:1""#,
        r#"aquarium.toml:3:1: unknown key "listne"; did you mean "listen"? accepted: listen, token, mode, max_event_size"#,
    ),
    (
        r#"[ingest]
listen = 7878"#,
        r#"aquarium.toml:3:10: "listen" must be an address such as "127.0.0.1:7878", not an integer"#,
    ),
    (
        r#"[ingest]
listen = "localhost:7878""#,
        r#"aquarium.toml:3:10: "localhost:7878" is not an address to listen at; did you mean "127.0.0.1:7878"? accepted: "ip:port", "unix:/path""#,
    ),
    (
        r#"[ingest]
listen = "0.0.0.0:7878""#,
        r#"aquarium.toml:3:10: a token is required here: others than this machine could connect; add token = { file = "…" }, or listen at 127.0.0.1"#,
    ),
    (
        r#"[ingest]
token = "plain""#,
        r#"aquarium.toml:3:9: "token" must not stand in the configuration itself; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"[ingest]
max_event_size = 1048576"#,
        r#"aquarium.toml:3:18: "max_event_size" needs a unit; did you mean "1048576B"? accepted: a size from "1KiB" to "64MiB""#,
    ),
    (
        r#"[ingest]
max_event_size = "1GiB""#,
        r#"aquarium.toml:3:18: "max_event_size" is out of bounds; accepted: a size from "1KiB" to "64MiB""#,
    ),
    (
        r#"[admin]
listen = "127.0.0.1:7878""#,
        "aquarium.toml:3:10: [ingest] and [admin] cannot both listen at 127.0.0.1:7878",
    ),
    (
        r#"[admin]
listen = "unix:""#,
        r#"aquarium.toml:3:10: the path of the socket is missing; accepted: "ip:port", "unix:/path""#,
    ),
    (
        r#"[queue]
engine = "jetstream""#,
        r#"aquarium.toml:3:10: engine "jetstream" is not available yet in this version; accepted: "sqlite""#,
    ),
    (
        r#"[queue]
engine = "redis""#,
        r#"aquarium.toml:3:10: unknown engine "redis"; accepted: "sqlite""#,
    ),
    (
        r#"[queue]
max_size = "lots""#,
        r#"aquarium.toml:3:12: "lots" is not a size; accepted: a number with a unit, such as "64KiB" or "1.5GiB""#,
    ),
    (
        r#"[queue]
retention = "a week""#,
        r#"aquarium.toml:3:13: "a week" is not a duration; accepted: numbers with a unit, such as "15s" or "1h 30m""#,
    ),
    (
        r#"[delivery]
timeout = 15"#,
        r#"aquarium.toml:3:11: "timeout" needs a unit; did you mean "15s"? accepted: a duration from "100ms" to "5m""#,
    ),
    (
        r#"[delivery]
timeout = "10m""#,
        r#"aquarium.toml:3:11: "timeout" is out of bounds; accepted: a duration from "100ms" to "5m""#,
    ),
    (
        r#"[delivery]
timeout = "3s"
connect_timeout = "4s""#,
        r#"aquarium.toml:4:19: "connect_timeout" is longer than the timeout of the whole attempt; accepted: up to "3s""#,
    ),
    (
        r#"[delivery]
concurrency = 0"#,
        r#"aquarium.toml:3:15: "concurrency" is out of bounds; accepted: an integer from 1 to 1024"#,
    ),
    (
        r#"[delivery]
concurrency = "16""#,
        r#"aquarium.toml:3:15: "concurrency" must be an integer, not a string"#,
    ),
    (
        r#"[delivery]
retry = ["5s", "31d", "0s"]"#,
        r#"aquarium.toml:3:16: "retry" is out of bounds; accepted: durations from "1ms" to "30d"
aquarium.toml:3:23: "retry" is out of bounds; accepted: durations from "1ms" to "30d""#,
    ),
    (
        r#"[delivery]
jitter = 1.5"#,
        r#"aquarium.toml:3:10: "jitter" is out of bounds; accepted: a number from 0 to 1"#,
    ),
    (
        r#"[delivery]
jitter = nan"#,
        r#"aquarium.toml:3:10: "jitter" is out of bounds; accepted: a number from 0 to 1"#,
    ),
    (
        r#"[delivery]
give_up_after = "0s""#,
        r#"aquarium.toml:3:17: "give_up_after" is out of bounds; accepted: a duration from "1ms" to "365d""#,
    ),
    (
        r#"[delivery]
breaker_failures = false"#,
        "aquarium.toml:3:20: the breaker cannot be switched off: it keeps one endpoint from using up retries; accepted: an integer from 1 to 1000000",
    ),
    (
        r#"[delivery]
rate_limit = 50"#,
        r#"aquarium.toml:3:14: "rate_limit" needs a unit; did you mean "50/s"? accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = "50""#,
        r#"aquarium.toml:3:14: "rate_limit" needs a unit; did you mean "50/s"? accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = "50/sec""#,
        r#"aquarium.toml:3:14: "50/sec" is not a rate; did you mean "50/s"? accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = "0/s""#,
        r#"aquarium.toml:3:14: "rate_limit" is out of bounds; accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = "1.5/s""#,
        r#"aquarium.toml:3:14: "1.5/s" is not a rate; accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = "50/d""#,
        r#"aquarium.toml:3:14: "50/d" is not a rate; accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"[delivery]
rate_limit = true"#,
        r#"aquarium.toml:3:14: "rate_limit" must be a rate such as "50/s", not a boolean"#,
    ),
    (
        r#"[delivery]
order = true"#,
        r#"aquarium.toml:3:9: "order" must be a string, not a boolean"#,
    ),
    (
        r#"[egress]
allow = ["10.1.2.3/8"]"#,
        r#"aquarium.toml:3:10: "10.1.2.3/8" is another network than it looks like; did you mean "10.0.0.0/8"?"#,
    ),
    (
        r#"[egress]
allow = ["example.com"]"#,
        r#"aquarium.toml:3:10: "example.com" is not a network; accepted: "10.0.0.0/8", "fd00::/8", "192.168.1.7""#,
    ),
    (
        r#"[ingest]
listen = "unix:/run/ingest.sock"
mode = "0777""#,
        r#"aquarium.toml:4:8: "0777" is not the mode of a socket; accepted: "0600", "0660", "0666""#,
    ),
    (
        r#"[admin]
listen = "unix:/run/admin.sock"
mode = 384"#,
        r#"aquarium.toml:4:8: "mode" must be "0600", "0660", "0666", not an integer"#,
    ),
    (
        r#"[egress]
deny = ["10.1.2.3/8"]"#,
        r#"aquarium.toml:3:9: "10.1.2.3/8" is another network than it looks like; did you mean "10.0.0.0/8"?"#,
    ),
    (
        r#"[egress]
deny_ports = [25, 0]"#,
        r#"aquarium.toml:3:19: "deny_ports" is out of bounds; accepted: a port from 1 to 65535"#,
    ),
    (
        r#"[egress]
proxy_connect = "adress""#,
        r#"aquarium.toml:3:17: "adress" is not what a proxy is asked for; did you mean "address"? accepted: "name", "address""#,
    ),
    (
        r#"[egress]
proxy = "https://egress-proxy:4750""#,
        r#"aquarium.toml:3:9: a proxy is spoken to by http://; what goes through it is encrypted all the same"#,
    ),
    (
        r#"[egress]
proxy = "egress-proxy:4750""#,
        r#"aquarium.toml:3:9: a proxy is spoken to by http://; accepted: http://host:port"#,
    ),
    (
        r#"[egress]
proxy = "http://user:word@egress-proxy:4750""#,
        r#"aquarium.toml:3:9: a URL must not hold a user name or password; accepted: http://host:port"#,
    ),
    (
        r#"[egress]
proxy = "http://egress-proxy:4750/path""#,
        r#"aquarium.toml:3:9: a proxy has no path and no query; accepted: http://host:port"#,
    ),
    (
        r#"[egress]
proxy = "http://0x7f.1:4750""#,
        r#"aquarium.toml:3:9: this spelling of an address hides where it leads; write 127.0.0.1; accepted: http://host:port"#,
    ),
    (
        r#"[egress]
roots = "mozilla""#,
        r#"aquarium.toml:3:9: unknown roots "mozilla"; accepted: "native", "webpki", { file = "…" }"#,
    ),
    (
        r#"[egress]
roots = { file = "secrets/acme" }"#,
        r#"aquarium.toml:3:18: file "secrets/acme" holds no certificate; accepted: PEM: -----BEGIN CERTIFICATE-----"#,
    ),
    (
        r#"[traces]
sample = 0.5"#,
        r#"aquarium.toml:2:1: "otlp" is missing; accepted: the URL of a collector, such as "http://127.0.0.1:4318""#,
    ),
    (
        r#"[traces]
otlp = "grpc://collector:4317""#,
        r#"aquarium.toml:3:8: the URL must start with https:// or http://; accepted: the URL of OTLP over HTTP, such as http://host:4318"#,
    ),
    (
        r#"[traces]
otlp = "http://collector:4318"
sample = 2"#,
        r#"aquarium.toml:4:10: "sample" is out of bounds; accepted: a number from 0 to 1"#,
    ),
    (
        r#"[events]
custom = ["Model Trained", "test"]"#,
        r#"aquarium.toml:3:11: "Model Trained" cannot name an event type; accepted: 1 to 64 of a-z, 0-9, "-", "_", ".", starting with a letter
aquarium.toml:3:28: "test" is a built-in event type"#,
    ),
    ("delivery = 3", r#"aquarium.toml:2:12: "delivery" must be a table, not an integer"#),
    ("[[ingest]]", r#"aquarium.toml:2:1: "ingest" must be a table, not an array"#),
    (
        r#"[ingest]
[ingest]"#,
        "aquarium.toml:3:2: this key is there already",
    ),
    (
        r#"[ingest
listen = "#,
        "aquarium.toml:2:8: unclosed table, expected `]`",
    ),
];

#[test]
fn aquarium_toml_is_refused_with_the_reason() {
    for (aquarium, expected) in AQUARIUM {
        let source = directory(aquarium, OPS);
        assert_eq!(errors(&source).to_string(), *expected);
    }
}

/// What `organizations/acme.toml` says after its version, and what is said about it. `{OPS}` is a good webhook.
const ACME: &[(&str, &str)] = &[
    (
        r#"secret = "plain""#,
        r#"organizations/acme.toml:2:10: "secret" must not stand in the configuration itself; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"secret = { file = "../secrets/none" }"#,
        r#"organizations/acme.toml:2:19: cannot read file "organizations/../secrets/none": there is no such file"#,
    ),
    (
        r#"secret = { env = "UNSET" }"#,
        r#"organizations/acme.toml:2:18: environment variable "UNSET" is not set"#,
    ),
    (
        r#"secret = { env = "OPS_TOKEN" }"#,
        r#"organizations/acme.toml:2:18: environment variable "OPS_TOKEN" holds no usable secret: its character 7 is not visible ASCII (0x21 to 0x7e)"#,
    ),
    (
        r#"secret = { env = "not-a-name" }"#,
        r#"organizations/acme.toml:2:18: this is not the name of an environment variable; accepted: letters, digits and "_", not starting with a digit"#,
    ),
    (
        r#"secret = { file = "x", env = "X" }"#,
        r#"organizations/acme.toml:2:10: "secret" has two sources; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"secret = { path = "x" }"#,
        r#"organizations/acme.toml:2:12: unknown key "path"; accepted: file, env"#,
    ),
    (
        "secret = {}",
        r#"organizations/acme.toml:2:10: "secret" does not say where it is read from; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"secert = { file = "x" }"#,
        r#"organizations/acme.toml:2:1: unknown key "secert"; did you mean "secret"? accepted: version, secret, signing_key, projects"#,
    ),
    (
        r#"signing_key = "whsec_plain""#,
        r#"organizations/acme.toml:2:15: "signing_key" must not stand in the configuration itself; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"signing_key = { file = "../signing-keys/none" }"#,
        r#"organizations/acme.toml:2:24: cannot read file "organizations/../signing-keys/none": there is no such file"#,
    ),
    (
        r#"signing_key = { env = "OPS_TOKEN" }"#,
        r#"organizations/acme.toml:2:23: environment variable "OPS_TOKEN" holds no usable signing key: it does not start with "whsec_""#,
    ),
    (
        r#"signing_kye = { file = "x" }"#,
        r#"organizations/acme.toml:2:1: unknown key "signing_kye"; did you mean "signing_key"? accepted: version, secret, signing_key, projects"#,
    ),
    (
        "[projects.p.webhooks.w]",
        r#"organizations/acme.toml:2:1: "url" is missing; accepted: https://host/path
organizations/acme.toml:2:1: "events" is missing; accepted: ["*"] for all, or an array of event types"#,
    ),
    (
        "[projects.p.webhook.w]",
        r#"organizations/acme.toml:2:13: unknown key "webhook"; did you mean "webhooks"? accepted: webhooks"#,
    ),
    (
        r#"[projects."a/b".webhooks.w]"#,
        r#"organizations/acme.toml:2:11: "a/b" cannot name a project: a name cannot hold '/'"#,
    ),
    (
        r#"[projects.p.webhooks.""]"#,
        r#"organizations/acme.toml:2:22: "" cannot name a webhook: a name cannot be empty"#,
    ),
    (r#"{OPS}url = "https://again.example.com""#, "organizations/acme.toml:5:1: this key is there already"),
    ("{OPS}active = 1", r#"organizations/acme.toml:5:10: "active" must be true or false, not an integer"#),
    (
        r#"{OPS}order = "random""#,
        r#"organizations/acme.toml:5:9: unknown order "random"; accepted: "none", "fifo", "entity""#,
    ),
    (
        r#"{OPS}rate_limit = "1/minute""#,
        r#"organizations/acme.toml:5:14: "1/minute" is not a rate; did you mean "1/m"? accepted: 1 to 1000000 for each second, minute or hour, such as "50/s", "300/m", "1000/h"; "none""#,
    ),
    (
        r#"{OPS}connect_timeout = "20s""#,
        r#"organizations/acme.toml:5:19: "connect_timeout" is longer than the timeout of the whole attempt; accepted: up to "15s""#,
    ),
    (
        r#"{OPS}headers = { Host = "x", "webhook-id" = "x", "a b" = "x", X-A = "", x-a = "b", X-B = 3 }"#,
        r#"organizations/acme.toml:5:13: header "Host" cannot be set: it follows from the URL
organizations/acme.toml:5:25: header "webhook-id" cannot be set: receivers rely on it to be set by this sender
organizations/acme.toml:5:45: "a b" is not the name of a header; accepted: letters, digits and "-"
organizations/acme.toml:5:64: header "X-A" is empty
organizations/acme.toml:5:85: "X-B" must be a string, { file = "…" } or { env = "…" }, not an integer"#,
    ),
    (
        r#"{OPS}tls = { ca = "ca.pem", certificate = { file = "../secrets/acme" }, kye = {} }"#,
        r#"organizations/acme.toml:5:7: "key" is missing; accepted: { file = "…" }, { env = "…" }
organizations/acme.toml:5:14: "ca" must be a table, not a string
organizations/acme.toml:5:47: file "organizations/../secrets/acme" holds no certificate; accepted: PEM: -----BEGIN CERTIFICATE-----
organizations/acme.toml:5:68: unknown key "kye"; did you mean "key"? accepted: ca, certificate, key"#,
    ),
    (
        r#"{OPS}tls = { key = { file = "../secrets/acme" } }"#,
        r#"organizations/acme.toml:5:7: "certificate" is missing; accepted: { file = "…" }
organizations/acme.toml:5:24: file "organizations/../secrets/acme" holds no private key; accepted: PEM: -----BEGIN PRIVATE KEY-----, or that of an RSA or EC key"#,
    ),
    (
        r#"{OPS}tls = { certificate = { file = "none" }, key = "-----BEGIN PRIVATE KEY-----" }"#,
        r#"organizations/acme.toml:5:32: cannot read file "organizations/none": there is no such file
organizations/acme.toml:5:48: "key" must not stand in the configuration itself; accepted: { file = "…" }, { env = "…" }"#,
    ),
    (
        r#"{OPS}headers = ["X-A: b"]"#,
        r#"organizations/acme.toml:5:11: "headers" must be a table, not an array"#,
    ),
    (
        r#"[projects.p.webhooks.w]
url = "http://0x7f.1/"
events = []"#,
        r#"organizations/acme.toml:3:7: this spelling of an address hides where it leads; write 127.0.0.1
organizations/acme.toml:4:10: "events" is empty: the webhook would get nothing; ["*"] for all; active = false to send nothing"#,
    ),
    (
        r#"[projects.p.webhooks.w]
url = "http://10.0.0.1/"
events = "*""#,
        r#"organizations/acme.toml:3:7: http:// to 10.0.0.1 is not allowed: it is not within egress.allow; use https://, or add "10.0.0.1/32" to it
organizations/acme.toml:4:10: "events" must be an array of event types, not a string"#,
    ),
    (
        r#"[projects.p.webhooks.w]
url = "ops.example.com"
events = [3, "isue-update", "nothing-like-it"]"#,
        r#"organizations/acme.toml:3:7: the URL must start with https:// or http://; accepted: https://host/path, or http:// within egress.allow
organizations/acme.toml:4:11: "events" must be an array of strings, not an integer
organizations/acme.toml:4:14: unknown event "isue-update"; did you mean "issue-updated"? accepted: "*", dataset-complete, dataset-failed, issues-created, issue-updated, issue-exported, test
organizations/acme.toml:4:29: unknown event "nothing-like-it"; accepted: "*", dataset-complete, dataset-failed, issues-created, issue-updated, issue-exported, test"#,
    ),
];

#[test]
fn an_organization_is_refused_with_the_reason() {
    for (acme, expected) in ACME {
        let source = directory("", &acme.replace("{OPS}", OPS));
        assert_eq!(errors(&source).to_string(), *expected);
    }
}
