//! What is done with the content of a row, by each modality, and with an archive that lies beside a shard. Views that tile and are no
//! longer than they may be are fine, and so is a reason why there are none. A panic of our own code is not; one of a decoder is held
//! back, as the engine does, and told.

use std::{
    cell::{Cell, RefCell},
    fs,
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::{Arc, LazyLock, Once},
};

use blt_pipeline::{
    config::{Overrides, Pipeline},
    data::{Content, View},
    pipeline::Plan,
    pretokenize::{Needs, Pretokenizer, check_tiling, pretokenizer},
    sink::Start,
    source::{Held, RowReader},
};

use super::{SEPARATOR, facts, planned};

/// What becomes of an input: bytes of its views, or why there are none.
pub type Decoded = Result<u64, String>;

/// How the reason begins where a decoder panicked; its place in the source comes behind it.
pub const PANICKED: &str = "a decoder panicked at ";

/// Small in all that limits, so that an input of a kilobyte meets the limits.
const MOST_BYTES: u64 = 1 << 20;
/// And the pictures of a document: as many times that.
const MOST_VIEWS: u64 = 18;

type Pretokenizers = LazyLock<Vec<Arc<dyn Pretokenizer>>>;

fn pretokenizers(modality: &str, settings: &[&str]) -> Vec<Arc<dyn Pretokenizer>> {
    let one = |settings: &&str| {
        let text = format!(
            "[source]\nuri = '-'\nmodality = '{modality}'\n[sink]\nuri = '/nonexistent'\n\
             [limits]\nmax_document_bytes = {MOST_BYTES}\n[pretokenize]\n{settings}"
        );
        let pipeline = Pipeline::parse(&text, "fuzz.toml", &Overrides::default()).expect("a pipeline");
        pretokenizer(pipeline.source.modality, &pipeline.pretokenize, &pipeline.limits).expect("settings")
    };
    settings.iter().map(one).collect()
}

/// An image; what no format claims is TGA.
pub fn image(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| {
        let settings = [
            "image = { max_pixels = 65536 }",
            "image = { max_pixels = 65536, patch = 7, max_side = 20, merge_below = 3.0 }",
        ];
        pretokenizers("image", &settings)
    });
    let content = Content { bytes: bytes.to_vec(), path: Some("a.tga".into()), language: None };
    HOW.iter().map(|how| decode(how.as_ref(), &content, estimate_is_exact)).collect()
}

/// A sound.
pub fn audio(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| {
        let settings = [
            "audio = { max_seconds = 60 }",
            "audio = { max_seconds = 60, mono = true, sample_rate = 11025, frame_ms = 7 }",
        ];
        pretokenizers("audio", &settings)
    });
    let content = Content { bytes: bytes.to_vec(), ..Content::default() };
    HOW.iter().map(|how| decode(how.as_ref(), &content, |_, _, _| ())).collect()
}

/// A PDF file.
pub fn document(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| {
        let settings = [
            "document = { max_pages = 8, views = ['text', 'raw'] }",
            "document = { max_pages = 8, views = ['image'], dpi = 48 }",
        ];
        pretokenizers("document", &settings)
    });
    let content = Content { bytes: bytes.to_vec(), ..Content::default() };
    let check = |content: &Content, _: u64, views: &[View]| {
        let raw = views.iter().find(|view| view.name.as_deref() == Some("raw"));
        assert!(raw.is_none_or(|raw| raw.bytes == content.bytes));
    };
    HOW.iter().map(|how| decode(how.as_ref(), &content, check)).collect()
}

/// Code. Before the first separator, if there is one, stands its path, or its language, which has no full stop in it.
pub fn code(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| pretokenizers("code", &[""]));
    let at = bytes.iter().position(|byte| *byte == SEPARATOR);
    let (name, code) = at.map_or((None, bytes), |at| (Some(&bytes[..at]), &bytes[at + 1..]));
    let name = name.and_then(|name| String::from_utf8(name.to_vec()).ok());
    let is_path = name.as_ref().is_some_and(|name| name.contains('.'));
    let (path, language) = if is_path { (name, None) } else { (None, name) };
    let content = Content { bytes: code.to_vec(), path, language };
    HOW.iter().map(|how| decode(how.as_ref(), &content, bytes_are_kept)).collect()
}

/// An executable.
pub fn binary(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| pretokenizers("binary", &[""]));
    let content = Content { bytes: bytes.to_vec(), ..Content::default() };
    HOW.iter().map(|how| decode(how.as_ref(), &content, bytes_are_kept)).collect()
}

/// Text, with segments of every kind.
pub fn text(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| {
        let rules = [
            "text = { invalid_utf8 = 'quarantine' }",
            "text.segments = 'paragraph'",
            "text.segments = 'sentence'",
        ];
        let mut all = pretokenizers("text", &rules);
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, tokenizer) in [("bytes", byte_level()), ("words", word_pieces())] {
            let path = folder.path().join(name);
            fs::write(&path, tokenizer.to_string()).expect("a file in it");
            let of_file = format!("text = {{ segments = 'tokenizer', tokenizer = '{}' }}", path.display());
            all.extend(pretokenizers("text", &[&of_file]));
        }
        all
    });
    let content = Content { bytes: bytes.to_vec(), ..Content::default() };
    HOW.iter().map(|how| decode(how.as_ref(), &content, bytes_are_kept)).collect()
}

/// Content of any kind, told by its bytes, then by a name as well.
pub fn auto(bytes: &[u8]) -> Vec<Decoded> {
    static HOW: Pretokenizers = LazyLock::new(|| {
        let settings =
            "image = { max_pixels = 65536 }\naudio = { max_seconds = 60 }\ndocument = { max_pages = 8 }";
        pretokenizers("auto", &[settings])
    });
    let of = |path: Option<&str>, language: Option<&str>| {
        let [path, language] = [path, language].map(|name| name.map(str::to_owned));
        Content { bytes: bytes.to_vec(), path, language }
    };
    let contents = [of(None, None), of(Some("a.tga"), Some("python"))];
    contents.iter().map(|content| decode(HOW[0].as_ref(), content, |_, _, _| ())).collect()
}

fn bytes_are_kept(content: &Content, estimate: u64, views: &[View]) {
    assert!(estimate == content.bytes.len() as u64);
    assert!(views.len() == 1 && views[0].bytes == content.bytes);
}

fn estimate_is_exact(_: &Content, estimate: u64, views: &[View]) {
    assert_eq!(estimate, views.iter().map(|view| view.bytes.len() as u64).sum::<u64>());
}

/// Asks of `how` what the engine asks, and what it makes of `content` twice.
fn decode(how: &dyn Pretokenizer, content: &Content, check: fn(&Content, u64, &[View])) -> Decoded {
    let Needs { views: estimate, beside } = panic_held_back(|| how.needs(content)).unwrap_or_default();
    let most = MOST_VIEWS * MOST_BYTES + content.bytes.len() as u64;
    assert!(estimate <= most && beside <= 2 * most + 160 * content.bytes.len() as u64);
    let views = || panic_held_back(|| how.views(content.clone()));
    let found = views();
    assert!(found == views(), "the same bytes gave something else");
    let views = match found {
        Ok(Ok(views)) => views,
        Ok(Err(reason)) => {
            assert!(!reason.is_empty() && !reason.starts_with("the decoder panicked"), "{reason}");
            return Err(reason);
        }
        Err(place) => return Err(format!("{PANICKED}{place}")),
    };
    let mut n_bytes = 0;
    for view in &views {
        assert_eq!(check_tiling(view), Ok(()));
        assert!(view.bytes.len() as u64 <= MOST_BYTES);
        let metas = view.segments.iter().filter_map(|segment| segment.meta.as_deref());
        metas.for_each(|meta| drop(serde_json::from_str::<serde_json::Value>(meta).expect("it is JSON")));
        n_bytes += view.bytes.len() as u64;
    }
    assert!(n_bytes <= most);
    check(content, estimate, &views);
    Ok(n_bytes)
}

thread_local! {
    static HELD_BACK: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What `run` gives, or the place in a dependency where it panicked. A panic of our own code goes on, and what a panic did before
/// still happens then: libFuzzer ends the process.
fn panic_held_back<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // Where cargo unpacks what it fetched. The standard library's own panics count as ours.
            let place = panic.location().filter(|place| place.file().contains("registry/src/"));
            match place {
                Some(place) if HELD_BACK.get() => {
                    let file = place.file().rsplit_once("registry/src/").map_or("", |(_, file)| file);
                    let file = file.split_once('/').map_or(file, |(_, file)| file);
                    PLACE.set(Some(format!("{file}:{}", place.line())));
                }
                _ => before(panic),
            }
        }));
    });
    PLACE.set(None);
    HELD_BACK.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    HELD_BACK.set(false);
    result.map_err(|panic| PLACE.take().unwrap_or_else(|| resume_unwind(panic)))
}

/// Keeps an input that made a decoder panic in a place that was not seen before, for whoever fuzzes to look at: in the folder
/// `BLT_FUZZ_PANICS`, if there is one.
pub fn keep_panics(bytes: &[u8], outcomes: &[Decoded]) {
    static FOLDER: LazyLock<Option<std::ffi::OsString>> =
        LazyLock::new(|| std::env::var_os("BLT_FUZZ_PANICS"));
    let Some(folder) = &*FOLDER else { return };
    for reason in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        if let Some(place) = reason.strip_prefix(PANICKED) {
            let path = Path::new(folder).join(place.replace('/', "-"));
            if !path.exists() {
                fs::write(path, bytes).expect("a file in the folder of panics");
            }
        }
    }
}

/// What `archives` names in each archive.
const MEMBERS: [&str; 3] = ["x", "b/y", "x"];
/// By the endings that tell the formats.
const ENDINGS: [&str; 5] = ["zip", "tar", "tar.gz", "tar.zst", "tar.bz2"];

/// An archive beside a shard whose rows name members of it, as one of each format.
pub fn archives(bytes: &[u8]) -> Vec<Decoded> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.zip"), bytes).expect("a file in it");
    let mut rows = String::new();
    for ending in ENDINGS {
        let archive = format!("a.{ending}");
        if ending != "zip" {
            fs::hard_link(file("a.zip"), file(&archive)).expect("another name of it");
        }
        MEMBERS.iter().for_each(|member| rows += &format!("{{\"path\":\"{archive}::{member}\"}}\n"));
    }
    fs::write(file("a.jsonl"), rows).expect("a file in it");
    let text = format!(
        "[source]\nuri = '{}'\ncontent = 'none'\npath = 'path'\nresolve_paths = true\n[sink]\nuri = '/nonexistent'\n\
         [limits]\nmax_document_bytes = 4096",
        file("a.jsonl").display()
    );
    let pipeline = Pipeline::parse(&text, "fuzz.toml", &Overrides::default()).expect("a pipeline");
    let plan = Plan::freeze(pipeline, facts(), Start::Fresh).expect("a plan");
    let outcomes = read_beside(&plan);
    assert!(outcomes == read_beside(&plan), "the same archive gave something else");
    for of_archive in outcomes.chunks(MEMBERS.len()) {
        assert!(of_archive[0] == of_archive[2], "what was read before changed what a path gives");
    }
    outcomes.into_iter().map(|outcome| outcome.map(|bytes| bytes.len() as u64)).collect()
}

/// The bytes of each row, or why it was given up.
fn read_beside(plan: &Plan) -> Vec<Result<Vec<u8>, String>> {
    let shard = planned(plan).expect("a shard");
    let most = plan.pipeline.limits.max_document_bytes;
    let ranges: Vec<_> = plan.units.iter().map(|unit| unit.rows.clone()).collect();
    let mut reader =
        RowReader::open(shard, &plan.pipeline.source, most, plan.memory, &ranges).expect("a reader");
    let mut outcomes = vec![Err(String::new()); MEMBERS.len() * ENDINGS.len()];
    for unit in &plan.units {
        let batch = reader.read(unit.clone(), &mut |_: Held| Ok(())).expect("rows");
        for row in batch.rows {
            assert!(row.content.bytes.len() as u64 <= most);
            outcomes[row.source_row as usize] = Ok(row.content.bytes);
        }
        for row in batch.rejected {
            outcomes[row.source_row as usize] = Err(row.reason);
        }
    }
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().err().is_none_or(|reason| !reason.is_empty())));
    outcomes
}

/// A tokenizer whose tokens are bytes, and `hello`.
fn byte_level() -> serde_json::Value {
    let is_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let character = |byte: u8| {
        let n_moved = (0..byte).filter(|byte| !is_itself(*byte)).count() as u32;
        let code = if is_itself(byte) { u32::from(byte) } else { 256 + n_moved };
        char::from_u32(code).unwrap_or_default().to_string()
    };
    let mut vocabulary: serde_json::Map<_, _> =
        (0..=255).map(|byte| (character(byte), byte.into())).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "\u{120} hello"];
    for (id, merge) in (256..).zip(merges) {
        vocabulary.insert(merge.replace(' ', ""), id.into());
    }
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [{
            "id": 261, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false,
            "special": true,
        }],
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    })
}

/// One that normalizes, drops and joins characters.
fn word_pieces() -> serde_json::Value {
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null, "decoder": null,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFKC" },
            { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        ] },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "model": {
            "type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20,
            "vocab": { "?": 0, "hello": 1, ",": 2, "wor": 3, "##ld": 4, "s": 5, "##s": 6, "a": 7, "##a": 8, "1": 9 },
        },
    })
}
