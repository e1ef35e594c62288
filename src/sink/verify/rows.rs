//! A file of a table in, checked against its record byte by byte; its rows out, in batches of typed columns. Knows
//! what holds for every table, and nothing of how tables belong together.

use std::{
    fs::File,
    io,
    ops::{Range, RangeInclusive},
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow::{
    array::{
        Array, AsArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray, UInt32Array,
        UInt64Array,
    },
    datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, UInt32Type, UInt64Type},
};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use sha2::{Digest, Sha256};

use super::{Checked, Halt, Problem, ProblemRow, rules::Rules};
use crate::{
    data::{SOURCE_ID, VOCABULARY},
    schema::Table,
    sink::{CommitRecord, FileEntry, SinkError, Storage},
};

/// Rounding may lift an entropy above that of a uniform prediction, and put it below 0.
const SLACK_ABOVE: f32 = 1e-3;
const SLACK_BELOW: f32 = 1e-5;

/// A file whose bytes are those that its record promises, and whose columns are those of the plan.
pub(super) struct TableFile {
    /// Path below the output folder.
    path: String,
    unit: String,
    source_file: String,
    source_rows: Range<u64>,
    /// Columns that are ours; carried ones come after them.
    n_own: usize,
    /// Rows that were read.
    n_read: u64,
    n_rows: u64,
    reader: ParquetRecordBatchReader,
}

impl TableFile {
    /// Opens the file that `record` calls `entry`.
    pub fn open(
        storage: &Storage,
        rules: &mut Rules,
        record: &CommitRecord,
        entry: &FileEntry,
    ) -> Checked<Self> {
        let problem = |what: String| Problem::of_file(record, &entry.path, what);
        let table = Table::ALL.into_iter().find(|table| table.name() == entry.table);
        let Some(table) = table.filter(|&table| rules.has(table)) else {
            return Err(problem(format!("the plan has no table {:?}", entry.table)));
        };
        let name = format!("{table}/{}-{}.parquet", record.unit, entry.sha256.get(..8).unwrap_or_default());
        if entry.path != name {
            return Err(problem(format!("by its unit and its content the file must be called {name}")));
        }
        let file = open_promised(storage, record, entry)?;
        let batch_rows = if table == Table::Documents { 64 } else { 2048 };
        let opened = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(batch_rows);
            let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            Ok::<_, parquet::errors::ParquetError>((builder.schema().clone(), n_rows, builder.build()?))
        });
        let (schema, n_rows, reader) = opened.map_err(&problem)?;
        let n_own = rules.check_schema(table, &schema).map_err(&problem)?;
        if n_rows != entry.rows {
            return Err(problem(format!("it has {n_rows} rows, its record says {}", entry.rows)));
        }
        Ok(TableFile {
            path: entry.path.clone(),
            unit: record.unit.clone(),
            source_file: record.source_file.clone(),
            source_rows: record.row_start..record.row_end,
            n_own,
            n_read: 0,
            n_rows,
            reader,
        })
    }

    fn problem(&self, row: Option<ProblemRow>, what: String) -> Halt {
        Problem { file: self.path.clone(), row, unit: Some(self.unit.clone()), what }.into()
    }

    /// Its next rows; every float is finite, and every row comes from the unit.
    fn next(&mut self) -> Checked<Option<RecordBatch>> {
        let first = ProblemRow::InFile(self.n_read);
        let batch = match guarded(|| self.reader.next().transpose()) {
            Err(what) => return Err(self.problem(Some(first), format!("it cannot be decoded: {what}"))),
            Ok(None) if self.n_read != self.n_rows => {
                return Err(
                    self.problem(None, format!("it ends after {} of {} rows", self.n_read, self.n_rows))
                );
            }
            Ok(None) => return Ok(None),
            Ok(Some(batch)) => batch,
        };
        if let Err((row, what)) = self.check_values(&batch) {
            return Err(self.problem(Some(ProblemRow::InFile(self.n_read + row as u64)), what));
        }
        self.n_read += batch.num_rows() as u64;
        Ok(Some(batch))
    }

    /// Tells the first row, counted in `batch`, that cannot be right whatever the other tables say.
    fn check_values(&self, batch: &RecordBatch) -> Result<(), (usize, String)> {
        let absent = || (0, "its key columns cannot be read".to_owned());
        let keys = Keys::of(batch).ok_or_else(absent)?;
        for row in 0..batch.num_rows() {
            let (file, source_row) = (keys.source_file.value(row), keys.source_row.value(row));
            if file != self.source_file {
                return Err((row, format!("source_file is {file:?} in a unit of {:?}", self.source_file)));
            }
            if !self.source_rows.contains(&source_row) {
                let Range { start, end } = self.source_rows;
                return Err((
                    row,
                    format!("source_row is {source_row} in a unit of source rows {start} to {end}"),
                ));
            }
        }
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()).take(self.n_own) {
            let range = match field.name().starts_with("entrop") {
                true => -SLACK_BELOW..=(VOCABULARY as f32).ln() + SLACK_ABOVE,
                false => f32::MIN..=f32::MAX,
            };
            if let Some((row, value)) = first_outside(column.as_ref(), &range) {
                let source_row = keys.source_row.value(row);
                return Err((row, format!("{} of source row {source_row} holds {value}", field.name())));
            }
        }
        Ok(())
    }
}

/// The file if it is there and size and SHA-256 are what its record says.
fn open_promised(storage: &Storage, record: &CommitRecord, entry: &FileEntry) -> Checked<File> {
    let path = storage.join(&entry.path);
    let (start, end, source) = (record.row_start, record.row_end, &record.source_file);
    let holds = format!("it holds {} rows, of source rows {start} to {end} of {source}", entry.rows);
    let failed = |error| SinkError::Io { path: path.clone(), error };
    let mut file = match storage.fetch(&path, entry.bytes)? {
        Some(Ok(file)) => file,
        Some(Err(bytes)) => {
            let what = format!("it has {bytes} bytes, its record says {}; {holds}", entry.bytes);
            return Err(Problem::of_file(record, &entry.path, what));
        }
        None => return Err(Problem::of_file(record, &entry.path, format!("the file is gone; {holds}"))),
    };
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).map_err(failed)?;
    let sha256 = format!("{:x}", hash.finalize());
    if sha256 != entry.sha256 {
        let what = format!("its SHA-256 is {sha256}, its record says {}; {holds}", entry.sha256);
        return Err(Problem::of_file(record, &entry.path, what));
    }
    Ok(file)
}

/// Calls into the Parquet decoder, which panics on some corrupt files instead of returning an error.
fn guarded<T, E: std::fmt::Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_) => Err("the bytes are not valid Parquet".into()),
    }
}

/// The first value of a column of floats, or lists of them, that is outside of `range`, with its row. NaN is outside
/// of every range; what is null is not looked at.
fn first_outside(column: &dyn Array, range: &RangeInclusive<f32>) -> Option<(usize, f32)> {
    match column.data_type() {
        DataType::Float32 => outside(column.as_primitive_opt::<Float32Type>()?.values(), range),
        DataType::Float16 => {
            let halves = column.as_primitive_opt::<Float16Type>()?.values();
            let at = halves.iter().position(|value| !range.contains(&value.to_f32()))?;
            Some((at, halves[at].to_f32()))
        }
        DataType::List(_) => {
            let list = column.as_list_opt::<i32>()?;
            let (at, value) = first_outside(list.values().as_ref(), range)?;
            // Lists without values have the same end as the one before them.
            Some((list.offsets()[1..].partition_point(|&end| end as usize <= at), value))
        }
        DataType::FixedSizeList(_, width) => {
            let list = column.as_fixed_size_list_opt()?;
            if list.null_count() == 0 {
                let (at, value) = first_outside(list.values().as_ref(), range)?;
                return Some((at / (*width).max(1) as usize, value));
            }
            let mut present = (0..list.len()).filter(|&row| list.is_valid(row));
            present.find_map(|row| Some((row, first_outside(list.value(row).as_ref(), range)?.1)))
        }
        _ => None,
    }
}

fn outside(values: &[f32], range: &RangeInclusive<f32>) -> Option<(usize, f32)> {
    let at = values.iter().position(|value| !range.contains(value))?;
    Some((at, values[at]))
}

/// Goes through the rows of a table one by one; a table without a file has none.
pub(super) struct Cursor<T> {
    file: Option<TableFile>,
    /// The file of the table; without one, the record that names none.
    path: String,
    unit: String,
    columns_of: fn(&RecordBatch) -> Option<T>,
    columns: Option<T>,
    /// Rows in `columns`, and the one that is next.
    n_rows: usize,
    next: usize,
}

impl<T> Cursor<T> {
    /// Of the unit whose record lies in `recorded`; `columns_of` takes a batch apart.
    pub fn new(
        file: Option<TableFile>,
        columns_of: fn(&RecordBatch) -> Option<T>,
        (recorded, unit): (&str, &str),
    ) -> Self {
        let path = file.as_ref().map_or(recorded, |file| &file.path).to_owned();
        Cursor { file, path, unit: unit.to_owned(), columns_of, columns: None, n_rows: 0, next: 0 }
    }

    /// Columns and the index in them of the next row.
    pub fn next(&mut self) -> Checked<Option<(&T, usize)>> {
        while self.next == self.n_rows {
            let Some(file) = &mut self.file else { return Ok(None) };
            let Some(batch) = file.next()? else { return Ok(None) };
            let columns = (self.columns_of)(&batch);
            let absent = || file.problem(None, "its columns cannot be read".into());
            self.columns = Some(columns.ok_or_else(absent)?);
            (self.n_rows, self.next) = (batch.num_rows(), 0);
        }
        self.next += 1;
        Ok(self.columns.as_ref().map(|columns| (columns, self.next - 1)))
    }

    /// The file of the table; without one, the record that names none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong with the table.
    pub fn problem(&self, row: Option<ProblemRow>, what: String) -> Halt {
        Problem { file: self.path.clone(), row, unit: Some(self.unit.clone()), what }.into()
    }

    /// What is wrong with the row that came last, which `source_row` has to do with.
    pub fn problem_here(&self, source_row: u64, what: String) -> Halt {
        let what = format!("row {} of the file: {what}", self.row());
        self.problem(Some(ProblemRow::Source(source_row)), what)
    }

    /// That there is no more row where `expected` is due.
    pub fn ends_early(&self, source_row: u64, expected: String) -> Halt {
        let what = match self.file {
            Some(_) => format!("the file ends where {expected} is due"),
            None => format!("it names no file that holds {expected}"),
        };
        self.problem(Some(ProblemRow::Source(source_row)), what)
    }

    /// Number in the file of the row that came last.
    pub fn row(&self) -> u64 {
        let read = self.file.as_ref().map_or(0, |file| file.n_read);
        (read + self.next as u64).saturating_sub(self.n_rows as u64 + 1)
    }
}

/// What every table has.
pub(super) struct Keys {
    pub doc_id: StringArray,
    pub source_file: StringArray,
    pub source_row: UInt64Array,
}

impl Keys {
    fn of(batch: &RecordBatch) -> Option<Keys> {
        Some(Keys {
            doc_id: strings(batch, "doc_id")?,
            source_file: strings(batch, "source_file")?,
            source_row: numbers::<UInt64Type>(batch, "source_row")?,
        })
    }
}

/// Columns of `documents`.
pub(super) struct Documents {
    pub keys: Keys,
    source_ids: Option<StringArray>,
    n_bytes: UInt64Array,
    segments: ListArray,
    segment_start: UInt64Array,
    segment_end: UInt64Array,
    entropies: Option<Lists<Float32Array>>,
    norms: Option<Lists<Float32Array>>,
    patch_lengths: Lists<UInt32Array>,
    embedding: Option<FixedSizeListArray>,
}

struct Lists<T> {
    list: ListArray,
    values: T,
}

impl<T> Lists<T> {
    fn range(&self, row: usize) -> Range<usize> {
        range(&self.list, row)
    }
}

fn range(list: &ListArray, row: usize) -> Range<usize> {
    list.offsets()[row] as usize..list.offsets()[row + 1] as usize
}

/// A row of `documents`.
pub(super) struct Document<'a> {
    pub doc_id: &'a str,
    /// `None` where rows have one view.
    pub source_id: Option<&'a str>,
    pub source_row: u64,
    pub n_bytes: u64,
    pub segment_starts: &'a [u64],
    pub segment_ends: &'a [u64],
    /// `None` where the table has no such column, as the next ones.
    pub entropies: Option<&'a [f32]>,
    pub norms: Option<&'a [f32]>,
    pub patch_lengths: &'a [u32],
    /// Whether the embedding is not null.
    pub embedded: Option<bool>,
}

impl Documents {
    pub fn of(batch: &RecordBatch) -> Option<Documents> {
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>().cloned();
        let floats = |name: &str| {
            let list = list(name)?;
            let values = list.values().as_primitive_opt::<Float32Type>()?.clone();
            Some(Lists { list, values })
        };
        let segments = list("segments")?;
        let parts = segments.values().as_struct_opt()?;
        let border = |name: &str| parts.column_by_name(name)?.as_primitive_opt::<UInt64Type>().cloned();
        let lengths = list("patch_lengths")?;
        let values = lengths.values().as_primitive_opt::<UInt32Type>()?.clone();
        let embedding = batch.column_by_name("embedding");
        Some(Documents {
            keys: Keys::of(batch)?,
            source_ids: strings(batch, SOURCE_ID),
            n_bytes: numbers::<UInt64Type>(batch, "n_bytes")?,
            segment_start: border("start")?,
            segment_end: border("end")?,
            entropies: floats("entropies"),
            norms: floats("norms"),
            patch_lengths: Lists { list: lengths, values },
            embedding: embedding.and_then(|column| column.as_fixed_size_list_opt().cloned()),
            segments,
        })
    }

    pub fn row(&self, row: usize) -> Document<'_> {
        let floats = |lists: &'_ Option<Lists<Float32Array>>| lists.as_ref().map(|lists| lists.range(row));
        let (entropies, norms) = (floats(&self.entropies), floats(&self.norms));
        Document {
            doc_id: self.keys.doc_id.value(row),
            source_id: self.source_ids.as_ref().map(|ids| ids.value(row)),
            source_row: self.keys.source_row.value(row),
            n_bytes: self.n_bytes.value(row),
            segment_starts: &self.segment_start.values()[range(&self.segments, row)],
            segment_ends: &self.segment_end.values()[range(&self.segments, row)],
            entropies: self.entropies.as_ref().zip(entropies).map(|(l, range)| &l.values.values()[range]),
            norms: self.norms.as_ref().zip(norms).map(|(l, range)| &l.values.values()[range]),
            patch_lengths: &self.patch_lengths.values.values()[self.patch_lengths.range(row)],
            embedded: self.embedding.as_ref().map(|embedding| embedding.is_valid(row)),
        }
    }
}

/// Columns of `patches`.
pub(super) struct Patches {
    pub keys: Keys,
    pub patch: UInt32Array,
    pub start: UInt64Array,
    pub length: UInt64Array,
    pub entropy_start: Float32Array,
    pub entropy_mean: Float32Array,
    pub norm_mean: Option<Float32Array>,
}

impl Patches {
    pub fn of(batch: &RecordBatch) -> Option<Patches> {
        Some(Patches {
            keys: Keys::of(batch)?,
            patch: numbers::<UInt32Type>(batch, "patch")?,
            start: numbers::<UInt64Type>(batch, "start")?,
            length: numbers::<UInt64Type>(batch, "length")?,
            entropy_start: numbers::<Float32Type>(batch, "entropy_start")?,
            entropy_mean: numbers::<Float32Type>(batch, "entropy_mean")?,
            norm_mean: numbers::<Float32Type>(batch, "norm_mean"),
        })
    }
}

/// Columns of `bytes`.
pub(super) struct Bytes {
    pub keys: Keys,
    pub byte: UInt64Array,
    pub entropy: Float32Array,
    pub norm: Option<Float32Array>,
}

impl Bytes {
    pub fn of(batch: &RecordBatch) -> Option<Bytes> {
        Some(Bytes {
            keys: Keys::of(batch)?,
            byte: numbers::<UInt64Type>(batch, "byte")?,
            entropy: numbers::<Float32Type>(batch, "entropy")?,
            norm: numbers::<Float32Type>(batch, "norm"),
        })
    }
}

/// Columns of `quarantine`.
pub(super) struct Quarantined {
    pub keys: Keys,
    pub stage: StringArray,
    pub reason: StringArray,
}

impl Quarantined {
    pub fn of(batch: &RecordBatch) -> Option<Quarantined> {
        Some(Quarantined {
            keys: Keys::of(batch)?,
            stage: strings(batch, "stage")?,
            reason: strings(batch, "reason")?,
        })
    }
}

fn strings(batch: &RecordBatch, name: &str) -> Option<StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>().cloned()
}

fn numbers<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    name: &str,
) -> Option<arrow::array::PrimitiveArray<T>> {
    batch.column_by_name(name)?.as_primitive_opt::<T>().cloned()
}
