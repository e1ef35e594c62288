//! How fast the engine is without a model: source to commit on the fake one, whose entropies and norms
//! have full random mantissas. Prints MB/s of text, the stages' work, the MB/s that a core does of each, and the peak of
//! memory.
//!
//!     cargo bench --features fake-model --bench engine -- [--mb 200] [--runs 5] [--embeddings none] [--dim 768]
//!         [--source GLOB] [--folder FOLDER] [--set KEY=VALUE]

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
mod common;

use std::{fs, path::Path, time::Instant};

use blt_pipeline::{
    model::FakeModel,
    pipeline::{DeviceFacts, Display, Ending, ModelFacts, Plan, Stop, Summary, Trace, run},
    sink::Start,
};

fn facts(dim: usize) -> ModelFacts {
    let (name, sha256) = ("fake".into(), "0".into());
    ModelFacts {
        name,
        dim,
        max_context: 8192,
        parameters: 0,
        sha256,
        threshold: None,
        revisions: Default::default(),
        device: DeviceFacts::cpu(),
    }
}

fn measure(source: &str, output: &Path, embeddings: &str, dim: usize) -> (f64, Summary) {
    let _ = fs::remove_dir_all(output);
    let embeddings = format!("sink.embeddings={embeddings}");
    // Another key, `--set limits.memory=…`.
    let more = common::argument("--set");
    let sets: Vec<&str> = [Some(embeddings.as_str()), more.as_deref()].into_iter().flatten().collect();
    let start = Instant::now();
    let plan =
        Plan::freeze(common::pipeline(source, output, &sets), facts(dim), Start::Resume).expect("a plan");
    let mut model = FakeModel::new(dim, 8192);
    let summary = run(&plan, &mut model, Stop::default(), &Display::Silent, &Trace::off()).expect("a run");
    assert_eq!(summary.ending, Ending::Finished);
    (summary.run.bytes as f64 / 1e6 / start.elapsed().as_secs_f64(), summary)
}

fn main() {
    let number =
        |name, default: usize| common::argument(name).map_or(default, |n| n.parse().expect("a number"));
    let (mb, runs, dim) = (number("--mb", 200), number("--runs", 5), number("--dim", 768));
    let embeddings = common::argument("--embeddings").unwrap_or_else(|| "none".into());
    let folder = common::scratch();
    let source = common::argument("--source").unwrap_or_else(|| {
        fs::create_dir(folder.join("in")).expect("a writable folder");
        common::write_shards(&folder.join("in"), mb * 1_000_000, 4);
        folder.join("in/*.parquet").to_string_lossy().into_owned()
    });
    let (mut rates, mut summaries) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (rate, summary) = measure(&source, &folder.join("out"), &embeddings, dim);
        println!("{rate:.2} MB/s");
        rates.push(rate);
        if rates.len() == runs {
            println!("{summary}");
        }
        summaries.push(summary);
    }
    println!("\nMB of text per second of a core, medians");
    for stage in &summaries[0].stages {
        let rate = |summary: &Summary| {
            let core = summary.stages.iter().find(|s| s.name == stage.name).map_or(0.0, |s| s.core);
            summary.run.bytes as f64 / 1e6 / core
        };
        println!("  {:<12}{:>10.2}", stage.name, common::median(summaries.iter().map(rate).collect()));
    }
    println!("median {:.2} MB/s of {runs} runs, embeddings {embeddings}", common::median(rates));
    if let Some(mib) = common::peak_mib() {
        println!("peak memory {mib} MiB");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}
