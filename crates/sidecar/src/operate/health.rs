//! `healthcheck`: whether a running sidecar is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use toml::de::{DeTable, DeValue};

use super::api::{Api, Query};
use super::arguments::{Admin, Healthcheck};
use super::say;
use crate::terminal::print_json;

const DEFAULT: &str = "http://127.0.0.1:7879";

pub(crate) async fn main(arguments: Healthcheck) -> anyhow::Result<ExitCode> {
    let Healthcheck { config, admin, json } = arguments;
    let admin = admin.unwrap_or_else(|| address(&config));
    let ready = Api::new(&Admin { admin, token_file: None, json })?.get("/readyz", &Query::new()).await?;
    if json {
        print_json(&ready)?;
    } else {
        say("ready")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the admin API is by the configuration. It is not checked: that a later version of it is wrong does not make a
/// sidecar that runs less ready.
fn address(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join("aquarium.toml")).unwrap_or_default();
    let table = DeTable::parse(&text).ok();
    let listen = table.as_ref().and_then(|table| match table.get_ref().get("admin")?.get_ref() {
        DeValue::Table(admin) => admin.get("listen")?.get_ref().as_str(),
        _ => None,
    });
    listen.map_or_else(|| DEFAULT.to_owned(), |listen| url(listen, directory))
}

/// How to reach what listens there from this machine.
fn url(listen: &str, directory: &Path) -> String {
    if let Some(path) = listen.strip_prefix("unix:") {
        return format!("unix:{}", directory.join(path).display());
    }
    let Ok(address) = listen.parse::<SocketAddr>() else { return DEFAULT.to_owned() };
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_from_this_machine() {
        for (listen, expected) in [
            ("127.0.0.1:7879", "http://127.0.0.1:7879"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("10.0.0.7:80", "http://10.0.0.7:80"),
            ("unix:admin.sock", "unix:c/admin.sock"),
            ("unix:/run/admin.sock", "unix:/run/admin.sock"),
            ("nonsense", DEFAULT),
        ] {
            assert_eq!(url(listen, Path::new("c")), expected, "{listen}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_leaves_the_default() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(address(directory.path()), DEFAULT);
        std::fs::write(directory.path().join("aquarium.toml"), "[admin]\nlisten = \"127.0.0.1:1\"\n")
            .unwrap();
        assert_eq!(address(directory.path()), "http://127.0.0.1:1");
        std::fs::write(directory.path().join("aquarium.toml"), "[admin\n").unwrap();
        assert_eq!(address(directory.path()), DEFAULT);
    }
}
