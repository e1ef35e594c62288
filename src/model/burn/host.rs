//! The parts of a layer between matrix products, on slices in the CPU's memory. Knows nothing of
//! tensors.
//!
//! Flex runs each element-wise operation as a pass of its own on one core, and calls libm for every
//! exponential; so written they take longer than the products. Here each part is one pass. Sums run
//! in lanes of a fixed number, so that the compiler vectorizes them and their order never varies.

use std::ops::Range;

use rayon::prelude::*;

const LANES: usize = 16;
/// Least elements a task is worth.
const TASK: usize = 1 << 14;

/// Adds `delta` to `x`, and leaves `x` divided by its root mean square in `delta`: RMSNorm without
/// its weight. Rows of `dim`.
pub(super) fn add_normed(x: &mut [f32], delta: &mut [f32], dim: usize, eps: f32) {
    let rows = TASK.div_ceil(dim) * dim;
    x.par_chunks_mut(rows).zip(delta.par_chunks_mut(rows)).for_each(|(x, delta)| {
        for (x, delta) in x.chunks_exact_mut(dim).zip(delta.chunks_exact_mut(dim)) {
            for (x, delta) in x.iter_mut().zip(&mut *delta) {
                *x += *delta;
            }
            let mean = sum(x, |x| x * x) / dim as f32;
            let scale = 1.0 / (mean + eps).sqrt();
            for (x, normed) in x.iter().zip(delta) {
                *normed = x * scale;
            }
        }
    });
}

/// L2 norm of each row of `dim`.
pub(super) fn norms(x: &[f32], dim: usize) -> Vec<f32> {
    x.par_chunks_exact(dim).map(|x| sum(x, |x| x * x).sqrt()).collect()
}

/// Widths of the product of queries, keys and values: `[n, first halves | second halves | values]`,
/// where the halves hold those of all queries' heads, then of all keys'.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
}

/// Turns queries and keys by their positions' angles (`cos`, `sin`: `[n, dim / 2]`) and gives
/// `[queries, n, dim]`, `[keys, n, dim]` and the values as `[keys, n, dim]`.
pub(super) fn rotate(qkv: &[f32], heads: Heads, cos: &[f32], sin: &[f32]) -> [Vec<f32>; 3] {
    let Heads { queries, keys, dim } = heads;
    let half = dim / 2;
    let first_values = (queries + keys) * dim;
    let width = first_values + keys * dim;
    let n = qkv.len() / width;
    let turned = |first_head: usize, n_heads: usize| {
        let mut all = vec![0.0; n_heads * n * dim];
        all.par_chunks_mut(n * dim).enumerate().for_each(|(head, out)| {
            let a = (first_head + head) * half;
            let b = a + (queries + keys) * half;
            let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
            for ((out, row), (cos, sin)) in out.chunks_exact_mut(dim).zip(qkv.chunks_exact(width)).zip(angles)
            {
                let (first, second) = out.split_at_mut(half);
                let pairs = row[a..a + half].iter().zip(&row[b..b + half]);
                let turned = first.iter_mut().zip(second);
                for (((a, b), (first, second)), (cos, sin)) in pairs.zip(turned).zip(cos.iter().zip(sin)) {
                    *first = a * cos - b * sin;
                    *second = a * sin + b * cos;
                }
            }
        });
        all
    };
    let mut values = vec![0.0; keys * n * dim];
    values.par_chunks_mut(n * dim).enumerate().for_each(|(head, out)| {
        let start = first_values + head * dim;
        for (out, row) in out.chunks_exact_mut(dim).zip(qkv.chunks_exact(width)) {
            out.copy_from_slice(&row[start..start + dim]);
        }
    });
    [turned(0, queries), turned(queries, keys), values]
}

/// Softmax of `scale` times each row of `n_keys` scores, over the visible keys only; the others get
/// weight 0. `visible` holds a range a query, none of them empty; rows go through the queries again
/// and again.
pub(super) fn softmax(scores: &mut [f32], n_keys: usize, scale: f32, visible: &[Range<usize>]) {
    scores.par_chunks_mut(visible.len() * n_keys).for_each(|rows| {
        for (row, visible) in rows.chunks_exact_mut(n_keys).zip(visible) {
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            let row = &mut row[visible.clone()];
            let max = max(row);
            for x in &mut *row {
                *x = exp((*x - max) * scale);
            }
            let scale = 1.0 / sum(row, |x| x);
            for x in row {
                *x *= scale;
            }
        }
    });
}

/// silu(gate) · up for rows of `[gate | up]`, each `hidden` wide.
pub(super) fn swiglu(both: &[f32], hidden: usize) -> Vec<f32> {
    let mut out = vec![0.0; both.len() / 2];
    let rows = TASK.div_ceil(hidden);
    out.par_chunks_mut(rows * hidden).zip(both.par_chunks(rows * 2 * hidden)).for_each(|(out, both)| {
        for (out, both) in out.chunks_exact_mut(hidden).zip(both.chunks_exact(2 * hidden)) {
            let (gate, up) = both.split_at(hidden);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * up / (1.0 + exp(-gate));
            }
        }
    });
    out
}

/// Entropy in nats of the softmax of each row: with z = logits − max ≤ 0, H = ln Σ exp z −
/// Σ z exp z / Σ exp z. Nothing overflows, and a token of no probability adds 0.
pub(super) fn entropies(logits: &[f32], vocabulary: usize) -> Vec<f32> {
    let row = |logits: &[f32]| {
        let max = max(logits);
        let mut weights = [0.0; LANES];
        let mut products = [0.0; LANES];
        for logits in logits.chunks(LANES) {
            for ((weight, product), logit) in weights.iter_mut().zip(&mut products).zip(logits) {
                let z = logit - max;
                let e = exp(z);
                *weight += e;
                *product += z * e;
            }
        }
        let weight: f32 = weights.iter().sum();
        weight.ln() - products.iter().sum::<f32>() / weight
    };
    logits.par_chunks_exact(vocabulary).map(row).collect()
}

/// e^x within 2 units in the last place, from e^−87 to e^88 and clamped outside; NaN stays NaN.
///
/// 2^k · e^r with |r| ≤ ln 2 / 2, e^r by its Taylor series, whose next term is below 2⁻²⁵; k comes
/// off by adding 1.5 · 2²³, which rounds to integers. No call and no branch, so loops vectorize.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of k with the first are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    let p = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * p);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * p)));
    // The low bits of `shifted` are k, so these are the bits of 2^k.
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += of(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += of(value);
    }
    lanes.iter().sum()
}

#[inline(always)]
fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &value| max.max(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_libm() {
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 2.4e-7, "{x}: {ours} {exact}");
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(1e9)), (1.0, exp(-87.0), exp(88.0)));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn entropy_is_exact_at_the_ends() {
        let mut rows = vec![0.0f32; 260]; // uniform
        rows.extend((0..260).map(|i| if i == 7 { 1e4 } else { -1e4 })); // certain
        rows.extend((0..260).map(|i| if i < 2 { 3e4 } else { -3e4 })); // a fair coin
        let expected = [260f32.ln(), 0.0, 2f32.ln()];
        for (value, expected) in entropies(&rows, 260).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let nan = [1.0, f32::NAN, 2.0];
        assert!(entropies(&nan, 3)[0].is_nan());
        assert!(swiglu(&[f32::NAN, 1.0], 1)[0].is_nan());
        let mut scores = nan;
        softmax(&mut scores, 3, 1.0, &[0..3, 0..3][..1]);
        assert!(scores[1].is_nan());
    }
}
