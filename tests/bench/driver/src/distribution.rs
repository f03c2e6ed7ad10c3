//! Delays, and what is said of many of them.

use serde::Serialize;

/// Delays in milliseconds.
#[derive(Default)]
pub(crate) struct Delays(Vec<f32>);

/// A few words on many delays, in milliseconds.
#[derive(Serialize)]
pub(crate) struct Summary {
    p50: f32,
    p99: f32,
    max: f32,
}

impl Delays {
    pub(crate) fn push_nanos(&mut self, nanos: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a delay of days would still be right to the millisecond")]
        self.0.push((nanos / 1000) as f32 / 1000.0);
    }

    pub(crate) fn summary(mut self) -> Option<Summary> {
        self.0.sort_unstable_by(f32::total_cmp);
        let last = self.0.len().checked_sub(1)?;
        // The smallest value that at least this share of the values does not exceed.
        let at = |hundredths: usize| self.0[(self.0.len() * hundredths).div_ceil(100).saturating_sub(1)];
        Some(Summary { p50: at(50), p99: at(99), max: self.0[last] })
    }
}
