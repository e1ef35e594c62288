//! What the engine costs on top of the model: the embedded model alone on packed tokens, and the whole
//! pipeline over the same documents, interleaved. Prints seconds, bytes a second, the ratio of medians and
//! the peak of memory.
//!
//!     cargo bench --bench small_model -- [--kb 150] [--runs 5] [--source GLOB] [--folder FOLDER]

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
mod common;

use std::{fs, path::Path, time::Instant};

use blt_pipeline::{
    config::{Precision, Weights},
    data::{PackedTokens, Wanted},
    model::{self, Adapter, EntropyModel, ModelFiles, Packer},
    pipeline::{DeviceFacts, Display, Ending, ModelFacts, Plan, Stop, Trace, run},
    sink::Start,
};

/// The documents as the engine packs them: a unit here is the whole shard.
fn pack(documents: &[String], context: usize) -> Vec<PackedTokens> {
    let mut batches = Vec::new();
    let mut packer = Packer::new(context, context, 0).expect("a batch holds a context");
    let mut keep = |batch: model::PackedBatch| {
        batches.push(batch.packed);
        Ok::<(), ()>(())
    };
    for (index, document) in documents.iter().enumerate() {
        packer.push(index, document.as_bytes(), &mut keep).expect("nothing fails here");
    }
    packer.finish(&mut keep).expect("nothing fails here");
    batches
}

fn bare(model: &mut dyn EntropyModel, batches: &[PackedTokens]) -> f64 {
    let start = Instant::now();
    for batch in batches {
        let scores = model.score(batch, Wanted { norms: true, pre_norm: true }).expect("a score");
        std::hint::black_box(scores);
    }
    start.elapsed().as_secs_f64()
}

fn whole(model: &mut dyn EntropyModel, facts: &ModelFacts, source: &str, output: &Path) -> f64 {
    let _ = fs::remove_dir_all(output);
    let start = Instant::now();
    let plan =
        Plan::freeze(common::pipeline(source, output, &[]), facts.clone(), Start::Resume).expect("a plan");
    let summary = run(&plan, model, Stop::default(), &Display::Silent, &Trace::off()).expect("a run");
    assert_eq!(summary.ending, Ending::Finished);
    start.elapsed().as_secs_f64()
}

fn main() {
    let number =
        |name, default: usize| common::argument(name).map_or(default, |n| n.parse().expect("a number"));
    let (kb, runs) = (number("--kb", 150), number("--runs", 5));
    let folder = common::scratch();
    fs::create_dir(folder.join("in")).expect("a writable folder");
    common::write_shards(&folder.join("in"), kb * 1000, 1);
    let source = folder.join("in/*.parquet").to_string_lossy().into_owned();

    let files = ModelFiles::embedded().expect("the model inside the program");
    let facts = ModelFacts::of(&Weights::Embedded, &files.info, Default::default(), DeviceFacts::cpu());
    let mut model = model::load(&Adapter::cpu(), Precision::F32, &files).expect("a CPU");
    let (mut documents, mut n_bytes) = (Vec::new(), 0);
    for text in common::texts().into_iter().cycle() {
        if n_bytes >= kb * 1000 {
            break;
        }
        n_bytes += text.len();
        documents.push(text);
    }
    let batches = pack(&documents, facts.max_context);

    let (mut alone, mut piped) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        alone.push(bare(model.as_mut(), &batches));
        piped.push(whole(model.as_mut(), &facts, &source, &folder.join("out")));
        let (a, p) = (alone[alone.len() - 1], piped[piped.len() - 1]);
        println!("model alone {a:.2} s, pipeline {p:.2} s");
    }
    let (alone, piped) = (common::median(alone), common::median(piped));
    println!("{}: {n_bytes} bytes", model.device_class());
    println!("model alone  median {alone:.2} s, {:.0} bytes/s", n_bytes as f64 / alone);
    println!("pipeline     median {piped:.2} s, {:.0} bytes/s", n_bytes as f64 / piped);
    println!("ratio of medians {:.3}", piped / alone);
    if let Some(mib) = common::peak_mib() {
        println!("peak memory {mib} MiB");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}
