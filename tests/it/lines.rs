//! JSON Lines as a source: the same documents as from Parquet, whatever packs the lines; what is no row is told.

use std::{fs, io::Write, path::Path};

use arrow::array::AsArray;
use serde_json::json;

use crate::support::{Work, assert_same, assert_sound, prose, read_table, rows, set_flags, snapshot};

fn pack(path: &Path, lines: &[u8]) {
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
fn from(work: &Work, glob: &str) -> String {
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
fn keys_that_are_not_there_and_columns_without_types_are_refused() {
    let work = Work::new();
    pack(&work.path("shards/a.jsonl"), b"{\"text\": \"x\", \"n\": 1}\n");
    let uri = from(&work, "a.jsonl");
    for (set, parts) in [
        ("source.content=body", &["source.content", "none of the first 1 rows", "n, text"][..]),
        ("source.id=key", &["source.id", "none of the first 1 rows"]),
        ("source.carry=['n']", &["source.carry", "convert the file to Parquet"]),
        ("source.where='n > 1'", &["source.where"]),
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
