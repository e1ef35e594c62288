//! Reads footers and rows of Parquet files, batch by batch. Knows nothing of patches, models or threads.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use ::parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowGroups, RowSelection,
        },
        parquet_to_arrow_field_levels,
    },
    basic::Type as PhysicalType,
    column::page::{PageIterator, PageReader},
    errors::ParquetError,
    file::metadata::{
        ColumnChunkMetaData, FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
        RowGroupMetaData,
    },
    schema::types::{SchemaDescriptor, Type, TypePtr},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};
use sha2::{Digest, Sha256};

use super::{
    RowGroup, ShardFile, SourceError,
    pages::{ChunkPages, unread_length},
    thrift,
};
use crate::{
    config::Source,
    data::{RawBatch, RawRow, Rejected, Unit, value_bytes},
};

/// Name of this station in the quarantine table.
const STAGE: &str = "source";
/// A batch is decoded in one go; this is what it should hold.
const TARGET_BATCH_BYTES: u64 = 1 << 20;
/// What it may hold where rows differ much, unless a single page is larger.
const MAX_BATCH_BYTES: u64 = 4 << 20;
const MAX_BATCH_ROWS: u64 = 1024;

/// What tells one version of a shard from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256, hex, of its footer; of its last bytes when it has none that can be told.
    pub footer_sha256: String,
}

/// A shard whose footer has been read.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The file and its name in the output.
    pub file: ShardFile,
    /// What the rest of the plan relies on.
    pub identity: Identity,
    /// Row groups in file order.
    pub row_groups: Vec<RowGroup>,
    /// Fields of the carried columns.
    pub carried: Fields,
}

/// Reads the footer of `file` and finds the columns that `source` names. A footer that takes more than `max_bytes` of
/// memory is not read.
///
/// # Errors
/// [`SourceError::Plan`] when the file cannot be opened, or a column is missing or of a type that holds
/// no content; [`SourceError::Data`] with the shard's identity when its footer cannot be read.
pub fn open_shard(
    file: &ShardFile,
    source: &Source,
    max_bytes: u64,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let mut handle = open(&file.path)?;
    let identity = identify(&mut handle, &file.path)?;
    let footer = match Footer::read(&mut handle, &file.path, max_bytes) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err((identity, error))),
    };
    let columns = Columns::find(&footer, source, &file.path)?;
    let row_groups = footer.row_groups(&columns);
    Ok(Ok(Shard { file: file.clone(), identity, row_groups, carried: columns.carried }))
}

fn open(path: &Path) -> Result<File, SourceError> {
    File::open(path).map_err(|error| SourceError::Plan(format!("failed to open {}: {error}", path.display())))
}

fn identify(file: &mut File, path: &Path) -> Result<Identity, SourceError> {
    let failed = |error| SourceError::Plan(format!("failed to read {}: {error}", path.display()));
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut tail = [0u8; 8];
    let mut footer_bytes = 8.min(bytes);
    if bytes >= 12 {
        file.seek(SeekFrom::End(-8)).map_err(failed)?;
        file.read_exact(&mut tail).map_err(failed)?;
        let claimed = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        // A file without a footer is known by its end: enough to see that it was replaced.
        footer_bytes = if claimed + 12 <= bytes { claimed + 8 } else { bytes.min(64 << 10) };
    }
    file.seek(SeekFrom::Start(bytes - footer_bytes)).map_err(failed)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file.take(footer_bytes), &mut hash).map_err(failed)?;
    Ok(Identity { bytes, footer_sha256: format!("{:x}", hash.finalize()) })
}

/// Calls into the Parquet decoder, which panics on some corrupt files instead of returning an error.
fn guarded<T, E: std::fmt::Display>(
    context: impl Fn() -> String,
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, SourceError> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(SourceError::Data(format!("{}: {error}", context()))),
        Err(_) => Err(SourceError::Data(format!("{}: the bytes are not valid Parquet", context()))),
    }
}

struct Footer {
    metadata: ParquetMetaData,
    schema: SchemaRef,
    /// About what it takes in memory.
    bytes: u64,
}

impl Footer {
    fn read(file: &mut File, path: &Path, max_bytes: u64) -> Result<Footer, SourceError> {
        let context = || format!("failed to read the footer of {}", path.display());
        let bytes = Self::cost(file, max_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => SourceError::Memory(format!(
                "{}: in memory {error}, more than limits.memory = {max_bytes}; raise it, or split the file",
                context()
            )),
            _ => SourceError::Data(format!("{}: {error}", context())),
        })?;
        let file = &*file;
        guarded(context, || {
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Skip)
                .parse_and_finish(file)?;
            // Writers disagree with themselves at times; the Parquet types alone are enough then.
            let metadata = Arc::new(metadata);
            let strict = ArrowReaderOptions::new();
            let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let read = ArrowReaderMetadata::try_new(metadata.clone(), strict)
                .or_else(|_| ArrowReaderMetadata::try_new(metadata.clone(), plain))?;
            let schema = read.schema().clone();
            drop(read);
            Ok::<_, ParquetError>(Footer { metadata: Arc::unwrap_or_clone(metadata), schema, bytes })
        })
        .and_then(|footer| footer.checked(path))
    }

    /// About how much memory the footer will take. One that is not in its place, or encrypted, is left to the decoder, which
    /// tells such from others before it allocates.
    fn cost(file: &mut File, max_bytes: u64) -> io::Result<u64> {
        let end = file.seek(SeekFrom::End(0))?;
        let Some(tail) = end.checked_sub(8) else { return Ok(0) };
        let mut bytes = [0; 8];
        file.seek(SeekFrom::Start(tail))?;
        file.read_exact(&mut bytes)?;
        let [a, b, c, d, magic @ ..] = bytes;
        let claimed = u64::from(u32::from_le_bytes([a, b, c, d]));
        let (b"PAR1", Some(start)) = (&magic, tail.checked_sub(claimed)) else { return Ok(0) };
        file.seek(SeekFrom::Start(start))?;
        thrift::footer_cost(BufReader::new(file), claimed, max_bytes)
    }

    fn checked(self, path: &Path) -> Result<Footer, SourceError> {
        let plausible =
            self.metadata.row_groups().iter().all(|g| g.num_rows() >= 0 && g.total_byte_size() >= 0);
        if plausible {
            return Ok(self);
        }
        Err(SourceError::Data(format!(
            "failed to read the footer of {}: a row group has a negative size",
            path.display()
        )))
    }

    fn row_groups(&self, columns: &Columns) -> Vec<RowGroup> {
        let schema = self.metadata.file_metadata().schema_descr();
        let is_carried = |leaf: &usize| columns.carry.contains(&schema.get_column_root_idx(*leaf));
        let carried: Vec<usize> = (0..schema.num_columns()).filter(is_carried).collect();
        // A dictionary makes the column smaller than its values are; newer writers tell their size too.
        let bytes = |column: &ColumnChunkMetaData| {
            column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0)
                as u64
        };
        let groups = self.metadata.row_groups().iter();
        groups
            .map(|g| RowGroup {
                rows: g.num_rows().max(0) as u64,
                content_bytes: bytes(g.column(columns.content_leaf)),
                carried_bytes: carried.iter().map(|&leaf| bytes(g.column(leaf))).fold(0, u64::saturating_add),
            })
            .collect()
    }
}

/// Where in a file the plan's columns are.
struct Columns {
    content: usize,
    content_leaf: usize,
    id: Option<usize>,
    carry: Vec<usize>,
    carried: Fields,
}

impl Columns {
    fn find(footer: &Footer, source: &Source, path: &Path) -> Result<Columns, SourceError> {
        let parquet = footer.metadata.file_metadata().schema_descr();
        let roots = parquet.root_schema().get_fields();
        let position = |name: &str| roots.iter().position(|field| field.name() == name);
        let missing = |key: &str, name: &str| {
            let names: Vec<&str> = roots.iter().map(|field| field.name()).collect();
            SourceError::Plan(format!(
                "{key} = {name:?}: {} has no such column; it has {}",
                path.display(),
                names.join(", ")
            ))
        };
        let wrong_type = |key: &str, index: usize, expected: &str| {
            SourceError::Plan(format!(
                "{key} = {:?}: in {} this column is {}; expected {expected}",
                roots[index].name(),
                path.display(),
                footer.schema.field(index).data_type(),
            ))
        };

        let content = position(&source.content).ok_or_else(|| missing("source.content", &source.content))?;
        let leaf_path: Vec<&str> = match footer.schema.field(content).data_type() {
            data_type if is_bytes(data_type) => vec![&source.content],
            DataType::Struct(fields)
                if fields.find("bytes").is_some_and(|(_, f)| is_bytes(f.data_type())) =>
            {
                vec![&source.content, "bytes"]
            }
            _ => {
                let expected = "strings, binary, or a struct with a binary field `bytes`";
                return Err(wrong_type("source.content", content, expected));
            }
        };
        let content_leaf = (0..parquet.num_columns())
            .find(|&leaf| parquet.column(leaf).path().parts() == leaf_path)
            .ok_or_else(|| missing("source.content", &source.content))?;

        let id = match position(&source.id.name) {
            None if source.id.required => return Err(missing("source.id", &source.id.name)),
            None => None,
            Some(index) => {
                let data_type = footer.schema.field(index).data_type();
                if !is_bytes(data_type) && !data_type.is_integer() {
                    return Err(wrong_type("source.id", index, "strings, binary or integers"));
                }
                Some(index)
            }
        };
        let carry = source
            .carry
            .iter()
            .map(|name| position(name).ok_or_else(|| missing("source.carry", name)))
            .collect::<Result<Vec<_>, _>>()?;
        let carried = carry.iter().map(|&index| footer.schema.fields()[index].clone()).collect();
        Ok(Columns { content, content_leaf, id, carry, carried })
    }

    /// The footer with the content and id columns as plain binary, so that neither strings that are not
    /// UTF-8 nor batches over 2 GiB can fail, and everything else as it is.
    fn binary_view(&self, footer: &Footer) -> Result<ArrowReaderMetadata, ParquetError> {
        let file = footer.metadata.file_metadata();
        let root = file.schema_descr().root_schema();
        let mut types = root.get_fields().to_vec();
        let mut fields: Vec<Arc<Field>> = footer.schema.fields().iter().cloned().collect();
        for index in [Some(self.content), self.id].into_iter().flatten() {
            types[index] = plain_type(&types[index])?;
            fields[index] = plain_field(&types[index], &fields[index]);
        }
        let root = Type::group_type_builder(root.name()).with_fields(types).build()?;
        let file = FileMetaData::new(
            file.version(),
            file.num_rows(),
            file.created_by().map(String::from),
            None,
            Arc::new(SchemaDescriptor::new(Arc::new(root))),
            file.column_orders().cloned(),
        );
        let metadata = ParquetMetaData::new(file, footer.metadata.row_groups().to_vec());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        ArrowReaderMetadata::try_new(Arc::new(metadata), options)
    }

    fn projection(&self, schema: &SchemaDescriptor) -> ProjectionMask {
        let roots: Vec<usize> = self.carry.iter().copied().chain(self.id).collect();
        let leaves = (0..schema.num_columns())
            .filter(|&leaf| leaf == self.content_leaf || roots.contains(&schema.get_column_root_idx(leaf)));
        ProjectionMask::leaves(schema, leaves)
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            true
        }
        DataType::Dictionary(_, value) => is_bytes(value),
        _ => false,
    }
}

/// `field` (or its child `bytes`) without the annotation that makes it a string.
fn plain_type(field: &TypePtr) -> Result<TypePtr, ParquetError> {
    let info = field.get_basic_info();
    let plain = match field.as_ref() {
        Type::PrimitiveType { physical_type: PhysicalType::BYTE_ARRAY, .. } => {
            Type::primitive_type_builder(field.name(), PhysicalType::BYTE_ARRAY)
                .with_repetition(info.repetition())
                .build()?
        }
        Type::GroupType { fields, .. } => {
            let mut fields = fields.clone();
            for child in fields.iter_mut().filter(|child| child.name() == "bytes") {
                *child = plain_type(child)?;
            }
            Type::group_type_builder(field.name())
                .with_repetition(info.repetition())
                .with_fields(fields)
                .build()?
        }
        Type::PrimitiveType { .. } => return Ok(field.clone()),
    };
    Ok(Arc::new(plain))
}

/// Arrow field for a type of [`plain_type`]. Lengths of 64 bits, because a batch may exceed 2 GiB.
fn plain_field(plain: &Type, field: &Field) -> Arc<Field> {
    let data_type = match plain {
        Type::PrimitiveType { physical_type: PhysicalType::BYTE_ARRAY, .. } => DataType::LargeBinary,
        Type::GroupType { fields: types, .. } => match field.data_type() {
            DataType::Struct(children) => {
                let child = |(plain, child): (&TypePtr, &Arc<Field>)| match child.name().as_str() {
                    "bytes" => plain_field(plain, child),
                    _ => child.clone(),
                };
                DataType::Struct(types.iter().zip(children.iter()).map(child).collect())
            }
            other => other.clone(),
        },
        Type::PrimitiveType { .. } => match field.data_type() {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        },
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

/// Reads units of one shard, in order, in one pass over the file.
///
/// Row groups are decoded one by one: what is wrong with one of them must not reach the units of others.
pub struct RowReader {
    file: Arc<File>,
    metadata: ArrowReaderMetadata,
    content_leaf: usize,
    projection: ProjectionMask,
    groups: std::vec::IntoIter<GroupRows>,
    batches: Option<ParquetRecordBatchReader>,
    pending: Option<RecordBatch>,
    /// Rows of the units to come: what is asked for must be what comes next.
    units: VecDeque<Range<u64>>,
    next_row: u64,
    shard: Shard,
    source: Source,
    max_document_bytes: u64,
    footer_bytes: u64,
    /// What the open row group's pages and a batch of its rows take.
    group_bytes: u64,
}

/// What a [`RowReader`] has in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The reader itself, from unit to unit: footer, pages, a batch.
    pub reader: u64,
    /// Content of the unit's rows so far.
    pub content: u64,
    /// Carried columns of the unit's rows so far.
    pub carried: u64,
}

/// Asked before more is held than before, with all that will be; an error ends the reading.
pub type Grant<'a> = dyn FnMut(Held) -> Result<(), SourceError> + 'a;

impl RowReader {
    /// Opens `shard` to read the rows of `units`, ranges in order that do not overlap. Documents are at most
    /// `max_document_bytes` long; a footer that takes more than `max_bytes` is not read.
    ///
    /// # Errors
    /// [`SourceError::Data`] when the file is not the one that was planned, or cannot be read;
    /// [`SourceError::Memory`] when its footer takes too much.
    pub fn open(
        shard: &Shard,
        source: &Source,
        max_document_bytes: u64,
        max_bytes: u64,
        units: &[Range<u64>],
    ) -> Result<RowReader, SourceError> {
        let path = &shard.file.path;
        let changed = |error: SourceError| SourceError::Data(error.to_string());
        let mut file = open(path).map_err(changed)?;
        if identify(&mut file, path).map_err(changed)? != shard.identity {
            return Err(SourceError::Data(format!(
                "{} is not the file that was planned: its size or footer changed since",
                path.display()
            )));
        }
        let footer = Footer::read(&mut file, path, max_bytes)?;
        let columns = Columns::find(&footer, source, path).map_err(changed)?;
        let context = || format!("failed to read {}", path.display());
        let metadata = guarded(context, || columns.binary_view(&footer))?;
        Ok(RowReader {
            file: Arc::new(file),
            content_leaf: columns.content_leaf,
            projection: columns.projection(metadata.parquet_schema()),
            metadata,
            groups: group_rows(&shard.row_groups, units).into_iter(),
            batches: None,
            pending: None,
            units: units.iter().cloned().collect(),
            next_row: units.first().map_or(0, |rows| rows.start),
            shard: shard.clone(),
            source: source.clone(),
            max_document_bytes,
            footer_bytes: footer.bytes,
            group_bytes: 0,
        })
    }

    /// Rows of `unit`, the next of the units this reader was opened for. Rows longer than a document may be are rejected
    /// without being held.
    ///
    /// # Errors
    /// [`SourceError::Data`], naming file and row group, when they cannot be decoded, and whatever `grant` returns; the
    /// reader is of no use after that.
    pub fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        let mut batch = RawBatch {
            unit: unit.clone(),
            rows: Vec::new(),
            rejected: Vec::new(),
            n_filtered: 0,
            carried: None,
        };
        let mut carried = Vec::new();
        let mut bytes_left = content_bound(&unit, self.max_document_bytes);
        let mut held = self.held();
        grant(held)?;
        self.next_row = unit.rows.start;
        if self.units.pop_front().as_ref() != Some(&unit.rows) {
            let problem = "the rows were asked for out of order";
            return Err(SourceError::Data(format!("{}: {problem}", self.context())));
        }
        while self.next_row < unit.rows.end {
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
            held.content += self.content_bytes(&rows)?;
            if !self.source.carry.is_empty() {
                held.carried += self.carried_bytes(&rows);
            }
            grant(held)?;
            let bytes = self.collect(&rows, &mut batch)?;
            bytes_left = bytes_left.checked_sub(bytes).ok_or_else(|| {
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
        Held { reader: self.footer_bytes.saturating_add(self.group_bytes), ..Held::default() }
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

    /// Bytes of the content of `rows` that will be kept.
    fn content_bytes(&self, rows: &RecordBatch) -> Result<u64, SourceError> {
        let content = self.content(rows)?;
        let lengths = (0..rows.num_rows()).filter_map(|row| content.get(row)).map(|bytes| bytes.len() as u64);
        Ok(lengths.filter(|&n| n <= self.max_document_bytes).sum())
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
            .and_then(|columns| {
                RecordBatch::try_new(Arc::new(Schema::new(self.shard.carried.clone())), columns)
            })
            .map_err(|error| SourceError::Data(format!("{}: {error}", self.context())))
    }

    /// Adds `rows` to `batch`; returns the bytes of their content.
    fn collect(&self, rows: &RecordBatch, batch: &mut RawBatch) -> Result<u64, SourceError> {
        let content = self.content(rows)?;
        let ids = match rows.column_by_name(&self.source.id.name) {
            Some(column) => Some(IdColumn::of(column).ok_or_else(|| self.absent())?),
            None => None,
        };
        let mut n_bytes = 0;
        for index in 0..rows.num_rows() {
            let source_row = self.next_row + index as u64;
            let file = &self.shard.file.source_file;
            if let Some(sample) = &self.source.sample
                && !sample.keeps(file, source_row)
            {
                batch.n_filtered += 1;
                continue;
            }
            let fallback = || format!("{file}#{source_row}");
            let doc_id = ids.as_ref().map_or(Ok(None), |ids| ids.get(index));
            let (doc_id, problem) = match doc_id {
                Ok(id) => (id.unwrap_or_else(fallback), None),
                Err(problem) => (fallback(), Some(problem)),
            };
            let checked = match (problem, content.get(index)) {
                (Some(problem), _) => Err(problem),
                (None, None) => Err("the content is null".to_owned()),
                (None, Some(bytes)) => {
                    let n = unread_length(bytes).unwrap_or(bytes.len() as u64);
                    let most = self.max_document_bytes;
                    if n > most {
                        Err(format!("{n} bytes of content, more than limits.max_document_bytes = {most}"))
                    } else {
                        Ok(bytes)
                    }
                }
            };
            match checked {
                Ok(bytes) => {
                    n_bytes += bytes.len() as u64;
                    batch.rows.push(RawRow { source_row, doc_id, content: bytes.to_vec() });
                }
                Err(reason) => batch.rejected.push(Rejected { source_row, doc_id, stage: STAGE, reason }),
            }
        }
        Ok(n_bytes)
    }
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
    for (index, group) in row_groups.iter().enumerate() {
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

struct ContentColumn<'a> {
    bytes: BytesColumn<'a>,
    outer: Option<&'a dyn Array>,
}

impl<'a> ContentColumn<'a> {
    fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::Struct(_) => {
                let bytes = column.as_struct().column_by_name("bytes")?;
                Some(ContentColumn { bytes: BytesColumn::of(bytes)?, outer: Some(column) })
            }
            _ => Some(ContentColumn { bytes: BytesColumn::of(column)?, outer: None }),
        }
    }

    fn get(&self, index: usize) -> Option<&'a [u8]> {
        if self.outer.is_some_and(|outer| outer.is_null(index)) {
            return None;
        }
        self.bytes.get(index)
    }
}

enum BytesColumn<'a> {
    Variable(&'a arrow::array::LargeBinaryArray),
    Fixed(&'a arrow::array::FixedSizeBinaryArray),
}

impl<'a> BytesColumn<'a> {
    fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::LargeBinary => column.as_binary_opt().map(BytesColumn::Variable),
            DataType::FixedSizeBinary(_) => column.as_fixed_size_binary_opt().map(BytesColumn::Fixed),
            _ => None,
        }
    }

    fn get(&self, index: usize) -> Option<&'a [u8]> {
        match self {
            BytesColumn::Variable(column) => column.is_valid(index).then(|| column.value(index)),
            BytesColumn::Fixed(column) => column.is_valid(index).then(|| column.value(index)),
        }
    }
}

enum IdColumn<'a> {
    Bytes(BytesColumn<'a>),
    Decimal(arrow::array::StringArray),
}

impl<'a> IdColumn<'a> {
    fn of(column: &'a dyn Array) -> Option<Self> {
        if column.data_type().is_integer() {
            let decimal = cast(column, &DataType::Utf8).ok()?;
            return Some(IdColumn::Decimal(decimal.as_string().clone()));
        }
        BytesColumn::of(column).map(IdColumn::Bytes)
    }

    fn get(&self, index: usize) -> Result<Option<String>, String> {
        match self {
            IdColumn::Decimal(ids) => Ok(ids.is_valid(index).then(|| ids.value(index).to_owned())),
            IdColumn::Bytes(ids) => match ids.get(index).map(std::str::from_utf8) {
                None => Ok(None),
                Some(Ok(id)) => Ok(Some(id.to_owned())),
                Some(Err(_)) => Err("the id is not UTF-8".to_owned()),
            },
        }
    }
}
