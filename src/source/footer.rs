//! Identity, footer and columns of a Parquet file: what a plan needs of a shard, and how its rows are to be decoded.
//! Reads no rows.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use ::parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, statistics::StatisticsConverter},
    },
    basic::Type as PhysicalType,
    errors::ParquetError,
    file::metadata::{
        ColumnChunkMetaData, FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
        RowGroupMetaData,
    },
    schema::types::{SchemaDescriptor, Type, TypePtr},
};
use arrow::{
    array::{ArrayRef, BooleanArray},
    compute::nullif,
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};

use super::{
    RowGroup, ShardFile, SourceError,
    access::ShardBytes,
    filter::{self, Filter, GroupStatistics},
    shard::{Format, Identity, Shard, identify},
    thrift,
};
use crate::config::Source;

/// What a row is taken for at least, where units are cut, if its content may be a file beside the shard: whose size is not known
/// before it is read.
pub(super) const FILE_BYTES: u64 = 32 << 10;

/// Why files beside a shard cannot be read.
pub(super) const NO_PATHS: &str = "source.resolve_paths = true, but nothing tells paths: source.path names the column that does, \
     unless source.content is a struct that has a field `path`";

/// Reads the footer of `file` and finds the columns that `source` names. A footer that takes more than `max_bytes` of
/// memory is not read.
///
/// # Errors
/// As [`open_shard`](super::open_shard).
pub(super) fn survey(
    file: &ShardFile,
    source: &Source,
    max_bytes: u64,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let handle = &mut ShardBytes::with_footer(file)?.file;
    let identity = identify(handle, &file.path)?;
    let footer = match Footer::read(handle, &file.path, max_bytes) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err((identity, error))),
    };
    let columns = Columns::find(&footer, source, &file.path)?;
    let row_groups = footer.row_groups(&columns);
    let carried = columns.carried;
    Ok(Ok(Shard { file: file.clone(), identity, row_groups, carried, format: Format::Parquet }))
}

/// Calls into the Parquet decoder, which panics on some corrupt files instead of returning an error.
pub(super) fn guarded<T, E: std::fmt::Display>(
    context: impl Fn() -> String,
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, SourceError> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(SourceError::Data(format!("{}: {error}", context()))),
        Err(_) => Err(SourceError::Data(format!("{}: the bytes are not valid Parquet", context()))),
    }
}

pub(super) struct Footer {
    metadata: ParquetMetaData,
    schema: SchemaRef,
    /// About what it takes in memory.
    pub(super) bytes: u64,
}

impl Footer {
    pub(super) fn read(file: &mut File, path: &Path, max_bytes: u64) -> Result<Footer, SourceError> {
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

    pub(super) fn row_groups(&self, columns: &Columns) -> Vec<RowGroup> {
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
                content_bytes: bytes(g.column(columns.content_leaf))
                    .max(columns.least_row_bytes.saturating_mul(g.num_rows().max(0) as u64)),
                carried_bytes: carried.iter().map(|&leaf| bytes(g.column(leaf))).fold(0, u64::saturating_add),
            })
            .collect()
    }
}

impl Footer {
    /// Which row groups hold no row that `filter` is true for, as far as their statistics tell.
    pub(super) fn skipped(&self, filter: &Filter) -> Vec<bool> {
        let groups = self.metadata.row_groups();
        // What no footer should hold, some of which the decoder panics at, costs only the shortcut.
        let statistics = guarded(|| "statistics".to_owned(), || self.statistics(filter));
        statistics.map_or_else(|_| vec![false; groups.len()], |statistics| filter.skipped(&statistics))
    }

    fn statistics(&self, filter: &Filter) -> Result<GroupStatistics, String> {
        let file = self.metadata.file_metadata();
        let groups = self.metadata.row_groups();
        let failed = |error: ParquetError| error.to_string();
        let mut columns = Vec::new();
        for name in filter.columns() {
            let of = StatisticsConverter::try_new(name, &self.schema, file.schema_descr()).map_err(failed)?;
            let of = of
                .with_missing_null_counts_as_zero(false)
                .with_column_orders(file.column_orders().map(Vec::as_slice));
            let nulls: ArrayRef = Arc::new(of.row_group_null_counts(groups).map_err(failed)?);
            // The oldest writers ordered text and unsigned numbers in their own way.
            let is_sound = |group: &RowGroupMetaData| {
                let column = of.parquet_column_index().map(|index| group.column(index));
                column.and_then(|column| column.statistics()).is_some_and(|s| !s.is_min_max_deprecated())
            };
            let unsound = BooleanArray::from_iter(groups.iter().map(|group| Some(!is_sound(group))));
            let bound = |values: ArrayRef| nullif(&values, &unsound).map_err(|error| error.to_string());
            let smallest = bound(of.row_group_mins(groups).map_err(failed)?)?;
            let largest = bound(of.row_group_maxes(groups).map_err(failed)?)?;
            columns.push((name.to_owned(), smallest, largest, nulls));
        }
        let rows =
            groups.iter().map(|group| u32::try_from(group.num_rows()).map_err(|error| error.to_string()));
        GroupStatistics::new(rows.collect::<Result<_, _>>()?, columns)
    }
}

/// Where in a file the plan's columns are.
pub(super) struct Columns {
    content: usize,
    pub(super) content_leaf: usize,
    /// What a row counts for, whatever its content takes in the file.
    least_row_bytes: u64,
    /// The field `path` of a content that is a struct.
    path_leaf: Option<usize>,
    id: Option<usize>,
    /// Columns `source.path` and `source.language`.
    path: Option<usize>,
    language: Option<usize>,
    carry: Vec<usize>,
    carried: Fields,
    pub(super) filter: Option<Filter>,
}

impl Columns {
    pub(super) fn find(footer: &Footer, source: &Source, path: &Path) -> Result<Columns, SourceError> {
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
        let leaf = |path: &[&str]| {
            (0..parquet.num_columns()).find(|&leaf| parquet.column(leaf).path().parts() == path)
        };
        let content_leaf = leaf(&leaf_path).ok_or_else(|| missing("source.content", &source.content))?;
        let is_path = |field: &Field| field.name() == "path" && is_bytes(field.data_type());
        let path_leaf = match footer.schema.field(content).data_type() {
            DataType::Struct(fields)
                if source.needs_path() && source.path.is_none() && fields.iter().any(|f| is_path(f)) =>
            {
                leaf(&[&source.content, "path"])
            }
            _ => None,
        };
        if source.resolve_paths && source.path.is_none() && path_leaf.is_none() {
            return Err(SourceError::Plan(NO_PATHS.to_owned()));
        }
        let text = |key: &str, name: &Option<String>| {
            let Some(name) = name else { return Ok(None) };
            let index = position(name).ok_or_else(|| missing(key, name))?;
            match is_bytes(footer.schema.field(index).data_type()) {
                true => Ok(Some(index)),
                false => Err(wrong_type(key, index, "strings")),
            }
        };
        let file_path = text("source.path", &source.path)?;
        let language = text("source.language", &source.language)?;

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
        let filter = filter::of(source, &asked(&footer.schema, content), path)?;
        Ok(Columns {
            content,
            content_leaf,
            least_row_bytes: if source.resolve_paths { FILE_BYTES } else { 0 },
            path_leaf,
            id,
            path: file_path,
            language,
            carry,
            carried,
            filter,
        })
    }

    /// The footer with the content and the columns that tell of it (id, path, language) as plain binary, so that neither strings
    /// that are not UTF-8 nor batches over 2 GiB can fail, and everything else as it is.
    pub(super) fn binary_view(&self, footer: &Footer) -> Result<ArrowReaderMetadata, ParquetError> {
        let file = footer.metadata.file_metadata();
        let root = file.schema_descr().root_schema();
        let mut types = root.get_fields().to_vec();
        let mut fields: Vec<Arc<Field>> = footer.schema.fields().iter().cloned().collect();
        // A column that is two of these is no less plain for it.
        for index in [Some(self.content), self.id, self.path, self.language].into_iter().flatten() {
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

    pub(super) fn projection(&self, schema: &SchemaDescriptor) -> ProjectionMask {
        let named = self.filter.iter().flat_map(Filter::columns);
        let fields = schema.root_schema().get_fields();
        let named = named.filter_map(|name| fields.iter().position(|field| field.name() == name));
        let told = [self.id, self.path, self.language].into_iter().flatten();
        let roots: Vec<usize> = self.carry.iter().copied().chain(told).chain(named).collect();
        let is_content = |leaf| leaf == self.content_leaf || Some(leaf) == self.path_leaf;
        let leaves = (0..schema.num_columns())
            .filter(|&leaf| is_content(leaf) || roots.contains(&schema.get_column_root_idx(leaf)));
        ProjectionMask::leaves(schema, leaves)
    }
}

/// What a condition may ask about: every column, but of a content that is a struct not its bytes, which are only read as far
/// as a document may be long.
fn asked(schema: &Schema, content: usize) -> Schema {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| match field.data_type() {
        DataType::Struct(children) if index == content => {
            let children = children.iter().filter(|child| child.name() != "bytes").cloned();
            Arc::new(field.as_ref().clone().with_data_type(DataType::Struct(children.collect())))
        }
        _ => field.clone(),
    });
    Schema::new(fields.collect::<Vec<_>>())
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

/// `field` (or its children `bytes` and `path`) without the annotation that makes it a string.
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
            for child in fields.iter_mut().filter(|child| is_plain(child.name()) && child.is_primitive()) {
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

/// Whether a field of a content that is a struct is read as bytes.
fn is_plain(name: &str) -> bool {
    matches!(name, "bytes" | "path")
}

/// Arrow field for a type of [`plain_type`]. Lengths of 64 bits, because a batch may exceed 2 GiB.
fn plain_field(plain: &Type, field: &Field) -> Arc<Field> {
    let data_type = match plain {
        Type::PrimitiveType { physical_type: PhysicalType::BYTE_ARRAY, .. } => DataType::LargeBinary,
        Type::GroupType { fields: types, .. } => match field.data_type() {
            DataType::Struct(children) => {
                let child = |(plain, child): (&TypePtr, &Arc<Field>)| match is_plain(child.name())
                    && plain.is_primitive()
                {
                    true => plain_field(plain, child),
                    false => child.clone(),
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
