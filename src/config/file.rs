//! The pipeline file as it is written: one type a section, one field a key. Knows which keys exist,
//! what type each has and what it defaults to, and nothing of how they agree with each other. The
//! JSON Schema, the check for unknown keys and `--set` all follow from these types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pretokenize::{
    DocumentView, PretokenizeAudio, PretokenizeCode, PretokenizeDocument, PretokenizeImage, PretokenizeText,
    PretokenizeVideo,
};

/// A blt-pipeline pipeline: what the data means. Only `source.uri` and `sink.uri` are required.
/// Relative paths resolve against the working directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "blt-pipeline pipeline file")]
pub(super) struct PipelineFile {
    #[serde(default)]
    pub pipeline: PipelineSection,
    pub source: SourceSection,
    #[serde(default)]
    pub pretokenize: PretokenizeSection,
    #[serde(default)]
    pub model: ModelSection,
    #[serde(default)]
    pub patch: PatchSection,
    pub sink: SinkSection,
    #[serde(default)]
    pub limits: LimitsSection,
}

/// The pipeline itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineSection {
    /// What reports call this pipeline. Default: the file's name without its extension.
    #[schemars(length(min = 1))]
    pub name: Option<String>,
}

/// Where the rows come from and which of them count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceSection {
    /// Parquet files, or JSON Lines where the name ends in `.jsonl` or `.ndjson`, perhaps with `.gz` or `.zst`: a path, an
    /// `s3://`, `gs://`, `az://`, `https://` or `hf://datasets/` address, each with `*`, `?`, `**` where wanted; or a list of these.
    pub uri: OneOrMany,
    /// What the files are: `auto` takes them for JSON Lines where their names say so, else for Parquet.
    #[serde(default)]
    pub format: FileFormat,
    /// Configuration of a dataset that is named without a path, `hf://datasets/owner/name`. Default: `default`, or the only one.
    #[schemars(length(min = 1))]
    pub config: Option<String>,
    /// Split of such a dataset. Default: `train`, or the only one.
    #[schemars(length(min = 1))]
    pub split: Option<String>,
    /// Whether shards that lie elsewhere are downloaded whole, to a cache that stays, rather than read in ranges.
    #[serde(default)]
    pub cache: bool,
    /// Column with the document's id. Default: `id`, if the files have such a column; a column
    /// written here must exist.
    #[schemars(length(min = 1))]
    pub id: Option<String>,
    /// Column with the document's content.
    #[serde(default = "default_content")]
    #[schemars(length(min = 1))]
    pub content: String,
    /// What the content is.
    #[serde(default)]
    pub modality: Modality,
    /// Column with the path or name of the file that a row was, whose ending tells what it is. Default: the field `path` of a content
    /// that is a struct, or the path of a loose file.
    #[schemars(length(min = 1))]
    pub path: Option<String>,
    /// Column with the programming language of a row, for `modality = "code"` and `"auto"`. Default: none.
    #[schemars(length(min = 1))]
    pub language: Option<String>,
    /// Whether the file that a row's path names is read, beside the shard, where its content is null.
    #[serde(default)]
    pub resolve_paths: bool,
    /// Condition in SQL on the source's columns that a row must meet, evaluated by Polars. Default: every row.
    #[serde(rename = "where")]
    #[schemars(length(min = 1))]
    pub filter: Option<String>,
    /// Rows to read: the first so many in plan order, before `where` and `sample`. Default: all.
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// A random part of the rows, the same in every run. Default: all.
    pub sample: Option<SampleTable>,
    /// Columns copied as they are from the source to the `documents` table. Default: none.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub carry: Vec<String>,
}

/// A random part of the rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleTable {
    /// Part of the rows to keep, above 0 and at most 1.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1.0))]
    pub fraction: f64,
    /// Chooses which rows are kept; equal seeds keep equal rows.
    #[serde(default)]
    pub seed: u64,
}

/// How content becomes segments; a table for each modality.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PretokenizeSection {
    /// Threads that pretokenize; 0 leaves the number to the machine.
    #[schemars(range(max = 1024))]
    pub workers: u32,
    /// Seconds that decoding a row may take, above which it goes to quarantine; not for text, unless a tokenizer cuts it.
    #[schemars(range(min = 1, max = 86400))]
    pub row_seconds: u32,
    pub text: PretokenizeText,
    pub image: PretokenizeImage,
    pub audio: PretokenizeAudio,
    pub code: PretokenizeCode,
    pub document: PretokenizeDocument,
    pub video: PretokenizeVideo,
}

/// The entropy model and how it is run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ModelSection {
    /// `embedded` (the small model inside the program), a folder or file, or
    /// `hf://owner/name[@revision][/path]`.
    #[schemars(length(min = 1))]
    pub weights: String,
    /// What computes.
    pub device: Device,
    /// Which one, where there are several: its number or a part of its name, as `blt-pipeline devices` lists them.
    /// Default: the best GPU; software that answers in place of a GPU only where it is named here.
    #[schemars(length(min = 1))]
    pub adapter: Option<String>,
    /// Number format of weights and activations; softmax, norms and entropies are f32 always.
    pub precision: Precision,
    /// Tokens of a document that the model sees at once. Default: the model's `max_seqlen`.
    #[schemars(range(min = 1))]
    pub context: Option<u32>,
    /// Tokens that a context repeats from the one before it; below `context`.
    pub overlap: u32,
    /// Tokens scored in one go, at least `context`; `auto` leaves the number to the device.
    pub batch_tokens: AutoOr,
}

/// Where patches start. The names and meaning are those of the reference (facebookresearch/blt).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchSection {
    /// The rule that starts patches.
    #[serde(default)]
    pub mode: PatchMode,
    /// Entropy in nats that a token must exceed for a patch to start after it; with `monotonicity`
    /// the rise in nats. Only for mode `entropy`. Default: the model's own (`patch.json`), else
    /// 1.335442066192627.
    pub threshold: Option<f64>,
    /// Rise in nats over the previous token that is needed besides `threshold`. Only for mode
    /// `entropy`. Default: none is needed.
    pub threshold_add: Option<f64>,
    /// Compare the rise over the previous token with `threshold`, not the entropy itself. Only for
    /// mode `entropy`.
    #[serde(default)]
    pub monotonicity: bool,
    /// Tokens in a patch: of each for mode `static`; on average for mode `entropy`, where it stands
    /// instead of `threshold` and the highest entropies of a document start its patches.
    #[schemars(range(min = 1))]
    pub patch_size: Option<u32>,
    /// Longer patches are split into pieces of this many tokens. Default: no limit.
    #[schemars(range(min = 1))]
    pub max_patch_length: Option<u32>,
}

/// Where the tables go and what they hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkSection {
    /// Folder of the output: a path, or `s3://`, `gs://` or `az://` with bucket and folder.
    #[schemars(length(min = 1))]
    pub uri: String,
    /// What gets an embedding: the mean of the hidden states over its bytes.
    #[serde(default)]
    pub embeddings: Embeddings,
    /// Number format of the embeddings.
    #[serde(default)]
    pub embedding_dtype: EmbeddingDtype,
    /// Whether `documents` holds the entropy of every token, in nats.
    #[serde(default = "default_true")]
    pub entropies: bool,
    /// Whether the tables hold norms of the hidden state.
    #[serde(default = "default_true")]
    pub norms: bool,
    /// Compression of the tables: `none`, or `zstd:` and a level from 1 to 22.
    #[serde(default = "default_compression")]
    pub compression: String,
    /// Bytes of source in a unit, which is what is resumed, retried and handed out: content, carried
    /// columns and 64 more a row; an integer, or a string like `4 MiB`. Default: 4 MiB with embeddings `none` or `document`, 1 MiB with
    /// `patch`, 256 KiB with `byte`.
    pub unit_bytes: Option<ByteSize>,
}

/// When to stop, and what not to take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    /// Bytes that everything on its way may hold at once, the model not counted: an integer, or a string like `2 GiB`. A unit that
    /// needs more fails by name. Without it 2 GiB; with a GPU that has memory of its own a
    /// quarter of the machine's or container's, 2 to 8 GiB.
    pub memory: Option<ByteSize>,
    /// Longest document in bytes: an integer, or a string like `32 MiB`. A longer one goes to
    /// quarantine.
    pub max_document_bytes: ByteSize,
    /// Rows that may go to quarantine before the run counts as failed: a float is a fraction of all
    /// rows (1.0 is all of them), an integer a number of rows.
    pub max_quarantined: Quarantine,
    /// Seconds that units in flight may take to finish after SIGINT or SIGTERM; then they are dropped.
    #[schemars(range(max = 86400))]
    pub stop_grace_seconds: u32,
}

/// What the source's files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// As their names say: JSON Lines or Parquet.
    #[default]
    Auto,
    /// Parquet.
    Parquet,
    /// A JSON object a line, plain or in gzip or zstd, as the name's ending says.
    Jsonl,
    /// Anything: each file is a document.
    Files,
}

/// What a document's content is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// A string or binary column, its bytes taken as they are.
    #[default]
    Text,
    /// Files of PNG, JPEG, GIF, WebP, TIFF, BMP and other formats: RGB pixels, patch by patch.
    Image,
    /// Files of WAV, FLAC, MP3, Ogg, M4A, AIFF and other formats: samples of 16 bits, frame by frame.
    Audio,
    /// Source code, its bytes as they are, item by item.
    Code,
    /// PDF: the text of its pages.
    Document,
    /// ELF, PE and Mach-O, their bytes as they are, section by section.
    Binary,
    /// Films in MP4, WebM, Matroska, AVI and other formats: pictures at even times, patch by patch, with the sound between them; of builds with
    /// the feature `video`.
    Video,
    /// Whichever of these a row is, told by its first bytes, its path and its content.
    Auto,
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The fastest one that is there.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU through whichever interface the system offers.
    Wgpu,
    /// A GPU through Vulkan.
    Vulkan,
    /// A GPU through Metal.
    Metal,
    /// An NVIDIA GPU through CUDA.
    Cuda,
}

/// Number format of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What the device does well.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE.
    F16,
    /// 16-bit floats with the exponent of f32.
    Bf16,
}

/// The rule that starts patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PatchMode {
    /// After a token whose next one is hard to guess.
    #[default]
    Entropy,
    /// After space-like bytes.
    Space,
    /// Every `patch_size` tokens.
    Static,
    /// At every token.
    Byte,
}

/// What gets an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Embeddings {
    /// Nothing.
    None,
    /// Each document, in `documents`.
    Document,
    /// Each patch, in `patches`.
    #[default]
    Patch,
    /// Each byte, in `bytes`.
    Byte,
}

/// Number format of the embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingDtype {
    /// 16-bit floats, IEEE.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum OneOrMany {
    One(#[schemars(length(min = 1))] String),
    Many(#[schemars(length(min = 1), inner(length(min = 1)))] Vec<String>),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum AutoOr {
    Auto(Auto),
    Tokens(#[schemars(range(min = 1))] u32),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Auto {
    Auto,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum ByteSize {
    Bytes(#[schemars(range(min = 1))] u64),
    Text(String),
}

/// How many rows may go to quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Quarantine {
    /// A number of rows.
    Rows(u64),
    /// A part of all rows, from 0 to 1.
    Fraction(#[schemars(range(min = 0.0, max = 1.0))] f64),
}

impl Default for PretokenizeSection {
    fn default() -> Self {
        Self {
            workers: 0,
            row_seconds: 60,
            text: PretokenizeText::default(),
            image: PretokenizeImage::default(),
            audio: PretokenizeAudio::default(),
            code: PretokenizeCode::default(),
            document: PretokenizeDocument::default(),
            video: PretokenizeVideo::default(),
        }
    }
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            weights: "embedded".to_owned(),
            device: Device::default(),
            adapter: None,
            precision: Precision::default(),
            context: None,
            overlap: 0,
            batch_tokens: AutoOr::Auto(Auto::Auto),
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            memory: None,
            max_document_bytes: ByteSize::Text("32 MiB".to_owned()),
            max_quarantined: Quarantine::Fraction(0.01),
            stop_grace_seconds: 10,
        }
    }
}

fn default_content() -> String {
    "text".to_owned()
}

fn default_compression() -> String {
    "zstd:3".to_owned()
}

fn default_true() -> bool {
    true
}

impl Modality {
    /// As the pipeline file calls it.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::Audio => "audio",
            Modality::Code => "code",
            Modality::Document => "document",
            Modality::Binary => "binary",
            Modality::Video => "video",
            Modality::Auto => "auto",
        }
    }

    /// Whether a row may become several documents, where `views` are what a PDF file is seen as.
    pub fn has_views(self, views: &[DocumentView]) -> bool {
        matches!(self, Modality::Document | Modality::Auto) && DocumentView::are_several(views)
    }
}

impl Device {
    /// As the pipeline file calls it.
    pub fn name(self) -> &'static str {
        match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
            Device::Wgpu => "wgpu",
            Device::Vulkan => "vulkan",
            Device::Metal => "metal",
            Device::Cuda => "cuda",
        }
    }
}

impl Precision {
    /// As the pipeline file calls it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }
}
