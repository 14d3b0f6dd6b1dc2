//! The least that a relay in Rust does: hyper on both sides, and a connection to the sink for each from the load. It
//! reads a request, sends it on with as many headers as the sidecar does, and passes the answer back.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// What the sidecar sends besides `Host` and `Content-Length`, in values of their usual length.
const HEADERS: [(&str, &str); 7] = [
    ("content-type", "application/json"),
    ("user-agent", "aquarium-sidecar/0.1.0"),
    ("x-aquarium-secret", "0123456789012345678901234567890123456789"),
    ("webhook-id", "evt_0199a1b2-0123-7123-8123-0123456789ab"),
    ("webhook-timestamp", "1760000000"),
    ("aquarium-delivery", "dlv_0199a1b2-0123-7123-8123-0123456789ab"),
    ("aquarium-attempt", "1"),
];

/// Relays until standard input ends. Says first where it listens.
pub(crate) async fn run(to: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(header::HOST, HeaderValue::try_from(to.to_string())?);
    let headers = Arc::new(headers);
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            let headers = headers.clone();
            tokio::spawn(async move {
                if let Err(error) = connection(stream, to, headers).await {
                    eprintln!("hyper relay: {error:#}");
                }
            });
        }
    };
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        ended = accepting => ended,
        _ = stdin.read_u8() => Ok(()),
    }
}

async fn connection(stream: TcpStream, to: SocketAddr, headers: Arc<HeaderMap>) -> Result<()> {
    stream.set_nodelay(true)?;
    let upstream = TcpStream::connect(to).await.context("the sink cannot be reached")?;
    upstream.set_nodelay(true)?;
    let (requests, driver) = handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(driver);
    // One request at a time comes in, so it is never waited for.
    let requests = Mutex::new(requests);
    let service = service_fn(|request| relay(request, &requests, &headers));
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn relay(
    request: Request<Incoming>,
    requests: &Mutex<SendRequest<Full<Bytes>>>,
    headers: &HeaderMap,
) -> Result<Response<Incoming>> {
    let (head, body) = request.into_parts();
    let mut onward = Request::new(Full::new(body.collect().await?.to_bytes()));
    *onward.method_mut() = head.method;
    *onward.uri_mut() = head.uri;
    *onward.headers_mut() = headers.clone();
    let mut requests = requests.lock().await;
    requests.ready().await?;
    Ok(requests.send_request(onward).await?)
}
