//! The entropy model: bytes in; entropies, norms and hidden states out. Knows nothing of files of
//! documents, patches or threads.

use crate::data::{PackedTokens, Scores, Wanted};

/// A byte-level language model that tells how uncertain it is after every token.
pub trait EntropyModel: Send {
    /// Width of the hidden state.
    fn dim(&self) -> usize;

    /// Longest context in tokens that the model accepts.
    fn max_context(&self) -> usize;

    /// What decides the last bits of the results: backend, adapter, driver, precision, kernels, CPU
    /// instruction level. Equal classes give equal bytes for equal [`PackedTokens`].
    fn device_class(&self) -> String;

    /// Scores every token of `batch`: each context alone, with positions from 0.
    ///
    /// # Errors
    /// When a context is empty or longer than [`max_context`](Self::max_context), when a token is
    /// outside the vocabulary, or when the device fails.
    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError>;
}
