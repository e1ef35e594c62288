//! Writes a patched unit's tables to temporary Parquet files. Does not decide whether they count.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::{
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, arrow_writer::ArrowWriterOptions, encode_arrow_schema},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    },
    schema::types::ColumnPath,
};
use sha2::{Digest, Sha256};

use super::{Attempt, Counts, FileEntry, SinkError, files::create_folder};
use crate::{
    config::Embeddings,
    data::{PatchedUnit, Unit, value_bytes},
    fault,
    schema::{self, Table, TableOptions},
};

/// A unit whose files are written and synced, under names that nobody looks for.
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
    /// Removes the files again: the unit was dropped, or another attempt won.
    pub fn discard(self) {
        for (temporary, _) in self.files {
            // An attempt's leftovers are garbage to every reader and collected at the end.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes the tables of units below one folder.
#[derive(Clone, Debug)]
pub struct Encoder {
    root: PathBuf,
    options: TableOptions,
    compression: Compression,
    attempt: Arc<Attempt>,
}

impl Encoder {
    /// Bytes of values in a row group, unless a single slice has more.
    pub const ROW_GROUP_BYTES: u64 = 32 << 20;

    /// `zstd` is the level of compression, `None` for none; `attempt` names the temporary files.
    ///
    /// # Errors
    /// [`SinkError::Encode`] when there is no such level.
    pub fn new(
        root: &Path,
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
        Ok(Encoder { root: root.into(), options, compression, attempt })
    }

    /// Writes and syncs the files of `unit`.
    ///
    /// # Errors
    /// [`SinkError::Encode`] when its columns disagree, [`SinkError::Io`] when the storage fails; in
    /// both cases nothing is left behind.
    pub fn encode(
        &self,
        unit: PatchedUnit,
        counts: Counts,
        started: Instant,
    ) -> Result<EncodedUnit, SinkError> {
        let name = unit.batch.unit.clone();
        let batches = schema::batches(unit, &self.options)
            .map_err(|error| SinkError::Encode(format!("unit {}: {error}", name.id)))?;
        let mut encoded = EncodedUnit { unit: name, counts, files: Vec::new(), started };
        for (table, batch) in batches {
            match self.write(table, batch, &encoded.unit) {
                Ok(file) => encoded.files.push(file),
                Err(error) => {
                    encoded.discard();
                    return Err(error);
                }
            }
        }
        encoded.files.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        Ok(encoded)
    }

    fn write(
        &self,
        table: Table,
        batch: RecordBatch,
        unit: &Unit,
    ) -> Result<(PathBuf, FileEntry), SinkError> {
        let folder = self.root.join(table.name());
        create_folder(&folder)?;
        let path = self.attempt.temporary(&folder, &unit.id.to_string());
        let written = self.write_to(&path, table, &batch);
        let (bytes, sha256) = written.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let name = format!("{table}/{}-{}.parquet", unit.id, &sha256[..8]);
        let rows = batch.num_rows() as u64;
        Ok((path, FileEntry { table: table.name().into(), path: name, rows, bytes, sha256 }))
    }

    fn write_to(&self, path: &Path, table: Table, batch: &RecordBatch) -> Result<(u64, String), SinkError> {
        fault::point("encode::create").map_err(SinkError::io(path))?;
        let file = File::create_new(path).map_err(SinkError::io(path))?;
        let mut hashed = HashingFile { file, hash: Sha256::new(), bytes: 0 };
        let options = ArrowWriterOptions::new()
            .with_properties(self.properties(table, &batch.schema()))
            .with_skip_arrow_metadata(true);
        let failed = |error: ParquetError| match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => SinkError::Io { path: path.into(), error: *error },
                Err(cause) => SinkError::Encode(format!("table {table}: {cause}")),
            },
            other => SinkError::Encode(format!("table {table}: {other}")),
        };
        let mut writer =
            ArrowWriter::try_new_with_options(&mut hashed, batch.schema(), options).map_err(failed)?;
        // The writer keeps a row group in memory until it is full.
        let mut group_bytes = 0;
        let (mut first, most) = (0, slice_rows(table, &self.options));
        while first < batch.num_rows() {
            let slice = slice(batch, first, most);
            first += slice.num_rows();
            let bytes = bytes(&slice);
            if group_bytes > 0 && group_bytes + bytes > Self::ROW_GROUP_BYTES {
                writer.flush().map_err(failed)?;
                group_bytes = 0;
            }
            writer.write(&slice).map_err(failed)?;
            group_bytes += bytes;
            fault::point("encode::middle").map_err(SinkError::io(path))?;
        }
        // Not `into_inner`, which hides why the last bytes could not be written.
        writer.close().map_err(failed)?;
        hashed.file.sync_all().map_err(SinkError::io(path))?;
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

/// At most `most` rows from `first` on, fewer if they are long, but one.
fn slice(batch: &RecordBatch, first: usize, most: usize) -> RecordBatch {
    const SLICE_BYTES: u64 = 8 << 20;
    let mut rows = most.min(batch.num_rows() - first);
    loop {
        let slice = batch.slice(first, rows);
        if rows == 1 || bytes(&slice) <= SLICE_BYTES {
            return slice;
        }
        rows /= 2;
    }
}

fn bytes(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| value_bytes(column)).sum()
}

/// Rows handed to the Parquet writer in one go: it expands what it is handed, levels of lists to 4 bytes a
/// value, float16 to 46. Fixed by the plan, since page boundaries depend on it.
fn slice_rows(table: Table, options: &TableOptions) -> usize {
    const EMBEDDING_VALUES: usize = 1 << 18;
    let embeddings = match table {
        Table::Documents | Table::Quarantine => return 64,
        Table::Patches => Embeddings::Patch,
        Table::Bytes => Embeddings::Byte,
    };
    if options.embeddings == embeddings { (EMBEDDING_VALUES / options.dim).max(1) } else { 1 << 15 }
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
