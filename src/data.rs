//! What travels between the stations of a pipeline, and the tokens of the model. Knows nothing of
//! files, tensors or threads.

use std::{fmt, num::NonZeroU32, ops::Range, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
    record_batch::RecordBatch,
};
use half::f16;

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

impl Scores {
    /// Adds the scores of the tokens that follow.
    pub fn append(&mut self, next: Scores) {
        let append = |all: &mut Option<Vec<f32>>, next: Option<Vec<f32>>| match (all.as_mut(), next) {
            (Some(all), Some(next)) => all.extend(next),
            (_, next) => *all = next,
        };
        self.entropies.extend(next.entropies);
        append(&mut self.norms, next.norms);
        append(&mut self.pre_norm, next.pre_norm);
    }
}

/// How a document's tokens fall into patches; the names and meaning of the reference (Pagnoni et
/// al. 2024 §2.3), applied by `patch.rs`.
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

/// The column that only documents which are views have, and that ties those of a row together.
pub const SOURCE_ID: &str = "source_id";

/// Columns that the `documents` table has of its own, so that none can be carried under their
/// names.
pub const DOCUMENT_COLUMNS: [&str; 11] = [
    "doc_id",
    SOURCE_ID,
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

/// Name of a unit: a run of rows of one shard that is read, scored, written and committed on its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId {
    /// Index of the shard in the sorted listing of the source.
    pub shard: u32,
    /// Index of the unit in its shard.
    pub unit: u32,
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}-{:05}", self.shard, self.unit)
    }
}

/// A unit of the plan: which rows, and what is known of them before they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name.
    pub id: UnitId,
    /// Path of its shard as the output tables call it.
    pub source_file: Arc<str>,
    /// Row numbers in the shard.
    pub rows: Range<u64>,
    /// Uncompressed bytes of the content column, as the footer tells them.
    pub content_bytes: u64,
    /// Uncompressed bytes of the carried columns, likewise.
    pub carried_bytes: u64,
}

/// Bytes of the values of `array`, those outside of its slice not counted, nor what a dictionary refers to.
pub fn value_bytes(array: &dyn Array) -> u64 {
    let whole = |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or(0) as u64;
    match array.data_type() {
        // A slice of a list still has all of its items.
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, end) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
            value_bytes(&list.values().slice(first, end - first)) + 4 * list.len() as u64
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|child| value_bytes(child)).sum(),
        DataType::Dictionary(..) => whole(array.as_any_dictionary().keys()),
        _ => whole(array),
    }
}

/// A row that no document comes from, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Row number in the shard.
    pub source_row: u64,
    /// As [`Document::doc_id`].
    pub doc_id: String,
    /// Name of the station that gave the row up.
    pub stage: &'static str,
    /// What was wrong with it.
    pub reason: String,
}

/// Content of a row and what the source knows of it besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The cell's bytes, exactly as stored.
    pub bytes: Vec<u8>,
    /// Name of the file it was, where the source has one.
    pub path: Option<String>,
    /// Value of the column that names the language of code.
    pub language: Option<String>,
}

/// One source row, undecoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// Row number in the shard.
    pub source_row: u64,
    /// As [`Document::source_id`].
    pub doc_id: String,
    /// What is to be decoded.
    pub content: Content,
}

/// Rows of one unit as the source read them.
#[derive(Debug)]
pub struct RawBatch {
    /// The unit they belong to.
    pub unit: Arc<Unit>,
    /// Rows with content, in source order.
    pub rows: Vec<RawRow>,
    /// Rows without.
    pub rejected: Vec<Rejected>,
    /// Rows that `source.where` or `source.sample` left out.
    pub n_filtered: u64,
    /// The columns named in `source.carry`, a row for each of `unit.rows`.
    pub carried: Option<RecordBatch>,
}

impl RawBatch {
    /// Of `unit`, before anything is read.
    pub fn new(unit: Arc<Unit>) -> Self {
        RawBatch { unit, rows: Vec::new(), rejected: Vec::new(), n_filtered: 0, carried: None }
    }
}

/// A part of a document that its modality gives a meaning to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is, in its modality's terms.
    pub kind: &'static str,
    /// Bytes of the document, end excluded.
    pub bytes: Range<u64>,
    /// JSON, where the modality has more to tell.
    pub meta: Option<String>,
}

/// What the model sees of a row: most rows have one view, their document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Name of the modality.
    pub modality: &'static str,
    /// What is put behind the row's id for a view beside the document itself: `raw`, `page-3`.
    pub name: Option<String>,
    /// Segments in order; none is empty and they tile `bytes` without gap or overlap.
    pub segments: Vec<Segment>,
    /// What the model sees between BOS and EOS.
    pub bytes: Vec<u8>,
}

/// A [`View`] of one source row, with the names that tell it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Row number in the shard.
    pub source_row: u64,
    /// Value of the id column, else `<file>#<row>`: what all views of a row have in common.
    pub source_id: Arc<str>,
    /// `source_id`, for a further view with `/` and its name.
    pub doc_id: String,
    /// Name of the modality.
    pub modality: &'static str,
    /// Segments in order; they tile `bytes`.
    pub segments: Vec<Segment>,
    /// What the model sees between BOS and EOS.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Tokens of the document, BOS and EOS included.
    pub fn n_tokens(&self) -> usize {
        self.bytes.len() + 2
    }
}

/// Documents of one unit.
#[derive(Debug)]
pub struct SegmentedBatch {
    /// The unit they belong to.
    pub unit: Arc<Unit>,
    /// In source order.
    pub documents: Vec<Document>,
    /// Rows given up so far.
    pub rejected: Vec<Rejected>,
    /// As [`RawBatch::n_filtered`].
    pub n_filtered: u64,
    /// As [`RawBatch::carried`].
    pub carried: Option<RecordBatch>,
}

/// Embeddings of one unit, row-major, in the type they are stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbeddingValues {
    /// `embedding_dtype = "f16"`.
    F16(Vec<f16>),
    /// `embedding_dtype = "f32"`.
    F32(Vec<f32>),
}

/// Columns of the table `patches`, a value a patch, documents in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatchColumns {
    /// Number of patches of each document.
    pub per_document: Vec<usize>,
    /// First byte.
    pub start: Vec<u64>,
    /// Bytes, at least 1.
    pub length: Vec<u64>,
    /// Uncertainty about the first byte, nats.
    pub entropy_start: Vec<f32>,
    /// Mean uncertainty about the patch's bytes, nats.
    pub entropy_mean: Vec<f32>,
    /// Mean L2 norm of the patch's tokens; `None` when norms are not written.
    pub norm_mean: Option<Vec<f32>>,
}

/// Everything the output tables say of one unit.
#[derive(Debug)]
pub struct PatchedUnit {
    /// The documents, in source order.
    pub batch: Arc<SegmentedBatch>,
    /// `[n_tokens of all documents]`, nats.
    pub entropies: Vec<f32>,
    /// `[n_tokens of all documents]`; `None` unless wanted.
    pub norms: Option<Vec<f32>>,
    /// Patch lengths in token space, documents in order.
    pub patch_lengths: Vec<u32>,
    /// Number of them for each document.
    pub patch_lengths_per_document: Vec<usize>,
    /// Patches that hold at least one byte.
    pub patches: PatchColumns,
    /// A row a document (zeros for one without bytes), a patch, or a byte, as `sink.embeddings` says.
    pub embeddings: Option<EmbeddingValues>,
}
