//! Reads `aquarium.toml`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquarium_event::{InvalidType, Type, Types};
use ipnet::{IpNet, Ipv4Net};

use crate::delivery::Delivery;
use crate::diagnostic::quote;
use crate::document::{Table, Value};
use crate::endpoint::proxy;
use crate::findings::Problem;
use crate::reader::Scope;
use crate::secret::{path, secret};
use crate::tls::{Pem, read_certificates};
use crate::traces::traces;
use crate::value::{self, Bounds};
use crate::webhook::Rules;
use crate::{Admin, Egress, Engine, Ingest, Listen, Queue, Roots, Secret, Traces};

const EVENT_SIZE: Bounds<u64> =
    Bounds { least: 1 << 10, greatest: 64 << 20, accepted: "a size from \"1KiB\" to \"64MiB\"" };
const QUEUE_SIZE: Bounds<u64> =
    Bounds { least: 1 << 20, greatest: 1 << 50, accepted: "a size from \"1MiB\" to \"1PiB\"" };
const RETENTION: Bounds<Duration> = Bounds {
    least: Duration::from_secs(1),
    greatest: Duration::from_secs(3650 * 86_400),
    accepted: "a duration from \"1s\" to \"3650d\"",
};
const GRACE: Bounds<Duration> = Bounds {
    least: Duration::ZERO,
    greatest: Duration::from_secs(3_600),
    accepted: "a duration from \"0s\" to \"1h\"",
};
/// The most event types that an operator may declare.
const MAX_CUSTOM: usize = 256;
/// The most networks in `egress.allow`.
const MAX_ALLOW: usize = 1024;
/// The longest path of a Unix socket, in bytes: `sun_path` without its last zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// What the file says.
pub(crate) struct Aquarium {
    pub(crate) shutdown_grace: Duration,
    pub(crate) ingest: Ingest,
    pub(crate) admin: Admin,
    pub(crate) queue: Queue,
    pub(crate) egress: Egress,
    pub(crate) traces: Traces,
    pub(crate) rules: Rules,
}

impl Aquarium {
    /// Stands in for a file that cannot be read: what it may have allowed or declared is not known.
    pub(crate) fn unknown(file: &Path) -> Self {
        Self {
            shutdown_grace: Duration::from_secs(25),
            ingest: Ingest { listen: local(7878), mode: SOCKET_MODE, max_event_size: 1 << 20, token: None },
            admin: Admin { listen: local(7879), mode: SOCKET_MODE, token: None },
            queue: Queue {
                engine: Engine::Sqlite,
                path: file.with_file_name("data").join("queue.db"),
                max_size: 4 << 30,
                retention: Duration::from_secs(7 * 86_400),
            },
            egress: Egress::default(),
            traces: Traces::default(),
            rules: Rules { types: None, allow: None, listeners: Vec::new(), delivery: Delivery::default() },
        }
    }

    /// Reads the file; what cannot be used is reported, and stands as if it were not there.
    pub(crate) fn read(file: &Path, mut root: Table<'_, '_>, scope: Scope<'_>) -> Self {
        let default = Self::unknown(file);
        let shutdown_grace =
            root.read("shutdown_grace", default.shutdown_grace, |v| value::duration(v, &GRACE));
        let (ingest, ingest_at) = ingest(root.section("ingest"), default.ingest, scope);
        let (admin, admin_at) = admin(root.section("admin"), default.admin, scope);
        let queue = queue(root.section("queue"), default.queue, ingest.max_event_size, scope);
        let mut section = root.section("delivery");
        let delivery = Delivery::read(&mut section, &default.rules.delivery);
        section.finish();
        let (egress, allow_known) = egress(root.section("egress"), scope);
        let traces = traces(root.section("traces"), scope);
        let types = events(root.section("events"));
        if ingest.listen == admin.listen && !matches!(&ingest.listen, Listen::Tcp(at) if at.port() == 0) {
            let span = admin_at.or(ingest_at).unwrap_or_default();
            let message = format!("[ingest] and [admin] cannot both listen at {}", ingest.listen);
            root.findings.add(Problem::error(span, message));
        }
        root.finish();
        let listeners = [&ingest.listen, &admin.listen].into_iter().filter_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        });
        let listeners = listeners.collect();
        let rules = Rules { types, allow: allow_known.then(|| egress.allow.clone()), listeners, delivery };
        Self { shutdown_grace, ingest, admin, queue, egress, traces, rules }
    }
}

fn local(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn ingest(mut table: Table<'_, '_>, default: Ingest, scope: Scope<'_>) -> (Ingest, Option<Range<usize>>) {
    let (listen, token, at) = listener(&mut table, default.listen, scope);
    let mode = socket_mode(&mut table, &listen);
    let max_event_size =
        table.read("max_event_size", default.max_event_size, |v| value::size(v, &EVENT_SIZE));
    table.finish();
    (Ingest { listen, mode, max_event_size, token }, at)
}

fn admin(mut table: Table<'_, '_>, default: Admin, scope: Scope<'_>) -> (Admin, Option<Range<usize>>) {
    let (listen, token, at) = listener(&mut table, default.listen, scope);
    let mode = socket_mode(&mut table, &listen);
    table.finish();
    (Admin { listen, mode, token }, at)
}

/// Who may connect to a unix socket unless `mode` says otherwise: its owner.
const SOCKET_MODE: u32 = 0o600;

/// The mode of a unix socket's file, as `chmod` takes it.
fn socket_mode(table: &mut Table<'_, '_>, listen: &Listen) -> u32 {
    let Some(value) = table.take("mode") else { return SOCKET_MODE };
    const ACCEPTED: &str = "\"0600\", \"0660\", \"0666\"";
    let Some(text) = value.text(ACCEPTED) else { return SOCKET_MODE };
    if matches!(listen, Listen::Tcp(_)) {
        value.report(value.warning("only a unix socket has a mode: this is not used"));
    }
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(text, 8) {
        // To connect is to write; what can be read or run of a socket is nothing.
        Ok(mode) if digits && mode & !0o666 == 0 && mode & 0o600 == 0o600 => mode,
        _ => {
            let message = format!("{} is not the mode of a socket", quote(text));
            value.report(value.problem(message).accepted(ACCEPTED));
            SOCKET_MODE
        }
    }
}

/// Where to listen, what to ask for, and where the former stands.
fn listener(
    table: &mut Table<'_, '_>,
    default: Listen,
    scope: Scope<'_>,
) -> (Listen, Option<Secret>, Option<Range<usize>>) {
    let listen = table.take("listen");
    let token = table.take("token");
    let at = listen.as_ref().map(|value| value.span.clone());
    let address = listen.as_ref().and_then(|value| self::listen(value, scope)).unwrap_or(default);
    if let Some(value) = listen.filter(|_| token.is_none() && !address.is_local()) {
        let message = "a token is required here: others than this machine could connect";
        value.report(value.problem(message).help("add token = { file = \"…\" }, or listen at 127.0.0.1"));
    }
    (address, token.and_then(|value| secret(value, scope)), at)
}

fn listen(value: &Value<'_, '_>, scope: Scope<'_>) -> Option<Listen> {
    const ACCEPTED: &str = "\"ip:port\", \"unix:/path\"";
    let text = value.text("an address such as \"127.0.0.1:7878\"")?;
    if let Some(path) = text.strip_prefix("unix:") {
        let problem = if path.is_empty() || path.contains('\0') {
            value.problem("the path of the socket is missing").accepted(ACCEPTED)
        } else if scope.resolve(path).as_os_str().len() > MAX_SOCKET_PATH {
            let message = "the path of the socket is too long for the system";
            value.problem(message).accepted(format!("up to {MAX_SOCKET_PATH} bytes"))
        } else {
            return Some(Listen::Unix(scope.resolve(path)));
        };
        value.report(problem);
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(Listen::Tcp(address));
    }
    let suggestion = match text.split_once(':') {
        Some(("localhost", port)) => Some(format!("127.0.0.1:{port}")),
        Some(("" | "*", port)) => Some(format!("0.0.0.0:{port}")),
        _ => None,
    };
    let suggestion = suggestion.filter(|text| text.parse::<SocketAddr>().is_ok());
    let message = format!("{} is not an address to listen at", quote(text));
    value.report(value.problem(message).suggestion(suggestion).accepted(ACCEPTED));
    None
}

fn queue(mut table: Table<'_, '_>, default: Queue, largest_event: u64, scope: Scope<'_>) -> Queue {
    let engine = table.read("engine", default.engine, |v| {
        value::word(v, &[("sqlite", Some(Engine::Sqlite)), ("jetstream", None)])
    });
    let path: PathBuf = table.read("path", default.path, |v| path(v, scope));
    let max_size = table.read("max_size", default.max_size, |v| {
        let size = value::size(v, &QUEUE_SIZE)?;
        if size < largest_event {
            v.report(v.problem("\"max_size\" is less than one event of ingest.max_event_size"));
        }
        Some(size)
    });
    let retention = table.read("retention", default.retention, |v| value::duration(v, &RETENTION));
    table.finish();
    Queue { engine, path, max_size, retention }
}

/// The section, and whether all of `allow` could be read.
fn egress(mut table: Table<'_, '_>, scope: Scope<'_>) -> (Egress, bool) {
    let before = table.findings.len();
    let allow = table.take("allow").and_then(|value| networks(value, true)).unwrap_or_default();
    let known = !table.findings.failed_since(before);
    let deny = table.take("deny").and_then(|value| networks(value, false)).unwrap_or_default();
    let deny_ports = table.take("deny_ports").and_then(ports);
    let roots = table.take("roots").and_then(|value| roots(value, scope)).unwrap_or_default();
    let proxy = table.take("proxy").and_then(|value| proxy(&value));
    let proxy_by_address = table.read("proxy_connect", false, proxy_connect);
    table.finish();
    (Egress { allow, deny, deny_ports, roots, proxy, proxy_by_address }, known)
}

/// Whether the proxy is asked for addresses.
fn proxy_connect(value: &Value<'_, '_>) -> Option<bool> {
    const ACCEPTED: &str = "\"name\", \"address\"";
    match value.text(ACCEPTED)? {
        "name" => Some(false),
        "address" => Some(true),
        other => {
            let meant = aquarium_event::nearest(other, ["name", "address"]);
            let message = format!("{} is not what a proxy is asked for", quote(other));
            value.report(value.problem(message).suggestion(meant).accepted(ACCEPTED));
            None
        }
    }
}

/// `allows` tells whether they are allowed, so that every address at all deserves a warning.
fn networks(value: Value<'_, '_>, allows: bool) -> Option<Vec<IpNet>> {
    let everything = value.warning(EVERYTHING);
    let problem = value.problem("there are too many networks").accepted(format!("up to {MAX_ALLOW}"));
    let findings = value.findings;
    let items = value.items("an array of networks such as [\"10.0.0.0/8\"]")?;
    if items.len() > MAX_ALLOW {
        findings.add(problem);
        return None;
    }
    let mut networks: Vec<_> = items.iter().filter_map(network).collect();
    networks.sort();
    networks.dedup();
    // Also in parts, such as 0.0.0.0/1 and 128.0.0.0/1.
    if allows && IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0) {
        findings.add(everything);
    }
    Some(networks)
}

const EVERYTHING: &str = "this allows every address, also the machine's own and its metadata service";

/// The most ports in `egress.deny_ports`.
const MAX_PORTS: usize = 1024;
const PORT: Bounds<i64> = Bounds { least: 1, greatest: 65_535, accepted: "a port from 1 to 65535" };

fn ports(value: Value<'_, '_>) -> Option<Vec<u16>> {
    let problem = value.problem("there are too many ports").accepted(format!("up to {MAX_PORTS}"));
    let findings = value.findings;
    let items = value.items("an array of ports such as [25, 6379]")?;
    if items.len() > MAX_PORTS {
        findings.add(problem);
        return None;
    }
    let mut ports: Vec<_> =
        items.iter().filter_map(|port| u16::try_from(value::integer(port, &PORT)?).ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

fn network(value: &Value<'_, '_>) -> Option<IpNet> {
    let text = value.text("an array of strings")?;
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(network) = parsed else {
        let message = format!("{} is not a network", quote(text));
        value.report(value.problem(message).accepted("\"10.0.0.0/8\", \"fd00::/8\", \"192.168.1.7\""));
        return None;
    };
    let plain = plain(network);
    if network != plain {
        let message = format!("{} is another network than it looks like", quote(text));
        value.report(value.problem(message).suggestion(Some(plain.to_string())));
        return None;
    }
    Some(network)
}

/// The network as it should be written: without bits past the prefix, and as IPv4 if that is what it is.
fn plain(network: IpNet) -> IpNet {
    let network = network.trunc();
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(network, IpNet::V4),
        _ => network,
    }
}

fn roots(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Roots> {
    if !value.inner.is_table() {
        return match value.text("\"native\", \"webpki\" or { file = \"…\" }")? {
            "native" => Some(Roots::Native),
            "webpki" => Some(Roots::Webpki),
            other => {
                let problem = value.problem(format!("unknown roots {}", quote(other)));
                value.report(problem.accepted("\"native\", \"webpki\", { file = \"…\" }"));
                None
            }
        };
    }
    let mut table = value.into_table()?;
    let file = table.take("file");
    if file.is_none() {
        table.missing("file", "the path of a PEM file");
    }
    table.finish();
    let Pem { path, pem } = read_certificates(&file?, scope)?;
    Some(Roots::File { path, pem })
}

/// The known types; none if some could not be read.
fn events(mut table: Table<'_, '_>) -> Option<Types> {
    let before = table.findings.len();
    let mut types = Types::default();
    let (findings, custom) = (table.findings, table.take("custom"));
    table.finish();
    let known = |types| (!findings.failed_since(before)).then_some(types);
    let Some(custom) = custom else { return known(types) };
    let problem = custom.problem("there are too many event types").accepted(format!("up to {MAX_CUSTOM}"));
    let items = custom.items("an array of event types")?;
    if items.len() > MAX_CUSTOM {
        findings.add(problem);
        return None;
    }
    for item in items {
        let Some(text) = item.text("an array of strings") else { continue };
        if types.parse(text).is_ok_and(|kind| matches!(kind, Type::Custom(_))) {
            item.report(item.warning(format!("{} is there twice", quote(text))));
            continue;
        }
        item.report(match types.declare(text) {
            Ok(()) => continue,
            Err(InvalidType::BuiltIn(_)) => item.problem(format!("{} is a built-in event type", quote(text))),
            Err(InvalidType::Shape(_)) => item
                .problem(format!("{} cannot name an event type", quote(text)))
                .accepted("1 to 64 of a-z, 0-9, \"-\", \"_\", \".\", starting with a letter"),
        });
    }
    known(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_plain_when_they_look_like_what_they_are() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(plain(text.parse().unwrap()).to_string(), expected);
        }
    }
}
