//! The entropy model written plainly, in f64 and O(n²), and small random models to compare it on.

use std::path::Path;

use blt_pipeline::data::{PackedTokens, Wanted};
use blt_pipeline::model::{CpuModel, EntropyModel, ModelConfig, ModelFiles, Weights};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// Deterministic numbers from −1 to 1 (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tokens(&mut self, n: usize) -> Vec<u16> {
        (0..n).map(|_| (self.next() % 260) as u16).collect()
    }
}

/// A tensor to be written: Meta's name, shape, elements.
pub type Stored = (String, Vec<usize>, Vec<f32>);

/// All tensors of a model with random elements.
pub fn random_tensors(config: &ModelConfig, seed: u64) -> Vec<Stored> {
    let c = config;
    let (queries, keys) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
    let mut shapes = vec![("tok_embeddings".to_string(), vec![260, c.dim])];
    for layer in 0..c.n_layers {
        let parts = [
            ("attention.wq", vec![queries, c.dim]),
            ("attention.wk", vec![keys, c.dim]),
            ("attention.wv", vec![keys, c.dim]),
            ("attention.wo", vec![c.dim, queries]),
            ("feed_forward.w1", vec![c.ffn_hidden, c.dim]),
            ("feed_forward.w2", vec![c.dim, c.ffn_hidden]),
            ("feed_forward.w3", vec![c.ffn_hidden, c.dim]),
            ("attention_norm", vec![c.dim]),
            ("ffn_norm", vec![c.dim]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("layers.{layer}.{part}"), shape)));
    }
    shapes.push(("norm".into(), vec![c.dim]));
    if !c.weight_tying {
        shapes.push(("output".into(), vec![260, c.dim]));
    }
    let mut random = Random(seed);
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let n = shape.iter().product();
        let scale = if shape.len() == 1 { 1.0 } else { 1.5 / (shape[1] as f32).sqrt() };
        let offset = if shape.len() == 1 { 1.5 } else { 0.0 };
        let elements = (0..n).map(|_| offset + scale * random.float()).collect();
        (format!("{name}.weight"), shape, elements)
    });
    tensors.collect()
}

/// Writes a folder that holds these tensors as `dtype`.
pub fn write_model(folder: &Path, config_json: &str, tensors: &[Stored], dtype: Dtype) {
    let encode = |&x: &f32| match dtype {
        Dtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, x)| x.iter().flat_map(encode).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), config_json).unwrap();
}

/// `{"args": …}` of this configuration; its `ffn_hidden` must be 8 · dim / 3 rounded up to 8.
pub fn meta_json(config: &ModelConfig) -> String {
    let bias = if config.sliding_window.is_some() { "local_block_causal" } else { "block_causal" };
    serde_json::json!({"args": {
        "dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads, "head_dim": config.head_dim, "multiple_of": 8,
        "norm_eps": config.norm_eps, "rope_theta": config.rope_theta, "vocab_size": 260,
        "sliding_window": config.sliding_window, "attn_bias_type": bias,
        "max_seqlen": config.max_seqlen, "weight_tying": config.weight_tying,
    }})
    .to_string()
}

/// A small architecture to vary.
pub fn small_config(n_layers: usize, sliding_window: Option<usize>) -> ModelConfig {
    ModelConfig {
        dim: 24,
        n_layers,
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: 6,
        ffn_hidden: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        sliding_window,
        max_seqlen: 3000,
        vocab_size: 260,
        weight_tying: false,
    }
}

pub fn random_model(config: &ModelConfig, seed: u64) -> ModelFiles {
    let folder = TempDir::new().unwrap();
    write_model(folder.path(), &meta_json(config), &random_tensors(config, seed), Dtype::F32);
    let files = ModelFiles::open(folder.path()).unwrap();
    assert_eq!(&files.config, config);
    files
}

/// Entropies in nats and hidden states of one context.
fn score_plainly(config: &ModelConfig, weights: &Weights, tokens: &[u16]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let c = config;
    let product = |matrix: &[f32], x: &[f64]| -> Vec<f64> {
        matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    };
    let norm = |x: &[f64], weight: &[f32]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let root = (mean + f64::from(c.norm_eps)).sqrt();
        x.iter().zip(weight).map(|(x, &w)| x / root * f64::from(w)).collect()
    };
    let rotate = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(c.head_dim) {
            for (i, pair) in head.chunks_mut(2).enumerate() {
                let rate = f64::from(c.rope_theta).powf(-2.0 * i as f64 / c.head_dim as f64);
                let (sin, cos) = (position as f64 * rate).sin_cos();
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        }
    };
    let add = |x: &mut [f64], y: &[f64]| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);

    let row = |t: &u16| &weights.tok_embeddings[usize::from(*t) * c.dim..][..c.dim];
    let mut hidden: Vec<Vec<f64>> =
        tokens.iter().map(|t| row(t).iter().map(|&x| f64::from(x)).collect()).collect();
    for layer in &weights.layers {
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (position, x) in hidden.iter().enumerate() {
            let x = norm(x, &layer.attention_norm);
            let (mut q, mut k) = (product(&layer.wq, &x), product(&layer.wk, &x));
            rotate(&mut q, position);
            rotate(&mut k, position);
            queries.push(q);
            keys.push(k);
            values.push(product(&layer.wv, &x));
        }
        for i in 0..tokens.len() {
            let mut all_heads = Vec::new();
            for head in 0..c.n_heads {
                let q = &queries[i][head * c.head_dim..][..c.head_dim];
                let shared = head / (c.n_heads / c.n_kv_heads) * c.head_dim..;
                let seen: Vec<usize> =
                    (0..=i).filter(|j| c.sliding_window.is_none_or(|w| i - j < w)).collect();
                let scores: Vec<f64> = seen
                    .iter()
                    .map(|&j| q.iter().zip(&keys[j][shared.clone()]).map(|(q, k)| q * k).sum::<f64>())
                    .map(|score| (score / (c.head_dim as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = scores.iter().sum();
                let mut output = vec![0.0; c.head_dim];
                for (&j, score) in seen.iter().zip(&scores) {
                    for (o, v) in output.iter_mut().zip(&values[j][shared.clone()]) {
                        *o += score / sum * v;
                    }
                }
                all_heads.extend(output);
            }
            add(&mut hidden[i], &product(&layer.wo, &all_heads));
        }
        for x in &mut hidden {
            let normed = norm(x, &layer.ffn_norm);
            let gate = product(&layer.w1, &normed);
            let up = product(&layer.w3, &normed);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(x, &product(&layer.w2, &inner));
        }
    }
    let output = weights.output.as_ref().unwrap_or(&weights.tok_embeddings);
    let entropies = hidden.iter().map(|x| {
        let exps: Vec<f64> = product(output, &norm(x, &weights.norm)).iter().map(|l| l.exp()).collect();
        let sum: f64 = exps.iter().sum();
        -exps.iter().map(|e| e / sum * (e / sum).ln()).sum::<f64>()
    });
    (entropies.collect(), hidden)
}

/// Every architecture the configuration can say, over contexts shorter and longer than windows,
/// query blocks and chunks.
#[test]
fn any_architecture_and_window_agrees_with_the_plain_model() {
    let vary = |change: fn(&mut ModelConfig), window| {
        let mut config = small_config(2, window);
        change(&mut config);
        config
    };
    let configs = [
        vary(|_| {}, Some(1)),
        vary(|_| {}, Some(3)),
        vary(|c| c.n_kv_heads = 2, Some(127)),
        vary(|c| (c.n_kv_heads, c.head_dim) = (1, 10), Some(128)),
        vary(|c| (c.n_heads, c.n_kv_heads, c.head_dim) = (3, 3, 14), Some(129)),
        vary(|c| c.weight_tying = true, Some(200)),
        vary(|c| (c.rope_theta, c.norm_eps) = (500.0, 1e-2), Some(301)),
        vary(|c| c.n_layers = 1, Some(2999)),
        vary(|c| c.n_layers = 1, None),
    ];
    let mut random = Random(1);
    let lengths = [1, 700, 2, 130, 1, 450];
    let contexts: Vec<Vec<u16>> = lengths.iter().map(|&n| random.tokens(n)).collect();
    let batch = PackedTokens { tokens: contexts.concat(), context_lengths: lengths.to_vec() };
    for (seed, config) in configs.iter().enumerate() {
        let files = random_model(config, seed as u64);
        let mut model = CpuModel::new(&files);
        let scores = model.score(&batch, Wanted { norms: true, pre_norm: true }).unwrap();
        let (norms, pre_norm) = (scores.norms.unwrap(), scores.pre_norm.unwrap());
        let mut token = 0;
        for context in &contexts {
            let (entropies, hidden) = score_plainly(config, &files.weights, context);
            for (entropy, hidden) in entropies.iter().zip(&hidden) {
                let ours = f64::from(scores.entropies[token]);
                assert!((ours - entropy).abs() < 1e-4, "{config:?} token {token}: {ours} not {entropy}");
                let norm = hidden.iter().map(|x| x * x).sum::<f64>().sqrt();
                assert!((f64::from(norms[token]) / norm - 1.0).abs() < 1e-4, "{config:?} token {token}");
                let row = &pre_norm[token * config.dim..][..config.dim];
                let away: f64 = row.iter().zip(hidden).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
                assert!(away.sqrt() < 1e-4 * norm, "{config:?} token {token}: {} away", away.sqrt());
                token += 1;
            }
        }
    }
}
