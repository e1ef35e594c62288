//! `source.where`: which rows count, what is refused before anything runs, and what need not be read.

use std::{fs, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
        Float64Array, Int8Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    datatypes::{DataType, Field, Int32Type, Int64Type},
};

use parquet::arrow::{ArrowWriter, arrow_writer::compute_leaves};

use crate::{
    lines::{both, from, joined, pack},
    support::{Work, assert_sound, prose, read_table, set_flags},
};

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Six rows with a column of every common type.
fn shard(work: &Work, name: &str, rows_per_group: usize) {
    let numbers = Int64Array::from(vec![Some(1), Some(2), None, Some(4), Some(5), Some(6)]);
    let point = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int64, true)),
        Arc::new(numbers.clone()) as ArrayRef,
    )]);
    let tags: Vec<Option<Vec<Option<i32>>>> = (0..6).map(|i| Some(vec![Some(i); i as usize % 3])).collect();
    let colours: DictionaryArray<Int32Type> =
        ["red", "blue", "red", "green", "blue", "red"].into_iter().collect();
    let microseconds = |day: i64| Some(day * 86_400_000_000);
    work.shard(
        name,
        [
            ("text", text(&["one", "two words", "three", "", "five", "six"])),
            ("id", text(&["a", "b", "c", "d", "e", "f"])),
            ("n", Arc::new(numbers)),
            ("small", Arc::new(Int8Array::from(vec![-3, -2, -1, 0, 1, 2]))),
            ("large", Arc::new(UInt64Array::from(vec![0, 1, 2, 3, 4, u64::MAX]))),
            (
                "score",
                Arc::new(Float64Array::from(vec![
                    Some(0.5),
                    Some(f64::NAN),
                    None,
                    Some(3.5),
                    Some(2.5),
                    Some(-1.0),
                ])),
            ),
            (
                "ok",
                Arc::new(BooleanArray::from(vec![
                    Some(true),
                    Some(false),
                    None,
                    Some(true),
                    Some(false),
                    Some(true),
                ])),
            ),
            ("colour", Arc::new(colours)),
            ("day", Arc::new(Date32Array::from(vec![0, 1, 2, 19_723, 19_724, 19_725]))),
            (
                "at",
                Arc::new(
                    TimestampMicrosecondArray::from(
                        (0..6).map(|i| microseconds(19_720 + i)).collect::<Vec<_>>(),
                    )
                    .with_timezone("UTC"),
                ),
            ),
            (
                "then",
                Arc::new(TimestampMicrosecondArray::from(
                    (0..6).map(|i| microseconds(19_720 + i)).collect::<Vec<_>>(),
                )),
            ),
            (
                "price",
                Arc::new(
                    Decimal128Array::from(vec![100, 250, 399, 1000, 0, -5])
                        .with_precision_and_scale(9, 2)
                        .unwrap(),
                ),
            ),
            ("raw", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b"a", b"", b"b", b"c", b"d"]))),
            ("point", Arc::new(point)),
            ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(tags))),
        ],
        rows_per_group,
    );
}

fn where_is(condition: &str) -> String {
    format!("source.where={condition:?}")
}

fn kept(work: &Work, condition: &str) -> Vec<u64> {
    kept_with(work, &[&where_is(condition)])
}

fn kept_with(work: &Work, sets: &[&str]) -> Vec<u64> {
    let out = tempfile::tempdir().unwrap();
    let out = out.path();
    work.blt("run", &[&set_flags(sets)[..], &["--output", out.to_str().unwrap()]].concat()).expect(0, &[]);
    assert_sound(out);
    let documents = read_table(out, "documents");
    documents
        .map_or(Vec::new(), |table| crate::support::rows(&table).iter().map(|row| row.source_row).collect())
}

#[test]
fn a_row_counts_where_the_condition_is_true_and_keeps_its_number() {
    let work = Work::new();
    shard(&work, "a.parquet", 6);
    for (condition, expected) in [
        ("n > 1", &[1, 3, 4, 5][..]),
        ("n > 1 AND n <= 5", &[1, 3, 4]),
        ("n BETWEEN 2 AND 4", &[1, 3]),
        ("n IN (1, 6, 7)", &[0, 5]),
        ("n NOT IN (1, 6)", &[1, 3, 4]),
        ("n IS NULL OR n = 4", &[2, 3]),
        ("NOT (n = 4)", &[0, 1, 4, 5]),
        ("small < 0", &[0, 1, 2]),
        ("large > 3", &[4, 5]),
        // As polars has it: not a number is above every number.
        ("score > 2", &[1, 3, 4]),
        ("ok", &[0, 3, 5]),
        ("colour = 'red'", &[0, 2, 5]),
        ("colour LIKE '%e%' AND upper(colour) <> 'BLUE'", &[0, 2, 3, 5]),
        ("day >= DATE '2024-01-01'", &[3, 4, 5]),
        ("then >= TIMESTAMP '2024-01-01 00:00:00'", &[3, 4, 5]),
        ("price >= 3.99", &[2, 3]),
        ("point.x = 2", &[1]),
        ("array_length(tags) = 2", &[2, 5]),
        ("id = 'b' OR id = 'e'", &[1, 4]),
        ("length(text) > 4", &[1, 2]),
        ("text ~ '^t'", &[1, 2]),
        ("CASE WHEN n > 4 THEN ok ELSE small < -2 END", &[0, 5]),
        ("1 = 1", &[0, 1, 2, 3, 4, 5]),
        ("n = 99", &[]),
        ("\"n\" = 4", &[3]),
    ] {
        assert_eq!(kept(&work, condition), expected, "{condition}");
    }
}

#[test]
fn what_is_wrong_with_a_condition_is_said_before_anything_runs() {
    let work = Work::new();
    shard(&work, "a.parquet", 6);
    for (condition, parts) in [
        ("scor > 3", &["there is no column scor", "did you mean score?", "a.parquet"][..]),
        ("nothing = 1", &["there is no column nothing; the columns are text, id, n"]),
        ("n >", &["source.where"]),
        ("n > 'many'", &["`>` needs values of one kind", "i64", "str"]),
        ("ok = 1", &["`==` needs values of one kind"]),
        ("day > 3", &["`>` needs values of one kind", "date"]),
        ("price = '1.5'", &["`==` needs values of one kind"]),
        ("raw = 'a'", &["`==` needs values of one kind", "binary"]),
        ("n AND ok", &["`&` needs true or false"]),
        ("n + 1", &["it must be true or false for a row, but is i64"]),
        ("colour", &["it must be true or false for a row, but is str"]),
        ("n > avg(n)", &["without aggregates"]),
        ("row_number() OVER (ORDER BY n) < 3", &["source.where"]),
        ("n IN (SELECT 1)", &["source.where"]),
        ("\"^n.*$\" > 1", &["without patterns"]),
        ("text ~ '('", &["source.where"]),
        ("day > INTERVAL '1 foo'", &["source.where"]),
        ("text LIKE n", &["source.where"]),
    ] {
        for command in ["plan", "run"] {
            let outcome = work.blt(command, &["--set", &where_is(condition)]);
            outcome.expect(2, parts);
            assert!(!work.out().exists(), "{condition} leaves no output");
        }
    }
}

#[test]
fn rows_that_do_not_count_need_not_be_held_and_are_counted() {
    let work = Work::new();
    shard(&work, "a.parquet", 2);
    let outcome =
        work.run(&[&where_is("n > 4"), "source.carry=['n', 'point', 'tags']", "limits.max_quarantined=0"]);
    outcome.expect(0, &["6 read, 2 documents", "4 left out by where or sample"]);
    assert_sound(&work.out());
    let documents = work.table("documents").unwrap();
    assert_eq!(documents["n"].as_primitive::<Int64Type>().values(), &[5, 6]);
    assert_eq!(documents["point"].as_struct().column(0).as_primitive::<Int64Type>().values(), &[5, 6]);
    assert_eq!(documents["tags"].as_list::<i32>().value_length(1), 2);
    let record = fs::read(work.out().join("_blt/commits/00000-00000.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["counts"]["filtered"], 4, "{record}");
}

#[test]
fn sample_limit_and_where_go_together() {
    let work = Work::new();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200));
    let texts: Vec<String> = (0..200).map(|i| prose(20, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    work.shard("a.parquet", [("text", text(&texts)), ("n", numbers)], 50);
    let rows = |sets: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let flags = [&["--output", out.path().to_str().unwrap()], &*set_flags(sets)].concat();
        work.blt("run", &flags).expect(0, &[]);
        let table = read_table(out.path(), "documents").unwrap();
        crate::support::rows(&table).iter().map(|row| row.source_row).collect::<Vec<u64>>()
    };
    let sampled = rows(&["source.sample={ fraction = 0.5 }"]);
    assert!((60..140).contains(&sampled.len()), "{}", sampled.len());
    let both = rows(&["source.sample={ fraction = 0.5 }", &where_is("n % 3 = 0"), "source.limit=120"]);
    let expected: Vec<u64> = sampled.into_iter().filter(|row| row % 3 == 0 && *row < 120).collect();
    assert_eq!(both, expected);
}

/// Row groups whose statistics rule them out are not even looked at: here they are damaged.
#[test]
fn row_groups_that_hold_no_such_row_are_not_read() {
    let work = Work::new();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
    let texts: Vec<String> = (0..40).map(|i| format!("{i:02} {}", prose(200, i))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let names: Vec<String> = (0..40).map(|i| format!("name {i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let path = work.shard("a.parquet", [("text", text(&texts)), ("n", numbers), ("name", text(&names))], 10);
    let mut bytes = fs::read(&path).unwrap();
    // The first page header of the third group's text, which no decoder survives.
    let at = bytes.windows(2).position(|pair| pair == b"20").unwrap();
    bytes[at - 40..at].fill(0xff);
    fs::write(&path, bytes).unwrap();

    for (condition, expected) in [
        ("n < 20", (0..20).collect::<Vec<u64>>()),
        ("n >= 30", (30..40).collect()),
        ("n = 5 OR name > 'name 36'", vec![5, 37, 38, 39]),
        ("n IN (1, 39)", vec![1, 39]),
    ] {
        assert_eq!(kept(&work, condition), expected, "{condition}");
    }
    // Units may begin and end inside of groups that are not read.
    let out = tempfile::tempdir().unwrap();
    let flags = [
        "--set",
        &where_is("n < 15"),
        "--set",
        "sink.unit_bytes=1000",
        "--output",
        out.path().to_str().unwrap(),
    ];
    work.blt("run", &flags).expect(0, &["40 read, 15 documents"]);
    assert_sound(out.path());
    // What may be there is looked for.
    let outcome = work.blt("run", &["--set", &where_is("n < 20 OR length(name) > 9")]);
    assert_ne!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn a_row_that_cannot_be_asked_goes_to_quarantine() {
    let work = Work::new();
    let bytes: ArrayRef =
        Arc::new(BinaryArray::from(vec![&b"plain"[..], b"\xff\xfe", b"longer than it may be"]));
    work.shard("bytes.parquet", [("text", bytes)], 9);
    // As bytes they are compared as bytes; nothing says that they are text.
    work.blt("plan", &["--set", &where_is("text LIKE 'p%'")]).expect(2, &["source.where"]);

    let work = Work::new();
    let path = work.texts("a.parquet", &["plain", "pXXain", "quite another"]);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).position(|pair| pair == b"XX").unwrap();
    bytes[at..at + 2].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let outcome =
        work.blt("run", &["--set", &where_is("text LIKE 'p%'"), "--set", "limits.max_quarantined=1"]);
    outcome.expect(0, &["1 documents", "1 in quarantine"]);
    assert_sound(&work.out());
    let quarantine = work.table("quarantine").unwrap();
    let reason = quarantine["reason"].as_string::<i32>();
    assert_eq!(reason.value(0), "text is not UTF-8, so source.where cannot be asked");
}

#[test]
fn resuming_with_another_condition_is_refused() {
    let work = Work::new();
    shard(&work, "a.parquet", 6);
    work.run(&[&where_is("n > 1")]);
    work.blt("run", &["--set", &where_is("n > 2")]).expect(2, &["source.where"]);
    work.blt("run", &["--set", &where_is("n > 1")]).expect(0, &["finished before"]);
}

#[test]
fn groups_without_rows_and_contents_in_a_struct_do_not_confuse_it() {
    let work = Work::new();
    let group = |numbers: Vec<i64>| {
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| format!("text {n}"))));
        let paths: ArrayRef =
            Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| format!("{n}.png"))));
        let bytes: ArrayRef =
            Arc::new(BinaryArray::from_iter_values(numbers.iter().map(|n| vec![b'x'; *n as usize])));
        let field =
            |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        let image = StructArray::from(vec![(field("bytes", &bytes), bytes), (field("path", &paths), paths)]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        let image: ArrayRef = Arc::new(image);
        RecordBatch::try_from_iter([("text", texts), ("n", numbers), ("image", image)]).unwrap()
    };
    write_groups(&work.path("shards/a.parquet"), &[vec![1, 2], vec![], vec![9, 9], vec![3]].map(group));
    assert_eq!(kept(&work, "n < 5"), [0, 1, 4]);
    assert_eq!(kept(&work, "n > 5"), [2, 3]);
    // Beside its bytes, a content has fields that can be asked about.
    let run = |condition: &str| {
        let condition = where_is(condition);
        let sets =
            ["source.content=image", &condition, "limits.max_document_bytes=5", "limits.max_quarantined=9"];
        work.blt("run", &set_flags(&sets))
    };
    run("image.path <> '1.png'").expect(0, &["2 documents, 1 left out by where or sample, 2 in quarantine"]);
    run("length(image.bytes) > 3").expect(2, &["source.where"]);
}

/// A row group each, also those without rows, which a plain writer leaves out.
fn write_groups(path: &std::path::Path, groups: &[RecordBatch]) {
    let schema = groups[0].schema();
    let writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), schema.clone(), None).unwrap();
    let (mut writer, factory) = writer.into_serialized_writer().unwrap();
    for (index, rows) in groups.iter().enumerate() {
        let mut columns = factory.create_column_writers(index).unwrap();
        let mut left = columns.iter_mut();
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            for leaf in compute_leaves(field, column).unwrap() {
                left.next().unwrap().write(&leaf).unwrap();
            }
        }
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            column.close().unwrap().append_to_row_group(&mut group).unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Whatever the pages are like, a document that is too long is told, not judged by what was read of it.
#[test]
fn a_document_that_is_too_long_is_not_asked() {
    let work = Work::with(&["short", &prose(3000, 1), &prose(2_000_000, 2)]);
    let condition = where_is("length(text) < 10");
    work.run(&[&condition, "limits.max_document_bytes=2000", "limits.max_quarantined=2"])
        .expect(0, &["1 documents, 2 in quarantine"]);
}

#[test]
fn lines_are_asked_as_parquet_is() {
    let work = Work::new();
    let lines = joined(&both(&work));
    pack(&work.path("shards/a.jsonl"), &lines);
    pack(&work.path("shards/a.jsonl.gz"), &lines);
    let mut n_kept = 0;
    for condition in [
        "n > 1",
        "n IS NULL OR n = 5",
        "n = 9007199254740993",
        "big > 9223372036854775807",
        "score BETWEEN -1 AND 1",
        "ok",
        "name = 'x' OR length(name) = 0",
        "array_length(tags) = 3",
        "meta.a IS NOT NULL",
        "length(text) > 4",
        "text LIKE 't%' AND id <> 'b'",
        "id IN ('a', 'e')",
        "1 = 1",
        "n = 99",
    ] {
        let expected = kept(&work, condition);
        n_kept += expected.len();
        for name in ["a.jsonl", "a.jsonl.gz"] {
            for more in
                ["sink.unit_bytes=1000000", "sink.unit_bytes=100", "source.carry=['meta', 'n', 'tags']"]
            {
                let found = kept_with(&work, &[&from(&work, name), &where_is(condition), more]);
                assert_eq!(found, expected, "{name}, {condition}, {more}");
            }
        }
    }
    assert!(n_kept > 20, "{n_kept}");
}

#[test]
fn what_is_wrong_with_a_condition_on_lines_is_said_before_anything_runs() {
    let work = Work::new();
    let lines = joined(&both(&work));
    pack(&work.path("shards/a.jsonl"), &lines);
    let uri = from(&work, "*.jsonl");
    for (condition, parts) in [
        (
            "scor > 3",
            &["source.where: no row has a key scor; did you mean score?", "a.jsonl have big, id, meta"][..],
        ),
        ("n > 'many'", &["`>` needs values of one kind", "i64", "str"]),
        ("text > 1", &["`>` needs values of one kind"]),
        ("n + 1", &["it must be true or false for a row, but is i64"]),
        ("n > avg(n)", &["without aggregates"]),
        ("\"^n.*$\" > 1", &["without patterns"]),
        ("n >", &["source.where = \"n >\""]),
        ("other = 1", &["source.where: other[] is an integer in row 0 of", "and a string in row 0 of"]),
    ] {
        for command in ["plan", "run"] {
            work.blt(command, &set_flags(&[&uri, &where_is(condition)])).expect(2, parts);
            assert!(!work.out().exists(), "{condition} leaves no output");
        }
    }
    // Types agree over all files, also for what is only asked about.
    pack(&work.path("shards/b.jsonl"), b"{\"text\": \"x\", \"n\": true}\n");
    let outcome = work.blt("plan", &set_flags(&[&uri, &where_is("n > 1")]));
    outcome
        .expect(2, &["source.where: n is an integer in row 0 of", "a.jsonl and true or false in row 0 of"]);
    pack(&work.path("shards/b.jsonl"), b"{\"text\": \"x\", \"n\": 0.5}\n");
    work.blt("plan", &set_flags(&[&uri, &where_is("n > 1")])).expect(2, &["n is a float64 in row 0 of"]);
}

#[test]
fn lines_that_cannot_be_asked_go_to_quarantine_and_the_rest_is_carried_along() {
    let work = Work::new();
    let lines = [
        r#"{"text": "kept", "n": 1, "s": "a"}"#,
        r#"{"text": "left out", "n": 0, "s": "b"}"#,
        r#"{"text": "broken", "n": 1"#,
        r#"{"text": "half", "n": 1, "s": "\ud83d"}"#,
        r#"{"text": 5, "n": 0}"#,
        r#"{"text": "long, far longer than it may be", "n": 0}"#,
        r#"{"text": null, "n": 0}"#,
        r#"{"text": "kept, too", "n": 2, "s": null}"#,
    ];
    pack(&work.path("shards/a.jsonl"), &joined(&lines));
    let uri = from(&work, "a.jsonl");
    let run = |condition: &str, parts: &[&str]| {
        let condition = where_is(condition);
        let sets = [
            &*uri,
            &condition,
            "source.carry=['s', 'n']",
            "limits.max_quarantined=1.0",
            "limits.max_document_bytes=20",
        ];
        let _ = fs::remove_dir_all(work.out());
        work.blt("run", &set_flags(&sets)).expect(0, parts);
        assert_sound(&work.out());
        let column = |table: &str, name: &str| -> Vec<Option<String>> {
            let table = read_table(&work.out(), table).unwrap();
            table[name].as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
        };
        assert_eq!(column("documents", "s"), [Some("a".to_owned()), None]);
        column("quarantine", "reason").into_iter().flatten().collect::<Vec<String>>()
    };
    // What is not asked about does not matter in a row that does not count.
    let reasons = run("n > 0", &["8 read, 2 documents, 4 left out by where or sample, 2 in quarantine"]);
    assert!(reasons[0].starts_with("the line is no JSON object"), "{reasons:?}");
    assert!(reasons[1].starts_with("s is no JSON"), "{reasons:?}");
    let reasons = run("text LIKE 'kept%'", &["2 documents, 2 left out by where or sample, 4 in quarantine"]);
    assert_eq!(reasons[2], "the content is no string");
    assert!(reasons[3].starts_with("31 bytes of content, more than"), "{reasons:?}");
    // Where no row can be read there is nothing to ask.
    pack(&work.path("shards/b.jsonl"), b"{broken\n[1]\n");
    for condition in ["n > 1", "s LIKE 'a%'", "m.x = 1", "length(s) > 3 AND s ~ 'x'"] {
        let sets = [&*from(&work, "b.jsonl"), &where_is(condition), "limits.max_quarantined=1.0"];
        let _ = fs::remove_dir_all(work.out());
        work.blt("run", &set_flags(&sets)).expect(0, &["2 in quarantine"]);
    }
}

#[test]
fn sample_limit_and_where_go_together_for_lines_of_many_batches() {
    let work = Work::new();
    let row =
        |i: u32| format!("{{\"text\": {:?}, \"n\": {i}, \"s\": {:?}}}\n", prose(20, i), "x".repeat(3000));
    pack(&work.path("shards/a.jsonl.zst"), (0..4000).map(row).collect::<String>().as_bytes());
    let uri = from(&work, "a.jsonl.zst");
    let sample = "source.sample={ fraction = 0.05 }";
    let sampled = kept_with(&work, &[&uri, sample]);
    assert!((100..300).contains(&sampled.len()), "{}", sampled.len());
    let condition = where_is("n % 3 = 0 AND length(s) = 3000");
    let expected: Vec<u64> = sampled.into_iter().filter(|row| row % 3 == 0 && *row < 3000).collect();
    for more in ["source.carry=['n', 's']", "sink.unit_bytes=100000000", "limits.memory='200 MiB'"] {
        assert_eq!(
            kept_with(&work, &[&uri, sample, &condition, "source.limit=3000", more]),
            expected,
            "{more}"
        );
    }
    work.run(&[&uri, &condition, "source.limit=3000", "source.carry=['n']", "sink.embeddings=none"]);
    let documents = work.table("documents").unwrap();
    let numbers = documents["n"].as_primitive::<Int64Type>().values();
    assert_eq!(numbers.to_vec(), (0..3000).step_by(3).collect::<Vec<i64>>());
}
