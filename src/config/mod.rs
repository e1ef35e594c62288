//! A pipeline file and the flags that override it in, a validated [`Pipeline`] out, or every mistake
//! with its line. Knows nothing of the data, the model or the machine.

mod check;
mod error;
mod file;
mod pretokenize;
mod tree;
mod validate;

#[cfg(test)]
mod tests;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::data::{Boundary, PatchRule};
use crate::remote::ModelAddress;

pub use check::json_schema;
pub use error::{ConfigError, Problem};
pub use file::{Device, EmbeddingDtype, Embeddings, FileFormat, Modality, Precision, Quarantine};
pub use pretokenize::{
    DocumentView, InvalidUtf8, Language, PretokenizeAudio, PretokenizeCode, PretokenizeDocument,
    PretokenizeImage, PretokenizeText, PretokenizeVideo, TextSegments,
};

/// The threshold that the reference releases with its model, nats.
pub const RELEASED_THRESHOLD: f32 = 1.335_442_1;

/// What a run is asked to do. Exists only validated: no stage checks it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What reports call it.
    pub name: String,
    /// `[source]`.
    pub source: Source,
    /// `[pretokenize]`.
    pub pretokenize: Pretokenize,
    /// `[model]`.
    pub model: Model,
    /// `[patch]`.
    pub patch: PatchSpec,
    /// `[sink]`.
    pub sink: Sink,
    /// `[limits]`.
    pub limits: Limits,
}

/// Where the rows come from and which of them count.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// As written, at least one, none empty.
    pub uris: Vec<String>,
    /// What the files are.
    pub format: FileFormat,
    /// Configuration of a dataset on the Hub.
    pub config: Option<String>,
    /// Split of a dataset on the Hub.
    pub split: Option<String>,
    /// Whether shards that lie elsewhere are downloaded whole.
    pub cache: bool,
    /// Column with the document's id.
    pub id: IdColumn,
    /// Column with the content.
    pub content: String,
    /// What the content is.
    pub modality: Modality,
    /// Column with the path of the file that a row was; `None` leaves it to the content.
    pub path: Option<String>,
    /// Column with the language of code.
    pub language: Option<String>,
    /// Whether a row without content is the file that its path names.
    pub resolve_paths: bool,
    /// Condition on the source's columns, as written.
    pub filter: Option<String>,
    /// Rows to read in plan order, before `filter` and `sample`.
    pub limit: Option<NonZeroU64>,
    /// The random part of the rows to keep.
    pub sample: Option<Sample>,
    /// Columns copied to `documents`: distinct, without the content, none named like a column that
    /// `documents` has anyway.
    pub carry: Vec<String>,
}

impl Source {
    /// Whether it matters which file a row was.
    pub fn needs_path(&self) -> bool {
        self.modality != Modality::Text || self.resolve_paths
    }
}

/// The column with the document's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdColumn {
    /// Its name.
    pub name: String,
    /// Whether a file without it is an error: the pipeline file names it.
    pub required: bool,
}

/// A random part of the rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// In (0, 1].
    pub fraction: f64,
    /// Chooses which rows are kept.
    pub seed: u64,
}

impl Sample {
    /// Whether a row belongs to the sample: a hash of seed, file and row, so that it does wherever and
    /// whenever it is read.
    pub fn keeps(&self, source_file: &str, source_row: u64) -> bool {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(source_row.to_le_bytes());
        hash.update(source_file);
        let hash = hash.finalize();
        let mut head = [0u8; 8];
        head.copy_from_slice(&hash[..8]);
        // The 53 bits that an f64 holds exactly: uniform in [0, 1).
        let uniform = (u64::from_le_bytes(head) >> 11) as f64 / (1u64 << 53) as f64;
        uniform < self.fraction
    }
}

/// How content becomes segments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pretokenize {
    /// Threads; `None` leaves the number to the machine.
    pub workers: Option<NonZeroU32>,
    /// What decoding a row may take.
    pub row_time: Duration,
    /// For text.
    pub text: PretokenizeText,
    /// For images.
    pub image: PretokenizeImage,
    /// For sounds.
    pub audio: PretokenizeAudio,
    /// For code.
    pub code: PretokenizeCode,
    /// For PDF.
    pub document: PretokenizeDocument,
    /// For films.
    pub video: PretokenizeVideo,
}

/// The entropy model and how it is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Where its weights are.
    pub weights: Weights,
    /// What computes.
    pub device: Device,
    /// Which of these devices: its number or a part of its name.
    pub adapter: Option<String>,
    /// Number format of weights and activations.
    pub precision: Precision,
    /// Tokens of a context; `None` is the model's `max_seqlen`, and the model refuses a larger one.
    pub context: Option<NonZeroU32>,
    /// Tokens that a context repeats from the one before it; below `context` where that is given.
    pub overlap: u32,
    /// Tokens scored in one go, at least `context` where both are given; `None` leaves the number
    /// to the device.
    pub batch_tokens: Option<NonZeroU32>,
}

/// Where the model's weights are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// The small model inside the program.
    #[default]
    Embedded,
    /// A model folder or a weights file.
    Path(PathBuf),
    /// `hf://owner/name[@revision][/path]`.
    Hub(ModelAddress),
}

/// The patch rule as far as the pipeline file knows it: a threshold that is not written there comes
/// from the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatchSpec {
    /// With [`RELEASED_THRESHOLD`] where none is written.
    rule: PatchRule,
    threshold_written: bool,
}

/// Where the tables go and what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// As written; not empty.
    pub uri: String,
    /// What gets an embedding.
    pub embeddings: Embeddings,
    /// Number format of the embeddings.
    pub embedding_dtype: EmbeddingDtype,
    /// Whether `documents` holds the entropies.
    pub entropies: bool,
    /// Whether the tables hold norms.
    pub norms: bool,
    /// Compression of the tables.
    pub compression: Compression,
    /// Bytes of content in a unit; the default is already chosen by `embeddings`.
    pub unit_bytes: NonZeroU64,
}

/// Compression of the output tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None at all.
    None,
    /// Level, 1 to 22.
    Zstd(i32),
}

/// When to stop, and what not to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes that everything on its way may hold at once, the model not counted; not 0. `None` leaves the number to the device.
    pub memory: Option<u64>,
    /// Longest document in bytes: not 0, and its tokens fit an Arrow list.
    pub max_document_bytes: u64,
    /// Rows that may go to quarantine before the run counts as failed.
    pub max_quarantined: Quarantine,
    /// What units in flight may take to finish after a stop was asked for.
    pub stop_grace: Duration,
}

/// What the command line says in place of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `section.key=value` each, the later one winning; the value in TOML, or else a bare string.
    pub set: Vec<String>,
    /// `--limit`: in place of `source.limit`.
    pub limit: Option<u64>,
    /// `--output`: in place of `sink.uri`.
    pub output: Option<String>,
}

impl Weights {
    /// What `written` names: `embedded`, a path, or `hf://owner/name[@revision][/path]`.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn parse(written: &str) -> Result<Weights, String> {
        validate::weights_of(written)
    }
}

impl Pipeline {
    /// Reads the pipeline file at `path` and applies `overrides`.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`parse`](Self::parse).
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.to_string_lossy(), overrides)
    }

    /// Parses the pipeline file `text`, called `name` in messages, and applies `overrides`. A
    /// pipeline without a name of its own gets the stem of `name`.
    ///
    /// # Errors
    /// The first mistake in the TOML itself; or else every unknown key, wrong type, value out of
    /// range and missing key; or else every contradiction.
    pub fn parse(text: &str, name: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let document = tree::Document::parse(text, name, overrides)?;
        let file = check::check(&document)?;
        validate::validate(file, &document)
    }

    /// Whether a row may become several documents.
    pub fn has_views(&self) -> bool {
        self.source.modality.has_views(&self.pretokenize.document.views)
    }

    /// Everything in the pipeline file that decides what the output holds, flat, sorted by key, for
    /// the fingerprint. An optional key that is not written is null.
    ///
    /// Left out: what names the data rather than its treatment (`source.uri`, `config` and `split`, `sink.uri`, the
    /// weights), what only steers the run (cache, device, adapter, workers, memory, `max_quarantined`, the grace), and what
    /// the model has yet to resolve (threshold, context, `batch_tokens`).
    pub fn meaning(&self) -> Map<String, Value> {
        // Every field is named, so that a new one cannot be forgotten here.
        let Self { name: _, source, pretokenize, model, patch, sink, limits } = self;
        let Source {
            uris: _,
            format,
            config: _,
            split: _,
            cache: _,
            id,
            content,
            modality,
            path,
            language,
            resolve_paths,
            filter,
            limit,
            sample,
            carry,
        } = source;
        let Pretokenize { workers: _, row_time: _, text, image, audio, code, document, video } = pretokenize;
        let Model { weights: _, device: _, adapter: _, precision, context: _, overlap, batch_tokens: _ } =
            model;
        let Sink { uri: _, embeddings, embedding_dtype, entropies, norms, compression, unit_bytes } = sink;
        let Limits { memory: _, max_document_bytes, max_quarantined: _, stop_grace: _ } = limits;

        let (mode, patch_size, threshold_add, monotonicity) = match patch.rule.boundary {
            Boundary::Above { .. } => ("entropy", None, None, false),
            Boundary::AboveAndRising { rise, .. } => ("entropy", None, Some(rise), false),
            Boundary::Rising { .. } => ("entropy", None, None, true),
            Boundary::TopK { patch_size } => ("entropy", Some(patch_size), None, false),
            Boundary::Space => ("space", None, None, false),
            Boundary::Static { patch_size } => ("static", Some(patch_size), None, false),
            Boundary::Byte => ("byte", None, None, false),
        };
        let compression = match compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd(level) => format!("zstd:{level}"),
        };
        let meaning = vec![
            ("limits.max_document_bytes", json!(max_document_bytes)),
            ("model.overlap", json!(overlap)),
            ("model.precision", json!(precision)),
            ("patch.max_patch_length", json!(patch.rule.max_patch_length)),
            ("patch.mode", json!(mode)),
            ("patch.monotonicity", json!(monotonicity)),
            ("patch.patch_size", json!(patch_size)),
            ("patch.threshold_add", json!(threshold_add)),
            ("sink.compression", json!(compression)),
            ("sink.embedding_dtype", json!(embedding_dtype)),
            ("sink.embeddings", json!(embeddings)),
            ("sink.entropies", json!(entropies)),
            ("sink.norms", json!(norms)),
            ("sink.unit_bytes", json!(unit_bytes)),
            ("source.carry", json!(carry)),
            ("source.content", json!(content)),
            ("source.format", json!(format)),
            ("source.id", json!(id.name)),
            ("source.limit", json!(limit)),
            ("source.modality", json!(modality)),
            ("source.sample.fraction", json!(sample.map(|sample| sample.fraction))),
            ("source.sample.seed", json!(sample.map(|sample| sample.seed))),
            ("source.where", json!(filter)),
        ];
        let mut meaning: Vec<(String, Value)> =
            meaning.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let pages_are_pictures = pretokenize.document.views.contains(&DocumentView::Image);
        // Only of the modalities that a row can have, and only what is not as it was before there were others than text.
        for (name, settings, default) in [
            ("text", json!(text), json!(PretokenizeText::default())),
            ("image", json!(image), json!({})),
            ("audio", json!(audio), json!({})),
            ("code", json!(code), json!({})),
            ("document", json!(document), json!({})),
            ("video", json!(video), json!({})),
        ] {
            // Pages are cut like any other picture, and pictures and sound of a film like any other, too.
            let of_pages = name == "image" && *modality == Modality::Document && pages_are_pictures;
            let of_film = *modality == Modality::Video && ["image", "audio"].contains(&name);
            let of_rows = [name, "auto"].contains(&modality.name()) || of_pages || of_film;
            for (key, value) in settings.as_object().into_iter().flatten().filter(|_| of_rows) {
                let counts = pages_are_pictures || (name, key.as_str()) != ("document", "dpi");
                if counts && default.get(key) != Some(value) {
                    meaning.push((format!("pretokenize.{name}.{key}"), value.clone()));
                }
            }
        }
        for (key, column) in [("source.path", path), ("source.language", language)] {
            meaning.extend(column.iter().map(|column| (key.to_owned(), json!(column))));
        }
        if *resolve_paths {
            meaning.push(("source.resolve_paths".to_owned(), json!(true)));
        }
        meaning.sort_by(|(a, _), (b, _)| a.cmp(b));
        meaning.into_iter().collect()
    }
}

impl PatchSpec {
    /// Nats above which the uncertainty starts patches under the [resolved](Self::resolve) rule, if that is what does.
    pub fn threshold(&self, model_default: Option<f32>) -> Option<f32> {
        match self.resolve(model_default).boundary {
            Boundary::Above { threshold } | Boundary::AboveAndRising { threshold, .. } => Some(threshold),
            _ => None,
        }
    }

    /// The rule to patch with. A threshold that the pipeline file does not write is
    /// `model_default`, the one in the model's folder, or else [`RELEASED_THRESHOLD`].
    pub fn resolve(&self, model_default: Option<f32>) -> PatchRule {
        let mut rule = self.rule;
        let default = model_default.filter(|_| !self.threshold_written);
        if let Some(default) = default {
            match &mut rule.boundary {
                Boundary::Above { threshold }
                | Boundary::AboveAndRising { threshold, .. }
                | Boundary::Rising { threshold } => *threshold = default,
                Boundary::TopK { .. } | Boundary::Space | Boundary::Static { .. } | Boundary::Byte => {}
            }
        }
        rule
    }
}
