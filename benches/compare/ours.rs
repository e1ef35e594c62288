//! This program's side of `benches/compare`: loads the model and takes turns as `peer.py` does.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench compare -- --model FOLDER [--device gpu]

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
#[path = "../common/mod.rs"]
mod common;
mod turn;

use std::{collections::VecDeque, fs, path::Path, time::Instant};

use blt_pipeline::config::{Device, Model};
use blt_pipeline::data::{PackedTokens, Scores, Wanted};
use blt_pipeline::model::{self, EntropyModel, ModelFiles};

fn main() {
    let argument = |name| common::argument(name).expect("an argument is missing");
    let files = ModelFiles::open(Path::new(&argument("--model"))).expect("a model");
    let on_gpu = common::argument("--device").is_some_and(|device| device == "gpu");
    let settings = Model { device: if on_gpu { Device::Auto } else { Device::Cpu }, ..Model::default() };
    let (adapter, _) = model::choose(&settings, &model::adapters()).expect("a device");
    assert_eq!(adapter.api == Device::Cpu, !on_gpu, "{adapter} is what there is");
    let precision = adapter.abilities().expect("a device that opens").precisions[0];
    let mut model = model::load(&adapter, precision, &files).expect("room on the device");

    for turn in turn::turns() {
        let all = turn.wanted == "all";
        let wanted = Wanted { norms: all, pre_norm: all };
        let tokens = turn.tokens();
        let batches: Vec<PackedTokens> = tokens
            .chunks(model::batch_tokens(&adapter).max(turn.length))
            .map(|tokens| PackedTokens {
                tokens: tokens.to_vec(),
                context_lengths: tokens.chunks(turn.length).map(<[u16]>::len).collect(),
            })
            .collect();
        let (start, cpu) = (Instant::now(), common::cpu_seconds());
        let scores = score(model.as_mut(), &batches, wanted);
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), common::cpu_seconds() - cpu);

        let entropies = scores.iter().flat_map(|scores| &scores.entropies);
        let norms = scores.iter().flat_map(|scores| scores.norms.iter().flatten());
        let bytes: Vec<u8> = entropies.chain(norms).flat_map(|value| value.to_le_bytes()).collect();
        fs::write(turn.scores, bytes).expect("a writable file");
        println!("{seconds} {cpu}");
    }
}

/// As the engine does: two batches are with the device. Hidden states are dropped.
fn score(model: &mut dyn EntropyModel, batches: &[PackedTokens], wanted: Wanted) -> Vec<Scores> {
    let (mut flights, mut all) = (VecDeque::new(), Vec::new());
    for batch in batches.iter().map(Some).chain([None, None]) {
        if let Some(batch) = batch {
            flights.push_back(model.submit(batch, wanted).expect("a batch that fits"));
        }
        if flights.len() == 2 || batch.is_none() {
            let scores = flights.pop_front().map(|flight| flight.wait().expect("scores"));
            all.extend(scores.map(|mut scores| {
                scores.pre_norm = None;
                scores
            }));
        }
    }
    all
}
