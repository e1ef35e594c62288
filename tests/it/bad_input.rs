//! What is wrong with an input is said in its own words, with its own exit code, and costs no more than
//! its own rows.

use std::{fs, path::Path, sync::Arc};

use arrow::array::{ArrayRef, AsArray, Float64Array, StringArray};
use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, Type as PhysicalType},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::{
        properties::WriterProperties, reader::FileReader, serialized_reader::SerializedFileReader,
        writer::SerializedFileWriter,
    },
    schema::types::Type,
};

use crate::support::{Work, assert_sound, files, prose};

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let work = Work::new();
    let missing = format!("source.uri={:?}", work.path("shards/x.parquet"));
    work.blt("run", &["--set", &missing]).expect(2, &["source.uri = ", "failed to open", "x.parquet"]);
    work.blt("run", &[]).expect(2, &["source.uri = ", "no file below", "matches *.parquet"]);
    let nowhere = format!("source.uri={:?}", work.path("nowhere/*.parquet"));
    work.blt("run", &["--set", &nowhere]).expect(2, &["there is no folder", "nowhere"]);
    assert!(!work.out().exists());
}

#[test]
fn a_missing_column_names_those_that_exist_and_a_wrong_type_what_is_expected() {
    let work = Work::new();
    let score = Arc::new(Float64Array::from(vec![1.0])) as ArrayRef;
    work.shard("a.parquet", [("body", strings(&[Some("x")])), ("score", score)], 9);
    work.blt("run", &[]).expect(2, &["source.content = \"text\"", "has no such column; it has body, score"]);
    work.blt("run", &["--set", "source.content=score"])
        .expect(2, &["source.content = \"score\"", "this column is Float64; expected strings, binary"]);
    work.blt("run", &["--set", "source.content=body", "--set", "source.id=score"])
        .expect(2, &["source.id = \"score\"", "Float64; expected strings, binary or integers"]);
}

#[test]
fn a_file_without_rows_is_fine_and_a_source_without_any_is_warned_of() {
    let work = Work::with(&["x"]);
    work.texts("empty.parquet", &[]);
    work.run(&[]).expect(0, &["rows        1 read, 1 documents"]);
    assert_sound(&work.out());

    let work = Work::new();
    work.texts("a.parquet", &[]);
    work.texts("b.parquet", &[]);
    work.run(&[]).expect(0, &["the source has no rows", "rows        0 read, 0 documents"]);
    assert_sound(&work.out());
    work.run(&[]).expect(0, &["was finished before"]);
}

#[test]
fn null_content_goes_to_quarantine_and_is_counted() {
    let work = Work::new();
    let ids = strings(&[Some("one"), Some("two"), None]);
    work.shard("a.parquet", [("text", strings(&[Some("x"), None, None])), ("id", ids)], 9);
    work.run(&["limits.max_quarantined=2"]).expect(0, &["3 read, 1 documents, 2 in quarantine"]);
    let table = work.table("quarantine").unwrap();
    let column = |name: &str| -> Vec<String> {
        table[name].as_string::<i32>().iter().map(|v| v.unwrap().to_owned()).collect()
    };
    assert_eq!(column("doc_id"), ["two", "a.parquet#2"]);
    assert_eq!(column("reason"), ["the content is null"; 2]);
    assert_eq!(column("stage"), ["source"; 2]);
}

#[test]
fn a_shard_behind_the_limit_need_not_be_readable() {
    let work = Work::with(&["one", "two"]);
    fs::write(work.path("shards/z.parquet"), "no parquet").unwrap();
    work.blt("run", &["--limit", "2"]).expect(0, &["2 read, 2 documents"]);
    assert_sound(&work.out());
    let outcome = work.blt("run", &["--limit", "3", "--output", "other"]);
    outcome.expect(65, &["is incomplete", "z.parquet"]);
}

#[test]
fn all_null_content_leaves_an_output_without_documents() {
    let work = Work::new();
    work.shard("a.parquet", [("text", strings(&[None, None]))], 9);
    work.run(&["limits.max_quarantined=1.0"]).expect(0, &["0 documents, 2 in quarantine"]);
    assert!(work.table("documents").is_none());
    assert_sound(&work.out());
}

/// A shard of row groups, the strings of whose two columns are UTF-8 or not, as some writers leave them.
fn write_unchecked(path: &Path, groups: &[[&[&[u8]]; 2]]) {
    let column = |name: &str| {
        let builder = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
        let builder = builder.with_repetition(Repetition::REQUIRED).with_converted_type(ConvertedType::UTF8);
        Arc::new(builder.with_logical_type(Some(LogicalType::String)).build().unwrap())
    };
    let schema =
        Type::group_type_builder("schema").with_fields(vec![column("text"), column("id")]).build().unwrap();
    let file = fs::File::create(path).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for values in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else { panic!("not a string") };
            let values: Vec<ByteArray> = values.iter().map(|v| ByteArray::from(v.to_vec())).collect();
            typed.write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn text_that_is_not_utf8_is_kept_byte_for_byte() {
    let work = Work::new();
    let contents: [&[u8]; 3] = [b"\xff\xfe\x00a\xc3", b"fine", b"\x80"];
    write_unchecked(&work.path("shards/a.parquet"), &[[&contents, &[b"one", b"two", b"\xff"]]]);
    work.run(&["sink.embeddings=byte", "limits.max_quarantined=1"]);
    let bytes = work.table("bytes").unwrap();
    let values = bytes["value"].as_primitive::<arrow::datatypes::UInt8Type>().values();
    assert_eq!(values[..], contents[..2].concat());
    // An id has to be text, since the tables say so: that row is set aside, not repaired.
    let quarantine = work.table("quarantine").unwrap();
    assert_eq!(quarantine["reason"].as_string::<i32>().value(0), "the id is not UTF-8");
    assert_eq!(quarantine["doc_id"].as_string::<i32>().value(0), "a.parquet#2");
}

#[test]
fn a_corrupt_footer_fails_its_shard_and_the_others_go_on() {
    let work = Work::with(&["one", "two"]);
    work.texts("b.parquet", &["lost"]);
    work.texts("c.parquet", &["three"]);
    let path = work.path("shards/b.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 8;
    bytes[end - 40..end].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let parts =
        ["failed      00001 of b.parquet in source: failed to read the footer of", "b.parquet", "incomplete"];
    for _ in 0..2 {
        work.blt("run", &[]).expect(65, &parts);
        assert_eq!(work.documents().len(), 3, "the other shards' rows, once");
    }
    let failed = fs::read_to_string(work.out().join("_blt/failed/00001.json")).unwrap();
    assert!(
        failed.contains("\"source_file\": \"b.parquet\"") && failed.contains("failed to read the footer")
    );
    assert!(!work.out().join("_blt/manifest.json").exists());
    work.blt("plan", &[]).expect(0, &["unreadable  failed to read the footer"]);
}

#[test]
fn files_that_are_no_parquet_or_cut_short_fail_alone() {
    let work = Work::with(&["one"]);
    let whole = fs::read(work.texts("whole.parquet", &["two", "three"])).unwrap();
    for (name, bytes) in [
        ("b.parquet", &b"no parquet at all"[..]),
        ("c.parquet", b""),
        ("d.parquet", b"PAR1"),
        ("e.parquet", &whole[..whole.len() / 2]),
        ("f.parquet", &whole[..whole.len() - 1]),
        ("g.parquet", b"PAR1\xff\xff\xff\xffPAR1"),
    ] {
        fs::write(work.path("shards").join(name), bytes).unwrap();
    }
    let outcome = work.blt("run", &[]);
    outcome.expect(65, &["failed to read the footer"]);
    for name in ["b", "c", "d", "e", "f", "g"] {
        outcome.expect(65, &[&format!(" of {name}.parquet in source: failed to read the footer of")]);
    }
    assert_eq!(work.documents().len(), 3);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn a_row_group_without_rows_is_passed_over() {
    let work = Work::new();
    let (two, none): ([&[u8]; 2], [&[u8]; 0]) = ([b"x", b"y"], []);
    write_unchecked(
        &work.path("shards/a.parquet"),
        &[[&none; 2], [&two; 2], [&none; 2], [&two; 2], [&none; 2]],
    );
    for unit_bytes in ["sink.unit_bytes=1", "sink.unit_bytes=1 MiB"] {
        work.run(&[unit_bytes]).expect(0, &["rows        4 read, 4 documents"]);
        let rows: Vec<u64> = work.documents().iter().map(|r| r.source_row).collect();
        assert_eq!(rows, [0, 1, 2, 3]);
        fs::remove_dir_all(work.out()).unwrap();
    }
}

/// Overwrites the head of the content's first page in row group `group`.
fn corrupt_page(path: &Path, group: usize) {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let start = reader.metadata().row_group(group).column(0).data_page_offset() as usize;
    let mut bytes = fs::read(path).unwrap();
    bytes[start..start + 12].fill(0xff);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_corrupt_page_fails_its_unit_and_names_the_row_group() {
    for unit_bytes in ["sink.unit_bytes=1", "sink.unit_bytes=1 MiB"] {
        let work = Work::new();
        let texts: Vec<String> = (0..12).map(|i| prose(50, i)).collect();
        let column = Arc::new(StringArray::from(texts)) as ArrayRef;
        let path = work.shard("a.parquet", [("text", column)], 3);
        work.texts("b.parquet", &["fine"]);
        corrupt_page(&path, 2);
        let outcome = work.blt("run", &["--set", unit_bytes]);
        outcome.expect(65, &["in source: failed to read row group 2 of ", "a.parquet at row 6"]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        let rows: Vec<(String, u64)> =
            work.documents().into_iter().map(|r| (r.source_file, r.source_row)).collect();
        let lost: &[u64] =
            if unit_bytes.ends_with("=1") { &[6, 7, 8] } else { &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] };
        let kept = (0..12).filter(|row| !lost.contains(row)).map(|row| ("a.parquet".to_owned(), row));
        let expected: Vec<_> = kept.chain([("b.parquet".to_owned(), 0)]).collect();
        assert_eq!(rows, expected, "{unit_bytes}");
        assert_eq!(files(&work.out(), "../out/_blt/failed").len(), if lost.len() == 3 { 3 } else { 1 });
    }
}

#[test]
fn a_shard_that_changes_after_the_plan_is_not_read() {
    let work = Work::with(&["one", "two"]);
    let plan = work.plan(&[]);
    work.texts("a.parquet", &["one", "two", "three"]);
    let mut model = blt_pipeline::model::FakeModel::new(crate::support::DIM, crate::support::CONTEXT);
    let stop = blt_pipeline::pipeline::Stop::default();
    let silent = blt_pipeline::pipeline::Display::Silent;
    let summary =
        blt_pipeline::pipeline::run(&plan, &mut model, stop, &silent, &blt_pipeline::pipeline::Trace::off())
            .unwrap();
    assert_eq!(summary.failures.len(), 1);
    assert!(
        summary.failures[0].input && summary.failures[0].reason.contains("is not the file that was planned")
    );
    // And for the next run it is another plan.
    work.run(&["sink.uri=fresh"]);
    work.texts("a.parquet", &["one"]);
    work.blt("run", &["--set", "sink.uri=fresh"]).expect(2, &["shard a.parquet changed", "--output"]);
}

#[test]
fn mistakes_in_the_pipeline_file_come_with_line_column_and_what_was_meant() {
    let work = Work::with(&["x"]);
    let run = |text: &str| {
        fs::write(work.path("pipeline.toml"), text).unwrap();
        work.blt("run", &[])
    };
    let head = "[source]\nuri = \"shards/*.parquet\"\n[sink]\nuri = \"out\"\n";
    run(&format!("{head}embedings = \"none\"\n"))
        .expect(2, &["unknown key `embedings`", "pipeline.toml:5:1", "did you mean `embeddings`?", "^^^"]);
    run(&format!("{head}[patch]\nthreshold = 1.5\npatch_size = 4\n"))
        .expect(2, &["patch.threshold and patch.patch_size exclude each other", "pipeline.toml:6:"]);
    run(&format!("{head}[patch]\n mode = \"entropie\"\n"))
        .expect(2, &["pipeline.toml:6:9", "did you mean `entropy`?"]);
    run(&format!("{head}[sink]\n")).expect(2, &["failed to parse TOML", "pipeline.toml:5:"]);
    run("[source]\nuri = 3\n").expect(2, &["pipeline.toml:2:7", "sink"]);
    assert!(!work.out().exists());
}

#[test]
fn an_output_that_is_not_ours_is_left_alone() {
    let work = Work::with(&["x"]);
    fs::write(work.out(), "a file").unwrap();
    for command in ["run", "plan"] {
        work.blt(command, &[]).expect(2, &["sink.uri: ", "out is a file, not a folder"]);
    }
    assert_eq!(fs::read(work.out()).unwrap(), b"a file");

    fs::remove_file(work.out()).unwrap();
    fs::create_dir(work.out()).unwrap();
    fs::write(work.out().join("thesis.doc"), "mine").unwrap();
    for command in ["run", "plan"] {
        work.blt(command, &[])
            .expect(2, &["is not empty and no output of blt-pipeline (it holds thesis.doc)"]);
    }
    assert_eq!(fs::read_dir(work.out()).unwrap().count(), 1);
}

#[test]
fn an_output_of_another_plan_is_refused_with_the_difference_and_the_way_on() {
    let work = Work::with(&["x", "y"]);
    work.run(&[]);
    let before = crate::support::snapshot(&work.out());
    for (sets, difference) in [
        (&["patch.threshold=2.5"][..], "patch.threshold was 1.33544"),
        (&["sink.embeddings=none", "sink.unit_bytes=1 MiB"], "sink.embeddings was \"patch\", now \"none\""),
        (&["model.context=100"], "model.context was 8192, now 100"),
        (&["source.limit=1"], "source.limit was null, now 1"),
        (&["model.weights=embedded"], "model.sha256 was \"cb11"),
    ] {
        for command in ["run", "plan"] {
            let outcome = work.blt(command, &crate::support::set_flags(sets));
            outcome.expect(
                2,
                &["holds the output of another plan", difference, "a folder of its own", "--output"],
            );
        }
    }
    work.texts("b.parquet", &["z"]);
    work.blt("run", &[]).expect(2, &["shard b.parquet is new"]);
    assert!(crate::support::snapshot(&work.out()) == before, "untouched");
}

#[test]
fn a_record_of_another_plan_is_named() {
    let work = Work::with(&["x"]);
    work.run(&[]);
    let record = work.out().join("_blt/commits/00000-00000.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"fingerprint\": \"", "\"fingerprint\": \"0")).unwrap();
    work.blt("run", &[]).expect(2, &["00000-00000.json belongs to another plan", "--fresh"]);
}

#[test]
fn a_plan_that_cannot_be_read_is_named() {
    let work = Work::with(&["x"]);
    work.run(&[]);
    fs::write(work.out().join("_blt/plan.json"), "{").unwrap();
    work.blt("run", &[]).expect(2, &["plan.json is not a record of blt-pipeline", "--fresh"]);
    work.blt("run", &["--fresh"]).expect(2, &["would delete work that cannot be read", "--yes"]);
    work.blt("run", &["--fresh", "--yes"]).expect(0, &["pipeline finished"]);
}
