//! Reads units of a shard, whatever its format.

use std::{ops::Range, sync::Arc};

use super::{
    SourceError,
    files::FileReader,
    lines::LineReader,
    parquet::ParquetReader,
    shard::{Format, Shard},
};
use crate::{
    config::Source,
    data::{RawBatch, Unit},
};

/// Reads units of one shard, in order, in one pass over the file.
pub enum RowReader {
    /// By row groups.
    Parquet(Box<ParquetReader>),
    /// Line by line.
    Lines(Box<LineReader>),
    /// File by file.
    Files(Box<FileReader>),
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
        Ok(match &shard.format {
            Format::Parquet => RowReader::Parquet(Box::new(ParquetReader::open(
                shard,
                source,
                max_document_bytes,
                max_bytes,
                units,
            )?)),
            Format::Lines(index) => {
                RowReader::Lines(Box::new(LineReader::open(shard, index, source, max_document_bytes, units)?))
            }
            Format::Files(members) => RowReader::Files(Box::new(FileReader::open(
                shard,
                members,
                source,
                max_document_bytes,
                units,
            )?)),
        })
    }

    /// Rows of `unit`, the next of the units this reader was opened for, or a later one. Rows longer than a document may be are rejected
    /// without being held.
    ///
    /// # Errors
    /// [`SourceError::Data`], naming file and row, when they cannot be decoded, and whatever `grant` returns; the
    /// reader is of no use after that.
    pub fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        match self {
            RowReader::Parquet(reader) => reader.read(unit, grant),
            RowReader::Lines(reader) => reader.read(unit, grant),
            RowReader::Files(reader) => reader.read(unit, grant),
        }
    }
}
