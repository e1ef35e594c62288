//! Attention of panels of queries to the keys of their windows, on one core. Knows nothing of layers.
//!
//! Keys and values of a stream are kept in blocks of tokens, each written by one task, in the order in
//! which [`multiply_tile`] reads them: a few keys are the rows of a tile of scores, a few features of the
//! values those of a tile of the output. A panel of queries meets only the tiles that some of its tokens
//! sees.

use std::ops::Range;

use pulp::Simd;

use super::passes::{MAX_LANES, exp, maxima};
use super::product::{Aligned, Rows, Start, lanes, multiply_tile};

/// Heads of queries, heads of keys and values that they share, and the width of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
}

/// Layout of the blocks of keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub heads: Heads,
    /// Tokens of a block; a multiple of `rows`.
    pub tokens: usize,
    pub rows: Rows,
}

impl Blocks {
    /// Elements of a block of keys: `[heads, key panels, dim, rows]`.
    pub(super) fn keys_len(&self) -> usize {
        self.heads.keys * self.tokens * self.heads.dim
    }

    /// Features of a head, filled up to whole tiles.
    pub(super) fn padded_dim(&self) -> usize {
        self.heads.dim.next_multiple_of(self.rows.count())
    }

    /// Elements of a block of values: `[heads, feature panels, tokens, rows]`.
    pub(super) fn values_len(&self) -> usize {
        self.heads.keys * self.tokens * self.padded_dim()
    }

    /// Puts the keys and values of a block's tokens, panels of `[keys | values, lanes]`, in their places.
    #[inline(always)]
    pub(super) fn store<S: Simd>(&self, both: &[f32], keys: &mut [f32], values: &mut [f32]) {
        let dim = self.heads.dim;
        let (lanes, rows) = (lanes::<S>(), self.rows.count());
        let values_len = self.padded_dim() * self.tokens;
        let heads = keys.chunks_exact_mut(dim * self.tokens).zip(values.chunks_exact_mut(values_len));
        for (head, (keys, values)) in heads.enumerate() {
            for (panel, both) in both.chunks_exact(2 * self.heads.keys * dim * lanes).enumerate() {
                let new_keys = &both[head * dim * lanes..][..dim * lanes];
                let new_values = &both[(self.heads.keys + head) * dim * lanes..][..dim * lanes];
                for lane in 0..lanes {
                    let token = panel * lanes + lane;
                    let place = token / rows * rows * dim + token % rows;
                    for (key, new) in
                        keys[place..].iter_mut().step_by(rows).zip(column(new_keys, lane, lanes))
                    {
                        *key = *new;
                    }
                    let panels = values.chunks_exact_mut(rows * self.tokens);
                    for (values, new) in panels.zip(new_values.chunks(rows * lanes)) {
                        for (value, new) in values[token * rows..].iter_mut().zip(column(new, lane, lanes)) {
                            *value = *new;
                        }
                    }
                }
            }
        }
    }
}

/// The features of one lane of `[n_features, lanes]`.
#[inline(always)]
fn column(panel: &[f32], lane: usize, lanes: usize) -> impl Iterator<Item = &f32> {
    panel[lane..].iter().step_by(lanes)
}

/// Which keys of the stream a panel's tokens see.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// Keys that any token sees.
    pub any: Range<usize>,
    /// Keys that all tokens see; may be empty.
    pub all: Range<usize>,
    /// First and last key of each token; it sees all between.
    pub first: [u32; MAX_LANES],
    pub last: [u32; MAX_LANES],
}

impl Sight {
    /// Of tokens that stand in the stream one after the other from `start` on, each of which sees itself
    /// and what is before it back to its `first_keys`.
    pub(super) fn new(start: usize, first_keys: &[u32]) -> Self {
        // Lanes without a token see what the last token sees.
        let token = |lane: usize| lane.min(first_keys.len() - 1);
        let first = std::array::from_fn(|lane| first_keys[token(lane)]);
        let last = std::array::from_fn(|lane| (start + token(lane)) as u32);
        // Windows move forward only.
        let (first_of_first, first_of_last) = (first[0] as usize, first[MAX_LANES - 1] as usize);
        let end = start + first_keys.len();
        Self { any: first_of_first..end, all: first_of_last..start + 1, first, last }
    }
}

/// All blocks of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'a> {
    pub blocks: Blocks,
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

impl Memory<'_> {
    /// Output of one head for one panel: queries `[dim, lanes]` to `out` of the same shape. `room` is for
    /// what is computed on the way.
    #[inline(always)]
    pub(super) fn attend<S: Simd>(
        &self,
        simd: S,
        head: usize,
        queries: &[f32],
        sight: &Sight,
        room: &mut Aligned,
        out: &mut [f32],
    ) {
        match self.blocks.rows {
            Rows::Six => self.attend_by::<S, 6>(simd, head, queries, sight, room, out),
            Rows::Twelve => self.attend_by::<S, 12>(simd, head, queries, sight, room, out),
        }
    }

    #[inline(always)]
    fn attend_by<S: Simd, const ROWS: usize>(
        &self,
        simd: S,
        head: usize,
        queries: &[f32],
        sight: &Sight,
        room: &mut Aligned,
        out: &mut [f32],
    ) {
        let lanes = lanes::<S>();
        let Blocks { heads, tokens, .. } = self.blocks;
        let head = head / (heads.queries / heads.keys);
        let padded_dim = self.blocks.padded_dim();

        let panels = sight.any.start / ROWS..sight.any.end.div_ceil(ROWS);
        let first = panels.start * ROWS;
        let n_keys = panels.len() * ROWS;
        let (scores, sums) = room.first((n_keys + padded_dim) * lanes).split_at_mut(n_keys * lanes);
        sums.fill(0.0);
        for (panel, tile) in panels.zip(scores.chunks_exact_mut(ROWS * lanes)) {
            let (block, token) = (panel * ROWS / tokens, panel * ROWS % tokens);
            let start = block * self.blocks.keys_len() + (head * tokens + token) * heads.dim;
            let keys = &self.keys[start..][..heads.dim * ROWS];
            multiply_tile::<S, ROWS>(simd, keys, queries, Start::Zero, tile);
        }

        let totals = softmax::<S>(scores, first, sight, 1.0 / (heads.dim as f32).sqrt());

        let mut key = sight.any.start;
        while key < sight.any.end {
            let (block, token) = (key / tokens, key % tokens);
            let n = (tokens - token).min(sight.any.end - key);
            let weights = &scores[(key - first) * lanes..][..n * lanes];
            for (panel, sums) in sums.chunks_exact_mut(ROWS * lanes).enumerate() {
                let features = head * padded_dim + panel * ROWS;
                let start = block * self.blocks.values_len() + features * tokens + token * ROWS;
                let values = &self.values[start..][..n * ROWS];
                multiply_tile::<S, ROWS>(simd, values, weights, Start::Tile, sums);
            }
            key += n;
        }
        for (out, sums) in out.chunks_exact_mut(lanes).zip(sums.chunks_exact(lanes)) {
            for ((out, sum), total) in out.iter_mut().zip(sums).zip(&totals) {
                *out = sum / total;
            }
        }
    }
}

/// Turns scores `[keys, lanes]`, of which the first belongs to key `first`, into weights, still to be
/// divided by their totals, which it gives: e^(`scale` · (score − max)), and 0 for keys that the token does
/// not see.
#[inline(always)]
fn softmax<S: Simd>(scores: &mut [f32], first: usize, sight: &Sight, scale: f32) -> [f32; MAX_LANES] {
    let lanes = lanes::<S>();
    for (key, row) in (first..).zip(scores.chunks_exact_mut(lanes)) {
        if !sight.all.contains(&key) {
            hide(row, key, sight, f32::NEG_INFINITY);
        }
    }
    let maxima = maxima::<S>(scores);
    let mut totals = [0.0; MAX_LANES];
    for (key, row) in (first..).zip(scores.chunks_exact_mut(lanes)) {
        for (x, max) in row.iter_mut().zip(&maxima) {
            *x = exp((*x - max) * scale);
        }
        if !sight.all.contains(&key) {
            hide(row, key, sight, 0.0);
        }
        for (total, x) in totals.iter_mut().zip(row) {
            *total += *x;
        }
    }
    totals
}

#[inline(always)]
fn hide(row: &mut [f32], key: usize, sight: &Sight, value: f32) {
    let key = key as u32;
    for ((x, &first), &last) in row.iter_mut().zip(&sight.first).zip(&sight.last) {
        *x = if first <= key && key <= last { *x } else { value };
    }
}
