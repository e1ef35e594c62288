//! What the fuzz targets call, on what is at hand: their seeds, inputs that fuzzing found, and seeds changed at random.
//! A panic, a hang or an abort is a failure, any answer is none.

#[path = "../fuzz/src/lib.rs"]
mod entry;
#[cfg(feature = "media")]
mod media;

use std::{fs, path::PathBuf, sync::Arc};

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, FixedSizeBinaryArray, Int64Array, ListBuilder, RecordBatch,
    StringArray, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use blt_pipeline::model::FakeModel;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};

use crate::support::{CONTEXT, DIM, Work, prose};

/// Files below `folder` for the fuzz target `target`, sorted.
fn inputs(folder: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(PathBuf::from(folder).join(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn seeds_and_what_fuzzing_found_do_no_harm() {
    replay("pipeline_file", entry::pipeline_file);
    replay("records", entry::records);
    replay("parquet_source", |bytes| drop(entry::parquet_source(bytes)));
}

fn replay(target: &str, run: fn(&[u8])) {
    let seeds = inputs("tests/fuzz/seeds", target);
    assert!(!seeds.is_empty(), "{target} has seeds");
    for (path, bytes) in seeds.into_iter().chain(inputs("tests/data/fuzz", target)) {
        assert!(std::panic::catch_unwind(|| run(&bytes)).is_ok(), "{}", path.display());
    }
}

#[test]
fn seeds_are_sound() {
    if std::env::var_os("BLT_UPDATE").is_some() {
        write_seeds();
    }
    for (path, bytes) in inputs("tests/fuzz/seeds", "parquet_source") {
        for outcome in entry::parquet_source(&bytes) {
            assert_eq!(outcome, Ok(ROWS as u64), "{}", path.display());
        }
    }
}

/// Every file is changed in a few places, again and again; the same ones in every run of this test.
#[test]
fn shards_changed_at_random_do_no_harm() {
    let seeds = inputs("tests/fuzz/seeds", "parquet_source");
    let mut random = Random(20);
    let (mut n_whole, mut n_failed, mut n_caught) = (0, 0, 0);
    for _ in 0..3000 {
        let mut bytes = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..1 + random.below(3) {
            random.change(&mut bytes);
        }
        for outcome in entry::parquet_source(&bytes) {
            match outcome {
                Ok(_) => n_whole += 1,
                Err(error) => {
                    n_failed += 1;
                    // These words stand for a panic of the decoder that was held back.
                    n_caught += usize::from(error.contains("the bytes are not valid Parquet"));
                }
            }
        }
    }
    assert!(n_whole > 1000 && n_failed > 1000 && n_caught > 10, "{n_whole} {n_failed} {n_caught}");
}

/// Splitmix64: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0..4 => bytes[at] ^= 1 << self.below(8),
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            // The largest and most negative numbers that a length can be.
            5 => bytes[at..end].fill([0, 0x7f, 0xff][self.below(3)]),
            6 => bytes.copy_within(at..end, self.below(at + 1)),
            // The footer stays at its place from the end.
            _ => drop(bytes.drain(at..end)),
        }
    }
}

const ROWS: usize = 25;

/// Row groups of 10, 10 and 5 rows, with every kind of column that a source may have; some rows empty, some null,
/// one longer than the fuzz targets let a document be.
fn table() -> RecordBatch {
    let rows = || 0..ROWS;
    let text =
        |i: usize| (i % 9 != 4).then(|| prose(if i == 13 { 400 } else { [0, 3, 17, 9][i % 4] }, i as u32));
    let texts: StringArray = rows().map(text).collect();
    let files: BinaryArray = rows().map(|i| text(i + 1).map(String::into_bytes)).collect();
    let paths: StringArray = rows().map(|i| (i % 3 > 0).then(|| format!("{i}.png"))).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for i in rows() {
        tags.append_value((0..i % 3).map(|tag| Some(tag.to_string())));
    }
    let fields: [(Arc<Field>, ArrayRef); 2] = [
        (Arc::new(Field::new("bytes", DataType::Binary, true)), Arc::new(files)),
        (Arc::new(Field::new("path", DataType::Utf8, true)), Arc::new(paths)),
    ];
    let fixed = rows().map(|i| (i % 7 > 0).then_some([i as u8; 4]));
    let keys: DictionaryArray<Int32Type> =
        rows().map(|i| (i % 11 > 0).then_some(["a", "b", "c"][i % 3])).collect();
    let columns: [(&str, ArrayRef); 6] = [
        ("text", Arc::new(texts)),
        ("image", Arc::new(StructArray::from(fields.to_vec()))),
        ("number", Arc::new(rows().map(|i| (i % 8 > 0).then_some(i as i64)).collect::<Int64Array>())),
        ("tags", Arc::new(tags.finish())),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 4).unwrap())),
        ("key", Arc::new(keys)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write_seeds() {
    use Compression::{BROTLI, GZIP, LZ4, LZ4_RAW, SNAPPY, UNCOMPRESSED, ZSTD};
    use WriterVersion::{PARQUET_1_0 as V1, PARQUET_2_0 as V2};
    let gzip = GZIP(GzipLevel::try_new(9).unwrap());
    let zstd = ZSTD(ZstdLevel::try_new(19).unwrap());
    let brotli = BROTLI(BrotliLevel::try_new(9).unwrap());
    let kinds = [
        ("plain", UNCOMPRESSED, V1, Encoding::PLAIN),
        ("plain-v2", UNCOMPRESSED, V2, Encoding::PLAIN),
        ("dictionary", UNCOMPRESSED, V1, Encoding::RLE_DICTIONARY),
        ("dictionary-v2", UNCOMPRESSED, V2, Encoding::RLE_DICTIONARY),
        ("delta-length", UNCOMPRESSED, V1, Encoding::DELTA_LENGTH_BYTE_ARRAY),
        ("delta", UNCOMPRESSED, V2, Encoding::DELTA_BYTE_ARRAY),
        ("snappy", SNAPPY, V1, Encoding::PLAIN),
        ("gzip", gzip, V2, Encoding::RLE_DICTIONARY),
        ("zstd", zstd, V1, Encoding::DELTA_BYTE_ARRAY),
        ("lz4", LZ4, V1, Encoding::PLAIN),
        ("lz4-raw", LZ4_RAW, V2, Encoding::PLAIN),
        ("brotli", brotli, V1, Encoding::RLE_DICTIONARY),
    ];
    let folder = PathBuf::from("tests/fuzz/seeds");
    for target in ["parquet_source", "records"] {
        fs::create_dir_all(folder.join(target)).unwrap();
    }
    for (name, codec, version, encoding) in kinds {
        let mut properties = WriterProperties::builder()
            .set_compression(codec)
            .set_writer_version(version)
            .set_statistics_enabled(if version == V1 {
                EnabledStatistics::Chunk
            } else {
                EnabledStatistics::None
            })
            .set_dictionary_enabled(encoding == Encoding::RLE_DICTIONARY)
            .set_max_row_group_row_count(Some(10));
        if encoding != Encoding::RLE_DICTIONARY {
            for column in [vec!["text"], vec!["image", "bytes"]] {
                let path = ColumnPath::new(column.into_iter().map(String::from).collect());
                properties = properties.set_column_encoding(path, encoding);
            }
        }
        let table = table();
        let mut bytes = Vec::new();
        let options = ArrowWriterOptions::new()
            .with_properties(properties.build())
            // Files of other writers do not have Arrow's schema beside Parquet's.
            .with_skip_arrow_metadata(version == V2);
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, table.schema(), options).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        fs::write(folder.join("parquet_source").join(format!("{name}.parquet")), bytes).unwrap();
    }
    fs::write(folder.join("records/finished"), finished_records()).unwrap();
}

/// What `_blt` holds after a run, in the order of [`entry::RECORDS`].
fn finished_records() -> Vec<u8> {
    let work = Work::with(&[&prose(300, 1), &prose(400, 2), &prose(300, 3)]);
    work.engine(&["sink.unit_bytes=500"], &mut FakeModel::new(DIM, CONTEXT)).unwrap();
    let folder = work.out().join("_blt");
    let failure = r#"{"unit": "00000-00002", "source_file": "a.parquet", "stage": "model", "reason": "no"}"#;
    let claim = r#"{"host": "h", "process": 1, "share": "1/2", "since": 1, "seen": 2, "bytes": 3, "units": {"00000-00001": 1}}"#;
    let part = |name: &&str| match fs::read(folder.join(name)) {
        Ok(bytes) => bytes,
        Err(_) if name.starts_with("failed") => failure.into(),
        Err(_) if name.starts_with("claims") => claim.into(),
        // A revision is a record like the one before.
        Err(_) => fs::read(folder.join("commits/00000-00000.json")).unwrap(),
    };
    entry::RECORDS.iter().map(part).collect::<Vec<_>>().join(&entry::SEPARATOR)
}
