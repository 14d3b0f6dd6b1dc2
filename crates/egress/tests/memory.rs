//! One hostile receiver cannot take memory without bound. By itself, since it looks at the whole process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Timestamp};
use aquarium_egress::{Egress, Endpoint, Guard, Message, Options, Roots};
use aquarium_testkit::certificates::{Authority, with_protocols};
use aquarium_testkit::frames::{
    CONTINUATION, DATA, END_HEADERS, Frames, PING, Reaction, SETTINGS, field, frame, head,
};
use aquarium_testkit::receiver::{Behaviour, Receiver};
use bytes::Bytes;
use tokio::task::JoinSet;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const TIMEOUT: Duration = Duration::from_millis(500);
/// How many attempts are under way at once.
const ATTEMPTS: usize = 64;
/// The most that all of them may add to what the process takes, receivers included, in KiB: 512 KiB for each.
const MOST: usize = ATTEMPTS * 512;

/// Such a line of what the system says of this process, in KiB (proc_pid_status(5)); none, where it says nothing.
fn status(name: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// What it takes.
fn resident() -> Option<usize> {
    status("VmRSS")
}

/// The most that it has taken at any time.
fn peak() -> usize {
    status("VmHWM").unwrap()
}

fn egress(roots: Roots) -> Egress {
    let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    Egress::new(Options { guard, roots, proxy: None }, Vec::new()).unwrap()
}

/// A chunked body that goes on and on.
fn chunks(first: &str, again: &str) -> Behaviour {
    let first = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{first}").into_bytes();
    Behaviour::ForEver { first, again: again.into() }
}

/// What never ends, over HTTP/2: its name, what comes first, and what comes again and again.
fn endless_frames() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let filler = field("x-filler", &"e".repeat(100));
    let start = head(200, END_HEADERS, 1);
    vec![
        ("continuations", head(200, 0, 1), frame(CONTINUATION, 0, 1, &filler)),
        ("informational answers", Vec::new(), head(103, END_HEADERS, 1)),
        ("data", start.clone(), frame(DATA, 0, 1, &[0; 16_000])),
        ("tiny data", start.clone(), frame(DATA, 0, 1, &[0])),
        ("empty data", start, frame(DATA, 0, 1, &[])),
        ("pings", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("settings", Vec::new(), frame(SETTINGS, 0, 0, &[])),
    ]
}

async fn attempts(egress: &Egress, url: &str) {
    let endpoint = Endpoint::new(url, [], TIMEOUT, TIMEOUT).unwrap();
    let mut sending = JoinSet::new();
    for _ in 0..ATTEMPTS {
        let (egress, endpoint) = (egress.clone(), endpoint.clone());
        sending.spawn(async move {
            let message = Message {
                body: Bytes::from_static(b"{}"),
                event: EventId::new(AT, [1; 10]),
                delivery: DeliveryId::new(AT, [2; 10]),
                attempt: 1,
                at: AT,
                secret: None,
                signing_key: None,
                trace: None,
                hops: aquarium_delivery::Hops::FIRST,
            };
            egress.send(&endpoint, message, pending()).await.unwrap()
        });
    }
    sending.join_all().await;
}

/// With threads of their own for the receivers, so that there is always more to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hostile_receivers_do_not_take_memory_without_bound() {
    let plain = egress(Roots::Webpki);
    let authority = Authority::new();
    let encrypted = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
    let tls = Arc::new(with_protocols(authority.server(&["127.0.0.1"]), &["h2"]));
    let warm = Receiver::builder().record_bodies(false).start().await;
    attempts(&plain, &warm.url("/")).await;
    let Some(before) = resident() else { return };
    let check = |name: &str| {
        let taken = peak().saturating_sub(before);
        assert!(taken < MOST, "{name}: {taken} KiB more than before");
    };
    // It is the most that was taken at any time that is looked at.
    for (name, first, again) in endless_frames() {
        let script = move |_| Reaction::ForEver(first.clone(), again.clone());
        let receiver = Frames::start(tls.clone(), &[], script).await;
        attempts(&encrypted, &receiver.url("/")).await;
        check(name);
    }
    for behaviour in [
        Behaviour::EndlessBody,
        Behaviour::EndlessHeaders,
        Behaviour::EndlessInformational,
        Behaviour::HugeHeader(10_000_000),
        Behaviour::DripHead { interval: Duration::from_millis(5) },
        Behaviour::DripBody { interval: Duration::from_millis(5) },
        chunks("1;", "x"),
        chunks("", "1\r\nb\r\n"),
        chunks("0\r\n", "X-Filler: e\r\n"),
    ] {
        let name = format!("{behaviour:?}");
        let receiver =
            Receiver::builder().record_bodies(false).script(move |_: &_| behaviour.clone()).start().await;
        attempts(&plain, &receiver.url("/")).await;
        check(&name);
    }
}
