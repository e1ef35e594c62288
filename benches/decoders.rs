//! Encoded megabytes that one core decodes in a second: files in, a Markdown table by modality out. Of generated pictures and sounds, the repository's
//! PDF files and code, or of files that are named.
//!
//!     cargo bench --bench decoders -- [--runs 5] [--each] [image|audio|document|code|text|binary|auto=FILE|FOLDER|SHARD:COLUMN]…
//!
//! Times are the thread's on its processor, the median of the runs of each file. Files that are refused are counted and left out. `--each` prints a
//! JSON object a file instead, for `compare/decoders.py`.

#![allow(clippy::expect_used, clippy::print_stdout)]

#[expect(dead_code, reason = "what the other benchmarks need of it")]
mod common;

use std::{collections::BTreeMap, f64::consts::TAU, fs::File, hint::black_box, path::Path};

use arrow::array::{Array, AsArray};
use blt_pipeline::{
    config::{Overrides, Pipeline},
    data::{Content, View},
    pretokenize::{Pretokenizer, pretokenizer},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::time::{ClockId, clock_gettime};

/// Files of one kind.
struct Set {
    name: String,
    modality: String,
    files: Vec<Content>,
}

fn by_default(modality: &str) -> std::sync::Arc<dyn Pretokenizer> {
    let text = format!("[source]\nuri = \"a\"\nmodality = {modality:?}\n[sink]\nuri = \"b\"\n");
    let pipeline = Pipeline::parse(&text, "bench", &Overrides::default()).expect("a modality");
    pretokenizer(pipeline.source.modality, &pipeline.pretokenize, &pipeline.limits).expect("a pretokenizer")
}

fn files_below(path: &Path) -> Vec<Content> {
    let entries = walkdir::WalkDir::new(path).sort_by_file_name().into_iter();
    let files = entries.map(|entry| entry.expect("a folder")).filter(|entry| entry.file_type().is_file());
    files
        .map(|file| Content {
            bytes: std::fs::read(file.path()).expect("a file"),
            path: file.path().to_str().map(str::to_owned),
            language: None,
        })
        .collect()
}

/// Those in a column of structs of bytes and path.
fn files_of(shard: &str, column: &str) -> Vec<Content> {
    let file = File::open(shard).expect("a shard");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let mut files = Vec::new();
    for batch in reader.expect("a Parquet file") {
        let batch = batch.expect("valid rows");
        let structs = batch[column].as_struct();
        let bytes = structs.column_by_name("bytes").expect("bytes").as_binary::<i32>();
        let paths = structs.column_by_name("path").expect("path").as_string::<i32>();
        let rows = (0..structs.len()).filter(|row| structs.is_valid(*row) && bytes.is_valid(*row));
        files.extend(rows.map(|row| Content {
            bytes: bytes.value(row).to_vec(),
            path: paths.is_valid(row).then(|| paths.value(row).to_owned()),
            language: None,
        }));
    }
    files
}

/// `image=photos` or `audio=shard.parquet:audio`.
fn named(argument: &str) -> Option<Set> {
    let (modality, path) = argument.split_once('=')?;
    let files = match path.rsplit_once(':') {
        Some((shard, column)) => files_of(shard, column),
        None => files_below(Path::new(path)),
    };
    Some(Set { name: argument.to_owned(), modality: modality.to_owned(), files })
}

/// Soft colours and some grain, RGB.
fn photo(width: usize, height: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut grain = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 28) - 7.5
    };
    let mut rgb = Vec::with_capacity(3 * width * height);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y as f64, x as f64))) {
        for channel in [0.0, 1.0, 2.0] {
            let colour =
                128.0 + 100.0 * (x / (37.0 + 11.0 * channel)).sin() * (y / (53.0 - 9.0 * channel)).cos();
            rgb.push((colour + grain()) as u8);
        }
    }
    rgb
}

/// `seconds` of two chords, 44.1 kHz, 16 bits, stereo.
fn wav(seconds: u32) -> Vec<u8> {
    let (rate, n) = (44_100_u32, 44_100 * seconds);
    let mut wav = Vec::new();
    for part in [&b"RIFF"[..], &(36 + 4 * n).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()] {
        wav.extend(part);
    }
    for half in [1_u16, 2] {
        wav.extend(half.to_le_bytes());
    }
    wav.extend(rate.to_le_bytes());
    wav.extend((4 * rate).to_le_bytes());
    wav.extend([4, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend((4 * n).to_le_bytes());
    for i in 0..n {
        let t = f64::from(i) / f64::from(rate);
        for tone in [220.0, 330.0] {
            let value = (TAU * t * tone).sin() + (TAU * t * tone * 1.25).sin();
            wav.extend(((value * 12_000.0) as i16).to_le_bytes());
        }
    }
    wav
}

fn generated() -> Vec<Set> {
    let (width, height) = (2048, 1536);
    let rgb = photo(width, height);
    let picture = |format| {
        let mut file = std::io::Cursor::new(Vec::new());
        let color = image::ExtendedColorType::Rgb8;
        image::write_buffer_with_format(&mut file, &rgb, width as u32, height as u32, color, format)
            .expect("a picture");
        Content { bytes: file.into_inner(), ..Content::default() }
    };
    let set = |name: &str, modality: &str, files| Set { name: name.into(), modality: modality.into(), files };
    let mut code = files_below(Path::new("src"));
    code.retain(|file| file.path.as_deref().is_some_and(|path| path.ends_with(".rs")));
    vec![
        set("PNG, generated", "image", vec![picture(image::ImageFormat::Png)]),
        set("JPEG, generated", "image", vec![picture(image::ImageFormat::Jpeg)]),
        set("WAV, generated", "audio", vec![Content { bytes: wav(60), ..Content::default() }]),
        set("PDF, samples", "document", files_of("pipelines/samples/documents.parquet", "pdf")),
        set("code, this program", "code", code),
    ]
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Median seconds that the views of `file` take, and what kind of file they tell that it is.
fn timed(modality: &dyn Pretokenizer, file: &Content, runs: usize) -> Result<(f64, String), String> {
    let kind = kind(&modality.views(file.clone())?);
    let times = (0..runs.max(1)).map(|_| {
        let file = file.clone();
        let start = thread_seconds();
        drop(black_box(modality.views(file)));
        thread_seconds() - start
    });
    Ok((common::median(times.collect()), kind))
}

/// The language of code; of others there is one kind.
fn kind(views: &[View]) -> String {
    let meta = views.first().and_then(|view| view.segments.first()).and_then(|first| first.meta.as_deref());
    let meta: serde_json::Value = meta.and_then(|meta| serde_json::from_str(meta).ok()).unwrap_or_default();
    meta["language"].as_str().unwrap_or_default().to_owned()
}

/// Files, their bytes, and seconds.
#[derive(Default)]
struct Sum {
    n_files: usize,
    n_bytes: usize,
    seconds: f64,
}

/// glibc hands freed memory back to the system, and takes its pages anew, until a block as large as this was freed once. A run does that
/// with its first rows; here no file might be large enough, or the last one only.
fn let_the_heap_be_as_in_a_run() {
    drop(black_box(Vec::<u8>::with_capacity(31 << 20)));
}

fn main() {
    let_the_heap_be_as_in_a_run();
    let runs = common::argument("--runs").map_or(5, |n| n.parse().expect("a number"));
    let each = std::env::args().any(|argument| argument == "--each");
    let mut sets: Vec<Set> = std::env::args().skip(1).filter_map(|argument| named(&argument)).collect();
    if sets.is_empty() {
        sets = generated();
    }
    if !each {
        println!("| files | n | MB | MB/s of a core |\n|---|---|---|---|");
    }
    for set in sets {
        let modality = by_default(&set.modality);
        let (mut sums, mut n_refused) = (BTreeMap::<String, Sum>::new(), 0);
        for file in &set.files {
            let timed = timed(&*modality, file, runs);
            if each {
                let (seconds, kind) =
                    timed.as_ref().map_or((None, ""), |(seconds, kind)| (Some(*seconds), kind.as_str()));
                let told = serde_json::json!({"path": file.path, "seconds": seconds, "kind": kind});
                println!("{told}");
            }
            let Ok((seconds, kind)) = timed else {
                n_refused += 1;
                continue;
            };
            let sum = sums.entry(kind).or_default();
            sum.n_files += 1;
            sum.n_bytes += file.bytes.len();
            sum.seconds += seconds;
        }
        if each {
            continue;
        }
        for (kind, Sum { n_files, n_bytes, seconds }) in sums {
            let megabytes = n_bytes as f64 / 1e6;
            let name = format!("{} {kind}", set.name);
            let rate = megabytes / seconds.max(1e-9);
            println!("| {} | {n_files} | {megabytes:.2} | {rate:.1} |", name.trim_end());
        }
        if n_refused > 0 {
            println!("| {}, refused | {n_refused} | | |", set.name);
        }
    }
}
