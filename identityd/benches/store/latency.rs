//! Latencies of one measurement.

use std::time::Duration;

#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub(crate) fn push(&mut self, latency: Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.micros.len()
    }

    /// Milliseconds below which this part of them lies.
    pub(crate) fn quantile_ms(&mut self, part: f64) -> f64 {
        if self.micros.is_empty() {
            return f64::NAN;
        }
        self.micros.sort_unstable();
        let index = ((self.micros.len() - 1) as f64 * part).round() as usize;
        f64::from(self.micros[index]) / 1000.0
    }
}
