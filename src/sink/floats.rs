//! Lists of floats in, pages of a Parquet column out, each on its own. Knows nothing of files or threads.
//!
//! The `parquet` crate would do it, but keeps every float16 in a shared buffer of its own and every level of a list as
//! numbers: some 50 bytes for the 2 of a value, and a third of the speed (benches/README.md). Here a page is what the
//! format says it is: runs of levels, then the first bytes of all values, then the second ones, and so on
//! (BYTE_STREAM_SPLIT).

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    datatypes::{DataType, Float16Type, Float32Type},
};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, PageType},
    column::{
        page::{CompressedPage, Page, PageWriter},
        writer::ColumnCloseResult,
    },
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats},
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

/// Bytes of values in a page, unless a single row has more: a page holds whole rows.
const PAGE_BYTES: usize = 1 << 20;
/// As the `parquet` crate has it.
const PAGE_ROWS: usize = 20_000;

/// A column of lists of float16 or float32, none of them null; a list may be.
#[derive(Clone, Debug)]
pub(super) struct FloatLists {
    /// Little-endian.
    values: Buffer,
    /// Bytes of a value.
    width: usize,
    lengths: Lengths,
    n_rows: usize,
    present: Option<NullBuffer>,
}

#[derive(Clone, Debug)]
enum Lengths {
    /// Of all lists, null ones too.
    Equal(usize),
    Offsets(OffsetBuffer<i32>),
}

impl FloatLists {
    /// `None` if `column` is something else.
    pub(super) fn of(column: &ArrayRef) -> Option<Self> {
        let (items, lengths) = match column.data_type() {
            DataType::FixedSizeList(..) => {
                let lists = column.as_fixed_size_list();
                (lists.values(), Lengths::Equal(lists.value_length() as usize))
            }
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                (lists.values(), Lengths::Offsets(lists.offsets().clone()))
            }
            _ => return None,
        };
        let (values, width) = match items.data_type() {
            DataType::Float16 => (items.as_primitive::<Float16Type>().values().inner().clone(), 2),
            DataType::Float32 => (items.as_primitive::<Float32Type>().values().inner().clone(), 4),
            _ => return None,
        };
        let (n_rows, present) = (column.len(), column.nulls().cloned());
        (items.null_count() == 0).then_some(FloatLists { values, width, lengths, n_rows, present })
    }

    /// Where the values of `row` stand.
    fn range(&self, row: usize) -> Range<usize> {
        match &self.lengths {
            Lengths::Equal(n) => row * n..(row + 1) * n,
            Lengths::Offsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }

    fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present.is_valid(row))
    }

    /// The rows of each page. They follow from the lengths alone.
    pub(super) fn pages(&self) -> Vec<Range<usize>> {
        let mut pages = Vec::new();
        let (mut first, mut page_bytes) = (0, 0);
        for row in 0..self.n_rows {
            let bytes = self.range(row).len() * self.width;
            if row > first && (page_bytes + bytes > PAGE_BYTES || row - first == PAGE_ROWS) {
                pages.push(first..row);
                (first, page_bytes) = (row, 0);
            }
            page_bytes += bytes;
        }
        pages.push(first..self.n_rows);
        pages
    }

    /// The page of `rows`: a data page of version 1, compressed as `zstd` says. `max_def_level` is the column's.
    ///
    /// # Errors
    /// When the page is larger than a page can be.
    pub(super) fn encode(
        &self,
        rows: Range<usize>,
        max_def_level: i16,
        zstd: Option<i32>,
    ) -> Result<EncodedPage, ParquetError> {
        let n_rows = rows.len();
        let (mut repetition, mut definition) = (Levels::default(), Levels::default());
        // Where the values stand, lists that follow each other taken together.
        let mut runs: Vec<Range<usize>> = Vec::new();
        let max_def_level = max_def_level as u8;
        for row in rows {
            let range = self.range(row);
            repetition.push(0, 1);
            if !self.is_present(row) {
                definition.push(0, 1);
            } else if range.is_empty() {
                definition.push(max_def_level - 1, 1);
            } else {
                repetition.push(1, range.len() - 1);
                definition.push(max_def_level, range.len());
                match runs.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => runs.push(range),
                }
            }
        }
        let num_values = u32::try_from(repetition.n)
            .map_err(|_| ParquetError::General(format!("a page of {} values", repetition.n)))?;
        let n_present: usize = runs.iter().map(Range::len).sum();
        let mut page = Vec::with_capacity(repetition.size() + definition.size() + n_present * self.width);
        repetition.write(&mut page);
        definition.write(&mut page);
        match self.width {
            2 => self.split::<2>(&runs, &mut page),
            _ => self.split::<4>(&runs, &mut page),
        }
        let uncompressed_size = page.len();
        let compressed = match zstd {
            None => page,
            Some(level) => zstd::bulk::compress(&page, level)?,
        };
        let page = Page::DataPage {
            buf: Bytes::from(compressed),
            num_values,
            encoding: Encoding::BYTE_STREAM_SPLIT,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        Ok(EncodedPage { page: CompressedPage::new(page, uncompressed_size), n_rows })
    }

    /// Appends the first bytes of all values in `runs`, then the second ones, and so on.
    fn split<const WIDTH: usize>(&self, runs: &[Range<usize>], page: &mut Vec<u8>) {
        let (values, _) = self.values.as_slice().as_chunks::<WIDTH>();
        for byte in 0..WIDTH {
            for run in runs {
                page.extend(values[run.clone()].iter().map(|value| value[byte]));
            }
        }
    }
}

/// Levels of a column as runs: the half of Parquet's RLE/bit-packing hybrid that lists of floats need, for levels of up to 8
/// bits.
#[derive(Default)]
struct Levels {
    encoded: Vec<u8>,
    /// The run that is not encoded yet.
    level: u8,
    run: u64,
    n: u64,
}

impl Levels {
    fn push(&mut self, level: u8, n: usize) {
        if n == 0 {
            return;
        }
        if level != self.level {
            self.end_run();
            self.level = level;
        }
        self.run += n as u64;
        self.n += n as u64;
    }

    fn end_run(&mut self) {
        let mut header = std::mem::take(&mut self.run) << 1;
        if header == 0 {
            return;
        }
        while header >= 0x80 {
            self.encoded.push(header as u8 | 0x80);
            header >>= 7;
        }
        self.encoded.extend([header as u8, self.level]);
    }

    /// The most that [`write`](Self::write) appends.
    fn size(&self) -> usize {
        self.encoded.len() + 16
    }

    /// Appends the levels behind their size, as pages of version 1 have them.
    fn write(mut self, page: &mut Vec<u8>) {
        self.end_run();
        page.extend((self.encoded.len() as u32).to_le_bytes());
        page.extend(self.encoded);
    }
}

/// A page of so many rows.
pub(super) struct EncodedPage {
    page: CompressedPage,
    n_rows: usize,
}

/// Puts the pages of one column of a row group together, and what the footer will say of them.
///
/// # Errors
/// When a page is larger than its header can say.
pub(super) fn column_chunk(
    column: ColumnDescPtr,
    compression: Compression,
    pages: Vec<EncodedPage>,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    const HEADER_BYTES: usize = 64;
    let size = pages.iter().map(|EncodedPage { page, .. }| page.compressed_size() + HEADER_BYTES).sum();
    let mut chunk = TrackedWrite::new(Vec::with_capacity(size));
    let mut offsets = OffsetIndexBuilder::new();
    let encodings = PageEncodingStats {
        page_type: PageType::DATA_PAGE,
        encoding: Encoding::BYTE_STREAM_SPLIT,
        count: pages.len() as i32,
    };
    let (mut uncompressed_size, mut num_values, mut rows_written) = (0, 0, 0);
    for EncodedPage { page, n_rows } in pages {
        let written = SerializedPageWriter::new(&mut chunk).write_page(page)?;
        offsets.append_row_count(n_rows as i64);
        offsets.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
        uncompressed_size += written.uncompressed_size as i64;
        num_values += i64::from(written.num_values);
        rows_written += n_rows as u64;
    }
    let chunk = Bytes::from(chunk.into_inner()?);
    let metadata = ColumnChunkMetaData::builder(column)
        .set_compression(compression)
        .set_encodings(vec![Encoding::RLE, Encoding::BYTE_STREAM_SPLIT])
        .set_page_encoding_stats(vec![encodings])
        .set_total_compressed_size(chunk.len() as i64)
        .set_total_uncompressed_size(uncompressed_size)
        .set_num_values(num_values)
        .set_data_page_offset(0)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: chunk.len() as u64,
        rows_written,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(offsets.build()),
    };
    Ok((chunk, close))
}
