//! Bytes a second of the model alone, in memory, with entropies only and with everything.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench model_speed -- [--model FOLDER] [--seconds 10]

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use blt_pipeline::data::Wanted;
use blt_pipeline::model::{CpuModel, EntropyModel, ModelError, ModelFiles, Packer};

const BATCH_TOKENS: usize = 8192;

fn main() -> Result<(), ModelError> {
    let files = match common::argument("--model") {
        Some(folder) => ModelFiles::open(Path::new(&folder))?,
        None => ModelFiles::embedded()?,
    };
    let seconds = common::argument("--seconds").map_or(10.0, |s| s.parse().expect("a number"));
    let mut model = CpuModel::new(&files);
    println!("{}\ndevice        {}", files.info, model.device_class());

    // Documents of a web page's length.
    let text = common::texts().concat();
    let mut batches = Vec::new();
    let mut packer = Packer::new(model.max_context().min(BATCH_TOKENS), BATCH_TOKENS, 0)?;
    for (i, document) in text.as_bytes().chunks(4094).enumerate() {
        packer.push(i, document, |batch| -> Result<(), ModelError> {
            batches.push(batch.packed);
            Ok(())
        })?;
    }
    for wanted in [Wanted::default(), Wanted { norms: true, pre_norm: true }] {
        model.score(&batches[0], wanted)?;
        let (start, mut n_bytes) = (Instant::now(), 0);
        for batch in batches.iter().cycle() {
            model.score(batch, wanted)?;
            n_bytes += batch.tokens.len() - 2 * batch.context_lengths.len();
            if start.elapsed() > Duration::from_secs_f64(seconds) {
                break;
            }
        }
        let rate = n_bytes as f64 / start.elapsed().as_secs_f64();
        println!("{wanted:?}: {rate:.0} bytes/s");
    }
    Ok(())
}
