//! Runs the entropy model on a device of the Burn library: packed tokens in, scores out. The only
//! folder that knows Burn; it knows nothing of documents.
//!
//! The stream is taken in chunks, each through all layers before the next. Attention looks back
//! only, so a chunk needs no more of the past than each layer's keys and values of one window:
//! memory does not grow with the stream, and on a CPU a chunk's tensors stay in the cache.

#[cfg(feature = "gpu")]
pub mod gpu;
mod host;
mod kernels;
mod layers;
mod plan;

use ::burn::prelude::{Device, Tensor, TensorData};
use ::burn::tensor::Int;

use self::kernels::{Kernels, elements, read};
use self::layers::{Hidden, Layer, Past, linear};
use self::plan::{Chunk, Positions};
use super::{EntropyModel, ModelConfig, ModelError, ModelFiles, check_batch};
use crate::data::{PackedTokens, Scores, Wanted};

/// Tokens that go through all layers together on a CPU; `benches/model_speed.rs` measures it.
const CPU_CHUNK_TOKENS: usize = 512;
/// More than any tensor of a chunk of the released model has; glibc looks at blocks below 32 MiB.
const LARGE_BLOCK_BYTES: usize = 16 << 20;

/// The real model, in `f32`.
#[derive(Debug)]
pub struct BurnModel {
    config: ModelConfig,
    device: Device,
    kernels: Kernels,
    chunk_tokens: usize,
    /// `[vocabulary, dim]`
    embedding: Tensor<2>,
    layers: Vec<Layer>,
    /// `[dim, vocabulary]`, with the final norm's weight multiplied in.
    output: Tensor<2>,
    positions: Positions,
}

impl BurnModel {
    /// The model on the CPU.
    ///
    /// # Errors
    /// None today; devices that can fail to start come behind the same signature.
    pub fn load(files: &ModelFiles) -> Result<Self, ModelError> {
        // Flex allocates each result anew. glibc maps and unmaps memory for every large one, a page
        // fault for each 4 KiB, until a larger block was freed once: then it keeps the memory. That
        // is a quarter more bytes a second; the block itself is never touched.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BLOCK_BYTES)));
        let device = Device::flex();
        Ok(Self::on(Kernels::of(&device), device, CPU_CHUNK_TOKENS, files))
    }

    fn on(kernels: Kernels, device: Device, chunk_tokens: usize, files: &ModelFiles) -> Self {
        let (config, weights) = (&files.config, &files.weights);
        let table = TensorData::new(weights.tok_embeddings.clone(), [config.vocab_size, config.dim]);
        let output = weights.output.as_ref().unwrap_or(&weights.tok_embeddings);
        let layer = |weights| Layer::new(config, weights, kernels, &device);
        Self {
            embedding: Tensor::from_data(table, &device),
            layers: weights.layers.iter().map(layer).collect(),
            output: linear(&[output], config.dim, Some(&weights.norm), &device),
            positions: Positions::new(config),
            config: config.clone(),
            kernels,
            chunk_tokens,
            device,
        }
    }

    /// Scores one chunk; `past` holds what its first queries see of the chunks before.
    fn chunk(
        &mut self,
        tokens: &[u16],
        chunk: &Chunk,
        past: &mut [Past],
        scores: &mut Scores,
    ) -> Result<(), ModelError> {
        let ids: Vec<i32> = tokens.iter().map(|&t| i32::from(t)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &self.device);
        let inputs = self.positions.inputs(chunk, self.kernels, &self.device);

        let x = self.embedding.clone().select(0, ids);
        let mut hidden = Hidden { delta: x.zeros_like(), x };
        for (layer, past) in self.layers.iter().zip(past) {
            hidden = layer.forward(hidden, &inputs, past)?;
        }
        let (x, normed) = self.kernels.add_normed(hidden.x, hidden.delta, self.config.norm_eps)?;
        let logits = normed.matmul(self.output.clone());
        scores.entropies.extend(self.kernels.entropies(logits)?);
        if let Some(norms) = &mut scores.norms {
            norms.extend(self.kernels.norms(x.clone())?);
        }
        if let Some(pre_norm) = &mut scores.pre_norm {
            pre_norm.extend_from_slice(elements(&read(x)?)?);
        }
        Ok(())
    }
}

impl EntropyModel for BurnModel {
    fn dim(&self) -> usize {
        self.config.dim
    }

    fn max_context(&self) -> usize {
        self.config.max_seqlen
    }

    fn device_class(&self) -> String {
        format!("cpu burn-flex 0.22 f32 {}", instruction_level())
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        check_batch(batch, self.config.max_seqlen)?;
        let n_tokens = batch.tokens.len();
        let mut scores = Scores {
            entropies: Vec::with_capacity(n_tokens),
            norms: wanted.norms.then(|| Vec::with_capacity(n_tokens)),
            pre_norm: wanted.pre_norm.then(|| Vec::with_capacity(n_tokens * self.config.dim)),
        };
        let chunks = plan::chunks(&batch.context_lengths, self.config.sliding_window, self.chunk_tokens);
        let mut past: Vec<Past> = self.layers.iter().map(|_| Past::default()).collect();
        for chunk in &chunks {
            let tokens = &batch.tokens[chunk.tokens.clone()];
            self.chunk(tokens, chunk, &mut past, &mut scores)?;
        }
        Ok(scores)
    }
}

/// The instruction sets that the CPU kernels choose between at run time.
pub(super) fn instruction_level() -> String {
    let mut level = std::env::consts::ARCH.to_string();
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ] {
        if there {
            level.push('+');
            level.push_str(name);
        }
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way other devices compute, on the CPU.
    #[test]
    fn tensor_operations_and_passes_over_memory_agree() {
        let files = ModelFiles::embedded().unwrap();
        let context_lengths = vec![700, 1, 900];
        let tokens = (0..1601u32).map(|i| (i * i % 257) as u16).collect();
        let batch = PackedTokens { tokens, context_lengths };
        let wanted = Wanted { norms: true, pre_norm: true };
        let score = |kernels, chunk_tokens| {
            let mut model = BurnModel::on(kernels, Device::flex(), chunk_tokens, &files);
            model.score(&batch, wanted).unwrap()
        };
        let host = score(Kernels::Host, CPU_CHUNK_TOKENS);
        for (kernels, chunk_tokens) in [(Kernels::Tensors, 1 << 20), (Kernels::Host, 300)] {
            let other = score(kernels, chunk_tokens);
            let close = |a: &[f32], b: &[f32], error: f32| {
                assert_eq!(a.len(), b.len());
                for (a, b) in a.iter().zip(b) {
                    assert!((a - b).abs() <= error * a.abs().max(1.0), "{a} {b}");
                }
            };
            close(&host.entropies, &other.entropies, 1e-4);
            close(host.norms.as_ref().unwrap(), other.norms.as_ref().unwrap(), 1e-4);
            close(host.pre_norm.as_ref().unwrap(), other.pre_norm.as_ref().unwrap(), 1e-3);
        }
    }
}
