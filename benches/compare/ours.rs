//! One run of this program's model for `benches/compare`: scores a stream of contexts of one length and
//! prints the seconds that it took and its CPU seconds, after a short run to warm up. Takes and writes what `peer.py`
//! does.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench compare -- --model FOLDER --tokens FILE --length N --scores FILE

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
#[path = "../common/mod.rs"]
mod common;

use std::{fs, path::Path, time::Instant};

use blt_pipeline::config::{Device, Model, Precision, Weights};
use blt_pipeline::data::{PackedTokens, Scores, Wanted};
use blt_pipeline::model::{self, EntropyModel, ModelFiles};

/// Tokens that the program packs into a batch for a CPU.
const BATCH_TOKENS: usize = 8192;

fn main() {
    let argument = |name| common::argument(name).expect("an argument is missing");
    let files = ModelFiles::open(Path::new(&argument("--model"))).expect("a model");
    let settings = Model {
        weights: Weights::Embedded, // not read: `files` are the model's
        device: Device::Auto,
        precision: Precision::Auto,
        context: None,
        overlap: 0,
        batch_tokens: None,
    };
    let mut model = model::load(&settings, &files).expect("a CPU");
    let length: usize = argument("--length").parse().expect("a number");
    let bytes = fs::read(argument("--tokens")).expect("tokens");
    let (tokens, _) = bytes.as_chunks::<2>();
    let tokens: Vec<u16> = tokens.iter().map(|&token| u16::from_le_bytes(token)).collect();
    let batches: Vec<PackedTokens> = tokens
        .chunks(BATCH_TOKENS.max(length))
        .map(|tokens| PackedTokens {
            tokens: tokens.to_vec(),
            context_lengths: tokens.chunks(length).map(<[u16]>::len).collect(),
        })
        .collect();

    let short = tokens[..length.min(512)].to_vec();
    score(model.as_mut(), &[PackedTokens { context_lengths: vec![short.len()], tokens: short }]);
    let (start, cpu) = (Instant::now(), common::cpu_seconds());
    let scores = score(model.as_mut(), &batches);
    println!("{} {}", start.elapsed().as_secs_f64(), common::cpu_seconds() - cpu);

    let entropies = scores.iter().flat_map(|scores| &scores.entropies);
    let norms = scores.iter().flat_map(|scores| scores.norms.iter().flatten());
    let bytes: Vec<u8> = entropies.chain(norms).flat_map(|value| value.to_le_bytes()).collect();
    fs::write(argument("--scores"), bytes).expect("a writable file");
}

fn score(model: &mut dyn EntropyModel, batches: &[PackedTokens]) -> Vec<Scores> {
    let all = Wanted { norms: true, pre_norm: true };
    batches.iter().map(|batch| model.score(batch, all).expect("scores")).collect()
}
