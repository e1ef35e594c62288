//! What the benchmarks share: documents to read, medians, memory.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, StringArray},
    record_batch::RecordBatch,
};
use blt_pipeline::config::{Overrides, Pipeline};
use parquet::arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

/// The value after `--name` on the command line.
pub fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a != name).nth(1)
}

/// Texts of the quickstart's shard.
pub fn texts() -> Vec<String> {
    let file = File::open("pipelines/quickstart/000_00000.parquet").expect("run from the repository's root");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["text"]);
    let batches = builder.with_projection(mask).build().expect("a column text");
    batches
        .flat_map(|batch| {
            let batch = batch.expect("valid rows");
            batch.column(0).as_string::<i32>().iter().flatten().map(String::from).collect::<Vec<_>>()
        })
        .collect()
}

/// Shards of `n_bytes` of text together, in row groups of 1,000 documents, in `folder`: the quickstart's
/// documents, numbered, over and over.
pub fn write_shards(folder: &Path, n_bytes: usize, shards: usize) {
    let texts = texts();
    // A number in front, since no two documents of a real shard are the same.
    let mut all = texts.iter().cycle().enumerate().map(|(number, text)| format!("{number}. {text}"));
    for shard in 0..shards {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while bytes < n_bytes / shards {
            let text = all.next().expect("texts without end");
            bytes += text.len();
            documents.push(text);
        }
        let ids = (0..documents.len()).map(|row| format!("<urn:uuid:00000000-0000-{shard:04}-{row:012}>"));
        let table = RecordBatch::try_from_iter([
            ("text", Arc::new(StringArray::from(documents.clone())) as ArrayRef),
            ("id", Arc::new(StringArray::from_iter_values(ids))),
        ])
        .expect("columns of one length");
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
            .set_max_row_group_row_count(Some(1000))
            .build();
        let file = File::create(folder.join(format!("{shard:03}.parquet"))).expect("a writable folder");
        let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).expect("a writer");
        writer.write(&table).and_then(|()| writer.close()).expect("room on the disk");
    }
}

/// The pipeline that reads `source` and writes to `output`, with more keys as `--set` takes them.
pub fn pipeline(source: &str, output: &Path, set: &[&str]) -> Pipeline {
    let text = format!("[source]\nuri = {source:?}\n[sink]\nuri = {output:?}\n");
    let overrides = Overrides { set: set.iter().map(|s| s.to_string()).collect(), ..Overrides::default() };
    Pipeline::parse(&text, "bench", &overrides).expect("a valid pipeline")
}

/// An empty folder for the output, on the same disk as the target folder unless `--folder` names another.
pub fn scratch() -> PathBuf {
    let base = argument("--folder").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("blt-pipeline-bench-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a writable folder");
    folder
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU seconds of all threads of this process so far, to 10 ms.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // After the name in parentheses: user and system time are the 12th and 13th field, in hundredths.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

/// Highest resident memory of this process so far in MiB, where the system tells it.
pub fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}
