//! Patch lengths from the reference's entropies are the reference's patch lengths, all of them.

#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach their helpers")]

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blt_pipeline::data::{BOS, BYTE_OFFSET, Boundary, EOS, PatchRule};
use blt_pipeline::patch::patch_lengths;
use safetensors::SafeTensors;
use serde_json::Value;

#[test]
fn patch_lengths_equal_the_reference() {
    // Three documents are too short for top-k, and one repeats a byte so that entropies are equal.
    for (model, checks, ties) in [("nano", 13 * 9 - 3, 1), ("small", 5 * 2, 0)] {
        let folder = Path::new("tests/data/golden").join(model);
        let values = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let values = SafeTensors::deserialize(&values).unwrap();
        let documents = std::fs::read(folder.join("docs.json")).unwrap();
        let documents: Vec<Value> = serde_json::from_slice(&documents).unwrap();

        let (mut checked, mut tied) = (0, 0);
        for document in &documents {
            let tokens = tokens_of(document["bytes_b64"].as_str().unwrap());
            let name = format!("{}.entropies", document["doc"]);
            let entropies: Vec<f32> = values
                .tensor(&name)
                .unwrap()
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            for (rule, expected) in document["patch_lengths"].as_object().unwrap() {
                let mut expected: Vec<u32> = serde_json::from_value(expected.clone()).unwrap();
                // Top-k may choose the last token. The patch after it has no tokens; the reference
                // drops it in the last lines of `Patcher.patch`, which made no golden values.
                expected.retain(|length| *length > 0);
                let rule = rule_named(rule);
                let lengths = patch_lengths(&rule, &tokens, &entropies);
                let case = format!("{model}, {}, {rule:?}", document["name"]);
                let k = match rule.boundary {
                    Boundary::TopK { patch_size } => entropies.len() / patch_size.get() as usize - 2,
                    _ => 0,
                };
                if k > 0 && is_tied(&entropies, k) {
                    tied += 1;
                    assert_eq!(chosen(&lengths, &entropies, k), chosen(&expected, &entropies, k), "{case}");
                } else {
                    assert_eq!(lengths, expected, "{case}");
                }
                checked += 1;
            }
        }
        assert_eq!((checked, tied), (checks, ties), "{model}: rules times documents");
    }
}

/// Whether the lowest entropy that starts a patch occurs more often than there is room for.
/// `torch.topk` does not say which of equal ones it takes; this crate takes the earlier.
fn is_tied(entropies: &[f32], k: usize) -> bool {
    let mut descending = entropies[1..].to_vec();
    descending.sort_by(|a, b| b.total_cmp(a));
    descending[k - 1] == descending[k]
}

/// The `k` entropies that start the patches of `lengths`, ascending. One that is missing is that of
/// the last token, after which nothing starts.
fn chosen(lengths: &[u32], entropies: &[f32], k: usize) -> Vec<f32> {
    let mut start = 0;
    let mut chosen = Vec::new();
    for length in lengths {
        if start >= 2 {
            chosen.push(entropies[start - 1]);
        }
        start += *length as usize;
    }
    if chosen.len() < k {
        chosen.push(entropies[entropies.len() - 1]);
    }
    chosen.sort_by(f32::total_cmp);
    chosen
}

fn tokens_of(base64: &str) -> Vec<u16> {
    let bytes = STANDARD.decode(base64).unwrap();
    let bytes = bytes.iter().map(|byte| u16::from(*byte) + BYTE_OFFSET);
    std::iter::once(BOS).chain(bytes).chain([EOS]).collect()
}

/// Reads names like `entropy threshold=2.0 max_patch_length=8`.
fn rule_named(name: &str) -> PatchRule {
    let number = |key: &str| {
        let pair = name.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        pair.map(|number| number.parse::<f32>().unwrap())
    };
    let count = |key: &str| number(key).and_then(|number| NonZeroU32::new(number as u32));
    let threshold = number("threshold");
    let boundary = match name.split(' ').next().unwrap() {
        "space" => Boundary::Space,
        "byte" => Boundary::Byte,
        "static" => Boundary::Static { patch_size: count("patch_size").unwrap() },
        "entropy" if name.contains("top-k") => Boundary::TopK { patch_size: count("patch_size").unwrap() },
        "entropy" if name.contains("monotonicity") => Boundary::Rising { threshold: threshold.unwrap() },
        "entropy" => match number("threshold_add") {
            Some(rise) => Boundary::AboveAndRising { threshold: threshold.unwrap(), rise },
            None => Boundary::Above { threshold: threshold.unwrap() },
        },
        other => panic!("unknown rule {other}"),
    };
    PatchRule { boundary, max_patch_length: count("max_patch_length") }
}
