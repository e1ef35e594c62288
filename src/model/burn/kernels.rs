//! What a layer does between its products, with tensors on both sides: on a CPU as passes over
//! memory ([`host`]), elsewhere as the tensor library's operations.

use std::ops::Range;

use ::burn::prelude::{Device, Tensor, TensorData};
use ::burn::tensor::activation::{sigmoid, softmax};
use ::burn::tensor::module::attention;
use ::burn::tensor::ops::AttentionModuleOptions;
use ::burn::tensor::{Bool, s};

use super::host::{self, Heads};
use crate::model::ModelError;

/// Which way a device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernels {
    /// Tensors are this process's memory: no copy to reach their elements.
    Host,
    /// Tensors stay on the device.
    Tensors,
}

/// Rotary angles of a chunk's tokens.
#[expect(clippy::large_enum_variant, reason = "one a chunk")]
pub(super) enum Angles {
    /// `[n, head_dim / 2]`
    Host { cos: Vec<f32>, sin: Vec<f32> },
    /// `[n, rotated heads × head_dim / 2]`
    Tensors { cos: Tensor<2>, sin: Tensor<2> },
}

/// Which keys the queries of a block see.
#[expect(clippy::large_enum_variant, reason = "a few a chunk")]
pub(super) enum Visible {
    /// A range of the block's keys a query.
    Host(Vec<Range<usize>>),
    /// `[1, 1, queries, keys]`: true where a query must not look.
    Tensors(Tensor<4, Bool>),
}

impl Kernels {
    pub(super) fn of(device: &Device) -> Self {
        if *device == Device::flex() { Self::Host } else { Self::Tensors }
    }

    /// `x + delta`, and that sum divided by its root mean square: both `[n, dim]`.
    pub(super) fn add_normed(
        self,
        x: Tensor<2>,
        delta: Tensor<2>,
        eps: f32,
    ) -> Result<(Tensor<2>, Tensor<2>), ModelError> {
        if self == Self::Tensors {
            let x = x + delta;
            let mean_square = (x.clone() * x.clone()).mean_dim(1);
            return Ok((x.clone(), x / (mean_square + eps).sqrt()));
        }
        let (dim, device) = (x.dims()[1], x.device());
        let (mut x, mut delta) = (read(x)?, read(delta)?);
        host::add_normed(elements_mut(&mut x)?, elements_mut(&mut delta)?, dim, eps);
        Ok((Tensor::from_data(x, &device), Tensor::from_data(delta, &device)))
    }

    /// Queries `[heads, n, head_dim]`, keys and values `[key heads, n, head_dim]`, positions applied,
    /// of their product `[n, …]`.
    pub(super) fn rotate(
        self,
        qkv: Tensor<2>,
        heads: Heads,
        angles: &Angles,
    ) -> Result<[Tensor<3>; 3], ModelError> {
        let Heads { queries, keys, dim } = heads;
        let [n, _] = qkv.dims();
        match angles {
            Angles::Host { cos, sin } => {
                let device = qkv.device();
                let [q, k, v] = host::rotate(elements(&read(qkv)?)?, heads, cos, sin);
                let tensor = |elements, heads: usize| {
                    Tensor::from_data(TensorData::new(elements, [heads, n, dim]), &device)
                };
                Ok([tensor(q, queries), tensor(k, keys), tensor(v, keys)])
            }
            Angles::Tensors { cos, sin } => {
                let half = (queries + keys) * dim / 2;
                let first = qkv.clone().slice(s![.., 0..half]);
                let second = qkv.clone().slice(s![.., half..2 * half]);
                let values = qkv.slice(s![.., 2 * half..]);
                let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
                let turned_second = first * sin.clone() + second * cos.clone();
                let split = |t: Tensor<2>| t.reshape([n, queries + keys, dim / 2]);
                let turned = Tensor::cat(vec![split(turned_first), split(turned_second)], 2).swap_dims(0, 1);
                Ok([
                    turned.clone().slice(s![0..queries, .., ..]),
                    turned.slice(s![queries.., .., ..]),
                    values.reshape([n, keys, dim]).swap_dims(0, 1),
                ])
            }
        }
    }

    /// Attention of one block: queries `[heads, q, d]`, keys and values `[key heads, k, d]` to
    /// `[heads, q, d]`.
    pub(super) fn attend(
        self,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        visible: &Visible,
    ) -> Result<Tensor<3>, ModelError> {
        match visible {
            Visible::Host(visible) => {
                let ([heads, q, d], [key_heads, k, _]) = (queries.dims(), keys.dims());
                // Heads that share keys become more rows of one product.
                let queries = queries.reshape([key_heads, heads / key_heads * q, d]);
                let scores = queries.matmul(keys.swap_dims(1, 2));
                let device = scores.device();
                let mut scores = read(scores)?;
                host::softmax(elements_mut(&mut scores)?, k, 1.0 / (d as f32).sqrt(), visible);
                let weights = Tensor::<3>::from_data(scores, &device);
                Ok(weights.matmul(values).reshape([heads, q, d]))
            }
            Visible::Tensors(mask) => {
                let output = attention(
                    queries.unsqueeze_dim(0),
                    keys.unsqueeze_dim(0),
                    values.unsqueeze_dim(0),
                    Some(mask.clone()),
                    None,
                    AttentionModuleOptions::default(),
                );
                Ok(output.squeeze_dim(0))
            }
        }
    }

    /// `[n, gate | up]` to silu(gate) · up
    pub(super) fn swiglu(self, both: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let [n, width] = both.dims();
        let hidden = width / 2;
        if self == Self::Tensors {
            let gate = both.clone().slice(s![.., 0..hidden]);
            let up = both.slice(s![.., hidden..]);
            return Ok(sigmoid(gate.clone()) * gate * up);
        }
        let device = both.device();
        let out = host::swiglu(elements(&read(both)?)?, hidden);
        Ok(Tensor::from_data(TensorData::new(out, [n, hidden]), &device))
    }

    /// Entropy in nats of the softmax of each row of logits.
    pub(super) fn entropies(self, logits: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let [_, vocabulary] = logits.dims();
        if self == Self::Host {
            return Ok(host::entropies(elements(&read(logits)?)?, vocabulary));
        }
        // With z = logits − max and p = softmax, the largest p is 1 / Σ exp z, so
        // H = ln Σ exp z − Σ p z = −ln max p − Σ p z.
        let p = softmax(logits.clone(), 1);
        let below_max = logits.clone() - logits.max_dim(1);
        let largest = p.clone().max_dim(1);
        let entropies = -(largest.log()) - (p * below_max).sum_dim(1);
        Ok(elements(&read(entropies)?)?.to_vec())
    }

    /// L2 norm of each row.
    pub(super) fn norms(self, x: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let [_, dim] = x.dims();
        if self == Self::Host {
            return Ok(host::norms(elements(&read(x)?)?, dim));
        }
        let norms = (x.clone() * x).sum_dim(1).sqrt();
        Ok(elements(&read(norms)?)?.to_vec())
    }
}

/// Brings a tensor to the process's memory; on a CPU it is there already, and moves if nothing else
/// holds it.
pub(super) fn read<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, ModelError> {
    tensor.try_into_data().map_err(|e| ModelError::Device(e.to_string()))
}

pub(super) fn elements(data: &TensorData) -> Result<&[f32], ModelError> {
    data.as_slice().map_err(|e| ModelError::Device(format!("{e:?}")))
}

fn elements_mut(data: &mut TensorData) -> Result<&mut [f32], ModelError> {
    data.as_mut_slice().map_err(|e| ModelError::Device(format!("{e:?}")))
}
