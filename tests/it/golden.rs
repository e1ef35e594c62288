//! The model against the reference implementation's values (`tests/data/golden`), and the helpers
//! that other tests read them with.

use std::path::PathBuf;

use base64::Engine;
use blt_pipeline::data::Wanted;
use blt_pipeline::model::{CpuModel, DocumentScores, EntropyModel, ModelFiles, score_documents};
use safetensors::SafeTensors;

pub const ALL: Wanted = Wanted { norms: true, pre_norm: true };

pub struct Golden {
    pub name: String,
    pub bytes: Vec<u8>,
    pub entropies: Vec<f32>,
    pub norms: Vec<f32>,
    /// Rows of the first tokens; none in `small`.
    pre_norm: Vec<f32>,
}

pub fn folder(name: &str) -> PathBuf {
    std::env::current_dir().unwrap().join("tests/data/golden").join(name)
}

pub fn nano() -> CpuModel {
    CpuModel::new(&ModelFiles::open(&folder("nano")).unwrap())
}

pub fn small() -> CpuModel {
    CpuModel::new(&ModelFiles::embedded().unwrap())
}

pub fn documents(name: &str) -> Vec<Golden> {
    #[derive(serde::Deserialize)]
    struct Document {
        name: String,
        bytes_b64: String,
    }
    let json = std::fs::read(folder(name).join("docs.json")).unwrap();
    let tensors = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&tensors).unwrap();
    let floats = |key: String| -> Vec<f32> {
        let data = tensors.tensor(&key).unwrap().data();
        data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let documents: Vec<Document> = serde_json::from_slice(&json).unwrap();
    let golden = documents.into_iter().enumerate().map(|(i, document)| Golden {
        bytes: base64::engine::general_purpose::STANDARD.decode(&document.bytes_b64).unwrap(),
        name: document.name,
        entropies: floats(format!("{i}.entropies")),
        norms: floats(format!("{i}.norms")),
        pre_norm: match tensors.tensor(&format!("{i}.pre_norm")) {
            Ok(_) => floats(format!("{i}.pre_norm")),
            Err(_) => Vec::new(),
        },
    });
    golden.collect()
}

/// Entropies within `error` nats, norms within `error` of their size, and each hidden state no further
/// from the reference's than ten times as much of its length.
fn assert_golden(golden: &Golden, scores: &DocumentScores, dim: usize, error: f32) {
    let name = &golden.name;
    assert_eq!(scores.entropies.len(), golden.bytes.len() + 2, "{name}");
    assert_eq!(scores.entropies.len(), golden.entropies.len(), "{name}");
    for (i, (ours, theirs)) in scores.entropies.iter().zip(&golden.entropies).enumerate() {
        assert!((ours - theirs).abs() < error, "{name}: entropy {i} is {ours}, not {theirs}");
    }
    let norms = scores.norms.as_ref().unwrap();
    assert_eq!(norms.len(), golden.norms.len(), "{name}");
    for (i, (ours, theirs)) in norms.iter().zip(&golden.norms).enumerate() {
        assert!((ours / theirs - 1.0).abs() < error, "{name}: norm {i} is {ours}, not {theirs}");
    }
    let pre_norm = scores.pre_norm.as_ref().unwrap();
    assert_eq!(pre_norm.len(), norms.len() * dim, "{name}");
    let rows = pre_norm.chunks(dim).zip(golden.pre_norm.chunks(dim));
    for (i, ((ours, theirs), norm)) in rows.zip(norms).enumerate() {
        let square: f32 = ours.iter().zip(theirs).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!(square.sqrt() < 10.0 * error * norm, "{name}: hidden state {i} is {} away", square.sqrt());
    }
}

/// Every document alone, then all together in batches of that many tokens, another document first.
pub fn assert_all_golden(
    model: &mut dyn EntropyModel,
    golden: &[Golden],
    batches: &[(usize, usize)],
    error: f32,
) {
    let dim = model.dim();
    for document in golden {
        let alone = score_documents(model, &[&document.bytes], 8192, ALL).unwrap();
        assert_golden(document, &alone[0], dim, error);
    }
    for &(batch_tokens, turn) in batches {
        let order: Vec<&Golden> = (0..golden.len()).map(|i| &golden[(i + turn) % golden.len()]).collect();
        let bytes: Vec<&[u8]> = order.iter().map(|document| &document.bytes[..]).collect();
        let together = score_documents(model, &bytes, batch_tokens, ALL).unwrap();
        for (document, scores) in order.iter().zip(&together) {
            assert_golden(document, scores, dim, error);
        }
    }
}

#[test]
fn nano_gives_the_references_values_alone_and_in_company() {
    let batches = [(8192, 0), (8200, 3), (20_000, 1), (50_000, 4)];
    assert_all_golden(&mut nano(), &documents("nano"), &batches, 1e-4);
}

#[test]
fn the_embedded_model_gives_the_references_values_alone_and_in_company() {
    assert_all_golden(&mut small(), &documents("small"), &[(8192, 0), (20_000, 3)], 1e-4);
}
