//! One transformer layer as tensors: hidden states in, hidden states out. Knows a chunk by its
//! [`Inputs`] only.
//!
//! The weights of norms are multiplied into the products behind them, products of one input are one
//! product, and rotary pairs are moved apart in the rows of the weights.

use ::burn::prelude::{Device, Tensor, TensorData};
use ::burn::tensor::s;

use super::host::Heads;
use super::kernels::Kernels;
use super::plan::Inputs;
use crate::model::weights::LayerWeights;
use crate::model::{ModelConfig, ModelError};

#[derive(Debug)]
pub(super) struct Layer {
    kernels: Kernels,
    heads: Heads,
    norm_eps: f32,
    /// `[dim, first halves of queries and keys | second halves | values]`
    qkv: Tensor<2>,
    /// `[n_heads × head_dim, dim]`
    wo: Tensor<2>,
    /// `[dim, gate | up]`
    w13: Tensor<2>,
    /// `[ffn_hidden, dim]`
    w2: Tensor<2>,
}

/// Hidden states and what the last layer adds to them, each `[n, dim]`: the sum is left to the next
/// norm, which reads both anyway.
pub(super) struct Hidden {
    pub x: Tensor<2>,
    pub delta: Tensor<2>,
}

/// Keys and values of earlier chunks that queries still see, `[key heads, n, head_dim]`; `None` before
/// the first chunk.
#[derive(Debug, Default)]
pub(super) struct Past(Option<(Tensor<3>, Tensor<3>)>);

impl Layer {
    pub(super) fn new(
        config: &ModelConfig,
        weights: &LayerWeights,
        kernels: Kernels,
        device: &Device,
    ) -> Self {
        let (dim, head_dim) = (config.dim, config.head_dim);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for rows in [&weights.wq, &weights.wk] {
            for pair in rows.chunks_exact(2 * dim) {
                first.extend_from_slice(&pair[..dim]);
                second.extend_from_slice(&pair[dim..]);
            }
        }
        let qkv = [&first, &second, &weights.wv];
        Self {
            kernels,
            heads: Heads { queries: config.n_heads, keys: config.n_kv_heads, dim: head_dim },
            norm_eps: config.norm_eps,
            qkv: linear(&qkv, dim, Some(&weights.attention_norm), device),
            wo: linear(&[&weights.wo], config.n_heads * head_dim, None, device),
            w13: linear(&[&weights.w1, &weights.w3], dim, Some(&weights.ffn_norm), device),
            w2: linear(&[&weights.w2], config.ffn_hidden, None, device),
        }
    }

    /// One layer on; leaves in `past` what later chunks see.
    pub(super) fn forward(
        &self,
        hidden: Hidden,
        inputs: &Inputs,
        past: &mut Past,
    ) -> Result<Hidden, ModelError> {
        let (x, normed) = self.kernels.add_normed(hidden.x, hidden.delta, self.norm_eps)?;
        let attended = self.attention(normed, inputs, past)?.matmul(self.wo.clone());
        let (x, normed) = self.kernels.add_normed(x, attended, self.norm_eps)?;
        let inner = self.kernels.swiglu(normed.matmul(self.w13.clone()))?;
        Ok(Hidden { x, delta: inner.matmul(self.w2.clone()) })
    }

    /// `[n, dim]` to `[n, n_heads × head_dim]`
    fn attention(
        &self,
        normed: Tensor<2>,
        inputs: &Inputs,
        past: &mut Past,
    ) -> Result<Tensor<2>, ModelError> {
        let [n, _] = normed.dims();
        let qkv = normed.matmul(self.qkv.clone());
        let [queries, keys, values] = self.kernels.rotate(qkv, self.heads, &inputs.angles)?;
        let (keys, values) = past.extend(keys, values, inputs);
        let rows = |t: &Tensor<3>, rows: &std::ops::Range<usize>| t.clone().slice(s![.., rows.clone(), ..]);
        let mut outputs = Vec::with_capacity(inputs.blocks.len());
        for block in &inputs.blocks {
            let queries = rows(&queries, &block.queries);
            let (keys, values) = (rows(&keys, &block.keys), rows(&values, &block.keys));
            let output = self.kernels.attend(queries, keys, values, &block.visible)?;
            outputs.push(output.swap_dims(0, 1));
        }
        Ok(Tensor::cat(outputs, 0).reshape([n, self.heads.queries * self.heads.dim]))
    }
}

impl Past {
    /// Puts what the chunk sees of the past before its own keys and values, and keeps of both what
    /// a later chunk sees.
    fn extend(&mut self, keys: Tensor<3>, values: Tensor<3>, inputs: &Inputs) -> (Tensor<3>, Tensor<3>) {
        let (keys, values) = match self.0.take() {
            Some((past_keys, past_values)) if inputs.n_past > 0 => {
                (Tensor::cat(vec![past_keys, keys], 1), Tensor::cat(vec![past_values, values], 1))
            }
            _ => (keys, values),
        };
        if inputs.keep_from < keys.dims()[1] {
            let kept = |t: &Tensor<3>| t.clone().slice(s![.., inputs.keep_from.., ..]);
            self.0 = Some((kept(&keys), kept(&values)));
        }
        (keys, values)
    }
}

/// Matrices `[out, n_in]` side by side as one `[n_in, all outs]`, the weight of a norm before them
/// multiplied in.
pub(super) fn linear(
    matrices: &[&Vec<f32>],
    n_in: usize,
    norm: Option<&[f32]>,
    device: &Device,
) -> Tensor<2> {
    let rows: Vec<&[f32]> = matrices.iter().flat_map(|m| m.chunks_exact(n_in)).collect();
    let mut data = vec![0.0; n_in * rows.len()];
    for (i, column) in data.chunks_exact_mut(rows.len()).enumerate() {
        let scale = norm.map_or(1.0, |norm| norm[i]);
        for (value, row) in column.iter_mut().zip(&rows) {
            *value = row[i] * scale;
        }
    }
    Tensor::from_data(TensorData::new(data, [n_in, rows.len()]), device)
}
