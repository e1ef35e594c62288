//! The model's matrix products and nothing else, by Burn's operator on the CPU (flex, the `gemm` crate): what a
//! plain `f32` product of these shapes allows. Prints the seconds and the CPU seconds for a stream of tokens, after a run to warm up.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench products -- --model FOLDER --tokens FILE --length ROWS

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
#[path = "../common/mod.rs"]
mod common;

use std::{fs, hint::black_box, path::Path, time::Instant};

use blt_pipeline::model::ModelFiles;
use burn::tensor::{Device, Distribution, Tensor};

fn main() {
    let argument = |name| common::argument(name).expect("an argument is missing");
    let config = ModelFiles::open(Path::new(&argument("--model"))).expect("a model").config;
    let rows: usize = argument("--length").parse().expect("a number");
    let n_tokens = fs::read(argument("--tokens")).expect("tokens").len() / 2;

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
        .map(|(n_in, n_out)| (random(rows, n_in), random(n_in, n_out)))
        .collect();
    let run = |n_runs| {
        for _ in 0..n_runs {
            for (x, matrix) in &matrices {
                black_box(x.clone().matmul(matrix.clone()));
            }
        }
    };
    run(1);
    let (start, cpu) = (Instant::now(), common::cpu_seconds());
    run(n_tokens / rows);
    println!("{} {}", start.elapsed().as_secs_f64(), common::cpu_seconds() - cpu);
}
