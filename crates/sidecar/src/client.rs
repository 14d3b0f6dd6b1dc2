//! Asking a running sidecar, over TCP or a unix socket.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Makes a request, of JSON if it has a body, and returns the status and the body of the answer.
pub(crate) async fn ask(
    method: Method,
    base: &str,
    path: &str,
    mut headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let asking = async {
        if let Some(socket) = base.strip_prefix("unix:") {
            headers.insert(HOST, HeaderValue::from_static("localhost"));
            return exchange(UnixStream::connect(socket).await?, method, path, headers, body).await;
        }
        let uri: Uri = base.parse().with_context(|| format!("{base:?} is not a URL"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{base:?} is neither http://HOST:PORT nor unix:PATH");
        };
        headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
        exchange(stream, method, path, headers, body).await
    };
    match timeout(limit, asking).await {
        Ok(answer) => answer.with_context(|| format!("no answer from {base}; is the sidecar running there?")),
        Err(_) => bail!("no answer from {base} within {limit:?}"),
    }
}

/// What a problem (RFC 9457) says, or the answer as it is.
pub(crate) fn reason(status: StatusCode, answer: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    let detail = detail.map_or_else(|| String::from_utf8_lossy(answer).into_owned(), str::to_owned);
    format!("the sidecar answered {status}: {detail}")
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; what it ended with shows in the answer.
    tokio::spawn(connection);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse()?;
    *request.headers_mut() = headers;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok((status, body.to_bytes()))
}
