//! Every key by its effect, every mistake by its message, every flag by what it overrides.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LEAST: &str = "source.uri = 'in.parquet'\nsink.uri = 'out'\n";

fn parse(extra: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::parse(&format!("{LEAST}{extra}"), "pipelines/a.toml", &Overrides::default())
}

fn message(text: &str) -> String {
    let parsed = Pipeline::parse(text, "a.toml", &Overrides::default());
    parsed.expect_err(text).to_string()
}

fn set(arguments: &[&str]) -> Result<Pipeline, ConfigError> {
    let set = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Pipeline::parse(LEAST, "a.toml", &Overrides { set, ..Overrides::default() })
}

/// Every key of the schema that is not a table, as `section.key`.
fn keys(schema: &Value, path: &str, found: &mut Vec<String>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        // A table that has no keys yet is no key.
        if schema["type"] != "object" {
            found.push(path.to_owned());
        }
        return;
    };
    for (key, schema) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        keys(schema, &path, found);
    }
}

/// Whether a key decides what the output holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum In {
    /// As written.
    Meaning,
    /// The plan adds what it becomes against the model.
    Resolved,
    /// Where rows may be of this modality.
    OfModality(&'static str),
    /// Where pages of documents become pictures.
    OfPages,
    /// Nowhere.
    Run,
}
use In::{Meaning, OfModality, OfPages, Resolved, Run};

/// A key, TOML that writes it, where it counts, and its effect.
type Effect = (&'static str, &'static str, In, fn(&Pipeline) -> bool);

const EFFECTS: &[Effect] = &[
    ("pipeline.name", "pipeline.name = 'n'", Run, |p| p.name == "n"),
    ("source.uri", "", Run, |p| p.source.uris == ["in.parquet"]),
    ("source.format", "source.format = 'files'", Meaning, |p| p.source.format == FileFormat::Files),
    ("source.config", "source.config = 'sample'", Run, |p| p.source.config.as_deref() == Some("sample")),
    ("source.split", "source.split = 'test'", Run, |p| p.source.split.as_deref() == Some("test")),
    ("source.cache", "source.cache = true", Run, |p| p.source.cache),
    ("source.id", "source.id = 'key'", Meaning, |p| p.source.id.name == "key" && p.source.id.required),
    ("source.content", "source.content = 'body'", Meaning, |p| p.source.content == "body"),
    ("source.modality", "source.modality = 'text'", Run, |p| p.source.modality == Modality::Text),
    ("source.path", "source.path = 'file'", Meaning, |p| p.source.path.as_deref() == Some("file")),
    ("source.language", "source.language = 'lang'", Meaning, |p| {
        p.source.language.as_deref() == Some("lang")
    }),
    ("source.resolve_paths", "source.resolve_paths = true", Meaning, |p| p.source.resolve_paths),
    ("source.where", "source.where = 'score > 3'", Meaning, |p| {
        p.source.filter.as_deref() == Some("score > 3")
    }),
    ("source.limit", "source.limit = 10", Meaning, |p| p.source.limit == NonZeroU64::new(10)),
    ("source.sample.fraction", "source.sample = { fraction = 1 }", Meaning, |p| {
        p.source.sample == Some(Sample { fraction: 1.0, seed: 0 })
    }),
    ("source.sample.seed", "source.sample = { fraction = 0.5, seed = 7 }", Meaning, |p| {
        p.source.sample == Some(Sample { fraction: 0.5, seed: 7 })
    }),
    ("source.carry", "source.carry = ['url', 'id']", Meaning, |p| p.source.carry == ["url", "id"]),
    ("pretokenize.workers", "pretokenize.workers = 3", Run, |p| p.pretokenize.workers == NonZeroU32::new(3)),
    ("pretokenize.row_seconds", "pretokenize.row_seconds = 5", Run, |p| {
        p.pretokenize.row_time == Duration::from_secs(5)
    }),
    ("pretokenize.text.segments", "pretokenize.text.segments = 'sentence'", Meaning, |p| {
        p.pretokenize.text.segments == TextSegments::Sentence
    }),
    (
        "pretokenize.text.tokenizer",
        "pretokenize.text = { segments = 'tokenizer', tokenizer = 't.json' }",
        Meaning,
        |p| p.pretokenize.text.tokenizer.as_deref() == Some("t.json"),
    ),
    ("pretokenize.text.invalid_utf8", "pretokenize.text.invalid_utf8 = 'quarantine'", Meaning, |p| {
        p.pretokenize.text.invalid_utf8 == InvalidUtf8::Quarantine
    }),
    ("pretokenize.image.patch", "pretokenize.image.patch = 8", OfModality("image"), |p| {
        p.pretokenize.image.patch == 8
    }),
    ("pretokenize.image.max_side", "pretokenize.image.max_side = 224", OfModality("image"), |p| {
        p.pretokenize.image.max_side == Some(224)
    }),
    ("pretokenize.image.merge_below", "pretokenize.image.merge_below = 1.5", OfModality("auto"), |p| {
        p.pretokenize.image.merge_below == Some(1.5)
    }),
    ("pretokenize.image.max_pixels", "pretokenize.image.max_pixels = 1000", OfModality("image"), |p| {
        p.pretokenize.image.max_pixels == 1000
    }),
    ("pretokenize.audio.frame_ms", "pretokenize.audio.frame_ms = 10", OfModality("audio"), |p| {
        p.pretokenize.audio.frame_ms == 10
    }),
    ("pretokenize.audio.mono", "pretokenize.audio.mono = true", OfModality("audio"), |p| {
        p.pretokenize.audio.mono
    }),
    ("pretokenize.audio.sample_rate", "pretokenize.audio.sample_rate = 16000", OfModality("audio"), |p| {
        p.pretokenize.audio.sample_rate == Some(16000)
    }),
    ("pretokenize.audio.max_seconds", "pretokenize.audio.max_seconds = 5", OfModality("audio"), |p| {
        p.pretokenize.audio.max_seconds == 5
    }),
    ("pretokenize.code.language", "pretokenize.code.language = 'rust'", OfModality("code"), |p| {
        p.pretokenize.code.language == Some(Language::Rust)
    }),
    ("pretokenize.document.views", "pretokenize.document.views = ['raw']", OfModality("document"), |p| {
        p.pretokenize.document.views == [DocumentView::Raw]
    }),
    ("pretokenize.document.dpi", "pretokenize.document.dpi = 150", OfPages, |p| {
        p.pretokenize.document.dpi == 150
    }),
    ("pretokenize.document.max_pages", "pretokenize.document.max_pages = 3", OfModality("auto"), |p| {
        p.pretokenize.document.max_pages == 3
    }),
    ("pretokenize.video.fps", "pretokenize.video.fps = 0.5", OfModality("video"), |p| {
        p.pretokenize.video.fps == 0.5
    }),
    ("pretokenize.video.size", "pretokenize.video.size = 64", OfModality("auto"), |p| {
        p.pretokenize.video.size == 64
    }),
    ("pretokenize.video.audio", "pretokenize.video.audio = false", OfModality("video"), |p| {
        !p.pretokenize.video.audio
    }),
    ("pretokenize.video.max_seconds", "pretokenize.video.max_seconds = 5", OfModality("video"), |p| {
        p.pretokenize.video.max_seconds == 5
    }),
    ("pretokenize.video.max_pixels", "pretokenize.video.max_pixels = 1000", OfModality("video"), |p| {
        p.pretokenize.video.max_pixels == 1000
    }),
    ("model.weights", "model.weights = 'models/small'", Run, |p| {
        p.model.weights == Weights::Path("models/small".into())
    }),
    ("model.device", "model.device = 'vulkan'", Run, |p| p.model.device == Device::Vulkan),
    ("model.adapter", "model.adapter = 'H100'", Run, |p| p.model.adapter.as_deref() == Some("H100")),
    ("model.precision", "model.precision = 'bf16'", Meaning, |p| p.model.precision == Precision::Bf16),
    ("model.context", "model.context = 512", Resolved, |p| p.model.context == NonZeroU32::new(512)),
    ("model.overlap", "model.overlap = 64", Meaning, |p| p.model.overlap == 64),
    ("model.batch_tokens", "model.batch_tokens = 8192", Resolved, |p| {
        p.model.batch_tokens == NonZeroU32::new(8192)
    }),
    ("patch.mode", "patch.mode = 'space'", Meaning, |p| boundary(p) == Boundary::Space),
    ("patch.threshold", "patch.threshold = 2", Resolved, |p| {
        boundary(p) == Boundary::Above { threshold: 2.0 }
    }),
    ("patch.threshold_add", "patch.threshold_add = 0.5", Meaning, |p| {
        boundary(p) == Boundary::AboveAndRising { threshold: RELEASED_THRESHOLD, rise: 0.5 }
    }),
    ("patch.monotonicity", "patch.monotonicity = true", Meaning, |p| {
        boundary(p) == Boundary::Rising { threshold: RELEASED_THRESHOLD }
    }),
    ("patch.patch_size", "patch.patch_size = 6", Meaning, |p| {
        NonZeroU32::new(6).is_some_and(|patch_size| boundary(p) == Boundary::TopK { patch_size })
    }),
    ("patch.max_patch_length", "patch.max_patch_length = 8", Meaning, |p| {
        p.patch.resolve(None).max_patch_length == NonZeroU32::new(8)
    }),
    ("sink.uri", "", Run, |p| p.sink.uri == "out"),
    ("sink.embeddings", "sink.embeddings = 'byte'", Meaning, |p| {
        p.sink.embeddings == Embeddings::Byte && p.sink.unit_bytes.get() == 256 << 10
    }),
    ("sink.embedding_dtype", "sink.embedding_dtype = 'f32'", Meaning, |p| {
        p.sink.embedding_dtype == EmbeddingDtype::F32
    }),
    ("sink.entropies", "sink.entropies = false", Meaning, |p| !p.sink.entropies),
    ("sink.norms", "sink.norms = false", Meaning, |p| !p.sink.norms),
    ("sink.compression", "sink.compression = 'zstd:22'", Meaning, |p| {
        p.sink.compression == Compression::Zstd(22)
    }),
    ("sink.unit_bytes", "sink.unit_bytes = '2 MiB'", Meaning, |p| p.sink.unit_bytes.get() == 2 << 20),
    ("limits.memory", "limits.memory = '2 GB'", Run, |p| p.limits.memory == Some(2_000_000_000)),
    ("limits.max_document_bytes", "limits.max_document_bytes = 1000", Meaning, |p| {
        p.limits.max_document_bytes == 1000
    }),
    ("limits.max_quarantined", "limits.max_quarantined = 1", Run, |p| {
        p.limits.max_quarantined == Quarantine::Rows(1)
    }),
    ("limits.stop_grace_seconds", "limits.stop_grace_seconds = 0", Run, |p| p.limits.stop_grace.is_zero()),
];

fn boundary(pipeline: &Pipeline) -> Boundary {
    pipeline.patch.resolve(None).boundary
}

#[test]
fn every_key_has_its_effect_and_counts_where_it_should() {
    let plain = parse("").unwrap();
    let mut tried = Vec::new();
    for (key, toml, place, effect) in EFFECTS {
        let pipeline = parse(toml).unwrap_or_else(|error| panic!("{error}"));
        assert!(effect(&pipeline), "{toml}: {pipeline:?}");
        let changed = pipeline.meaning() != plain.meaning();
        assert_eq!(changed, *place == Meaning, "{key} in the fingerprint");
        let pages = "source.modality = 'document'\npretokenize.document.views = ['image']";
        let changes = |given: &str| {
            let of = |toml: &str| parse(&format!("{given}\n{toml}")).unwrap().meaning();
            of(toml) != of("")
        };
        match place {
            OfModality(modality) => {
                assert!(changes(&format!("source.modality = '{modality}'")), "{key} of {modality}");
            }
            OfPages => assert!(changes(pages), "{key} of pages"),
            Meaning | Resolved | Run => {}
        }
        // Pages are cut like any other picture.
        if key.starts_with("pretokenize.image.") {
            assert!(changes(pages), "{key} of pages");
        }
        tried.push((*key).to_owned());
    }
    let mut known = Vec::new();
    keys(&json_schema(), "", &mut known);
    assert_eq!(known, tried, "keys of the schema and of this test");
}

#[test]
fn what_is_not_written_has_its_default() {
    let pipeline = parse("").unwrap();
    assert_eq!(
        pipeline,
        Pipeline {
            name: "a".to_owned(),
            source: Source {
                uris: vec!["in.parquet".to_owned()],
                format: FileFormat::Auto,
                config: None,
                split: None,
                cache: false,
                id: IdColumn { name: "id".to_owned(), required: false },
                content: "text".to_owned(),
                modality: Modality::Text,
                path: None,
                language: None,
                resolve_paths: false,
                filter: None,
                limit: None,
                sample: None,
                carry: vec![],
            },
            pretokenize: Pretokenize {
                workers: None,
                row_time: Duration::from_secs(60),
                text: PretokenizeText {
                    segments: TextSegments::Whole,
                    tokenizer: None,
                    invalid_utf8: InvalidUtf8::Keep,
                },
                image: PretokenizeImage {
                    patch: 16,
                    max_side: None,
                    merge_below: None,
                    max_pixels: 100_000_000
                },
                audio: PretokenizeAudio { frame_ms: 20, mono: false, sample_rate: None, max_seconds: 3600 },
                code: PretokenizeCode { language: None },
                document: PretokenizeDocument { views: vec![DocumentView::Text], dpi: 72, max_pages: 5000 },
                video: PretokenizeVideo {
                    fps: 1.0,
                    size: 224,
                    audio: true,
                    max_seconds: 3600,
                    max_pixels: 10_000_000,
                },
            },
            model: Model {
                weights: Weights::Embedded,
                device: Device::Auto,
                adapter: None,
                precision: Precision::Auto,
                context: None,
                overlap: 0,
                batch_tokens: None,
            },
            patch: PatchSpec {
                rule: PatchRule {
                    boundary: Boundary::Above { threshold: RELEASED_THRESHOLD },
                    max_patch_length: None,
                },
                threshold_written: false,
            },
            sink: Sink {
                uri: "out".to_owned(),
                embeddings: Embeddings::Patch,
                embedding_dtype: EmbeddingDtype::F16,
                entropies: true,
                norms: true,
                compression: Compression::Zstd(3),
                unit_bytes: NonZeroU64::new(1 << 20).unwrap(),
            },
            limits: Limits {
                memory: None,
                max_document_bytes: 32 << 20,
                max_quarantined: Quarantine::Fraction(0.01),
                stop_grace: Duration::from_secs(10),
            },
        }
    );
}

#[test]
fn every_value_that_has_a_name_is_taken() {
    for device in ["auto", "cpu", "wgpu", "vulkan", "metal", "cuda"] {
        parse(&format!("model.device = '{device}'")).unwrap();
    }
    for precision in ["auto", "f32", "f16", "bf16"] {
        parse(&format!("model.precision = '{precision}'")).unwrap();
    }
    for (embeddings, unit_bytes) in
        [("none", 4 << 20), ("document", 4 << 20), ("patch", 1 << 20), ("byte", 256 << 10)]
    {
        let pipeline = parse(&format!("sink.embeddings = '{embeddings}'")).unwrap();
        assert_eq!(pipeline.sink.unit_bytes.get(), unit_bytes, "{embeddings}");
    }
    let many = "source.uri = ['a', 'b']\nsink.uri = 'out'\nmodel.batch_tokens = 'auto'";
    let many = Pipeline::parse(many, "a.toml", &Overrides::default()).unwrap();
    assert_eq!((many.source.uris, many.model.batch_tokens), (vec!["a".into(), "b".into()], None));
    let uncompressed = parse("sink.compression = 'none'").unwrap();
    assert_eq!(uncompressed.sink.compression, Compression::None);
    let all = parse("limits.max_quarantined = 1.0").unwrap();
    assert_eq!(all.limits.max_quarantined, Quarantine::Fraction(1.0));
    let modes = parse("patch.mode = 'static'\npatch.patch_size = 3").unwrap();
    let patch_size = NonZeroU32::new(3).unwrap();
    assert_eq!(boundary(&modes), Boundary::Static { patch_size });
    assert_eq!(boundary(&parse("patch.mode = 'byte'").unwrap()), Boundary::Byte);
    parse("[pretokenize.text]\n").unwrap();
}

#[test]
fn weights_of_the_hub_name_repository_revision_and_path() {
    let cases = [
        ("hf://facebook/blt-entropy", None, None),
        ("hf://facebook/blt-entropy@main", Some("main"), None),
        (
            "hf://facebook/blt-entropy@v1/entropy_model/a.safetensors",
            Some("v1"),
            Some("entropy_model/a.safetensors"),
        ),
        ("hf://facebook/blt-entropy/entropy_model", None, Some("entropy_model")),
    ];
    for (written, revision, path) in cases {
        let pipeline = parse(&format!("model.weights = '{written}'")).unwrap();
        let expected = Weights::Hub(crate::remote::ModelAddress {
            repo: "facebook/blt-entropy".to_owned(),
            revision: revision.map(str::to_owned),
            path: path.map(str::to_owned),
        });
        assert_eq!(pipeline.model.weights, expected, "{written}");
    }
}

#[test]
fn a_written_threshold_beats_the_model_and_the_model_beats_the_release() {
    let above = |threshold| Boundary::Above { threshold };
    let unwritten = parse("").unwrap().patch;
    assert_eq!(unwritten.resolve(None).boundary, above(1.335442066192627_f64 as f32));
    assert_eq!(unwritten.resolve(Some(1.9137)).boundary, above(1.9137));
    let written = parse("patch.threshold = 2.5").unwrap().patch;
    assert_eq!(written.resolve(Some(1.9137)).boundary, above(2.5));
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_key() {
    let text = "[source]\nuri = 'in'\n\n[patch]\n  treshold = 2.0 # nats\n\n[sink]\nuri = 'out'\n";
    assert_eq!(
        message(text),
        "unknown key `treshold` in [patch] at a.toml:5:3; did you mean `threshold`?\n\
         \x20 |\n\
         5 |   treshold = 2.0 # nats\n\
         \x20 |   ^^^^^^^^"
    );
}

#[test]
fn the_caret_stands_below_wide_characters_and_tabs() {
    let text = "source.uri = 'in'\nsink.uri = 'out'\nsource = { \"é\" =\t1 }";
    assert!(message(text).contains("failed to parse"), "{}", message(text));
    let text = "sink.uri = 'out'\n[source]\nuri = 'in'\nsample = { seed = 1,\t fraction = 'ü' }";
    assert_eq!(
        message(text),
        "expected a number for source.sample.fraction, found a string at a.toml:4:34\n\
         \x20 |\n\
         4 | sample = { seed = 1,\t fraction = 'ü' }\n\
         \x20 |                     \t            ^^^"
    );
}

#[test]
fn mistakes_are_told_all_at_once_in_the_order_of_the_text() {
    let text = "[sink]\nembeddings = 'patches'\n[source]\nlimit = 0\nuri = 'in'\n[modle]\n";
    let ConfigError::Invalid(problems) = Pipeline::parse(text, "a.toml", &Overrides::default()).unwrap_err()
    else {
        panic!("the file was not read");
    };
    let told: Vec<String> = problems
        .iter()
        .map(|p| format!("{} {} {}", p.message, p.place, p.hint.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        told,
        [
            "failed to find sink.uri, which is required, at a.toml:1:2 -",
            "unknown value `patches` for sink.embeddings at a.toml:2:14 did you mean `patch`?",
            "source.limit is 0, but must be at least 1, at a.toml:4:9 -",
            "unknown section `modle` at a.toml:6:2 did you mean `model`?",
        ]
    );
}

/// TOML after the required keys, and what the message must hold.
const MISTAKES: &[(&str, &str)] = &[
    ("a = = 1", "failed to parse TOML"),
    ("patch.mode = 'byte'\npatch.mode = 'byte'", "failed to parse TOML: duplicate key"),
    ("patch.weights = 'a'", "unknown key `weights` in [patch] at a.toml:3:7; it belongs in [model]"),
    ("threshold = 2.0", "unknown section `threshold` at a.toml:3:1; it belongs below [patch]"),
    (
        "model.dim = 2",
        "known keys: `weights`, `device`, `adapter`, `precision`, `context`, `overlap`, `batch_tokens`",
    ),
    ("output.path = 2", "known sections: `pipeline`, `source`,"),
    (
        "pretokenize.text.x = 2",
        "unknown key `x` in [pretokenize.text] at a.toml:3:18; known keys: `segments`, `tokenizer`, `invalid_utf8`",
    ),
    (
        "pretokenize.text.segments = 'tokenizer'",
        "pretokenize.text.segments \"tokenizer\" needs pretokenize.text.tokenizer; it is written",
    ),
    (
        "pretokenize.text.tokenizer = 'a.json'",
        "pretokenize.text.tokenizer is only for pretokenize.text.segments \"tokenizer\"; it is written",
    ),
    ("pretokenize.document.views = ['text', 'text']", "pretokenize.document.views names a view twice"),
    ("pretokenize.document.views = []", "pretokenize.document.views is empty"),
    ("pretokenize.image.merge_below = 9.0", "pretokenize.image.merge_below is 9.0, but must be at most 8,"),
    ("pretokenize.image.patch = 0", "pretokenize.image.patch is 0, but must be at least 1,"),
    ("pretokenize.video.fps = 0.0", "pretokenize.video.fps is 0.0, but must be above 0,"),
    ("source.sample.sed = 2", "unknown key `sed` in [source.sample] at a.toml:3:15; did you mean `seed`?"),
    ("source.sample.seed = 2", "failed to find source.sample.fraction, which is required, at a.toml:3:8"),
    (
        "source.modality = 'picture'",
        "unknown value `picture` for source.modality at a.toml:3:19; known values: `text`, `image`, `audio`,",
    ),
    ("model.device = 'CUDA'", "did you mean `cuda`?"),
    ("model.device = 'gpu0'", "known values: `auto`, `cpu`, `wgpu`, `vulkan`, `metal`, `cuda`"),
    ("pipeline.name = 3", "expected a string for pipeline.name, found an integer"),
    ("pipeline.name = ''", "pipeline.name is empty"),
    ("source.carry = 'url'", "expected an array for source.carry, found a string"),
    ("source.carry = ['url', 3]", "expected a string for source.carry.1, found an integer at a.toml:3:24"),
    ("source.carry = ['url', 'url']", "source.carry names `url` twice at a.toml:3:24"),
    ("source.carry = ['text']", "source.carry names `text`, which is source.content,"),
    ("source.carry = ['norms']", "source.carry names `norms`, which the documents table has of its own,"),
    ("source.limit = 0", "source.limit is 0, but must be at least 1, at a.toml:3:16"),
    ("source.limit = 1.5", "expected an integer for source.limit, found a float"),
    ("source.sample = { fraction = 0.0 }", "source.sample.fraction is 0.0, but must be above 0,"),
    ("source.sample = { fraction = 1.1 }", "source.sample.fraction is 1.1, but must be at most 1,"),
    ("source.sample = { fraction = nan }", "source.sample.fraction is NaN, but must be a finite number,"),
    ("source.where = ''", "source.where is empty"),
    ("pretokenize.workers = -1", "pretokenize.workers is -1, but must be at least 0,"),
    ("model.context = 0", "model.context is 0, but must be at least 1,"),
    ("model.context = 5000000000", "model.context is 5000000000, but must be at most 4294967295,"),
    (
        "model.context = 64\nmodel.overlap = 64",
        "model.overlap is 64, but must be below model.context, 64, at a.toml:4:17",
    ),
    (
        "model.context = 64\nmodel.batch_tokens = 63",
        "model.batch_tokens is 63, but must be at least model.context, 64,",
    ),
    ("model.batch_tokens = 'many'", "unknown value `many` for model.batch_tokens"),
    ("model.batch_tokens = 1.0", "expected \"auto\" or an integer for model.batch_tokens, found a float"),
    ("model.weights = 'hf://owner'", "must be `hf://owner/name[@revision][/path]`"),
    (
        "patch.threshold = 2.0\npatch.patch_size = 4",
        "patch.threshold and patch.patch_size exclude each other;",
    ),
    ("patch.threshold_add = 2.0\npatch.patch_size = 4", "patch.threshold_add and patch.patch_size exclude"),
    ("patch.monotonicity = true\npatch.patch_size = 4", "patch.monotonicity and patch.patch_size exclude"),
    (
        "patch.monotonicity = true\npatch.threshold_add = 0.1",
        "patch.threshold_add and patch.monotonicity exclude",
    ),
    (
        "patch.mode = 'static'",
        "patch.mode \"static\" needs patch.patch_size; the mode is written at a.toml:3:14",
    ),
    ("patch.mode = 'space'\npatch.threshold = 1", "patch.threshold is only for patch.mode \"entropy\""),
    (
        "patch.mode = 'byte'\npatch.threshold_add = 1",
        "patch.threshold_add is only for patch.mode \"entropy\"",
    ),
    (
        "patch.mode = 'space'\npatch.monotonicity = true",
        "patch.monotonicity is only for patch.mode \"entropy\"",
    ),
    (
        "patch.mode = 'space'\npatch.patch_size = 4",
        "patch.patch_size is only for patch.mode \"static\" and \"entropy\"",
    ),
    ("patch.patch_size = 0", "patch.patch_size is 0, but must be at least 1,"),
    ("patch.max_patch_length = 0", "patch.max_patch_length is 0, but must be at least 1,"),
    ("patch.threshold = inf", "patch.threshold is inf, but must be a finite number,"),
    ("patch.threshold_add = nan", "patch.threshold_add is NaN, but must be a finite number,"),
    ("patch.threshold = 1e300", "patch.threshold is 1e300, but must fit 32 bits,"),
    ("sink.entropies = 'yes'", "expected true or false for sink.entropies, found a string"),
    ("sink.compression = 'zstd:23'", "must be `none` or `zstd:1` to `zstd:22`"),
    ("sink.compression = 'gzip'", "sink.compression is `gzip`, but must be"),
    ("sink.unit_bytes = 0", "sink.unit_bytes is 0, but must be at least 1,"),
    ("sink.unit_bytes = '0 MiB'", "sink.unit_bytes is 0, but must be at least 1,"),
    (
        "limits.memory = '5 PB'",
        "limits.memory is `5 PB`, but must be a whole number and a unit, like `4 MiB`,",
    ),
    ("limits.memory = '99999999 TiB'", "limits.memory is `99999999 TiB`"),
    (
        "limits.max_document_bytes = '2 GiB'",
        "limits.max_document_bytes is 2147483648, but must be at most 2147483645,",
    ),
    ("limits.max_quarantined = 1.5", "limits.max_quarantined is 1.5, but must be at most 1,"),
    ("limits.max_quarantined = -0.5", "limits.max_quarantined is -0.5, but must be at least 0,"),
    ("limits.max_quarantined = -1", "limits.max_quarantined is -1, but must be at least 0,"),
    ("limits.max_quarantined = 'all'", "expected an integer or a number for limits.max_quarantined"),
];

#[test]
fn every_mistake_is_told_where_it_is_made() {
    for (toml, expected) in MISTAKES {
        let told = message(&format!("{LEAST}{toml}"));
        assert!(told.contains(expected), "{toml}\n{told}");
        assert!(told.contains("a.toml:"), "{told}");
    }
    let told = message("");
    assert!(told.contains("failed to find source.uri, which is required, in a.toml"), "{told}");
    assert!(told.contains("failed to find sink.uri, which is required, in a.toml"), "{told}");
    assert!(message("source.uri = []\nsink.uri = 'out'").contains("source.uri is empty at a.toml:1:14"));
    assert!(message("source.uri = ['']\nsink.uri = 'out'").contains("source.uri.0 is empty"));
}

#[test]
fn a_file_that_is_not_there_is_told_by_its_path() {
    let error = Pipeline::load(Path::new("no/such.toml"), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("failed to read no/such.toml: "), "{error}");
}

#[test]
fn a_file_is_read_and_named_by_its_stem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nightly.toml");
    std::fs::write(&path, LEAST).unwrap();
    assert_eq!(Pipeline::load(&path, &Overrides::default()).unwrap().name, "nightly");
}

#[test]
fn flags_override_the_file() {
    let text = "[source]\nuri = 'in'\nlimit = 3\ncarry = ['a', 'a']\n[sink]\nuri = 'out'\n";
    let overrides = Overrides {
        set: ["source.carry=['url']", "patch.threshold = 2.5", "patch.threshold=3", "pipeline.name=2026"]
            .map(str::to_owned)
            .to_vec(),
        limit: Some(5),
        output: Some("elsewhere".to_owned()),
    };
    let pipeline = Pipeline::parse(text, "a.toml", &overrides).unwrap();
    assert_eq!(pipeline.source.carry, ["url"]);
    assert_eq!(pipeline.source.limit, NonZeroU64::new(5));
    assert_eq!(pipeline.sink.uri, "elsewhere");
    assert_eq!(boundary(&pipeline), Boundary::Above { threshold: 3.0 });
    assert_eq!(pipeline.name, "2026");
}

#[test]
fn set_reaches_inner_tables_and_takes_bare_text() {
    let pipeline =
        set(&["source.sample.fraction=0.5", "source.where=score > 3", "limits.memory=5MiB"]).unwrap();
    assert_eq!(pipeline.source.sample, Some(Sample { fraction: 0.5, seed: 0 }));
    assert_eq!(pipeline.source.filter.as_deref(), Some("score > 3"));
    assert_eq!(pipeline.limits.memory, Some(5 << 20));
    // A line break cannot smuggle in another key.
    let smuggled = set(&["source.where=1\npatch.mode='byte'"]).unwrap();
    assert_eq!(smuggled.source.filter.as_deref(), Some("1\npatch.mode='byte'"));
}

#[test]
fn mistakes_in_flags_name_the_flag() {
    let cases = [
        (
            "patch.treshold=2",
            "unknown key `treshold` in [patch] in `--set patch.treshold=2`; did you mean `threshold`?",
        ),
        ("pach.mode=byte", "unknown section `pach` in `--set pach.mode=byte`; did you mean `patch`?"),
        (
            "pretokenize.text.x=1",
            "unknown key `x` in [pretokenize.text] in `--set pretokenize.text.x=1`; known keys: `segments`,",
        ),
        ("source.limit=0", "source.limit is 0, but must be at least 1, in `--set source.limit=0`"),
        (
            "patch.mode=entropie",
            "unknown value `entropie` for patch.mode in `--set patch.mode=entropie`; did you mean",
        ),
        ("source.uri.x=1", "source.uri is not a table in `--set source.uri.x=1`"),
        (
            "source.sample.seed=1",
            "failed to find source.sample.fraction, which is required, in `--set source.sample.seed=1`",
        ),
        ("patch.mode", "failed to find `=` in `--set patch.mode`"),
        ("patch=1", "failed to find `section.key` in `--set patch=1`"),
        ("patch.=1", "failed to find `section.key` in `--set patch.=1`"),
    ];
    for (argument, expected) in cases {
        let told = set(&[argument]).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
    let overrides = Overrides { limit: Some(0), ..Overrides::default() };
    let told = Pipeline::parse(LEAST, "a.toml", &overrides).unwrap_err().to_string();
    assert_eq!(told, "source.limit is 0, but must be at least 1, in `--limit 0`");
}

#[test]
fn meaning_is_flat_sorted_and_complete() {
    let meaning = parse("source.sample = { fraction = 0.5 }\nsource.carry = ['url']").unwrap().meaning();
    insta::assert_snapshot!(serde_json::to_string_pretty(&meaning).unwrap(), @r#"
    {
      "limits.max_document_bytes": 33554432,
      "model.overlap": 0,
      "model.precision": "auto",
      "patch.max_patch_length": null,
      "patch.mode": "entropy",
      "patch.monotonicity": false,
      "patch.patch_size": null,
      "patch.threshold_add": null,
      "sink.compression": "zstd:3",
      "sink.embedding_dtype": "f16",
      "sink.embeddings": "patch",
      "sink.entropies": true,
      "sink.norms": true,
      "sink.unit_bytes": 1048576,
      "source.carry": [
        "url"
      ],
      "source.content": "text",
      "source.format": "auto",
      "source.id": "id",
      "source.limit": null,
      "source.modality": "text",
      "source.sample.fraction": 0.5,
      "source.sample.seed": 0,
      "source.where": null
    }
    "#);
    assert!(meaning.keys().is_sorted());
}

/// Run with `BLT_UPDATE=1` to write the schema anew.
#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = Path::new("schemas/pipeline.schema.json");
    let schema = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
    if std::env::var_os("BLT_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &schema).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == schema, "{} is out of date: run this test with BLT_UPDATE=1", path.display());
}

/// Every key of the schema says what it is, for editors and for the documentation.
#[test]
fn every_key_is_described() {
    fn check(schema: &Value, path: &str) {
        assert!(schema["description"].is_string(), "{path} has no description");
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            check(schema, &format!("{path}.{key}"));
        }
    }
    check(&json_schema(), "");
}

/// Keys of the schema with values that may or may not fit, in random order.
fn assignments() -> impl Strategy<Value = String> {
    let mut known = vec!["source".to_owned(), "patch.x".to_owned(), "a.b".to_owned()];
    keys(&json_schema(), "", &mut known);
    let value = prop::sample::select(vec![
        "0",
        "1",
        "-1",
        "4294967296",
        "0.5",
        "1e39",
        "-0.0",
        "inf",
        "nan",
        "true",
        "''",
        "'auto'",
        "'text'",
        "'entropy'",
        "'static'",
        "'4 MiB'",
        "'zstd:3'",
        "'none'",
        "'f16'",
        "[]",
        "['a']",
        "[[]]",
        "{}",
        "{ fraction = 0.5 }",
        "1979-05-27",
    ]);
    let line = (prop::sample::select(known), value).prop_map(|(key, value)| format!("{key} = {value}\n"));
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|[ \\t\\r\\n=.\\[\\]{}'\"a-c1é#-]*") {
        let _ = Pipeline::parse(&text, "a.toml", &Overrides::default());
        let set = vec![text.clone(), format!("patch.threshold={text}"), format!("{text}=1")];
        let _ = Pipeline::parse(LEAST, "a.toml", &Overrides { set, ..Overrides::default() });
    }

    /// What the schema takes, the types take: no message comes from serde, which knows no line.
    #[test]
    fn the_schema_leaves_nothing_for_the_types_to_refuse(lines in assignments()) {
        if let Err(ConfigError::Invalid(problems)) = parse(&lines) {
            for problem in problems {
                prop_assert!(problem.excerpt.is_some(), "{}", problem);
            }
        }
    }
}
