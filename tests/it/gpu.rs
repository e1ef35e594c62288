//! The model on a GPU. Software that answers in place of one will do; `BLT_REQUIRE_GPU` makes it an error that there is
//! none, and may name the adapter.

#![expect(clippy::print_stdout, reason = "what ran, and on which device")]

use blt_pipeline::config::Precision;
use blt_pipeline::data::{PackedTokens, Wanted};
use blt_pipeline::model::device::Kind;
use blt_pipeline::model::{self, Adapter, ModelFiles, score_documents};

use crate::golden::{ALL, assert_all_golden, documents, folder};

/// The best adapter, or that which the environment names.
fn adapter() -> Option<Adapter> {
    let required = std::env::var("BLT_REQUIRE_GPU").ok();
    let mut adapters = model::adapters();
    adapters.retain(|adapter| adapter.kind != Kind::Cpu);
    if let Some(name) = required.as_ref().filter(|name| *name != "1") {
        adapters.retain(|adapter| adapter.to_string().contains(name));
    }
    adapters.sort_by_key(|adapter| adapter.kind);
    let adapter = adapters.into_iter().next();
    assert!(adapter.is_some() || required.is_none(), "BLT_REQUIRE_GPU is set and there is no such adapter");
    if adapter.is_none() {
        println!("NOT RUN: there is no GPU, nor software in place of one");
    }
    adapter
}

/// Each number format of the adapter, and how far from the reference entropies may be.
fn formats(adapter: &Adapter) -> Vec<(Precision, f32)> {
    let precisions = adapter.abilities().unwrap().precisions;
    let error = |precision| if precision == Precision::F32 { 1e-3 } else { 0.05 };
    precisions.into_iter().map(|precision| (precision, error(precision))).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Software takes minutes for what a GPU does in a moment: it gets documents of up to this many bytes.
const MAX_SOFTWARE_BYTES: usize = 1500;

#[test]
fn a_gpu_gives_the_references_values_alone_and_in_company() {
    let Some(adapter) = adapter() else { return };
    for (name, files) in
        [("nano", ModelFiles::open(&folder("nano")).unwrap()), ("small", ModelFiles::embedded().unwrap())]
    {
        let mut golden = documents(name);
        let all = golden.len();
        let mut batches = &[(8192, 3), (20_000, 0)][..];
        if adapter.kind == Kind::Software {
            batches = &batches[..1];
            if name == "small" {
                golden.retain(|document| document.bytes.len() <= MAX_SOFTWARE_BYTES);
            }
        }
        assert!(golden.len() > 1, "{name} has documents for software");
        for (precision, error) in formats(&adapter) {
            let mut model = model::load(&adapter, precision, &files).unwrap();
            println!("{name} on {}: {} of {all} documents", model.device_class(), golden.len());
            assert_all_golden(model.as_mut(), &golden, batches, error);
        }
    }
}

#[test]
fn equal_batches_give_equal_bytes_on_a_gpu_and_several_may_be_on_their_way() {
    let Some(adapter) = adapter() else { return };
    let files = ModelFiles::embedded().unwrap();
    for (precision, _) in formats(&adapter) {
        let mut model = model::load(&adapter, precision, &files).unwrap();
        let batch = |seed: u32, context_lengths: Vec<usize>| PackedTokens {
            tokens: (0..context_lengths.iter().sum::<usize>() as u32)
                .map(|i| ((i * i + seed) % 257) as u16)
                .collect(),
            context_lengths,
        };
        let (one, other) = (batch(1, vec![700, 1, 129]), batch(2, vec![63, 600]));
        let alone = [model.score(&one, ALL).unwrap(), model.score(&other, ALL).unwrap()];
        let flights = [&one, &other, &one].map(|batch| model.submit(batch, ALL).unwrap());
        let [a, b, c] = flights.map(|flight| flight.wait().unwrap());
        assert_eq!((&a, &b, &c), (&alone[0], &alone[1], &alone[0]));
    }
}

#[test]
fn sixteen_bits_move_less_than_one_boundary_in_a_hundred() {
    let Some(adapter) = adapter() else { return };
    let files = ModelFiles::embedded().unwrap();
    let mut text = std::fs::read("README.md").unwrap();
    if adapter.kind == Kind::Software {
        text.truncate(MAX_SOFTWARE_BYTES);
    }
    let score = |precision| {
        let mut model = model::load(&adapter, precision, &files).unwrap();
        score_documents(model.as_mut(), &[&text], 8192, Wanted::default()).unwrap().remove(0).entropies
    };
    let exact = score(Precision::F32);
    let mut short = formats(&adapter);
    short.retain(|(precision, _)| *precision != Precision::F32);
    if short.is_empty() {
        println!("NOT RUN: {adapter} has no numbers of 16 bits");
    }
    for (precision, error) in short {
        let entropies = score(precision);
        let above = |values: &[f32]| -> Vec<bool> { values.iter().map(|&h| h > 1.335_442_1).collect() };
        let (ours, theirs) = (above(&entropies), above(&exact));
        let moved = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        let starts = theirs.iter().filter(|start| **start).count();
        let largest = largest_difference(&entropies, &exact);
        println!(
            "{}: {moved} of {starts} boundaries differ, largest difference {largest} nats",
            precision.name()
        );
        assert!(largest <= error && 100 * moved < starts, "{}", precision.name());
    }
}
