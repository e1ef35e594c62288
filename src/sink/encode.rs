//! Writes a patched unit's tables to Parquet files, which have temporary names on a disk, and their final ones in a
//! store. Does not decide whether they count.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::{
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{
        ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, arrow_writer::ArrowRowGroupWriterFactory,
        encode_arrow_schema,
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use sha2::{Digest, Sha256};

use super::{
    Attempt, Counts, FileEntry, SinkError, Storage,
    columns::{EncodedPiece, Piece, RowGroup},
    ledger::commit_path,
    spool::{self, Spool},
};
use crate::{
    data::{PatchedUnit, Unit, value_bytes},
    fault,
    schema::{self, Table, TableOptions},
};

/// A unit whose files are written and synced, under names that nobody looks for; or those in a store, which no record
/// names yet.
#[derive(Debug)]
pub struct EncodedUnit {
    /// The unit.
    pub unit: Arc<Unit>,
    /// What it holds.
    pub counts: Counts,
    /// Each file under its temporary and its final name.
    pub files: Vec<(PathBuf, FileEntry)>,
    /// When its rows were asked for.
    pub started: Instant,
}

impl EncodedUnit {
    /// Removes the local files again: the unit was dropped, or another attempt won. What lies in a store stays for now: the
    /// next attempt makes the same.
    pub fn discard(self) {
        for (temporary, _) in self.files {
            // An attempt's leftovers are garbage to every reader and collected at the end.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Encodes the pieces of a row group, in whatever order and on whatever threads, and returns what became of them in the
/// order in which they came.
pub type Crew<'a> = dyn FnMut(Vec<Piece>) -> Result<Vec<EncodedPiece>, SinkError> + 'a;

/// Writes the tables of units of one output.
#[derive(Clone, Debug)]
pub struct Encoder {
    storage: Storage,
    /// Where files wait for the store.
    spool: Option<Arc<Spool>>,
    options: TableOptions,
    zstd: Option<i32>,
    compression: Compression,
    attempt: Arc<Attempt>,
}

impl Encoder {
    /// Bytes of values in a row group, unless a single slice has more.
    pub const ROW_GROUP_BYTES: u64 = 32 << 20;

    /// `zstd` is the level of compression, `None` for none; `attempt` names the temporary files.
    pub(super) fn new(
        storage: &Storage,
        options: TableOptions,
        zstd: Option<i32>,
        attempt: Arc<Attempt>,
    ) -> Result<Encoder, SinkError> {
        let compression = match zstd {
            None => Compression::UNCOMPRESSED,
            Some(level) => Compression::ZSTD(
                ZstdLevel::try_new(level).map_err(|error| SinkError::Encode(error.to_string()))?,
            ),
        };
        let spool = storage.spool(&attempt)?.map(Arc::new);
        Ok(Encoder { storage: storage.clone(), spool, options, zstd, compression, attempt })
    }

    /// Writes and syncs the files of `unit`, whose columns `crew` encodes.
    ///
    /// # Errors
    /// [`SinkError::Encode`] when its columns disagree, otherwise the storage has failed; in any case nothing is left
    /// behind on a disk.
    pub fn encode(
        &self,
        unit: PatchedUnit,
        counts: Counts,
        started: Instant,
        crew: &mut Crew<'_>,
    ) -> Result<EncodedUnit, SinkError> {
        let name = unit.batch.unit.clone();
        let batches = schema::batches(unit, &self.options)
            .map_err(|error| SinkError::Encode(format!("unit {}: {error}", name.id)))?;
        let mut encoded = EncodedUnit { unit: name, counts, files: Vec::new(), started };
        for (table, batch) in batches {
            match self.write(table, batch, &encoded.unit, crew) {
                Ok(file) => encoded.files.push(file),
                Err(error) => {
                    encoded.discard();
                    return Err(error);
                }
            }
        }
        encoded.files.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        if self.spool.is_some()
            && let Err(error) = self.upload(&encoded)
        {
            encoded.discard();
            return Err(error);
        }
        Ok(encoded)
    }

    /// Brings files from the spool to the store. Here and not when the unit is committed: many units at once. Parts of files
    /// that are under way take no more than the unit's tables did, whose share of the memory it has still.
    fn upload(&self, encoded: &EncodedUnit) -> Result<(), SinkError> {
        // Files of a unit that another process has committed would lie in an output that may be finished.
        let name = encoded.unit.id.to_string();
        if self.storage.is_file(&commit_path(self.storage.root(), &name, 0))? {
            return Ok(());
        }
        for (temporary, file) in &encoded.files {
            let path = self.storage.join(&file.path);
            fault::point("commit::rename").map_err(SinkError::io(&path))?;
            self.storage.publish(temporary, &path)?;
            fs::remove_file(temporary).map_err(spool::failed(temporary))?;
        }
        Ok(())
    }

    /// Removes what waits for the store; nothing can be encoded any more.
    pub fn withdraw(&self) {
        if let Some(spool) = &self.spool {
            spool.remove();
        }
    }

    fn write(
        &self,
        table: Table,
        batch: RecordBatch,
        unit: &Unit,
        crew: &mut Crew<'_>,
    ) -> Result<(PathBuf, FileEntry), SinkError> {
        let folder = match &self.spool {
            Some(spool) => spool.folder().to_owned(),
            None => self.storage.join(table.name()),
        };
        if self.spool.is_none() {
            self.storage.create_folder(&folder)?;
        }
        let path = self.attempt.temporary(&folder, &unit.id.to_string());
        let written = self.write_to(&path, table, &batch, crew).map_err(|error| match error {
            SinkError::Io { path, error } if self.spool.is_some() => spool::failed(&path)(error),
            other => other,
        });
        let (bytes, sha256) = written.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let name = format!("{table}/{}-{}.parquet", unit.id, &sha256[..8]);
        let rows = batch.num_rows() as u64;
        Ok((path, FileEntry { table: table.name().into(), path: name, rows, bytes, sha256 }))
    }

    fn write_to(
        &self,
        path: &Path,
        table: Table,
        batch: &RecordBatch,
        crew: &mut Crew<'_>,
    ) -> Result<(u64, String), SinkError> {
        fault::point("encode::create").map_err(SinkError::io(path))?;
        let file = File::create_new(path).map_err(SinkError::io(path))?;
        let mut hashed = HashingFile { file, hash: Sha256::new(), bytes: 0 };
        let failed = |error: ParquetError| match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => SinkError::Io { path: path.into(), error: *error },
                Err(cause) => SinkError::Encode(format!("table {table}: {cause}")),
            },
            other => SinkError::Encode(format!("table {table}: {other}")),
        };
        let properties = Arc::new(self.properties(table, &batch.schema()));
        let schema = ArrowSchemaConverter::new().convert(&batch.schema()).map_err(failed)?;
        let mut writer = SerializedFileWriter::new(&mut hashed, schema.root_schema_ptr(), properties.clone())
            .map_err(failed)?;
        let factory = ArrowRowGroupWriterFactory::new(&writer, batch.schema());
        let written = || fault::point("encode::middle").map_err(|error| ParquetError::External(error.into()));
        for (index, slices) in row_groups(batch).into_iter().enumerate() {
            let leaves = factory.create_column_writers(index).map_err(failed)?;
            let (group, pieces) = RowGroup::cut(batch, &slices, &schema, leaves, &properties, self.zstd);
            let pieces = crew(pieces)?;
            writer
                .next_row_group()
                .and_then(|out| group.write(pieces, self.compression, out, written))
                .map_err(failed)?;
        }
        // Not `into_inner`, which hides why the last bytes could not be written.
        writer.close().map_err(failed)?;
        if self.spool.is_none() {
            hashed.file.sync_all().map_err(SinkError::io(path))?;
        }
        fault::point("encode::after_footer").map_err(SinkError::io(path))?;
        Ok((hashed.bytes, format!("{:x}", hashed.hash.finalize())))
    }

    fn properties(&self, table: Table, batch_schema: &Schema) -> WriterProperties {
        let stored = schema::schema(table, &self.options);
        let mut metadata: Vec<KeyValue> =
            stored.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        metadata.sort_by(|a, b| a.key.cmp(&b.key));
        // Batches hold repeated strings as dictionaries; readers shall find plain strings.
        metadata.push(KeyValue::new(ARROW_SCHEMA_META_KEY.into(), encode_arrow_schema(&stored)));
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("blt-pipeline ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(self.compression)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_key_value_metadata(Some(metadata));
        let own = batch_schema.fields().len()
            - if table == Table::Documents { self.options.carried.len() } else { 0 };
        for field in batch_schema.fields().iter().take(own) {
            properties = column_properties(properties, field.name(), field.data_type());
        }
        properties.build()
    }
}

/// The row groups of `batch`, in slices: what a column's writer is given at once. Both follow from the values alone.
fn row_groups(batch: &RecordBatch) -> Vec<Vec<Range<usize>>> {
    let mut groups: Vec<Vec<Range<usize>>> = Vec::new();
    let (mut first, mut group_bytes) = (0, 0);
    while first < batch.num_rows() {
        let (rows, bytes) = slice(batch, first);
        match groups.last_mut() {
            Some(group) if group_bytes + bytes <= Encoder::ROW_GROUP_BYTES => group.push(rows.clone()),
            _ => {
                groups.push(vec![rows.clone()]);
                group_bytes = 0;
            }
        }
        group_bytes += bytes;
        first = rows.end;
    }
    groups
}

/// Rows from `first` on with few bytes, but one at the least, and their bytes.
fn slice(batch: &RecordBatch, first: usize) -> (Range<usize>, u64) {
    const SLICE_ROWS: usize = 1 << 15;
    const SLICE_BYTES: u64 = 8 << 20;
    let mut rows = SLICE_ROWS.min(batch.num_rows() - first);
    loop {
        let bytes = batch.slice(first, rows).columns().iter().map(|column| value_bytes(column)).sum();
        if rows == 1 || bytes <= SLICE_BYTES {
            return (first..first + rows, bytes);
        }
        rows /= 2;
    }
}

/// Floats are split into byte streams, since only their exponents repeat; counters are stored as
/// differences; strings and patch lengths keep the dictionary.
fn column_properties(
    properties: WriterPropertiesBuilder,
    name: &str,
    data_type: &DataType,
) -> WriterPropertiesBuilder {
    let plain = |properties: WriterPropertiesBuilder, path: ColumnPath, encoding| {
        properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
    };
    match data_type {
        DataType::Float32 => plain(properties, name.into(), Encoding::BYTE_STREAM_SPLIT),
        DataType::List(item) | DataType::FixedSizeList(item, _) => {
            let path = ColumnPath::new(vec![name.into(), "list".into(), item.name().clone()]);
            let properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            match item.data_type() {
                DataType::Float32 | DataType::Float16 => plain(properties, path, Encoding::BYTE_STREAM_SPLIT),
                _ => properties,
            }
        }
        DataType::UInt32 | DataType::UInt64 if name != "length" => {
            plain(properties, name.into(), Encoding::DELTA_BINARY_PACKED)
        }
        _ => properties,
    }
}

/// Hashes what it writes.
struct HashingFile {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.hash.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
