//! HTTP/1.1 messages off a connection, with no more work than it takes to find where they end.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Headers that a message may have.
const HEADERS: usize = 32;
/// What is read at once at the least.
const CHUNK: usize = 8 * 1024;

/// A connection, and what was read from it.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

/// What the head of a message says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// The status of an answer, the number in the path of a request.
    number: u64,
    head: usize,
    body: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Wire<S> {
        Wire { stream, buffer: Vec::with_capacity(CHUNK) }
    }

    /// Sends this.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads a request, and gives the number of its webhook and its body to `take`. False at the end.
    pub(crate) async fn request(&mut self, take: impl FnOnce(u64, &[u8])) -> Result<bool> {
        self.message(request, take).await
    }

    /// Reads an answer, and gives its status and body to `take`.
    pub(crate) async fn answer<T>(&mut self, take: impl FnOnce(u64, &[u8]) -> T) -> Result<T> {
        let mut taken = None;
        self.message(answer, |status, body| taken = Some(take(status, body))).await?;
        taken.context("the connection was closed instead of an answer")
    }

    async fn message(
        &mut self,
        parse: fn(&[u8]) -> Result<Option<Head>>,
        take: impl FnOnce(u64, &[u8]),
    ) -> Result<bool> {
        let head = loop {
            if !self.buffer.is_empty()
                && let Some(head) = parse(&self.buffer)?
            {
                break head;
            }
            if !self.read(CHUNK).await? {
                return if self.buffer.is_empty() {
                    Ok(false)
                } else {
                    bail!("a message broke off in its head")
                };
            }
        };
        let end = head.head + head.body;
        while self.buffer.len() < end {
            if !self.read(end - self.buffer.len()).await? {
                bail!("a message broke off in its body");
            }
        }
        take(head.number, &self.buffer[head.head..end]);
        self.buffer.drain(..end);
        Ok(true)
    }

    async fn read(&mut self, room: usize) -> std::io::Result<bool> {
        self.buffer.reserve(room.max(CHUNK));
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

fn request(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let number = request.path.and_then(webhook).context("a request with a path that no webhook has")?;
    Ok(Some(Head { number, head, body: length(request.headers)? }))
}

fn answer(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else { return Ok(None) };
    let number = u64::from(answer.code.unwrap_or(0));
    Ok(Some(Head { number, head, body: length(answer.headers)? }))
}

/// The number of the webhook that this path belongs to: `/h/<number>`.
pub(crate) fn webhook(path: &str) -> Option<u64> {
    crate::payload::read_digits(path.strip_prefix("/h/").filter(|digits| !digits.is_empty())?.as_bytes())
}

fn length(headers: &[httparse::Header<'_>]) -> Result<usize> {
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            return std::str::from_utf8(header.value)?.trim().parse().context("a Content-Length");
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a message that comes in chunks");
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_told_apart_however_they_arrive() {
        let (mut far, near) = tokio::io::duplex(7);
        let mut wire = Wire::new(near);
        let sending = tokio::spawn(async move {
            let text =
                "HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n";
            far.write_all(text.as_bytes()).await.unwrap();
        });
        let first = wire.answer(|status, body| (status, body.to_vec())).await.unwrap();
        assert_eq!(first, (202, b"hello".to_vec()));
        assert_eq!(wire.answer(|status, body| (status, body.len())).await.unwrap(), (204, 0));
        sending.await.unwrap();
        assert!(wire.answer(|_, _| ()).await.is_err(), "closed");
    }

    #[test]
    fn a_request_is_read_with_the_number_of_its_webhook() {
        let text = b"POST /h/0000123 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
        let head = request(text).unwrap();
        assert_eq!(head, Some(Head { number: 123, head: text.len(), body: 10 }));
        assert_eq!(request(&text[..20]).unwrap(), None);
        assert!(request(b"POST /other HTTP/1.1\r\n\r\n").is_err());
        assert!(request(b"POST /h/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
