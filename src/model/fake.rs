//! A model without meaning, for tests and benchmarks of what stands around a model: packed tokens
//! in, hashed scores out, at memory speed. Feature `fake-model`; fails on demand.
//!
//! A token's scores are a hash of itself, the token before it and its position in the context. So
//! they depend on the context alone, never on neighbours or the batch, as a real model's do.

use std::time::Duration;

use super::{EntropyModel, ModelError, check_batch};
use crate::data::{PackedTokens, Scores, Wanted};

/// Entropies above it start patches; the threshold released with the entropy model.
const THRESHOLD: f32 = 1.335_442_1;
/// Share of tokens above the threshold, of 2³²: one in 4.5.
const ABOVE: u32 = ((1u64 << 32) * 2 / 9) as u32;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct FakeModel {
    dim: usize,
    max_context: usize,
    sleep: Duration,
    fault: Option<(u64, Fault)>,
    n_batches: u64,
}

/// What a [`FakeModel`] does instead of scoring a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Panics.
    Panic,
    /// Returns [`ModelError::Device`].
    Error,
    /// Scores the batch, with NaN as the entropy of its last token.
    Nan,
}

impl FakeModel {
    /// A model with hidden states of `dim` values and contexts of up to `max_context` tokens.
    pub fn new(dim: usize, max_context: usize) -> Self {
        Self { dim, max_context, sleep: Duration::ZERO, fault: None, n_batches: 0 }
    }

    /// Sleeps before each batch, as a slow device would take its time.
    pub fn with_sleep(self, sleep: Duration) -> Self {
        Self { sleep, ..self }
    }

    /// Fails at batch `n`, counted from 0, and at no other.
    pub fn with_fault(self, n: u64, fault: Fault) -> Self {
        Self { fault: Some((n, fault)), ..self }
    }
}

impl EntropyModel for FakeModel {
    fn dim(&self) -> usize {
        self.dim
    }

    fn max_context(&self) -> usize {
        self.max_context
    }

    fn device_class(&self) -> String {
        "fake".into()
    }

    /// # Panics
    /// At a batch chosen with [`Fault::Panic`].
    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        check_batch(batch, self.max_context)?;
        let fault = self.fault.filter(|(n, _)| *n == self.n_batches).map(|(_, fault)| fault);
        self.n_batches += 1;
        if !self.sleep.is_zero() {
            std::thread::sleep(self.sleep);
        }
        match fault {
            Some(Fault::Panic) => panic!("the fake model was asked to panic at this batch"),
            Some(Fault::Error) => {
                return Err(ModelError::Device("the fake model was asked to fail".into()));
            }
            Some(Fault::Nan) | None => {}
        }
        let mut scores = hashed(batch, self.dim, wanted);
        if let (Some(Fault::Nan), Some(last)) = (fault, scores.entropies.last_mut()) {
            *last = f32::NAN;
        }
        Ok(scores)
    }
}

fn hashed(batch: &PackedTokens, dim: usize, wanted: Wanted) -> Scores {
    let n_tokens = batch.tokens.len();
    let mut hashes = vec![0u32; n_tokens];
    let mut start = 0;
    for &length in &batch.context_lengths {
        let (tokens, hashes) = (&batch.tokens[start..][..length], &mut hashes[start..][..length]);
        // The first token's predecessor is none, which no token is equal to.
        hashes[0] = mix(u32::from(tokens[0]) | 0xffff << 16);
        for (i, (hash, pair)) in hashes[1..].iter_mut().zip(tokens.windows(2)).enumerate() {
            let pair = u32::from(pair[1]) | u32::from(pair[0]) << 16;
            *hash = mix(pair ^ (i as u32 + 1).wrapping_mul(0x9e37_79b1));
        }
        start += length;
    }
    Scores {
        entropies: hashes.iter().map(|&hash| entropy(hash)).collect(),
        norms: wanted.norms.then(|| hashes.iter().map(|&hash| norm(hash)).collect()),
        pre_norm: wanted.pre_norm.then(|| {
            let mut all = Vec::with_capacity(n_tokens * dim);
            for &hash in &hashes {
                all.extend((0..dim as u32).map(|i| unit(mix(hash ^ i.wrapping_mul(0x85eb_ca6b))) - 0.5));
            }
            all
        }),
    }
}

/// Two rounds of multiply and shift (the finalizer of MurmurHash3): every bit of the input moves
/// about half the bits of the output.
#[inline]
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// The low bits of a hash as mantissa: from 0 up to, not including, 1.
#[inline]
fn unit(hash: u32) -> f32 {
    f32::from_bits(0x3f80_0000 | (hash & 0x7f_ffff)) - 1.0
}

/// Between 0 and 2 · THRESHOLD, [`ABOVE`] of the hashes above the threshold.
#[inline]
fn entropy(hash: u32) -> f32 {
    let mantissa = unit(hash) * THRESHOLD;
    if hash < ABOVE { THRESHOLD * 1.0001 + mantissa } else { mantissa }
}

#[inline]
fn norm(hash: u32) -> f32 {
    8.0 * (1.0 + unit(hash.wrapping_mul(0x9e37_79b1) >> 9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(contexts: &[&[u16]]) -> PackedTokens {
        PackedTokens {
            tokens: contexts.concat(),
            context_lengths: contexts.iter().map(|c| c.len()).collect(),
        }
    }

    const ALL: Wanted = Wanted { norms: true, pre_norm: true };

    #[test]
    fn scores_depend_on_the_context_alone() {
        let (a, b): (Vec<u16>, Vec<u16>) = ((4..90).collect(), (7..200).collect());
        let mut model = FakeModel::new(3, 1000);
        let alone = model.score(&packed(&[&b]), ALL).unwrap();
        let beside = model.score(&packed(&[&a, &b, &a]), ALL).unwrap();
        assert_eq!(alone.entropies[..], beside.entropies[86..86 + 193]);
        assert_eq!(alone.norms.unwrap()[..], beside.norms.unwrap()[86..86 + 193]);
        assert_eq!(alone.pre_norm.unwrap()[..], beside.pre_norm.unwrap()[3 * 86..3 * (86 + 193)]);
    }

    #[test]
    fn patches_average_four_and_a_half_bytes() {
        let text: Vec<u16> = (0..100_000u32).map(|i| (mix(i) % 260) as u16).collect();
        let scores = FakeModel::new(1, 1 << 20).score(&packed(&[&text]), Wanted::default()).unwrap();
        let above = scores.entropies.iter().filter(|&&h| h > THRESHOLD).count();
        let average = 100_000.0 / above as f64;
        assert!((4.4..4.6).contains(&average), "{average}");
    }

    #[test]
    fn faults_come_at_their_batch() {
        let batch = packed(&[&[1, 70, 2]]);
        let mut model = FakeModel::new(1, 8).with_fault(1, Fault::Error);
        assert!(model.score(&batch, ALL).is_ok());
        assert!(matches!(model.score(&batch, ALL), Err(ModelError::Device(_))));
        assert!(model.score(&batch, ALL).is_ok());
        let mut model = FakeModel::new(1, 8).with_fault(0, Fault::Nan);
        assert!(model.score(&batch, ALL).unwrap().entropies[2].is_nan());
    }
}
