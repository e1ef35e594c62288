//! Reads rows of Parquet files, batch by batch, and leaves out those that the plan does not want.
//! Knows nothing of patches, models or threads.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs::File,
    ops::Range,
    sync::Arc,
};

use ::parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, RowGroups, RowSelection},
        parquet_to_arrow_field_levels,
    },
    column::page::{PageIterator, PageReader},
    errors::ParquetError,
    file::metadata::{ParquetMetaData, RowGroupMetaData},
};
use arrow::{
    array::{RecordBatch, new_null_array},
    compute::{cast, concat_batches},
    datatypes::{Field, Schema},
};

use super::{
    Grant, Held, RowGroup, SourceError,
    access::{ShardBytes, changed_or_unreachable},
    beside::Beside,
    cells::{BytesColumn, ContentColumn, IdColumn},
    filter::{Filter, Verdict},
    footer::{Columns, Footer, guarded},
    pages::{ChunkPages, unread_length},
    rows::{FoundRow, absent_content, name_of, settle, too_long},
    shard::Shard,
};
use crate::{
    config::Source,
    data::{RawBatch, Unit, value_bytes},
};

/// A batch is decoded in one go; this is what it should hold.
const TARGET_BATCH_BYTES: u64 = 1 << 20;
/// What it may hold where rows differ much, unless a single page is larger.
const MAX_BATCH_BYTES: u64 = 4 << 20;
const MAX_BATCH_ROWS: u64 = 1024;

/// Reads units of one shard, in order, in one pass over the file.
///
/// Row groups are decoded one by one: what is wrong with one of them must not reach the units of others.
pub struct ParquetReader {
    file: Arc<File>,
    /// What brings the pages of one that lies elsewhere.
    bytes: ShardBytes,
    /// Where those of the open row group are.
    brought: Vec<Range<u64>>,
    metadata: ArrowReaderMetadata,
    content_leaf: usize,
    projection: ProjectionMask,
    groups: std::vec::IntoIter<GroupRows>,
    batches: Option<ParquetRecordBatchReader>,
    pending: Option<RecordBatch>,
    /// Rows of the units to come: what is asked for must be what comes next.
    units: VecDeque<Range<u64>>,
    next_row: u64,
    /// The condition on rows, and by row group whether the footer says that none meets it.
    filter: Option<Filter>,
    skipped: Vec<bool>,
    shard: Shard,
    /// Where rows that have a path in place of content are read.
    beside: Option<Beside>,
    source: Source,
    max_document_bytes: u64,
    footer_bytes: u64,
    /// What the open row group's pages and a batch of its rows take.
    group_bytes: u64,
}

impl ParquetReader {
    /// As [`RowReader::open`](super::RowReader::open).
    pub(super) fn open(
        shard: &Shard,
        source: &Source,
        max_document_bytes: u64,
        max_bytes: u64,
        units: &[Range<u64>],
    ) -> Result<ParquetReader, SourceError> {
        let path = &shard.file.path;
        let mut bytes = shard.open_unchanged(source.cache)?;
        let footer = Footer::read(&mut bytes.file, path, max_bytes)?;
        let mut columns = Columns::find(&footer, source, path).map_err(changed_or_unreachable)?;
        let context = || format!("failed to read {}", path.display());
        let metadata = guarded(context, || columns.binary_view(&footer))?;
        let projection = columns.projection(metadata.parquet_schema());
        let filter = columns.filter.take();
        let skipped = filter.as_ref().map_or_else(Vec::new, |filter| footer.skipped(filter));
        let mut groups = group_rows(&shard.row_groups, units);
        groups.retain(|group| !skipped.get(group.index).is_some_and(|skipped| *skipped));
        Ok(ParquetReader {
            file: Arc::new(
                bytes
                    .file
                    .try_clone()
                    .map_err(|error| SourceError::Data(format!("{}: {error}", context())))?,
            ),
            bytes,
            content_leaf: columns.content_leaf,
            projection,
            metadata,
            groups: groups.into_iter(),
            filter,
            skipped,
            brought: Vec::new(),
            batches: None,
            pending: None,
            units: units.iter().cloned().collect(),
            next_row: units.first().map_or(0, |rows| rows.start),
            shard: shard.clone(),
            beside: Beside::of(&shard.file, source, max_document_bytes),
            source: source.clone(),
            max_document_bytes,
            footer_bytes: footer.bytes,
            group_bytes: 0,
        })
    }

    /// As [`RowReader::read`](super::RowReader::read).
    pub(super) fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        let mut batch = RawBatch::new(unit.clone());
        let mut carried = Vec::new();
        let mut bytes_left = content_bound(&unit, self.max_document_bytes);
        let mut held = self.held();
        grant(held)?;
        self.pass_over_units(&unit.rows);
        self.next_row = unit.rows.start;
        if self.units.pop_front().as_ref() != Some(&unit.rows) {
            let problem = "the rows were asked for out of order";
            return Err(SourceError::Data(format!("{}: {problem}", self.context())));
        }
        while self.next_row < unit.rows.end {
            if let Some(end) = self.skipped_until() {
                let n = end.min(unit.rows.end) - self.next_row;
                batch.n_filtered += n;
                if !self.source.carry.is_empty() {
                    let nulls = self.carried_nulls(n as usize)?;
                    held.carried += nulls.columns().iter().map(|column| value_bytes(column)).sum::<u64>();
                    grant(held)?;
                    carried.push(nulls);
                }
                self.next_row += n;
                continue;
            }
            let rows = match self.pending.take() {
                Some(rows) => rows,
                None => self.decode(&mut |reader| {
                    held.reader = reader;
                    grant(held)
                })?,
            };
            let wanted = (unit.rows.end - self.next_row).min(rows.num_rows() as u64) as usize;
            if wanted < rows.num_rows() {
                self.pending = Some(rows.slice(wanted, rows.num_rows() - wanted));
            }
            let rows = rows.slice(0, wanted);
            let verdicts = self.verdicts(&rows)?;
            let (inside, beside) = self.content_bytes(&rows, &verdicts)?;
            held.content += inside + beside;
            held.reader = self.held().reader;
            if !self.source.carry.is_empty() {
                held.carried += self.carried_bytes(&rows);
            }
            grant(held)?;
            self.collect(&rows, verdicts, &mut batch)?;
            bytes_left = bytes_left.checked_sub(inside).ok_or_else(|| {
                SourceError::Data(format!(
                    "{}: the unit holds far more than the {} bytes of content that the footer tells; a lower \
                     sink.unit_bytes cuts it smaller",
                    self.context(),
                    unit.content_bytes
                ))
            })?;
            if !self.source.carry.is_empty() {
                carried.push(self.carried(&rows)?);
            }
            self.next_row += wanted as u64;
        }
        if let Some(first) = carried.first() {
            let all = concat_batches(&first.schema(), &carried);
            batch.carried =
                Some(all.map_err(|error| SourceError::Data(format!("{}: {error}", self.context())))?);
        }
        Ok(batch)
    }

    /// Leaves out the units before `rows`: another process does them.
    fn pass_over_units(&mut self, rows: &Range<u64>) {
        let n_before = self.units.len();
        while self.units.front().is_some_and(|next| next.end <= rows.start) {
            self.units.pop_front();
        }
        if self.units.len() == n_before {
            return;
        }
        (self.batches, self.pending) = (None, None);
        let mut groups = group_rows(&self.shard.row_groups, self.units.make_contiguous());
        groups.retain(|group| !self.skipped.get(group.index).is_some_and(|skipped| *skipped));
        self.groups = groups.into_iter();
    }

    fn context(&self) -> String {
        let mut end = 0;
        let group = self.shard.row_groups.iter().position(|g| {
            end += g.rows;
            self.next_row < end
        });
        let group = group.unwrap_or(self.shard.row_groups.len().saturating_sub(1));
        format!(
            "failed to read row group {group} of {} at row {}",
            self.shard.file.path.display(),
            self.next_row
        )
    }

    fn held(&self) -> Held {
        let beside = self.beside.as_ref().map_or(0, Beside::held);
        let reader = self.footer_bytes.saturating_add(self.group_bytes).saturating_add(beside);
        Held { reader, ..Held::default() }
    }

    /// The next batch; `grant` is asked for what the reader will hold when it opens a row group.
    fn decode(
        &mut self,
        grant: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<RecordBatch, SourceError> {
        let context = self.context();
        loop {
            if let Some(batches) = &mut self.batches {
                let next = guarded(|| context.clone(), || batches.next().transpose())?;
                if let Some(rows) = next.filter(|rows| rows.num_rows() > 0) {
                    return Ok(rows);
                }
            }
            match self.groups.next() {
                Some(group) if group.first_row == self.next_row => {
                    // Room for the next group's pages is that of the last one's.
                    self.batches = None;
                    self.bring(group.index)?;
                    let mut chunks = guarded(|| context.clone(), || self.survey(group.index))?;
                    self.group_bytes =
                        chunks.values().map(ChunkPages::page_bytes).fold(0, u64::saturating_add);
                    grant(self.held().reader)?;
                    guarded(
                        || context.clone(),
                        || chunks.values_mut().try_for_each(ChunkPages::read_dictionary),
                    )?;
                    let (batch_rows, bytes) = batch_rows(&self.shard.row_groups[group.index], &chunks);
                    self.group_bytes = bytes;
                    grant(self.held().reader)?;
                    self.batches =
                        Some(guarded(|| context.clone(), || self.decoder(group, batch_rows, chunks))?);
                }
                _ => {
                    let problem = "the file has fewer rows than its footer says";
                    return Err(SourceError::Data(format!("{context}: {problem}")));
                }
            }
        }
    }

    /// Brings the projected columns of a row group from where the file lies, and begins with those of the next one.
    fn bring(&mut self, group: usize) -> Result<(), SourceError> {
        let context = self.context();
        let wanted = guarded(|| context.clone(), || Ok::<_, String>(self.chunks(group)))?;
        // Behind units that were left out a group may be opened once more.
        if wanted != self.brought {
            self.bytes.forget(&self.brought);
        }
        self.brought = wanted;
        self.bytes.bring(&self.brought).map_err(changed_or_unreachable)?;
        match self.groups.as_slice().first() {
            Some(next) => {
                self.bytes.begin(&guarded(|| context.clone(), || Ok::<_, String>(self.chunks(next.index)))?)
            }
            None => Ok(()),
        }
    }

    /// Where the projected columns of a row group are in the file.
    fn chunks(&self, group: usize) -> Vec<Range<u64>> {
        let group = self.metadata.metadata().row_group(group);
        let leaves = (0..group.num_columns()).filter(|&leaf| self.projection.leaf_included(leaf));
        let range = |leaf| {
            let (start, length) = group.column(leaf).byte_range();
            start..start.saturating_add(length)
        };
        leaves.map(range).collect()
    }

    /// The page headers of the projected columns of a row group.
    fn survey(&self, group: usize) -> Result<BTreeMap<usize, ChunkPages>, ParquetError> {
        let group = self.metadata.metadata().row_group(group);
        let leaves = (0..group.num_columns()).filter(|&leaf| self.projection.leaf_included(leaf));
        leaves
            .map(|leaf| {
                let longest = (leaf == self.content_leaf).then_some(self.max_document_bytes);
                let rows = group.num_rows() as usize;
                Ok((leaf, ChunkPages::survey(&self.file, group.column(leaf), rows, longest)?))
            })
            .collect()
    }

    fn decoder(
        &self,
        group: GroupRows,
        batch_rows: usize,
        chunks: BTreeMap<usize, ChunkPages>,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let rows = self.shard.row_groups[group.index].rows as usize;
        let selection = RowSelection::from_consecutive_ranges(group.ranges.into_iter(), rows);
        let levels = parquet_to_arrow_field_levels(
            self.metadata.parquet_schema(),
            self.projection.clone(),
            Some(self.metadata.schema().fields()),
        )?;
        let group = SurveyedGroup {
            metadata: self.metadata.metadata().clone(),
            index: group.index,
            chunks: RefCell::new(chunks),
        };
        ParquetRecordBatchReader::try_new_with_row_groups(&levels, &group, batch_rows, Some(selection))
    }

    fn content<'a>(&self, rows: &'a RecordBatch) -> Result<ContentColumn<'a>, SourceError> {
        let content = rows.column_by_name(&self.source.content).and_then(|column| ContentColumn::of(column));
        content.ok_or_else(|| self.absent())
    }

    fn absent(&self) -> SourceError {
        SourceError::Data(format!("{}: a planned column is absent", self.context()))
    }

    /// Whether each of `rows`, the next ones, counts.
    fn verdicts(&self, rows: &RecordBatch) -> Result<Vec<Verdict>, SourceError> {
        let mut verdicts = match &self.filter {
            None => vec![Verdict::Keep; rows.num_rows()],
            Some(filter) => {
                let most = self.max_document_bytes;
                let is_whole = |column: &str, cell: &[u8]| {
                    column != self.source.content
                        || unread_length(cell).is_none() && cell.len() as u64 <= most
                };
                filter.verdicts(rows, is_whole).map_err(|problem| {
                    SourceError::Data(format!("{}: source.where: {problem}", self.context()))
                })?
            }
        };
        if let Some(sample) = &self.source.sample {
            for (row, verdict) in (self.next_row..).zip(&mut verdicts) {
                if !sample.keeps(&self.shard.file.source_file, row) {
                    *verdict = Verdict::Drop;
                }
            }
        }
        Ok(verdicts)
    }

    /// End of the row group that the next row is in, if none of its rows counts.
    fn skipped_until(&self) -> Option<u64> {
        let mut end = 0;
        let mut groups = self.shard.row_groups.iter().zip(&self.skipped);
        let (_, skipped) = groups.find(|(group, _)| {
            end += group.rows;
            self.next_row < end
        })?;
        skipped.then_some(end)
    }

    /// Bytes of the content of `rows` that will be kept: in the shard, and in files beside it.
    fn content_bytes(&mut self, rows: &RecordBatch, verdicts: &[Verdict]) -> Result<(u64, u64), SourceError> {
        let mut beside = self.beside.take();
        let content = self.content(rows)?;
        let paths = self.paths(rows)?;
        let (mut inside, mut outside) = (0, 0);
        for (row, _) in verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::Keep) {
            match (content.get(row), &mut beside) {
                (Some(bytes), _) => {
                    inside += Some(bytes.len() as u64).filter(|&n| n <= self.max_document_bytes).unwrap_or(0);
                }
                (None, Some(beside)) => {
                    let path = text_of(path_of(&content, paths.as_ref(), row));
                    // What cannot be had is told when it is read.
                    outside += path.and_then(|path| beside.size(&path).ok()).unwrap_or(0);
                }
                (None, None) => {}
            }
        }
        self.beside = beside;
        Ok((inside, outside))
    }

    /// What stands for the carried columns of rows that were not read.
    fn carried_nulls(&self, n_rows: usize) -> Result<RecordBatch, SourceError> {
        let schema = self.carried_schema();
        let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), n_rows)).collect();
        RecordBatch::try_new(schema, columns)
            .map_err(|error| SourceError::Data(format!("{}: {error}", self.context())))
    }

    fn carried_schema(&self) -> Arc<Schema> {
        let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
        Arc::new(Schema::new(self.shard.carried.iter().map(nullable).collect::<Vec<_>>()))
    }

    fn carried_bytes(&self, rows: &RecordBatch) -> u64 {
        let columns = self.source.carry.iter().filter_map(|name| rows.column_by_name(name));
        columns.map(|column| value_bytes(column)).sum()
    }

    fn carried(&self, rows: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let fields = self.source.carry.iter().zip(&self.shard.carried);
        let columns = fields.filter_map(|(name, field)| {
            // The id column is read as binary. An id that is no text turns null, its row is in quarantine.
            rows.column_by_name(name).map(|column| cast(column, field.data_type()))
        });
        columns
            .collect::<Result<_, _>>()
            .and_then(|columns| RecordBatch::try_new(self.carried_schema(), columns))
            .map_err(|error| SourceError::Data(format!("{}: {error}", self.context())))
    }

    /// The column `source.path`, if the plan names one.
    fn paths<'a>(&self, rows: &'a RecordBatch) -> Result<Option<BytesColumn<'a>>, SourceError> {
        self.text(&self.source.path, rows)
    }

    fn text<'a>(
        &self,
        name: &Option<String>,
        rows: &'a RecordBatch,
    ) -> Result<Option<BytesColumn<'a>>, SourceError> {
        let Some(name) = name else { return Ok(None) };
        let column = rows.column_by_name(name).and_then(|column| BytesColumn::of(column));
        column.map(Some).ok_or_else(|| self.absent())
    }

    /// Adds `rows` to `batch`.
    fn collect(
        &mut self,
        rows: &RecordBatch,
        verdicts: Vec<Verdict>,
        batch: &mut RawBatch,
    ) -> Result<(), SourceError> {
        let mut beside = self.beside.take();
        let contents = self.content(rows)?;
        let ids = match rows.column_by_name(&self.source.id.name) {
            Some(column) => Some(IdColumn::of(column).ok_or_else(|| self.absent())?),
            None => None,
        };
        let (paths, languages) = (self.paths(rows)?, self.text(&self.source.language, rows)?);
        for (index, verdict) in verdicts.into_iter().enumerate() {
            let path = text_of(path_of(&contents, paths.as_ref(), index));
            let language = text_of(languages.as_ref().and_then(|languages| languages.get(index)));
            let content = match contents.get(index) {
                None if verdict == Verdict::Keep => absent_content(path.as_deref(), beside.as_mut()),
                None => Err(String::new()),
                Some(bytes) => {
                    let n = unread_length(bytes).unwrap_or(bytes.len() as u64);
                    too_long(n, self.max_document_bytes).map_or(Ok(bytes.into()), Err)
                }
            };
            let id = ids.as_ref().map_or(Ok(None), |ids| ids.get(index));
            let found = FoundRow { verdict, id, content, path, language };
            settle(batch, &self.shard.file.source_file, self.next_row + index as u64, found);
        }
        self.beside = beside;
        Ok(())
    }
}

/// The path of a row, as bytes: of the column for it, or beside its content.
fn path_of<'a>(
    contents: &ContentColumn<'a>,
    paths: Option<&BytesColumn<'a>>,
    index: usize,
) -> Option<&'a [u8]> {
    match paths {
        Some(paths) => paths.get(index),
        None => contents.path(index),
    }
}

/// A path or the name of a language; one that is no text tells nothing.
fn text_of(cell: Option<&[u8]>) -> Option<String> {
    std::str::from_utf8(cell?).ok().map(name_of)
}

/// Rows of one row group that units ask for.
struct GroupRows {
    index: usize,
    /// The first of them, counted in the file.
    first_row: u64,
    /// Counted in the row group.
    ranges: Vec<Range<usize>>,
}

/// The row groups that hold rows of `units`, ranges in order that do not overlap.
fn group_rows(row_groups: &[RowGroup], mut units: &[Range<u64>]) -> Vec<GroupRows> {
    let mut selected = Vec::new();
    let mut start = 0;
    // A group without rows is none: what is read next is found by its first row.
    for (index, group) in row_groups.iter().enumerate().filter(|(_, group)| group.rows > 0) {
        let end = start + group.rows;
        while units.first().is_some_and(|rows| rows.end <= start) {
            units = &units[1..];
        }
        let inside = units.iter().take_while(|rows| rows.start < end);
        let inside = inside.map(|rows| rows.start.max(start)..rows.end.min(end));
        let ranges: Vec<Range<usize>> =
            inside.map(|rows| (rows.start - start) as usize..(rows.end - start) as usize).collect();
        if let Some(first) = ranges.first() {
            selected.push(GroupRows { index, first_row: start + first.start as u64, ranges });
        }
        start = end;
    }
    selected
}

/// What a unit may hold: a column of few values, repeated, is larger than its footer tells, but memory was
/// set aside for what it tells.
fn content_bound(unit: &Unit, max_document_bytes: u64) -> u64 {
    unit.content_bytes.saturating_mul(16).max(64 << 20).max(max_document_bytes)
}

/// Rows to decode in one go, and the bytes that they and the pages they come from take at their most.
fn batch_rows(group: &RowGroup, chunks: &BTreeMap<usize, ChunkPages>) -> (usize, u64) {
    let sum = |bytes: &dyn Fn(&ChunkPages) -> u64| chunks.values().map(bytes).fold(0, u64::saturating_add);
    let batch_bytes = |rows| sum(&|chunk| chunk.batch_bytes(rows));
    let average = (group.weight() / group.rows.max(1)).max(1);
    let mut rows = (TARGET_BATCH_BYTES / average).clamp(1, MAX_BATCH_ROWS).min(group.rows.max(1));
    let most = batch_bytes(1).saturating_mul(2).max(MAX_BATCH_BYTES);
    while rows > 1 && batch_bytes(rows) > most {
        rows /= 2;
    }
    (rows as usize, sum(&ChunkPages::page_bytes).saturating_add(batch_bytes(rows)))
}

/// A row group whose columns are read page by page as they were surveyed.
struct SurveyedGroup {
    metadata: Arc<ParquetMetaData>,
    index: usize,
    /// Taken out as they are asked for.
    chunks: RefCell<BTreeMap<usize, ChunkPages>>,
}

impl RowGroups for SurveyedGroup {
    fn num_rows(&self) -> usize {
        self.metadata.row_group(self.index).num_rows() as usize
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        let pages = self.chunks.borrow_mut().remove(&leaf);
        let pages = pages
            .ok_or_else(|| ParquetError::General(format!("column {leaf} is not one of those to read")))?;
        Ok(Box::new(OneChunk(Some(pages))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.row_group(self.index)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

struct OneChunk(Option<ChunkPages>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(Box::new(pages) as Box<dyn PageReader>))
    }
}

impl PageIterator for OneChunk {}
