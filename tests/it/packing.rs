//! What a document's scores do not depend on: its neighbours, the batch, the number of threads.

use std::process::Command;

use blt_pipeline::data::{PackedTokens, Wanted};
use blt_pipeline::model::{EntropyModel, ModelError, score_documents};
use proptest::prelude::*;

use crate::golden::{ALL, documents, nano, small};

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_and_batch_size_do_not_matter(
        documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1200), 1..6),
        batch_tokens in 8192usize..9000,
    ) {
        let mut model = nano();
        let slices: Vec<&[u8]> = documents.iter().map(|d| &d[..]).collect();
        let together = score_documents(&mut model, &slices, batch_tokens, ALL).unwrap();
        for (document, together) in slices.iter().zip(&together) {
            let alone = score_documents(&mut model, &[document], 8192, ALL).unwrap();
            prop_assert_eq!(alone[0].entropies.len(), together.entropies.len());
            for (a, b) in alone[0].entropies.iter().zip(&together.entropies) {
                prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
            }
            let norms = alone[0].norms.iter().flatten().zip(together.norms.iter().flatten());
            for (a, b) in norms {
                prop_assert!((a / b - 1.0).abs() < 1e-4, "{} {}", a, b);
            }
        }
    }
}

#[test]
fn only_what_is_wanted_comes_back() {
    let batch = PackedTokens { tokens: vec![1, 100, 2], context_lengths: vec![3] };
    let mut model = nano();
    let all = model.score(&batch, ALL).unwrap();
    let none = model.score(&batch, Wanted::default()).unwrap();
    assert_eq!(all.entropies, none.entropies);
    assert_eq!((none.norms, none.pre_norm), (None, None));
    assert_eq!((all.norms.unwrap().len(), all.pre_norm.unwrap().len()), (3, 3 * 64));
    let empty = model.score(&PackedTokens::default(), ALL).unwrap();
    assert_eq!((empty.entropies.len(), empty.norms, empty.pre_norm), (0, Some(vec![]), Some(vec![])));
}

#[test]
fn batches_that_break_the_contract_are_refused() {
    let mut model = nano();
    let cases = [
        (vec![1, 2], vec![2, 0], "context 1 is empty"),
        (vec![1; 8193], vec![8193], "context 0 has 8193 tokens, more than the model's 8192"),
        (vec![1, 2], vec![3], "contexts have 3 tokens together, the batch has 2"),
        (vec![1, 260], vec![2], "token 260 is outside the vocabulary of 260"),
    ];
    for (tokens, context_lengths, message) in cases {
        let error = model.score(&PackedTokens { tokens, context_lengths }, ALL).unwrap_err();
        assert!(matches!(error, ModelError::Batch(_)));
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let scores = |threads: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "packing::writes_scores_for_the_test_of_threads", "--ignored"])
            .env("RAYON_NUM_THREADS", threads)
            .env("BLT_TEST_SCORES", file.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        std::fs::read(file.path()).unwrap()
    };
    let one = scores("1");
    assert!(one.len() > 4 * 3000);
    assert!(one == scores("2"));
    assert!(one == scores("5"));
}

#[test]
#[ignore = "run by the_number_of_threads_changes_no_bit, in a process of its own"]
fn writes_scores_for_the_test_of_threads() {
    let Some(file) = std::env::var_os("BLT_TEST_SCORES") else { return };
    let golden = documents("small");
    let slices: Vec<&[u8]> = golden[..3].iter().map(|d| &d.bytes[..]).collect();
    let scores = score_documents(&mut small(), &slices, 8192, ALL).unwrap();
    let mut bytes = Vec::new();
    for document in scores {
        let all = [Some(document.entropies), document.norms, document.pre_norm];
        for value in all.iter().flatten().flatten() {
            bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
    std::fs::write(file, bytes).unwrap();
}
