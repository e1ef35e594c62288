//! What travels between the stations of a pipeline, and the tokens of the model. Knows nothing of
//! files, tensors or threads.

use std::num::NonZeroU32;

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

/// How a document's tokens fall into patches; the names and meaning of the reference (Pagnoni et
/// al. 2024 §2.3). Says nothing of entropies' origin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatchRule {
    /// What starts a patch.
    pub boundary: Boundary,
    /// A longer patch is cut from its front into pieces of this many tokens and a rest.
    pub max_patch_length: Option<NonZeroU32>,
}

/// What starts a patch. `H` is the entropy after token `p ≥ 1`, in nats; it decides about a start
/// at `p + 1`. All but [`Static`](Boundary::Static) start patches at tokens 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Boundary {
    /// `H > threshold`.
    Above {
        /// Nats.
        threshold: f32,
    },
    /// `H > threshold` and a rise over the previous token of more than `rise`; token 2 always
    /// starts a patch, token 3 never.
    AboveAndRising {
        /// Nats.
        threshold: f32,
        /// Nats.
        rise: f32,
    },
    /// A rise over the previous token of more than `threshold`; token 2 always starts a patch.
    Rising {
        /// Nats.
        threshold: f32,
    },
    /// The `max(n_tokens / patch_size − 2, 0)` highest entropies, ties to the earlier token.
    TopK {
        /// Tokens of a patch on average.
        patch_size: NonZeroU32,
    },
    /// After the first of a run of bytes that are neither ASCII letter or digit nor UTF-8
    /// continuation.
    Space,
    /// Every `patch_size` tokens from token 0.
    Static {
        /// Tokens of a patch.
        patch_size: NonZeroU32,
    },
    /// Every token.
    Byte,
}

impl PatchRule {
    /// Whether the starts up to a token depend on the tokens before it only, so that a document
    /// can be patched piece by piece.
    pub fn is_local(&self) -> bool {
        !matches!(self.boundary, Boundary::TopK { .. })
    }
}

/// Columns that the `documents` table has of its own, so that none can be carried under their
/// names.
pub const DOCUMENT_COLUMNS: [&str; 10] = [
    "doc_id",
    "source_file",
    "source_row",
    "modality",
    "n_bytes",
    "segments",
    "entropies",
    "norms",
    "patch_lengths",
    "embedding",
];
