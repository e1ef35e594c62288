//! Causal attention over the window of each token's own context, as kernels in CubeCL: no score ever leaves
//! the multiprocessor (Dao et al. 2022, FlashAttention), and tiles of keys that no query of a block sees are not
//! touched. Queries and keys are rotated already.
//!
//! A row of `qkv` holds the heads of queries, of keys and of values. `first_keys[i]` is the first row that row i
//! sees; it sees all from there to itself, and `first_keys` never falls.

#![allow(missing_docs, clippy::too_many_arguments)]

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

/// Queries a cube takes.
pub(super) const QUERIES: u32 = 64;
/// Keys that lie in shared memory together.
const KEYS: u32 = 64;
/// Keys of [`by_units`] that lie in shared memory together: in `f32`, so fewer.
const UNIT_KEYS: u32 = 16;
/// Units of a plane that [`by_planes`] is written for.
pub(super) const PLANE: u32 = 32;
/// Queries a plane takes: rows of a matrix of the tensor cores.
const FRAGMENT: u32 = 16;
/// Numbers read and written together.
pub(super) const VECTOR: usize = 4;
/// A row of a tile is longer by this many numbers, so that rows do not start in the same bank.
const PAD: usize = 8;

/// Below every score; the score of a key that is not seen.
const LOWEST: f32 = -3.0e38;

/// How a row of `qkv` and of the output is laid out, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub queries: u32,
    pub keys: u32,
    pub dim: u32,
    pub qkv_width: u32,
    pub out_width: u32,
}

/// Shared memory that [`by_planes`] takes for heads of `dim` numbers of 16 bits.
pub(super) fn shared_bytes(dim: usize) -> usize {
    let tiles = 2 * KEYS as usize * (dim + PAD) * 2;
    tiles + QUERIES as usize * (KEYS as usize + PAD) * (4 + 2)
}

/// For any device and type: a unit a query.
#[cube(launch_unchecked)]
pub(super) fn by_units<F: Float>(
    qkv: &[F],
    first_keys: &[u32],
    out: &mut [F],
    scale: f32,
    #[comptime] layout: Layout,
) {
    let dim = comptime!(layout.dim as usize);
    let width = comptime!(layout.qkv_width as usize);
    let tile = comptime!(UNIT_KEYS as usize * dim);
    let mut keys = Shared::<[f32]>::new_slice(tile);
    let mut values = Shared::<[f32]>::new_slice(tile);

    let block = CUBE_POS_X * QUERIES;
    let query = block + UNIT_POS_X;
    let head = CUBE_POS_Y;
    let key_head = head / comptime!(layout.queries / layout.keys);
    let key_column = ((comptime!(layout.queries) + key_head) as usize) * dim;
    let value_column = ((comptime!(layout.queries + layout.keys) + key_head) as usize) * dim;

    let mut q = Array::<f32>::new(dim);
    let mut sums = Array::<f32>::new(dim);
    let row = query as usize * width + head as usize * dim;
    for i in 0..dim {
        q[i] = f32::cast_from(qkv[row + i]) * scale;
        sums[i] = 0.0f32;
    }
    let mut largest = LOWEST.runtime();
    let mut weight = 0.0f32;

    let first = first_keys[query as usize];
    let start = first_keys[block as usize];
    let n_tiles = (block + QUERIES - start).div_ceil(UNIT_KEYS);
    for at in 0..n_tiles {
        let tile_start = start + at * UNIT_KEYS;
        sync_cube();
        for i in range_stepped(UNIT_POS_X, comptime!(UNIT_KEYS * layout.dim), QUERIES) {
            let key = tile_start + i / comptime!(layout.dim);
            let mut k = 0.0f32;
            let mut v = 0.0f32;
            if key < block + QUERIES {
                let row = key as usize * width + (i % comptime!(layout.dim)) as usize;
                k = f32::cast_from(qkv[row + key_column]);
                v = f32::cast_from(qkv[row + value_column]);
            }
            keys[i as usize] = k;
            values[i as usize] = v;
        }
        sync_cube();
        for j in 0..UNIT_KEYS {
            let key = tile_start + j;
            if key >= first && key <= query {
                let from = j as usize * dim;
                let mut score = 0.0f32;
                for i in 0..dim {
                    score += q[i] * keys[from + i];
                }
                if score > largest {
                    let correction = (largest - score).exp();
                    weight *= correction;
                    for i in 0..dim {
                        sums[i] *= correction;
                    }
                    largest = score;
                }
                let p = (score - largest).exp();
                weight += p;
                for i in 0..dim {
                    sums[i] += p * values[from + i];
                }
            }
        }
    }
    let row = query as usize * comptime!(layout.out_width as usize) + head as usize * dim;
    for i in 0..dim {
        out[row + i] = F::cast_from(sums[i] / weight);
    }
}

/// On tensor cores: four planes a cube, 16 queries each. `dim` is a multiple of 16.
///
/// The sums are divided by e^reference, where each row's reference is its largest score so far, but left alone
/// until a score exceeds it by [`SLACK`]: only then do the sums pass through shared memory to be scaled, since a
/// unit cannot tell which of a matrix's numbers it holds.
#[cube(launch_unchecked)]
pub(super) fn by_planes<F: Float>(
    qkv: &[Vector<F, Const<VECTOR>>],
    first_keys: &[u32],
    out: &mut [Vector<F, Const<VECTOR>>],
    scale: f32,
    #[comptime] layout: Layout,
) {
    let dim = comptime!(layout.dim as usize);
    let steps = comptime!(dim / FRAGMENT as usize);
    let row_vectors = comptime!((dim + PAD) / VECTOR);
    let stride = comptime!((dim + PAD) as u32);
    let score_vectors = comptime!((KEYS as usize + PAD) / VECTOR);
    let score_stride = comptime!(KEYS + PAD as u32);
    let width = comptime!(layout.qkv_width as usize / VECTOR);

    let tile = comptime!(KEYS as usize * row_vectors);
    let score_tile = comptime!(QUERIES as usize * score_vectors);
    let mut keys = Shared::<[Vector<F, Const<VECTOR>>]>::new_slice(tile);
    let mut values = Shared::<[Vector<F, Const<VECTOR>>]>::new_slice(tile);
    let mut scores = Shared::<[Vector<f32, Const<VECTOR>>]>::new_slice(score_tile);
    let mut weights = Shared::<[Vector<F, Const<VECTOR>>]>::new_slice(score_tile);

    let block = CUBE_POS_X * QUERIES;
    let head = CUBE_POS_Y as usize;
    let key_head = head / comptime!((layout.queries / layout.keys) as usize);
    let key_column = (comptime!(layout.queries as usize) + key_head) * comptime!(dim / VECTOR);
    let value_column =
        (comptime!((layout.queries + layout.keys) as usize) + key_head) * comptime!(dim / VECTOR);

    let plane = UNIT_POS_X / PLANE;
    let lane = UNIT_POS_X % PLANE;
    // Two units share a row of scores: four columns for one, four for the other, in turns.
    let row = lane / 2;
    let side = (lane % 2) as usize;
    let plane_row = plane * FRAGMENT;
    let query = block + plane_row + row;
    let plane_scores = plane_row as usize * score_vectors;
    let row_scores = (plane_row + row) as usize * score_vectors;

    let mut queries = Sequence::<Matrix<F>>::new();
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for i in 0..steps {
        let start = (block + plane_row) as usize * width
            + head * comptime!(dim / VECTOR)
            + comptime!(i * FRAGMENT as usize / VECTOR);
        let mut fragment = fragment::<F>(MatrixIdent::A, MatrixLayout::RowMajor);
        cmma::load(&mut fragment, &qkv[start..qkv.len()], comptime!(layout.qkv_width));
        queries.push(fragment);
        sums.push(zeros());
    }
    let mut reference = LOWEST.runtime();
    let mut weight = 0.0f32;

    let first = first_keys[query as usize];
    let start = first_keys[block as usize] / KEYS;
    let end = (block + QUERIES) / KEYS;
    // Each unit's vectors of a tile of keys and of values. The next tile's come from memory while this one is in use.
    let per_row = comptime!((dim / VECTOR) as u32);
    let units = comptime!(QUERIES / FRAGMENT * PLANE);
    let each = comptime!((KEYS * (layout.dim / VECTOR as u32) / (QUERIES / FRAGMENT * PLANE)) as usize);
    let mut next_keys = Array::<Vector<F, Const<VECTOR>>>::new(each);
    let mut next_values = Array::<Vector<F, Const<VECTOR>>>::new(each);
    #[unroll]
    for i in 0..each {
        let at = UNIT_POS_X + comptime!(i as u32) * units;
        let from = (start * KEYS + at / per_row) as usize * width + (at % per_row) as usize;
        next_keys[i] = qkv[from + key_column];
        next_values[i] = qkv[from + value_column];
    }
    for tile_number in start..end {
        let tile_start = tile_number * KEYS;
        sync_cube();
        #[unroll]
        for i in 0..each {
            let at = UNIT_POS_X + comptime!(i as u32) * units;
            let to = (at / per_row) as usize * row_vectors + (at % per_row) as usize;
            keys[to] = next_keys[i];
            values[to] = next_values[i];
        }
        sync_cube();
        if tile_number + 1 < end {
            #[unroll]
            for i in 0..each {
                let at = UNIT_POS_X + comptime!(i as u32) * units;
                let from = (tile_start + KEYS + at / per_row) as usize * width + (at % per_row) as usize;
                next_keys[i] = qkv[from + key_column];
                next_values[i] = qkv[from + value_column];
            }
        }

        #[unroll]
        for j in 0..comptime!((KEYS / FRAGMENT) as usize) {
            let acc = zeros();
            #[unroll]
            for i in 0..steps {
                let start = comptime!(j * FRAGMENT as usize * row_vectors + i * FRAGMENT as usize / VECTOR);
                let mut fragment = fragment::<F>(MatrixIdent::B, MatrixLayout::ColMajor);
                cmma::load(&mut fragment, &keys[start..tile], stride);
                cmma::execute(&queries[i], &fragment, &acc, &acc);
            }
            let start = plane_scores + comptime!(j * FRAGMENT as usize / VECTOR);
            cmma::store(&mut scores[start..score_tile], &acc, score_stride, MatrixLayout::RowMajor);
        }
        sync_plane();

        let groups = comptime!(KEYS as usize / VECTOR / 2);
        let mut mine = Array::<f32>::new(comptime!(groups * VECTOR));
        let mut largest = LOWEST.runtime();
        #[unroll]
        for group in 0..groups {
            let four = scores[row_scores + group * 2 + side];
            #[unroll]
            for i in 0..VECTOR {
                let key = tile_start + ((group * 2 + side) * VECTOR + i) as u32;
                let seen = key >= first && key <= query;
                let score = select(seen, four.extract(i) * scale, LOWEST);
                mine[comptime!(group * VECTOR + i)] = score;
                largest = max(largest, score);
            }
        }
        largest = max(largest, plane_shuffle_xor(largest, 1));
        let exceeds = largest > reference + SLACK;
        if plane_any(exceeds) {
            let next = select(exceeds, largest, reference);
            let correction = (reference - next).exp();
            reference = next;
            weight *= correction;
            scale_rows(&mut sums, &mut scores, plane_scores, row_scores, side, correction, layout);
        }
        #[unroll]
        for group in 0..groups {
            let mut four = Vector::<F, Const<VECTOR>>::new(F::new(0.0));
            #[unroll]
            for i in 0..VECTOR {
                let score = mine[comptime!(group * VECTOR + i)];
                // A score that is not seen is the least number there is, and so may the reference be. NaN stays NaN.
                let p = select(score == LOWEST, 0.0f32, (score - reference).exp());
                weight += p;
                four.insert(i, F::cast_from(p));
            }
            weights[row_scores + group * 2 + side] = four;
        }
        sync_plane();

        #[unroll]
        for j in 0..comptime!((KEYS / FRAGMENT) as usize) {
            let start = plane_scores + comptime!(j * FRAGMENT as usize / VECTOR);
            let mut p = fragment::<F>(MatrixIdent::A, MatrixLayout::RowMajor);
            cmma::load(&mut p, &weights[start..score_tile], score_stride);
            #[unroll]
            for i in 0..steps {
                let start = comptime!(j * FRAGMENT as usize * row_vectors + i * FRAGMENT as usize / VECTOR);
                let mut v = fragment::<F>(MatrixIdent::B, MatrixLayout::RowMajor);
                cmma::load(&mut v, &values[start..tile], stride);
                cmma::execute(&p, &v, &sums[i], &sums[i]);
            }
        }
    }

    weight += plane_shuffle_xor(weight, 1);
    let out_row =
        query as usize * comptime!(layout.out_width as usize / VECTOR) + head * comptime!(dim / VECTOR);
    // Sixteen columns at a time, so that a head of any width fits where the scores lay.
    #[unroll]
    for i in 0..steps {
        sync_plane();
        cmma::store(&mut scores[plane_scores..score_tile], &sums[i], score_stride, MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for half in 0..comptime!(FRAGMENT as usize / VECTOR / 2) {
            let column = half * 2 + side;
            let four = scores[row_scores + column] / Vector::new(weight);
            out[out_row + comptime!(i * FRAGMENT as usize / VECTOR) + column] = Vector::cast_from(four);
        }
    }
}

/// How far a score may exceed the reference of its row, in the exponent: e^6 is 403, and sums of weights
/// stay far from the largest number of an `f16`, which is 65,504.
const SLACK: f32 = 6.0;

#[cube]
fn fragment<F: Float>(#[comptime] ident: MatrixIdent, #[comptime] layout: MatrixLayout) -> Matrix<F> {
    let size = comptime!(FRAGMENT as usize);
    // Loaded before it is read.
    unsafe { Matrix::<F>::uninitialized(ident, size, size, size, layout) }
}

#[cube]
fn zeros() -> Matrix<f32> {
    let size = comptime!(FRAGMENT as usize);
    Matrix::<f32>::from_value(MatrixIdent::Accumulator, size, size, size, MatrixLayout::Undefined, 0.0)
}

/// Multiplies each row of a plane's sums by its units' `correction`, through the plane's rows of `scores`.
#[cube]
fn scale_rows(
    sums: &mut Sequence<Matrix<f32>>,
    scores: &mut Shared<[Vector<f32, Const<VECTOR>>]>,
    plane_scores: usize,
    row_scores: usize,
    side: usize,
    correction: f32,
    #[comptime] layout: Layout,
) {
    let score_stride = comptime!(KEYS + PAD as u32);
    let score_tile = comptime!(QUERIES as usize * (KEYS as usize + PAD) / VECTOR);
    #[unroll]
    for i in 0..comptime!((layout.dim / FRAGMENT) as usize) {
        sync_plane();
        cmma::store(&mut scores[plane_scores..score_tile], &sums[i], score_stride, MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for half in 0..comptime!(FRAGMENT as usize / VECTOR / 2) {
            let at = row_scores + half * 2 + side;
            scores[at] *= Vector::new(correction);
        }
        sync_plane();
        cmma::load_with_layout(
            &mut sums[i],
            &scores[plane_scores..score_tile],
            score_stride,
            MatrixLayout::RowMajor,
        );
    }
    sync_plane();
}
