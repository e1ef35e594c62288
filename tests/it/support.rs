//! A folder with shards, a pipeline file and an output, and what a story does with them: run the binary,
//! run the engine with a fake model, read the tables. Asserts nothing about the product.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{Float16Type, Float32Type, UInt32Type, UInt64Type},
};
use blt_pipeline::{
    config::{Overrides, Pipeline},
    model::EntropyModel,
    pipeline::{DeviceFacts, Display, ModelFacts, Plan, RunError, Stop, Summary, Trace, run},
    sink::{Start, Storage},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};
use serde_json::Value;

use crate::golden;

/// Longer than any story takes on a busy machine, and than a process waits for a lock that a stopped one holds; a hang ends there.
const PATIENCE: Duration = Duration::from_secs(200);

/// Width and context of the fake model in [`Work::plan`].
pub const DIM: usize = 4;
pub const CONTEXT: usize = 256;

/// A temporary folder with `shards/` and `pipeline.toml`; the output goes to `out/`.
pub struct Work {
    folder: tempfile::TempDir,
}

/// What the binary left behind.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: std::process::Output) -> Self {
        Outcome {
            // A signal has no code; no story expects -1.
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit code and that each of `parts` is in what was printed.
    #[track_caller]
    pub fn expect(&self, code: i32, parts: &[&str]) {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{all}");
        for part in parts {
            assert!(all.contains(part), "{part:?} is not in:\n{all}");
        }
    }
}

/// Runs the binary in the folder of the repository.
pub fn blt(arguments: &[&str]) -> Outcome {
    blt_in(Path::new("."), arguments)
}

fn blt_in(folder: &Path, arguments: &[&str]) -> Outcome {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"));
    command.args(arguments).current_dir(folder).env_remove("RUST_LOG").timeout(PATIENCE);
    Outcome::of(command.output().unwrap())
}

impl Work {
    /// Without shards; the pipeline runs the golden nano model.
    pub fn new() -> Self {
        let work = Work { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(work.path("shards")).unwrap();
        let text = format!(
            "[source]\nuri = {:?}\n\n[model]\nweights = {:?}\n\n[sink]\nuri = {:?}\n",
            work.path("shards/*.parquet"),
            golden::folder("nano"),
            work.path("out"),
        );
        fs::write(work.path("pipeline.toml"), text).unwrap();
        work
    }

    /// With one shard `a.parquet`, its column `text` holding `texts`.
    pub fn with(texts: &[&str]) -> Self {
        let work = Work::new();
        work.texts("a.parquet", texts);
        work
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    pub fn texts(&self, name: &str, texts: &[&str]) -> PathBuf {
        self.shard(name, [("text", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef)], texts.len())
    }

    /// Writes the shard `name`, uncompressed so that its bytes can be found, `rows` rows a row group.
    pub fn shard<const N: usize>(&self, name: &str, columns: [(&str, ArrayRef); N], rows: usize) -> PathBuf {
        let path = self.path("shards").join(name);
        let table = RecordBatch::try_from_iter(columns).unwrap();
        write_parquet(&path, &table, rows);
        path
    }

    /// `blt-pipeline COMMAND pipeline.toml ARGUMENTS`.
    pub fn blt(&self, command: &str, arguments: &[&str]) -> Outcome {
        blt_in(self.folder.path(), &[&[command, "pipeline.toml"], arguments].concat())
    }

    /// `blt-pipeline ARGUMENTS` with `variables` in its environment.
    #[cfg(feature = "remote")]
    pub fn blt_with(&self, variables: &[(&'static str, String)], arguments: &[&str]) -> Outcome {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_LOG").timeout(PATIENCE);
        for (name, value) in variables {
            command.env(name, value);
        }
        Outcome::of(command.output().unwrap())
    }

    /// The process of `blt-pipeline run pipeline.toml FLAGS` with `variables` in its environment, not waited for.
    #[cfg(feature = "remote")]
    pub fn start_in(&self, variables: &[(&'static str, String)], flags: &[&str]) -> std::process::Child {
        std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
            .args(["run", "pipeline.toml"])
            .args(flags)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// `blt-pipeline run pipeline.toml --set …`, which must end well.
    #[track_caller]
    pub fn run(&self, sets: &[&str]) -> Outcome {
        let outcome = self.blt("run", &set_flags(sets));
        outcome.expect(0, &[]);
        outcome
    }

    /// `blt-pipeline run pipeline.toml --set …` with points of failure: `commit::link=return(kill)`.
    pub fn run_with(&self, points: &str, sets: &[&str]) -> Outcome {
        let child = self.start_with(points, sets);
        Outcome::of(child.wait_with_output().unwrap())
    }

    /// The process of `blt-pipeline run pipeline.toml --set …`, not waited for.
    pub fn start(&self, sets: &[&str]) -> std::process::Child {
        self.start_with("", sets)
    }

    /// Likewise, with points of failure.
    pub fn start_with(&self, points: &str, sets: &[&str]) -> std::process::Child {
        self.start_flags(points, &set_flags(sets))
    }

    /// The process of `blt-pipeline run pipeline.toml FLAGS` with points of failure, not waited for.
    pub fn start_flags(&self, points: &str, flags: &[&str]) -> std::process::Child {
        std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
            .args(["run", "pipeline.toml"])
            .args(flags)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .env("FAILPOINTS", points)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn pipeline(&self, sets: &[&str]) -> Pipeline {
        pipeline_of(&self.path("pipeline.toml"), sets)
    }

    /// The plan for a fake model of [`DIM`] and [`CONTEXT`].
    pub fn plan(&self, sets: &[&str]) -> Plan {
        plan_of(&self.path("pipeline.toml"), sets)
    }

    /// Runs the engine with `model` in place of the pipeline's own.
    pub fn engine(&self, sets: &[&str], model: &mut dyn EntropyModel) -> Result<Summary, RunError> {
        run(&self.plan(sets), model, Stop::default(), &Display::Silent, &Trace::off())
    }

    /// Column after column of `table`; `None` when there is no such table.
    pub fn table(&self, table: &str) -> Option<RecordBatch> {
        read_table(&self.out(), table)
    }

    pub fn documents(&self) -> Vec<Row> {
        rows(&self.table("documents").expect("the output has documents"))
    }
}

fn pipeline_of(file: &Path, sets: &[&str]) -> Pipeline {
    let set = sets.iter().map(|s| (*s).to_owned()).collect();
    let overrides = Overrides { set, ..Overrides::default() };
    Pipeline::load(file, &overrides).unwrap()
}

/// The plan of the pipeline file `file` for a fake model of [`DIM`] and [`CONTEXT`].
pub fn plan_of(file: &Path, sets: &[&str]) -> Plan {
    freeze(pipeline_of(file, sets)).unwrap()
}

/// The plan of `pipeline`, likewise.
pub fn freeze(pipeline: Pipeline) -> Result<Plan, RunError> {
    let facts = ModelFacts {
        name: "fake".into(),
        dim: DIM,
        max_context: CONTEXT,
        parameters: 0,
        sha256: "fake".into(),
        threshold: None,
        revisions: Default::default(),
        device: DeviceFacts::cpu(),
    };
    Plan::freeze(pipeline, facts, Start::Resume)
}

pub fn set_flags<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    sets.iter().flat_map(|set| ["--set", set]).collect()
}

pub fn write_parquet(path: &Path, table: &RecordBatch, rows: usize) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(rows.max(1)))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
}

/// Names of the files of `table`, sorted.
pub fn files(out: &Path, table: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(out.join(table)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn read_table(out: &Path, table: &str) -> Option<RecordBatch> {
    let batches: Vec<RecordBatch> = files(out, table)
        .iter()
        .flat_map(|name| {
            let file = File::open(out.join(table).join(name)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            reader.map(Result::unwrap)
        })
        .collect();
    let first = batches.first()?;
    Some(concat_batches(&first.schema(), &batches).unwrap())
}

/// A row of `documents` or `patches`, as far as it has these columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub doc_id: String,
    pub source_file: String,
    pub source_row: u64,
    pub n_bytes: u64,
    pub entropies: Vec<f32>,
    pub norms: Vec<f32>,
    pub patch_lengths: Vec<u32>,
    pub start: u64,
    pub length: u64,
    pub entropy_start: f32,
    pub entropy_mean: f32,
    pub norm_mean: f32,
    /// As f32, whatever its type; `None` where null or absent.
    pub embedding: Option<Vec<f32>>,
}

pub fn rows(table: &RecordBatch) -> Vec<Row> {
    let number = |name: &str, i: usize| {
        table.column_by_name(name).map_or(0, |c| c.as_primitive::<UInt64Type>().value(i))
    };
    let float = |name: &str, i: usize| {
        table.column_by_name(name).map_or(0.0, |c| c.as_primitive::<Float32Type>().value(i))
    };
    let floats = |name: &str, i: usize| {
        let list = table.column_by_name(name).map(|c| c.as_list::<i32>().value(i));
        list.map_or(Vec::new(), |list| list.as_primitive::<Float32Type>().values().to_vec())
    };
    (0..table.num_rows())
        .map(|i| Row {
            doc_id: table["doc_id"].as_string::<i32>().value(i).to_owned(),
            source_file: table["source_file"].as_string::<i32>().value(i).to_owned(),
            source_row: number("source_row", i),
            n_bytes: number("n_bytes", i),
            entropies: floats("entropies", i),
            norms: floats("norms", i),
            patch_lengths: table.column_by_name("patch_lengths").map_or(Vec::new(), |c| {
                c.as_list::<i32>().value(i).as_primitive::<UInt32Type>().values().to_vec()
            }),
            start: number("start", i),
            length: number("length", i),
            entropy_start: float("entropy_start", i),
            entropy_mean: float("entropy_mean", i),
            norm_mean: float("norm_mean", i),
            embedding: embedding(table, i),
        })
        .collect()
}

fn embedding(table: &RecordBatch, row: usize) -> Option<Vec<f32>> {
    let column = table.column_by_name("embedding")?.as_fixed_size_list();
    if column.is_null(row) {
        return None;
    }
    let values = column.value(row);
    Some(match values.as_primitive_opt::<Float16Type>() {
        Some(halves) => halves.values().iter().map(|v| v.to_f32()).collect(),
        None => values.as_primitive::<Float32Type>().values().to_vec(),
    })
}

/// Every file of the output by its path below it, `_blt` included, but without the seconds that
/// commit records hold.
pub fn snapshot(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(out) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(out).unwrap().to_str().unwrap().to_owned();
        let mut bytes = fs::read(entry.path()).unwrap();
        // A torn record stays, as it is.
        if name.starts_with("_blt/commits/")
            && let Ok(mut record) = serde_json::from_slice::<Value>(&bytes)
        {
            assert!(record.as_object_mut().unwrap().remove("seconds").is_some());
            bytes = record.to_string().into_bytes();
        }
        all.insert(name, bytes);
    }
    all
}

/// Asserts that two snapshots are the same, and names the files that are not.
#[track_caller]
pub fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
    let names: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let different: Vec<String> = names
        .into_iter()
        .filter(|name| found.get(*name) != expected.get(*name))
        .map(|name| {
            let show = |bytes: Option<&Vec<u8>>| match bytes {
                None => "absent".to_owned(),
                Some(bytes) => String::from_utf8(bytes.clone()).unwrap_or(format!("{} bytes", bytes.len())),
            };
            format!("{name}: {} instead of {}", show(found.get(name)), show(expected.get(name)))
        })
        .collect();
    assert!(different.is_empty(), "{case}:\n{}", different.join("\n"));
}

/// Asserts what every finished output promises: the manifest names exactly the tables' files, with
/// their sizes and hashes, and nothing temporary is left.
#[track_caller]
pub fn assert_sound(out: &Path) {
    use sha2::{Digest, Sha256};
    let verified = blt_pipeline::sink::verify(&Storage::from(out)).unwrap();
    assert!(verified.complete, "{verified}");
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("_blt/manifest.json")).unwrap()).unwrap();
    let mut named: Vec<String> = Vec::new();
    for file in manifest["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        let bytes = fs::read(out.join(path)).unwrap();
        assert_eq!(file["bytes"], bytes.len(), "{path}");
        assert_eq!(file["sha256"], format!("{:x}", Sha256::digest(&bytes)), "{path}");
        named.push(path.to_owned());
    }
    let found: Vec<String> = ["bytes", "documents", "patches", "quarantine"]
        .iter()
        .flat_map(|table| files(out, table).into_iter().map(move |name| format!("{table}/{name}")))
        .collect();
    assert_eq!(named, found);
    for entry in walkdir::WalkDir::new(out) {
        let path = entry.unwrap().into_path();
        let name = path.file_name().unwrap().as_encoded_bytes();
        assert!(!name.starts_with(b".tmp-"), "{} is left behind", path.display());
    }
}

/// Text that differs everywhere, `n` bytes of it.
pub fn prose(n: usize, seed: u32) -> String {
    const WORDS: [&str; 16] = [
        "the", "lamp", "keeper", "writes", "down", "every", "ship", "that", "passes", "in", "fog", "and",
        "counts", "them", "twice,", "slowly.",
    ];
    let mut text = String::with_capacity(n + 8);
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    while text.len() < n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(WORDS[(state >> 28) as usize]);
        text.push(' ');
    }
    text.truncate(n);
    text
}
