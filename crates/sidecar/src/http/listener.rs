//! Sockets that connections come to: TCP, or a unix socket.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use aquarium_config::Listen;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::service::Passed;

/// Connections that may wait to be accepted. One that finds no place knocks again after a second (RFC 6298), which a burst of
/// clients must not come to. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 1_024;

/// A socket that connections come to.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf, ours: bool },
}

/// Where a listener really is.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// The address of a TCP listener.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Listens. A socket file that nobody listens on any more is replaced; one that is in use is not.
    ///
    /// Who may connect to a unix socket is said by `mode`, whatever the umask is. Before it listens nobody can connect, so
    /// there is no moment in which more may.
    pub(crate) async fn bind(listen: &Listen, mode: u32) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                // A restart must not wait until the connections of the last process are forgotten.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Ok(Self::Tcp(socket.listen(BACKLOG)?))
            }
            Listen::Unix(path) => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens on this socket"));
                }
                match std::fs::symlink_metadata(path) {
                    Ok(found) if is_socket(&found) => std::fs::remove_file(path)?,
                    Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "this is no socket")),
                    Err(_) => {}
                }
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                std::fs::set_permissions(path, Permissions::from_mode(mode))?;
                let listener = socket.listen(BACKLOG)?;
                Ok(Self::Unix { listener, path: path.clone(), ours: true })
            }
        }
    }

    /// Listens on a socket that was opened by another process.
    pub(crate) fn adopt(passed: Passed) -> io::Result<Self> {
        let address = passed.address()?;
        match (passed, address) {
            (Passed::Tcp(listener), _) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            (Passed::Unix(listener), address) => {
                listener.set_nonblocking(true)?;
                let path = match address {
                    Listen::Unix(path) => path,
                    Listen::Tcp(_) => PathBuf::new(),
                };
                Ok(Self::Unix { listener: UnixListener::from_std(listener)?, path, ours: false })
            }
        }
    }

    /// Where it is; a port that was left to the system is known now.
    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Unix { path, .. } => Address::Unix(path.clone()),
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Only slower without.
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }
            Listener::Unix { listener, .. } => Stream::Unix(listener.accept().await?.0),
        })
    }

    /// Takes no more connections, and takes the file of a unix socket away that was made here. A socket that was passed
    /// stays with who passed it, and so do those who connect to it.
    pub(super) fn close(self) {
        if let Listener::Unix { path, ours: true, .. } = &self {
            // It may have been removed already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
}
