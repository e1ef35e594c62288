//! How far a byte reaches: one window a layer, and never into another document.

use blt_pipeline::data::{PackedTokens, Wanted};
use blt_pipeline::model::{CpuModel, EntropyModel, score_documents};

use crate::golden::{ALL, documents, nano, small};
use crate::reference::{Random, random_model, small_config};

/// Tokens whose hidden state differs between two streams of the same contexts.
fn changed(model: &mut CpuModel, a: &PackedTokens, b: &PackedTokens) -> Vec<usize> {
    let mut hidden = |batch| model.score(batch, ALL).unwrap().pre_norm.unwrap();
    let (a, b) = (hidden(a), hidden(b));
    let dim = model.dim();
    let rows = a.chunks(dim).zip(b.chunks(dim)).enumerate();
    rows.filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect()
}

/// A stream of contexts, and the same with another token at `place`.
fn pair(lengths: &[usize], place: usize) -> (PackedTokens, PackedTokens) {
    let tokens = Random(9).tokens(lengths.iter().sum());
    let a = PackedTokens { tokens, context_lengths: lengths.to_vec() };
    let mut b = a.clone();
    b.tokens[place] = (b.tokens[place] + 100) % 260;
    (a, b)
}

#[test]
fn through_one_layer_a_token_reaches_its_window_and_no_further() {
    for window in [1, 2, 31, 127, 128, 129, 200, 600, 1500] {
        let files = random_model(&small_config(1, Some(window)), window as u64);
        let mut model = CpuModel::new(&files);
        // Inside a block, at its edges, and before the edge of a chunk.
        for place in [200, 255, 256, 1020] {
            let (a, b) = pair(&[150, 2000, 90], place);
            let reach: Vec<usize> = (place..2150.min(place + window)).collect();
            assert_eq!(changed(&mut model, &a, &b), reach, "window {window}, token {place}");
        }
    }
}

#[test]
fn without_a_window_a_token_reaches_the_end_of_its_context() {
    let files = random_model(&small_config(1, None), 5);
    let mut model = CpuModel::new(&files);
    let (a, b) = pair(&[150, 2000, 90], 300);
    assert_eq!(changed(&mut model, &a, &b), (300..2150).collect::<Vec<_>>());
}

#[test]
fn through_three_layers_a_token_reaches_three_windows() {
    let (a, b) = pair(&[40, 500, 40], 100);
    let reached = changed(&mut nano(), &a, &b);
    assert_eq!(reached.first(), Some(&100));
    assert!(*reached.last().unwrap() <= 100 + 3 * 31, "{reached:?}");
    assert!(*reached.last().unwrap() > 100 + 2 * 31, "{reached:?}");
}

/// Attention past the trained window shows as entropies several times too high.
#[test]
fn the_trained_model_is_no_less_certain_past_its_window() {
    let golden = documents("small");
    let window = 256;
    let long: Vec<&[u8]> = golden.iter().map(|d| &d.bytes[..]).filter(|b| b.len() > 4 * window).collect();
    assert!(long.len() >= 3);
    let (mut before, mut after) = ((0.0, 0), (0.0, 0));
    for scores in score_documents(&mut small(), &long, 8192, Wanted::default()).unwrap() {
        let (first, rest) = scores.entropies.split_at(window);
        before = (before.0 + first.iter().sum::<f32>(), before.1 + first.len());
        after = (after.0 + rest.iter().sum::<f32>(), after.1 + rest.len());
    }
    let mean = |(sum, n): (f32, usize)| sum / n as f32;
    assert!(mean(after) <= mean(before), "{} after, {} before", mean(after), mean(before));
}
