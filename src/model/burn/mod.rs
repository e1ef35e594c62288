//! Runs the entropy model on a device of the Burn library: packed tokens in, scores out. The only
//! folder that knows Burn; it knows nothing of documents.
//!
//! The stream is taken in chunks, each through all layers before the next. Attention looks back
//! only, so a chunk needs no more of the past than each layer's keys and values of one window:
//! memory does not grow with the stream, and on a CPU a chunk's tensors stay in the cache.

mod layers;
mod plan;

use ::burn::prelude::{Device, Tensor, TensorData};
use ::burn::tensor::Int;

use self::layers::{Layer, Past, linear, root_mean_square};
use self::plan::{Chunk, Positions};
use super::{EntropyModel, ModelConfig, ModelError, ModelFiles, check_batch};
use crate::data::{PackedTokens, Scores, Wanted};

/// Tokens that go through all layers together on a CPU; see `benches` for how it was chosen.
const CPU_CHUNK_TOKENS: usize = 1024;

/// The real model, in `f32`.
#[derive(Debug)]
pub struct BurnModel {
    config: ModelConfig,
    device: Device,
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
        Ok(Self::on(Device::flex(), CPU_CHUNK_TOKENS, files))
    }

    fn on(device: Device, chunk_tokens: usize, files: &ModelFiles) -> Self {
        let (config, weights) = (&files.config, &files.weights);
        let table = TensorData::new(weights.tok_embeddings.clone(), [config.vocab_size, config.dim]);
        let output = weights.output.as_ref().unwrap_or(&weights.tok_embeddings);
        Self {
            embedding: Tensor::from_data(table, &device),
            layers: weights.layers.iter().map(|layer| Layer::new(config, layer, &device)).collect(),
            output: linear(&[output], config.dim, Some(&weights.norm), &device),
            positions: Positions::new(config),
            config: config.clone(),
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
        wanted: Wanted,
        scores: &mut Scores,
    ) -> Result<(), ModelError> {
        let ids: Vec<i32> = tokens.iter().map(|&t| i32::from(t)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &self.device);
        let inputs = self.positions.inputs(chunk, &self.device);

        let mut hidden = self.embedding.clone().select(0, ids);
        for (layer, past) in self.layers.iter().zip(past) {
            hidden = layer.forward(hidden, &inputs, past);
        }

        let mean_square = layers::mean_square(hidden.clone());
        let root = root_mean_square(mean_square.clone(), self.config.norm_eps);
        let logits = (hidden.clone() / root).matmul(self.output.clone());
        append(&mut scores.entropies, entropy(logits))?;
        if let Some(norms) = &mut scores.norms {
            append(norms, (mean_square * self.config.dim as f64).sqrt())?;
        }
        if let Some(pre_norm) = scores.pre_norm.as_mut().filter(|_| wanted.pre_norm) {
            append(pre_norm, hidden)?;
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
            self.chunk(tokens, chunk, &mut past, wanted, &mut scores)?;
        }
        Ok(scores)
    }
}

/// Entropy in nats of the softmax of each row: `[n, vocabulary]` to `[n, 1]`.
///
/// With z = logits − max ≤ 0 and p = softmax: H = ln Σ exp z − Σ p z, and since the largest p is
/// 1 / Σ exp z, H = −ln max p − Σ p z. No term overflows, and p = 0 adds 0.
fn entropy(logits: Tensor<2>) -> Tensor<2> {
    let p = ::burn::tensor::activation::softmax(logits.clone(), 1);
    let below_max = logits.clone() - logits.max_dim(1);
    let largest = p.clone().max_dim(1);
    -(largest.log()) - (p * below_max).sum_dim(1)
}

/// Reads a tensor back, behind what is already there.
fn append(values: &mut Vec<f32>, tensor: Tensor<2>) -> Result<(), ModelError> {
    let data = tensor.try_into_data().map_err(|e| ModelError::Device(e.to_string()))?;
    let read = data.as_slice::<f32>().map_err(|e| ModelError::Device(format!("{e:?}")))?;
    values.extend_from_slice(read);
    Ok(())
}

/// The instruction sets that the CPU kernels choose between at run time.
fn instruction_level() -> String {
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

    #[test]
    fn entropy_is_exact_at_the_ends() {
        let device = Device::flex();
        let mut rows = vec![0.0f32; 260]; // uniform
        rows.extend((0..260).map(|i| if i == 7 { 1e4 } else { -1e4 })); // certain, exp underflows
        rows.extend((0..260).map(|i| if i < 2 { 3e4 } else { -3e4 })); // a fair coin
        let logits = Tensor::<2>::from_data(TensorData::new(rows, [3, 260]), &device);
        let mut values = Vec::new();
        append(&mut values, entropy(logits)).unwrap();
        let expected = [260f32.ln(), 0.0, 2f32.ln()];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
    }
}
