//! Rows of JSON Lines: an object a line, plain, gzip or zstd; blank lines are no rows. Such a file has no footer, so it is read
//! through once when a run is planned, which counts its rows. Knows nothing of budgets but whom to ask.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{ArrayRef, LargeStringArray, RecordBatch, RecordBatchOptions},
    compute::concat_batches,
    datatypes::{DataType, Field, Fields, Schema},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    Grant, Held, RowGroup, ShardFile, SourceError,
    access::{ShardBytes, changed_or_unreachable},
    beside::Beside,
    filter::{self, Filter, Verdict},
    footer::{FILE_BYTES, NO_PATHS},
    json,
    packed::{Fault, Hashed, Line, Lines, Packing},
    rows::{FoundRow, absent_content, name_of, settle, too_long},
    shape::{Seen, Sight},
    shard::{Format, Identity, Shard, identify_by_end},
    typed,
};
use crate::{
    config::Source,
    data::{RawBatch, Unit, value_bytes},
};

/// Where reading may begin: often enough to cut units well, seldom enough that a terabyte's places fit in memory.
const BLOCK_BYTES: u64 = 256 << 10;
/// A key that none of so many rows has is misspelt.
const FIRST_ROWS: usize = 100;
/// Of these rows, lines that are longer are not looked into, and no more keys are told.
const FIRST_ROW_BYTES: u64 = 1 << 20;
const FIRST_KEYS: usize = 100;
/// What rows may take until those that are together are decoded and asked.
const BATCH_BYTES: u64 = 4 << 20;
/// What a row of them takes beside its values.
const ROW_BYTES: u64 = 256;

/// What reading a file through has told.
#[derive(Clone, Debug)]
pub(super) struct LineIndex {
    packing: Packing,
    /// Where each of the shard's row groups begins, in bytes of the unpacked file.
    starts: Vec<u64>,
    /// What tells at a glance whether the file is still the one that was read.
    end: Identity,
    /// Rows whose keys were looked at.
    pub(super) rows_seen: u64,
    /// Keys of the first rows, in their order.
    pub(super) first_keys: Vec<String>,
    /// What the values of each of [`typed_keys`] have been, until they have [`columns`](Self::columns).
    pub(super) seen: BTreeMap<String, Seen>,
    /// Columns of [`typed_keys`], as all files agree on them.
    pub(super) columns: Fields,
}

/// Keys whose values become columns: those that are carried, and those that the condition of `source` names. The content is
/// text without that.
///
/// # Errors
/// [`SourceError::Plan`] when the condition is none.
pub(super) fn typed_keys(source: &Source) -> Result<Vec<String>, SourceError> {
    let mut keys = source.carry.clone();
    for name in filter::names(source)? {
        if name != source.content && !keys.contains(&name) {
            keys.push(name);
        }
    }
    Ok(keys)
}

/// The condition of `source`, where [`typed_keys`] are `columns`. Without one where a column has no type: no row can be read then.
///
/// # Errors
/// As [`filter::of`].
pub(super) fn condition(
    columns: &Fields,
    source: &Source,
    path: &Path,
) -> Result<Option<Filter>, SourceError> {
    if columns.iter().any(|column| column.data_type().is_null()) {
        return Ok(None);
    }
    filter::of(source, &asked(columns, source), path)
}

/// What a condition may ask about.
fn asked(columns: &Fields, source: &Source) -> Schema {
    let content = Field::new(&source.content, DataType::LargeUtf8, true);
    Schema::new(columns.iter().cloned().chain([Arc::new(content)]).collect::<Vec<_>>())
}

/// The longest line that is read: a document of the longest kind with every byte escaped, and what is beside it.
fn longest_line(max_document_bytes: u64) -> u64 {
    max_document_bytes.saturating_mul(6).saturating_add(1 << 20)
}

/// Reads `file` through. Lines that take more than `max_bytes` of memory, or that no document of `max_document_bytes` takes, are
/// not looked into: they are not read later either.
///
/// # Errors
/// [`SourceError::Plan`] when it cannot be opened, lacks a column, or a key that needs a type has values that none fits;
/// [`SourceError::Data`] with the shard's identity when it cannot be unpacked.
pub(super) fn survey(
    file: &ShardFile,
    packing: Packing,
    source: &Source,
    max_document_bytes: u64,
    max_bytes: u64,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let path = &file.path;
    if source.resolve_paths && source.path.is_none() {
        return Err(SourceError::Plan(NO_PATHS.to_owned()));
    }
    let mut handle = ShardBytes::whole(file)?.file;
    let end = identify_by_end(&mut handle, path)?;
    let mut survey = Survey {
        path: path.as_path().into(),
        typed: typed_keys(source)?,
        longest: longest_line(max_document_bytes).min(max_bytes / 3),
        least_row_bytes: if source.resolve_paths { FILE_BYTES } else { 0 },
        row_groups: Vec::new(),
        starts: Vec::new(),
        n_rows: 0,
        keys: Vec::new(),
        n_first: 0,
        has_content: false,
        has_id: false,
        has_path: false,
        has_language: false,
        rows_seen: 0,
        seen: BTreeMap::new(),
    };
    let sha256 = match survey.read(handle, packing, source) {
        Ok(sha256) => sha256,
        Err(Fault::Io(error)) => {
            let failed = SourceError::Data(format!("failed to read {}: {error}", path.display()));
            return Ok(Err((end, failed)));
        }
        Err(Fault::Refused(error)) => return Err(error),
    };
    let mut named = vec![
        ("content", &source.content, survey.has_content || source.resolve_paths),
        ("id", &source.id.name, survey.has_id || !source.id.required),
    ];
    named.extend(source.path.as_ref().map(|name| ("path", name, survey.has_path)));
    named.extend(source.language.as_ref().map(|name| ("language", name, survey.has_language)));
    for (key, name, is_there) in named {
        if survey.n_first > 0 && !is_there {
            return Err(SourceError::Plan(format!(
                "source.{key} = {name:?}: none of the first {} rows of {} has such a key; they have {}",
                survey.n_first,
                path.display(),
                survey.keys.join(", ")
            )));
        }
    }
    let index = LineIndex {
        packing,
        starts: survey.starts,
        end: end.clone(),
        rows_seen: survey.rows_seen,
        first_keys: survey.keys,
        seen: survey.seen,
        columns: Fields::empty(),
    };
    Ok(Ok(Shard {
        file: file.clone(),
        identity: Identity { footer_sha256: sha256, ..end },
        row_groups: survey.row_groups,
        carried: Fields::empty(),
        format: Format::Lines(Arc::new(index)),
    }))
}

/// What is found out on the way through a file.
struct Survey {
    path: Arc<Path>,
    typed: Vec<String>,
    /// A line that is longer is not looked into.
    longest: u64,
    /// What the content of a row is taken for at least.
    least_row_bytes: u64,
    row_groups: Vec<RowGroup>,
    starts: Vec<u64>,
    n_rows: u64,
    /// Keys of the first rows, in their order.
    keys: Vec<String>,
    n_first: usize,
    has_content: bool,
    has_id: bool,
    has_path: bool,
    has_language: bool,
    /// Rows that `seen` knows of.
    rows_seen: u64,
    seen: BTreeMap<String, Seen>,
}

impl Survey {
    /// Returns the SHA-256, hex, of the whole file.
    fn read(&mut self, mut handle: File, packing: Packing, source: &Source) -> Result<String, Fault> {
        handle.rewind().map_err(Fault::Io)?;
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let file = Hashed { file: handle.try_clone().map_err(Fault::Io)?, hash: hash.clone() };
        let mut lines = Lines::open(file, packing, 0).map_err(Fault::Io)?;
        let mut line = Vec::new();
        loop {
            let most = match self.typed.is_empty() {
                false => self.longest,
                true if self.n_first < FIRST_ROWS => FIRST_ROW_BYTES,
                true => 0,
            };
            let Some(Line { start, length }) = lines.next(&mut line, most, &mut |_| Ok(()))? else { break };
            if self.n_first < FIRST_ROWS && length <= most.min(FIRST_ROW_BYTES) {
                self.look_into(&line, source);
            }
            let is_whole = length <= most;
            let carried = if is_whole && !self.typed.is_empty() { self.see(&line, source)? } else { 0 };
            self.count(start, length, carried);
        }
        drop(lines);
        // What lies behind the last frame is part of the file, too. The handles share their place in it.
        io::copy(&mut Hashed { file: handle, hash: hash.clone() }, &mut io::sink()).map_err(Fault::Io)?;
        let hash = hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(format!("{:x}", hash.finalize()))
    }

    fn count(&mut self, start: u64, length: u64, carried_bytes: u64) {
        self.n_rows += 1;
        let content_bytes = length.saturating_sub(carried_bytes).max(self.least_row_bytes);
        match self.row_groups.last_mut() {
            Some(group) if group.content_bytes + group.carried_bytes < BLOCK_BYTES => {
                group.rows += 1;
                group.content_bytes += content_bytes;
                group.carried_bytes += carried_bytes;
            }
            _ => {
                self.row_groups.push(RowGroup { rows: 1, content_bytes, carried_bytes });
                self.starts.push(start);
            }
        }
    }

    /// Takes note of the values of the keys that need a type; returns the bytes of those that are carried.
    fn see(&mut self, line: &[u8], source: &Source) -> Result<u64, Fault> {
        let mut values: Vec<Option<&RawValue>> = vec![None; self.typed.len()];
        let parsed = json::fields(line, |key, value| {
            if let Some(index) = self.typed.iter().position(|name| *name == key) {
                values[index] = Some(value);
            }
        });
        if parsed.is_err() {
            // It goes to quarantine when it is read.
            return Ok(0);
        }
        self.rows_seen += 1;
        let sight = Sight::Row { file: self.path.clone(), row: self.n_rows };
        let mut carried_bytes = 0;
        for (index, (name, value)) in self.typed.iter().zip(values).enumerate() {
            let Some(value) = value else { continue };
            // What is carried stands before what is only asked about.
            let is_carried = index < source.carry.len();
            if is_carried {
                carried_bytes += value.get().len() as u64;
            }
            let seen = match self.seen.get_mut(name) {
                Some(seen) => seen,
                None => self.seen.entry(name.clone()).or_default(),
            };
            seen.see(name, value, &sight).map_err(|problem| {
                let key = if is_carried { "carry" } else { "where" };
                Fault::Refused(SourceError::Plan(format!("source.{key}: {problem}")))
            })?;
        }
        Ok(carried_bytes)
    }

    fn look_into(&mut self, line: &[u8], source: &Source) {
        let Ok(row) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(line) else { return };
        self.n_first += 1;
        self.has_content |= row.contains_key(source.content.as_str());
        self.has_id |= row.contains_key(source.id.name.as_str());
        let has = |name: &Option<String>| name.as_deref().is_some_and(|name| row.contains_key(name));
        self.has_path |= has(&source.path);
        self.has_language |= has(&source.language);
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
    keys: Keys,
    filter: Option<Filter>,
    shard: Shard,
    /// Where rows that have a path in place of content are read.
    beside: Option<Beside>,
    source: Source,
    max_document_bytes: u64,
}

/// Keys of a line that are read, each once.
struct Keys {
    names: Vec<String>,
    content: usize,
    id: usize,
    path: Option<usize>,
    language: Option<usize>,
    /// Columns of those that have a type, and which names they are of.
    columns: Fields,
    typed: Vec<usize>,
}

impl Keys {
    fn new(source: &Source, columns: &Fields) -> Keys {
        let mut names: Vec<String> = Vec::new();
        let mut place = |name: &str| match names.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                names.push(name.to_owned());
                names.len() - 1
            }
        };
        let (content, id) = (place(&source.content), place(&source.id.name));
        let path = source.path.as_deref().map(&mut place);
        let language = source.language.as_deref().map(&mut place);
        let typed = columns.iter().map(|column| place(column.name())).collect();
        Keys { names, content, id, path, language, columns: columns.clone(), typed }
    }
}

/// A row on its way from its line to the batch.
struct Row {
    source_row: u64,
    /// What the row is, where no condition need be asked.
    verdict: Option<Verdict>,
    id: Result<Option<String>, String>,
    /// `None` where it is null.
    content: Result<Option<Vec<u8>>, String>,
    path: Option<String>,
    language: Option<String>,
    /// Of the keys with a type; empty when there are none.
    values: Vec<Option<Box<RawValue>>>,
}

impl Row {
    fn without_values(source_row: u64, verdict: Verdict) -> Row {
        let (id, content, path, language) = (Ok(None), Ok(None), None, None);
        Row { source_row, verdict: Some(verdict), id, content, path, language, values: Vec::new() }
    }

    fn content_bytes(&self) -> u64 {
        self.content.as_ref().ok().and_then(Option::as_ref).map_or(0, |content| content.len() as u64)
    }
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
            keys: Keys::new(source, &index.columns),
            filter: condition(&index.columns, source, path)?,
            shard: shard.clone(),
            beside: Beside::of(&shard.file, source, max_document_bytes),
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
            return Err(self.fault(self.next_row, "the rows were asked for out of order"));
        }
        let unpacking = self.lines.held;
        let mut held = Held { reader: unpacking, ..Held::default() };
        grant(held)?;
        let mut line = Vec::new();
        while self.next_row < unit.rows.start {
            self.next_line(&mut line, 0, &mut |_| Ok(()))?;
        }
        let most = longest_line(self.max_document_bytes);
        let is_carrying = !self.source.carry.is_empty();
        let mut carried: Vec<RecordBatch> = Vec::new();
        let (mut rows, mut rows_bytes, mut line_bytes): (Vec<Row>, u64, u64) = (Vec::new(), 0, 0);
        while self.next_row < unit.rows.end {
            let (number, file) = (self.next_row, &self.shard.file.source_file);
            if self.source.sample.is_some_and(|sample| !sample.keeps(file, number)) {
                // Neither held nor parsed.
                self.next_line(&mut line, 0, &mut |_| Ok(()))?;
                if is_carrying {
                    rows.push(Row::without_values(number, Verdict::Drop));
                    rows_bytes += ROW_BYTES;
                } else {
                    batch.n_filtered += 1;
                }
            } else {
                let length = self.next_line(&mut line, most, &mut |bytes| {
                    line_bytes = line_bytes.max(bytes);
                    held.reader = unpacking.saturating_add(line_bytes).saturating_add(rows_bytes);
                    grant(held)
                })?;
                let row = self.parse(number, &line, length);
                rows_bytes = rows_bytes.saturating_add(self.row_bytes(&row));
                rows.push(row);
            }
            held.reader = unpacking.saturating_add(line_bytes).saturating_add(rows_bytes);
            grant(held)?;
            if rows_bytes >= BATCH_BYTES || self.next_row == unit.rows.end {
                let columns = self.decode(&mut rows)?;
                let verdicts = self.verdicts(&mut rows, &columns)?;
                if is_carrying {
                    // Columns that are carried stand first.
                    let n_carried = self.source.carry.len();
                    let of_rows = columns.project(&(0..n_carried).collect::<Vec<_>>());
                    let of_rows = of_rows.map_err(|error| self.fault(number, &error.to_string()))?;
                    held.carried += of_rows.columns().iter().map(|column| value_bytes(column)).sum::<u64>();
                    carried.push(of_rows);
                }
                let kept = rows.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Keep);
                for (row, _) in kept {
                    held.content += match (&row.content, &row.path, &mut self.beside) {
                        // What cannot be had is told when it is read.
                        (Ok(None), Some(path), Some(beside)) => beside.size(path).unwrap_or(0),
                        _ => row.content_bytes(),
                    };
                }
                let beside = self.beside.as_ref().map_or(0, Beside::held);
                held.reader = unpacking.saturating_add(line_bytes).saturating_add(beside);
                rows_bytes = 0;
                grant(held)?;
                for (row, verdict) in rows.drain(..).zip(verdicts) {
                    let Row { source_row, id, content, path, language, .. } = row;
                    let content = match content {
                        Ok(None) if verdict == Verdict::Keep => {
                            absent_content(path.as_deref(), self.beside.as_mut())
                        }
                        Ok(content) => content.map(Cow::Owned).ok_or_else(String::new),
                        Err(reason) => Err(reason),
                    };
                    let found = FoundRow { verdict, id, content, path, language };
                    settle(&mut batch, &self.shard.file.source_file, source_row, found);
                }
            }
        }
        if let Some(first) = carried.first() {
            let all = concat_batches(&first.schema(), &carried);
            batch.carried = Some(all.map_err(|error| self.fault(unit.rows.start, &error.to_string()))?);
        }
        Ok(batch)
    }

    fn fault(&self, row: u64, problem: &str) -> SourceError {
        let path = self.shard.file.path.display();
        SourceError::Data(format!("failed to read {path} at row {row}: {problem}"))
    }

    /// Length of the next line, and its first `most` bytes.
    fn next_line(
        &mut self,
        line: &mut Vec<u8>,
        most: u64,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        let row = self.next_row;
        match self.lines.next(line, most, grant) {
            Ok(Some(Line { length, .. })) => {
                self.next_row += 1;
                Ok(length)
            }
            Ok(None) => Err(self.fault(row, "the file has fewer rows than it had when the run was planned")),
            Err(Fault::Io(error)) => Err(self.fault(row, &error.to_string())),
            Err(Fault::Refused(error)) => Err(error),
        }
    }

    /// Row `number` of a line of `length` bytes.
    fn parse(&self, number: u64, line: &[u8], length: u64) -> Row {
        if length > line.len() as u64 {
            let most = self.max_document_bytes;
            let problem = format!(
                "the line has {length} bytes, more than a document of limits.max_document_bytes = {most} takes"
            );
            return Row::without_values(number, Verdict::Unknown(problem));
        }
        let keys = &self.keys;
        let mut values: Vec<Option<&RawValue>> = vec![None; keys.names.len()];
        let parsed = json::fields(line, |key, value| {
            if let Some(index) = keys.names.iter().position(|name| *name == key) {
                values[index] = Some(value);
            }
        });
        if let Err(error) = parsed {
            return Row::without_values(number, Verdict::Unknown(no_object(&error)));
        }
        let content = match values[keys.content].map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(value) => match json::string(value) {
                Ok(text) => too_long(text.len() as u64, self.max_document_bytes)
                    .map_or_else(|| Ok(Some(text.into_owned().into_bytes())), Err),
                Err(_) if !value.starts_with('"') => Err("the content is no string".to_owned()),
                Err(error) => Err(no_object(&error)),
            },
        };
        let id = match values[keys.id].map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(value) if value.parse::<i128>().is_ok() => Ok(Some(value.to_owned())),
            Some(value) => json::string(value)
                .map(|id| Some(id.into_owned()))
                .map_err(|_| "the id is neither a string nor an integer".to_owned()),
        };
        // What is no string tells nothing of the content.
        let text = |index: Option<usize>| Some(name_of(&json::string(values[index?]?.get()).ok()?));
        let (path, language) = (text(keys.path), text(keys.language));
        let values = keys.typed.iter().map(|&index| values[index].map(RawValue::to_owned)).collect();
        Row { source_row: number, verdict: None, id, content, path, language, values }
    }

    /// About what a row takes until it is settled.
    fn row_bytes(&self, row: &Row) -> u64 {
        let values = row.values.iter().zip(&self.keys.columns);
        let values =
            values.filter_map(|(value, column)| Some(typed::cost(value.as_deref()?, column.data_type())));
        // A condition on the content is asked of a copy.
        let copies = if self.asks_content() { 2 } else { 1 };
        row.content_bytes()
            .saturating_mul(copies)
            .saturating_add(values.fold(0, u64::saturating_add))
            .saturating_add(ROW_BYTES)
    }

    fn asks_content(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.columns().any(|name| name == self.source.content))
    }

    /// The columns of `rows`. A row with a value that does not fit is told, and has none.
    fn decode(&self, rows: &mut [Row]) -> Result<RecordBatch, SourceError> {
        let columns = &self.keys.columns;
        let values: Vec<&[Option<Box<RawValue>>]> = rows.iter().map(|row| row.values.as_slice()).collect();
        if let Ok(batch) = typed::batch(columns, &values) {
            return Ok(batch);
        }
        for row in rows.iter_mut() {
            if let Err(problem) = typed::batch(columns, &[row.values.as_slice()]) {
                row.verdict = Some(Verdict::Unknown(problem));
                row.values.clear();
            }
        }
        let values: Vec<&[Option<Box<RawValue>>]> = rows.iter().map(|row| row.values.as_slice()).collect();
        let first = rows.first().map_or(self.next_row, |row| row.source_row);
        typed::batch(columns, &values).map_err(|problem| self.fault(first, &problem))
    }

    /// Whether each of `rows`, which have `columns`, counts.
    fn verdicts(&self, rows: &mut [Row], columns: &RecordBatch) -> Result<Vec<Verdict>, SourceError> {
        let first = rows.first().map_or(self.next_row, |row| row.source_row);
        let asks_content = self.asks_content();
        let mut verdicts = match &self.filter {
            None => vec![Verdict::Keep; rows.len()],
            Some(filter) => {
                let asked = if asks_content { self.with_content(rows, columns) } else { Ok(columns.clone()) };
                asked
                    .and_then(|asked| filter.verdicts(&asked, |_, _| true))
                    .map_err(|problem| self.fault(first, &format!("source.where: {problem}")))?
            }
        };
        for (row, verdict) in rows.iter_mut().zip(&mut verdicts) {
            match (row.verdict.take(), &row.content) {
                (Some(known), _) => *verdict = known,
                (None, Err(reason)) if asks_content => *verdict = Verdict::Unknown(reason.clone()),
                (None, _) => {}
            }
        }
        Ok(verdicts)
    }

    /// `columns` of `rows`, and their content as one more.
    fn with_content(&self, rows: &[Row], columns: &RecordBatch) -> Result<RecordBatch, String> {
        let text = |row: &Row| {
            let content = row.content.as_ref().ok().and_then(Option::as_ref)?;
            Some(std::str::from_utf8(content).map(str::to_owned))
        };
        let texts = rows.iter().map(|row| text(row).transpose()).collect::<Result<LargeStringArray, _>>();
        let texts: ArrayRef = Arc::new(texts.map_err(|error| error.to_string())?);
        let arrays = columns.columns().iter().cloned().chain([texts]).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let schema = Arc::new(asked(&self.keys.columns, &self.source));
        RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|error| error.to_string())
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
