//! What a layer does between its products, on panels of tokens: each loop goes over whole vectors, one
//! token a lane, so that no sum crosses lanes. Knows nothing of layers.

use pulp::Simd;

use super::product::lanes;

/// Widest panel, of AVX-512: what is kept a lane.
pub(super) const MAX_LANES: usize = 32;

/// Sum of the squares of each token's features.
#[inline(always)]
pub(super) fn square_sums<S: Simd>(x: &[f32]) -> [f32; MAX_LANES] {
    // Four sums a lane: exacter than one, and none waits for the one before.
    let mut sums = [[0.0; MAX_LANES]; 4];
    for (i, row) in x.chunks_exact(lanes::<S>()).enumerate() {
        for (sum, value) in sums[i % 4].iter_mut().zip(row) {
            *sum += value * value;
        }
    }
    let [a, b, c, d] = sums;
    std::array::from_fn(|lane| (a[lane] + b[lane]) + (c[lane] + d[lane]))
}

/// RMSNorm without its weight, which is part of the product behind it. Panels of `dim` features.
#[inline(always)]
pub(super) fn normalize<S: Simd>(x: &[f32], out: &mut [f32], dim: usize, eps: f32) {
    let panel = dim * lanes::<S>();
    for (x, out) in x.chunks_exact(panel).zip(out.chunks_exact_mut(panel)) {
        let scales = square_sums::<S>(x).map(|sum| 1.0 / (sum / dim as f32 + eps).sqrt());
        for (x, out) in x.chunks_exact(lanes::<S>()).zip(out.chunks_exact_mut(lanes::<S>())) {
            for ((out, x), scale) in out.iter_mut().zip(x).zip(&scales) {
                *out = x * scale;
            }
        }
    }
}

/// Turns each head's pairs of features by its tokens' angles: one panel of heads, `cos` and `sin`
/// `[head_dim / 2, lanes]`.
#[inline(always)]
pub(super) fn rotate<S: Simd>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in heads.chunks_exact_mut(2 * cos.len()) {
        let angles = cos.chunks_exact(lanes::<S>()).zip(sin.chunks_exact(lanes::<S>()));
        for (pair, (cos, sin)) in head.chunks_exact_mut(2 * lanes::<S>()).zip(angles) {
            let (first, second) = pair.split_at_mut(lanes::<S>());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

/// `gate` becomes silu(gate) · up.
#[inline(always)]
pub(super) fn swiglu<S: Simd>(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.chunks_exact_mut(lanes::<S>()).zip(up.chunks_exact(lanes::<S>())) {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate * up / (1.0 + exp(-*gate));
        }
    }
}

/// Largest of each token's values; NaN is passed over.
#[inline(always)]
pub(super) fn maxima<S: Simd>(x: &[f32]) -> [f32; MAX_LANES] {
    let mut maxima = [f32::NEG_INFINITY; MAX_LANES];
    for row in x.chunks_exact(lanes::<S>()) {
        for (max, &value) in maxima.iter_mut().zip(row) {
            *max = if value > *max { value } else { *max };
        }
    }
    maxima
}

/// Entropy in nats of each token's softmax of its logits: with z = logits − max ≤ 0, H = ln Σ exp z −
/// Σ z exp z / Σ exp z. Nothing overflows, and a token of no probability adds 0.
#[inline(always)]
pub(super) fn entropies<S: Simd>(logits: &[f32]) -> [f32; MAX_LANES] {
    let maxima = maxima::<S>(logits);
    let (mut weights, mut products) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
    for row in logits.chunks_exact(lanes::<S>()) {
        let sums = weights.iter_mut().zip(&mut products);
        for ((logit, max), (weight, product)) in row.iter().zip(&maxima).zip(sums) {
            let z = logit - max;
            let e = exp(z);
            *weight += e;
            *product += z * e;
        }
    }
    std::array::from_fn(|lane| weights[lane].ln() - products[lane] / weights[lane])
}

/// e^x within 2 units in the last place, from e^−87 to e^88 and clamped outside; NaN stays NaN.
///
/// 2^k · e^r with |r| ≤ ln 2 / 2, e^r by its Taylor series, whose next term is below 2⁻²⁵; k comes
/// off by adding 1.5 · 2²³, which rounds to integers. No branch, and no call where products and sums are one
/// instruction, so loops vectorize.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of k with the first are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-LN_2_LOW, k.mul_add(-LN_2_HIGH, x));
    let p = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let p = r.mul_add(r.mul_add(p, 1.0 / 120.0), 1.0 / 24.0);
    let p = r.mul_add(r.mul_add(r.mul_add(r.mul_add(p, 1.0 / 6.0), 0.5), 1.0), 1.0);
    // The low bits of `shifted` are k, so these are the bits of 2^k.
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use pulp::Scalar;

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
        let certain = |i| if i == 7 { 1e4 } else { -1e4 };
        let fair_coin = |i| if i < 2 { 3e4 } else { -3e4 };
        // Two lanes, as one token a vector has them.
        let logits = |a: &dyn Fn(usize) -> f32, b: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..260).flat_map(|i| [a(i), b(i)]).collect()
        };
        let values = entropies::<Scalar>(&logits(&|_| 0.0, &certain));
        assert!((values[0] - 260f32.ln()).abs() < 1e-5 && values[1].abs() < 1e-5, "{values:?}");
        let values = entropies::<Scalar>(&logits(&fair_coin, &|i| if i == 3 { f32::NAN } else { 1.0 }));
        assert!((values[0] - 2f32.ln()).abs() < 1e-5 && values[1].is_nan(), "{values:?}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let mut gates = [f32::NAN, 1.0];
        swiglu::<Scalar>(&mut gates, &[1.0, 2.0]);
        assert!(gates[0].is_nan() && gates[1].is_finite());
        let mut out = [0.0; 4];
        normalize::<Scalar>(&[1.0, 2.0, f32::INFINITY, 2.0], &mut out, 2, 1e-5);
        assert!(out[2].is_nan() && out[1].is_finite(), "{out:?}");
    }
}
