//! An HTTP proxy that does what it is told, and remembers what it was asked for (CONNECT: RFC 9110, section 9.3.6).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The longest request, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// What it does when it is asked for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conduct {
    /// Connects to this address, whatever it was asked for.
    Forward(SocketAddr),
    /// Writes these bytes, and closes the connection.
    Say(Vec<u8>),
    /// Writes these bytes again and again.
    SayForEver(Vec<u8>),
    /// Says nothing.
    Hang,
}

/// A running proxy. It ends when it is dropped, and all of its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    listening: AbortHandle,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(conduct: Conduct) -> Proxy {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(listener) => listener,
            Err(error) => panic!("the proxy cannot listen: {error}"),
        };
        let address = listener.local_addr().expect("a listener has an address");
        let asked = Arc::default();
        let listening = tokio::spawn(listen(listener, conduct, Arc::clone(&asked))).abort_handle();
        Proxy { address, asked, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a configuration names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked for: the first lines of the requests, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, conduct: Conduct, asked: Arc<Mutex<Vec<String>>>) {
    // They end with this.
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(serve(stream, conduct.clone(), Arc::clone(&asked)));
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, conduct: Conduct, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let request = read(&mut stream).await?;
    let line = request.lines().next().unwrap_or_default().to_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    match conduct {
        Conduct::Forward(address) => {
            let mut onward = TcpStream::connect(address).await?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            copy_bidirectional(&mut stream, &mut onward).await?;
        }
        Conduct::Say(bytes) => stream.write_all(&bytes).await?,
        Conduct::SayForEver(bytes) => loop {
            stream.write_all(&bytes).await?;
        },
        Conduct::Hang => drop(stream.read_u8().await?),
    }
    Ok(())
}

/// Reads up to the end of the request's head.
async fn read(stream: &mut TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}
