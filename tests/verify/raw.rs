//! Calls as nobody should make them, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, sleep, timeout};

use crate::servers::PATH;

/// The longest that a server may have to do with one call.
const END: Duration = Duration::from_secs(10);

/// What follows after the headers.
#[derive(Clone)]
pub(crate) enum Body {
    /// All of it, with its length.
    Whole(Vec<u8>),
    /// In one chunk.
    Chunk(Vec<u8>),
    /// A length, and then nothing.
    Silence(usize),
    /// A byte now and then, without end.
    Drip,
    /// As much as the connection takes, without end.
    Flood,
}

/// What came of a call. The connection is closed.
pub(crate) struct Answer {
    /// None, if the connection was closed without an answer.
    pub(crate) status: Option<u16>,
    /// The headers, in lower case and sorted.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    /// How many bytes were sent of a body that has no end.
    pub(crate) sent: usize,
    /// How long it took until the connection was closed.
    pub(crate) took: Duration,
}

/// Makes a call with these header lines, and waits until the server closes the connection.
pub(crate) async fn call(address: SocketAddr, headers: &[Vec<u8>], body: &Body) -> Answer {
    let mut head = format!("POST {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n").into_bytes();
    for line in headers {
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    let began = Instant::now();
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let (mut read, mut sent) = (Vec::new(), 0);
    let writing = async {
        // It fails when the server has had enough. What it says tells the reader.
        let _ = write(&mut writer, head, body, &mut sent).await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        // A connection that is reset has ended too.
        let _ = reader.read_to_end(&mut read).await;
    };
    let ended = timeout(END, async {
        tokio::select! { () = reading => {}, () = writing => {} }
    })
    .await;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&read).into_owned();
    assert!(ended.is_ok(), "the connection is open after {took:?}, and the answer is {text:?}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    headers.sort();
    Answer { status, headers, body: body.to_owned(), sent, took }
}

async fn write(
    to: &mut OwnedWriteHalf,
    mut head: Vec<u8>,
    body: &Body,
    sent: &mut usize,
) -> std::io::Result<()> {
    let length = |length: usize| format!("Content-Length: {length}\r\n\r\n").into_bytes();
    let chunked = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    head.extend(match body {
        Body::Whole(bytes) => length(bytes.len()),
        Body::Silence(announced) => length(*announced),
        Body::Chunk(_) | Body::Drip | Body::Flood => b"Transfer-Encoding: chunked\r\n\r\n".to_vec(),
    });
    to.write_all(&head).await?;
    let (piece, pause) = match body {
        Body::Whole(bytes) => return to.write_all(bytes).await,
        Body::Chunk(bytes) => return to.write_all(&[&chunked(bytes)[..], b"0\r\n\r\n"].concat()).await,
        Body::Silence(_) => return Ok(()),
        Body::Drip => (chunked(b" "), Duration::from_millis(50)),
        Body::Flood => (chunked(&[b' '; 1 << 16]), Duration::ZERO),
    };
    loop {
        to.write_all(&piece).await?;
        *sent += piece.len();
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}
