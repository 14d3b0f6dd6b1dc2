//! One hostile receiver cannot take memory without bound. By itself, since it looks at the whole process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::future::pending;
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Timestamp};
use aquarium_egress::{Egress, Endpoint, Guard, Message, Options, Roots};
use aquarium_testkit::receiver::{Behaviour, Receiver};
use bytes::Bytes;
use tokio::task::JoinSet;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const TIMEOUT: Duration = Duration::from_millis(500);
/// How many attempts are under way at once.
const ATTEMPTS: usize = 64;
/// The most that all of them may add to what the process takes, receivers included, in KiB: 512 KiB for each.
const MOST: usize = ATTEMPTS * 512;

/// What the process takes, in KiB (proc_pid_status(5)); none, where that cannot be told.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
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
            };
            egress.send(&endpoint, message, pending()).await.unwrap()
        });
    }
    sending.join_all().await;
}

#[tokio::test]
async fn hostile_receivers_do_not_take_memory_without_bound() {
    let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let egress = Egress::new(Options { guard, roots: Roots::Webpki, proxy: None }).unwrap();
    let warm = Receiver::builder().record_bodies(false).start().await;
    attempts(&egress, &warm.url("/")).await;
    let Some(before) = resident() else { return };
    for behaviour in [
        Behaviour::EndlessBody,
        Behaviour::EndlessHeaders,
        Behaviour::EndlessInformational,
        Behaviour::HugeHeader(10_000_000),
        Behaviour::DripBody { interval: Duration::from_millis(5) },
        Behaviour::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;".repeat(10_000)),
    ] {
        let name = format!("{behaviour:?}").chars().take(40).collect::<String>();
        let receiver =
            Receiver::builder().record_bodies(false).script(move |_: &_| behaviour.clone()).start().await;
        attempts(&egress, &receiver.url("/")).await;
        let taken = resident().unwrap().saturating_sub(before);
        assert!(taken < MOST, "{name}: {taken} KiB more than before");
    }
}
