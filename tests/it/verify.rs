//! What `verify` says of outputs as they were written, and of the same ones after something in them was changed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float32Array, Int64Array, ListArray, RecordBatch, StringArray, UInt32Array,
        UInt64Array,
    },
    compute::{concat_batches, take_record_batch},
    datatypes::{DataType, Field, Float32Type, Schema, UInt32Type, UInt64Type},
};
use blt_pipeline::{
    model::FakeModel,
    sink::{self, Problem, ProblemRow, SinkError, Storage, Verification},
};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{CONTEXT, DIM, Work, blt, files, prose, snapshot};

/// Two shards of 12 rows, with an empty document and a row without content in each.
fn shards() -> Work {
    let work = Work::new();
    for shard in 0..2u32 {
        let texts: Vec<String> =
            (0..12).map(|row| prose(300 + 41 * row as usize, 50 * shard + row)).collect();
        let mut texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        (texts[4], texts[7]) = (Some(""), None);
        let texts = Arc::new(StringArray::from(texts)) as ArrayRef;
        let likes = Arc::new(Int64Array::from_iter_values(0..12)) as ArrayRef;
        work.shard(&format!("{shard}.parquet"), [("text", texts), ("likes", likes)], 6);
    }
    work
}

const SETS: [&str; 3] = ["sink.unit_bytes=4000", "limits.max_quarantined=1.0", "source.carry=[\"likes\"]"];

fn output(more: &[&str]) -> Work {
    let work = shards();
    work.engine(&[&SETS[..], more].concat(), &mut FakeModel::new(DIM, CONTEXT)).unwrap();
    work
}

fn verify(out: &Path) -> Result<Verification, SinkError> {
    sink::verify(&Storage::from(out))
}

#[track_caller]
fn assert_sound(out: &Path, case: &str) -> Verification {
    let found = verify(out).unwrap();
    assert!(found.problem.is_none() && found.complete, "{case}: {found}");
    assert_eq!(found.checked, found.units, "{case}");
    found
}

#[track_caller]
fn problem(out: &Path, case: &str) -> Problem {
    let found = verify(out).unwrap();
    assert!(!found.complete, "{case}: {found}");
    found.problem.clone().unwrap_or_else(|| panic!("{case}: nothing was found: {found}"))
}

#[test]
fn what_the_engine_writes_is_sound_whatever_it_is_asked_to_write() {
    for embeddings in ["none", "document", "patch", "byte"] {
        for dtype in ["f16", "f32"] {
            let sets = [format!("sink.embeddings={embeddings}"), format!("sink.embedding_dtype={dtype}")];
            let work = output(&[&sets[0], &sets[1]]);
            let found = assert_sound(&work.out(), embeddings);
            assert_eq!((found.rows, found.documents, found.quarantined), (24, 22, 2));
            assert!(found.units > 2 && found.patches > 22 && found.notes.is_empty(), "{found}");
        }
    }
    for more in [
        &["sink.entropies=false"][..],
        &["sink.norms=false"],
        &["sink.entropies=false", "sink.norms=false", "sink.embeddings=byte"],
        &["source.carry=[]"],
        &["source.sample={ fraction = 0.5, seed = 3 }"],
        &["source.limit=15"],
        &["patch.mode=static", "patch.patch_size=7"],
        &["patch.mode=byte"],
        &["sink.compression=none"],
    ] {
        let found = assert_sound(&output(more).out(), &more.join(" "));
        assert!(found.documents > 5, "{found}");
    }
}

#[test]
fn a_flipped_byte_anywhere_in_a_table_is_found_and_its_file_named() {
    let work = output(&["sink.embeddings=byte"]);
    for table in ["documents", "patches", "bytes", "quarantine"] {
        let name = format!("{table}/{}", files(&work.out(), table)[0]);
        let path = work.out().join(&name);
        let whole = fs::read(&path).unwrap();
        for step in 0..50 {
            let at = step * (whole.len() - 1) / 49;
            let mut broken = whole.clone();
            broken[at] ^= 1 << (step % 8);
            fs::write(&path, &broken).unwrap();
            let found = problem(&work.out(), &format!("byte {at} of {name}"));
            assert_eq!(found.file, name);
            assert!(
                found.what.contains(" of source rows ") && found.what.contains(" of 0.parquet"),
                "{found}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_sound(&work.out(), "as it was");
}

/// What a flipped byte may change without being noticed: numbers that nothing else tells.
const UNPROVEN: [&str; 4] = ["\"seconds\":", "\"footer_sha256\":", "\"bytes\":", "\"unreadable\":"];

#[test]
fn a_flipped_byte_in_a_record_or_the_manifest_is_found() {
    let work = output(&[]);
    let record = format!("_blt/commits/{}", files(&work.out(), "_blt/commits")[0]);
    for (name, unproven) in
        [(record.as_str(), &UNPROVEN[..1]), ("_blt/manifest.json", &[]), ("_blt/plan.json", &UNPROVEN[1..])]
    {
        let path = work.out().join(name);
        let whole = fs::read_to_string(&path).unwrap();
        for step in 0..100 {
            let at = step * (whole.len() - 1) / 99;
            let line = whole[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let text = whole[line..].lines().next().unwrap_or_default().trim_start();
            if unproven.iter().any(|key| text.starts_with(key)) {
                continue;
            }
            let mut broken = whole.clone().into_bytes();
            broken[at] ^= 1 << (step % 7);
            fs::write(&path, &broken).unwrap();
            let read = serde_json::from_slice::<Value>(&broken).ok();
            let found = verify(&work.out()).unwrap();
            let same = read.is_some() && read == serde_json::from_str(&whole).ok();
            assert_eq!(found.problem.is_some(), !same, "byte {at} of {name}, {text}: {found}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_sound(&work.out(), "as it was");
}

#[test]
fn files_cut_off_gone_or_swapped_are_found() {
    let work = output(&[]);
    let names = files(&work.out(), "patches");
    let path = |index: usize| work.out().join("patches").join(&names[index]);
    let (first, second) = (fs::read(path(0)).unwrap(), fs::read(path(1)).unwrap());
    let named = |found: Problem| assert_eq!(found.file, format!("patches/{}", names[0]), "{found}");

    fs::write(path(0), &first[..first.len() - 1]).unwrap();
    named(problem(&work.out(), "cut off"));
    fs::write(path(0), []).unwrap();
    named(problem(&work.out(), "empty"));
    fs::remove_file(path(0)).unwrap();
    let gone = problem(&work.out(), "gone");
    assert!(gone.what.contains("gone"), "{gone}");
    named(gone);
    fs::write(path(0), &second).unwrap();
    fs::write(path(1), &first).unwrap();
    named(problem(&work.out(), "swapped"));
    fs::write(path(0), &first).unwrap();
    fs::write(path(1), &second).unwrap();
    assert_sound(&work.out(), "as it was");
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn an_edited_record_or_manifest_is_found() {
    type Edit = fn(&mut Value);
    let work = output(&[]);
    let record = format!("_blt/commits/{}", files(&work.out(), "_blt/commits")[1]);
    let edits: [(&str, Edit, &str); 10] = [
        (&record, |r| r["row_end"] = 5.into(), "source rows"),
        (&record, |r| r["row_start"] = 0.into(), "source rows"),
        (&record, |r| r["source_file"] = "x.parquet".into(), "source_file"),
        (&record, |r| r["counts"]["bytes"] = 5.into(), "counts.bytes is 5"),
        (&record, |r| r["counts"]["entropy_sum"] = 5.into(), "counts.entropy_sum"),
        (&record, |r| r["files"][0]["sha256"] = "0".repeat(64).into(), "must be called"),
        (&record, |r| drop(r["files"].as_array_mut().unwrap().pop()), ""),
        (&record, |r| r["fingerprint"] = "other".into(), "another plan"),
        ("_blt/manifest.json", |m| m["counts"]["rows"] = 25.into(), "counts"),
        ("_blt/manifest.json", |m| drop(m["files"].as_array_mut().unwrap().remove(0)), "records"),
    ];
    for (name, change, what) in edits {
        let path = work.out().join(name);
        let whole = fs::read(&path).unwrap();
        edit(&path, change);
        let found = problem(&work.out(), what);
        assert!(found.to_string().contains(what), "{what}: {found}");
        fs::write(&path, &whole).unwrap();
    }
    fs::copy(work.out().join(&record), work.out().join("_blt/commits/00007-00000.json")).unwrap();
    let found = problem(&work.out(), "a record under another name");
    assert_eq!(found.file, "_blt/commits/00007-00000.json");
}

#[test]
fn a_file_that_no_record_names_is_found_in_a_finished_output_and_noted_in_another() {
    let work = output(&[]);
    let folder = work.out().join("documents");
    fs::copy(folder.join(&files(&work.out(), "documents")[0]), folder.join("copy.parquet")).unwrap();
    let found = problem(&work.out(), "a stray file");
    assert!(found.file == "documents/copy.parquet" && found.what.contains("gc"), "{found}");
    fs::remove_file(work.out().join("_blt/manifest.json")).unwrap();
    let found = verify(&work.out()).unwrap();
    assert!(found.problem.is_none() && !found.complete, "{found}");
    assert!(found.notes.iter().any(|note| note.contains("documents/copy.parquet")), "{found}");
}

#[test]
fn an_unfinished_output_is_sound_so_far() {
    let work = output(&[]);
    fs::remove_file(work.out().join("_blt/manifest.json")).unwrap();
    let record = files(&work.out(), "_blt/commits").remove(1);
    fs::remove_file(work.out().join("_blt/commits").join(record)).unwrap();
    let before = snapshot(&work.out());
    let found = verify(&work.out()).unwrap();
    assert!(found.problem.is_none() && !found.complete, "{found}");
    assert_eq!(found.checked + 1, found.units);
    assert!(found.to_string().contains("are not committed"), "{found}");
    assert_eq!(snapshot(&work.out()), before, "nothing is changed");
}

#[test]
fn a_folder_that_is_no_output_is_an_error() {
    let work = Work::new();
    assert!(verify(&work.path("shards")).unwrap_err().to_string().contains("no output"));
}

/// The first file of `table`, below the output folder.
fn first(out: &Path, table: &str) -> String {
    format!("{table}/{}", files(out, table)[0])
}

/// Writes the file `name` anew after `change`, and the record of its unit so that size, hash and rows are right again.
pub fn reseal(out: &Path, name: &str, change: impl FnOnce(RecordBatch) -> RecordBatch) -> String {
    let path = out.join(name);
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    // With its metadata, which batches do not have.
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    let table = change(concat_batches(&schema, &batches).unwrap());
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();

    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    let stem = name.rsplit_once('-').unwrap().0;
    let renamed = format!("{stem}-{}.parquet", &sha256[..8]);
    fs::remove_file(&path).unwrap();
    fs::write(out.join(&renamed), &bytes).unwrap();
    let unit = stem.split_once('/').unwrap().1;
    edit(&out.join(format!("_blt/commits/{unit}.json")), |record| {
        let files = record["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["path"] == name).unwrap();
        file["path"] = renamed.clone().into();
        file["sha256"] = sha256.into();
        file["bytes"] = bytes.len().into();
        file["rows"] = table.num_rows().into();
    });
    let _ = fs::remove_file(out.join("_blt/manifest.json"));
    renamed
}

pub fn with(table: RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let index = table.schema().index_of(name).unwrap();
    let mut columns = table.columns().to_vec();
    columns[index] = column;
    RecordBatch::try_new(table.schema(), columns).unwrap()
}

pub fn pick(table: &RecordBatch, rows: &[u64]) -> RecordBatch {
    take_record_batch(table, &UInt64Array::from(rows.to_vec())).unwrap()
}

fn numbers(table: RecordBatch, name: &str, row: usize, change: fn(u64) -> u64) -> RecordBatch {
    let mut values = table[name].as_primitive::<UInt64Type>().values().to_vec();
    values[row] = change(values[row]);
    with(table, name, Arc::new(UInt64Array::from(values)))
}

fn floats(table: RecordBatch, name: &str, row: usize, change: fn(f32) -> f32) -> RecordBatch {
    let mut values = table[name].as_primitive::<Float32Type>().values().to_vec();
    values[row] = change(values[row]);
    with(table, name, Arc::new(Float32Array::from(values)))
}

/// The lists of a column of `documents`, changed.
fn lists(table: RecordBatch, name: &str, change: impl FnOnce(&mut Vec<Vec<f64>>)) -> RecordBatch {
    let column = table[name].as_list::<i32>().clone();
    let DataType::List(item) = column.data_type().clone() else { panic!("{name} is no list") };
    let is_float = item.data_type() == &DataType::Float32;
    let values = |list: ArrayRef| -> Vec<f64> {
        match is_float {
            true => list.as_primitive::<Float32Type>().values().iter().map(|&v| f64::from(v)).collect(),
            false => list.as_primitive::<UInt32Type>().values().iter().map(|&v| f64::from(v)).collect(),
        }
    };
    let mut lists: Vec<Vec<f64>> = (0..column.len()).map(|row| values(column.value(row))).collect();
    change(&mut lists);
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
    let flat = lists.concat();
    let values: ArrayRef = match is_float {
        true => Arc::new(Float32Array::from_iter_values(flat.iter().map(|&v| v as f32))),
        false => Arc::new(UInt32Array::from_iter_values(flat.iter().map(|&v| v as u32))),
    };
    with(table, name, Arc::new(ListArray::new(item, offsets, values, None)))
}

#[test]
fn tables_that_contradict_each_other_are_found_behind_right_checksums() {
    type Change = fn(RecordBatch) -> RecordBatch;
    let cases: Vec<(&str, Change, &str)> = vec![
        ("documents", |t| t, ""),
        ("documents", |t| pick(&t, &[0, 2, 3]), "source row 1 (unit 00000-00000): the row is neither in"),
        ("documents", |t| pick(&t, &[0, 0, 1, 2]), "source row 0 (unit 00000-00000): the row is there twice"),
        ("documents", |t| pick(&t, &[1, 0]), "source row 0 (unit 00000-00000): the row is neither in"),
        ("documents", |t| numbers(t, "n_bytes", 1, |n| n + 1), "source row 1 (unit 00000-00000)"),
        ("documents", |t| numbers(t, "source_row", 0, |_| 1000), "source_row is 1000"),
        (
            "documents",
            |t| lists(t, "entropies", |l| l[0].truncate(301)),
            "source row 0 (unit 00000-00000): 301 entropies for 300 bytes",
        ),
        (
            "documents",
            |t| lists(t, "norms", |l| l[1].push(1.0)),
            "source row 1 (unit 00000-00000): 344 norms",
        ),
        (
            "documents",
            |t| lists(t, "entropies", |l| l[1][3] = f64::NAN),
            "entropies of source row 1 holds NaN",
        ),
        ("documents", |t| lists(t, "entropies", |l| l[1][3] = 5.7), "entropies of source row 1 holds 5.7"),
        ("documents", |t| lists(t, "patch_lengths", |l| l[0][2] += 1.0), "patch_lengths sum to 303"),
        ("documents", |t| lists(t, "patch_lengths", |l| l[0][2] = 0.0), "patch_lengths[2] is 0"),
        (
            "documents",
            |t| {
                let n = t.num_rows();
                with(t, "source_file", Arc::new(StringArray::from(vec!["x.parquet"; n])))
            },
            "source_file is \"x.parquet\"",
        ),
        (
            "documents",
            |t| {
                let mut fields: Vec<Field> = t.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
                fields.push(Field::new("extra", DataType::UInt64, true));
                let schema = Schema::new_with_metadata(fields, t.schema().metadata().clone());
                let extra = t["source_row"].clone();
                RecordBatch::try_new(Arc::new(schema), [t.columns(), &[extra]].concat()).unwrap()
            },
            "extra",
        ),
        ("patches", |t| t, ""),
        ("patches", |t| numbers(t, "start", 1, |n| n + 1), "start and length of patch 1"),
        ("patches", |t| numbers(t, "length", 2, |n| n + 1), "start and length of patch 2"),
        ("patches", |t| floats(t, "entropy_start", 3, |v| v + 1e-3), "entropy_start of patch 3"),
        ("patches", |t| floats(t, "entropy_mean", 3, |v| v + 1e-3), "entropy_mean of patch 3"),
        ("patches", |t| floats(t, "norm_mean", 3, |v| v + 1e-3), "norm_mean of patch 3"),
        ("patches", |t| floats(t, "norm_mean", 3, |_| f32::INFINITY), "norm_mean of source row 0 holds inf"),
        ("patches", |t| t.slice(1, t.num_rows() - 1), "patch 1 of source row 0 came where patch 0"),
        ("patches", |t| t.slice(0, t.num_rows() - 1), "the file ends where patch"),
        (
            "patches",
            |t| {
                let last = t.num_rows() as u64 - 1;
                pick(&t, &[(0..=last).collect(), vec![last]].concat())
            },
            "the row belongs to no document",
        ),
        ("quarantine", |t| numbers(t, "source_row", 0, |n| n + 1), "source row 7 (unit"),
        (
            "quarantine",
            |t| with(t, "reason", Arc::new(StringArray::from(vec![""]))),
            "stage or reason is empty",
        ),
        ("bytes", |t| t, ""),
        ("bytes", |t| floats(t, "entropy", 5, |v| v + 1e-3), "entropy of byte 5"),
        ("bytes", |t| floats(t, "norm", 5, |v| v + 1e-3), "norm of byte 5"),
        ("bytes", |t| t.slice(1, t.num_rows() - 1), "byte 1 of source row 0 came where byte 0"),
    ];
    let original = output(&["sink.embeddings=byte"]);
    for (table, change, expected) in cases {
        let copy = Copy::of(&original.out());
        let name = reseal(copy.out(), &first(copy.out(), table), change);
        if expected.is_empty() {
            let found = verify(copy.out()).unwrap();
            assert!(found.problem.is_none() && !found.complete, "unchanged {table}: {found}");
            continue;
        }
        let found = problem(copy.out(), expected);
        assert!(found.to_string().contains(expected), "{expected:?} is not in: {found}");
        let unit = Some(name.split_once('/').unwrap().1[..11].to_owned());
        assert_eq!(found.unit, unit, "{found}");
        assert!(found.file.ends_with(".parquet"), "{found}");
    }
}

#[test]
fn a_row_in_documents_and_in_quarantine_is_found() {
    let work = output(&[]);
    let name = first(&work.out(), "quarantine");
    reseal(&work.out(), &name, |t| numbers(t, "source_row", 0, |_| 6));
    let found = problem(&work.out(), "quarantine");
    assert_eq!(found.row, Some(ProblemRow::Source(6)));
    assert!(found.what.contains("in documents and in quarantine"), "{found}");
}

#[test]
fn an_extension_or_a_repair_that_did_not_finish_leaves_an_older_manifest_and_no_problem() {
    let older = |out: &Path, case: &str| {
        let found = verify(out).unwrap();
        assert!(found.problem.is_none() && !found.complete, "{case}: {found}");
        assert!(found.to_string().contains("the manifest is older"), "{case}: {found}");
    };
    let work = output(&[]);
    let manifest = work.out().join("_blt/manifest.json");
    let whole = fs::read(&manifest).unwrap();

    let repaired = files(&work.out(), "_blt/commits").remove(0);
    let path = work.out().join("_blt/commits").join(&repaired);
    let next = path.with_extension("r1.json");
    let documents = first(&work.out(), "documents");
    let kept = fs::read(work.out().join(&documents)).unwrap();
    // Written by another version, say: the same rows in other bytes, under the next record.
    let before = fs::read(&path).unwrap();
    let other = reseal(&work.out(), &documents, |table| table);
    fs::copy(&path, &next).unwrap();
    fs::write(&path, &before).unwrap();
    fs::write(work.out().join(&documents), &kept).unwrap();
    fs::write(&manifest, &whole).unwrap();
    older(&work.out(), "repair");
    fs::write(&path, b"{").unwrap();
    older(&work.out(), "a damaged record that was superseded");
    fs::write(&path, &before).unwrap();
    fs::remove_file(work.out().join(&documents)).unwrap();
    let found = problem(&work.out(), "the manifest names what is gone");
    assert!(found.file == "_blt/manifest.json" && found.what.contains("is gone"), "{found}");
    fs::write(work.out().join(&documents), &kept).unwrap();
    fs::remove_file(&next).unwrap();
    fs::remove_file(work.out().join(&other)).unwrap();
    assert_sound(&work.out(), "as it was");

    // The second shard came later; the manifest is that of the first alone.
    edit(&manifest, |manifest| {
        manifest["units"] = 2.into();
        manifest["counts"]["rows"] = 12.into();
        manifest["files"].as_array_mut().unwrap().retain(|f| f["path"].as_str().unwrap().contains("/00000-"));
    });
    older(&work.out(), "extension");
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let work = output(&[]);
    let record = format!("_blt/commits/{}", files(&work.out(), "_blt/commits")[1]);
    for text in ["", "{", "{}"] {
        fs::write(work.out().join(&record), text).unwrap();
        assert_eq!(problem(&work.out(), text).file, record);
    }
}

struct Copy(tempfile::TempDir);

impl Copy {
    fn of(out: &Path) -> Copy {
        let copy = Copy(tempfile::tempdir().unwrap());
        for (name, _) in snapshot(out) {
            let to: PathBuf = copy.out().join(&name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(out.join(&name), to).unwrap();
        }
        copy
    }

    fn out(&self) -> &Path {
        self.0.path()
    }
}

#[test]
fn the_exit_code_tells_sound_from_broken_from_unfinished() {
    let work = output(&[]);
    let out = work.out().display().to_string();
    blt(&["verify", &out]).expect(0, &["sound and complete"]);
    let manifest = work.out().join("_blt/manifest.json");
    fs::remove_file(manifest).unwrap();
    blt(&["verify", &out]).expect(75, &["sound so far", "no manifest"]);
    let name = first(&work.out(), "documents");
    fs::write(work.out().join(&name), b"PAR1").unwrap();
    blt(&["verify", &out]).expect(65, &["not sound", &name]);
}

/// `cargo test --release rate_of_verify -- --ignored --nocapture`
#[test]
#[ignore = "measures the rate, in a minute"]
#[expect(clippy::print_stdout, reason = "the rate is what it is run for")]
fn rate_of_verify() {
    for embeddings in ["none", "patch", "byte"] {
        let work = Work::new();
        let texts: Vec<String> = (0..4000).map(|row| prose(2500, row)).collect();
        work.texts("a.parquet", &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let sets = [format!("sink.embeddings={embeddings}")];
        work.engine(&[&sets[0]], &mut FakeModel::new(DIM, CONTEXT)).unwrap();
        let started = std::time::Instant::now();
        let found = assert_sound(&work.out(), embeddings);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{embeddings}: {} bytes in {seconds:.2} s, {:.0} MB/s",
            found.bytes,
            found.bytes as f64 / 1e6 / seconds
        );
    }
}
