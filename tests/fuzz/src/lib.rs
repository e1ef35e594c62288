//! What is done with bytes that anyone may have written: a pipeline file, an output's records, a shard, media. Any answer is fine,
//! a panic is not; what holds whatever the bytes are is asserted. The fuzz targets call it, and so does `it/fuzz.rs`.

#[cfg(feature = "media")]
pub mod media;

use std::{fs, ops::Range, path::Path, sync::Arc, sync::LazyLock};

use blt_pipeline::{
    config::{Overrides, Pipeline},
    data::Unit,
    pipeline::{DeviceFacts, ModelFacts, Plan, PlannedShard},
    sink::{Ledger, PlanRecord, Start, Status, Storage, verify},
    source::{Held, RowReader, Shard, SourceError},
};

/// Stands between the parts of an input that has several: a byte that none of the texts can hold.
pub const SEPARATOR: u8 = 0x1e;

/// A pipeline file, and behind each separator the argument of a `--set`.
pub fn pipeline_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split(char::from(SEPARATOR));
    let file = parts.next().unwrap_or_default();
    let overrides = Overrides { set: parts.map(String::from).collect(), ..Overrides::default() };
    match Pipeline::parse(file, "fuzz.toml", &overrides) {
        Ok(pipeline) => {
            let meaning = pipeline.meaning();
            let written = serde_json::to_vec(&meaning).expect("it is JSON");
            assert_eq!(serde_json::from_slice::<serde_json::Map<_, _>>(&written).ok(), Some(meaning));
            let again = Pipeline::parse(file, "fuzz.toml", &overrides).ok();
            assert_eq!(again.as_ref(), Some(&pipeline));
            let _ = Plan::check_supported(&pipeline);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Where the parts of an input for [`records`] go; what an input has no part for is not there.
pub const RECORDS: [&str; 7] = [
    "plan.json",
    "commits/00000-00000.json",
    "commits/00000-00000.r1.json",
    "commits/00000-00001.json",
    "failed/00000-00002.json",
    "manifest.json",
    "claims/0.json",
];

/// The files of an output's `_blt` folder, one behind another.
pub fn records(bytes: &[u8]) {
    let output = tempfile::tempdir().expect("a temporary folder");
    let folder = output.path().join("_blt");
    for part in ["commits", "failed", "claims"] {
        fs::create_dir_all(folder.join(part)).expect("a folder in it");
    }
    for (name, part) in RECORDS.iter().zip(bytes.split(|&byte| byte == SEPARATOR)) {
        fs::write(folder.join(name), part).expect("a file in it");
    }
    let storage = Storage::from(output.path());
    if let Ok(Some(ledger)) = Ledger::read(&storage) {
        let written = serde_json::to_vec(&ledger.plan).expect("it is JSON");
        assert_eq!(serde_json::from_slice::<PlanRecord>(&written).ok(), Some(ledger.plan));
    }
    if let Ok(status) = Status::read(&storage) {
        assert!(!status.to_string().is_empty());
        assert!(status.committed <= 2);
    }
    if let Ok(found) = verify(&storage) {
        // The files that the records name are not there.
        assert!(!found.complete || found.files == 0);
    }
}

/// What a run makes of a shard: the rows it reads, or why it does not.
pub type Outcome = Result<u64, String>;

/// A shard, read whole by pipelines that differ in what they take from it.
pub fn parquet_source(bytes: &[u8]) -> Vec<Outcome> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.parquet");
    fs::write(&path, bytes).expect("a file in it");
    PIPELINES.iter().map(|pipeline| read_all(pipeline.clone(), &path)).collect()
}

/// Small in all that limits, so that an input of a kilobyte meets the limits.
static PIPELINES: LazyLock<Vec<Pipeline>> = LazyLock::new(|| {
    let sources = [
        "content = 'text'",
        "content = 'text'\ncarry = ['number', 'tags', 'key']\nsample = { fraction = 0.5, seed = 7 }",
        "content = 'image'\nid = 'text'\ncarry = ['number']",
        "content = 'fixed'\nid = 'number'\ncarry = ['text']",
        "content = 'key'\nid = 'key'",
    ];
    let pipeline = |source| {
        let text = format!(
            "[source]\nuri = '-'\nlimit = 500\n{source}\n[sink]\nuri = '/nonexistent'\nunit_bytes = 1500\n\
             [limits]\nmax_document_bytes = 300\nmemory = '16 MiB'"
        );
        Pipeline::parse(&text, "fuzz.toml", &Overrides::default()).expect("a pipeline")
    };
    sources.into_iter().map(pipeline).collect()
});

fn read_all(mut pipeline: Pipeline, path: &Path) -> Outcome {
    pipeline.source.uris = vec![path.display().to_string()];
    let plan = Plan::freeze(pipeline, facts(), Start::Fresh).map_err(|error| said(&error))?;
    let shard = planned(&plan).map_err(|reason| said(&reason))?;
    let mut planned = 0;
    for unit in &plan.units {
        assert!(unit.rows.start == planned && unit.rows.end > planned, "{:?} after {planned}", unit.rows);
        planned = unit.rows.end;
    }
    let rows: u64 = shard.row_groups.iter().map(|group| group.rows).sum();
    assert_eq!(planned, rows.min(500));
    match read_units(&plan, shard, &plan.units) {
        Ok(()) => Ok(planned),
        Err(error) => {
            // What is wrong with one unit is no matter for the next attempt at another.
            if let Some(last) = plan.units.last() {
                let _ = read_units(&plan, shard, std::slice::from_ref(last)).map_err(|error| said(&error));
            }
            Err(said(&error))
        }
    }
}

/// Of a model that nobody asks.
fn facts() -> ModelFacts {
    ModelFacts {
        name: "none".into(),
        dim: 4,
        max_context: 256,
        parameters: 0,
        sha256: String::new(),
        threshold: None,
        revisions: Default::default(),
        device: DeviceFacts::cpu(),
    }
}

/// The only shard, or why it cannot be read.
fn planned(plan: &Plan) -> Result<&Shard, &str> {
    match &plan.shards[..] {
        [PlannedShard::Ready(shard)] => Ok(shard),
        [PlannedShard::Broken { reason, .. }] => Err(reason),
        other => panic!("a shard became {other:?}"),
    }
}

fn read_units(plan: &Plan, shard: &Shard, units: &[Arc<Unit>]) -> Result<(), SourceError> {
    let (memory, max_document_bytes) = (plan.memory, plan.pipeline.limits.max_document_bytes);
    let rows: Vec<Range<u64>> = units.iter().map(|unit| unit.rows.clone()).collect();
    let mut reader = RowReader::open(shard, &plan.pipeline.source, max_document_bytes, memory, &rows)?;
    let mut grant = |held: Held| match held.reader + held.content + held.carried <= memory {
        true => Ok(()),
        false => Err(SourceError::Memory(format!("a row group of a.parquet takes more than {memory} bytes"))),
    };
    for unit in units {
        let batch = reader.read(unit.clone(), &mut grant);
        let batch =
            batch.inspect_err(|error| assert!(error.to_string().contains("row group "), "{error}"))?;
        let n_rows = unit.rows.end - unit.rows.start;
        assert_eq!(batch.rows.len() as u64 + batch.rejected.len() as u64 + batch.n_filtered, n_rows);
        assert!(batch.rows.iter().all(|row| row.content.bytes.len() as u64 <= max_document_bytes));
        let mut seen: Vec<u64> = batch.rows.iter().map(|row| row.source_row).collect();
        seen.extend(batch.rejected.iter().map(|row| row.source_row));
        seen.sort_unstable();
        assert!(seen.is_sorted_by(|a, b| a < b) && seen.iter().all(|row| unit.rows.contains(row)));
        assert!(batch.carried.is_none_or(|carried| carried.num_rows() as u64 == n_rows));
    }
    Ok(())
}

/// The words of an error, which name the file and are no panic's.
fn said(error: &impl ToString) -> String {
    let words = error.to_string();
    assert!(words.contains("a.parquet") && !words.contains("panicked"), "{words}");
    words
}
