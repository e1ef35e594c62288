//! Rows of JSON Lines: an object a line, plain, gzip or zstd; blank lines are no rows. Such a file has no footer, so it is read
//! through once when a run is planned: that counts its rows, and finds the types of carried columns and those that a condition
//! names. Knows nothing of budgets but whom to ask.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::concat_batches,
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
    json::{ReaderBuilder, reader::infer_json_schema_from_iterator},
};
use serde_json::{Value, value::RawValue};

use super::{
    Grant, Held, RowGroup, ShardFile, SourceError,
    filter::{self, Filter, Verdict},
    rows::{FoundRow, settle, too_long},
    shard::{Format, Identity, Shard, identify, open},
};
use crate::{
    config::Source,
    data::{RawBatch, Unit, value_bytes},
};

/// Where reading may begin: often enough to cut units well, seldom enough that a terabyte's places fit in memory.
const BLOCK_BYTES: u64 = 256 << 10;
/// Lines that are parsed together.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// A key that none of so many rows has is misspelt.
const FIRST_ROWS: usize = 100;
/// Log2 of the largest window of a zstd file; `zstd --ultra -22` takes that.
const ZSTD_WINDOW_LOG: u32 = 27;
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
        let name = name.to_ascii_lowercase();
        let (name, packing) = match name.rsplit_once('.') {
            Some((name, "gz")) => (name, Packing::Gzip),
            Some((name, "zst")) => (name, Packing::Zstd),
            _ => (name.as_str(), Packing::Plain),
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
    /// Columns that are carried or asked about.
    columns: SchemaRef,
}

/// The lines of a file that are not blank.
struct Lines {
    input: Box<dyn BufRead + Send>,
    /// In the unpacked file.
    offset: u64,
}

/// A line, or the head of one that is too long.
struct Line {
    start: u64,
    /// All of it.
    length: u64,
}

impl Lines {
    /// From byte `offset` on, which is 0 unless the file is plain.
    fn open(mut file: File, packing: Packing, offset: u64) -> io::Result<Lines> {
        file.seek(SeekFrom::Start(offset))?;
        let input: Box<dyn BufRead + Send> = match packing {
            Packing::Plain => Box::new(BufReader::with_capacity(BUFFER_BYTES, file)),
            Packing::Gzip => {
                let unpacked = flate2::bufread::MultiGzDecoder::new(BufReader::new(file));
                Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
            }
            Packing::Zstd => {
                let mut unpacked = zstd::Decoder::new(file)?;
                unpacked.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
            }
        };
        Ok(Lines { input, offset })
    }

    /// Puts the next line into `line`, of one that is longer than `most` bytes only so many.
    fn next(&mut self, line: &mut Vec<u8>, most: u64) -> io::Result<Option<Line>> {
        loop {
            let start = self.offset;
            let (mut length, mut is_blank) = (0, true);
            line.clear();
            loop {
                let chunk = self.input.fill_buf()?;
                if chunk.is_empty() {
                    break;
                }
                let end = memchr::memchr(b'\n', chunk);
                let part = &chunk[..end.unwrap_or(chunk.len())];
                is_blank = is_blank && part.iter().all(u8::is_ascii_whitespace);
                let room = most.saturating_sub(line.len() as u64).min(part.len() as u64) as usize;
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

/// The longest line that is read: a document of the longest kind with every byte escaped, and what is beside it.
fn longest_line(max_document_bytes: u64) -> u64 {
    max_document_bytes.saturating_mul(6).saturating_add(1 << 20)
}

/// Reads `file` through.
///
/// # Errors
/// [`SourceError::Plan`] when it cannot be opened, or lacks a column; [`SourceError::Data`] with the shard's identity when it
/// cannot be unpacked.
pub(super) fn survey(
    file: &ShardFile,
    packing: Packing,
    source: &Source,
    max_document_bytes: u64,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let path = &file.path;
    let mut handle = open(path)?;
    let identity = identify(&mut handle, path)?;
    let failed = |error: io::Error| SourceError::Data(format!("failed to read {}: {error}", path.display()));
    let mut survey = Survey {
        row_groups: Vec::new(),
        starts: Vec::new(),
        first_keys: Vec::new(),
        n_first: 0,
        has_content: false,
        problem: None,
    };
    let mut lines = match Lines::open(handle, packing, 0) {
        Ok(lines) => lines,
        Err(error) => return Ok(Err((identity, failed(error)))),
    };
    let most = longest_line(max_document_bytes);
    let wants_types = !source.carry.is_empty() || source.filter.is_some();
    let mut line = Vec::new();
    let mut next = || survey.next(&mut lines, &mut line, most, source, wants_types);
    let schema = match wants_types {
        true => infer_json_schema_from_iterator(std::iter::from_fn(next).map(Ok::<Value, _>)),
        false => {
            while next().is_some() {}
            Ok(Schema::empty())
        }
    };
    if let Some(error) = survey.problem {
        return Ok(Err((identity, failed(error))));
    }
    let missing = |key: &str, name: &str| {
        let keys = survey.first_keys.join(", ");
        SourceError::Plan(format!(
            "{key} = {name:?}: {} has no such key in its rows; it has {keys}",
            path.display()
        ))
    };
    if survey.n_first > 0 && !survey.has_content {
        return Err(missing("source.content", &source.content));
    }
    let schema = schema.map_err(|error| SourceError::Plan(format!("{}: {error}", path.display())))?;
    let carried = source.carry.iter().map(|name| {
        let field = schema.field_with_name(name);
        field
            .map(|field| Arc::new(field.clone().with_nullable(true)))
            .map_err(|_| missing("source.carry", name))
    });
    // In a file without rows every column is one of nulls.
    let carried: Fields = match survey.row_groups.is_empty() {
        true => Fields::empty(),
        false => carried.collect::<Result<_, _>>()?,
    };
    let mut columns: Vec<Arc<Field>> = carried.iter().cloned().collect();
    if let Some(filter) = filter::of(source, &schema, path)? {
        let named = filter.columns().filter(|name| !source.carry.iter().any(|carried| carried == name));
        columns.extend(named.filter_map(|name| schema.field_with_name(name).ok()).cloned().map(Arc::new));
    }
    let index = LineIndex { packing, starts: survey.starts, columns: Arc::new(Schema::new(columns)) };
    Ok(Ok(Shard {
        file: file.clone(),
        identity,
        row_groups: survey.row_groups,
        carried,
        format: Format::Lines(Arc::new(index)),
    }))
}

/// What is found out on the way through a file.
struct Survey {
    row_groups: Vec<RowGroup>,
    starts: Vec<u64>,
    /// Keys of the first rows, in their order.
    first_keys: Vec<String>,
    n_first: usize,
    has_content: bool,
    /// What ended the reading before the file's end.
    problem: Option<io::Error>,
}

impl Survey {
    /// Counts rows up to the next one that is an object, and returns that with the keys whose types are wanted. Without `wants_types`
    /// only the first rows are parsed, and all of the file is counted.
    fn next(
        &mut self,
        lines: &mut Lines,
        line: &mut Vec<u8>,
        most: u64,
        source: &Source,
        wants_types: bool,
    ) -> Option<Value> {
        loop {
            let looks = wants_types || self.n_first < FIRST_ROWS;
            let Line { start, length } = match lines.next(line, if looks { most } else { 0 }) {
                Ok(next) => next?,
                Err(error) => {
                    self.problem = Some(error);
                    return None;
                }
            };
            self.count(start, length);
            if !looks || length > most {
                continue;
            }
            let Ok(Value::Object(mut row)) = serde_json::from_slice(line) else { continue };
            if self.n_first < FIRST_ROWS {
                self.n_first += 1;
                self.has_content = self.has_content || row.contains_key(&source.content);
                for key in row.keys() {
                    if !self.first_keys.contains(key) {
                        self.first_keys.push(key.clone());
                    }
                }
            }
            if wants_types {
                if source.filter.is_none() {
                    row.retain(|key, _| source.carry.contains(key));
                }
                return Some(Value::Object(row));
            }
        }
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
}

/// Gives the carried columns of all files of JSON Lines among `shards` one type each: a file may happen to hold whole numbers
/// only, or nulls. Numbers and other values together are strings, as within a file.
pub fn agree_on_types(shards: &mut [&mut Shard]) {
    let mut common: Option<Fields> = None;
    for shard in shards.iter().filter(|shard| !shard.row_groups.is_empty()) {
        if let Format::Lines(_) = shard.format {
            common = Some(match &common {
                None => shard.carried.clone(),
                Some(fields) => fields.iter().zip(&shard.carried).map(|(a, b)| common_field(a, b)).collect(),
            });
        }
    }
    let Some(common) = common else { return };
    for shard in shards {
        if let Format::Lines(index) = &mut shard.format {
            let rest = index.columns.fields().iter().skip(shard.carried.len());
            let columns: Vec<Arc<Field>> = common.iter().chain(rest).cloned().collect();
            *index =
                Arc::new(LineIndex { columns: Arc::new(Schema::new(columns)), ..index.as_ref().clone() });
            shard.carried = common.clone();
        }
    }
}

fn common_field(a: &Arc<Field>, b: &Arc<Field>) -> Arc<Field> {
    Arc::new(Field::new(a.name(), common_type(a.data_type(), b.data_type()), true))
}

fn common_type(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (a, b) if a == b => a.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        (DataType::List(a), DataType::List(b)) => DataType::List(common_field(a, b)),
        (DataType::Struct(a), DataType::Struct(b)) => {
            let mut fields: Vec<Arc<Field>> = a
                .iter()
                .map(|field| {
                    b.find(field.name()).map_or(field.clone(), |(_, other)| common_field(field, other))
                })
                .collect();
            fields.extend(b.iter().filter(|field| a.find(field.name()).is_none()).cloned());
            DataType::Struct(fields.into())
        }
        (a, b) if !a.is_nested() && !b.is_nested() => DataType::Utf8,
        // Refused, where all shards' columns are compared.
        (a, _) => a.clone(),
    }
}

/// Reads units of one file, in order, in one pass over it.
pub struct LineReader {
    lines: Lines,
    /// Number of the next line.
    next_row: u64,
    units: VecDeque<Range<u64>>,
    index: Arc<LineIndex>,
    filter: Option<Filter>,
    shard: Shard,
    source: Source,
    max_document_bytes: u64,
}

/// A line, parsed.
struct Row {
    id: Result<Option<String>, String>,
    content: Result<Vec<u8>, String>,
    /// Why it is no row at all.
    problem: Option<String>,
}

impl LineReader {
    /// As [`RowReader::open`](super::RowReader::open).
    pub(super) fn open(
        shard: &Shard,
        index: &Arc<LineIndex>,
        source: &Source,
        max_document_bytes: u64,
        units: &[Range<u64>],
    ) -> Result<LineReader, SourceError> {
        let path = &shard.file.path;
        let file = shard.open_unchanged()?;
        let filter =
            filter::of(source, &index.columns, path).map_err(|e| SourceError::Data(e.to_string()))?;
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
        let lines = Lines::open(file, index.packing, offset)
            .map_err(|error| SourceError::Data(format!("failed to read {}: {error}", path.display())))?;
        Ok(LineReader {
            lines,
            next_row,
            units: units.iter().cloned().collect(),
            index: index.clone(),
            filter,
            shard: shard.clone(),
            source: source.clone(),
            max_document_bytes,
        })
    }

    /// As [`RowReader::read`](super::RowReader::read).
    pub(super) fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        let mut batch = RawBatch {
            unit: unit.clone(),
            rows: Vec::new(),
            rejected: Vec::new(),
            n_filtered: 0,
            carried: None,
        };
        if self.units.pop_front().as_ref() != Some(&unit.rows) || self.next_row > unit.rows.start {
            return Err(self.fault("the rows were asked for out of order"));
        }
        let mut line = Vec::new();
        while self.next_row < unit.rows.start {
            self.next_line(&mut line, 0)?;
        }
        let (mut held, mut carried) = (Held::default(), Vec::new());
        while self.next_row < unit.rows.end {
            let first = self.next_row;
            let lines = self.next_lines(unit.rows.end, &mut |bytes| {
                // The lines, what is parsed of them, and the columns made of them.
                held.reader = 3 * bytes;
                grant(held)
            })?;
            let rows: Vec<Row> = lines.iter().map(|(line, length)| self.parse(line, *length)).collect();
            let columns = self.columns(&lines, &rows)?;
            let verdicts = self.verdicts(first, &rows, columns.as_ref())?;
            let keeps = rows.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Keep);
            let lengths = keeps.filter_map(|(row, _)| Some(row.content.as_ref().ok()?.len() as u64));
            held.content += lengths.sum::<u64>();
            if !self.source.carry.is_empty()
                && let Some(columns) = columns
            {
                let own = columns.project(&(0..self.source.carry.len()).collect::<Vec<_>>());
                let own = own.map_err(|error| self.fault(&error.to_string()))?;
                held.carried += own.columns().iter().map(|column| value_bytes(column)).sum::<u64>();
                carried.push(own);
            }
            grant(held)?;
            for ((row, verdict), number) in rows.into_iter().zip(verdicts).zip(first..) {
                let found = FoundRow { verdict, id: row.id, content: row.content.map(Cow::Owned) };
                settle(&mut batch, &self.shard.file.source_file, number, found);
            }
        }
        if let Some(first) = carried.first() {
            let all = concat_batches(&first.schema(), &carried);
            batch.carried = Some(all.map_err(|error| self.fault(&error.to_string()))?);
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
    fn next_line(&mut self, line: &mut Vec<u8>, most: u64) -> Result<u64, SourceError> {
        match self.lines.next(line, most) {
            Ok(Some(Line { length, .. })) => {
                self.next_row += 1;
                Ok(length)
            }
            Ok(None) => Err(self.fault("the file has fewer rows than it had when the run was planned")),
            Err(error) => Err(self.fault(&error.to_string())),
        }
    }

    /// Lines to parse together, up to row `end`, with their lengths; `grant` hears what they take.
    fn next_lines(
        &mut self,
        end: u64,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<Vec<(Vec<u8>, u64)>, SourceError> {
        let most = longest_line(self.max_document_bytes);
        let (mut lines, mut bytes) = (Vec::new(), 0);
        grant(BATCH_BYTES as u64)?;
        while self.next_row < end && lines.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let mut line = Vec::new();
            let length = self.next_line(&mut line, most)?;
            bytes += line.len();
            if bytes > BATCH_BYTES {
                grant(bytes as u64)?;
            }
            lines.push((line, length));
        }
        Ok(lines)
    }

    fn parse(&self, line: &[u8], length: u64) -> Row {
        let unusable =
            |problem: String| Row { id: Ok(None), content: Err(problem.clone()), problem: Some(problem) };
        if length > line.len() as u64 {
            return unusable(format!(
                "the line has {length} bytes, more than a document of limits.max_document_bytes = {} takes",
                self.max_document_bytes
            ));
        }
        let row: BTreeMap<Cow<'_, str>, &RawValue> = match serde_json::from_slice(line) {
            Ok(row) => row,
            Err(error) => return unusable(no_object(&error)),
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
        Row { id, content, problem: None }
    }

    /// Carried columns, then those that only the condition names.
    fn columns(&self, lines: &[(Vec<u8>, u64)], rows: &[Row]) -> Result<Option<RecordBatch>, SourceError> {
        if self.index.columns.fields().is_empty() {
            // A condition may name no column.
            let n_rows = RecordBatchOptions::new().with_row_count(Some(lines.len()));
            let none = RecordBatch::try_new_with_options(self.index.columns.clone(), Vec::new(), &n_rows);
            return none.map(Some).map_err(|error| self.fault(&error.to_string()));
        }
        let failed = |error: arrow::error::ArrowError| self.fault(&error.to_string());
        let mut decoder = ReaderBuilder::new(self.index.columns.clone())
            .with_batch_size(lines.len() + 1)
            .with_coerce_primitive(true)
            .build_decoder()
            .map_err(failed)?;
        for ((line, _), row) in lines.iter().zip(rows) {
            let line: &[u8] = if row.problem.is_some() { b"{}" } else { line };
            for part in [line, b"\n"] {
                if decoder.decode(part).map_err(failed)? != part.len() {
                    return Err(self.fault("a line holds more than one row"));
                }
            }
        }
        decoder.flush().map_err(failed)
    }

    fn verdicts(
        &self,
        first: u64,
        rows: &[Row],
        columns: Option<&RecordBatch>,
    ) -> Result<Vec<Verdict>, SourceError> {
        let mut verdicts = match (&self.filter, columns) {
            (Some(filter), Some(columns)) => filter
                .verdicts(columns, |_| true)
                .map_err(|problem| self.fault(&format!("source.where: {problem}")))?,
            _ => vec![Verdict::Keep; rows.len()],
        };
        for ((verdict, row), number) in verdicts.iter_mut().zip(rows).zip(first..) {
            if let Some(problem) = &row.problem {
                *verdict = Verdict::Unknown(problem.clone());
            }
            if let Some(sample) = &self.source.sample
                && !sample.keeps(&self.shard.file.source_file, number)
            {
                *verdict = Verdict::Drop;
            }
        }
        Ok(verdicts)
    }
}

/// serde_json counts lines, of which there is one.
fn no_object(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("the line is no JSON object: {what} (byte {})", error.column())
}
