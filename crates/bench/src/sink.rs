//! The endpoint of all webhooks: takes note of what comes, and answers 204.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use aquarium_testkit::certificates::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::ledger::Ledger;
use crate::wire::Wire;

/// What is answered to every delivery.
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// Connections that may wait to be accepted.
const WAITING: u32 = 1_024;

/// How deliveries come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `http://`
    Plain,
    /// `https://`, HTTP/1.1
    Tls1,
    /// `https://`, HTTP/2
    Tls2,
}

/// A place for a sink: its address is taken, but nobody listens. Connections are refused.
#[derive(Debug)]
pub(crate) struct Down {
    socket: TcpSocket,
    address: SocketAddr,
    protocol: Protocol,
    authority: Option<Authority>,
}

/// A sink at work, on a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sink {
    _stop: oneshot::Sender<()>,
}

impl Down {
    /// Takes a free port of 127.0.0.1.
    pub(crate) fn new(protocol: Protocol) -> Result<Down> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let address = socket.local_addr()?;
        let authority = (protocol != Protocol::Plain).then(Authority::new);
        Ok(Down { socket, address, protocol, authority })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that the path of a webhook is appended to.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.protocol == Protocol::Plain { "http" } else { "https" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate authority to trust.
    pub(crate) fn authority(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// From now on deliveries are taken.
    pub(crate) async fn up(self, ledger: Arc<Ledger>) -> Result<Sink> {
        let acceptor = self.authority.map(|authority| tls::acceptor(&authority, self.protocol));
        let (stop, stopped) = oneshot::channel();
        let (listening, ready) = oneshot::channel();
        let socket = self.socket;
        std::thread::Builder::new().name("sink".to_owned()).spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = socket.listen(WAITING)?;
                // Whoever starts it waits for this.
                let _ = listening.send(());
                tokio::select! {
                    () = accept(&listener, acceptor, &ledger) => {}
                    // An error means the same: nobody needs it any more.
                    _ = stopped => {}
                }
                Ok(())
            })
        })?;
        ready.await.context("the sink cannot listen")?;
        Ok(Sink { _stop: stop })
    }
}

async fn accept(listener: &TcpListener, acceptor: Option<TlsAcceptor>, ledger: &Arc<Ledger>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, ledger) = (acceptor.clone(), ledger.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, acceptor, ledger).await
                && !is_end(&error)
            {
                eprintln!("sink: {error:#}");
            }
        });
    }
}

/// Whoever is killed, or drops a connection, breaks it off.
fn is_end(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        })
    })
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, ledger: Arc<Ledger>) -> Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else { return serve(stream, &ledger).await };
    let stream = acceptor.accept(stream).await.context("the handshake failed")?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return tls::serve(stream, ledger).await;
    }
    serve(stream, &ledger).await
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, ledger: &Ledger) -> Result<()> {
    let mut wire = Wire::new(stream);
    while wire.request(|webhook, body| ledger.arrived(webhook, body)).await? {
        wire.send(ANSWER).await?;
    }
    Ok(())
}
