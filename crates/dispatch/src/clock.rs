//! The one place that reads the clock and draws random numbers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aquarium_delivery::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Tells the time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Virtual { epoch: Timestamp, origin: Instant },
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `epoch` now, and goes on with tokio's clock, which a test can pause.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Source::Virtual { epoch, origin: Instant::now() })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one place")]
            Source::System => SystemTime::now().into(),
            Source::Virtual { epoch, origin } => epoch + origin.elapsed(),
        }
    }
}

/// Draws random numbers.
#[derive(Debug, Clone)]
pub struct Chance(Draw);

#[derive(Debug, Clone)]
enum Draw {
    System,
    Seeded(Arc<Mutex<SmallRng>>),
}

impl Chance {
    /// Numbers that nobody can foretell: a generator of each thread, seeded by the system.
    pub fn system() -> Self {
        Self(Draw::System)
    }

    /// Numbers that are the same in every run with the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Draw::Seeded(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed)))))
    }

    /// A number from 0 up to, but not including, 1.
    pub fn fraction(&self) -> f64 {
        match &self.0 {
            Draw::System => rand::rng().random(),
            Draw::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    /// Random bytes, as an identifier takes them.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            Draw::System => rand::rng().fill(&mut bytes),
            Draw::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes),
        }
        bytes
    }
}
