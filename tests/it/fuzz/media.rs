//! Media and archives, whole and changed at random. Every seed is there for a decoder, so it must be read by it.
// How many inputs were tried is for whoever asked for many.
#![allow(clippy::print_stdout)]

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, AsArray, BinaryArray},
    datatypes::DataType,
};

use super::{
    Random,
    entry::media::{self, Decoded, PANICKED},
    inputs,
};
use crate::support::{Work, read_table};

/// Its name, what takes an input, and how many seeds changed at random it is given.
type Target = (&'static str, fn(&[u8]) -> Vec<Decoded>, usize);

const TARGETS: [Target; 8] = [
    ("image", media::image, 10_000),
    ("audio", media::audio, 4000),
    ("document", media::document, 1500),
    ("code", media::code, 1000),
    ("binary", media::binary, 10_000),
    ("text", media::text, 1000),
    ("auto", media::auto, 2000),
    ("archives", media::archives, 300),
];
/// Longer ones are not changed further.
const MOST_BYTES: usize = 16 << 10;
/// What an input may take, by an engine with little to do.
const MOST_TIME: Duration = Duration::from_secs(10);

/// Runs on the stack that the engine gives to decoders.
fn on_a_decoders_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Seeds that are there for what is said of them.
fn is_refused(target: &str, path: &Path) -> bool {
    [("auto", "flv"), ("text", "not-utf8")].iter().any(|(of, name)| *of == target && path.ends_with(name))
}

#[test]
fn seeds_are_read() {
    on_a_decoders_stack(|| {
        for (target, run, _) in TARGETS {
            for (path, bytes) in inputs("tests/fuzz/seeds", target) {
                let outcomes = run(&bytes);
                // An archive is of one format, and is tried as one of each; what `auto` is given has a name once.
                let is_read = match target {
                    "archives" | "auto" => outcomes.iter().any(Result::is_ok),
                    _ => outcomes.iter().all(Result::is_ok),
                };
                assert!(is_read != is_refused(target, &path), "{} {outcomes:?}", path.display());
            }
        }
    });
}

#[test]
fn what_fuzzing_found_does_no_harm() {
    on_a_decoders_stack(|| {
        for (target, run, _) in TARGETS {
            for (path, bytes) in inputs("tests/data/fuzz", target) {
                let started = Instant::now();
                run(&bytes);
                assert!(started.elapsed() < MOST_TIME, "{}", path.display());
            }
        }
    });
}

#[test]
fn a_reader_that_panics_at_a_header_costs_its_row() {
    let found = fs::read("tests/data/fuzz/audio/a_codebook_that_makes_the_reader_panic").unwrap();
    let whole = fs::read("tests/fuzz/seeds/audio/tone.flac").unwrap();
    let work = Work::new();
    let sounds: BinaryArray = [&whole, &found, &whole].map(Some).into_iter().collect();
    work.shard("a.parquet", [("sound", Arc::new(sounds) as ArrayRef)], 5);
    work.run(&["source.content=sound", "source.modality=audio", "limits.max_quarantined=1.0"])
        .expect(0, &["3 read, 2 documents, 1 in quarantine"]);
    let reasons = read_table(&work.out(), "quarantine").unwrap()["reason"].clone();
    let reasons = arrow::compute::cast(&reasons, &DataType::Utf8).unwrap();
    let reason = reasons.as_string::<i32>().value(0);
    assert!(reason.starts_with("the decoder panicked: "), "{reason}");
}

/// The same changes in every run, unless `BLT_FUZZ_SECONDS` says how long each target, or the one that `BLT_FUZZ_TARGET` names, goes on.
#[test]
fn seeds_changed_at_random_do_no_harm() {
    let number = |name: &str| env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let (seconds, seed) = (number("BLT_FUZZ_SECONDS"), number("BLT_FUZZ_SEED").unwrap_or(6));
    let only = env::var("BLT_FUZZ_TARGET").ok();
    on_a_decoders_stack(move || {
        for target in TARGETS.iter().filter(|(name, ..)| only.as_ref().is_none_or(|only| only == name)) {
            change(target, Random(seed), seconds);
        }
    });
}

fn change(&(target, run, n_inputs): &Target, mut random: Random, seconds: Option<u64>) {
    let seeds: Vec<Vec<u8>> =
        inputs("tests/fuzz/seeds", target).into_iter().map(|(_, bytes)| bytes).collect();
    // Those of which something new was said are changed further: changes add up.
    let mut pool = seeds.clone();
    let mut known = HashSet::new();
    // Where an input is found that ends the process.
    let last =
        env::var_os("BLT_FUZZ_PANICS").map(|folder| PathBuf::from(folder).join(format!("{target}-last")));
    let (mut n, mut n_whole, mut n_refused, mut n_caught) = (0, 0, 0, 0);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while seconds.map_or(n < n_inputs, |seconds| began.elapsed().as_secs() < seconds) {
        n += 1;
        let mut bytes = pool[random.below(pool.len())].clone();
        for _ in 0..1 + random.below(4) {
            match random.below(8) {
                0 => splice(&mut random, &mut bytes, &seeds),
                _ => random.change(&mut bytes),
            }
        }
        mend(&mut bytes);
        if let Some(last) = &last {
            fs::write(last, &bytes).unwrap();
        }
        let started = Instant::now();
        let outcomes = run(&bytes);
        slowest = slowest.max(started.elapsed());
        assert!(started.elapsed() < MOST_TIME, "{target} took {:?}", started.elapsed());
        media::keep_panics(&bytes, &outcomes);
        for outcome in &outcomes {
            match outcome {
                Ok(_) => n_whole += 1,
                Err(reason) if reason.starts_with(PANICKED) => n_caught += 1,
                Err(_) => n_refused += 1,
            }
        }
        if bytes.len() <= MOST_BYTES && known.insert(said(outcomes)) {
            pool.push(bytes);
        }
    }
    println!(
        "{target}: {n} inputs in {:?}, the slowest {slowest:?}; {n_whole} times whole, {n_refused} refused, {n_caught} panics held back; \
         {} answers",
        began.elapsed(),
        known.len()
    );
    assert!(seconds.is_some() || n_whole > n / 50, "{target}: {n_whole} of {n} whole");
}

/// Puts a piece of another seed over or between what there is.
fn splice(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let other = &seeds[random.below(seeds.len())];
    let from = random.below(other.len());
    let piece = &other[from..other.len().min(from + 1 + random.below(64))];
    let at = random.below(bytes.len() + 1);
    let end = bytes.len().min(at + random.below(2) * piece.len());
    bytes.splice(at..end, piece.iter().copied());
}

/// What is said of an input, in words: without its numbers, and up to the first of its own words.
fn said(outcomes: Vec<Decoded>) -> Vec<String> {
    let words = |reason: String| {
        let reason = reason.split(['{', '"', '`']).next().unwrap_or_default();
        reason.chars().filter(|c| c.is_ascii_alphabetic()).take(80).collect()
    };
    outcomes
        .into_iter()
        .map(|outcome| outcome.map_or_else(words, |n| n.checked_ilog2().unwrap_or(0).to_string()))
        .collect()
}

/// Makes sums right that would keep a change from being seen by what is behind them: those of PNG's chunks and Ogg's pages.
fn mend(bytes: &mut [u8]) {
    let mut at = 8;
    while bytes.starts_with(b"\x89PNG")
        && let Some(length) = bytes.get(at..at + 4)
    {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(chunk) = bytes.get_mut(at + 4..at + 12 + length) else { break };
        let (summed, sum) = chunk.split_at_mut(4 + length);
        let mut crc = flate2::Crc::new();
        crc.update(summed);
        sum.copy_from_slice(&crc.sum().to_be_bytes());
        at += 12 + length;
    }
    let mut at = 0;
    while let Some([b'O', b'g', b'g', b'S', .., n_segments]) = bytes.get(at..at + 27) {
        let n_segments = usize::from(*n_segments);
        let Some(segments) = bytes.get(at + 27..at + 27 + n_segments) else { break };
        let n_bytes = 27 + n_segments + segments.iter().map(|length| usize::from(*length)).sum::<usize>();
        let Some(page) = bytes.get_mut(at..at + n_bytes) else { break };
        page[22..26].fill(0);
        let bit = |sum: u32, _| if sum >> 31 == 0 { sum << 1 } else { sum << 1 ^ 0x04c1_1db7 };
        let sum = page.iter().fold(0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte) << 24, bit));
        page[22..26].copy_from_slice(&sum.to_le_bytes());
        at += n_bytes;
    }
}
