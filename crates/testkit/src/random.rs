//! Text that is unlike any other, and numbers that a seed decides.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// 40 characters, `0` to `9` and `a` to `f`.
pub(crate) fn text() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Numbers that a seed decides (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Takes the seed from this variable of the environment, or a random one, and prints it: with it a run can be repeated.
    ///
    /// # Panics
    /// If the variable is not a number.
    pub fn from_environment(variable: &str) -> Random {
        let given = std::env::var(variable).ok().map(|seed| seed.parse().expect("the seed is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("{variable}={seed}");
        Random(seed)
    }

    /// The numbers of this seed.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).expect("it is below a usize")
    }

    /// True so often in a hundred.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.number() % 100 < u64::from(percent)
    }

    /// A time of so many milliseconds.
    pub fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.number() % (most - least + 1))
    }
}
