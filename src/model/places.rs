//! Where the tokens of a stream stand in their contexts, what each of them sees, and its rotary angles. The same
//! for every device.

use super::ModelConfig;

/// Where each token of a stream stands.
pub(super) struct Places {
    /// In its context, from 0.
    pub positions: Vec<u32>,
    /// First token of the stream that it sees; it sees all from there to itself.
    pub first_keys: Vec<u32>,
}

impl Places {
    pub(super) fn new(context_lengths: &[usize], window: Option<usize>) -> Self {
        let back = window.map_or(usize::MAX, |window| window - 1);
        let (mut positions, mut first_keys) = (Vec::new(), Vec::new());
        let mut start = 0;
        for &length in context_lengths {
            positions.extend(0..length as u32);
            first_keys.extend((0..length).map(|i| (start + i.saturating_sub(back)) as u32));
            start += length;
        }
        Self { positions, first_keys }
    }
}

/// Angles of rotary positions, kept from stream to stream.
#[derive(Debug)]
pub(super) struct Angles {
    /// Radians a position, `[head_dim / 2]`
    rates: Vec<f32>,
    /// `[positions, head_dim / 2]`, as many positions as were needed so far.
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Angles {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let rate = |i: usize| {
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            1.0 / config.rope_theta.powf(exponent)
        };
        Self { rates: (0..config.head_dim / 2).map(rate).collect(), cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes sure of the angles of the first `positions`.
    pub(super) fn extend(&mut self, positions: usize) {
        let known = self.cos.len() / self.rates.len();
        for position in known..positions {
            for rate in &self.rates {
                // The angle is rounded to f32, as the reference has it; its sine is not.
                let angle = f64::from(position as f32 * rate);
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }
}
