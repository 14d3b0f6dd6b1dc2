//! Guarantee 2: answers that come while the whole process is stopped (SIGSTOP, a frozen container) count.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::Signal;
use tokio::time::sleep;

use support::{EVENTS, SOON, accept, event, start};

const EVENTS_IN_FLIGHT: usize = 8;

/// Every one of them was a `response-timeout`, and was sent again.
#[tokio::test]
async fn an_answer_that_came_while_the_process_was_stopped_is_taken() {
    let answer = || Behaviour::Delay(Duration::from_millis(1_000), Box::new(Behaviour::status(204)));
    let receiver = Receiver::builder().script(move |_| answer()).start().await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "retry = [\"1s\", \"1s\"]\njitter = 0.0\ntimeout = \"2s\"");
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    for number in 0..EVENTS_IN_FLIGHT {
        accept(&client, EVENTS, event(&format!("ds_{number}"))).await;
    }
    receiver.wait_for(EVENTS_IN_FLIGHT, SOON).await;
    sleep(Duration::from_millis(300)).await;
    sidecar.signal(Signal::STOP);
    // Longer than the timeout: when it goes on, every deadline has passed, and every answer is in its socket.
    sleep(Duration::from_secs(4)).await;
    sidecar.signal(Signal::CONT);
    let admin = aquarium_testkit::client::Client::new(sidecar.admin());
    let delivered = async || {
        let answer = admin.get("/v1/deliveries?state=delivered&count=true").await.unwrap();
        answer.json()["count"]["value"].as_u64() == Some(8)
            || answer.json()["items"].as_array().is_some_and(|found| found.len() == 8)
    };
    eventually(SOON, "all are delivered", delivered).await;
    // As long as a retry takes.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(receiver.count(), EVENTS_IN_FLIGHT, "none was sent again");
}
