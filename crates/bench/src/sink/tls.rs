//! What is different about HTTPS.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use aquarium_testkit::certificates::{Authority, with_protocols};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::Protocol;
use crate::ledger::Ledger;
use crate::wire::webhook;

/// Streams that one connection may have at once: more than any webhook sends.
const STREAMS: u32 = 1_024;
/// Window of a connection and of a stream in bytes: no run waits for its updates.
const WINDOW: u32 = 16 * 1024 * 1024;

/// Accepts TLS with a certificate of this authority, for one protocol.
pub(super) fn acceptor(authority: &Authority, protocol: Protocol) -> TlsAcceptor {
    let name = if protocol == Protocol::Tls2 { "h2" } else { "http/1.1" };
    TlsAcceptor::from(Arc::new(with_protocols(authority.server(&["127.0.0.1"]), &[name])))
}

/// Serves HTTP/2.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ledger: Arc<Ledger>,
) -> Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let ledger = ledger.clone();
        async move { Ok::<_, Infallible>(take(request, &ledger).await) }
    });
    http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn take(request: Request<Incoming>, ledger: &Ledger) -> Response<Empty<Bytes>> {
    let number = webhook(request.uri().path());
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    match (number, request.into_body().collect().await) {
        (Some(number), Ok(body)) => ledger.arrived(number, &body.to_bytes()),
        _ => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}
