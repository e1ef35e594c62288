//! Bytes a second of the model alone, in memory, with entropies only and with everything.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench model_speed -- [--model FOLDER] [--seconds 10]
//!     cargo bench --features vulkan --bench model_speed -- --device vulkan [--adapter NAME] [--precision f16]
//!         [--batch-tokens 65536]

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
mod common;

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use blt_pipeline::config::{Overrides, Pipeline};
use blt_pipeline::data::Wanted;
use blt_pipeline::model::{self, ModelError, ModelFiles, Packer};

fn main() -> Result<(), ModelError> {
    let files = match common::argument("--model") {
        Some(folder) => ModelFiles::open(Path::new(&folder))?,
        None => ModelFiles::embedded()?,
    };
    let number = |name| common::argument(name).map(|text| text.parse::<usize>().expect("a number"));
    let seconds = number("--seconds").unwrap_or(10) as f64;
    let mut set = Vec::new();
    for key in ["device", "adapter", "precision"] {
        set.extend(common::argument(&format!("--{key}")).map(|value| format!("model.{key}='{value}'")));
    }
    let overrides = Overrides { set, ..Overrides::default() };
    let settings = Pipeline::parse("source.uri = 'in'\nsink.uri = 'out'", "bench", &overrides);
    let settings = settings.expect("a device and a precision").model;
    let (adapter, why) = model::choose(&settings, &model::adapters())?;
    let precisions = adapter.abilities()?.precisions;
    let precision = model::precision(settings.precision, None, &adapter.name, &precisions)?;
    let batch_tokens = number("--batch-tokens").unwrap_or(model::batch_tokens(&adapter));
    let start = Instant::now();
    let mut model = model::load(&adapter, precision, &files)?;
    println!(
        "{}\ndevice        {}: {why}; loaded in {:.1} s",
        files.info,
        model.device_class(),
        start.elapsed().as_secs_f64()
    );

    // Documents of a web page's length.
    let text = common::texts().concat();
    let documents: Vec<&[u8]> = text.as_bytes().chunks(4094).collect();
    let mut batches = Vec::new();
    let mut packer = Packer::new(model.max_context().min(batch_tokens), batch_tokens, 0)?;
    for (i, document) in documents.iter().cycle().enumerate() {
        if batches.len() >= 2 && i >= documents.len() {
            break;
        }
        packer.push(i, document, |batch| -> Result<(), ModelError> {
            batches.push(batch.packed);
            Ok(())
        })?;
    }
    for wanted in [Wanted::default(), Wanted { norms: true, pre_norm: true }] {
        let first = Instant::now();
        model.score(&batches[0], wanted)?;
        let first = first.elapsed().as_secs_f64();
        let (start, mut n_bytes, mut flights) = (Instant::now(), 0, VecDeque::new());
        for batch in batches.iter().cycle() {
            flights.push_back(model.submit(batch, wanted)?);
            n_bytes += batch.tokens.len() - 2 * batch.context_lengths.len();
            if flights.len() == 2
                && let Some(flight) = flights.pop_front()
            {
                flight.wait()?;
            }
            if start.elapsed() > Duration::from_secs_f64(seconds) {
                break;
            }
        }
        for flight in flights {
            flight.wait()?;
        }
        let rate = n_bytes as f64 / start.elapsed().as_secs_f64();
        println!("{wanted:?}: {rate:.0} bytes/s; the first batch took {first:.2} s");
    }
    Ok(())
}
