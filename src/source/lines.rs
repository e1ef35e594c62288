//! Rows of JSON Lines: an object a line, plain, gzip or zstd; blank lines are no rows. Such a file has no footer, so it is read
//! through once when a run is planned, which counts its rows. Knows nothing of budgets but whom to ask.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    Grant, Held, RowGroup, ShardFile, SourceError,
    access::{ShardBytes, changed_or_unreachable},
    filter::Verdict,
    rows::{FoundRow, settle, too_long},
    shard::{Format, Identity, Shard, identify_by_end},
};
use crate::{
    config::Source,
    data::{RawBatch, Unit},
};

/// Where reading may begin: often enough to cut units well, seldom enough that a terabyte's places fit in memory.
const BLOCK_BYTES: u64 = 256 << 10;
/// A key that none of so many rows has is misspelt.
const FIRST_ROWS: usize = 100;
/// Of these rows, lines that are longer are not looked into, and no more keys are told.
const FIRST_ROW_BYTES: u64 = 1 << 20;
const FIRST_KEYS: usize = 100;
/// Log2 of the largest window of a zstd file; `zstd --ultra -22` takes that.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// And of the smallest that is counted: levels up to 19 stay below.
const MIN_ZSTD_WINDOW_LOG: u32 = 23;
const BUFFER_BYTES: usize = 256 << 10;

/// How a file's lines are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// Of a file of that name, and whether its ending says that it holds JSON Lines.
    pub(super) fn of(name: &str) -> (Packing, bool) {
        let (name, packing) = match name.rsplit_once('.') {
            Some((name, "gz")) => (name, Packing::Gzip),
            Some((name, "zst")) => (name, Packing::Zstd),
            _ => (name, Packing::Plain),
        };
        (packing, [".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending)))
    }
}

/// What reading a file through has told.
#[derive(Clone, Debug)]
pub(super) struct LineIndex {
    packing: Packing,
    /// Where each of the shard's row groups begins, in bytes of the unpacked file.
    starts: Vec<u64>,
    /// What tells at a glance whether the file is still the one that was read.
    end: Identity,
}

/// The bytes of a file as they are read, hashed.
struct Hashed {
    file: File,
    hash: Arc<Mutex<Sha256>>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..n]);
        Ok(n)
    }
}

/// The lines of a file that are not blank.
struct Lines {
    input: Box<dyn BufRead + Send>,
    /// In the unpacked file.
    offset: u64,
    /// What unpacking takes.
    held: u64,
}

/// A line, or the head of one that is too long.
struct Line {
    start: u64,
    /// All of it.
    length: u64,
}

/// Why there is no line.
enum Fault {
    Io(io::Error),
    /// The memory for it was not granted.
    Refused(SourceError),
}

impl Lines {
    /// Of `file`, whose bytes begin at `offset`, which is 0 unless it is plain.
    fn open(file: impl Read + Send + 'static, packing: Packing, offset: u64) -> io::Result<Lines> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let (input, held): (Box<dyn BufRead + Send>, _) = match packing {
            Packing::Plain => (Box::new(file), BUFFER_BYTES as u64),
            Packing::Gzip => {
                let unpacked = flate2::bufread::MultiGzDecoder::new(file);
                (Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked)), 2 * BUFFER_BYTES as u64)
            }
            Packing::Zstd => {
                // What the first frame needs is counted, and no later one may need more.
                let window_log = zstd_window_log(file.fill_buf()?);
                let mut unpacked = zstd::Decoder::with_buffer(file)?;
                unpacked.window_log_max(window_log)?;
                (Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked)), 1 << window_log)
            }
        };
        Ok(Lines { input, offset, held })
    }

    /// Puts the next line into `line`, of one that is longer than `most` bytes only so many. `grant` is asked before more is
    /// held for it.
    fn next(
        &mut self,
        line: &mut Vec<u8>,
        most: u64,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<Option<Line>, Fault> {
        loop {
            let start = self.offset;
            let (mut length, mut is_blank) = (0, true);
            line.clear();
            loop {
                let chunk = self.input.fill_buf().map_err(Fault::Io)?;
                if chunk.is_empty() {
                    break;
                }
                let end = memchr::memchr(b'\n', chunk);
                let part = &chunk[..end.unwrap_or(chunk.len())];
                is_blank = is_blank && part.iter().all(u8::is_ascii_whitespace);
                let room = most.saturating_sub(line.len() as u64).min(part.len() as u64) as usize;
                if line.len() + room > line.capacity() {
                    // The old buffer, and one twice its size.
                    grant(3 * (line.len() + room) as u64).map_err(Fault::Refused)?;
                }
                line.extend_from_slice(&part[..room]);
                length += part.len() as u64;
                let used = part.len() + usize::from(end.is_some());
                self.input.consume(used);
                self.offset += used as u64;
                if end.is_some() {
                    break;
                }
            }
            if self.offset == start {
                return Ok(None);
            }
            if !is_blank {
                return Ok(Some(Line { start, length }));
            }
        }
    }
}

/// Log2 of the window that the frame at the start of `bytes` needs (RFC 8878, 3.1.1.1), within what is counted and allowed.
fn zstd_window_log(bytes: &[u8]) -> u32 {
    let window = match bytes {
        // With the flag of a single segment the content's size stands in the window's place.
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] if descriptor & 0x20 == 0 => {
            10 + u32::from(window >> 3) + 1
        }
        _ => 0,
    };
    window.clamp(MIN_ZSTD_WINDOW_LOG, MAX_ZSTD_WINDOW_LOG)
}

/// The longest line that is read: a document of the longest kind with every byte escaped, and what is beside it.
fn longest_line(max_document_bytes: u64) -> u64 {
    max_document_bytes.saturating_mul(6).saturating_add(1 << 20)
}

/// Reads `file` through.
///
/// # Errors
/// [`SourceError::Plan`] when it cannot be opened, lacks a column, or `source` asks for more than content and id;
/// [`SourceError::Data`] with the shard's identity when it cannot be unpacked.
pub(super) fn survey(
    file: &ShardFile,
    packing: Packing,
    source: &Source,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let path = &file.path;
    for (key, is_written) in [("carry", !source.carry.is_empty()), ("where", source.filter.is_some())] {
        if is_written {
            return Err(SourceError::Plan(format!(
                "source.{key}: {} is JSON Lines, whose columns have no types yet; leave the key out, or convert the file to Parquet",
                path.display()
            )));
        }
    }
    let mut handle = ShardBytes::whole(file)?.file;
    let end = identify_by_end(&mut handle, path)?;
    let mut survey = Survey::default();
    let sha256 = match survey.read(handle, packing, source) {
        Ok(sha256) => sha256,
        Err(error) => {
            let failed = SourceError::Data(format!("failed to read {}: {error}", path.display()));
            return Ok(Err((end, failed)));
        }
    };
    for (key, name, is_there) in [
        ("content", &source.content, survey.has_content),
        ("id", &source.id.name, survey.has_id || !source.id.required),
    ] {
        if survey.n_first > 0 && !is_there {
            return Err(SourceError::Plan(format!(
                "source.{key} = {name:?}: none of the first {} rows of {} has such a key; they have {}",
                survey.n_first,
                path.display(),
                survey.keys.join(", ")
            )));
        }
    }
    let index = LineIndex { packing, starts: survey.starts, end: end.clone() };
    Ok(Ok(Shard {
        file: file.clone(),
        identity: Identity { footer_sha256: sha256, ..end },
        row_groups: survey.row_groups,
        carried: arrow::datatypes::Fields::empty(),
        format: Format::Lines(Arc::new(index)),
    }))
}

/// What is found out on the way through a file.
#[derive(Default)]
struct Survey {
    row_groups: Vec<RowGroup>,
    starts: Vec<u64>,
    /// Keys of the first rows, in their order.
    keys: Vec<String>,
    n_first: usize,
    has_content: bool,
    has_id: bool,
}

impl Survey {
    /// Returns the SHA-256, hex, of the whole file.
    fn read(&mut self, mut handle: File, packing: Packing, source: &Source) -> io::Result<String> {
        handle.rewind()?;
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let file = Hashed { file: handle.try_clone()?, hash: hash.clone() };
        let mut lines = Lines::open(file, packing, 0)?;
        let mut line = Vec::new();
        loop {
            let most = if self.n_first < FIRST_ROWS { FIRST_ROW_BYTES } else { 0 };
            let Line { start, length } = match lines.next(&mut line, most, &mut |_| Ok(())) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(Fault::Io(error)) => return Err(error),
                Err(Fault::Refused(error)) => return Err(io::Error::other(error)),
            };
            self.count(start, length);
            if length <= most {
                self.look_into(&line, source);
            }
        }
        drop(lines);
        // What lies behind the last frame is part of the file, too. The handles share their place in it.
        io::copy(&mut Hashed { file: handle, hash: hash.clone() }, &mut io::sink())?;
        let hash = hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(format!("{:x}", hash.finalize()))
    }

    fn count(&mut self, start: u64, length: u64) {
        match self.row_groups.last_mut() {
            Some(group) if group.content_bytes < BLOCK_BYTES => {
                group.rows += 1;
                group.content_bytes += length;
            }
            _ => {
                self.row_groups.push(RowGroup { rows: 1, content_bytes: length, carried_bytes: 0 });
                self.starts.push(start);
            }
        }
    }

    fn look_into(&mut self, line: &[u8], source: &Source) {
        let Ok(row) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(line) else { return };
        self.n_first += 1;
        self.has_content |= row.contains_key(source.content.as_str());
        self.has_id |= row.contains_key(source.id.name.as_str());
        for key in row.into_keys() {
            if self.keys.len() < FIRST_KEYS && !self.keys.iter().any(|known| *known == key) {
                self.keys.push(key.into_owned());
            }
        }
    }
}

/// Reads units of one file, in order, in one pass over it.
pub struct LineReader {
    lines: Lines,
    /// Number of the next line.
    next_row: u64,
    units: VecDeque<Range<u64>>,
    shard: Shard,
    source: Source,
    max_document_bytes: u64,
}

impl LineReader {
    /// As [`RowReader::open`](super::RowReader::open).
    pub(super) fn open(
        shard: &Shard,
        index: &LineIndex,
        source: &Source,
        max_document_bytes: u64,
        units: &[Range<u64>],
    ) -> Result<LineReader, SourceError> {
        let path = &shard.file.path;
        let failed =
            |error: io::Error| SourceError::Data(format!("failed to read {}: {error}", path.display()));
        let mut file = ShardBytes::whole(&shard.file).map_err(changed_or_unreachable)?.file;
        // What is packed is read from its start.
        let (mut next_row, mut offset) = (0, 0);
        if index.packing == Packing::Plain {
            let first = units.first().map_or(0, |rows| rows.start);
            let mut row = 0;
            for (group, start) in shard.row_groups.iter().zip(&index.starts) {
                if row > first {
                    break;
                }
                (next_row, offset) = (row, *start);
                row += group.rows;
            }
        }
        let is_same = identify_by_end(&mut file, path).map_err(changed_or_unreachable)? == index.end;
        if !is_same || !begins_a_line(&mut file, offset).map_err(failed)? {
            return Err(SourceError::Data(format!(
                "{} is not the file that was planned: it changed since",
                path.display()
            )));
        }
        Ok(LineReader {
            lines: Lines::open(file, index.packing, offset).map_err(failed)?,
            next_row,
            units: units.iter().cloned().collect(),
            shard: shard.clone(),
            source: source.clone(),
            max_document_bytes,
        })
    }

    /// As [`RowReader::read`](super::RowReader::read).
    pub(super) fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        let mut batch = RawBatch::new(unit.clone());
        while self.units.front().is_some_and(|rows| rows.end <= unit.rows.start) {
            self.units.pop_front();
        }
        if self.units.pop_front().as_ref() != Some(&unit.rows) || self.next_row > unit.rows.start {
            return Err(self.fault("the rows were asked for out of order"));
        }
        let unpacking = self.lines.held;
        let mut held = Held { reader: unpacking, ..Held::default() };
        grant(held)?;
        let mut line = Vec::new();
        while self.next_row < unit.rows.start {
            self.next_line(&mut line, 0, &mut |_| Ok(()))?;
        }
        let most = longest_line(self.max_document_bytes);
        while self.next_row < unit.rows.end {
            let (row, file) = (self.next_row, &self.shard.file.source_file);
            if self.source.sample.is_some_and(|sample| !sample.keeps(file, row)) {
                // Neither held nor parsed.
                self.next_line(&mut line, 0, &mut |_| Ok(()))?;
                batch.n_filtered += 1;
                continue;
            }
            let length = self.next_line(&mut line, most, &mut |bytes| {
                held.reader = held.reader.max(unpacking + bytes);
                grant(held)
            })?;
            let (id, content) = self.parse(&line, length);
            held.content += content.as_ref().map_or(0, |content| content.len() as u64);
            grant(held)?;
            let found = FoundRow { verdict: Verdict::Keep, id, content: content.map(Cow::Owned) };
            settle(&mut batch, &self.shard.file.source_file, row, found);
        }
        Ok(batch)
    }

    fn fault(&self, problem: &str) -> SourceError {
        SourceError::Data(format!(
            "failed to read {} at row {}: {problem}",
            self.shard.file.path.display(),
            self.next_row
        ))
    }

    /// Length of the next line, and its first `most` bytes.
    fn next_line(
        &mut self,
        line: &mut Vec<u8>,
        most: u64,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        match self.lines.next(line, most, grant) {
            Ok(Some(Line { length, .. })) => {
                self.next_row += 1;
                Ok(length)
            }
            Ok(None) => Err(self.fault("the file has fewer rows than it had when the run was planned")),
            Err(Fault::Io(error)) => Err(self.fault(&error.to_string())),
            Err(Fault::Refused(error)) => Err(error),
        }
    }

    /// Id and content of a line of `length` bytes.
    fn parse(&self, line: &[u8], length: u64) -> (Result<Option<String>, String>, Result<Vec<u8>, String>) {
        if length > line.len() as u64 {
            let most = self.max_document_bytes;
            let problem = format!(
                "the line has {length} bytes, more than a document of limits.max_document_bytes = {most} takes"
            );
            return (Ok(None), Err(problem));
        }
        let row: BTreeMap<Cow<'_, str>, &RawValue> = match serde_json::from_slice(line) {
            Ok(row) => row,
            Err(error) => return (Ok(None), Err(no_object(&error))),
        };
        let content = match row.get(self.source.content.as_str()).map(|value| value.get()) {
            None | Some("null") => Err("the content is null".to_owned()),
            Some(value) => match serde_json::from_str::<Cow<'_, str>>(value) {
                Ok(text) => too_long(text.len() as u64, self.max_document_bytes)
                    .map_or_else(|| Ok(text.into_owned().into_bytes()), Err),
                Err(_) if !value.starts_with('"') => Err("the content is no string".to_owned()),
                Err(error) => Err(no_object(&error)),
            },
        };
        let id = match row.get(self.source.id.name.as_str()).map(|value| value.get()) {
            None | Some("null") => Ok(None),
            Some(value) if value.parse::<i128>().is_ok() => Ok(Some(value.to_owned())),
            Some(value) => serde_json::from_str::<String>(value)
                .map(Some)
                .map_err(|_| "the id is neither a string nor an integer".to_owned()),
        };
        (id, content)
    }
}

/// Whether a line begins at byte `offset` of a plain file, which is left standing there.
fn begins_a_line(file: &mut File, offset: u64) -> io::Result<bool> {
    let mut before = [b'\n'];
    if offset > 0 {
        file.seek(SeekFrom::Start(offset - 1))?;
        file.read_exact(&mut before)?;
    }
    file.seek(SeekFrom::Start(offset))?;
    Ok(before == [b'\n'])
}

/// serde_json counts lines, of which there is one.
fn no_object(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("the line is no JSON object: {what} (byte {})", error.column())
}
