//! Waits for something to become true, with a bound.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long to wait before looking again.
const INTERVAL: Duration = Duration::from_millis(10);

/// What is looked for: `true`, or something.
pub trait Found {
    /// What there is once it is found.
    type Value;

    /// The value; none, if it is not found yet.
    fn found(self) -> Option<Self::Value>;
}

impl Found for bool {
    type Value = ();

    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Found for Option<T> {
    type Value = T;

    fn found(self) -> Option<T> {
        self
    }
}

/// Looks again and again, until there is something.
///
/// ```
/// # use std::time::Duration;
/// # use aquarium_testkit::eventually;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut looked = 0;
/// let found = eventually(Duration::from_secs(5), "a third look", || {
///     looked += 1;
///     async move { (looked == 3).then_some(looked) }
/// });
/// assert_eq!(found.await, 3);
/// # }
/// ```
///
/// # Panics
/// If it does not come within the time; `what` says what was missed. A look that takes longer counts as none.
pub async fn eventually<F: Found>(
    within: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> F,
) -> F::Value {
    let looking = async {
        loop {
            if let Some(value) = look().await.found() {
                return value;
            }
            sleep(INTERVAL).await;
        }
    };
    match timeout(within, looking).await {
        Ok(value) => value,
        Err(_) => panic!("it did not happen within {within:?}: {what}"),
    }
}
