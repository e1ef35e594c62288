//! One transformer layer as tensors: hidden states in, hidden states out. Knows a chunk by its
//! [`Inputs`] only.
//!
//! Flex runs element-wise operations on one core, so they are kept few: the weights of norms are
//! multiplied into the products behind them, products of one input are one product, and rotary
//! pairs are moved apart in the rows of the weights, so that a rotation is four products and two
//! sums of whole halves.

use ::burn::prelude::{Device, Tensor, TensorData};
use ::burn::tensor::activation::sigmoid;
use ::burn::tensor::module::attention;
use ::burn::tensor::ops::AttentionModuleOptions;
use ::burn::tensor::s;

use super::ModelConfig;
use super::plan::Inputs;
use crate::model::weights::LayerWeights;

#[derive(Debug)]
pub(super) struct Layer {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
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

/// Keys and values of earlier chunks that queries still see, `[n, n_kv_heads, head_dim]`; `None`
/// before the first chunk.
#[derive(Debug, Default)]
pub(super) struct Past(Option<(Tensor<3>, Tensor<3>)>);

impl Layer {
    pub(super) fn new(config: &ModelConfig, weights: &LayerWeights, device: &Device) -> Self {
        let (dim, head_dim) = (config.dim, config.head_dim);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for rows in [&weights.wq, &weights.wk] {
            for pair in rows.chunks_exact(2 * dim) {
                first.extend_from_slice(&pair[..dim]);
                second.extend_from_slice(&pair[dim..]);
            }
        }
        let qkv = [&first, &second, &weights.wv];
        let queries = config.n_heads * head_dim;
        Self {
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim,
            norm_eps: config.norm_eps,
            qkv: linear(&qkv, dim, Some(&weights.attention_norm), device),
            wo: linear(&[&weights.wo], queries, None, device),
            w13: linear(&[&weights.w1, &weights.w3], dim, Some(&weights.ffn_norm), device),
            w2: linear(&[&weights.w2], config.ffn_hidden, None, device),
        }
    }

    /// `[n, dim]` to `[n, dim]`; leaves in `past` what later chunks see.
    pub(super) fn forward(&self, x: Tensor<2>, inputs: &Inputs, past: &mut Past) -> Tensor<2> {
        let attended = self.attention(normed(x.clone(), self.norm_eps), inputs, past);
        let x = x + attended.matmul(self.wo.clone());
        let inner = self.feed_forward(normed(x.clone(), self.norm_eps));
        x + inner.matmul(self.w2.clone())
    }

    /// `[n, dim]` to `[n, n_heads × head_dim]`
    fn attention(&self, x: Tensor<2>, inputs: &Inputs, past: &mut Past) -> Tensor<2> {
        let (heads, kv_heads, head_dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let [n, _] = x.dims();
        let half = (heads + kv_heads) * head_dim / 2;
        let qkv = x.matmul(self.qkv.clone());
        let first = qkv.clone().slice(s![.., 0..half]);
        let second = qkv.clone().slice(s![.., half..2 * half]);
        let values = qkv.slice(s![.., 2 * half..]);

        let (cos, sin) = (inputs.cos.clone(), inputs.sin.clone());
        let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let turned_second = first * sin + second * cos;
        let split = |t: Tensor<2>| t.reshape([n, heads + kv_heads, head_dim / 2]);
        let turned = Tensor::cat(vec![split(turned_first), split(turned_second)], 2);
        let queries = turned.clone().slice(s![.., 0..heads, ..]);
        let keys = turned.slice(s![.., heads.., ..]);
        let values = values.reshape([n, kv_heads, head_dim]);

        let (keys, values) = past.extend(keys, values, inputs);
        let by_head = |t: Tensor<3>| t.swap_dims(0, 1).unsqueeze_dim::<4>(0);
        let blocks = inputs.blocks.iter().map(|block| {
            let output = attention(
                by_head(queries.clone().slice(s![block.queries.clone(), .., ..])),
                by_head(keys.clone().slice(s![block.keys.clone(), .., ..])),
                by_head(values.clone().slice(s![block.keys.clone(), .., ..])),
                Some(block.mask.clone()),
                None,
                AttentionModuleOptions::default(),
            );
            let output: Tensor<3> = output.squeeze_dim(0);
            output.swap_dims(0, 1).reshape([block.queries.len(), heads * head_dim])
        });
        Tensor::cat(blocks.collect(), 0)
    }

    /// SwiGLU up to its last product: `[n, dim]` to `[n, ffn_hidden]`
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let both = x.matmul(self.w13.clone());
        let hidden = both.dims()[1] / 2;
        let gate = both.clone().slice(s![.., 0..hidden]);
        let up = both.slice(s![.., hidden..]);
        sigmoid(gate.clone()) * gate * up
    }
}

impl Past {
    /// Puts what the chunk sees of the past before its own keys and values, and keeps of both what
    /// a later chunk sees.
    fn extend(&mut self, keys: Tensor<3>, values: Tensor<3>, inputs: &Inputs) -> (Tensor<3>, Tensor<3>) {
        let (keys, values) = match self.0.take() {
            Some((k, v)) if inputs.n_past > 0 => {
                (Tensor::cat(vec![k, keys], 0), Tensor::cat(vec![v, values], 0))
            }
            _ => (keys, values),
        };
        if inputs.keep_from < keys.dims()[0] {
            let kept = |t: &Tensor<3>| t.clone().slice(s![inputs.keep_from.., .., ..]);
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

/// RMSNorm without its weight.
fn normed(x: Tensor<2>, eps: f32) -> Tensor<2> {
    let root = root_mean_square(mean_square(x.clone()), eps);
    x / root
}

/// `[n, dim]` to `[n, 1]`
pub(super) fn mean_square(x: Tensor<2>) -> Tensor<2> {
    (x.clone() * x).mean_dim(1)
}

pub(super) fn root_mean_square(mean_square: Tensor<2>, eps: f32) -> Tensor<2> {
    (mean_square + eps).sqrt()
}
