//! The way of one block of tokens through a layer, on one core. Knows nothing of threads.

use pulp::{Simd, WithSimd};

use super::Out;
use super::attention::{Blocks, Memory, Sight};
use super::passes::{entropies, normalize, rotate, square_sums, swiglu};
use super::product::{Aligned, Matrix, Panels, Rows, lanes, multiply};
use crate::model::ModelConfig;
use crate::model::weights::LayerWeights;

/// A layer's weights; those of its norms are multiplied into the products behind them.
#[derive(Debug)]
pub(super) struct Layer {
    dim: usize,
    query_dim: usize,
    wq: Matrix,
    /// Keys, then values.
    wkv: Matrix,
    wo: Matrix,
    /// In each row panel as many gates as features to be gated.
    w13: Matrix,
    w2: Matrix,
    /// Rows of `w13` of one kind, filled up to whole panels.
    hidden_dim: usize,
}

impl Layer {
    pub(super) fn new(config: &ModelConfig, weights: &LayerWeights, rows: Rows) -> Self {
        let (dim, query_dim) = (config.dim, config.n_heads * config.head_dim);
        let attention_norm = Some(&weights.attention_norm[..]);
        let half = rows.count() / 2;
        let hidden_dim = config.ffn_hidden.next_multiple_of(half);
        let mut gated = Vec::with_capacity(2 * hidden_dim);
        for first in (0..hidden_dim).step_by(half) {
            for matrix in [&weights.w1, &weights.w3] {
                gated.extend((first..first + half).map(|row| matrix.chunks_exact(dim).nth(row)));
            }
        }
        Self {
            dim,
            query_dim,
            wq: Matrix::stacked(&[&weights.wq], dim, attention_norm, rows),
            wkv: Matrix::stacked(&[&weights.wk, &weights.wv], dim, attention_norm, rows),
            wo: Matrix::stacked(&[&weights.wo], query_dim, None, rows),
            w13: Matrix::new(&gated, dim, Some(&weights.ffn_norm), rows),
            w2: Matrix::stacked(&[&weights.w2], config.ffn_hidden, None, rows),
            hidden_dim,
        }
    }
}

/// Room for what a block computes on its way.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: Aligned,
    wide: Aligned,
    scores: Aligned,
}

/// From hidden states to queries, keys and values with their positions applied.
pub(super) struct Project<'a> {
    pub layer: &'a Layer,
    pub blocks: Blocks,
    pub eps: f32,
    pub hidden: &'a [f32],
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    pub queries: &'a mut [f32],
    pub keys: &'a mut [f32],
    pub values: &'a mut [f32],
    pub scratch: &'a mut Scratch,
}

impl WithSimd for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, blocks, eps, hidden, cos, sin, queries, keys, values, scratch } = self;
        let Layer { dim, query_dim, .. } = *layer;
        let heads = blocks.heads;
        let normed = scratch.normed.first(hidden.len());
        normalize::<S>(hidden, normed, dim, eps);
        let normed = Panels { data: normed, height: dim };
        multiply(simd, &layer.wq, normed, |panel, row, tile| {
            queries[(panel * query_dim + row) * lanes::<S>()..][..tile.len()].copy_from_slice(tile);
        });
        let both_dim = 2 * heads.keys * heads.dim;
        let both = scratch.wide.first(hidden.len() / dim * both_dim);
        multiply(simd, &layer.wkv, normed, |panel, row, tile| {
            both[(panel * both_dim + row) * lanes::<S>()..][..tile.len()].copy_from_slice(tile);
        });
        let angles = heads.dim / 2 * lanes::<S>();
        let panels = queries
            .chunks_exact_mut(query_dim * lanes::<S>())
            .zip(both.chunks_exact_mut(both_dim * lanes::<S>()));
        for ((queries, both), (cos, sin)) in
            panels.zip(cos.chunks_exact(angles).zip(sin.chunks_exact(angles)))
        {
            rotate::<S>(queries, cos, sin);
            rotate::<S>(&mut both[..heads.keys * heads.dim * lanes::<S>()], cos, sin);
        }
        blocks.store::<S>(both, keys, values);
    }
}

/// From queries to the layer's hidden states: attention and the feed-forward part.
pub(super) struct Mix<'a> {
    pub layer: &'a Layer,
    pub memory: Memory<'a>,
    pub eps: f32,
    pub hidden: &'a mut [f32],
    pub queries: &'a [f32],
    /// One a panel.
    pub sights: &'a [Sight],
    pub scratch: &'a mut Scratch,
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, memory, eps, hidden, queries, sights, scratch } = self;
        let Layer { dim, query_dim, hidden_dim, .. } = *layer;
        let head = memory.blocks.heads.dim * lanes::<S>();

        let attended = scratch.wide.first(queries.len());
        for n in 0..memory.blocks.heads.queries {
            let panel = query_dim * lanes::<S>();
            let panels = queries.chunks_exact(panel).zip(attended.chunks_exact_mut(panel));
            for ((queries, attended), sight) in panels.zip(sights) {
                let out = &mut attended[n * head..][..head];
                memory.attend(simd, n, &queries[n * head..][..head], sight, &mut scratch.scores, out);
            }
        }
        let attended = Panels { data: attended, height: query_dim };
        multiply(simd, &layer.wo, attended, |panel, row, tile| {
            add(&mut hidden[(panel * dim + row) * lanes::<S>()..], tile);
        });

        let normed = scratch.normed.first(hidden.len());
        normalize::<S>(hidden, normed, dim, eps);
        let inner = scratch.wide.first(hidden.len() / dim * hidden_dim);
        multiply(simd, &layer.w13, Panels { data: normed, height: dim }, |panel, row, tile| {
            let (gates, ups) = tile.split_at(tile.len() / 2);
            let inner = &mut inner[(panel * hidden_dim + row / 2) * lanes::<S>()..][..gates.len()];
            inner.copy_from_slice(gates);
            swiglu::<S>(inner, ups);
        });
        multiply(simd, &layer.w2, Panels { data: inner, height: hidden_dim }, |panel, row, tile| {
            add(&mut hidden[(panel * dim + row) * lanes::<S>()..], tile);
        });
    }
}

#[inline(always)]
fn add(to: &mut [f32], tile: &[f32]) {
    for (to, value) in to.iter_mut().zip(tile) {
        *to += value;
    }
}

/// From the last layer's hidden states to scores.
pub(super) struct Finish<'a> {
    pub output: &'a Matrix,
    pub vocabulary: usize,
    pub dim: usize,
    pub eps: f32,
    pub hidden: &'a [f32],
    pub out: Out<'a>,
    pub scratch: &'a mut Scratch,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { output, vocabulary, dim, eps, hidden, out, scratch } = self;
        let lanes = lanes::<S>();
        let normed = scratch.normed.first(hidden.len());
        normalize::<S>(hidden, normed, dim, eps);
        let logits = scratch.wide.first(hidden.len() / dim * vocabulary);
        multiply(simd, output, Panels { data: normed, height: dim }, |panel, row, tile| {
            logits[(panel * vocabulary + row) * lanes..][..tile.len()].copy_from_slice(tile);
        });
        let logits = logits.chunks_exact(vocabulary * lanes);
        for (values, logits) in out.entropies.chunks_mut(lanes).zip(logits) {
            values.copy_from_slice(&entropies::<S>(logits)[..values.len()]);
        }
        let panels = hidden.chunks_exact(dim * lanes);
        if let Some(norms) = out.norms {
            for (norms, hidden) in norms.chunks_mut(lanes).zip(panels.clone()) {
                for (norm, sum) in norms.iter_mut().zip(square_sums::<S>(hidden)) {
                    *norm = sum.sqrt();
                }
            }
        }
        if let Some(pre_norm) = out.pre_norm {
            for (rows, hidden) in pre_norm.chunks_mut(lanes * dim).zip(panels) {
                for (lane, row) in rows.chunks_exact_mut(dim).enumerate() {
                    for (value, hidden) in row.iter_mut().zip(hidden[lane..].iter().step_by(lanes)) {
                        *value = *hidden;
                    }
                }
            }
        }
    }
}
