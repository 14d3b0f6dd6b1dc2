//! Opens connections: every address is checked before a connection goes to it.
//!
//! A name is resolved once, its addresses are checked, and the connection goes to one of those that passed: there is no
//! second look-up whose answer could differ (DNS rebinding). Literal addresses are checked as well.

mod proxy;
mod race;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aquarium_delivery::{Failure, FailureKind, Phases};
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Host, Origin};
use crate::failure::{classify, timed_out};
use crate::guard::is_of_this_machine;
use crate::http1::Http1;
use crate::http2::Http2;
use crate::pool::{Connection, Opening};
use crate::resolve::Resolve;
use crate::tls::{HTTP_2, Sessions};
use crate::transport::{Stream, Transport};
use crate::{Blocked, Guard};
pub use proxy::{InvalidProxy, Proxy};

/// The most addresses of a name that are tried. Who answers with more would have us knock at many doors.
const MAX_ADDRESSES: usize = 16;

/// What is needed to open a connection.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) guard: Guard,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) sessions: Sessions,
    /// What connections go through, if not directly.
    pub(crate) proxy: Option<Proxy>,
    /// The sidecar's own listeners.
    pub(crate) own: Arc<[SocketAddr]>,
}

/// How far an attempt has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phases: Phases,
    /// What it waits for as long as there is no connection.
    awaits: Awaits,
}

#[derive(Debug, Default)]
enum Awaits {
    /// A connection that is opened for another request.
    #[default]
    Another,
    Address,
    Connection,
    /// The proxy of this name.
    Proxy(String),
    Session,
}

impl Progress {
    /// The failure of an attempt that waits no longer for a connection.
    pub(crate) fn too_late(&self) -> Failure {
        let what = match &self.awaits {
            Awaits::Another => "no connection",
            Awaits::Address => "no address of the host",
            Awaits::Connection => "no TCP connection",
            Awaits::Proxy(name) => {
                return timed_out(FailureKind::Proxy, &format!("no answer of the proxy {name}"));
            }
            Awaits::Session => "no TLS session",
        };
        timed_out(FailureKind::ConnectTimeout, what)
    }
}

impl Connector {
    /// Opens a connection for one request; others learn of it if it has room for them. How far it has come is written
    /// down as it goes.
    pub(crate) async fn open(
        &self,
        opening: Opening,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        match self.negotiate(&opening, progress).await {
            Ok(Negotiated::Http1(http1)) => Ok(opening.http1(http1)),
            Ok(Negotiated::Http2(http2)) => opening.http2(http2).ok_or_else(|| {
                Failure::new(FailureKind::Protocol, "the connection ended before it could be used")
            }),
            Err(failure) => {
                opening.failed();
                Err(failure)
            }
        }
    }

    async fn negotiate(&self, opening: &Opening, progress: &mut Progress) -> Result<Negotiated, Failure> {
        let origin = opening.origin();
        let addresses = self.addresses(origin, progress).await?;
        let started = Instant::now();
        let stream = match &self.proxy {
            None => {
                progress.awaits = Awaits::Connection;
                race::connect(&addresses).await.map_err(|error| refused(&error))?
            }
            Some(proxy) => {
                progress.awaits = Awaits::Proxy(proxy.to_string());
                proxy.connect(origin, &addresses, &*self.resolver).await?
            }
        };
        // It is a matter of speed, and works without.
        let _ = stream.set_nodelay(true);
        progress.phases.connect = Some(started.elapsed());
        let http1 = |stream| async {
            let connection = Http1::new(Transport::new(stream)).await.map_err(|error| classify(&error))?;
            Ok(Negotiated::Http1(connection))
        };
        if !origin.encrypted {
            return http1(Stream::Clear(stream)).await;
        }
        progress.awaits = Awaits::Session;
        let started = Instant::now();
        let config = self.sessions.client_config(origin.tls.as_deref());
        let connector = TlsConnector::from(config.map_err(|error| Failure::new(FailureKind::Tls, error))?);
        let stream =
            connector.connect(server_name(&origin.host)?, stream).await.map_err(|error| tls(&error))?;
        progress.phases.tls = Some(started.elapsed());
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        let stream = Stream::Encrypted(Box::new(stream));
        if !is_http2 {
            return http1(stream).await;
        }
        let connection = Http2::new(Transport::new(stream), opening.news()).await;
        connection.map(Negotiated::Http2).map_err(|error| classify(&error))
    }

    /// The addresses that may be connected to, at least one.
    async fn addresses(&self, origin: &Origin, progress: &mut Progress) -> Result<Vec<SocketAddr>, Failure> {
        let found = match &origin.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                progress.awaits = Awaits::Address;
                let started = Instant::now();
                let found = self.resolver.resolve(name).await;
                progress.phases.dns = Some(started.elapsed());
                found.map_err(|error| unresolved(name, &error.to_string()))?
            }
        };
        let mut passing = Vec::with_capacity(found.len());
        let mut refusal: Option<Blocked> = None;
        for address in found {
            let destination = SocketAddr::new(address, origin.port);
            match self.guard.check_destination(destination, origin.encrypted, &self.own, is_of_this_machine) {
                Ok(()) => passing.push(address.to_canonical()),
                Err(blocked) => drop(refusal.get_or_insert(blocked)),
            }
        }
        // If there is none, the first refusal tells why.
        if passing.is_empty() {
            return Err(match (refusal, &origin.host) {
                (Some(blocked), _) => Failure::new(FailureKind::Blocked, blocked),
                (None, Host::Name(name)) => unresolved(name, "it has no address"),
                (None, Host::Address(address)) => unresolved(&address.to_string(), "it is no address"),
            });
        }
        let addresses = interleaved(passing).take(MAX_ADDRESSES);
        Ok(addresses.map(|address| SocketAddr::new(address, origin.port)).collect())
    }
}

enum Negotiated {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// One of each family in turn, IPv6 first (RFC 8305, section 4).
fn interleaved(addresses: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut turn = false;
    std::iter::from_fn(move || {
        turn = !turn;
        if turn { v6.next().or_else(|| v4.next()) } else { v4.next().or_else(|| v6.next()) }
    })
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Failure> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress(address.to_canonical().into())),
        // The dot at the end is not part of the name here (RFC 6066, section 3).
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(|_| {
            Failure::new(FailureKind::Request, format_args!("{name} cannot be the name of a server"))
        }),
    }
}

fn unresolved(name: &str, why: &str) -> Failure {
    Failure::new(FailureKind::Dns, format_args!("{name} cannot be resolved: {why}"))
}

fn refused(error: &io::Error) -> Failure {
    Failure::new(FailureKind::Connect, error)
}

/// What is not TLS's own is a connection that broke.
fn tls(error: &io::Error) -> Failure {
    let failure = classify(error);
    match failure.kind {
        FailureKind::Tls => failure,
        _ => Failure { kind: FailureKind::Connect, ..failure },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let turns: Vec<_> = interleaved(addresses).map(|address| address.to_string()).collect();
        assert_eq!(turns, ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
    }
}
