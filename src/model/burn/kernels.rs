//! What a layer does between its products and attention, as kernels in CubeCL: one pass over memory each.
//!
//! Rows of every matrix are padded to a whole number of tiles, and so are their numbers: a kernel needs no guard
//! at the edge, and what stands in the padding is zero where a product reads it.

// The macro writes public functions around each kernel.
#![allow(missing_docs, clippy::too_many_arguments)]

use cubecl::prelude::*;

/// Units that share a row.
pub(super) const LANES: u32 = 32;
/// Rows a cube takes.
pub(super) const ROWS: u32 = 8;

/// Sum over the lanes of each row of the cube, in an order that never varies.
#[cube]
fn row_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let first = UNIT_POS_Y * LANES;
    let mut sum = 0.0f32;
    #[unroll]
    for lane in 0..LANES {
        sum += shared[(first + lane) as usize];
    }
    sync_cube();
    sum
}

#[cube]
fn row_max(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let first = UNIT_POS_Y * LANES;
    let mut largest = value;
    #[unroll]
    for lane in 0..LANES {
        largest = max(largest, shared[(first + lane) as usize]);
    }
    sync_cube();
    largest
}

#[cube]
fn sum_of<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        sum += vector.extract(i);
    }
    sum
}

/// x = table\[token\], rows of `width` vectors.
#[cube(launch_unchecked)]
pub(super) fn embed<N: Size>(
    tokens: &[u32],
    table: &[Vector<f32, N>],
    x: &mut [Vector<f32, N>],
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < x.len() {
        let row = tokens[ABSOLUTE_POS / width] as usize;
        x[ABSOLUTE_POS] = table[row * width + ABSOLUTE_POS % width];
    }
}

/// Adds `delta` to `x` when `add`, and leaves in `normed` x divided by its root mean square: RMSNorm without its
/// weight. With `norms`, the L2 norm of each row as well. Rows are `width` vectors in all three, of which the
/// first `dim` numbers count.
#[cube(launch_unchecked)]
pub(super) fn add_norm<F: Float, N: Size>(
    x: &mut [Vector<f32, N>],
    delta: &[Vector<F, N>],
    normed: &mut [Vector<F, N>],
    norms: &mut [f32],
    eps: f32,
    #[comptime] width: usize,
    #[comptime] dim: usize,
    #[comptime] add: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!((LANES * ROWS) as usize));
    let row = (CUBE_POS_X * ROWS + UNIT_POS_Y) as usize;
    let lane = UNIT_POS_X as usize;
    let steps = comptime!(width.div_ceil(LANES as usize));
    let mut mine = Array::<Vector<f32, N>>::new(steps);
    let mut square = 0.0f32;
    #[unroll]
    for step in 0..steps {
        let column = step * comptime!(LANES as usize) + lane;
        let mut value = Vector::<f32, N>::new(0.0f32);
        if column < width {
            let at = row * width + column;
            value = x[at];
            if comptime!(add) {
                value += Vector::<f32, N>::cast_from(delta[at]);
                x[at] = value;
            }
        }
        mine[step] = value;
        square += sum_of::<N>(value * value);
    }
    let square = row_sum(square, &mut shared);
    let scale = 1.0f32 / f32::sqrt(square / (dim as f32) + eps);
    #[unroll]
    for step in 0..steps {
        let column = step * comptime!(LANES as usize) + lane;
        if column < width {
            normed[row * width + column] = Vector::cast_from(mine[step] * Vector::new(scale));
        }
    }
    if lane == 0 {
        norms[row] = (square).sqrt();
    }
}

/// Turns the pairs of queries and keys by their positions' angles, in place. A head is its pairs' first numbers,
/// then their second ones, `half` vectors each; `rotated` heads stand at the start of a row of `width` vectors.
/// `cos` and `sin` hold a row of `half` vectors a position.
#[cube(launch_unchecked)]
pub(super) fn rotate<F: Float, N: Size>(
    qkv: &mut [Vector<F, N>],
    positions: &[u32],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    n_pairs: usize,
    #[comptime] rotated: usize,
    #[comptime] half: usize,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < n_pairs {
        let row = ABSOLUTE_POS / comptime!(rotated * half);
        let head = ABSOLUTE_POS % comptime!(rotated * half) / half;
        let pair = ABSOLUTE_POS % half;
        let angle = positions[row] as usize * half + pair;
        let at = row * width + head * comptime!(2 * half) + pair;
        let first = Vector::<f32, N>::cast_from(qkv[at]);
        let second = Vector::<f32, N>::cast_from(qkv[at + half]);
        qkv[at] = Vector::cast_from(first * cos[angle] - second * sin[angle]);
        qkv[at + half] = Vector::cast_from(first * sin[angle] + second * cos[angle]);
    }
}

/// silu(gate) · up for rows of `[gate | up]`, `width` vectors each.
#[cube(launch_unchecked)]
pub(super) fn swiglu<F: Float, N: Size>(
    both: &[Vector<F, N>],
    inner: &mut [Vector<F, N>],
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < inner.len() {
        let at = ABSOLUTE_POS / width * comptime!(2 * width) + ABSOLUTE_POS % width;
        let gate = Vector::<f32, N>::cast_from(both[at]);
        let up = Vector::<f32, N>::cast_from(both[at + width]);
        let one = Vector::<f32, N>::new(1.0f32);
        inner[ABSOLUTE_POS] = Vector::cast_from(gate * up / (one + (-gate).exp()));
    }
}

/// Entropy in nats of the softmax of each row's first `vocabulary` logits, rows of `width`: with
/// z = logits − max ≤ 0, H = ln Σ exp z − Σ z exp z / Σ exp z.
#[cube(launch_unchecked)]
pub(super) fn entropies(
    logits: &[f32],
    out: &mut [f32],
    #[comptime] vocabulary: usize,
    #[comptime] width: usize,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!((LANES * ROWS) as usize));
    let row = (CUBE_POS_X * ROWS + UNIT_POS_Y) as usize;
    let lane = UNIT_POS_X as usize;
    let steps = comptime!(vocabulary.div_ceil(LANES as usize));
    let mut largest = logits[row * width + lane];
    #[unroll]
    for step in 1..steps {
        let column = step * comptime!(LANES as usize) + lane;
        if column < vocabulary {
            largest = max(largest, logits[row * width + column]);
        }
    }
    let largest = row_max(largest, &mut shared);
    let mut weight = 0.0f32;
    let mut product = 0.0f32;
    #[unroll]
    for step in 0..steps {
        let column = step * comptime!(LANES as usize) + lane;
        if column < vocabulary {
            let z = logits[row * width + column] - largest;
            let e = (z).exp();
            weight += e;
            product += z * e;
        }
    }
    let weight = row_sum(weight, &mut shared);
    let product = row_sum(product, &mut shared);
    if lane == 0 {
        out[row] = weight.ln() - product / weight;
    }
}

/// Writes zeros.
#[cube(launch_unchecked)]
pub(super) fn clear<F: Float, N: Size>(out: &mut [Vector<F, N>]) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = Vector::new(F::new(0.0));
    }
}

/// x in the model's precision.
#[cube(launch_unchecked)]
pub(super) fn narrow<F: Float, N: Size>(x: &[Vector<f32, N>], out: &mut [Vector<F, N>]) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = Vector::cast_from(x[ABSOLUTE_POS]);
    }
}
