//! Files that were made to break Parquet readers: whatever a column holds, the run ends with an exit code
//! of its own, without a panic's text, a hang or an abort.

use std::path::{Path, PathBuf};

use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};

use crate::support::{Work, prose, set_flags};

/// The folder with the corpora that are too large for the repository.
pub fn corpora() -> Option<PathBuf> {
    let folder = std::env::var_os("BLT_SHARED").map_or_else(|| "../shared".into(), PathBuf::from);
    // The program runs in a folder of its own.
    folder.join("data/hard/parquet-testing").is_dir().then(|| folder.canonicalize().unwrap())
}

/// The files in `folder` of [`corpora`], sorted.
pub fn files(corpora: &Path, folder: &str) -> Vec<PathBuf> {
    let folder = corpora.join("data/hard/parquet-testing").join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "parquet" || e == "encrypted")).collect();
    paths.sort();
    assert!(paths.len() > 5, "{paths:?}");
    paths
}

/// Top-level columns as far as they can be told, and the default where they cannot.
pub fn columns(path: &Path) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap();
    let names = std::panic::catch_unwind(|| {
        let reader = SerializedFileReader::new(file).ok()?;
        let schema = reader.metadata().file_metadata().schema();
        Some(schema.get_fields().iter().map(|field| field.name().to_owned()).collect::<Vec<_>>())
    });
    names.ok().flatten().unwrap_or_default().into_iter().chain(["text".to_owned()]).collect()
}

#[test]
fn files_that_break_readers_end_with_an_exit_code() {
    let Some(corpora) = corpora() else {
        assert!(std::env::var_os("BLT_SHARED").is_none(), "BLT_SHARED has no data/hard/parquet-testing");
        return crate::storage::skipped("files that break readers", "name the shared folder in BLT_SHARED");
    };
    let mut seen = std::collections::BTreeMap::<i32, usize>::new();
    for folder in ["data", "bad_data"] {
        for path in files(&corpora, folder) {
            for column in columns(&path) {
                let work = Work::new();
                let (uri, content) = (format!("source.uri={path:?}"), format!("source.content={column:?}"));
                let outcome = work.blt(
                    "run",
                    &set_flags(&[&uri, &content, "limits.max_quarantined=1.0", "source.limit=200"]),
                );
                let case = format!("{} column {column}: {}", path.display(), outcome.stderr);
                assert!([0, 2, 65].contains(&outcome.code), "{}: {case}", outcome.code);
                assert!(
                    !outcome.stderr.contains("panicked") && !outcome.stdout.contains("panicked"),
                    "{case}"
                );
                assert!(
                    outcome.code == 0
                        || outcome.stderr.contains("error: ")
                        || outcome.stdout.contains("failed  "),
                    "{case}"
                );
                *seen.entry(outcome.code).or_default() += 1;
            }
        }
    }
    assert!([0, 2, 65].iter().all(|code| seen.get(code).is_some_and(|&n| n > 5)), "{seen:?}");
}

/// What a flipped byte does is up to chance; that the run survives it is not.
#[test]
fn a_byte_changed_anywhere_ends_with_an_exit_code_too() {
    let texts = [prose(120, 1), prose(80, 2)];
    let work = Work::with(&texts.each_ref().map(String::as_str));
    let whole = std::fs::read(work.path("shards/a.parquet")).unwrap();
    std::fs::remove_file(work.path("shards/a.parquet")).unwrap();
    // A shard a change, all in one run: each must cost itself only.
    let mut n = 0;
    for (at, value) in (0..whole.len()).step_by(2).flat_map(|at| [(at, 0xff), (at, 0x01)]) {
        let mut bytes = whole.clone();
        bytes[at] ^= value;
        std::fs::write(work.path(&format!("shards/{at:05}-{value:02x}.parquet")), bytes).unwrap();
        n += 1;
    }
    work.texts("zzz-intact.parquet", &["whole"]);
    let sets = ["limits.max_quarantined=1.0", "sink.embeddings=none"];
    // A change in the schema is the plan's to refuse: those shards are set aside, as a person would.
    let outcome = loop {
        let outcome = work.blt("run", &set_flags(&sets));
        if outcome.code != 2 {
            break outcome;
        }
        let name =
            outcome.stderr.split('/').find_map(|part| part.split_once(".parquet").map(|(name, _)| name));
        let name = name.unwrap_or_else(|| panic!("no shard is named: {}", outcome.stderr));
        std::fs::remove_file(work.path(&format!("shards/{name}.parquet"))).unwrap();
        n -= 1;
    };
    assert_eq!(outcome.code, 65, "{}", outcome.stdout);
    assert!(
        !outcome.stderr.contains("panicked") && !outcome.stdout.contains("panicked"),
        "{}",
        outcome.stderr
    );
    assert!(n > 100, "{n} shards are left");
    // These words stand for a panic of the decoder, so that the test has seen some held back.
    assert!(outcome.stdout.contains("the bytes are not valid Parquet"), "{}", outcome.stdout);
    let intact = work.documents().iter().filter(|r| r.source_file == "zzz-intact.parquet").count();
    assert_eq!(intact, 1);
}
