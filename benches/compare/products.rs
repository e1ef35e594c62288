//! The model's matrix products and nothing else, by Burn's operator on the CPU (flex, the `gemm` crate): what a
//! plain `f32` product of these shapes allows. Takes turns as `peer.py` does, in which nothing is scored.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --features flex --bench products -- --model FOLDER

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "nothing is scored here")]
mod turn;

use std::{collections::HashMap, hint::black_box, path::Path, time::Instant};

use blt_pipeline::model::ModelFiles;
use burn::tensor::{Device, Distribution, Tensor};

fn main() {
    let argument = |name| common::argument(name).expect("an argument is missing");
    let config = ModelFiles::open(Path::new(&argument("--model"))).expect("a model").config;
    let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    let layer = [
        (config.dim, queries + 2 * keys),
        (queries, config.dim),
        (config.dim, 2 * config.ffn_hidden),
        (config.ffn_hidden, config.dim),
    ];
    let device = Device::flex();
    let random = |n_in, n_out| Tensor::<2>::random([n_in, n_out], Distribution::Normal(0.0, 1.0), &device);
    let matrices: Vec<_> = (0..config.n_layers)
        .flat_map(|_| layer)
        .chain([(config.dim, config.vocab_size)])
        .map(|(n_in, n_out)| (n_in, random(n_in, n_out)))
        .collect();
    // By the rows and columns of an input.
    let mut inputs = HashMap::new();
    for turn in turn::turns() {
        let (rows, n_tokens) = (turn.length, turn.tokens().len());
        for &(n_in, _) in &matrices {
            inputs.entry((rows, n_in)).or_insert_with(|| random(rows, n_in));
        }
        let (start, cpu) = (Instant::now(), common::cpu_seconds());
        for _ in 0..n_tokens / rows {
            for (n_in, matrix) in &matrices {
                black_box(inputs[&(rows, *n_in)].clone().matmul(matrix.clone()));
            }
        }
        println!("{} {}", start.elapsed().as_secs_f64(), common::cpu_seconds() - cpu);
    }
}
