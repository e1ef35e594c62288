//! Every key of the pipeline file shows in the output what it does.

use std::{collections::BTreeSet, fs::File, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
        UInt64Array,
    },
    datatypes::{DataType, Field, Int32Type, UInt64Type},
};
use blt_pipeline::{
    data::{BOS, BYTE_OFFSET, EOS},
    patch::patch_lengths,
};
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, basic::Compression};

use crate::{
    golden,
    support::{Row, Work, assert_sound, files, prose, rows},
};

fn keys(rows: &[Row]) -> Vec<(String, u64)> {
    rows.iter().map(|r| (r.source_file.clone(), r.source_row)).collect()
}

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|r| r.doc_id.as_str()).collect()
}

fn column<T: Array + 'static>(name: &'static str, array: T) -> (&'static str, ArrayRef) {
    (name, Arc::new(array))
}

fn strings(name: &'static str, values: &[&str]) -> (&'static str, ArrayRef) {
    column(name, StringArray::from(values.to_vec()))
}

#[test]
fn source_uri_takes_a_file_a_list_a_glob_and_a_folder() {
    let work = Work::new();
    std::fs::create_dir(work.path("shards/sub")).unwrap();
    for name in ["a.parquet", "b.parquet", "sub/c.parquet"] {
        work.texts(name, &[name]);
    }
    let at = |below: &str| work.path("shards").join(below).to_str().unwrap().to_owned();
    for (uri, expected) in [
        (format!("{:?}", at("b.parquet")), &["b.parquet"][..]),
        (format!("[{:?}, {:?}]", at("b.parquet"), at("a.parquet")), &["a.parquet", "b.parquet"]),
        (format!("{:?}", at("*.parquet")), &["a.parquet", "b.parquet"]),
        (format!("{:?}", at("**/*.parquet")), &["a.parquet", "b.parquet", "sub/c.parquet"]),
        (format!("{:?}", at("")), &["a.parquet", "b.parquet", "sub/c.parquet"]),
        (format!("\"file://{}\"", at("[b-z].parquet")), &["b.parquet"]),
    ] {
        let out = tempfile::tempdir().unwrap();
        let uri = format!("source.uri={uri}");
        work.blt("run", &["--set", &uri, "--output", out.path().to_str().unwrap()]).expect(0, &[]);
        let table = crate::support::read_table(out.path(), "documents").unwrap();
        let found: Vec<String> = rows(&table).into_iter().map(|r| r.source_file).collect();
        assert_eq!(found, expected, "{uri}");
    }
}

#[test]
fn source_id_names_the_documents() {
    let work = Work::new();
    let numbers = Int64Array::from(vec![Some(-7), None, Some(i64::MAX)]);
    let large = UInt64Array::from(vec![u64::MAX, 0, 1]);
    let names = StringArray::from(vec![Some("one"), Some("two"), None]);
    let texts = strings("text", &["a", "b", "c"]);
    work.shard("a.parquet", [texts, column("n", numbers), column("big", large), column("id", names)], 9);
    for (set, expected) in [
        ("source.limit=3", ["one", "two", "a.parquet#2"]),
        ("source.id=n", ["-7", "a.parquet#1", "9223372036854775807"]),
        ("source.id=big", ["18446744073709551615", "0", "1"]),
        ("source.id=text", ["a", "b", "c"]),
    ] {
        work.run(&[set]);
        assert_eq!(ids(&work.documents()), expected, "{set}");
        std::fs::remove_dir_all(work.out()).unwrap();
    }
    // Only a column that is written must exist.
    let bare = Work::with(&["a"]);
    bare.run(&[]);
    assert_eq!(ids(&bare.documents()), ["a.parquet#0"]);
    bare.blt("run", &["--set", "source.id=id"]).expect(2, &["source.id = \"id\"", "it has text"]);
}

#[test]
fn source_content_and_modality_choose_what_the_model_sees() {
    let work = Work::new();
    work.shard("a.parquet", [strings("text", &["long text"]), strings("body", &["short"])], 9);
    work.run(&["source.content=body", "source.modality=text"]);
    assert_eq!(work.documents()[0].n_bytes, 5);
    work.blt("run", &["--set", "source.modality=picture"]).expect(2, &["unknown value `picture`", "`text`"]);
}

#[test]
fn source_limit_takes_the_first_rows_in_plan_order() {
    let work = Work::new();
    work.texts("b.parquet", &["1", "2", "3"]);
    work.texts("a.parquet", &["1", "2"]);
    work.run(&["source.limit=4"]).expect(0, &["rows        4 read, 4 documents"]);
    let expected = [("a", 0), ("a", 1), ("b", 0), ("b", 1)].map(|(f, r)| (format!("{f}.parquet"), r));
    assert_eq!(keys(&work.documents()), expected);
}

#[test]
fn source_sample_keeps_the_same_rows_in_every_run_and_counts_the_others() {
    let texts: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let sampled = |fraction: &str, seed: u32, unit_bytes: &str| {
        let work = Work::with(&texts);
        let set = format!("source.sample={{fraction={fraction},seed={seed}}}");
        let outcome = work.run(&[&set, unit_bytes, "sink.embeddings=none"]);
        let kept = keys(&work.documents());
        if kept.len() < 200 {
            outcome.expect(0, &[&format!("{} left out by where or sample", 200 - kept.len())]);
        }
        kept
    };
    let half = sampled("0.5", 1, "sink.unit_bytes=1048576");
    assert!((70..130).contains(&half.len()), "{}", half.len());
    assert_eq!(half, sampled("0.5", 1, "sink.unit_bytes=500"), "units do not matter");
    assert_ne!(half, sampled("0.5", 2, "sink.unit_bytes=1048576"));
    assert_eq!(sampled("1.0", 1, "sink.unit_bytes=1048576").len(), 200);
}

#[test]
fn carried_columns_stand_beside_the_documents_they_came_with() {
    let work = Work::new();
    let url = strings("url", &["u0", "u1", "u2", "u3"]);
    let score = column("score", Float64Array::from(vec![Some(0.5), None, Some(2.5), Some(3.5)]));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![Some(4)]),
    ]);
    let inner = Arc::new(StringArray::from(vec![Some("en"), None, Some("de"), Some("fr")])) as ArrayRef;
    let nested = StructArray::from(vec![(Arc::new(Field::new("language", DataType::Utf8, true)), inner)]);
    // Row 1 goes to quarantine, row 0 is a unit of its own.
    let texts = column("text", StringArray::from(vec![Some("a"), None, Some("c"), Some("d")]));
    let columns = [
        texts,
        strings("id", &["i0", "i1", "i2", "i3"]),
        url,
        score,
        column("list", list),
        column("meta", nested),
    ];
    let source = RecordBatch::try_from_iter(columns.clone()).unwrap();
    work.shard("a.parquet", columns, 1);
    work.run(&[
        "source.carry=[\"score\", \"list\", \"meta\", \"url\", \"id\"]",
        "limits.max_quarantined=1.0",
        "sink.unit_bytes=1",
    ]);
    let table = work.table("documents").unwrap();
    let kept = UInt64Array::from(vec![0, 2, 3]);
    for name in ["score", "list", "meta", "url", "id"] {
        let expected = arrow::compute::take(&source[name], &kept, None).unwrap();
        assert_eq!(&table[name], &expected, "{name}");
    }
    let fields: Vec<_> = table.schema().fields().iter().skip(9).map(|f| f.name().clone()).collect();
    assert_eq!(fields, ["score", "list", "meta", "url", "id"], "in the order of the pipeline file");
    work.blt("run", &["--set", "source.carry=[\"uri\"]"])
        .expect(2, &["source.carry = \"uri\"", "it has text, id, url, score, list, meta"]);
}

#[test]
fn shards_that_disagree_about_a_carried_column_are_refused() {
    let work = Work::new();
    work.shard("a.parquet", [strings("text", &["a"]), strings("score", &["high"])], 9);
    work.shard("b.parquet", [strings("text", &["b"]), column("score", Float64Array::from(vec![1.0]))], 9);
    work.blt("run", &["--set", "source.carry=[\"score\"]"])
        .expect(2, &["source.carry: column score is Utf8 in ", "a.parquet", "Float64 in ", "b.parquet"]);
}

#[test]
fn model_weights_may_be_a_folder_a_file_or_embedded() {
    let entropies = |weights: &str| {
        let work = Work::with(&["The keeper counts ships."]);
        work.run(&[&format!("model.weights={weights}")]);
        work.documents()[0].entropies.clone()
    };
    let nano = golden::folder("nano");
    let folder = entropies(nano.to_str().unwrap());
    assert_eq!(folder, entropies(nano.join("model.safetensors").to_str().unwrap()));
    assert_ne!(folder, entropies("embedded"));
    let work = Work::with(&["x"]);
    work.blt("run", &["--set", "model.weights=no/such/model"]).expect(2, &["failed to read no/such/"]);
    work.blt("run", &["--set", "model.weights=hf://facebook"])
        .expect(2, &["model.weights", "hf://owner/name[@revision][/path]"]);
}

/// `documents` of one text of 300 bytes.
fn scored(sets: &[&str]) -> Row {
    let work = Work::with(&[&prose(300, 5)]);
    work.run(sets);
    work.documents().remove(0)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_smaller_context_changes_what_lies_past_it_and_an_overlap_less_so() {
    let whole = scored(&[]).entropies;
    let cut = scored(&["model.context=128"]).entropies;
    let overlapped = scored(&["model.context=128", "model.overlap=100"]).entropies;
    assert_eq!(whole.len(), cut.len());
    assert!(largest_difference(&whole[..128], &cut[..128]) < 1e-4);
    let (without, with) = (
        largest_difference(&whole[128..], &cut[128..]),
        largest_difference(&whole[128..], &overlapped[128..]),
    );
    // Three layers of 32 tokens look 93 tokens back: 100 of overlap hide the cut entirely.
    assert!(without > 1e-2, "{without}");
    assert!(with < 1e-4, "{with}");
    let work = Work::with(&["x"]);
    work.blt("run", &["--set", "model.context=8193"]).expect(2, &["model.context = 8193", "at most 8192"]);
    work.blt("run", &["--set", "model.overlap=8192"])
        .expect(2, &["model.overlap = 8192", "below the context"]);
}

#[test]
fn batch_tokens_changes_no_result_beyond_the_last_digits() {
    let texts = [prose(900, 1), prose(40, 2), prose(1500, 3)];
    let run = |batch_tokens: &str| {
        let work = Work::with(&texts.each_ref().map(String::as_str));
        work.run(&["model.context=512", batch_tokens]);
        let record = std::fs::read_to_string(work.out().join("_blt/commits/00000-00000.json")).unwrap();
        (work.documents(), record)
    };
    let (small, record) = run("model.batch_tokens=512");
    let (large, _) = run("model.batch_tokens=4096");
    assert!(record.contains("\"batch_tokens\": 512"), "{record}");
    for (a, b) in small.iter().zip(&large) {
        assert!(largest_difference(&a.entropies, &b.entropies) < 1e-4);
        assert_eq!(a.entropies.len(), b.entropies.len());
    }
    Work::with(&["x"])
        .blt("run", &["--set", "model.batch_tokens=100"])
        .expect(2, &["model.batch_tokens = 100", "whole context, 8192 tokens"]);
}

#[test]
fn devices_and_precisions_that_this_build_lacks_are_refused() {
    let work = Work::with(&["x"]);
    for device in ["wgpu", "vulkan", "metal", "cuda"] {
        let set = format!("model.device={device}");
        let refusal = format!("model.device = {device:?}");
        let lists = ["Found: ", "cpu:0 "];
        work.blt("run", &["--set", &set]).expect(2, &[&refusal, lists[0], lists[1]]);
    }
    work.blt("run", &["--set", "model.adapter=Voodoo"]).expect(2, &["model.adapter = \"Voodoo\"", "Found: "]);
    for precision in ["f16", "bf16"] {
        let set = format!("model.precision={precision}");
        let on_cpu = ["--set", &set, "--set", "model.device=cpu"];
        work.blt("run", &on_cpu).expect(2, &[&format!("model.precision = {precision:?}"), "has f32"]);
    }
    assert!(!work.out().exists());
    work.run(&["model.device=cpu", "model.precision=f32"]);
    assert_sound(&work.out());
}

#[test]
fn every_patch_rule_cuts_as_the_library_does() {
    let text = prose(300, 7);
    let bytes = text.bytes().map(|b| u16::from(b) + BYTE_OFFSET);
    let tokens: Vec<u16> = std::iter::once(BOS).chain(bytes).chain([EOS]).collect();
    let mut seen = BTreeSet::new();
    for sets in [
        &[][..],
        &["patch.threshold=4.6"],
        &["patch.threshold=4.5", "patch.threshold_add=0.05"],
        &["patch.threshold=0.02", "patch.monotonicity=true"],
        &["patch.mode=entropy", "patch.patch_size=6"],
        &["patch.mode=space"],
        &["patch.mode=static", "patch.patch_size=7"],
        &["patch.mode=byte"],
        &["patch.mode=space", "patch.max_patch_length=3"],
    ] {
        let work = Work::with(&[&text]);
        work.run(sets);
        let document = work.documents().remove(0);
        let rule = work.pipeline(sets).patch.resolve(None);
        assert_eq!(document.patch_lengths, patch_lengths(&rule, &tokens, &document.entropies), "{rule:?}");
        let patches = rows(&work.table("patches").unwrap());
        assert_eq!(patches.iter().map(|p| p.length).sum::<u64>(), 300, "{rule:?}");
        if let Some(longest) = rule.max_patch_length {
            assert!(document.patch_lengths.iter().all(|&n| n <= longest.get()));
        }
        seen.insert(document.patch_lengths);
    }
    assert!(seen.len() >= 7, "the rules differ on this text");
}

#[test]
fn the_models_own_threshold_is_the_default_and_a_written_one_wins() {
    let work = Work::with(&[&prose(200, 9)]);
    work.blt("plan", &["--set", "model.weights=embedded"]).expect(0, &["entropy above 1.9137 nats"]);
    work.blt("plan", &["--set", "model.weights=embedded", "--set", "patch.threshold=1.5"])
        .expect(0, &["entropy above 1.5 nats"]);
    work.blt("plan", &[]).expect(0, &["entropy above 1.3354421 nats"]);
}

#[test]
fn sink_embeddings_choose_tables_and_columns() {
    let columns = |set: &str, table: &str| -> Option<Vec<String>> {
        let work = Work::with(&["keeper", ""]);
        work.run(&[&format!("sink.embeddings={set}")]);
        let table = work.table(table)?;
        Some(table.schema().fields().iter().map(|f| f.name().clone()).collect())
    };
    for (set, documents, patches, bytes) in [
        ("none", false, false, None),
        ("document", true, false, None),
        ("patch", false, true, None),
        ("byte", false, false, Some(true)),
    ] {
        let has = |table| columns(set, table).map(|names| names.iter().any(|n| n == "embedding"));
        assert_eq!(
            [has("documents"), has("patches"), has("bytes")],
            [Some(documents), Some(patches), bytes],
            "{set}"
        );
    }
}

#[test]
fn entropies_and_norms_can_be_left_out() {
    let work = Work::with(&["keeper"]);
    work.run(&["sink.entropies=false", "sink.norms=false", "sink.embedding_dtype=f32"]);
    let names = |table: &str| -> Vec<String> {
        let table = work.table(table).unwrap();
        table.schema().fields().iter().map(|f| f.name().clone()).collect()
    };
    let documents = names("documents");
    assert!(!documents.iter().any(|n| n == "entropies" || n == "norms"), "{documents:?}");
    // Patches keep what the rule needed anyway.
    assert!(names("patches").iter().any(|n| n == "entropy_mean"));
    assert!(!names("patches").iter().any(|n| n == "norm_mean"));
    let table = work.table("patches").unwrap();
    let DataType::FixedSizeList(item, 64) = table["embedding"].data_type().clone() else {
        panic!("no embedding")
    };
    assert_eq!(item.data_type(), &DataType::Float32);
}

#[test]
fn sink_compression_is_what_the_files_have() {
    for (set, expected) in [("none", "UNCOMPRESSED"), ("zstd:1", "ZSTD"), ("zstd:19", "ZSTD")] {
        let work = Work::with(&[&prose(400, 3)]);
        work.run(&[&format!("sink.compression={set}")]);
        for table in ["documents", "patches"] {
            let path = work.out().join(table).join(&files(&work.out(), table)[0]);
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
            let is = |c: Compression| format!("{c:?}").starts_with(expected);
            assert!(reader.metadata().row_group(0).columns().iter().all(|c| is(c.compression())), "{set}");
        }
    }
    let work = Work::with(&["x"]);
    work.blt("run", &["--set", "sink.compression=zstd:99"]).expect(2, &["sink.compression", "`zstd:22`"]);
}

#[test]
fn a_plan_is_the_same_when_it_is_read_back_whatever_its_numbers() {
    for threshold in ["1.002", "0.46", "0.49", "2.3", "1e-7", "3"] {
        let work = Work::with(&["x"]);
        let set = format!("patch.threshold={threshold}");
        work.run(&[&set, "sink.embeddings=none"]);
        work.run(&[&set, "sink.embeddings=none"]).expect(0, &["was finished before"]);
    }
}

#[test]
fn unit_bytes_decides_the_number_of_files_and_nothing_else() {
    let texts: Vec<String> = (0..12).map(|i| prose(100, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let run = |unit_bytes: &str| {
        let work = Work::with(&texts);
        work.run(&[&format!("sink.unit_bytes={unit_bytes}")]);
        assert_sound(&work.out());
        (files(&work.out(), "documents").len(), work.documents(), rows(&work.table("patches").unwrap()))
    };
    let (one, documents, patches) = run("1 MiB");
    // 12 documents of 100 bytes and 64 more for each row, in one row group.
    let (many, same_documents, same_patches) = run("512");
    assert_eq!((one, many), (1, 4));
    assert_eq!(keys(&documents), keys(&same_documents));
    assert_eq!(patches.len(), same_patches.len());
    for (a, b) in documents.iter().zip(&same_documents) {
        assert!(largest_difference(&a.entropies, &b.entropies) < 1e-4);
    }
}

#[test]
fn a_document_over_the_limit_goes_to_quarantine_and_too_many_end_the_run() {
    let work = Work::with(&["short", &prose(100, 1), "brief"]);
    let sets = ["limits.max_document_bytes=99", "limits.max_quarantined=1"];
    work.run(&sets).expect(0, &["rows        3 read, 2 documents, 1 in quarantine"]);
    let quarantine = work.table("quarantine").unwrap();
    let text = |name: &str| quarantine[name].as_string::<i32>().value(0).to_owned();
    assert_eq!(quarantine["source_row"].as_primitive::<UInt64Type>().values()[..], [1]);
    assert_eq!((text("stage"), text("doc_id")), ("source".into(), "a.parquet#1".into()));
    assert_eq!(text("reason"), "100 bytes of content, more than limits.max_document_bytes = 99");
    assert_eq!(keys(&work.documents()).iter().map(|k| k.1).collect::<Vec<_>>(), [0, 2]);

    // One of three is more than the hundredth that is allowed without a word.
    let work = Work::with(&["short", &prose(100, 1), "brief"]);
    for allowed in [None, Some("limits.max_quarantined=0"), Some("limits.max_quarantined=0.3")] {
        let mut flags = vec!["--set", sets[0]];
        flags.extend(allowed.iter().flat_map(|set| ["--set", set]));
        work.blt("run", &flags).expect(65, &["1 of 3 rows are in quarantine", "limits.max_quarantined"]);
    }
    // A matter of the run, not of the plan: the same output goes on with a higher limit.
    work.run(&[sets[0], "limits.max_quarantined=0.34"]);
    assert_sound(&work.out());
}

#[test]
fn a_tiny_memory_limit_and_any_number_of_workers_reach_the_end() {
    let texts: Vec<String> = (0..6).map(|i| prose(200, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let run = |sets: &[&str]| {
        let work = Work::with(&texts);
        let outcome = work.run(&[&["sink.unit_bytes=400"], sets].concat());
        (crate::support::snapshot(&work.out()), outcome.stdout)
    };
    let (usual, _) = run(&[]);
    let (tiny, stdout) = run(&["limits.memory=400 kB", "pretokenize.workers=3"]);
    assert!(usual == tiny, "the same bytes");
    let line = stdout.lines().find(|l| l.trim_start().starts_with("pretokenize ")).unwrap();
    assert!(line.ends_with("×3"), "{line}");
}

#[test]
fn what_this_build_cannot_read_write_or_filter_is_said() {
    let work = Work::with(&["x"]);
    for (set, parts) in [
        #[cfg(not(feature = "filter"))]
        ("source.where=\"n > 1\"", &["source.where", "feature `filter`"][..]),
        #[cfg(not(feature = "remote"))]
        ("source.uri=s3://bucket/x.parquet", &["s3://bucket/x.parquet", "--features remote"][..]),
        ("source.uri=ftp://host/x.parquet", &["source.uri", "no scheme ftp://"][..]),
        ("model.weights=s3://bucket/model", &["model.weights", "hf://owner/name"]),
        ("sink.uri=ftp://host/out", &["sink.uri", "ftp://"]),
    ] {
        for command in ["plan", "run"] {
            work.blt(command, &["--set", set]).expect(2, parts);
        }
    }
}
