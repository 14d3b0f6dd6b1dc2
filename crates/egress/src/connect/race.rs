//! Happy eyeballs: of several addresses, the first that answers (RFC 8305, section 5).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// From one try to the next, unless it fails before.
const STAGGER: Duration = Duration::from_millis(250);

/// A connection to one of the addresses, tried in this order. The error is that of the first.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    first(addresses, TcpStream::connect::<SocketAddr>).await
}

async fn first<A: Copy, T, F>(addresses: &[A], connect: impl Fn(A) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut untried = addresses.iter();
    let mut tries = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        if let Some(&address) = untried.next() {
            tries.push(connect(address));
        }
        let failed = tokio::select! {
            biased;
            tried = tries.next() => match tried {
                Some(Ok(connected)) => return Ok(connected),
                failed => failed.map(Result::err),
            },
            () = sleep(STAGGER), if untried.len() > 0 => Some(None),
        };
        match failed {
            Some(error) => first_error = first_error.or(error),
            None => return Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long until it connects; or fails, if it is negative.
    async fn after(milliseconds: i64) -> io::Result<i64> {
        sleep(Duration::from_millis(milliseconds.unsigned_abs())).await;
        if milliseconds < 0 { Err(io::Error::other(milliseconds.to_string())) } else { Ok(milliseconds) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_answer_wins_and_no_dead_one_is_waited_for() {
        const DEAD: i64 = 60_000;
        for (addresses, winner, took) in [
            (&[10][..], Some(10), 10),
            (&[DEAD, 10], Some(10), 260),
            (&[DEAD, DEAD, 10], Some(10), 510),
            // One that fails makes way at once.
            (&[-5, 10], Some(10), 15),
            (&[-5, -5, -5, 10], Some(10), 25),
            // One that is slow, but faster than the next, wins still.
            (&[300, 100], Some(300), 300),
            (&[DEAD, -5, 10], Some(10), 265),
            (&[-5, -400], None, 405),
            (&[], None, 0),
        ] {
            let started = Instant::now();
            let connected = first(addresses, after).await;
            assert_eq!(connected.ok(), winner, "{addresses:?}");
            assert_eq!(started.elapsed().as_millis(), took, "{addresses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_the_first_address_is_told() {
        assert_eq!(first(&[-5, -1], after).await.unwrap_err().to_string(), "-5");
    }
}
