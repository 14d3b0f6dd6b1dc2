//! The connector: every address is checked before a connection goes to it.
//!
//! A name is resolved once, its addresses are checked, and the connection goes to one of those that passed: there is no
//! second look-up whose answer could differ (DNS rebinding). Literal addresses are checked as well.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::{Blocked, Guard};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("{name} cannot be resolved: {source}")]
    Failed { name: String, source: io::Error },
    #[error("{name} has no address")]
    Empty { name: String },
}

/// The handshake took longer than any attempt would wait for it.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(crate) struct ConnectTimeout(Duration);

/// Connects to checked addresses only.
#[derive(Clone)]
pub(crate) struct Connector {
    clear: HttpConnector<Resolver>,
    encrypted: HttpConnector<Resolver>,
    guard: Arc<Guard>,
}

impl Connector {
    pub(crate) fn new(guard: Guard) -> Self {
        let guard = Arc::new(guard);
        let connector = |encrypted| {
            let mut http = HttpConnector::new_with_resolver(Resolver { guard: guard.clone(), encrypted });
            http.enforce_http(false);
            http.set_nodelay(true);
            http.set_keepalive(Some(Duration::from_secs(60)));
            http
        };
        Self { clear: connector(false), encrypted: connector(true), guard: guard.clone() }
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.clear.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        if let Some(address) = literal(&uri)
            && let Err(blocked) = self.guard.check(address, encrypted)
        {
            return Box::pin(async move { Err(blocked.into()) });
        }
        let connecting = if encrypted { self.encrypted.call(uri) } else { self.clear.call(uri) };
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// The address that stands in the URI, if it is not a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names, and keeps the addresses that pass the guard.
#[derive(Clone)]
struct Resolver {
    guard: Arc<Guard>,
    encrypted: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { guard, encrypted } = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|source| ResolveError::Failed { name: name.to_string(), source })?;
            Ok(passing(&name, found, &guard, encrypted)?.into_iter())
        })
    }
}

/// The addresses that may be connected to. If there is none, the first refusal tells why.
fn passing(
    name: &Name,
    found: impl Iterator<Item = SocketAddr>,
    guard: &Guard,
    encrypted: bool,
) -> Result<Vec<SocketAddr>, BoxError> {
    let mut refusal: Option<Blocked> = None;
    let mut passing = Vec::new();
    for address in found {
        match guard.check(address.ip(), encrypted) {
            Ok(()) => passing.push(address),
            Err(blocked) => drop(refusal.get_or_insert(blocked)),
        }
    }
    match refusal {
        Some(blocked) if passing.is_empty() => Err(blocked.into()),
        None if passing.is_empty() => Err(ResolveError::Empty { name: name.to_string() }.into()),
        _ => Ok(passing),
    }
}

/// Ends a connection attempt that nobody waits for any more, TLS handshake included.
#[derive(Clone)]
pub(crate) struct Bounded<C> {
    inner: C,
    limit: Duration,
}

impl<C> Bounded<C> {
    pub(crate) fn new(inner: C, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.inner.call(uri), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimeout(limit).into()),
            }
        })
    }
}
