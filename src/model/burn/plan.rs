//! Which tokens go through the model together, which keys each of their queries may see, and where
//! they stand in their contexts. Computed once a batch for all layers.

use std::ops::Range;

use ::burn::prelude::{Device, Tensor, TensorData};

use super::ModelConfig;
use super::kernels::{Angles, Kernels, Visible};

/// Queries that attend together. On a CPU 128 were best for the released window of 512.
const QUERY_BLOCK: usize = 128;

/// A run of the stream that goes through all layers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// In the stream.
    pub tokens: Range<usize>,
    /// First token of the stream whose keys and values any query of the chunk sees.
    pub first_key: usize,
    /// First token of the stream that a later chunk sees.
    pub next_first_key: usize,
    pub blocks: Vec<Block>,
    /// `[n_tokens]`: each token's place in its context, from 0.
    pub positions: Vec<usize>,
}

/// Queries that attend together, and the keys that any of them sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// In the stream.
    pub queries: Range<usize>,
    /// From the first key of the first query to the last query itself.
    pub keys: Range<usize>,
    /// First key in the stream that each query sees; it sees all from there to itself.
    pub first_keys: Vec<usize>,
}

impl Block {
    /// Each query's range of the block's keys; never empty.
    fn visible(&self) -> Vec<Range<usize>> {
        let last = self.queries.clone().map(|query| query + 1 - self.keys.start);
        self.first_keys.iter().zip(last).map(|(first, end)| first - self.keys.start..end).collect()
    }

    /// `[queries × keys]`: true where a query must not look.
    fn hidden(&self) -> Vec<bool> {
        let mut hidden = vec![true; self.queries.len() * self.keys.len()];
        for (row, visible) in hidden.chunks_exact_mut(self.keys.len()).zip(self.visible()) {
            row[visible].fill(false);
        }
        hidden
    }
}

/// Cuts a stream of contexts into chunks of at most `chunk_tokens`.
///
/// Query i of the stream sees the keys from max(start of its context, i − window + 1) to i: never
/// another context, and always itself, so that no row of a mask is empty.
pub(super) fn chunks(context_lengths: &[usize], window: Option<usize>, chunk_tokens: usize) -> Vec<Chunk> {
    let mut starts = Vec::new();
    for &length in context_lengths {
        let start = starts.len();
        starts.resize(start + length, start);
    }
    let n_tokens = starts.len();
    let back = window.map_or(usize::MAX, |window| window - 1);
    let first_key = |query: usize| match starts.get(query) {
        Some(&start) => start.max(query.saturating_sub(back)),
        None => n_tokens,
    };
    let cuts = |range: Range<usize>, size: usize| {
        let end = range.end;
        range.step_by(size).map(move |start| start..end.min(start + size))
    };
    cuts(0..n_tokens, chunk_tokens)
        .map(|tokens| Chunk {
            first_key: first_key(tokens.start),
            next_first_key: first_key(tokens.end),
            blocks: cuts(tokens.clone(), QUERY_BLOCK)
                .map(|queries| Block {
                    keys: first_key(queries.start)..queries.end,
                    first_keys: queries.clone().map(first_key).collect(),
                    queries,
                })
                .collect(),
            positions: tokens.clone().map(|i| i - starts[i]).collect(),
            tokens,
        })
        .collect()
}

/// What every layer needs of a chunk.
pub(super) struct Inputs {
    pub angles: Angles,
    pub blocks: Vec<BlockInputs>,
    /// Keys of earlier chunks that this one sees, in tokens.
    pub n_past: usize,
    /// Row of these keys and the chunk's that a later chunk sees first.
    pub keep_from: usize,
}

/// A [`Block`] in rows of the chunk's own tensors.
pub(super) struct BlockInputs {
    pub queries: Range<usize>,
    /// Rows of past and chunk together.
    pub keys: Range<usize>,
    pub visible: Visible,
}

/// Angles of rotary positions, kept from batch to batch.
#[derive(Debug)]
pub(super) struct Positions {
    /// Radians a position, `[head_dim / 2]`
    rates: Vec<f32>,
    /// Heads that are rotated: queries' and keys'.
    n_heads: usize,
    /// `[positions, head_dim / 2]`, as many positions as were needed so far.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Positions {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let rate = |i: usize| {
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            1.0 / config.rope_theta.powf(exponent)
        };
        Self {
            rates: (0..config.head_dim / 2).map(rate).collect(),
            n_heads: config.n_heads + config.n_kv_heads,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    /// Appends the cosines and sines of the angles of positions 0 to `n` − 1, `[n, head_dim / 2]`.
    pub(super) fn angles(&self, positions: std::ops::Range<usize>, cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        for position in positions {
            for rate in &self.rates {
                // The angle is rounded to f32, as the reference has it; its sine is not.
                let angle = f64::from(position as f32 * rate);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
    }

    pub(super) fn inputs(&mut self, chunk: &Chunk, kernels: Kernels, device: &Device) -> Inputs {
        let half = self.rates.len();
        let known = self.cos.len() / half;
        let needed = chunk.positions.iter().max().map_or(0, |&last| last + 1);
        for position in known..needed {
            for rate in &self.rates {
                // The angle is rounded to f32, as the reference has it; its sine is not.
                let angle = f64::from(position as f32 * rate);
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
        let rows = |table: &[f32], copies: usize| {
            let mut rows = Vec::with_capacity(chunk.positions.len() * copies * half);
            for &position in &chunk.positions {
                for _ in 0..copies {
                    rows.extend_from_slice(&table[position * half..(position + 1) * half]);
                }
            }
            rows
        };
        let tensor = |table: &[f32]| {
            let rows = rows(table, self.n_heads);
            let shape = [chunk.positions.len(), half * self.n_heads];
            Tensor::from_data(TensorData::new(rows, shape), device)
        };
        let visible = |block: &Block| match kernels {
            Kernels::Host => Visible::Host(block.visible()),
            Kernels::Tensors => {
                let shape = [1, 1, block.queries.len(), block.keys.len()];
                Visible::Tensors(Tensor::from_data(TensorData::new(block.hidden(), shape), device))
            }
        };
        let blocks = chunk.blocks.iter().map(|block| BlockInputs {
            queries: shift(&block.queries, chunk.tokens.start),
            keys: shift(&block.keys, chunk.first_key),
            visible: visible(block),
        });
        Inputs {
            angles: match kernels {
                Kernels::Host => Angles::Host { cos: rows(&self.cos, 1), sin: rows(&self.sin, 1) },
                Kernels::Tensors => Angles::Tensors { cos: tensor(&self.cos), sin: tensor(&self.sin) },
            },
            blocks: blocks.collect(),
            n_past: chunk.tokens.start - chunk.first_key,
            keep_from: chunk.next_first_key - chunk.first_key,
        }
    }
}

fn shift(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start - by..range.end - by
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the rule, pair by pair.
        #[test]
        fn a_query_sees_its_window_of_its_context_and_nothing_else(
            lengths in prop::collection::vec(1usize..400, 1..6),
            window in prop::option::of(1usize..300),
            chunk_tokens in 1usize..500,
        ) {
            let mut place = Vec::new();
            for (context, &length) in lengths.iter().enumerate() {
                place.extend((0..length).map(|i| (context, i)));
            }
            let mut next = 0;
            for chunk in chunks(&lengths, window, chunk_tokens) {
                prop_assert_eq!(chunk.tokens.start, next);
                next = chunk.tokens.end;
                prop_assert!(chunk.tokens.len() <= chunk_tokens);
                let positions: Vec<usize> = place[chunk.tokens.clone()].iter().map(|p| p.1).collect();
                prop_assert_eq!(&chunk.positions, &positions);
                for block in &chunk.blocks {
                    prop_assert!(chunk.first_key <= block.keys.start);
                    let hidden = block.hidden();
                    for (row, i) in hidden.chunks(block.keys.len()).zip(block.queries.clone()) {
                        for j in 0..place.len() {
                            let visible = place[i].0 == place[j].0
                                && j <= i
                                && window.is_none_or(|w| i - j < w);
                            let seen = block.keys.contains(&j) && !row[j - block.keys.start];
                            prop_assert_eq!(visible, seen, "{} {}", i, j);
                        }
                    }
                }
                for i in next..place.len() {
                    let first = (0..=i).find(|&j| {
                        place[i].0 == place[j].0 && window.is_none_or(|w| i - j < w)
                    });
                    prop_assert!(chunk.next_first_key <= first.unwrap());
                }
            }
            prop_assert_eq!(next, place.len());
        }
    }
}
