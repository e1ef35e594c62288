//! A row group in, pieces of it that are encoded in any order, the row group out. Knows nothing of files or threads.

use std::{io::Write, ops::Range, sync::Arc};

use arrow::{array::ArrayRef, datatypes::FieldRef, record_batch::RecordBatch};
use parquet::{
    arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves},
    basic::{Compression, Encoding},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedRowGroupWriter},
    schema::types::{ColumnDescPtr, SchemaDescriptor},
};

use super::floats::{EncodedPage, FloatLists, column_chunk};

/// A part of a row group that is encoded and compressed on its own.
#[derive(Debug)]
pub struct Piece(Work);

#[derive(Debug)]
enum Work {
    /// A page of a column of float lists.
    Page { lists: Arc<FloatLists>, rows: Range<usize>, max_def_level: i16, zstd: Option<i32> },
    /// Any other column, with a writer for each of its leaves. It comes in slices, since the writers expand what they
    /// are given: the levels of a list to 12 bytes a value.
    Column { field: FieldRef, slices: Vec<ArrayRef>, writers: Vec<ArrowColumnWriter> },
}

/// What became of a [`Piece`].
pub struct EncodedPiece(Encoded);

enum Encoded {
    Page(EncodedPage),
    Column(Vec<ArrowColumnChunk>),
}

impl Piece {
    /// Encodes and compresses it.
    ///
    /// # Errors
    /// When its values cannot be Parquet: a page of more than 2 GiB, a null that its column does not allow.
    pub fn encode(self) -> Result<EncodedPiece, ParquetError> {
        let encoded = match self.0 {
            Work::Page { lists, rows, max_def_level, zstd } => {
                Encoded::Page(lists.encode(rows, max_def_level, zstd)?)
            }
            Work::Column { field, slices, mut writers } => {
                for slice in slices {
                    for (leaf, writer) in compute_leaves(&field, &slice)?.iter().zip(&mut writers) {
                        writer.write(leaf)?;
                    }
                }
                Encoded::Column(writers.into_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>()?)
            }
        };
        Ok(EncodedPiece(encoded))
    }
}

/// How a row group was cut into pieces, column by column.
pub(super) struct RowGroup {
    columns: Vec<Cut>,
}

enum Cut {
    /// Into so many pages.
    Pages { n: usize, column: ColumnDescPtr },
    /// Not at all.
    Whole,
}

impl RowGroup {
    /// The pieces of the rows in `slices`, which follow each other in `batch`. `leaves` are the writers of `schema`'s
    /// columns, and `zstd` is the level that `properties` say.
    pub(super) fn cut(
        batch: &RecordBatch,
        slices: &[Range<usize>],
        schema: &SchemaDescriptor,
        leaves: Vec<ArrowColumnWriter>,
        properties: &WriterProperties,
        zstd: Option<i32>,
    ) -> (RowGroup, Vec<Piece>) {
        let rows = slices.iter().map(Range::len).sum();
        let first = slices.first().map_or(0, |slice| slice.start);
        let (mut columns, mut pieces) = (Vec::new(), Vec::new());
        let mut leaves = schema.columns().iter().zip(leaves).enumerate().peekable();
        for (index, (field, array)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
            let mut own = Vec::new();
            while let Some((_, leaf)) = leaves.next_if(|(leaf, _)| schema.get_column_root_idx(*leaf) == index)
            {
                own.push(leaf);
            }
            let split = |column: &ColumnDescPtr| {
                properties.encoding(column.path()) == Some(Encoding::BYTE_STREAM_SPLIT)
            };
            match (own.first(), FloatLists::of(&array.slice(first, rows))) {
                (Some((column, _)), Some(lists)) if split(column) => {
                    let (lists, max_def_level) = (Arc::new(lists), column.max_def_level());
                    let pages = lists.pages();
                    columns.push(Cut::Pages { n: pages.len(), column: (*column).clone() });
                    for rows in pages {
                        let lists = lists.clone();
                        pieces.push(Piece(Work::Page { lists, rows, max_def_level, zstd }));
                    }
                }
                _ => {
                    let slices = slices.iter().map(|slice| array.slice(slice.start, slice.len())).collect();
                    let writers = own.into_iter().map(|(_, writer)| writer).collect();
                    columns.push(Cut::Whole);
                    pieces.push(Piece(Work::Column { field: field.clone(), slices, writers }));
                }
            }
        }
        (RowGroup { columns }, pieces)
    }

    /// Writes the row group from what became of its pieces, in the order in which they were cut; calls `written` after
    /// each column.
    pub(super) fn write<W: Write + Send>(
        self,
        pieces: Vec<EncodedPiece>,
        compression: Compression,
        mut group: SerializedRowGroupWriter<'_, W>,
        written: impl Fn() -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        let mut pieces = pieces.into_iter().map(|EncodedPiece(encoded)| encoded);
        let misplaced = || ParquetError::General("pieces of a row group came back out of order".into());
        for cut in self.columns {
            match cut {
                Cut::Pages { n, column } => {
                    let pages = pieces.by_ref().take(n).map(|piece| match piece {
                        Encoded::Page(page) => Ok(page),
                        Encoded::Column(_) => Err(misplaced()),
                    });
                    let pages = pages.collect::<Result<Vec<EncodedPage>, _>>()?;
                    let (chunk, close) = column_chunk(column, compression, pages)?;
                    group.append_column(&chunk, close)?;
                }
                Cut::Whole => match pieces.next() {
                    Some(Encoded::Column(leaves)) => {
                        for leaf in leaves {
                            leaf.append_to_row_group(&mut group)?;
                        }
                    }
                    _ => return Err(misplaced()),
                },
            }
            written()?;
        }
        group.close().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::{
        array::{Array, FixedSizeListArray, Float16Array, Float32Array, ListArray, StringArray, UInt32Array},
        buffer::{NullBuffer, OffsetBuffer},
        datatypes::{DataType, Field, Schema},
    };
    use bytes::Bytes;
    use half::f16;
    use parquet::{
        arrow::{
            ARROW_SCHEMA_META_KEY, ArrowSchemaConverter,
            arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector},
            arrow_writer::ArrowRowGroupWriterFactory,
            encode_arrow_schema,
        },
        basic::ZstdLevel,
        file::{
            metadata::{KeyValue, PageIndexPolicy},
            writer::SerializedFileWriter,
        },
        schema::types::ColumnPath,
    };
    use proptest::prelude::*;

    use super::*;

    fn compression(zstd: Option<i32>) -> Compression {
        zstd.map_or(Compression::UNCOMPRESSED, |level| Compression::ZSTD(ZstdLevel::try_new(level).unwrap()))
    }

    fn properties(schema: &Schema, zstd: Option<i32>) -> WriterProperties {
        let arrow_schema = KeyValue::new(ARROW_SCHEMA_META_KEY.into(), encode_arrow_schema(schema));
        let mut properties = WriterProperties::builder()
            .set_compression(compression(zstd))
            .set_key_value_metadata(Some(vec![arrow_schema]));
        for name in ["vector", "list"] {
            let path = ColumnPath::new(vec![name.into(), "list".into(), "item".into()]);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
        }
        properties.build()
    }

    /// A file of row groups of two slices of `slice_rows` each; `order` says which piece is encoded when.
    fn file(
        batch: &RecordBatch,
        slice_rows: usize,
        zstd: Option<i32>,
        order: impl Fn(usize) -> Vec<usize>,
    ) -> Bytes {
        let properties = Arc::new(properties(&batch.schema(), zstd));
        let schema = ArrowSchemaConverter::new().convert(&batch.schema()).unwrap();
        let mut out = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut out, schema.root_schema_ptr(), properties.clone()).unwrap();
        let factory = ArrowRowGroupWriterFactory::new(&writer, batch.schema());
        let starts: Vec<usize> = (0..batch.num_rows()).step_by(slice_rows).collect();
        let slices: Vec<Range<usize>> =
            starts.iter().map(|&start| start..batch.num_rows().min(start + slice_rows)).collect();
        for (index, slices) in slices.chunks(2).enumerate() {
            let leaves = factory.create_column_writers(index).unwrap();
            let (group, pieces) = RowGroup::cut(batch, slices, &schema, leaves, &properties, zstd);
            let order = order(pieces.len());
            let mut pieces: BTreeMap<usize, Piece> = pieces.into_iter().enumerate().collect();
            let mut encoded: BTreeMap<usize, EncodedPiece> = BTreeMap::new();
            for place in order {
                encoded.insert(place, pieces.remove(&place).unwrap().encode().unwrap());
            }
            let encoded = encoded.into_values().collect();
            let out = writer.next_row_group().unwrap();
            group.write(encoded, compression(zstd), out, || Ok(())).unwrap();
        }
        writer.close().unwrap();
        out.into()
    }

    fn read(file: Bytes, rows: Option<Range<usize>>) -> Vec<RecordBatch> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let mut reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
        if let Some(rows) = rows {
            let selectors = vec![RowSelector::skip(rows.start), RowSelector::select(rows.len())];
            reader = reader.with_row_selection(RowSelection::from(selectors));
        }
        reader.with_batch_size(1 << 20).build().unwrap().map(|batch| batch.unwrap()).collect()
    }

    fn item(data_type: DataType) -> Arc<Field> {
        Arc::new(Field::new("item", data_type, false))
    }

    /// Vectors of `dim` halves, null where `present` says so; lists of `lengths` floats; numbers and names.
    fn batch(dim: usize, present: &[bool], lengths: &[usize]) -> RecordBatch {
        let n = present.len();
        let halves = (0..n * dim).map(|i| f16::from_f32((i as f32 * 0.37).sin() * 8.0));
        let vectors = FixedSizeListArray::new(
            item(DataType::Float16),
            dim as i32,
            Arc::new(Float16Array::from_iter_values(halves)),
            Some(NullBuffer::from(present.to_vec())),
        );
        let floats = (0..lengths.iter().sum()).map(|i: usize| (i as f32 * 0.11).cos());
        let lists = ListArray::new(
            item(DataType::Float32),
            OffsetBuffer::from_lengths(lengths.iter().copied()),
            Arc::new(Float32Array::from_iter_values(floats)),
            None,
        );
        let fields = vec![
            Field::new("name", DataType::Utf8, false),
            Field::new("vector", vectors.data_type().clone(), true),
            Field::new("list", lists.data_type().clone(), false),
            Field::new("number", DataType::UInt32, false),
        ];
        let names = StringArray::from_iter_values((0..n).map(|i| format!("row {}", i / 3)));
        let numbers = UInt32Array::from_iter_values(0..n as u32);
        RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![Arc::new(names), Arc::new(vectors), Arc::new(lists), Arc::new(numbers)],
        )
        .unwrap()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            dim in 1..20usize,
            rows in prop::collection::vec((any::<bool>(), 0..40usize), 1..60),
            slice_rows in 1..40usize,
            zstd in prop::option::of(1..4i32),
            seed in any::<u64>(),
        ) {
            let (present, lengths): (Vec<bool>, Vec<usize>) = rows.into_iter().unzip();
            let batch = batch(dim, &present, &lengths);
            let shuffled = |n: usize| {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(seed | 1));
                order
            };
            let file = file(&batch, slice_rows, zstd, shuffled);
            let read = arrow::compute::concat_batches(&batch.schema(), &read(file.clone(), None)).unwrap();
            prop_assert_eq!(read, batch.clone());
            let in_order = self::file(&batch, slice_rows, zstd, |n| (0..n).collect());
            prop_assert_eq!(in_order, file);
        }
    }

    #[test]
    fn pages_hold_whole_rows_and_about_a_mebibyte_and_are_found_by_row() {
        let n = 3000;
        let lengths: Vec<usize> = (0..n).map(|row| if row == 7 { 1 << 19 } else { row % 5 }).collect();
        let batch = batch(768, &vec![true; n], &lengths);
        let file = file(&batch, n, Some(1), |n| (0..n).collect());
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
        let metadata = metadata.metadata().clone();
        let firsts = |column: usize| -> Vec<i64> {
            let index = metadata.page_index_for_row_group(0);
            let pages = index.offset_index(column).unwrap().page_locations();
            pages.iter().map(|page| page.first_row_index).collect()
        };
        // 682 vectors of 1536 bytes are a page; a row of 2 MiB is one of its own.
        assert_eq!(firsts(1), [0, 682, 1364, 2046, 2728]);
        assert_eq!(firsts(2), [0, 7, 8]);
        for rows in [0..1, 6..9, 681..683, 2900..3000] {
            assert_eq!(read(file.clone(), Some(rows.clone())), [batch.slice(rows.start, rows.len())]);
        }
        let column = metadata.row_group(0).column(1);
        assert_eq!(column.num_values(), 768 * 3000);
        assert_eq!(column.encodings().collect::<Vec<_>>(), [Encoding::RLE, Encoding::BYTE_STREAM_SPLIT]);
        assert!(column.uncompressed_size() > 2 * 768 * 3000);
        assert!(column.compressed_size() < column.uncompressed_size());
    }
}
