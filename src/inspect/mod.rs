//! A scored document in, text out that shows it: for a terminal, or as a page of its own. Knows nothing of models, files or arguments,
//! and sends nothing of a document to a terminal or a browser that either could take for a command.

mod abilities;
mod glyph;
mod html;
mod picture;
mod piece;
mod sheet;
mod sixel;
mod terminal;
mod wave;

use std::ops::Range;

use serde::de::DeserializeOwned;

pub use self::{
    abilities::{Colour, Pictures, abilities},
    html::html,
    terminal::{Terminal, terminal},
};
use crate::patch::byte_spans;

/// A document and what the model says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// As in the table `documents`.
    pub doc_id: String,
    /// Where it comes from: `<file>#<row>`, or a path.
    pub source: String,
    /// Name of the modality.
    pub modality: String,
    /// What the model saw between BOS and EOS.
    pub bytes: Vec<u8>,
    /// Segments of the document, in order.
    pub segments: Vec<Segment>,
    /// `[n_bytes + 2]`, nats: of byte `j` the uncertainty about it; the last two are about EOS and after.
    pub entropies: Vec<f32>,
    /// `[n_bytes + 2]`, of each token: L2 norm of the hidden state before the final norm.
    pub norms: Option<Vec<f32>>,
    /// Tokens of each patch, BOS and EOS included.
    pub patch_lengths: Vec<u32>,
    /// Of the patch rule, in nats, if it has one.
    pub threshold: Option<f32>,
}

/// A part of a document that its modality gives a meaning to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is, in its modality's terms.
    pub kind: String,
    /// Bytes of the document, end excluded.
    pub bytes: Range<u64>,
    /// JSON, where the modality has more to tell.
    pub meta: Option<String>,
}

/// A patch that holds at least one byte, as the table `patches` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Among those of the document that hold a byte, from 0.
    pub number: usize,
    /// Its bytes, end excluded.
    pub bytes: Range<usize>,
    /// Uncertainty about its first byte, nats.
    pub entropy_start: f32,
    /// Mean uncertainty about its bytes, nats.
    pub entropy_mean: f32,
    /// Mean norm of its bytes' tokens.
    pub norm_mean: Option<f32>,
}

/// `text` as a terminal can be shown it, without what it would take for a command, and cut where it is long.
pub fn printable(text: &str) -> String {
    glyph::visible(text, 2000)
}

impl Inspected {
    /// Whether its parts belong together, which [`terminal()`] and [`html()`] rely on.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), String> {
        let n_tokens = self.bytes.len() + 2;
        let lists = [("entropies", Some(&self.entropies)), ("norms", self.norms.as_ref())];
        for (name, list) in lists {
            if let Some(list) = list.filter(|list| list.len() != n_tokens) {
                return Err(format!("{} {name} of {n_tokens} tokens", list.len()));
            }
        }
        let in_patches: u64 = self.patch_lengths.iter().map(|length| u64::from(*length)).sum();
        if in_patches != n_tokens as u64 || self.patch_lengths.contains(&0) {
            return Err(format!("patches of {in_patches} tokens, or an empty one, in {n_tokens} tokens"));
        }
        let mut end = 0;
        for (i, segment) in self.segments.iter().enumerate() {
            let Range { start, end: segment_end } = segment.bytes;
            if start < end || segment_end < start || segment_end > self.bytes.len() as u64 {
                return Err(format!("segment {i} has the bytes {start} to {segment_end} after {end}"));
            }
            end = segment_end;
        }
        Ok(())
    }

    /// The patches that hold a byte, in order.
    pub fn patches(&self) -> impl Iterator<Item = Patch> {
        byte_spans(&self.patch_lengths).enumerate().map(|(number, (start, length))| {
            let bytes = start..start + length;
            let entropies = &self.entropies[bytes.clone()];
            // Byte j is token j + 1.
            let norm_mean = self.norms.as_ref().map(|norms| mean(&norms[start + 1..=start + length]));
            Patch { number, entropy_start: entropies[0], entropy_mean: mean(entropies), norm_mean, bytes }
        })
    }

    /// First bytes of the patches that hold any, in order.
    fn patch_starts(&self) -> impl Iterator<Item = usize> {
        byte_spans(&self.patch_lengths).map(|(start, _)| start)
    }

    /// The uncertainty about each byte, nats.
    fn byte_entropies(&self) -> &[f32] {
        &self.entropies[..self.bytes.len()]
    }

    /// Text, code and pages read as text even if some of it is not UTF-8; anything else only if all of it is.
    fn reads_as_text(&self) -> bool {
        ["text", "code"].contains(&self.modality.as_str())
            || self.segments.iter().any(|segment| segment.kind == "page")
            || (std::str::from_utf8(&self.bytes).is_ok() && !self.bytes.contains(&0))
    }
}

impl Segment {
    /// What its JSON says, if it says that.
    fn meta<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.meta.as_deref()?).ok()
    }

    fn range(&self) -> Range<usize> {
        self.bytes.start as usize..self.bytes.end as usize
    }
}

/// Figures of a whole document.
struct Facts {
    /// Largest uncertainty about a byte, nats; 0 of no bytes.
    max: f32,
    /// Bytes of more are marked.
    mark_above: f32,
    n_marked: usize,
    /// Labels and values, as they are shown.
    shown: Vec<(&'static str, String)>,
}

impl Facts {
    fn of(document: &Inspected) -> Facts {
        let entropies = document.byte_entropies();
        let mark_above = document.threshold.unwrap_or_else(|| top_decile(entropies));
        let n_patches = document.patch_starts().count();
        let mut shown = vec![
            ("modality", glyph::visible(&document.modality, 40)),
            ("bytes", grouped(document.bytes.len())),
            ("segments", kinds(&document.segments)),
            ("patches", grouped(n_patches)),
        ];
        if !entropies.is_empty() {
            let nats = mean(entropies);
            let bits = nats / std::f32::consts::LN_2;
            shown.push(("bytes a patch", format!("{:.2}", entropies.len() as f64 / n_patches as f64)));
            shown.push(("mean entropy", format!("{nats:.3} nats, {bits:.3} bits a byte")));
        }
        Facts {
            max: entropies.iter().copied().fold(0.0, f32::max),
            mark_above,
            n_marked: entropies.iter().filter(|entropy| **entropy > mark_above).count(),
            shown,
        }
    }

    /// What is marked, in words.
    fn marked(&self, document: &Inspected) -> String {
        let marked = counted(self.n_marked, "byte");
        match document.threshold {
            Some(threshold) => format!("{marked} above the threshold of {threshold:.3} nats"),
            None => format!("{marked} of the top decile"),
        }
    }

    /// Whether one of those bytes is marked.
    fn marks(&self, document: &Inspected, bytes: &Range<usize>) -> bool {
        document.entropies[bytes.clone()].iter().any(|entropy| *entropy > self.mark_above)
    }

    /// `entropy` among `levels` equal steps from 0 to the largest.
    fn level(&self, entropy: f32, levels: usize) -> usize {
        level(entropy, self.max, levels)
    }
}

/// `value` among `levels` equal steps from 0 to `max`.
fn level(value: f32, max: f32, levels: usize) -> usize {
    if max > 0.0 { ((value / max * levels as f32) as usize).min(levels - 1) } else { 0 }
}

/// What at most a tenth of `entropies` is above.
fn top_decile(entropies: &[f32]) -> f32 {
    let mut sorted = entropies.to_vec();
    let rank = (sorted.len() - sorted.len() / 10).saturating_sub(1);
    if sorted.is_empty() { 0.0 } else { *sorted.select_nth_unstable_by(rank, f32::total_cmp).1 }
}

/// How many segments of which kinds.
fn kinds(segments: &[Segment]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for segment in segments {
        match counts.iter().position(|(kind, _)| *kind == segment.kind) {
            Some(i) => counts[i].1 += 1,
            None if counts.len() < 100 => counts.push((&segment.kind, 1)),
            None => {}
        }
    }
    let n = grouped(segments.len());
    match counts.as_slice() {
        [] => n,
        [(kind, _)] => format!("{n} ({})", glyph::visible(kind, 24)),
        _ => {
            let of_kind =
                |(kind, count): &(&str, usize)| format!("{} {}", grouped(*count), glyph::visible(kind, 24));
            let mut listed: Vec<String> = counts.iter().take(4).map(of_kind).collect();
            if counts.len() > 4 {
                listed.push("…".into());
            }
            format!("{n} ({})", listed.join(", "))
        }
    }
}

/// A run of values of a document that is drawn as one.
struct Bucket {
    bytes: Range<usize>,
    max: f32,
    mean: f32,
}

/// `values` in order, in at most so many runs of about the same length, none of them empty.
fn buckets(values: &[f32], most: usize) -> Vec<Bucket> {
    let n = values.len().min(most);
    let bucket = |i: usize| {
        let bytes = i * values.len() / n..(i + 1) * values.len() / n;
        let of_bucket = &values[bytes.clone()];
        Bucket { max: of_bucket.iter().copied().fold(0.0, f32::max), mean: mean(of_bucket), bytes }
    };
    (0..n).map(bucket).collect()
}

/// In double precision, so that long lists keep their digits; 0 of none.
fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    (sum / values.len().max(1) as f64) as f32
}

/// `1234567` as `1,234,567`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// So many of what `noun` names.
fn counted(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Colours of a scale from nothing to much, `share` of which is between 0 and 1: dark, then violet, red and orange to pale yellow.
fn heat(share: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [0.0, 0.0, 4.0],
        [87.0, 16.0, 110.0],
        [188.0, 55.0, 84.0],
        [249.0, 142.0, 9.0],
        [252.0, 255.0, 164.0],
    ];
    let position = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let i = (position as usize).min(STOPS.len() - 2);
    let part = position - i as f32;
    std::array::from_fn(|c| (STOPS[i][c] + (STOPS[i + 1][c] - STOPS[i][c]) * part).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of which each byte is a patch's first or not, BOS and EOS being patches of their own or in the last one.
    pub(super) fn document(bytes: &[u8], starts: &[usize], entropies: &[f32]) -> Inspected {
        let mut lengths = vec![1];
        let ends = starts.iter().skip(1).copied().chain([bytes.len() + 1]);
        lengths.extend(starts.iter().zip(ends).map(|(start, end)| (end - start) as u32));
        if starts.is_empty() {
            lengths.push(1);
        }
        let whole = Segment { kind: "text".into(), bytes: 0..bytes.len() as u64, meta: None };
        let document = Inspected {
            doc_id: "a.parquet#0".into(),
            source: "a.parquet#0".into(),
            modality: "text".into(),
            bytes: bytes.to_vec(),
            segments: if bytes.is_empty() { Vec::new() } else { vec![whole] },
            entropies: entropies.iter().copied().chain([0.5, 9.0]).collect(),
            norms: None,
            patch_lengths: lengths,
            threshold: Some(1.5),
        };
        assert_eq!(document.check(), Ok(()));
        document
    }

    pub(super) fn segment(kind: &str, bytes: Range<u64>, meta: &str) -> Segment {
        Segment { kind: kind.into(), bytes, meta: Some(meta.into()) }
    }

    #[test]
    fn patches_are_those_of_the_table() {
        let mut document = document(b"abcd", &[0, 1], &[2.0, 4.0, 1.0, 1.0]);
        document.norms = Some(vec![99.0, 1.0, 2.0, 3.0, 4.0, 99.0]);
        let patches: Vec<Patch> = document.patches().collect();
        let first =
            Patch { number: 0, bytes: 0..1, entropy_start: 2.0, entropy_mean: 2.0, norm_mean: Some(1.0) };
        let second =
            Patch { number: 1, bytes: 1..4, entropy_start: 4.0, entropy_mean: 2.0, norm_mean: Some(3.0) };
        assert_eq!(patches, [first, second]);
    }

    #[test]
    fn parts_that_do_not_fit_are_told() {
        let good = document(b"abcd", &[0, 1], &[2.0, 4.0, 1.0, 1.0]);
        let bad = |change: fn(&mut Inspected)| {
            let mut document = good.clone();
            change(&mut document);
            document.check().unwrap_err()
        };
        assert_eq!(bad(|d| d.entropies.truncate(5)), "5 entropies of 6 tokens");
        assert_eq!(bad(|d| d.norms = Some(Vec::new())), "0 norms of 6 tokens");
        assert_eq!(bad(|d| d.patch_lengths.push(1)), "patches of 7 tokens, or an empty one, in 6 tokens");
        assert_eq!(bad(|d| d.patch_lengths.push(0)), "patches of 6 tokens, or an empty one, in 6 tokens");
        assert_eq!(bad(|d| d.segments[0].bytes = 1..5), "segment 0 has the bytes 1 to 5 after 0");
    }

    #[test]
    fn without_a_threshold_the_top_decile_is_marked_and_never_more() {
        let rising: Vec<f32> = (0..20u8).map(f32::from).collect();
        assert_eq!(top_decile(&rising), 17.0);
        for (entropies, n_marked) in [(rising.as_slice(), 2), (&[1.0; 30], 0), (&[1.0], 0), (&[], 0)] {
            let starts: &[usize] = if entropies.is_empty() { &[] } else { &[0] };
            let mut document = document(&vec![b'a'; entropies.len()], starts, entropies);
            document.threshold = None;
            assert_eq!(Facts::of(&document).n_marked, n_marked);
        }
    }

    #[test]
    fn buckets_tile_the_values() {
        let values: Vec<f32> = (0..10u8).map(f32::from).collect();
        let told: Vec<_> = buckets(&values, 3).into_iter().map(|b| (b.bytes, b.max, b.mean)).collect();
        assert_eq!(told, [(0..3, 2.0, 1.0), (3..6, 5.0, 4.0), (6..10, 9.0, 7.5)]);
        assert_eq!(buckets(&values, 99).len(), 10);
        assert!(buckets(&[], 3).is_empty());
    }

    #[test]
    fn kinds_are_counted_and_their_list_is_short() {
        let of =
            |kinds_: &[&str]| kinds(&kinds_.iter().map(|kind| segment(kind, 0..0, "")).collect::<Vec<_>>());
        assert_eq!(of(&[]), "0");
        assert_eq!(of(&["page", "page"]), "2 (page)");
        assert_eq!(of(&["a", "b", "a", "\u{1b}[2J"]), "4 (2 a, 1 b, 1 ⟨1b⟩[2J)");
        assert_eq!(of(&["a", "b", "c", "d", "e"]), "5 (1 a, 1 b, 1 c, 1 d, …)");
    }

    #[test]
    fn figures_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn heat_goes_from_dark_to_pale() {
        assert_eq!(
            [-1.0, 0.0, 0.5, 1.0, 7.0].map(heat),
            [[0, 0, 4], [0, 0, 4], [188, 55, 84], [252, 255, 164], [252, 255, 164]]
        );
    }
}
