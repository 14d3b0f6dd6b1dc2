//! Reads HTTP/1.1 requests (RFC 9112) from a connection.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any sender has a reason to send.
const MAX_HEAD: usize = 256 * 1024;
const MAX_HEADERS: usize = 256;
const MAX_LINE: usize = 4096;
const MAX_BODY: usize = 256 * 1024 * 1024;

/// The head of a request.
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) framing: Framing,
    /// Whether the connection can carry another request.
    pub(super) keep_alive: bool,
    /// Whether the sender waits for a `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// What was read from a connection and not yet used.
#[derive(Default)]
pub(super) struct Input {
    buffer: BytesMut,
}

impl Input {
    /// The next head; none, if the connection ended before it began.
    pub(super) async fn head(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Head>> {
        loop {
            if let Some(head) = self.parse_head()? {
                return Ok(Some(head));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(invalid("the head is too long"));
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut_off()) };
            }
        }
    }

    fn parse_head(&mut self) -> io::Result<Option<Head>> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(&self.buffer).map_err(invalid)? else {
            return Ok(None);
        };
        let headers = request.headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec()));
        let head = Head::new(
            request.method.unwrap_or_default().to_owned(),
            request.path.unwrap_or_default().to_owned(),
            headers.collect(),
            request.version == Some(1),
        )?;
        self.buffer.advance(length);
        Ok(Some(head))
    }

    /// The body that follows a head.
    pub(super) async fn body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        framing: Framing,
    ) -> io::Result<Bytes> {
        match framing {
            Framing::Length(length) => {
                self.fill(stream, length).await?;
                Ok(self.buffer.split_to(length).freeze())
            }
            Framing::Chunked => self.chunks(stream).await,
        }
    }

    async fn chunks(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let size = self.chunk_size(stream).await?;
            if size == 0 {
                break;
            }
            self.fill(stream, size.saturating_add(2)).await?;
            body.extend_from_slice(&self.buffer.split_to(size));
            if self.buffer.split_to(2) != b"\r\n"[..] {
                return Err(invalid("a chunk does not end where it says"));
            }
        }
        while !self.line(stream).await?.is_empty() {}
        Ok(body.freeze())
    }

    async fn chunk_size(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer).map_err(|_| invalid("not a chunk size"))?;
            if let httparse::Status::Complete((length, size)) = parsed {
                self.buffer.advance(length);
                return usize::try_from(size).map_err(invalid);
            }
            self.more(stream).await?;
        }
    }

    /// The next line, without its end: a trailer.
    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(invalid("a line is too long"));
            }
            self.more(stream).await?;
        }
    }

    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<()> {
        if length > MAX_BODY {
            return Err(invalid("the body is too long"));
        }
        while self.buffer.len() < length {
            self.more(stream).await?;
        }
        Ok(())
    }

    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if stream.read_buf(&mut self.buffer).await? == 0 { Err(cut_off()) } else { Ok(()) }
    }
}

impl Head {
    fn new(
        method: String,
        path: String,
        headers: Vec<(String, Vec<u8>)>,
        persistent: bool,
    ) -> io::Result<Head> {
        let mut head = Head {
            method,
            path,
            headers: Vec::new(),
            framing: Framing::Length(0),
            keep_alive: persistent,
            expects_continue: false,
        };
        for (name, value) in &headers {
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case("content-length") && head.framing != Framing::Chunked {
                let length = str::from_utf8(value).map_err(invalid)?.parse().map_err(invalid)?;
                head.framing = Framing::Length(length);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case(b"chunked")
            {
                head.framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case(b"close") {
                head.keep_alive = false;
            } else if name.eq_ignore_ascii_case("expect") && value.eq_ignore_ascii_case(b"100-continue") {
                head.expects_continue = true;
            }
        }
        head.headers = headers;
        Ok(head)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in the middle of a request")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn requests_are_read_however_they_are_cut_into_pieces() {
        let wire = b"POST /a?b HTTP/1.1\r\nhOst: x\r\nTransfer-Encoding: chunked\r\n\r\n\
            4;x=y\r\nab\r\n\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: t\r\n\r\n\
            PUT /c HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxyz";
        for size in 1..wire.len() {
            let mut stream = in_pieces(wire, size);
            let mut input = Input::default();

            let head = input.head(&mut stream).await.unwrap().unwrap();
            assert_eq!((head.method.as_str(), head.path.as_str()), ("POST", "/a?b"));
            assert_eq!(head.headers[0], ("hOst".to_owned(), b"x".to_vec()));
            let body = input.body(&mut stream, head.framing).await.unwrap();
            assert_eq!(body, "ab\r\nabcdefghijklmnopqrstuvwxyz");

            let head = input.head(&mut stream).await.unwrap().unwrap();
            assert!(!head.keep_alive);
            assert_eq!(input.body(&mut stream, head.framing).await.unwrap(), "xyz");
            assert!(input.head(&mut stream).await.unwrap().is_none());
        }
    }

    /// The bytes in pieces of one size.
    fn in_pieces(bytes: &'static [u8], size: usize) -> impl AsyncRead + Unpin {
        let (reader, mut writer) = tokio::io::duplex(size);
        tokio::spawn(async move { writer.write_all(bytes).await });
        reader
    }
}
