//! What travels between the stations of a pipeline, and the tokens of the model. Knows nothing of
//! files, tensors or threads.

/// Token before the first byte of every document.
pub const BOS: u16 = 1;
/// Token after the last byte of every document.
pub const EOS: u16 = 2;
/// A byte `b` is the token `b + BYTE_OFFSET`.
pub const BYTE_OFFSET: u16 = 4;
/// Number of distinct tokens: the special ones and 256 bytes.
pub const VOCABULARY: usize = 260;

/// Contexts laid end to end: what the model scores in one go.
///
/// A *context* is a run of tokens of one document, seen alone with positions from 0. Tokens of
/// different contexts never influence each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedTokens {
    /// `[n_tokens]`, each below [`VOCABULARY`].
    pub tokens: Vec<u16>,
    /// Length of each context in tokens, none of them 0; they sum to `tokens.len()`.
    pub context_lengths: Vec<usize>,
}

/// Which values the device returns besides the entropies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// L2 norms of the hidden state before the final norm.
    pub norms: bool,
    /// That hidden state itself.
    pub pre_norm: bool,
}

/// What the model says of [`PackedTokens`], token by token and in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `[n_tokens]`, nats: entropy of the prediction made after each token.
    pub entropies: Vec<f32>,
    /// `[n_tokens]`: L2 norm of `pre_norm`; `None` unless wanted.
    pub norms: Option<Vec<f32>>,
    /// `[n_tokens × dim]`, row-major: hidden state before the final norm; `None` unless wanted.
    pub pre_norm: Option<Vec<f32>>,
}
