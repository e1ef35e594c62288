//! The file as written in, the [`Pipeline`] out, if its keys agree with each other. Knows nothing of
//! the TOML but where each key stands.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::data::{Boundary, DOCUMENT_COLUMNS, PatchRule, SOURCE_ID};

use crate::remote::ModelAddress;

use super::error::{ConfigError, Problem};
use super::file::{
    AutoOr, ByteSize, Embeddings, LimitsSection, ModelSection, OneOrMany, PatchMode, PatchSection,
    PipelineFile, PretokenizeSection, SinkSection, SourceSection,
};
use super::tree::{Document, Part};
use super::{
    Compression, IdColumn, Limits, Modality, Model, PatchSpec, Pipeline, Pretokenize, RELEASED_THRESHOLD,
    Sample, Sink, Source, TextSegments, Weights,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A unit is held as a whole, and its tokens fit an Arrow list.
const MOST_UNIT_BYTES: u64 = 1 << 30;

/// Arrow's lists count their values with 31 bits, and a document's tokens are its bytes, BOS and
/// EOS.
const MOST_DOCUMENT_BYTES: u64 = i32::MAX as u64 - 2;

/// # Errors
/// Every contradiction, in the order of the text.
pub(super) fn validate(file: PipelineFile, document: &Document<'_>) -> Result<Pipeline, ConfigError> {
    let mut report = Report { document, problems: Vec::new() };
    let name = file.pipeline.name.unwrap_or_else(|| {
        let stem = Path::new(document.name()).file_stem();
        stem.unwrap_or_default().to_string_lossy().into_owned()
    });
    let modality = file.source.modality;
    let has_views = modality.has_views(&file.pretokenize.document.views);
    let pipeline = Pipeline {
        name,
        source: source(file.source, has_views, &mut report),
        pretokenize: pretokenize(file.pretokenize, &mut report),
        model: model(file.model, &mut report),
        patch: patch(&file.patch, &mut report),
        sink: sink(file.sink, modality, &mut report),
        limits: limits(&file.limits, &mut report),
    };
    if report.problems.is_empty() {
        return Ok(pipeline);
    }
    report.problems.sort_by_key(|(order, _)| *order);
    let problems = report.problems.into_iter().map(|(_, problem)| problem);
    Err(ConfigError::Invalid(problems.collect()))
}

/// The problems found so far. A value that has one is replaced by any other, as no pipeline comes
/// of it.
struct Report<'a> {
    document: &'a Document<'a>,
    /// With their order in the text.
    problems: Vec<(usize, Problem)>,
}

impl Report<'_> {
    /// Notes that the value at `path` does not fit.
    fn add(&mut self, path: &[&str], message: String) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        let problem = self.document.problem(&path, Part::Value, message);
        self.problems.push((self.document.order(&path), problem));
    }
}

fn source(section: SourceSection, has_views: bool, report: &mut Report<'_>) -> Source {
    for (index, column) in section.carry.iter().enumerate() {
        let message = if section.carry[..index].contains(column) {
            format!("source.carry names `{column}` twice")
        } else if *column == section.content {
            format!("source.carry names `{column}`, which is source.content,")
        } else if DOCUMENT_COLUMNS.contains(&column.as_str()) && (has_views || column != SOURCE_ID) {
            format!("source.carry names `{column}`, which the documents table has of its own,")
        } else {
            continue;
        };
        report.add(&["source", "carry", &index.to_string()], message);
    }
    Source {
        uris: match section.uri {
            OneOrMany::One(uri) => vec![uri],
            OneOrMany::Many(uris) => uris,
        },
        format: section.format,
        config: section.config,
        split: section.split,
        cache: section.cache,
        id: IdColumn { required: section.id.is_some(), name: section.id.unwrap_or_else(|| "id".to_owned()) },
        content: section.content,
        modality: section.modality,
        path: section.path,
        language: section.language,
        resolve_paths: section.resolve_paths,
        filter: section.filter,
        limit: section.limit.and_then(NonZeroU64::new),
        sample: section.sample.map(|sample| Sample { fraction: sample.fraction, seed: sample.seed }),
        carry: section.carry,
    }
}

fn pretokenize(section: PretokenizeSection, report: &mut Report<'_>) -> Pretokenize {
    let PretokenizeSection { workers, row_seconds, text, image, audio, code, document, video } = section;
    match (text.segments, &text.tokenizer) {
        (TextSegments::Tokenizer, None) => {
            let message =
                "pretokenize.text.segments \"tokenizer\" needs pretokenize.text.tokenizer; it is written";
            report.add(&["pretokenize", "text", "segments"], message.to_owned());
        }
        (TextSegments::Whole | TextSegments::Paragraph | TextSegments::Sentence, Some(_)) => {
            let message = "pretokenize.text.tokenizer is only for pretokenize.text.segments \"tokenizer\"; it is written";
            report.add(&["pretokenize", "text", "tokenizer"], message.to_owned());
        }
        _ => {}
    }
    for (index, view) in document.views.iter().enumerate() {
        if document.views[..index].contains(view) {
            let message = "pretokenize.document.views names a view twice".to_owned();
            report.add(&["pretokenize", "document", "views", &index.to_string()], message);
        }
    }
    let row_time = Duration::from_secs(row_seconds.into());
    Pretokenize { workers: NonZeroU32::new(workers), row_time, text, image, audio, code, document, video }
}

fn model(section: ModelSection, report: &mut Report<'_>) -> Model {
    let batch_tokens = match section.batch_tokens {
        AutoOr::Auto(_) => None,
        AutoOr::Tokens(tokens) => NonZeroU32::new(tokens),
    };
    let context = section.context.and_then(NonZeroU32::new);
    if let Some(context) = context {
        if section.overlap >= context.get() {
            let message =
                format!("model.overlap is {}, but must be below model.context, {context},", section.overlap);
            report.add(&["model", "overlap"], message);
        }
        if let Some(batch_tokens) = batch_tokens.filter(|tokens| *tokens < context) {
            let message = format!(
                "model.batch_tokens is {batch_tokens}, but must be at least model.context, {context},"
            );
            report.add(&["model", "batch_tokens"], message);
        }
    }
    Model {
        weights: weights(&section.weights, report),
        device: section.device,
        adapter: section.adapter,
        precision: section.precision,
        context,
        overlap: section.overlap,
        batch_tokens,
    }
}

fn weights(written: &str, report: &mut Report<'_>) -> Weights {
    weights_of(written).unwrap_or_else(|problem| {
        report.add(&["model", "weights"], format!("model.weights is `{written}`, but {problem},"));
        Weights::Embedded
    })
}

/// What `written` names: `embedded`, a path, or a model on the Hub.
///
/// # Errors
/// What it must be instead.
pub(super) fn weights_of(written: &str) -> Result<Weights, String> {
    if written == "embedded" {
        return Ok(Weights::Embedded);
    }
    let Some(address) = written.strip_prefix("hf://") else {
        return match written.split_once("://") {
            Some(("file", path)) => Ok(Weights::Path(path.into())),
            Some(_) => Err("must be a path, `embedded` or `hf://owner/name[@revision][/path]`".to_owned()),
            None => Ok(Weights::Path(PathBuf::from(written))),
        };
    };
    let mut parts = address.splitn(3, '/');
    let owner = parts.next().unwrap_or_default();
    let name = parts.next().unwrap_or_default();
    let path = parts.next().filter(|path| !path.is_empty());
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    if owner.is_empty() || name.is_empty() || revision == Some("") || owner == "datasets" {
        return Err("must be `hf://owner/name[@revision][/path]`".to_owned());
    }
    Ok(Weights::Hub(ModelAddress {
        repo: format!("{owner}/{name}"),
        revision: revision.map(|revision| revision.replace("%2F", "/")),
        path: path.map(str::to_owned),
    }))
}

fn patch(section: &PatchSection, report: &mut Report<'_>) -> PatchSpec {
    let mode = section.mode;
    if mode != PatchMode::Entropy {
        let written = [
            ("threshold", section.threshold.is_some()),
            ("threshold_add", section.threshold_add.is_some()),
            ("monotonicity", section.monotonicity),
        ];
        for (key, _) in written.iter().filter(|(_, written)| *written) {
            let message = format!("patch.{key} is only for patch.mode \"entropy\"; it is written");
            report.add(&["patch", key], message);
        }
    }
    let threshold = section.threshold.map(|value| nats(value, "threshold", report));
    let rise = section.threshold_add.map(|value| nats(value, "threshold_add", report));
    let or_released = threshold.unwrap_or(RELEASED_THRESHOLD);

    let size = section.patch_size.and_then(NonZeroU32::new);
    let boundary = match (mode, size) {
        (PatchMode::Entropy, Some(patch_size)) => {
            let others = [
                ("threshold", threshold.is_some()),
                ("threshold_add", rise.is_some()),
                ("monotonicity", section.monotonicity),
            ];
            for (key, _) in others.iter().filter(|(_, written)| *written) {
                let message =
                    format!("patch.{key} and patch.patch_size exclude each other; patch.{key} is written");
                report.add(&["patch", key], message);
            }
            Boundary::TopK { patch_size }
        }
        (PatchMode::Entropy, None) => match (rise, section.monotonicity) {
            (None, false) => Boundary::Above { threshold: or_released },
            (None, true) => Boundary::Rising { threshold: or_released },
            (Some(rise), monotonicity) => {
                if monotonicity {
                    let message = "patch.threshold_add and patch.monotonicity exclude each other; \
                                   patch.threshold_add is written";
                    report.add(&["patch", "threshold_add"], message.to_owned());
                }
                Boundary::AboveAndRising { threshold: or_released, rise }
            }
        },
        (PatchMode::Static, Some(patch_size)) => Boundary::Static { patch_size },
        (PatchMode::Static, None) => {
            let message = "patch.mode \"static\" needs patch.patch_size; the mode is written";
            report.add(&["patch", "mode"], message.to_owned());
            Boundary::Byte
        }
        (PatchMode::Space | PatchMode::Byte, size) => {
            if size.is_some() {
                let message = "patch.patch_size is only for patch.mode \"static\" and \"entropy\"; \
                               it is written";
                report.add(&["patch", "patch_size"], message.to_owned());
            }
            match mode {
                PatchMode::Space => Boundary::Space,
                _ => Boundary::Byte,
            }
        }
    };
    PatchSpec {
        rule: PatchRule { boundary, max_patch_length: section.max_patch_length.and_then(NonZeroU32::new) },
        threshold_written: threshold.is_some(),
    }
}

/// `value` in the precision that the rules compare in.
fn nats(value: f64, key: &str, report: &mut Report<'_>) -> f32 {
    let nats = value as f32;
    if !nats.is_finite() {
        let message = format!("patch.{key} is {value:?}, but must fit 32 bits,");
        report.add(&["patch", key], message);
    }
    nats
}

fn sink(section: SinkSection, modality: Modality, report: &mut Report<'_>) -> Sink {
    let of_decoded = match section.embeddings {
        Embeddings::None | Embeddings::Document => 4 * MIB,
        Embeddings::Patch => MIB,
        Embeddings::Byte => 256 * KIB,
    };
    // Units are cut by what is stored, but held as what it is decoded to.
    let default_unit_bytes = match modality {
        Modality::Text | Modality::Code | Modality::Document | Modality::Binary => of_decoded,
        Modality::Audio => of_decoded / 4,
        Modality::Image | Modality::Video | Modality::Auto => of_decoded / 8,
    };
    let unit_bytes = match &section.unit_bytes {
        Some(size) => bytes(size, &["sink", "unit_bytes"], report),
        None => default_unit_bytes,
    };
    if unit_bytes > MOST_UNIT_BYTES {
        let message = format!("sink.unit_bytes is {unit_bytes}, but must be at most {MOST_UNIT_BYTES},");
        report.add(&["sink", "unit_bytes"], message);
    }
    Sink {
        uri: section.uri,
        embeddings: section.embeddings,
        embedding_dtype: section.embedding_dtype,
        entropies: section.entropies,
        norms: section.norms,
        compression: compression(&section.compression, report),
        unit_bytes: NonZeroU64::new(unit_bytes).unwrap_or(NonZeroU64::MIN),
    }
}

fn compression(written: &str, report: &mut Report<'_>) -> Compression {
    if written == "none" {
        return Compression::None;
    }
    let level = written.strip_prefix("zstd:").and_then(|level| level.parse().ok());
    match level {
        Some(level) if (1..=22).contains(&level) => Compression::Zstd(level),
        _ => {
            let message =
                format!("sink.compression is `{written}`, but must be `none` or `zstd:1` to `zstd:22`,");
            report.add(&["sink", "compression"], message);
            Compression::None
        }
    }
}

fn limits(section: &LimitsSection, report: &mut Report<'_>) -> Limits {
    let max_document_bytes = bytes(&section.max_document_bytes, &["limits", "max_document_bytes"], report);
    if max_document_bytes > MOST_DOCUMENT_BYTES {
        let message = format!(
            "limits.max_document_bytes is {max_document_bytes}, but must be at most {MOST_DOCUMENT_BYTES},"
        );
        report.add(&["limits", "max_document_bytes"], message);
    }
    Limits {
        memory: section.memory.as_ref().map(|memory| bytes(memory, &["limits", "memory"], report)),
        max_document_bytes,
        max_quarantined: section.max_quarantined,
        stop_grace: Duration::from_secs(section.stop_grace_seconds.into()),
    }
}

/// The size at `path` in bytes, not 0.
fn bytes(size: &ByteSize, path: &[&str], report: &mut Report<'_>) -> u64 {
    let text = match size {
        ByteSize::Bytes(bytes) => return *bytes,
        ByteSize::Text(text) => text,
    };
    match parse_size(text) {
        Some(bytes) if bytes > 0 => bytes,
        Some(_) => {
            report.add(path, format!("{} is 0, but must be at least 1,", path.join(".")));
            1
        }
        None => {
            let message = format!(
                "{} is `{text}`, but must be a whole number and a unit, like `4 MiB`,",
                path.join(".")
            );
            report.add(path, message);
            1
        }
    }
}

/// `4 MiB`, `512KiB`, `1 GB`, `100 B`: a whole number and a unit.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
