//! Memory, measured at the program itself: rows of gigabytes, row groups of a hundred thousand rows and files that lie about
//! their sizes stay within the budget and a little. Shards are put together page by page, to hold what no writer would.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, GzipLevel, ZstdLevel},
    file::{
        metadata::{
            ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
        },
        properties::WriterProperties,
    },
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};

use crate::support::{Outcome, Work, assert_sound, prose, set_flags};

const MIB: u64 = 1 << 20;
/// What the program, its model of a few kilobytes and the allocator may take beside the budget.
const BESIDE_KIB: u64 = 300 << 10;

/// Runs the program to its end; returns what it said and its peak of resident memory in KiB.
fn measured(work: &Work, sets: &[&str]) -> (Outcome, u64) {
    // What a shard seems to hold takes more room than there need be; it is not written.
    let flags = [vec!["--no-space-check"], set_flags(sets)].concat();
    let mut child = work.start_flags("", &flags);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // The line is gone once the process has ended, and so is what it would have said since the last look.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse().ok());
        peak = peak.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    (Outcome::of(child.wait_with_output().unwrap()), peak)
}

/// The same, with a budget of 64 MiB that must hold.
#[track_caller]
fn within_budget(work: &Work, sets: &[&str]) -> Outcome {
    let sets = [sets, &["limits.memory=64 MiB", "limits.max_quarantined=1.0"]].concat();
    let (outcome, peak) = measured(work, &sets);
    assert!(peak < (64 << 10) + BESIDE_KIB, "{peak} KiB: {}{}", outcome.stdout, outcome.stderr);
    outcome
}

/// A value of a page: text, or so many zeros.
#[derive(Clone)]
enum Value {
    Text(String),
    Zeros(u64),
}

impl Value {
    fn bytes(&self) -> u64 {
        match self {
            Value::Text(text) => text.len() as u64,
            Value::Zeros(n) => *n,
        }
    }

    fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        output.write_all(&(self.bytes() as u32).to_le_bytes())?;
        match self {
            Value::Text(text) => output.write_all(text.as_bytes()),
            Value::Zeros(n) => io::copy(&mut io::repeat(0).take(*n), output).map(|_| ()),
        }
    }
}

/// Snappy for what repeats: a literal of the first byte of each run of 64 and more, copies of it, literals otherwise.
fn snappy(values: &[Value]) -> Vec<u8> {
    let mut block = Vec::new();
    varint(&mut block, values.iter().map(|v| v.bytes() + 4).sum());
    let literal = |block: &mut Vec<u8>, bytes: &[u8]| {
        block.push(61 << 2);
        block.extend_from_slice(&(bytes.len() as u16 - 1).to_le_bytes());
        block.extend_from_slice(bytes);
    };
    for value in values {
        literal(&mut block, &(value.bytes() as u32).to_le_bytes());
        match value {
            Value::Text(text) => literal(&mut block, text.as_bytes()),
            Value::Zeros(n) => {
                literal(&mut block, &[0]);
                for _ in 0..(n - 1) / 64 {
                    block.extend_from_slice(&[63 << 2 | 2, 1, 0]);
                }
                literal(&mut block, &vec![0; ((n - 1) % 64 + 1) as usize][1..]);
            }
        }
    }
    block
}

fn varint(output: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

/// A file that grows page by page.
struct Shard {
    file: File,
    codec: Compression,
    uncompressed: u64,
    dictionary: Option<u64>,
    first_data: u64,
}

impl Shard {
    fn create(path: &Path, codec: Compression) -> Self {
        let mut file = File::create(path).unwrap();
        file.write_all(b"PAR1").unwrap();
        Shard { file, codec, uncompressed: 0, dictionary: None, first_data: 4 }
    }

    fn position(&mut self) -> u64 {
        io::Seek::stream_position(&mut self.file).unwrap()
    }

    /// Type 0 is a data page of PLAIN or dictionary encoding, type 2 a dictionary.
    fn header(&mut self, kind: u64, sizes: (u64, u64), num_values: u64, encoding: u64) {
        let mut header = Vec::new();
        for field in [kind, sizes.0, sizes.1] {
            header.push(0x15);
            varint(&mut header, field << 1);
        }
        header.push(if kind == 2 { 0x4c } else { 0x2c });
        // A data page has encodings of its levels as well.
        for field in [num_values, encoding, 3, 3].into_iter().take(if kind == 2 { 2 } else { 4 }) {
            header.push(0x15);
            varint(&mut header, field << 1);
        }
        header.extend_from_slice(&[0, 0]);
        if kind == 2 {
            self.dictionary = Some(self.position());
        } else {
            self.first_data = self.position();
        }
        self.file.write_all(&header).unwrap();
        self.uncompressed += sizes.0 + header.len() as u64;
    }

    /// A page of byte arrays.
    fn values(&mut self, kind: u64, values: &[Value]) {
        let uncompressed: u64 = values.iter().map(|v| v.bytes() + 4).sum();
        if self.codec == Compression::UNCOMPRESSED {
            self.header(kind, (uncompressed, uncompressed), values.len() as u64, 0);
            for value in values {
                match value {
                    Value::Text(_) => value.write(&mut self.file).unwrap(),
                    Value::Zeros(n) => {
                        // A hole: the file takes no room on the disk.
                        self.file.write_all(&(*n as u32).to_le_bytes()).unwrap();
                        io::Seek::seek(&mut self.file, io::SeekFrom::Current(*n as i64)).unwrap();
                    }
                }
            }
            return;
        }
        let body = match self.codec {
            Compression::SNAPPY => snappy(values),
            _ => {
                let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
                values.iter().for_each(|value| value.write(&mut encoder).unwrap());
                encoder.finish().unwrap()
            }
        };
        self.header(kind, (uncompressed, body.len() as u64), values.len() as u64, 0);
        self.file.write_all(&body).unwrap();
    }

    /// A page of `rows` values, each the dictionary's entry that `entry` gives, 8 bits wide.
    fn references(&mut self, rows: u64, entry: impl Fn(u64) -> u8) {
        let mut indexes = vec![8];
        (0..rows).for_each(|row| indexes.extend_from_slice(&[2, entry(row)]));
        let body = match self.codec {
            Compression::SNAPPY => snap::raw::Encoder::new().compress_vec(&indexes).unwrap(),
            Compression::UNCOMPRESSED => indexes.clone(),
            _ => zstd::stream::encode_all(&indexes[..], 1).unwrap(),
        };
        self.header(0, (indexes.len() as u64, body.len() as u64), rows, 8);
        self.file.write_all(&body).unwrap();
    }

    /// The footer, for one row group of one column `text`.
    fn finish(mut self, rows: u64) {
        let end = self.position();
        let uncompressed = self.uncompressed;
        self.finish_with(&[(rows, uncompressed, end - 4)]);
    }

    /// The footer, for row groups of so many rows, uncompressed and compressed bytes each.
    fn finish_with(self, groups: &[(u64, u64, u64)]) {
        let schema = parse_message_type("message schema { required binary text; }").unwrap();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
        let groups: Vec<RowGroupMetaData> = groups
            .iter()
            .map(|&(rows, uncompressed, compressed)| {
                let column = ColumnChunkMetaData::builder(schema.column(0))
                    .set_compression(self.codec)
                    .set_num_values(rows as i64)
                    .set_total_uncompressed_size(uncompressed as i64)
                    .set_total_compressed_size(compressed as i64)
                    .set_data_page_offset(self.first_data as i64)
                    .set_dictionary_page_offset(self.dictionary.map(|offset| offset as i64))
                    .build()
                    .unwrap();
                RowGroupMetaData::builder(schema.clone())
                    .set_num_rows(rows as i64)
                    .set_total_byte_size(uncompressed as i64)
                    .set_column_metadata(vec![column])
                    .build()
                    .unwrap()
            })
            .collect();
        let rows = groups.iter().map(RowGroupMetaData::num_rows).sum();
        let file = FileMetaData::new(2, rows, None, None, schema, None);
        ParquetMetaDataWriter::new(&self.file, &ParquetMetaData::new(file, groups)).finish().unwrap();
    }
}

/// 20 short rows, and one of `n` zeros among them.
fn rows_around(n: u64) -> Vec<Value> {
    let mut values: Vec<Value> = (0..20).map(|row| Value::Text(prose(40 + row, row as u32))).collect();
    values.insert(7, Value::Zeros(n));
    values
}

#[track_caller]
fn assert_only_row_7_is_in_quarantine(work: &Work, n: u64, case: &str) {
    let documents = work.documents();
    let found: Vec<(u64, u64)> = documents.iter().map(|d| (d.source_row, d.n_bytes)).collect();
    let expected: Vec<(u64, u64)> =
        (0..21u64).filter(|&row| row != 7).map(|row| (row, 40 + row - u64::from(row > 7))).collect();
    assert_eq!(found, expected, "{case}");
    let quarantine = work.table("quarantine").expect(case);
    assert_eq!(quarantine.num_rows(), 1, "{case}");
    let reason = quarantine["reason"].as_string::<i32>().value(0);
    assert_eq!(
        reason,
        format!("{n} bytes of content, more than limits.max_document_bytes = 33554432"),
        "{case}"
    );
    assert_sound(&work.out());
}

fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(1).unwrap())
}

#[test]
fn a_row_of_almost_two_gigabytes_goes_to_quarantine_unread() {
    let n = (2 << 30) - 8192;
    // The copies of Snappy take a byte in 21.
    for (codec, n) in [(zstd(), n), (Compression::UNCOMPRESSED, n), (Compression::SNAPPY, 200 * MIB + 7)] {
        for dictionary in [false, true] {
            let case = format!("{codec}, dictionary: {dictionary}");
            let work = Work::new();
            let mut shard = Shard::create(&work.path("shards/a.parquet"), codec);
            let values = rows_around(n);
            if dictionary {
                shard.values(2, &values);
                shard.references(21, |row| row as u8);
            } else {
                shard.values(0, &values);
            }
            shard.finish(21);
            within_budget(&work, &[]).expect(0, &[]);
            assert_only_row_7_is_in_quarantine(&work, n, &case);
        }
    }
}

#[test]
fn what_is_quarantined_does_not_depend_on_how_it_is_found_or_on_memory() {
    // Just too long, in a page that is decoded at once, and in one that is shortened.
    let n = (32 << 20) + 1;
    let mut outputs = Vec::new();
    for memory in ["limits.memory=128 MiB", "limits.memory=4 GiB"] {
        let work = Work::new();
        let mut shard = Shard::create(&work.path("shards/a.parquet"), zstd());
        shard.values(0, &rows_around(n));
        shard.finish(21);
        work.run(&[memory, "limits.max_quarantined=1.0"]);
        assert_only_row_7_is_in_quarantine(&work, n, memory);
        outputs.push(crate::support::snapshot(&work.out()));
    }
    crate::support::assert_same(&outputs[1], &outputs[0], "more memory");
}

#[test]
fn a_row_group_of_a_hundred_thousand_rows_is_read_once_and_never_held() {
    let work = Work::new();
    let mut shard = Shard::create(&work.path("shards/a.parquet"), zstd());
    let rows = 100_000;
    let values: Vec<Value> = (0..rows).map(|row| Value::Text(format!("row {row}"))).collect();
    // Pages of a writer's usual size, in one row group.
    let first = shard.position();
    values.chunks(20_000).for_each(|page| shard.values(0, page));
    shard.first_data = first;
    shard.finish(rows);
    within_budget(&work, &["sink.unit_bytes=512 KiB"]).expect(0, &[]);
    let found: Vec<u64> = work.documents().iter().map(|d| d.source_row).collect();
    assert!(found == (0..rows).collect::<Vec<_>>());
}

#[test]
fn pages_that_lie_about_their_size_fail_their_unit_only() {
    let gzip = Compression::GZIP(GzipLevel::default());
    let bomb = |codec| {
        let zeros = io::repeat(0).take(1 << 30);
        match codec {
            Compression::GZIP(_) => {
                let mut output = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                io::copy(&mut { zeros }, &mut output).unwrap();
                output.finish().unwrap()
            }
            _ => zstd::stream::encode_all(zeros, 1).unwrap(),
        }
    };
    // Uncompressed bytes and values that the header claims, kind, codec, body, what is said.
    let cases = [
        (1000, 10, 0, gzip, bomb(gzip), "column text"),
        (1000, 10, 0, zstd(), bomb(zstd()), "failed to read row group 0"),
        (i32::MAX as u64, 10, 0, zstd(), vec![0; 100], "it claims 2147483647 bytes uncompressed"),
        (
            1000,
            i32::MAX as u64,
            2,
            Compression::UNCOMPRESSED,
            vec![0; 1000],
            "it claims 2147483647 values in 1000 bytes",
        ),
    ];
    for (uncompressed, num_values, kind, codec, body, said) in cases {
        let work = Work::with(&["whole"]);
        let mut shard = Shard::create(&work.path("shards/b.parquet"), codec);
        shard.header(kind, (uncompressed, body.len() as u64), num_values, 0);
        shard.file.write_all(&body).unwrap();
        shard.uncompressed = 2000;
        shard.finish(10);
        within_budget(&work, &[]).expect(65, &["b.parquet", said]);
        assert_eq!(work.documents().len(), 1, "{said}");
    }
}

/// Their lengths are counted before the decoder makes room for them.
#[test]
fn delta_encodings_are_read_like_any_other() {
    let texts: Vec<String> = (0..3000).map(|row| format!("{}{row}", prose(row % 90, 1))).collect();
    for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
        let work = Work::new();
        let column = Arc::new(StringArray::from(texts.clone())) as ArrayRef;
        let table = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let properties =
            WriterProperties::builder().set_dictionary_enabled(false).set_encoding(encoding).build();
        let file = File::create(work.path("shards/a.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        within_budget(&work, &["sink.embeddings=none"]).expect(0, &[]);
        let found: Vec<u64> = work.documents().iter().map(|d| d.n_bytes).collect();
        let expected: Vec<u64> = texts.iter().map(|text| text.len() as u64).collect();
        assert!(found == expected, "{encoding}");
    }
}

#[test]
fn a_value_that_a_dictionary_repeats_a_thousand_times_is_not_decoded_a_thousand_times_over() {
    let work = Work::with(&["whole"]);
    let mut shard = Shard::create(&work.path("shards/b.parquet"), zstd());
    shard.values(2, &[Value::Zeros(4 * MIB)]);
    shard.references(2000, |_| 0);
    shard.finish(2000);
    within_budget(&work, &["sink.embeddings=none"]).expect(65, &["b.parquet", "limits.memory"]);
    assert_eq!(work.documents().len(), 1);
}

#[test]
fn footers_that_lie_about_their_lists_are_refused_before_they_are_believed() {
    let work = Work::with(&["whole"]);
    // Row groups: 2 million of them, in 7 bytes; then as many as there are bytes, each of which ends at once.
    let endless = [&[0x49, 0xfc, 0x80, 0x80, 0x80, 0x20][..], &vec![0; 64 << 20], &[0]].concat();
    for (name, footer) in [("b", &[0x49, 0xfc, 0x80, 0x89, 0x7a, 0, 0][..]), ("c", &endless)] {
        let length = (footer.len() as u32).to_le_bytes();
        let file = [b"PAR1PAR1", footer, &length, b"PAR1"].concat();
        std::fs::write(work.path(&format!("shards/{name}.parquet")), file).unwrap();
    }
    let said = ["a list claims 2000000 elements, but 2 bytes are left", "c.parquet: in memory it takes"];
    within_budget(&work, &[]).expect(65, &said);
    assert_eq!(work.documents().len(), 1);
}

/// A PNG of one colour, in a thousandth of its pixels' bytes.
#[cfg(feature = "media")]
fn flat_png(side: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().unwrap();
    let mut rows = writer.stream_writer().unwrap();
    let row = vec![77; 3 * side as usize];
    (0..side).for_each(|_| rows.write_all(&row).unwrap());
    rows.finish().unwrap();
    writer.finish().unwrap();
    file
}

#[cfg(feature = "media")]
#[test]
fn pictures_that_become_a_hundred_times_as_much_stay_within_the_budget() {
    let work = Work::new();
    let (small, bomb) = (flat_png(120), flat_png(20_000));
    assert!(small.len() < 600 && bomb.len() < 2_000_000, "{} {}", small.len(), bomb.len());
    let files = (0..30).map(|row| if row % 10 == 7 { &bomb[..] } else { &small[..] });
    let files = arrow::array::BinaryArray::from_iter_values(files);
    work.shard("a.parquet", [("image", Arc::new(files) as ArrayRef)], 10);
    let sets = [
        "source.content=image",
        "source.modality=image",
        "sink.unit_bytes=1500",
        "patch.mode=static",
        "patch.patch_size=6",
    ];
    within_budget(&work, &sets).expect(0, &["30 read, 27 documents, 3 in quarantine"]);
    assert_sound(&work.out());
}

/// Planning reads footers and nothing else: this one speaks of 400 row groups and 50 GB that are not there.
#[test]
fn a_shard_of_50_gb_is_planned_from_its_footer() {
    let work = Work::new();
    let shard = Shard::create(&work.path("shards/a.parquet"), zstd());
    shard.finish_with(&[(100_000, 125_000_000, 40_000_000); 400]);
    // A limit takes units of the same cut, and what is not there is missed where it is read.
    let outcome = within_budget(&work, &["source.limit=1000"]);
    outcome.expect(65, &["failed to read row group 0", "column text ends at byte 40000004"]);
    work.blt("plan", &["--output", "elsewhere"]).expect(0, &["40,000,000", "50.00 GB"]);
}
