//! Runs the entropy model on CPU cores in `f32`: packed tokens in, scores out. Knows nothing of
//! documents.
//!
//! A stream is cut into blocks of tokens, each of which one core takes through a whole layer while the
//! block stays in its L2 cache. All that a block needs of the others are keys and values, so the cores
//! wait for one another once a layer, and no work is left to one of them. Vector instructions are chosen
//! at run time and do not change the results: a context gets the same bits wherever it stands in whatever
//! stream.

mod attention;
mod layer;
mod passes;
mod product;

use std::sync::{Mutex, PoisonError};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use self::attention::{Blocks, Heads, Memory, Sight};
use self::layer::{Finish, Layer, Mix, Project, Scratch};
use self::product::{Aligned, Matrix, Rows, lanes};
use super::places::{Angles, Places};
use super::{EntropyModel, ModelConfig, ModelError, ModelFiles, check_batch};
use crate::data::{PackedTokens, Scores, Wanted};

/// Tokens that one core takes at a time: whole panels and whole tiles of every width of vectors, and at
/// dim 768 what an L2 cache of 512 KiB holds.
const BLOCK_TOKENS: usize = 96;
/// Contexts are taken together up to this many tokens: memory does not grow with longer streams.
const STREAM_TOKENS: usize = 8192;

/// The real model on the CPU.
#[derive(Debug)]
pub struct CpuModel {
    config: ModelConfig,
    arch: Arch,
    /// Tokens of a panel.
    lanes: usize,
    blocks: Blocks,
    /// `[vocabulary, dim]`
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    /// `[vocabulary, dim]`, the final norm's weight multiplied in.
    output: Matrix,
    angles: Angles,
    stream: Stream,
    scratch: Pool,
}

impl CpuModel {
    /// Puts the weights in the order in which this processor's kernel reads them.
    pub fn new(files: &ModelFiles) -> Self {
        let arch = Arch::new();
        let (_, rows) = arch.dispatch(TileShape);
        Self::on(arch, rows, files)
    }

    fn on(arch: Arch, rows: Rows, files: &ModelFiles) -> Self {
        let (config, weights) = (&files.config, &files.weights);
        let (lanes, _) = arch.dispatch(TileShape);
        let heads = Heads { queries: config.n_heads, keys: config.n_kv_heads, dim: config.head_dim };
        let output = weights.output.as_ref().unwrap_or(&weights.tok_embeddings);
        Self {
            arch,
            lanes,
            blocks: Blocks { heads, tokens: BLOCK_TOKENS, rows },
            embedding: weights.tok_embeddings.clone(),
            layers: weights.layers.iter().map(|weights| Layer::new(config, weights, rows)).collect(),
            output: Matrix::stacked(&[output], config.dim, Some(&weights.norm), rows),
            angles: Angles::new(config),
            stream: Stream::default(),
            scratch: Pool::default(),
            config: config.clone(),
        }
    }

    /// Scores whole contexts; `out` has room for their tokens.
    fn score_stream(&mut self, tokens: &[u16], context_lengths: &[usize], out: Out<'_>) {
        let Self { config, arch, lanes, blocks, scratch, .. } = self;
        let (dim, eps, half) = (config.dim, config.norm_eps, config.head_dim / 2);
        let (arch, lanes, blocks) = (*arch, *lanes, *blocks);
        let places = Places::new(context_lengths, config.sliding_window);
        let sights: Vec<Sight> = sights(&places.first_keys, lanes).collect();
        self.angles.extend(context_lengths.iter().copied().max().unwrap_or(0));

        let block = |features: usize| BLOCK_TOKENS * features;
        let query_dim = config.n_heads * config.head_dim;
        let n_padded = tokens.len().next_multiple_of(lanes);
        let n_blocks = tokens.len().div_ceil(BLOCK_TOKENS);
        let hidden = self.stream.hidden.first(n_padded * dim);
        let queries = self.stream.queries.first(n_padded * query_dim);
        let cos = self.stream.cos.first(n_padded * half);
        let sin = self.stream.sin.first(n_padded * half);
        let [mut memory, mut next_memory] = self.stream.memory.each_mut().map(|(keys, values)| {
            (keys.first(n_blocks * blocks.keys_len()), values.first(n_blocks * blocks.values_len()))
        });

        (
            tokens.par_chunks(BLOCK_TOKENS),
            places.positions.par_chunks(BLOCK_TOKENS),
            hidden.par_chunks_mut(block(dim)),
            cos.par_chunks_mut(block(half)),
            sin.par_chunks_mut(block(half)),
        )
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(tokens, positions, hidden, cos, sin)| {
                gather(&self.embedding, dim, tokens.iter().map(|&token| usize::from(token)), hidden, lanes);
                gather(&self.angles.cos, half, positions.iter().map(|&p| p as usize), cos, lanes);
                gather(&self.angles.sin, half, positions.iter().map(|&p| p as usize), sin, lanes);
            });
        let mut layers = self.layers.iter();
        let mut next = layers.next();
        let mut layer = None;
        // One task takes its block through the rest of a layer and into the next, whose keys and values go where no other
        // task reads.
        while layer.is_some() || next.is_some() {
            let (keys, values) = (&*memory.0, &*memory.1);
            (
                hidden.par_chunks_mut(block(dim)),
                queries.par_chunks_mut(block(query_dim)),
                sights.par_chunks(BLOCK_TOKENS / lanes),
                cos.par_chunks(block(half)),
                sin.par_chunks(block(half)),
                next_memory.0.par_chunks_mut(blocks.keys_len()),
                next_memory.1.par_chunks_mut(blocks.values_len()),
            )
                .into_par_iter()
                .with_max_len(1)
                .for_each(|(hidden, queries, sights, cos, sin, next_keys, next_values)| {
                    scratch.with(|scratch| {
                        if let Some(layer) = layer {
                            let memory = Memory { blocks, keys, values };
                            arch.dispatch(Mix {
                                layer,
                                memory,
                                eps,
                                hidden: &mut *hidden,
                                queries: &*queries,
                                sights,
                                scratch: &mut *scratch,
                            });
                        }
                        if let Some(layer) = next {
                            let (keys, values) = (next_keys, next_values);
                            arch.dispatch(Project {
                                layer,
                                blocks,
                                eps,
                                hidden,
                                cos,
                                sin,
                                queries,
                                keys,
                                values,
                                scratch,
                            });
                        }
                    });
                });
            std::mem::swap(&mut memory, &mut next_memory);
            (layer, next) = (next, layers.next());
        }
        let (output, vocabulary) = (&self.output, config.vocab_size);
        (hidden.par_chunks(block(dim)), out.blocks(BLOCK_TOKENS, dim))
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(hidden, out)| {
                scratch.with(|scratch| {
                    arch.dispatch(Finish { output, vocabulary, dim, eps, hidden, out, scratch })
                });
            });
    }
}

impl EntropyModel for CpuModel {
    fn dim(&self) -> usize {
        self.config.dim
    }

    fn max_context(&self) -> usize {
        self.config.max_seqlen
    }

    /// The width of the vectors does not stand here: all that fuse multiply and add give the same bits.
    fn device_class(&self) -> String {
        let sums = if self.arch.dispatch(FusedSums) { "fused" } else { "unfused" };
        format!("cpu panels f32 {sums}")
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        check_batch(batch, self.config.max_seqlen)?;
        let (n, dim) = (batch.tokens.len(), self.config.dim);
        let mut scores = Scores {
            entropies: vec![0.0; n],
            norms: wanted.norms.then(|| vec![0.0; n]),
            pre_norm: wanted.pre_norm.then(|| vec![0.0; n * dim]),
        };
        let (mut tokens, mut lengths) = (&batch.tokens[..], &batch.context_lengths[..]);
        let mut out = Out {
            entropies: &mut scores.entropies,
            norms: scores.norms.as_deref_mut(),
            pre_norm: scores.pre_norm.as_deref_mut(),
        };
        while !lengths.is_empty() {
            let (n_contexts, n_tokens) = stream(lengths);
            let head;
            (head, out) = out.split_at(n_tokens, dim);
            self.score_stream(&tokens[..n_tokens], &lengths[..n_contexts], head);
            (tokens, lengths) = (&tokens[n_tokens..], &lengths[n_contexts..]);
        }
        Ok(scores)
    }
}

/// How many contexts go together, at least one, and their tokens.
fn stream(context_lengths: &[usize]) -> (usize, usize) {
    let mut n_tokens = context_lengths[0];
    let mut n_contexts = 1;
    for length in &context_lengths[1..] {
        if n_tokens + length > STREAM_TOKENS {
            break;
        }
        n_tokens += length;
        n_contexts += 1;
    }
    (n_contexts, n_tokens)
}

/// Where the scores of a run of tokens go.
struct Out<'a> {
    entropies: &'a mut [f32],
    norms: Option<&'a mut [f32]>,
    pre_norm: Option<&'a mut [f32]>,
}

impl<'a> Out<'a> {
    fn split_at(self, n_tokens: usize, dim: usize) -> (Out<'a>, Out<'a>) {
        let split = |slice: Option<&'a mut [f32]>, at| slice.map(|s| s.split_at_mut(at)).unzip();
        let (entropies, more_entropies) = self.entropies.split_at_mut(n_tokens);
        let (norms, more_norms) = split(self.norms, n_tokens);
        let (pre_norm, more_pre_norm) = split(self.pre_norm, n_tokens * dim);
        let more = Out { entropies: more_entropies, norms: more_norms, pre_norm: more_pre_norm };
        (Out { entropies, norms, pre_norm }, more)
    }

    fn blocks(mut self, n_tokens: usize, dim: usize) -> Vec<Out<'a>> {
        let mut blocks = Vec::new();
        while !self.entropies.is_empty() {
            let block;
            (block, self) = {
                let n = n_tokens.min(self.entropies.len());
                self.split_at(n, dim)
            };
            blocks.push(block);
        }
        blocks
    }
}

/// What a stream's blocks leave for one another; as large as the longest stream so far needed.
#[derive(Debug, Default)]
struct Stream {
    /// Panels of `dim` features.
    hidden: Aligned,
    /// Panels of all heads of queries.
    queries: Aligned,
    /// Keys and values as [`Blocks`] lays them out, of a layer and of the next.
    memory: [(Aligned, Aligned); 2],
    /// Panels of `head_dim / 2` angles.
    cos: Aligned,
    sin: Aligned,
}

/// What the panels of a stream see.
fn sights(first_keys: &[u32], lanes: usize) -> impl Iterator<Item = Sight> {
    let starts = (0..first_keys.len()).step_by(lanes);
    starts.zip(first_keys.chunks(lanes)).map(|(start, first_keys)| Sight::new(start, first_keys))
}

/// Rows of a table, `width` wide, become the lanes of panels; lanes that are left are zeros.
fn gather(
    table: &[f32],
    width: usize,
    mut rows: impl Iterator<Item = usize>,
    panels: &mut [f32],
    lanes: usize,
) {
    for panel in panels.chunks_exact_mut(width * lanes) {
        for lane in 0..lanes {
            let places = panel[lane..].iter_mut().step_by(lanes);
            match rows.next() {
                Some(row) => {
                    for (place, value) in places.zip(&table[row * width..][..width]) {
                        *place = *value;
                    }
                }
                None => places.for_each(|place| *place = 0.0),
            }
        }
    }
}

/// Scratch memory for as many threads as ever worked at once.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    fn with(&self, work: impl FnOnce(&mut Scratch)) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        work(&mut scratch);
        lock().push(scratch);
    }
}

/// Lanes of a panel, and the rows of a tile that suit them.
struct TileShape;

impl WithSimd for TileShape {
    type Output = (usize, Rows);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        (lanes::<S>(), Rows::of::<S>())
    }
}

/// Whether a product is rounded before it is added.
struct FusedSums;

impl WithSimd for FusedSums {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        // (1 + 3e)² − 1 − 6e is 9e², which is lost if the square was rounded.
        let value = 1.0 + 3.0 * f32::EPSILON;
        let square =
            simd.mul_add_e_f32s(simd.splat_f32s(value), simd.splat_f32s(value), simd.splat_f32s(-1.0));
        simd.reduce_max_f32s(square) != value * value - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted { norms: true, pre_norm: true };

    fn tokens(n: u32) -> Vec<u16> {
        (0..n).map(|i| (i * i % 257) as u16).collect()
    }

    fn assert_close(a: &Scores, b: &Scores) {
        let close = |a: &[f32], b: &[f32], error: f32| {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= error * a.abs().max(1.0), "{a} {b}");
            }
        };
        close(&a.entropies, &b.entropies, 1e-4);
        close(a.norms.as_ref().unwrap(), b.norms.as_ref().unwrap(), 1e-4);
        close(a.pre_norm.as_ref().unwrap(), b.pre_norm.as_ref().unwrap(), 1e-3);
    }

    #[test]
    fn every_layout_agrees() {
        let files = ModelFiles::embedded().unwrap();
        let batch = PackedTokens { tokens: tokens(1301), context_lengths: vec![700, 1, 600] };
        let ours = CpuModel::new(&files).score(&batch, ALL).unwrap();
        // One token a vector, and both kinds of tiles, of which the processor has one.
        let scalar = CpuModel::on(Arch::Scalar, Rows::Six, &files).score(&batch, ALL).unwrap();
        assert_close(&scalar, &ours);
        for rows in [Rows::Six, Rows::Twelve] {
            assert_eq!(CpuModel::on(Arch::new(), rows, &files).score(&batch, ALL).unwrap(), ours);
        }
    }

    #[test]
    fn a_context_gets_the_same_bits_in_any_company_and_from_any_number_of_threads() {
        let files = ModelFiles::embedded().unwrap();
        let mut model = CpuModel::new(&files);
        let lengths = [37, 900, 5, 4000, 1, 5000];
        let all = PackedTokens {
            tokens: tokens(lengths.iter().sum::<usize>() as u32),
            context_lengths: lengths.to_vec(),
        };
        let together = model.score(&all, ALL).unwrap();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let five = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
        assert_eq!(five.install(|| model.score(&all, ALL)).unwrap(), together);
        let mut start = 0;
        for length in lengths {
            let range = start..start + length;
            let batch =
                PackedTokens { tokens: all.tokens[range.clone()].to_vec(), context_lengths: vec![length] };
            let alone = one.install(|| model.score(&batch, ALL)).unwrap();
            assert_eq!(alone.entropies, together.entropies[range.clone()]);
            assert_eq!(alone.norms.unwrap(), together.norms.as_ref().unwrap()[range.clone()]);
            let dim = model.dim();
            let hidden = &together.pre_norm.as_ref().unwrap()[range.start * dim..range.end * dim];
            assert_eq!(alone.pre_norm.unwrap(), hidden);
            start = range.end;
        }
    }
}
