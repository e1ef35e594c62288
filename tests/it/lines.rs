//! JSON Lines as a source: the same documents as from Parquet, whatever packs the lines; what is no row is told.

use std::{fs, io::Write, path::Path, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch,
        StringArray, StructArray, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Float64Type, Int64Type},
};
use serde_json::json;

use crate::support::{Work, assert_same, assert_sound, prose, read_table, rows, set_flags, snapshot};

pub(crate) fn pack(path: &Path, lines: &[u8]) {
    let file = fs::File::create(path).unwrap();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => {
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            packed.write_all(lines).unwrap();
            packed.finish().unwrap();
        }
        Some("zst") => {
            let mut packed = zstd::Encoder::new(file, 3).unwrap();
            packed.write_all(lines).unwrap();
            packed.finish().unwrap();
        }
        _ => fs::write(path, lines).unwrap(),
    }
}

/// The source is what `glob` matches below the shards' folder.
pub(crate) fn from(work: &Work, glob: &str) -> String {
    format!("source.uri={:?}", work.path("shards").join(glob))
}

fn run(work: &Work, sets: &[&str], code: i32, parts: &[&str]) {
    let _ = fs::remove_dir_all(work.out());
    work.blt("run", &set_flags(sets)).expect(code, parts);
    if code == 0 {
        assert_sound(&work.out());
    }
}

#[test]
fn packed_or_not_the_tables_are_those_of_parquet() {
    let texts: Vec<String> = (0..40).map(|i| prose(50 + 37 * i as usize % 400, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let work = Work::with(&texts);
    run(&work, &["sink.unit_bytes=2000"], 0, &[]);
    let expected = rows(&work.table("patches").unwrap());
    let lines: String = texts.iter().map(|text| json!({"n": 1, "text": text}).to_string() + "\n").collect();
    let mut outputs = Vec::new();
    for name in ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst"] {
        pack(&work.path("shards").join(name), lines.as_bytes());
        let uri = from(&work, name);
        run(&work, &[&uri, "sink.unit_bytes=2000"], 0, &["40 read, 40 documents"]);
        let mut found = rows(&work.table("patches").unwrap());
        assert!(found.iter().all(|row| row.source_file == name), "{name}");
        let as_parquet = |text: &str| text.replace(name, "a.parquet");
        for row in &mut found {
            (row.source_file, row.doc_id) = (as_parquet(&row.source_file), as_parquet(&row.doc_id));
        }
        assert_eq!(found, expected, "{name}");
        assert!(crate::support::files(&work.out(), "documents").len() > 3, "several units");
        // Units of another process begin in the middle of the file.
        let shares = work.path("shares");
        for index in ["2", "0", "1"] {
            let flags = ["--shard-count", "3", "--shard-index", index, "--output", shares.to_str().unwrap()];
            work.blt("run", &[&set_flags(&[&uri, "sink.unit_bytes=2000"])[..], &flags].concat())
                .expect(0, &[]);
        }
        let (mut one, mut many) = (snapshot(&work.out()), snapshot(&shares));
        for output in [&mut one, &mut many] {
            output.retain(|file, _| !file.starts_with("_blt/claims"));
        }
        assert_same(&many, &one, name);
        fs::remove_dir_all(&shares).unwrap();
        outputs.push(found);
    }
    assert_eq!(outputs.len(), 4);
}

#[test]
fn what_is_no_row_with_content_goes_to_quarantine_with_its_number() {
    let work = Work::new();
    let lines = [
        r#"{"id": "a", "text": "a \"quoted\" line\nand \u00e9 and \ud83d\ude00"}"#,
        "",
        r#"{"id": 7, "text": "no newline in sight"#,
        r#"  {"id": -7, "text": ""}  "#,
        r#"{"id": "b", "text": null}"#,
        r#"{"id": "c"}"#,
        r#"{"id": "d", "text": 12}"#,
        r#"["text"]"#,
        r#"{"id": [1], "text": "x"}"#,
        r#"{"text": "half a surrogate \ud83d"}"#,
        "\t\r",
        r#"{"text": "twice"} {"text": "twice"}"#,
        r#"{"text": "a very long document, longer than others may be"}"#,
        r#"{"id": null, "text": "the last, without an end"}"#,
    ];
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend_from_slice(b"\n{\"text\": \"\xff\"}");
    pack(&work.path("shards/a.jsonl"), &bytes);
    let sets = [&*from(&work, "a.jsonl"), "limits.max_quarantined=1.0", "limits.max_document_bytes=40"];
    run(&work, &sets, 0, &["13 read, 3 documents, 10 in quarantine"]);
    let documents = work.documents();
    let found: Vec<(&str, u64, u64)> =
        documents.iter().map(|row| (row.doc_id.as_str(), row.source_row, row.n_bytes)).collect();
    assert_eq!(found, [("a", 0, 31), ("-7", 2, 0), ("a.jsonl#11", 11, 24)]);
    let quarantine = work.table("quarantine").unwrap();
    let reasons = quarantine["reason"].as_string::<i32>();
    let numbers = quarantine["source_row"].as_primitive::<arrow::datatypes::UInt64Type>();
    let told: Vec<(u64, &str)> =
        (0..quarantine.num_rows()).map(|i| (numbers.value(i), reasons.value(i))).collect();
    let expected = [
        (1, "the line is no JSON object: EOF while parsing a string"),
        (3, "the content is null"),
        (4, "the content is null"),
        (5, "the content is no string"),
        (6, "the line is no JSON object: invalid type"),
        (7, "the id is neither a string nor an integer"),
        (8, "the line is no JSON object"),
        (9, "the line is no JSON object: trailing characters"),
        (10, "47 bytes of content, more than limits.max_document_bytes = 40"),
        (12, "the line is no JSON object"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((row, reason), (expected_row, part)) in told.iter().zip(expected) {
        assert!(*row == expected_row && reason.contains(part), "{row}: {reason}");
    }
}

#[test]
fn keys_that_are_not_there_are_refused() {
    let work = Work::new();
    pack(&work.path("shards/a.jsonl"), b"{\"text\": \"x\", \"n\": 1}\n");
    let uri = from(&work, "a.jsonl");
    for (set, parts) in [
        ("source.content=body", &["source.content", "none of the first 1 rows", "n, text"][..]),
        ("source.id=key", &["source.id", "none of the first 1 rows"]),
        (
            "source.carry=['m']",
            &["source.carry: no row has a key m; did you mean n?; the first rows of", "n, text"],
        ),
    ] {
        work.blt("plan", &["--set", &uri, "--set", set]).expect(2, parts);
    }
    // A file of no rows has no keys to miss.
    fs::write(work.path("shards/b.jsonl"), "\n\n").unwrap();
    run(&work, &[&from(&work, "*.jsonl"), "source.id=n"], 0, &["1 read, 1 documents"]);
    assert_eq!(work.documents()[0].doc_id, "1");
}

#[test]
fn a_name_that_does_not_tell_the_format_may_be_helped() {
    let work = Work::with(&["from Parquet"]);
    fs::rename(work.path("shards/a.parquet"), work.path("shards/a.jsonl")).unwrap();
    pack(&work.path("shards/b.txt"), b"{\"text\": \"from lines\"}\n");
    pack(&work.path("shards/c.gz"), b"{\"text\": \"from packed lines\"}\n");
    for (name, format, n_bytes) in [("a.jsonl", "parquet", 12), ("b.txt", "jsonl", 10), ("c.gz", "jsonl", 17)]
    {
        run(&work, &[&from(&work, name), &format!("source.format={format}")], 0, &["1 documents"]);
        assert_eq!(work.documents()[0].n_bytes, n_bytes, "{name}");
    }
    run(&work, &[&from(&work, "b.txt")], 65, &["failed to read the footer of", "b.txt"]);
}

/// The same bytes at the end and the same size, but other rows before.
#[test]
fn an_edit_anywhere_makes_another_file() {
    let work = Work::new();
    let lines: String = (0..3000).map(|i| json!({"text": prose(60, i)}).to_string() + "\n").collect();
    let path = work.path("shards/a.jsonl");
    pack(&path, lines.as_bytes());
    let sets = [&*from(&work, "a.jsonl"), "source.sample={ fraction = 0.01 }"];
    run(&work, &sets, 0, &["3,000 read"]);
    fs::write(&path, lines.replacen("lamp", "damp", 1)).unwrap();
    work.blt("run", &set_flags(&sets)).expect(2, &["a.jsonl"]);
}

#[test]
fn a_folder_is_its_lines_where_it_has_no_parquet_and_an_output_goes_on() {
    let work = Work::new();
    for name in ["a.jsonl", "b.jsonl.gz"] {
        let lines: String = (0..20).map(|i| json!({"text": prose(100, i)}).to_string() + "\n").collect();
        pack(&work.path("shards").join(name), lines.as_bytes());
    }
    let sets = [&*from(&work, ""), "sink.unit_bytes=1000"];
    let killed = work.run_with("commit::after_record=3*off->return(kill)", &sets);
    assert_ne!(killed.code, 0);
    work.blt("run", &set_flags(&sets)).expect(0, &["20 read, 20 documents", "in all      40 rows"]);
    let resumed = snapshot(&work.out());
    run(&work, &sets, 0, &["40 read, 40 documents"]);
    let (mut resumed, mut fresh) = (resumed, snapshot(&work.out()));
    for output in [&mut resumed, &mut fresh] {
        output.retain(|file, _| !file.starts_with("_blt/claims"));
    }
    assert_same(&resumed, &fresh, "resumed");
    // Another file under the same name is not gone on with.
    pack(&work.path("shards/a.jsonl"), b"{\"text\": \"other\"}\n");
    work.blt("run", &set_flags(&sets)).expect(2, &["a.jsonl"]);
}

#[test]
fn a_file_that_cannot_be_unpacked_is_told_and_the_others_are_done() {
    let work = Work::new();
    let lines: String = (0..2000).map(|i| json!({"text": prose(100, i)}).to_string() + "\n").collect();
    for name in ["a.jsonl.gz", "b.jsonl.zst", "c.jsonl"] {
        pack(&work.path("shards").join(name), lines.as_bytes());
    }
    for name in ["a.jsonl.gz", "b.jsonl.zst"] {
        let path = work.path("shards").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let sets = [&*from(&work, "*.jsonl*"), "source.sample={ fraction = 0.01 }"];
    run(&work, &sets, 65, &["failed to read", "a.jsonl.gz", "b.jsonl.zst"]);
    assert!(read_table(&work.out(), "documents").is_some(), "what can be read is there");
}

/// What a changed byte does is up to chance; that it costs its file at most is not.
#[test]
fn a_byte_changed_anywhere_in_a_packed_file_costs_that_file_only() {
    let work = Work::new();
    let lines: String = (0..6).map(|i| json!({"id": i, "text": prose(40, i)}).to_string() + "\n").collect();
    let mut n = 0;
    for ending in ["jsonl", "jsonl.gz", "jsonl.zst"] {
        let path = work.path(&format!("shards/whole.{ending}"));
        pack(&path, lines.as_bytes());
        let whole = fs::read(&path).unwrap();
        for (at, value) in (0..whole.len()).flat_map(|at| [(at, 0xff), (at, 0x01), (at, 0x80)]) {
            let mut bytes = whole.clone();
            bytes[at] ^= value;
            fs::write(work.path(&format!("shards/{at:05}-{value:02x}.{ending}")), bytes).unwrap();
            n += 1;
        }
    }
    let uri = from(&work, "*.jsonl*");
    let sets =
        [&*uri, "limits.max_quarantined=1.0", "sink.embeddings=none", "source.sample={ fraction = 0.2 }"];
    // A key that a packer wrote once may have changed in all rows: that is the plan's to refuse, and the file is set aside.
    let outcome = loop {
        let outcome = work.blt("run", &set_flags(&sets));
        if outcome.code != 2 {
            break outcome;
        }
        let name = outcome.stderr.split(&['/', ' '][..]).find(|part| part.contains(".jsonl"));
        let name = name.unwrap_or_else(|| panic!("no file is named: {}", outcome.stderr));
        fs::remove_file(work.path("shards").join(name)).unwrap();
        n -= 1;
    };
    assert_eq!(outcome.code, 65, "{}{}", outcome.stdout, outcome.stderr);
    assert!(
        !outcome.stderr.contains("panicked") && !outcome.stdout.contains("panicked"),
        "{}",
        outcome.stderr
    );
    let failed = outcome.stdout.lines().filter(|line| line.contains("failed to read")).count();
    assert!(n > 1500 && failed > 100 && failed < n, "{failed} of {n}");
    assert!(work.documents().iter().any(|row| row.source_file == "whole.jsonl.zst"));
}

fn object(fields: Vec<(&str, ArrayRef)>, valid: Option<Vec<bool>>) -> ArrayRef {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = fields
        .into_iter()
        .map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array))
        .unzip();
    Arc::new(StructArray::new(fields.into(), arrays, valid.map(NullBuffer::from)))
}

fn list(lengths: &[usize], items: ArrayRef, valid: Option<Vec<bool>>) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Arc::new(ListArray::new(item, offsets, items, valid.map(NullBuffer::from)))
}

const CARRIED: [&str; 8] = ["id", "n", "big", "score", "ok", "name", "tags", "meta"];

/// The same five rows as lines and as columns.
pub(crate) fn both(work: &Work) -> Vec<&'static str> {
    let lines = vec![
        r#"{"text": "one", "id": "a", "n": 1, "big": 9223372036854775808, "score": 1, "ok": true, "name": "x",
            "tags": ["p", null, "q"], "meta": {"b": [{"y": 0.5}, null, {}], "a": {"deep": -1, "none": null}}, "other": [1, "x"]}"#,
        r#"{"meta": null, "tags": [], "name": "\u00e9\n\"", "ok": false, "score": -0.25, "big": 0, "n": null, "id": "b", "text": "two words"}"#,
        r#"{"text": "three", "id": "c", "n": 9007199254740993, "tags": null, "meta": {}, "other": "y"}"#,
        r#"{"text": "four", "id": "d", "n": -9223372036854775808, "score": 9007199254740992, "meta": {"b": [], "a": null}}"#,
        r#"{"text": "five", "id": "e", "n": 2, "n": 5, "big": 18446744073709551615, "score": 1e-7, "name": "", "tags": ["r"],
            "meta": {"a": {"deep": 7}, "b": null, "none": []}}"#,
    ];
    let text = |values: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let some = |values: [&'static str; 5]| text(values.map(Some).to_vec());
    let y: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, None]));
    let b = list(
        &[3, 0, 0, 0, 0],
        object(vec![("y", y)], Some(vec![true, false, true])),
        Some(vec![true, false, false, true, false]),
    );
    let deep: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), None, None, None, Some(7)]));
    let a = object(vec![("deep", deep)], Some(vec![true, false, false, false, true]));
    let columns: [(&str, ArrayRef); 9] = [
        ("text", some(["one", "two words", "three", "four", "five"])),
        ("id", some(["a", "b", "c", "d", "e"])),
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some((1 << 53) + 1), Some(i64::MIN), Some(5)]))),
        ("big", Arc::new(UInt64Array::from(vec![Some(1 << 63), Some(0), None, None, Some(u64::MAX)]))),
        (
            "score",
            Arc::new(Float64Array::from(vec![
                Some(1.0),
                Some(-0.25),
                None,
                Some(9_007_199_254_740_992.0),
                Some(1e-7),
            ])),
        ),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, None]))),
        ("name", text(vec![Some("x"), Some("\u{e9}\n\""), None, None, Some("")])),
        (
            "tags",
            list(
                &[3, 0, 0, 0, 1],
                text(vec![Some("p"), None, Some("q"), Some("r")]),
                Some(vec![true, true, false, false, true]),
            ),
        ),
        ("meta", object(vec![("a", a), ("b", b)], Some(vec![true, false, true, true, true]))),
    ];
    work.shard("a.parquet", columns, 5);
    lines
}

/// A line may not be broken by hand where it is too long to read.
pub(crate) fn joined(lines: &[&str]) -> Vec<u8> {
    lines.iter().map(|line| line.replace('\n', " ") + "\n").collect::<String>().into_bytes()
}

fn carried(work: &Work) -> RecordBatch {
    let documents = work.table("documents").unwrap();
    let indices: Vec<usize> = CARRIED.iter().map(|name| documents.schema().index_of(name).unwrap()).collect();
    documents.project(&indices).unwrap()
}

#[test]
fn carried_columns_are_those_of_parquet_value_by_value() {
    let work = Work::new();
    let lines = joined(&both(&work));
    let carry = format!("source.carry={CARRIED:?}");
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        pack(&work.path("shards").join(name), &lines);
        // Parquet under the same name: the sample depends on it.
        let folder = work.path("parquet");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(work.path("shards/a.parquet"), folder.join(name)).unwrap();
        let (as_parquet, as_lines) = (format!("source.uri={:?}", folder.join(name)), from(&work, name));
        for more in
            ["sink.unit_bytes=1000000", "sink.unit_bytes=100", "source.sample={ fraction = 0.6, seed = 3 }"]
        {
            run(&work, &[&carry, more, &as_parquet, "source.format=parquet"], 0, &[]);
            let expected = carried(&work);
            run(&work, &[&carry, more, &as_lines], 0, &[]);
            assert_eq!(carried(&work), expected, "{name}, {more}");
            assert!(expected.num_rows() == 5 || more.contains("sample"), "{}", expected.num_rows());
        }
    }
    let types = [
        r#"{"id":"string","n":"int64","big":"uint64","score":"float64","ok":"boolean","name":"string","tags":["string"],"#,
        r#""meta":{"a":{"deep":"int64"},"b":[{"y":"float64"}]}}"#,
    ];
    fs::remove_dir_all(work.out()).unwrap();
    work.blt("plan", &set_flags(&[&carry, &from(&work, "a.jsonl")])).expect(0, &[&types.concat()]);
    // Lines and Parquet may lie side by side.
    run(&work, &[&carry, &from(&work, "a.{parquet,jsonl}")], 0, &["10 read, 10 documents"]);
}

#[test]
fn values_without_a_type_in_common_are_refused_with_their_rows() {
    let work = Work::new();
    let file = |name: &str, lines: &[&str]| pack(&work.path("shards").join(name), &joined(lines));
    file("a.jsonl", &[r#"{"text": "x", "k": null}"#, "{broken", r#"{"text": "x", "k": [1]}"#]);
    file("b.jsonl", &[r#"{"text": "x", "k": ["1"]}"#]);
    let plan = |carry: &str, glob: &str, code: i32, parts: &[&str]| {
        let carry = format!("source.carry=[{carry:?}]");
        work.blt("plan", &set_flags(&[&from(&work, glob), &carry])).expect(code, parts);
        assert!(!work.out().exists());
    };
    let apart =
        ["source.carry: k[] is an integer in row 2 of", "a.jsonl and a string in row 0 of", "b.jsonl"];
    plan("k", "*.jsonl", 2, &apart);
    file("b.jsonl", &[r#"{"text": "x", "k": 1}"#]);
    plan("k", "*.jsonl", 2, &["k is a list in row 2 of", "and an integer in row 0 of"]);
    file("b.jsonl", &[r#"{"text": "x", "k": [0.5]}"#]);
    plan("k", "*.jsonl", 0, &[r#"{"k":["float64"]}"#]);
    file("b.jsonl", &[r#"{"text": "x", "k": [9007199254740993]}"#]);
    plan("k", "*.jsonl", 0, &[r#"{"k":["int64"]}"#]);
    file("c.jsonl", &[r#"{"text": "x", "k": [0.5]}"#]);
    plan(
        "k",
        "*.jsonl",
        2,
        &["k[] is a float64 in row 0 of", "c.jsonl, which the integer in row 0 of", "b.jsonl"],
    );
    file("c.jsonl", &[r#"{"text": "x", "k": [-18446744073709551616]}"#]);
    plan("k", "*.jsonl", 2, &["source.carry: k[] is -18446744073709551616 in row 0 of", "c.jsonl"]);
    file("c.jsonl", &[r#"{"text": "x", "k": [], "empty": [{}, null]}"#]);
    plan("empty", "*.jsonl", 2, &["empty is null or empty in every row"]);
    plan(
        "kk",
        "*.jsonl",
        2,
        &["no row has a key kk; did you mean k?; the first rows of", "a.jsonl have k, text"],
    );
    let users: String =
        (0..2000).map(|i| format!("{{\"text\": \"x\", \"by\": {{\"user {i}\": 1}}}}\n")).collect();
    pack(&work.path("shards/c.jsonl"), users.as_bytes());
    plan(
        "by",
        "*.jsonl",
        2,
        &["by has objects with more than 1000 names in all, the last of them in row 1000 of"],
    );
    // Nobody asks for its type.
    plan("k", "*.jsonl", 0, &[]);
}

#[test]
fn rows_that_do_not_hold_what_is_carried_go_to_quarantine_alone() {
    let work = Work::new();
    let lines = [
        r#"{"text": "first", "n": 1, "name": "a", "m": {"x": 1}}"#,
        r#"{"text": "no name", "m": {}}"#,
        r#"{"text": "broken", "n": 2, "#,
        r#"{"text": "half a surrogate", "n": 3, "name": "\ud83d"}"#,
        r#"{"text": "likewise below", "n": 4, "m": {"\ud83d": 5}}"#,
        r#"{"text": null, "n": 5}"#,
        r#"{"text": "last", "n": 6, "name": "z", "m": null}"#,
    ];
    pack(&work.path("shards/a.jsonl"), &joined(&lines));
    // None of the keys.
    pack(&work.path("shards/b.jsonl"), b"{\"text\": \"other\"}\n");
    let sets = [&*from(&work, "*.jsonl"), "source.carry=['n', 'name', 'm']", "limits.max_quarantined=1.0"];
    run(&work, &sets, 0, &["8 read, 4 documents, 4 in quarantine"]);
    let documents = work.table("documents").unwrap();
    let numbers: Vec<Option<i64>> = documents["n"].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(6), None]);
    let names: Vec<Option<&str>> = documents["name"].as_string::<i32>().iter().collect();
    assert_eq!(names, [Some("a"), None, Some("z"), None]);
    let quarantine = work.table("quarantine").unwrap();
    let reasons: Vec<&str> = quarantine["reason"].as_string::<i32>().iter().flatten().collect();
    let parts = ["the line is no JSON object", "name is no JSON: ", "m is no JSON: ", "the content is null"];
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.starts_with(part), "{reason}");
    }
    assert_eq!(reasons.len(), parts.len());
    // Where no row can be read there are no types, and none are needed.
    pack(&work.path("shards/a.jsonl"), b"{broken\n[1]\n");
    fs::remove_file(work.path("shards/b.jsonl")).unwrap();
    run(&work, &sets, 0, &["2 read, 0 documents, 2 in quarantine"]);
}

#[test]
fn an_output_keeps_the_types_it_was_begun_with() {
    let work = Work::new();
    let file = |name: &str, rows: std::ops::Range<u32>, last: &str| {
        let row = |i: u32| {
            json!({"text": prose(60, i), "n": i, "m": {"k": [f64::from(i) / 2.0]}}).to_string() + "\n"
        };
        pack(&work.path("shards").join(name), (rows.map(row).collect::<String>() + last).as_bytes());
    };
    file("a.jsonl", 0..30, "");
    file("b.jsonl.zst", 30..50, "{\"text\": \"without\"}\n");
    let sets = [&*from(&work, "*.jsonl*"), "source.carry=['n', 'm']", "sink.unit_bytes=2000"];
    let with = |flags: &[&str]| work.blt("run", &[&set_flags(&sets)[..], flags].concat());
    let killed = work.run_with("commit::after_record=2*off->return(kill)", &sets);
    assert_ne!(killed.code, 0);
    with(&[]).expect(0, &["in all      51 rows"]);
    assert_sound(&work.out());
    let resumed = snapshot(&work.out());
    run(&work, &sets, 0, &["51 read, 51 documents"]);
    let (mut resumed, mut fresh) = (resumed, snapshot(&work.out()));
    for output in [&mut resumed, &mut fresh] {
        output.retain(|file, _| !file.starts_with("_blt/claims"));
    }
    assert_same(&resumed, &fresh, "resumed");

    // A file whose values fit is taken in, also when those before it are gone.
    file("c.jsonl", 50..60, "{\"text\": \"x\", \"m\": {\"k\": [7], \"void\": null}}\n");
    with(&["--extend"]).expect(0, &["11 read, 11 documents"]);
    fs::remove_file(work.path("shards/a.jsonl")).unwrap();
    fs::remove_file(work.path("shards/b.jsonl.zst")).unwrap();
    pack(&work.path("shards/d.jsonl"), b"{\"text\": \"x\", \"n\": 1}\n");
    with(&["--extend"]).expect(0, &["1 read, 1 documents"]);
    let documents = work.table("documents").unwrap();
    assert_eq!(documents["n"].as_primitive::<Int64Type>().value(62), 1);
    let k = documents["m"].as_struct().column_by_name("k").unwrap();
    assert_eq!(k.as_list::<i32>().value(61).as_primitive::<Float64Type>().values(), &[7.0]);
    assert!(matches!(documents["m"].data_type(), DataType::Struct(fields) if fields.len() == 1));
    for (last, parts) in [
        (
            "{\"text\": \"x\", \"n\": 0.5}\n",
            ["source.carry: with ", "e.jsonl, the type of n is \"float64\", but the output"],
        ),
        (
            "{\"text\": \"x\", \"m\": {\"new\": 1}}\n",
            ["e.jsonl, the type of m is {", "was begun with {\"k\":[\"float64\"]}"],
        ),
        (
            "{\"text\": \"x\", \"n\": \"1\"}\n",
            ["n is an integer in the output, as it was begun", "a string in row 0 of"],
        ),
    ] {
        file("e.jsonl", 0..0, last);
        with(&["--extend"]).expect(2, &parts);
        with(&[]).expect(2, &parts);
    }
}

#[cfg(not(feature = "filter"))]
#[test]
fn a_build_without_conditions_says_so() {
    let work = Work::new();
    pack(&work.path("shards/a.jsonl"), b"{\"text\": \"x\", \"n\": 1}\n");
    let sets = [&*from(&work, "a.jsonl"), "source.where='n > 1'"];
    work.blt("plan", &set_flags(&sets)).expect(2, &["source.where", "the feature `filter`"]);
}
