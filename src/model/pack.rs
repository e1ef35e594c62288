//! Packs documents' bytes into batches of whole contexts, end to end and in order. Knows nothing
//! about tensors, and nothing of what the documents mean.

use std::ops::Range;

use super::ModelError;
use crate::data::{BOS, BYTE_OFFSET, EOS, PackedTokens};

/// Which document a context of a batch belongs to, and which of its scores count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number given to [`Packer::push`].
    pub document: usize,
    /// Token of the document (BOS is 0) that the context begins with.
    pub first_token: usize,
    /// Length of the context in tokens.
    pub n_tokens: usize,
    /// How many leading tokens only give left context: the context before has their scores.
    pub skip: usize,
}

/// What the model scores in one go, and where its scores belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// What the model is given.
    pub packed: PackedTokens,
    /// One a context, in the order of `packed`.
    pub spans: Vec<Span>,
}

impl PackedBatch {
    /// Each span with the range of the batch's tokens whose scores belong to its document.
    ///
    /// Over all batches of a [`Packer`] these ranges give every token of every document once, in
    /// order.
    pub fn kept(&self) -> impl Iterator<Item = (Span, Range<usize>)> + '_ {
        self.spans.iter().scan(0, |start, &span| {
            let range = *start + span.skip..*start + span.n_tokens;
            *start += span.n_tokens;
            Some((span, range))
        })
    }
}

/// Turns documents into batches, one after the other, without holding more than one batch.
///
/// A document becomes `[BOS] bytes [EOS]`, cut every `context` tokens; a batch holds whole contexts
/// of one or more documents, at most `batch_tokens` tokens together. With an overlap each context
/// after a document's first begins that many tokens earlier, so that its first scores have left
/// context too.
#[derive(Debug)]
pub struct Packer {
    context: usize,
    batch_tokens: usize,
    overlap: usize,
    batch: PackedBatch,
}

impl Packer {
    /// A packer of contexts of `context` tokens into batches of `batch_tokens`, where contexts of
    /// a document share `overlap` tokens.
    ///
    /// # Errors
    /// When `context` is 0, `batch_tokens` below `context` or `overlap` not below `context`.
    pub fn new(context: usize, batch_tokens: usize, overlap: usize) -> Result<Self, ModelError> {
        if context == 0 {
            return Err(ModelError::Packing("a context has no tokens".into()));
        }
        if batch_tokens < context {
            return Err(ModelError::Packing(format!(
                "batches of {batch_tokens} tokens cannot hold a context of {context}"
            )));
        }
        if overlap >= context {
            return Err(ModelError::Packing(format!(
                "an overlap of {overlap} tokens leaves nothing of a context of {context}"
            )));
        }
        Ok(Self { context, batch_tokens, overlap, batch: PackedBatch::default() })
    }

    /// Adds a document and hands every batch that became full to `emit`.
    ///
    /// # Errors
    /// Those of `emit`; the packer must then be dropped.
    pub fn push<E>(
        &mut self,
        document: usize,
        bytes: &[u8],
        mut emit: impl FnMut(PackedBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let n_tokens = bytes.len() + 2;
        let mut scored = 0;
        while scored < n_tokens {
            let skip = self.overlap.min(scored);
            let first = scored - skip;
            let end = n_tokens.min(first + self.context);
            if self.batch.packed.tokens.len() + (end - first) > self.batch_tokens {
                emit(std::mem::take(&mut self.batch))?;
            }
            append_tokens(&mut self.batch.packed.tokens, bytes, first..end);
            self.batch.packed.context_lengths.push(end - first);
            self.batch.spans.push(Span { document, first_token: first, n_tokens: end - first, skip });
            scored = end;
        }
        Ok(())
    }

    /// Hands the last, partly filled batch to `emit`, if there is one.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn finish<E>(mut self, mut emit: impl FnMut(PackedBatch) -> Result<(), E>) -> Result<(), E> {
        if self.batch.spans.is_empty() {
            return Ok(());
        }
        emit(std::mem::take(&mut self.batch))
    }
}

/// Appends `range` of the tokens `[BOS] bytes [EOS]`.
fn append_tokens(tokens: &mut Vec<u16>, bytes: &[u8], range: Range<usize>) {
    let n_tokens = bytes.len() + 2;
    if range.start == 0 {
        tokens.push(BOS);
    }
    // Byte j is token j + 1.
    let inner = range.start.max(1) - 1..range.end.min(n_tokens - 1) - 1;
    if inner.start < inner.end {
        tokens.extend(bytes[inner].iter().map(|&b| u16::from(b) + BYTE_OFFSET));
    }
    if range.end == n_tokens {
        tokens.push(EOS);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(documents: &[Vec<u8>], context: usize, batch: usize, overlap: usize) -> Vec<PackedBatch> {
        let mut batches = Vec::new();
        let mut packer = Packer::new(context, batch, overlap).unwrap();
        let mut emit = |batch| -> Result<(), ()> {
            batches.push(batch);
            Ok(())
        };
        for (i, bytes) in documents.iter().enumerate() {
            packer.push(i, bytes, &mut emit).unwrap();
        }
        packer.finish(&mut emit).unwrap();
        batches
    }

    fn tokens_of(bytes: &[u8]) -> Vec<u16> {
        let bytes = bytes.iter().map(|&b| u16::from(b) + BYTE_OFFSET);
        std::iter::once(BOS).chain(bytes).chain([EOS]).collect()
    }

    #[test]
    fn contexts_are_cut_with_bos_first_and_eos_last() {
        let batches = pack(&[b"abcdef".to_vec(), vec![]], 5, 7, 0);
        let a = u16::from(b'a') + BYTE_OFFSET;
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].packed.tokens, [BOS, a, a + 1, a + 2, a + 3]);
        assert_eq!(batches[1].packed.tokens, [a + 4, a + 5, EOS, BOS, EOS]);
        assert_eq!(batches[1].packed.context_lengths, [3, 2]);
        assert_eq!(
            batches[1].spans,
            [
                Span { document: 0, first_token: 5, n_tokens: 3, skip: 0 },
                Span { document: 1, first_token: 0, n_tokens: 2, skip: 0 },
            ]
        );
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(Packer::new(0, 8, 0).is_err());
        assert!(Packer::new(9, 8, 0).is_err());
        assert!(Packer::new(8, 8, 8).is_err());
        assert!(Packer::new(8, 8, 7).is_ok());
    }

    proptest! {
        #[test]
        fn every_token_is_kept_once_and_in_order(
            documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12),
            context in 1usize..40,
            more in 0usize..60,
            overlap in 0usize..40,
        ) {
            let overlap = overlap % context;
            let batches = pack(&documents, context, context + more, overlap);
            let mut seen: Vec<Vec<u16>> = vec![Vec::new(); documents.len()];
            for batch in &batches {
                let PackedTokens { tokens, context_lengths } = &batch.packed;
                prop_assert!(tokens.len() <= context + more);
                prop_assert_eq!(context_lengths.iter().sum::<usize>(), tokens.len());
                prop_assert_eq!(context_lengths.len(), batch.spans.len());
                for ((span, range), &length) in batch.kept().zip(context_lengths) {
                    prop_assert_eq!(span.n_tokens, length);
                    prop_assert!(0 < length && length <= context);
                    prop_assert!(span.skip < length);
                    let whole = tokens_of(&documents[span.document]);
                    let first = range.start - span.skip;
                    prop_assert_eq!(
                        &tokens[first..range.end],
                        &whole[span.first_token..span.first_token + length]
                    );
                    prop_assert_eq!(seen[span.document].len(), span.first_token + span.skip);
                    if seen[span.document].len() > overlap {
                        prop_assert_eq!(span.skip, overlap);
                    }
                    seen[span.document].extend_from_slice(&tokens[range]);
                }
            }
            for (seen, bytes) in seen.iter().zip(&documents) {
                prop_assert_eq!(seen, &tokens_of(bytes));
            }
        }

        #[test]
        fn a_batch_is_handed_out_only_when_the_next_context_does_not_fit(
            lengths in prop::collection::vec(0usize..50, 1..12),
            context in 2usize..30,
            more in 0usize..60,
        ) {
            let documents: Vec<Vec<u8>> = lengths.iter().map(|&n| vec![0; n]).collect();
            let batches = pack(&documents, context, context + more, 0);
            for pair in batches.windows(2) {
                let next = pair[1].packed.context_lengths[0];
                prop_assert!(pair[0].packed.tokens.len() + next > context + more);
            }
        }
    }
}
