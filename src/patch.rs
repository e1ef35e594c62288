//! A rule, tokens and entropies in, patches out, exactly as the reference cuts them
//! (facebookresearch/blt, `bytelatent/data/patcher.py`). Knows nothing of models, files or threads.

use crate::data::{BYTE_OFFSET, Boundary, PatchRule};

/// Lengths of the patches of a whole document, in tokens: none is 0, and they sum to
/// `tokens.len()`.
///
/// `tokens` are the document's own, BOS and EOS included. `entropies` are in nats, one a token;
/// rules that do not look at them ignore what is there. A NaN exceeds no threshold and ranks above
/// every number. A document has fewer than 2³² tokens.
///
/// # Panics
/// When the rule looks at entropies and there is not one a token.
pub fn patch_lengths(rule: &PatchRule, tokens: &[u16], entropies: &[f32]) -> Vec<u32> {
    let mut starts = Vec::new();
    if let Boundary::TopK { patch_size } = rule.boundary {
        assert_eq!(entropies.len(), tokens.len(), "one entropy a token");
        let mut splitter = Splitter::new(rule);
        for start in top_k_starts(entropies, patch_size.get() as usize) {
            splitter.start(start, &mut starts);
        }
        splitter.advance(tokens.len(), &mut starts);
    } else {
        Patcher::of_local(rule).push(tokens, entropies, &mut starts);
    }
    lengths_of_starts(starts, tokens.len())
}

/// Lengths of the patches that start at `starts`, rising from 0, in a document of `n_tokens`.
pub fn lengths_of_starts(starts: Vec<u32>, n_tokens: usize) -> Vec<u32> {
    let mut lengths = starts;
    let mut end = n_tokens as u32;
    for start in lengths.iter_mut().rev() {
        let length = end - *start;
        end = *start;
        *start = length;
    }
    lengths
}

/// The bytes of each patch that holds any, as `(first byte, number of bytes)`: they tile the
/// document. Byte `j` is token `j + 1`; the first token, BOS, and the last, EOS, are no bytes.
pub fn byte_spans(lengths: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    let n_tokens: usize = lengths.iter().map(|length| *length as usize).sum();
    let n_bytes = n_tokens.saturating_sub(2);
    let mut end_token = 0;
    lengths.iter().filter_map(move |length| {
        let start_token = end_token;
        end_token += *length as usize;
        let start = start_token.saturating_sub(1);
        let end = (end_token - 1).min(n_bytes);
        (start < end).then(|| (start, end - start))
    })
}

/// Patches a document piece by piece, for rules that [look back only](PatchRule::is_local).
#[derive(Clone, Debug)]
pub struct Patcher {
    boundary: Boundary,
    splitter: Splitter,
    /// Tokens seen so far.
    position: usize,
    /// Whether the token at `position` starts a patch, should the document have it.
    starts_next: bool,
    /// Entropy of the last token seen.
    previous: f32,
    /// Whether the last token seen was [space-like](is_space_like).
    after_space: bool,
}

impl Patcher {
    /// A patcher at the start of a document; `None` if the rule needs the whole document at once.
    pub fn new(rule: &PatchRule) -> Option<Self> {
        rule.is_local().then(|| Self::of_local(rule))
    }

    fn of_local(rule: &PatchRule) -> Self {
        Self {
            boundary: rule.boundary,
            splitter: Splitter::new(rule),
            position: 0,
            starts_next: true,
            previous: 0.0,
            after_space: false,
        }
    }

    /// Takes the next tokens of the document and appends to `starts` the positions, counted from
    /// the document's first token, of the patches that start among them.
    ///
    /// # Panics
    /// When the rule looks at entropies and there is not one a token.
    pub fn push(&mut self, tokens: &[u16], entropies: &[f32], starts: &mut Vec<u32>) {
        // Of an entropy rule: whether the token at `p` with entropy `h` after `before` ends a patch.
        match self.boundary {
            Boundary::Above { threshold } => {
                self.push_entropies(tokens, entropies, starts, |p, _, h| (p == 0) | (h > threshold));
            }
            Boundary::Rising { threshold } => {
                self.push_entropies(tokens, entropies, starts, |p, before, h| {
                    (p < 2) | (h - before > threshold)
                });
            }
            // The reference forbids a patch right after one that has already been found, and the
            // only one it has found by then is the one at token 2.
            Boundary::AboveAndRising { threshold, rise } => {
                self.push_entropies(tokens, entropies, starts, |p, before, h| {
                    (p < 2) | ((p > 2) & (h - before > rise) & (h > threshold))
                });
            }
            Boundary::Space => {
                let mut after_space = self.after_space;
                self.push_ends(tokens, starts, |p, token| {
                    let space = is_space_like(*token);
                    let ends = (p == 0) | (*token < BYTE_OFFSET) | (space & !after_space);
                    after_space = space;
                    ends
                });
                self.after_space = after_space;
            }
            Boundary::Static { patch_size } => {
                let size = patch_size.get() as usize;
                self.push_ends(tokens, starts, |p, _| (p + 1).is_multiple_of(size));
            }
            Boundary::Byte => self.push_ends(tokens, starts, |_, _| true),
            Boundary::TopK { .. } => unreachable!("a patcher is of a local rule"),
        }
    }

    fn push_entropies(
        &mut self,
        tokens: &[u16],
        entropies: &[f32],
        starts: &mut Vec<u32>,
        ends: impl Fn(usize, f32, f32) -> bool,
    ) {
        assert_eq!(entropies.len(), tokens.len(), "one entropy a token");
        let mut previous = self.previous;
        self.push_ends(entropies, starts, |p, entropy| {
            let before = std::mem::replace(&mut previous, *entropy);
            ends(p, before, *entropy)
        });
        self.previous = previous;
    }

    /// `ends(p, value)` tells of each value, in order, whether the patch of its token at `p` ends
    /// there.
    fn push_ends<T>(&mut self, values: &[T], starts: &mut Vec<u32>, mut ends: impl FnMut(usize, &T) -> bool) {
        for block in values.chunks(64) {
            // Bit by bit without a branch: where patches end is what a processor cannot guess.
            let mut starts_here = u64::from(self.starts_next);
            let mut ends_last = false;
            for (i, value) in block.iter().enumerate() {
                ends_last = ends(self.position + i, value);
                starts_here |= u64::from(ends_last) << i << 1;
            }
            self.starts_next = ends_last;
            if block.len() < 64 {
                starts_here &= (1 << block.len()) - 1;
            }
            while starts_here != 0 {
                self.splitter.start(self.position + starts_here.trailing_zeros() as usize, starts);
                starts_here &= starts_here - 1;
            }
            self.position += block.len();
        }
        self.splitter.advance(self.position, starts);
    }
}

/// Splits patches that grow too long.
#[derive(Clone, Debug)]
struct Splitter {
    last_start: usize,
    max_length: usize,
}

impl Splitter {
    fn new(rule: &PatchRule) -> Self {
        let max_length = rule.max_patch_length.map_or(usize::MAX, |length| length.get() as usize);
        Self { last_start: 0, max_length }
    }

    /// The patch so far ends before `position`, where another starts.
    fn start(&mut self, position: usize, starts: &mut Vec<u32>) {
        self.advance(position, starts);
        self.last_start = position;
        starts.push(position as u32);
    }

    /// The patch so far reaches to `position`, exclusive, at least.
    fn advance(&mut self, position: usize, starts: &mut Vec<u32>) {
        while position - self.last_start > self.max_length {
            self.last_start += self.max_length;
            starts.push(self.last_start as u32);
        }
    }
}

/// A byte that is neither ASCII letter or digit nor the continuation of a UTF-8 character, or a
/// token that is no byte.
fn is_space_like(token: u16) -> bool {
    let byte = token.wrapping_sub(BYTE_OFFSET);
    let within = |low: u16, high: u16| byte.wrapping_sub(low) <= high - low;
    !(within(0x30, 0x39) | within(0x41, 0x5A) | within(0x61, 0x7A) | within(0x80, 0xBF))
}

/// Tokens 0 and 1, and those after the `n / patch_size − 2` tokens of highest entropy, in order.
/// The last token is among the candidates, though nothing starts after it, and takes up a place, as
/// in the reference.
fn top_k_starts(entropies: &[f32], patch_size: usize) -> Vec<usize> {
    let n_tokens = entropies.len();
    let mut starts: Vec<usize> = (0..n_tokens.min(2)).collect();
    let k = (n_tokens / patch_size).saturating_sub(2);
    if k == 0 {
        return starts;
    }
    let mut ranks: Vec<u32> = entropies[1..].iter().map(|entropy| rank(*entropy)).collect();
    let (above, lowest, _) = ranks.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    let lowest = *lowest;
    let mut ties = k - above.iter().filter(|rank| **rank > lowest).count();
    for (p, entropy) in entropies.iter().enumerate().skip(1) {
        let rank = rank(*entropy);
        if rank == lowest && ties > 0 {
            ties -= 1;
        } else if rank <= lowest {
            continue;
        }
        if p + 1 < n_tokens {
            starts.push(p + 1);
        }
    }
    starts
}

/// Orders as the numbers do, NaN above them as `torch.topk` has it.
fn rank(entropy: f32) -> u32 {
    const SIGN: u32 = 1 << 31;
    // Adding 0 makes −0 the 0 that it equals.
    match (entropy + 0.0).to_bits() {
        _ if entropy.is_nan() => u32::MAX,
        negative if negative & SIGN != 0 => !negative,
        bits => bits | SIGN,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::data::{BOS, EOS};

    fn size(size: u32) -> NonZeroU32 {
        NonZeroU32::new(size).unwrap()
    }

    fn rule(boundary: Boundary) -> PatchRule {
        PatchRule { boundary, max_patch_length: None }
    }

    fn tokens_of(bytes: &[u8]) -> Vec<u16> {
        let bytes = bytes.iter().map(|byte| u16::from(*byte) + BYTE_OFFSET);
        std::iter::once(BOS).chain(bytes).chain([EOS]).collect()
    }

    /// Few distinct values, so that ties and exact hits of a threshold are common.
    fn entropy() -> impl Strategy<Value = f32> {
        prop_oneof![8 => (0u8..12).prop_map(|h| f32::from(h) * 0.5), 1 => 0.0f32..6.0]
    }

    fn document() -> impl Strategy<Value = (Vec<u16>, Vec<f32>)> {
        let byte = prop_oneof![any::<u8>(), Just(b' '), Just(b'a')];
        prop::collection::vec(byte, 0..200).prop_flat_map(|bytes| {
            let tokens = tokens_of(&bytes);
            let n = tokens.len();
            (Just(tokens), prop::collection::vec(entropy(), n))
        })
    }

    fn any_rule() -> impl Strategy<Value = PatchRule> {
        let boundary = prop_oneof![
            entropy().prop_map(|threshold| Boundary::Above { threshold }),
            (entropy(), entropy()).prop_map(|(threshold, rise)| Boundary::AboveAndRising { threshold, rise }),
            entropy().prop_map(|threshold| Boundary::Rising { threshold }),
            (1u32..20).prop_map(|n| Boundary::TopK { patch_size: size(n) }),
            Just(Boundary::Space),
            (1u32..20).prop_map(|n| Boundary::Static { patch_size: size(n) }),
            Just(Boundary::Byte),
        ];
        let longest = prop::option::of((1u32..20).prop_map(size));
        (boundary, longest).prop_map(|(boundary, max_patch_length)| PatchRule { boundary, max_patch_length })
    }

    proptest! {
        #[test]
        fn patches_are_the_document_cut((tokens, entropies) in document(), rule in any_rule()) {
            let lengths = patch_lengths(&rule, &tokens, &entropies);
            prop_assert_eq!(lengths.iter().sum::<u32>() as usize, tokens.len());
            prop_assert!(lengths.iter().all(|length| *length > 0));
            if let Some(longest) = rule.max_patch_length {
                prop_assert!(lengths.iter().all(|length| *length <= longest.get()));
            }
        }

        #[test]
        fn pieces_give_the_patches_of_the_whole(
            (tokens, entropies) in document(),
            rule in any_rule(),
            cuts in prop::collection::vec(0usize..202, 0..6),
        ) {
            let Some(mut patcher) = Patcher::new(&rule) else {
                prop_assert!(!rule.is_local());
                return Ok(());
            };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.min(&tokens.len())).collect();
            cuts.sort_unstable();
            cuts.push(tokens.len());
            let mut starts = Vec::new();
            let mut from = 0;
            for to in cuts {
                let before = starts.len();
                patcher.push(&tokens[from..to], &entropies[from..to], &mut starts);
                prop_assert!(starts[before..].iter().all(|start| (from..to).contains(&(*start as usize))));
                from = to;
            }
            let whole = patch_lengths(&rule, &tokens, &entropies);
            prop_assert_eq!(lengths_of_starts(starts, tokens.len()), whole);
        }

        #[test]
        fn byte_spans_tile_the_bytes((tokens, entropies) in document(), rule in any_rule()) {
            let lengths = patch_lengths(&rule, &tokens, &entropies);
            let mut end = 0;
            for (start, n_bytes) in byte_spans(&lengths) {
                prop_assert_eq!(start, end);
                prop_assert!(n_bytes > 0);
                end += n_bytes;
            }
            prop_assert_eq!(end, tokens.len() - 2);
        }

        /// Against the plainest way: sort every token by entropy.
        #[test]
        fn top_k_takes_the_highest_and_of_ties_the_earlier(
            (tokens, entropies) in document(),
            patch_size in 1u32..20,
        ) {
            let n = tokens.len();
            let k = (n / patch_size as usize).saturating_sub(2);
            let mut highest: Vec<usize> = (1..n).collect();
            highest.sort_by(|a, b| entropies[*b].total_cmp(&entropies[*a]));
            highest.truncate(k);
            prop_assert_eq!(highest.len(), k);
            highest.sort_unstable();
            let after = highest.iter().map(|p| p + 1);
            let starts = [0, 1].into_iter().chain(after).filter(|s| *s < n).map(|s| s as u32).collect();
            let rule = rule(Boundary::TopK { patch_size: size(patch_size) });
            prop_assert_eq!(patch_lengths(&rule, &tokens, &entropies), lengths_of_starts(starts, n));
        }
    }

    #[test]
    fn a_patch_starts_after_the_uncertain_token() {
        let tokens = tokens_of(b"abcdef");
        let entropies = [9.0, 1.0, 3.0, 2.0, 2.5, 0.0, 9.0, 9.0];
        let cases = [
            (Boundary::Above { threshold: 2.0 }, vec![1, 2, 2, 2, 1]),
            // Token 2 starts a patch whatever the entropies are.
            (Boundary::Rising { threshold: 1.5 }, vec![1, 1, 1, 4, 1]),
            // Token 3 does not, though token 2 rises above both.
            (Boundary::AboveAndRising { threshold: 2.0, rise: 0.1 }, vec![1, 1, 3, 2, 1]),
            // 8 / 2 − 2 starts: after tokens 6 and 7, and the one after 7 is past the end.
            (Boundary::TopK { patch_size: size(2) }, vec![1, 6, 1]),
            (Boundary::Static { patch_size: size(3) }, vec![3, 3, 2]),
        ];
        for (boundary, expected) in cases {
            assert_eq!(patch_lengths(&rule(boundary), &tokens, &entropies), expected, "{boundary:?}");
        }
    }

    #[test]
    fn a_threshold_is_exceeded_not_reached_and_never_by_nan() {
        let tokens = tokens_of(b"abc");
        let entropies = [0.0, 2.0, f32::NAN, 2.5, 0.0];
        let rule = rule(Boundary::Above { threshold: 2.0 });
        assert_eq!(patch_lengths(&rule, &tokens, &entropies), [1, 3, 1]);
    }

    #[test]
    fn space_ends_a_patch_with_the_first_of_a_run() {
        let tokens = tokens_of("ab  c\u{e9}d. e".as_bytes());
        // BOS | ab␣ | ␣cé → the lead byte of é ends one: ␣ c 0xC3 | 0xA9 d . | ␣ e EOS
        assert_eq!(patch_lengths(&rule(Boundary::Space), &tokens, &[]), [1, 3, 3, 3, 3]);
    }
}
