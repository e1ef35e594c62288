//! The quickstart's shard is what its texts say.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

const SHARD: &str = "pipelines/quickstart/000_00000.parquet";
const TEXTS: &str = "pipelines/quickstart/text";

/// The texts in FineWeb-Edu's ten columns.
fn table() -> RecordBatch {
    let mut files: Vec<_> = std::fs::read_dir(TEXTS).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let names: Vec<&str> = files.iter().map(|f| f.file_stem().unwrap().to_str().unwrap()).collect();
    let texts: Vec<String> = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let language = |name: &&str| match name.split('-').nth(1) {
        Some("german") => "de",
        Some("french") => "fr",
        Some("spanish") => "es",
        Some("russian") => "ru",
        Some("chinese") => "zh",
        Some("arabic") => "ar",
        Some("hindi") => "hi",
        Some("greek") => "el",
        _ => "en",
    };
    let strings = |of: &dyn Fn(&&str) -> String| {
        Arc::new(StringArray::from_iter_values(names.iter().map(of))) as ArrayRef
    };
    let floats = |value: f64| Arc::new(Float64Array::from(vec![value; names.len()])) as ArrayRef;
    let words = Int64Array::from_iter_values(texts.iter().map(|t| t.split_whitespace().count() as i64));
    RecordBatch::try_from_iter([
        ("text", Arc::new(StringArray::from_iter_values(&texts)) as ArrayRef),
        ("id", strings(&|name| format!("<urn:blt-pipeline:quickstart:{name}>"))),
        ("dump", strings(&|_| "quickstart".into())),
        ("url", strings(&|name| format!("https://example.org/quickstart/{name}"))),
        ("file_path", strings(&|name| format!("{TEXTS}/{name}.txt"))),
        ("language", strings(&|name| language(name).into())),
        ("language_score", floats(1.0)),
        ("token_count", Arc::new(words)),
        ("score", floats(4.0)),
        ("int_score", Arc::new(Int64Array::from(vec![4; names.len()]))),
    ])
    .unwrap()
}

fn write(table: &RecordBatch) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(19).unwrap()))
        .set_max_row_group_row_count(Some(10))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(SHARD).unwrap(), table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
}

/// `BLT_UPDATE=1 cargo test --release quickstart` writes the shard anew after a change to the texts.
#[test]
fn the_shard_holds_the_texts() {
    let expected = table();
    if std::env::var_os("BLT_UPDATE").is_some() {
        write(&expected);
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(SHARD).unwrap()).unwrap();
    let batches: Vec<RecordBatch> =
        reader.with_batch_size(1000).build().unwrap().map(Result::unwrap).collect();
    let found = arrow::compute::concat_batches(&expected.schema(), &batches).unwrap();
    assert_eq!(found, expected, "run this test with BLT_UPDATE=1 to write the shard anew");
    let bytes: usize = found["text"].as_string::<i32>().iter().flatten().map(str::len).sum();
    assert!((150_000..200_000).contains(&bytes) && Path::new(SHARD).metadata().unwrap().len() < 120_000);
}
