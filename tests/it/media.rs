//! Files of every modality in a column of a shard: what becomes of each, and what their documents are called.

use std::{io::Write, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, StructArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Fields, UInt64Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::{
    golden,
    support::{Outcome, Work, assert_sound, blt, files, read_table, set_flags, snapshot},
    verify::{pick, reseal, with},
};

/// Runs a pipeline of the repository with the golden nano model.
pub fn sample(work: &Work, name: &str, sets: &[&str]) -> Outcome {
    let weights = format!("model.weights={}", golden::folder("nano").display());
    let (file, out) = (format!("pipelines/{name}.toml"), work.out());
    let mut arguments = vec!["run", &file, "--output", out.to_str().unwrap(), "--set", &weights];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    blt(&arguments)
}

fn strings(table: &RecordBatch, column: &str) -> Vec<String> {
    let column = &table[column];
    let column = arrow::compute::cast(column, &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|value| value.unwrap_or("null").to_owned()).collect()
}

/// `(doc_id, modality, n_bytes, number of segments, kind and meta of the first)` of every document.
pub fn documents(out: &Path) -> Vec<(String, String, u64, usize, String)> {
    let table = read_table(out, "documents").unwrap();
    let segments = table["segments"].as_list::<i32>();
    let first = |row: usize| {
        let segments = segments.value(row);
        let segments = segments.as_struct();
        if segments.is_empty() {
            return "none".to_owned();
        }
        let text = |name: &str| {
            let column = segments.column_by_name(name).unwrap().as_string::<i32>();
            if column.is_null(0) { "null".to_owned() } else { column.value(0).to_owned() }
        };
        format!("{} {}", text("kind"), text("meta"))
    };
    let (ids, modalities) = (strings(&table, "doc_id"), strings(&table, "modality"));
    let n_bytes = table["n_bytes"].as_primitive::<UInt64Type>();
    (0..table.num_rows())
        .map(|row| {
            let n_segments = segments.value(row).len();
            (ids[row].clone(), modalities[row].clone(), n_bytes.value(row), n_segments, first(row))
        })
        .collect()
}

/// `(doc_id, stage, reason)` of every row in quarantine.
pub fn quarantine(out: &Path) -> Vec<(String, String, String)> {
    let Some(table) = read_table(out, "quarantine") else { return Vec::new() };
    let columns = ["doc_id", "stage", "reason"].map(|name| strings(&table, name));
    (0..table.num_rows())
        .map(|row| (columns[0][row].clone(), columns[1][row].clone(), columns[2][row].clone()))
        .collect()
}

/// A column as the Hub stores files; a row without bytes has null ones.
fn media(files: &[(Option<&[u8]>, Option<&str>)], null_struct: Option<usize>) -> ArrayRef {
    let bytes: BinaryArray = files.iter().map(|(bytes, _)| *bytes).collect();
    let paths: StringArray = files.iter().map(|(_, path)| *path).collect();
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let valid: NullBuffer = (0..files.len()).map(|i| Some(i) != null_struct).collect::<Vec<_>>().into();
    Arc::new(StructArray::try_new(fields, vec![Arc::new(bytes), Arc::new(paths)], Some(valid)).unwrap())
}

/// The files in a sample of the repository, by path.
fn files_of(sample: &str, column: &str) -> Vec<(String, Vec<u8>)> {
    let file = std::fs::File::open(format!("pipelines/samples/{sample}.parquet")).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut files = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        let media = batch[column].as_struct();
        let bytes = media.column_by_name("bytes").unwrap().as_binary::<i32>();
        let paths = media.column_by_name("path").unwrap().as_string::<i32>();
        files.extend((0..media.len()).map(|row| (paths.value(row).to_owned(), bytes.value(row).to_vec())));
    }
    files
}

#[test]
fn the_sample_of_images_becomes_pixels() {
    let work = Work::new();
    sample(&work, "images", &[]).expect(0, &["10 read, 9 documents, 1 in quarantine"]);
    let found = documents(&work.out());
    let sizes: Vec<(&str, u64)> = found.iter().map(|(id, _, n_bytes, ..)| (id.as_str(), *n_bytes)).collect();
    let whole = 64 * 64 * 3;
    assert_eq!(
        sizes,
        [
            ("slope", whole),
            ("slope", whole),
            ("waves", whole),
            ("waves", whole),
            ("noise", whole),
            ("see_through", 64 * 48 * 3),
            ("line", whole),
            ("line", whole),
            ("turned", 64 * 40 * 3),
        ]
    );
    assert!(found.iter().all(|(_, modality, ..)| modality == "image"));
    // Turned by its EXIF orientation: 40 wide, so that the last patch of a row is 8 wide.
    assert_eq!(found[8].3, 4 * 3);
    assert_eq!(found[4].3, 16);
    assert_eq!(found[4].4, r#"patch {"x":0,"y":0,"w":16,"h":16}"#);
    // The line crosses few patches; the others are flat and become one a row, or a part of one.
    assert!(found[6].3 < 16, "{:?}", found[6]);
    let [(id, stage, reason)] = &quarantine(&work.out())[..] else { panic!() };
    assert_eq!((id.as_str(), stage.as_str()), ("cut", "pretokenize"));
    assert!(reason.starts_with("failed to decode png: "), "{reason}");
    assert_sound(&work.out());
}

#[test]
fn the_sample_of_audio_becomes_samples() {
    let work = Work::new();
    sample(&work, "audio", &[]).expect(0, &["8 read, 7 documents, 1 in quarantine"]);
    let found = documents(&work.out());
    for (id, modality, n_bytes, n_segments, first) in &found {
        assert_eq!(modality, "audio");
        // 0.6 seconds of 8000 samples; the sound with two sides is shorter, and they are mixed.
        match id.as_str() {
            "both_sides" => assert_eq!((*n_bytes, *n_segments), (2000 * 2, 13)),
            _ => assert_eq!((*n_bytes, *n_segments), (4800 * 2, 30), "{id}"),
        }
        assert!(first.starts_with(r#"frame {"start":0"#), "{first}");
    }
    let [(id, _, reason)] = &quarantine(&work.out())[..] else { panic!() };
    assert_eq!(id, "cut");
    assert!(reason.starts_with("failed to decode: "), "{reason}");
    assert_sound(&work.out());
}

#[test]
fn the_sample_of_code_is_cut_into_items() {
    let work = Work::new();
    sample(&work, "code", &["source.limit=3"]).expect(0, &["3 read, 3 documents"]);
    let found = documents(&work.out());
    assert_eq!(found[0].0, "access.rs");
    for (id, modality, n_bytes, n_segments, first) in &found {
        assert_eq!(modality, "code");
        assert_eq!(*n_bytes, std::fs::metadata(format!("src/source/{id}")).unwrap().len());
        assert!(*n_segments > 5, "{id}");
        assert!(first.contains(r#""language":"rust""#), "{first}");
    }
    assert_sound(&work.out());
}

#[test]
fn the_sample_of_documents_becomes_text_and_raw_bytes_under_one_source_id() {
    let work = Work::new();
    sample(&work, "documents", &[]).expect(0, &["4 read, 6 documents, 1 in quarantine"]);
    let found = documents(&work.out());
    let names: Vec<(&str, &str)> = found.iter().map(|(id, m, ..)| (id.as_str(), m.as_str())).collect();
    assert_eq!(
        names,
        [
            ("letter", "document"),
            ("letter/raw", "document"),
            ("list", "document"),
            ("list/raw", "document"),
            ("blank", "document"),
            ("blank/raw", "document"),
        ]
    );
    let table = read_table(&work.out(), "documents").unwrap();
    assert_eq!(strings(&table, "source_id"), ["letter", "letter", "list", "list", "blank", "blank"]);
    assert_eq!((found[0].3, found[4].2, found[4].4.as_str()), (2, 0, "none"));
    assert_sound(&work.out());
    // A view that is not where it belongs is found.
    let out = work.out();
    let mut name = format!("documents/{}", files(&out, "documents")[0]);
    let names = |table: &RecordBatch, column: &str, new: [&str; 6]| -> RecordBatch {
        with(table.clone(), column, Arc::new(StringArray::from(new.to_vec())))
    };
    let doc_ids = names_of(&table, "doc_id");
    let sources = names_of(&table, "source_id");
    for (ids, source_ids, words) in [
        (
            ["letter", "letter", "list", "list/raw", "blank", "blank/raw"],
            sources,
            "the view \"letter\" is there twice",
        ),
        (
            ["letter", "raw", "list", "list/raw", "blank", "blank/raw"],
            sources,
            "doc_id is \"raw\", of a view of \"letter\"",
        ),
        (
            doc_ids,
            ["letter", "letter", "list", "letter", "blank", "blank"],
            "\"list/raw\", of a view of \"letter\"",
        ),
        (
            ["letter", "letter/raw", "list", "li/raw", "blank", "blank/raw"],
            ["letter", "letter", "list", "li", "blank", "blank"],
            "source_id is \"li\", that of another view \"list\"",
        ),
    ] {
        name = reseal(&out, &name, |table| names(&names(&table, "doc_id", ids), "source_id", source_ids));
        blt(&["verify", out.to_str().unwrap()]).expect(65, &[words]);
    }
    name = reseal(&out, &name, |table| names(&names(&table, "doc_id", doc_ids), "source_id", sources));
    blt(&["verify", out.to_str().unwrap()]).expect(75, &["6 documents"]);
    reseal(&out, &name, |table| pick(&table, &[0, 2, 3, 1, 4, 5]));
    blt(&["verify", out.to_str().unwrap()])
        .expect(65, &["patch 0 of source row 0 came where patch 0 of source row 1 is due"]);
}

fn names_of<'a>(table: &'a RecordBatch, column: &str) -> [&'a str; 6] {
    let column = table[column].as_string::<i32>();
    std::array::from_fn(|row| column.value(row))
}

#[test]
fn pages_of_documents_are_pictures_and_a_row_without_pages_is_not_lost() {
    let work = Work::new();
    let samples = files_of("documents", "pdf");
    let no_pages = b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[]/Count 0>>\nendobj\n\
        xref\n0 3\n0000000000 65535 f \n0000000009 00000 n \n0000000056 00000 n \n\
        trailer\n<</Size 3/Root 1 0 R>>\nstartxref\n106\n%%EOF\n";
    let files: Vec<(Option<&[u8]>, Option<&str>)> =
        vec![(Some(&samples[0].1), Some("letter.pdf")), (Some(no_pages), Some("none.pdf"))];
    work.shard("a.parquet", [("pdf", media(&files, None))], 4);
    let sets = [
        "source.content=pdf",
        "source.modality=document",
        "pretokenize.document.views=[\"image\"]",
        "pretokenize.document.dpi=18",
    ];
    let run = |more: &[&str]| {
        let sets = [&sets[..], &["limits.max_quarantined=1.0"], more].concat();
        work.blt("run", &set_flags(&sets))
    };
    run(&[]).expect(0, &["2 read, 2 documents, 1 in quarantine"]);
    let found = documents(&work.out());
    let names: Vec<(&str, &str)> = found.iter().map(|(id, m, ..)| (id.as_str(), m.as_str())).collect();
    assert_eq!(names, [("a.parquet#0/page-1", "image"), ("a.parquet#0/page-2", "image")]);
    assert!(
        found.iter().all(|(.., n_bytes, _, first)| *n_bytes > 10_000 && first.starts_with("patch ")),
        "{found:?}"
    );
    assert_eq!(quarantine(&work.out())[0].2, "no pages");
    assert_sound(&work.out());
    // How pages are cut is part of the plan.
    run(&["pretokenize.image.patch=8"]).expect(2, &["pretokenize.image.patch"]);
}

#[test]
fn lines_name_files_beside_them_and_members_of_archives() {
    let work = Work::new();
    let image = files_of("images", "image").remove(0).1;
    let mut archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    archive.write_all(&tar_of("in/slope.png", &image)).unwrap();
    std::fs::write(work.path("shards/all.tar.gz"), archive.finish().unwrap()).unwrap();
    std::fs::write(work.path("shards/slope.png"), &image).unwrap();
    let lines = ["slope.png", "all.tar.gz::in/slope.png", "all.tar.gz::in/none.png"];
    let lines: Vec<String> = lines.iter().map(|path| format!("{{\"file\": \"{path}\"}}\n")).collect();
    std::fs::write(work.path("shards/a.jsonl"), lines.concat()).unwrap();
    let sets = [
        "source.uri=shards/*.jsonl",
        "source.modality=image",
        "source.resolve_paths=true",
        "limits.max_quarantined=1.0",
    ];
    let flags = set_flags(&sets);
    work.blt("run", &flags)
        .expect(2, &["source.resolve_paths = true, but nothing tells paths: source.path names"]);
    work.run(&[&sets[..], &["source.path=file"]].concat());
    assert_eq!(documents(&work.out()).iter().map(|d| d.2).collect::<Vec<_>>(), [64 * 64 * 3; 2]);
    let [(_, stage, reason)] = &quarantine(&work.out())[..] else { panic!() };
    assert!(stage == "source" && reason.contains("in/none.png"), "{reason}");
    assert_sound(&work.out());
}

/// A tar archive of one file.
fn tar_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; bytes.len().next_multiple_of(512) - bytes.len() + 1024];
    [&header[..], bytes, &padding].concat()
}

#[test]
fn what_a_row_is_need_not_be_told() {
    for (name, modality, column) in
        [("images", "image", "image"), ("audio", "audio", "audio"), ("documents", "document", "pdf")]
    {
        let (named, found) = (Work::new(), Work::new());
        sample(&named, name, &[]).expect(0, &[]);
        sample(&found, name, &["source.modality=auto"]).expect(0, &[]);
        assert_eq!(documents(&found.out()), documents(&named.out()), "{modality} in {column}");
        assert_eq!(quarantine(&found.out()), quarantine(&named.out()), "{modality}");
    }
}

#[test]
fn rows_of_all_kinds_in_one_column_each_become_what_they_are() {
    let image = files_of("images", "image").remove(0);
    let audio = files_of("audio", "audio").remove(0);
    let pdf = files_of("documents", "pdf").remove(0);
    let files: Vec<(Option<&[u8]>, Option<&str>)> = vec![
        (Some(&image.1), Some(&image.0)),
        (Some(&image.1), None),
        (Some(&audio.1), None),
        (Some(&pdf.1), None),
        (Some(b"def f():\n    return 1\n"), Some("a.py")),
        (Some("Plain words, für alle.".as_bytes()), None),
        (Some(b""), None),
        (Some(&[0xff, 0x00, 0x13, 0x80]), Some("blob")),
        (Some(&image.1[..100]), Some("cut.png")),
        (None, Some("elsewhere.png")),
        (None, None),
        (Some(b"x"), None),
    ];
    let work = Work::new();
    work.shard("a.parquet", [("media", media(&files, Some(11)))], 4);
    work.run(&["source.content=media", "source.modality=auto", "limits.max_quarantined=1.0"]);
    let kinds: Vec<(String, String)> =
        documents(&work.out()).into_iter().map(|(id, modality, ..)| (id, modality)).collect();
    let expected = ["image", "image", "audio", "document", "code", "text", "text", "raw"].map(str::to_owned);
    let expected: Vec<(String, String)> =
        expected.into_iter().enumerate().map(|(row, m)| (format!("a.parquet#{row}"), m)).collect();
    assert_eq!(kinds, expected);
    let given_up = quarantine(&work.out());
    let reasons: Vec<(&str, &str)> =
        given_up.iter().map(|(_, stage, reason)| (stage.as_str(), reason.as_str())).collect();
    assert!(reasons[0].1.starts_with("failed to decode png: "), "{reasons:?}");
    assert_eq!(
        reasons[1..],
        [
            (
                "source",
                "the content is null; its path is \"elsewhere.png\", and source.resolve_paths = true would read that file"
            ),
            ("source", "the content is null"),
            ("source", "the content is null"),
        ]
    );
    assert_sound(&work.out());
}

#[test]
fn a_row_of_nothing_but_a_path_is_told_what_would_read_it_in_any_modality() {
    for modality in ["image", "audio", "code", "document", "binary", "auto"] {
        let work = Work::new();
        work.shard("a.parquet", [("media", media(&[(None, Some("elsewhere.x"))], None))], 4);
        let modality = format!("source.modality={modality}");
        work.run(&["source.content=media", &modality, "limits.max_quarantined=1.0"]);
        let reasons: Vec<String> = quarantine(&work.out()).into_iter().map(|row| row.2).collect();
        let told = "the content is null; its path is \"elsewhere.x\", and source.resolve_paths = true would read that file";
        assert_eq!(reasons, [told], "{modality}");
    }
}

/// `(modality, kind, meta)` of every segment of every document.
fn all_segments(out: &Path) -> Vec<(String, String, Value)> {
    let table = read_table(out, "documents").unwrap();
    let (modalities, lists) = (strings(&table, "modality"), table["segments"].as_list::<i32>());
    let mut all = Vec::new();
    for (row, modality) in modalities.iter().enumerate() {
        let segments = lists.value(row);
        let text = |name: &str| segments.as_struct().column_by_name(name).unwrap().as_string::<i32>().clone();
        let metas = text("meta");
        for (kind, meta) in text("kind").iter().zip(metas.iter()) {
            let meta = meta.map_or(Value::Null, |meta| serde_json::from_str(meta).unwrap());
            all.push((modality.clone(), kind.unwrap().to_owned(), meta));
        }
    }
    all
}

#[test]
fn the_schema_tells_every_kind_of_segment_and_every_key_of_its_meta() {
    let elf = [b"\x7fELF\x02\x01\x01" as &[u8], &[0; 57], b"behind it"].concat();
    let [image, audio, pdf] = [("images", "image"), ("audio", "audio"), ("documents", "pdf")]
        .map(|(sample, column)| files_of(sample, column).remove(0).1);
    let files: Vec<(Option<&[u8]>, Option<&str>)> = vec![
        (Some(&image), None),
        (Some(&audio), None),
        (Some(&pdf), None),
        (Some(&elf), None),
        (Some(b"fn f() {}\n\n1\n"), Some("a.rs")),
        (Some(b"Words."), None),
        (Some(&[0xff, 0x00, 0x13, 0x80]), None),
    ];
    let work = Work::new();
    work.shard("a.parquet", [("media", media(&files, None))], 7);
    work.run(&[
        "source.content=media",
        "source.modality=auto",
        "pretokenize.document.views=[\"text\", \"raw\"]",
    ]);
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string("schemas/documents.json").unwrap()).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let described = &fields.iter().find(|field| field["name"] == "segments").unwrap()["modalities"];

    let mut met = Vec::new();
    for (modality, kind, meta) in all_segments(&work.out()) {
        let groups = described[&modality].as_array().unwrap_or_else(|| panic!("{modality}"));
        let has_kind = |group: &&Value| group["kinds"].as_array().unwrap().iter().any(|name| *name == *kind);
        let group = groups.iter().find(has_kind).unwrap_or_else(|| panic!("{modality} {kind}"));
        assert_eq!(group["meta"].is_null(), meta.is_null(), "{modality} {kind}");
        let keys = |value: &Value| -> Vec<String> {
            value.as_object().map_or(Vec::new(), |object| object.keys().cloned().collect())
        };
        let told = keys(&group["meta"]);
        for key in keys(&meta) {
            assert!(told.iter().any(|name| name.trim_end_matches('?') == key), "{modality} {kind} {key}");
        }
        for key in told.iter().filter(|key| !key.ends_with('?')) {
            assert!(meta.get(key).is_some(), "{modality} {kind} {key}");
        }
        met.push(format!("{modality} {kind}"));
    }
    met.sort();
    met.dedup();
    assert_eq!(
        met,
        [
            "audio frame",
            "binary gap",
            "binary header",
            "code function",
            "code rest",
            "document page",
            "document raw",
            "image patch",
            "raw raw",
            "text text"
        ]
    );
}

#[test]
fn threads_memory_and_a_kill_do_not_change_the_bytes_of_media() {
    let files = files_of("images", "image");
    let files: Vec<(Option<&[u8]>, Option<&str>)> =
        files.iter().map(|(path, bytes)| (Some(bytes.as_slice()), Some(path.as_str()))).collect();
    let sets = [
        "source.content=image",
        "source.modality=auto",
        "sink.unit_bytes=1000",
        "limits.max_quarantined=1.0",
    ];
    let run = |points: &str, more: &[&[&str]]| {
        let work = Work::new();
        work.shard("a.parquet", [("image", media(&files, None))], 4);
        for (points, more) in [points].into_iter().chain([""]).zip(more) {
            let outcome = work.run_with(points, &[&sets[..], more].concat());
            assert_eq!(outcome.code == 0, points.is_empty(), "{points}: {}", outcome.stderr);
        }
        assert_sound(&work.out());
        let mut all = snapshot(&work.out());
        all.retain(|name, _| !name.starts_with("_blt/"));
        all
    };
    let expected = run("", &[&["pretokenize.workers=1"]]);
    assert!(expected.len() > 6, "{} files", expected.len());
    assert_eq!(run("", &[&["pretokenize.workers=4", "limits.memory=30 MiB"]]), expected);
    let killed = run("commit::before_record=2*off->return(kill)", &[&["pretokenize.workers=2"], &[]]);
    assert_eq!(killed, expected);
}

#[test]
fn a_unit_that_decodes_to_more_than_the_memory_fails_by_name() {
    let work = Work::new();
    sample(&work, "images", &["limits.memory=600 kB"])
        .expect(65, &["needs about", "limits.memory = 600.0 kB", "rows 0 to 9 of images.parquet"]);
}

#[test]
fn code_is_told_by_column_or_path() {
    let work = Work::new();
    let texts = ["fn main() {}\n", "int main(void) { return 0; }\n"];
    work.shard(
        "a.parquet",
        [
            ("content", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef),
            ("lang", Arc::new(StringArray::from(vec![Some("Rust"), None]))),
            ("file", Arc::new(StringArray::from(vec![None, Some("src/main.c")]))),
        ],
        2,
    );
    let sets = ["source.content=content", "source.modality=code", "source.language=lang", "source.path=file"];
    work.run(
        &[
            &sets[..],
            &["source.where=lang IS NULL OR lang = 'Rust'"][..usize::from(cfg!(feature = "filter"))],
        ]
        .concat(),
    );
    let firsts: Vec<String> = documents(&work.out()).into_iter().map(|(.., first)| first).collect();
    assert_eq!(
        firsts,
        [
            r#"function {"name":"main","language":"rust","lines":[1,1]}"#,
            r#"function {"name":"main","language":"c","lines":[1,1]}"#
        ]
    );
    let missing = work.blt("plan", &["--set", "source.content=content", "--set", "source.language=tongue"]);
    missing.expect(2, &["source.language = \"tongue\"", "has no such column"]);
}

#[test]
fn a_row_that_only_names_a_file_is_that_file_beside_the_shard_and_never_another() {
    let work = Work::new();
    let image = files_of("images", "image").remove(0).1;
    std::fs::create_dir(work.path("shards/pictures")).unwrap();
    std::fs::write(work.path("shards/pictures/slope.png"), &image).unwrap();
    std::fs::write(work.path("outside.png"), &image).unwrap();
    let files: Vec<(Option<&[u8]>, Option<&str>)> = vec![
        (None, Some("pictures/slope.png")),
        (Some(&image), Some("not/there.png")),
        (None, Some("pictures/none.png")),
        (None, Some("../outside.png")),
        (None, None),
    ];
    work.shard("a.parquet", [("media", media(&files, None))], 5);
    let sets = ["source.content=media", "source.modality=image", "source.resolve_paths=true"];
    work.run(&[&sets[..], &["limits.max_quarantined=1.0"]].concat());
    let found = documents(&work.out());
    assert_eq!(found.iter().map(|d| d.2).collect::<Vec<_>>(), [64 * 64 * 3; 2]);
    let given_up = quarantine(&work.out());
    assert_eq!(given_up.len(), 3);
    assert!(given_up.iter().all(|(_, stage, _)| stage == "source"), "{given_up:?}");
    for (row, words) in
        [(0, "pictures/none.png"), (1, "../outside.png"), (2, "the content and its path are null")]
    {
        assert!(given_up[row].2.contains(words), "{}", given_up[row].2);
    }
    assert_sound(&work.out());
}

#[test]
fn a_tokenizer_cuts_text_and_becomes_part_of_the_plan() {
    let work = Work::with(&["lamp keeper"]);
    let tokenizer = work.path("t.json");
    let words = |unknown: &str| {
        serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": { "lamp": 0, "keeper": 1, unknown: 2 }, "unk_token": unknown },
        })
        .to_string()
    };
    std::fs::write(&tokenizer, words("?")).unwrap();
    let path = format!("pretokenize.text.tokenizer={}", tokenizer.display());
    work.run(&["pretokenize.text.segments=tokenizer", &path]);
    let [(_, _, _, 3, first)] = &documents(&work.out())[..] else { panic!("{:?}", documents(&work.out())) };
    assert_eq!(first, r#"token {"id":0}"#);
    std::fs::write(&tokenizer, words("!")).unwrap();
    let flags = ["--set", "pretokenize.text.segments=tokenizer", "--set", &path];
    work.blt("run", &flags).expect(2, &["pretokenize.text.tokenizer was \"sha256:"]);
    std::fs::write(&tokenizer, "{}").unwrap();
    work.blt("run", &flags).expect(2, &["pretokenize.text.tokenizer = ", "t.json"]);
}
