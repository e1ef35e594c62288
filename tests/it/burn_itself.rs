//! Burn's own modules and records beside our burnpack files: each reads what the other wrote. With the feature `flex`,
//! which brings Burn; nothing is computed with it.

use std::fs;

use blt_pipeline::model::{Format, ModelConfig, ModelFiles, StoredAs, Style};
use burn::{
    module::Module,
    nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig},
    store::ModuleRecord,
    tensor::Device,
};
use tempfile::TempDir;

use crate::golden;

#[derive(Module, Debug)]
struct Attention {
    wq: Linear,
    wk: Linear,
    wv: Linear,
    wo: Linear,
}

#[derive(Module, Debug)]
struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    attention_norm: RmsNorm,
    feed_forward: FeedForward,
    ffn_norm: RmsNorm,
}

/// The entropy model as someone would write it with Burn's modules, its fields named as Meta names them.
#[derive(Module, Debug)]
struct Transformer {
    tok_embeddings: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear,
}

impl Transformer {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let (dim, hidden) = (config.dim, config.ffn_hidden);
        let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(dim).init(device);
        let layer = |_| Layer {
            attention: Attention {
                wq: linear(dim, queries),
                wk: linear(dim, keys),
                wv: linear(dim, keys),
                wo: linear(queries, dim),
            },
            attention_norm: norm(),
            feed_forward: FeedForward {
                w1: linear(dim, hidden),
                w2: linear(hidden, dim),
                w3: linear(dim, hidden),
            },
            ffn_norm: norm(),
        };
        Transformer {
            tok_embeddings: EmbeddingConfig::new(config.vocab_size, dim).init(device),
            layers: (0..config.n_layers).map(layer).collect(),
            norm: norm(),
            output: linear(dim, config.vocab_size),
        }
    }
}

#[test]
fn burn_reads_our_burnpack_and_we_read_burns() {
    let nano = ModelFiles::open(&golden::folder("nano")).unwrap();
    let (ours, burns) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    nano.save(ours.path(), Format::Burnpack, Style::Burn, StoredAs::Bf16).unwrap();

    // Refuses a record that lacks a tensor, has one more, or one of another shape.
    let record = ModuleRecord::load(ours.path().join("model.bpk")).unwrap();
    let module = Transformer::new(&nano.config, &Device::flex()).load_record(record);
    let values = |linear: &Linear| -> Vec<f32> {
        let rows_of_outputs = linear.weight.val().transpose();
        rows_of_outputs.into_data().convert::<f32>().try_to_vec().unwrap()
    };
    let layer = &module.layers[1];
    assert_eq!(values(&layer.attention.wq), nano.weights.layers[1].wq, "a square matrix");
    assert_eq!(values(&layer.feed_forward.w2), nano.weights.layers[1].w2);
    assert_eq!(Some(values(&module.output)), nano.weights.output);

    let file = burns.path().join("model.bpk");
    module.into_record().save(&file).unwrap();
    fs::copy(ours.path().join("config.json"), burns.path().join("config.json")).unwrap();
    let back = ModelFiles::open(burns.path()).unwrap();
    assert_eq!(back.weights, nano.weights);
    assert_eq!((back.info.sha256, back.info.dtype.as_str()), (nano.info.sha256, "BF16"));
    if std::env::var_os("BLT_UPDATE").is_some() {
        let kept = golden::folder("nano-burn");
        fs::create_dir_all(&kept).unwrap();
        for name in ["config.json", "model.bpk"] {
            fs::copy(burns.path().join(name), kept.join(name)).unwrap();
        }
    }
}
