//! How soon a change is in force.

use std::time::Duration;

use aquarium_config::reload::POLL;
use tokio::time::{Instant, sleep, timeout};

use crate::following::{LONG, place};
use crate::{ACME, By, Files, Following, acme};

/// The time from the rename of a file to the configuration that it brings.
async fn measure(following: &Following, at: &str) -> Duration {
    let mut config = following.handle.config();
    let renamed = Instant::now();
    following.files.replace(ACME, acme(at));
    let in_force = config.wait_for(|config| place(config).as_deref() == Some(at));
    timeout(LONG, in_force).await.expect("it never came").unwrap();
    renamed.elapsed()
}

/// Prints the figures, and returns the median: the worst is also that of a machine with other things to do.
fn report(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: in force after {median:?} (median), {worst:?} (worst of {})", times.len());
    median
}

#[tokio::test]
async fn a_change_is_in_force_at_once() {
    let following = Following::start(Files::new(), By::Watcher).await;
    let mut times = Vec::new();
    for change in 0..40 {
        times.push(measure(&following, &change.to_string()).await);
    }
    let median = report("watched", times);
    assert!(median < Duration::from_secs(1), "{median:?}");
}

/// Without a watcher it depends on when the change is made.
pub(crate) async fn polls() {
    let at = |part: u32| async move {
        let following = Following::start(Files::new(), By::Poll).await;
        sleep(POLL / 4 * part).await;
        measure(&following, "second").await
    };
    let (one, two, three, four) = tokio::join!(at(0), at(1), at(2), at(3));
    let median = report("polled", vec![one, two, three, four]);
    assert!(median < 3 * POLL, "{median:?}");
}
