//! A small HTTP client for what the sidecar serves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The longest that a request may take, from connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that keeps one connection, and makes another one when that was closed. One request at a time: a test that
/// wants several has several clients.
#[derive(Debug)]
pub struct Client {
    target: Target,
    /// A path that stands before that of each request.
    prefix: String,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
enum Target {
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Drives the connection, for as long as it is held.
    _task: JoinSet<()>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection to be had.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// The connection ended or failed before the answer did.
    #[error("the connection failed")]
    Connection(#[from] hyper::Error),
    /// It took longer than 30 s.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    /// The test asks for what cannot be sent.
    #[error("not a request")]
    Request(#[from] http::Error),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status; it can be compared with a number.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("a {} without a JSON body: {error}\n{}", self.status, self.text()),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// A client for `http://host:port`, with or without a path to begin with, or `unix:/path/of/a/socket`.
    ///
    /// # Panics
    /// If the URL is of another kind.
    pub fn new(base_url: &str) -> Client {
        if let Some(path) = base_url.strip_prefix("unix:") {
            return Client::unix(path);
        }
        let Some(rest) = base_url.strip_prefix("http://") else {
            panic!("{base_url} begins neither with http:// nor with unix:");
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = path.trim_end_matches('/').to_owned();
        Client { target: Target::Tcp(host.to_owned()), prefix, connection: Mutex::default() }
    }

    /// A client for a Unix socket.
    pub fn unix(path: impl AsRef<Path>) -> Client {
        let target = Target::Unix(path.as_ref().to_owned());
        Client { target, prefix: String::new(), connection: Mutex::default() }
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// [`Error`], when there is no answer.
    pub async fn get(&self, path: &str) -> Result<Response, Error> {
        self.request("GET", path, &[], Bytes::new()).await
    }

    /// Sends a POST. A `Content-Type` is only sent if it is among the headers.
    ///
    /// # Errors
    /// [`Error`], when there is no answer.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, Error> {
        self.request("POST", path, headers, body).await
    }

    /// Sends a request. A `Host` among the headers takes the place of the right one.
    ///
    /// # Errors
    /// [`Error`], when there is no answer.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(header::HOST, self.target.host());
        }
        let request = request.body(Full::new(body.into()))?;
        let mut connection = self.connection.lock().await;
        // What is not answered must not be mistaken for the answer to the next request: the connection is put back
        // when its answer was read to the end, and is dropped otherwise.
        let held = connection.take();
        let (response, held) =
            timeout(TIMEOUT, self.exchange(held, request)).await.map_err(|_| Error::Timeout)??;
        *connection = Some(held);
        Ok(response)
    }

    async fn exchange(
        &self,
        held: Option<Connection>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response, Connection), Error> {
        if let Some(mut held) = held
            && held.requests.ready().await.is_ok()
        {
            match held.requests.try_send_request(request).await {
                Ok(response) => return Ok((read(response).await?, held)),
                // It was closed in the meantime, before any of the request was written.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut fresh = self.target.connect().await?;
        let response = fresh.requests.send_request(request).await?;
        Ok((read(response).await?, fresh))
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Response, Error> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response { status: head.status, headers: head.headers, body })
}

impl Target {
    fn host(&self) -> &str {
        match self {
            Target::Tcp(host) => host,
            Target::Unix(_) => "localhost",
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        match self {
            Target::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(|e| Error::Connect(host.clone(), e))?;
                // Only slower without.
                let _ = stream.set_nodelay(true);
                Connection::new(stream).await
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Connection::new(stream.map_err(|e| Error::Connect(path.display().to_string(), e))?).await
            }
        }
    }
}

impl Connection {
    async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, Error> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The requests tell.
            let _ = connection.await;
        });
        Ok(Connection { requests, _task: task })
    }
}
