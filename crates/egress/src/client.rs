//! The client that makes the requests, and the connections that it keeps.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connect::{Bounded, Connector};
use crate::{MAX_RESPONSE_BODY, Options, TlsError, tls};

/// The most that an answer's head may take, in bytes.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
const MAX_RESPONSE_HEADERS: usize = 128;
/// No handshake goes on for longer, also when the attempt that began it has ended.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS_PER_HOST: usize = 64;
const IDLE_CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

pub(crate) type Http = Client<Bounded<HttpsConnector<Connector>>, Full<Bytes>>;

/// A client without connections. A request that an idle connection gives back is not sent again by itself: there may be
/// a reason not to send it any more.
pub(crate) fn build(options: Options) -> Result<Http, TlsError> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls::client_config(&options.roots)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(Connector::new(options.guard));
    let client = Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http1_max_buf_size(MAX_RESPONSE_HEAD)
        .http1_max_headers(MAX_RESPONSE_HEADERS)
        .http2_max_header_list_size(MAX_RESPONSE_HEAD as u32)
        .http2_initial_stream_window_size(MAX_RESPONSE_BODY as u32)
        .build(Bounded::new(connector, LONGEST_CONNECT));
    Ok(client)
}
