//! Numbers nobody chose, that can be had again.

use std::time::SystemTime;

/// xorshift64*; enough to pick moments and offsets.
pub(crate) struct Random {
    /// What it began with.
    pub(crate) seed: u64,
    state: u64,
}

impl Random {
    /// From a variable of the environment, or from the clock; says which.
    pub(crate) fn from_environment(variable: &str) -> Self {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() | 1;
        let seed = std::env::var(variable).map_or_else(|_| clock(), |seed| seed.parse().unwrap());
        println!("{variable}={seed}");
        Self { seed, state: seed.max(1) }
    }

    /// From 0 up to, not including, `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
