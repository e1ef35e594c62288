//! Pages of one column chunk for the Parquet decoder. Surveys their headers before anything is allocated, and shortens
//! values that are longer than a document may be while they stream past. Knows nothing of units or budgets.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Read},
    sync::{Arc, LazyLock},
};

use ::parquet::{
    basic::{Compression, Encoding, Type as PhysicalType},
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{metadata::ColumnChunkMetaData, reader::ChunkReader, serialized_reader::SerializedPageReader},
};
use bytes::Bytes;

use super::{
    delta::Lengths,
    snappy::SnappyReader,
    thrift::{self, PageHeader, PageKind},
};

/// Numbers of the encodings that are told apart here.
const PLAIN: i64 = 0;
const RLE: i64 = 3;
const DELTA_LENGTH: i64 = 6;
const DELTA_BYTES: i64 = 7;
/// Pages up to this size are decoded at once, however short documents may be.
const MIN_STREAMED_BYTES: u64 = 1 << 20;
/// A writer's totals may be off by a little, a page that claims this much more than its whole chunk lies.
const SLACK_BYTES: u64 = 1 << 20;
/// Log2 of the largest window that a zstd page may ask for; levels up to 19 stay below.
const ZSTD_WINDOW_LOG: u32 = 24;
const BUFFER_BYTES: usize = 64 << 10;

/// What stands in place of a value that is longer than a document may be: something no file can hold on purpose,
/// and the length.
struct Marker;

impl Marker {
    const BYTES: usize = 24;

    fn nonce() -> &'static [u8; 16] {
        static NONCE: LazyLock<[u8; 16]> = LazyLock::new(|| uuid::Uuid::new_v4().into_bytes());
        &NONCE
    }

    fn of(length: u64) -> [u8; Self::BYTES] {
        let mut marker = [0; Self::BYTES];
        marker[..16].copy_from_slice(Self::nonce());
        marker[16..].copy_from_slice(&length.to_le_bytes());
        marker
    }
}

/// Length of the value that was left unread, if `value` stands for one.
pub fn unread_length(value: &[u8]) -> Option<u64> {
    let length = value.strip_prefix(Marker::nonce())?;
    length.try_into().ok().map(u64::from_le_bytes)
}

/// A page and where it lies.
#[derive(Clone, Debug)]
struct PageEntry {
    header: PageHeader,
    /// Where its bytes begin, the header excluded.
    body: u64,
    /// Bytes of the page as it is handed to the decoder.
    decoded: u64,
}

/// The pages of one column chunk, in order, ready to be decoded.
pub struct ChunkPages {
    file: Arc<File>,
    chunk: ColumnChunkMetaData,
    /// A fault in a header is kept in its place: the rows before it can be read.
    pages: VecDeque<std::result::Result<PageEntry, String>>,
    /// Decodes pages of ordinary size; stands where `pages` stands.
    ordinary: SerializedPageReader<File>,
    /// Bytes of the longest value that is not shortened; `None` for columns that must be whole.
    max_value_bytes: Option<u64>,
    /// The dictionary, read ahead to know its longest value.
    dictionary: Option<Page>,
    longest_entry: u64,
    rows: u64,
}

impl ChunkPages {
    /// Reads the page headers of `chunk`. With `max_value_bytes`, longer byte arrays in pages that are larger than that are
    /// replaced by what [`unread_length`] knows.
    ///
    /// # Errors
    /// When the chunk lies outside of the file, or its codec is unknown.
    pub fn survey(
        file: &Arc<File>,
        chunk: &ColumnChunkMetaData,
        rows: usize,
        max_value_bytes: Option<u64>,
    ) -> Result<ChunkPages> {
        let (start, length) = chunk.byte_range();
        let file_bytes = file.metadata()?.len();
        if start.checked_add(length).is_none_or(|end| end > file_bytes) {
            let (name, end) = (chunk.column_path().string(), start.saturating_add(length));
            return Err(fault(format!("column {name} ends at byte {end} of {file_bytes}")));
        }
        let shortens = chunk.column_type() == PhysicalType::BYTE_ARRAY
            && chunk.column_descr().max_rep_level() == 0
            && streams(chunk.compression());
        let mut pages = ChunkPages {
            file: file.clone(),
            chunk: chunk.clone(),
            pages: VecDeque::new(),
            ordinary: SerializedPageReader::new(file.clone(), chunk, rows, None)?,
            max_value_bytes: max_value_bytes.filter(|_| shortens),
            dictionary: None,
            longest_entry: 0,
            rows: rows as u64,
        };
        pages.read_headers(start, length);
        pages.measure();
        Ok(pages)
    }

    fn read_headers(&mut self, start: u64, length: u64) {
        let (mut offset, end) = (start, start + length);
        let mut values = 0;
        // Some writers leave padding behind the last page.
        while offset < end && values < self.chunk.num_values() {
            let entry = self.read_header(offset, end);
            if let Ok(PageEntry { header, body, .. }) = &entry {
                offset = body + u64::from(header.compressed);
                values += i64::from(header.kind.num_data_values());
            } else {
                offset = end;
            }
            let number = self.pages.len();
            self.pages.push_back(entry.map_err(|problem| self.describe(number, &problem)));
        }
    }

    fn describe(&self, page: usize, problem: &str) -> String {
        format!("page {page} of column {}: {problem}", self.chunk.column_path().string())
    }

    fn read_header(&self, offset: u64, end: u64) -> std::result::Result<PageEntry, String> {
        let input = self.file.get_read(offset).map_err(|error| error.to_string())?;
        let (header, length) =
            thrift::page_header(input, end - offset).map_err(|error| format!("its header: {error}"))?;
        let (body, uncompressed) = (offset + length, u64::from(header.uncompressed));
        let left = end - body;
        if u64::from(header.compressed) > left {
            return Err(format!("it claims {} bytes, but its column ends after {left}", header.compressed));
        }
        let total = self.chunk.uncompressed_size().max(0) as u64;
        if uncompressed > total.saturating_mul(2).saturating_add(SLACK_BYTES) {
            return Err(format!(
                "it claims {uncompressed} bytes uncompressed, the footer {total} for all pages together"
            ));
        }
        match header.kind {
            PageKind::Dictionary { num_values } => {
                let width: u64 = match self.chunk.column_type() {
                    PhysicalType::BOOLEAN => 0,
                    PhysicalType::INT32 | PhysicalType::FLOAT | PhysicalType::BYTE_ARRAY => 4,
                    PhysicalType::INT64 | PhysicalType::DOUBLE => 8,
                    PhysicalType::INT96 => 12,
                    PhysicalType::FIXED_LEN_BYTE_ARRAY => {
                        self.chunk.column_descr().type_length().max(0) as u64
                    }
                };
                if u64::from(num_values) * width > uncompressed {
                    return Err(format!("it claims {num_values} values in {uncompressed} bytes"));
                }
            }
            PageKind::DataV2 { definition_bytes, repetition_bytes, .. } => {
                let levels = u64::from(definition_bytes) + u64::from(repetition_bytes);
                if levels > uncompressed || levels > header.compressed.into() {
                    return Err(format!("it claims {levels} bytes of levels in {uncompressed} bytes"));
                }
            }
            PageKind::DataV1 { .. } | PageKind::Index => {}
        }
        Ok(PageEntry { header, body, decoded: uncompressed.max(header.compressed.into()) })
    }

    /// Finds out how large the pages are that will be shortened.
    fn measure(&mut self) {
        for index in 0..self.pages.len() {
            let Some(Ok(entry)) = self.pages.get(index) else { continue };
            if self.is_shortened(entry) {
                let decoded = self.stream(entry, &mut Count(0));
                let decoded = decoded.map_err(|error| self.describe(index, &error.to_string()));
                match (decoded, &mut self.pages[index]) {
                    (Ok(bytes), Ok(entry)) => entry.decoded = bytes,
                    (Err(problem), page) => *page = Err(problem),
                    (Ok(_), Err(_)) => {}
                }
            }
        }
    }

    /// Reads the dictionary, if there is one, to know its longest value. What it takes, [`page_bytes`](Self::page_bytes)
    /// knows before.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn read_dictionary(&mut self) -> Result<()> {
        self.skip_indexes()?;
        let is_dictionary = |kind| matches!(kind, PageKind::Dictionary { .. });
        if !self.pages.front().is_some_and(|page| page.as_ref().is_ok_and(|p| is_dictionary(p.header.kind))) {
            return Ok(());
        }
        self.dictionary = self.next_page()?;
        if let Some(page) = &self.dictionary
            && self.chunk.column_type() == PhysicalType::BYTE_ARRAY
        {
            self.longest_entry = longest_value(page.buffer());
        }
        Ok(())
    }

    /// Bytes that decoding holds at its most beside the batch.
    pub fn page_bytes(&self) -> u64 {
        let (mut largest, mut dictionary) = (0, 0);
        for entry in self.entries() {
            let compressed = u64::from(entry.header.compressed);
            let source = if self.is_streamed(entry) { 4 * BUFFER_BYTES as u64 } else { compressed };
            largest = largest.max(entry.decoded + source);
            if let PageKind::Dictionary { num_values } = entry.header.kind {
                // Its page while it is decoded, then values and offsets for as long as the chunk is read.
                dictionary = 2 * entry.decoded + 8 * u64::from(num_values);
            }
        }
        if let Some(page) = &self.dictionary {
            dictionary = 2 * page.buffer().len() as u64 + 8 * u64::from(page.num_values());
        }
        largest.saturating_add(dictionary)
    }

    /// Bytes that a batch of `rows` rows may have at its most.
    pub fn batch_bytes(&self, rows: u64) -> u64 {
        let mut values_a_row = 1;
        if self.chunk.column_descr().max_rep_level() > 0 {
            // Lists differ in length, and only their number in the chunk is known.
            values_a_row = 4 * (self.chunk.num_values().max(0) as u64 / self.rows.max(1)).max(1);
        }
        let wanted = rows.saturating_mul(values_a_row);
        let mut window = VecDeque::new();
        let (mut values, mut bytes, mut most) = (0, 0u64, 0);
        for entry in self.entries() {
            let n = u64::from(entry.header.kind.num_data_values());
            let decoded = self.value_bytes(entry);
            window.push_back((n, decoded));
            values += n;
            bytes = bytes.saturating_add(decoded);
            most = most.max(bytes);
            // The first page goes once not even its last row can be in a batch with the next page's first.
            while let Some(&(n, decoded)) = window.front()
                && values - n + 1 >= wanted
            {
                window.pop_front();
                values -= n;
                bytes -= decoded;
            }
        }
        most.saturating_add(wanted.saturating_mul(self.longest_entry))
    }

    /// Bytes of all the values of a data page, other than those that stand in the dictionary.
    fn value_bytes(&self, entry: &PageEntry) -> u64 {
        match entry.header.kind {
            PageKind::Dictionary { .. } | PageKind::Index => 0,
            kind if kind.encoding() == Some(DELTA_BYTES) => max_delta_bytes(entry.decoded),
            _ => entry.decoded,
        }
    }

    fn entries(&self) -> impl Iterator<Item = &PageEntry> {
        self.pages.iter().filter_map(|entry| entry.as_ref().ok())
    }

    /// Whether values of the page are replaced.
    fn is_shortened(&self, entry: &PageEntry) -> bool {
        let plain = match entry.header.kind {
            PageKind::Dictionary { .. } => true,
            PageKind::DataV1 { encoding, definition_encoding, .. } => {
                encoding == PLAIN
                    && (definition_encoding == RLE || self.chunk.column_descr().max_def_level() == 0)
            }
            PageKind::DataV2 { encoding, .. } => encoding == PLAIN,
            PageKind::Index => false,
        };
        let large = |most: u64| u64::from(entry.header.uncompressed) > most.max(MIN_STREAMED_BYTES);
        plain && self.max_value_bytes.is_some_and(large)
    }

    /// Whether the page is decompressed here: those that are shortened, and those whose decompressor would not stop at the
    /// size that the header tells.
    fn is_streamed(&self, entry: &PageEntry) -> bool {
        let unbounded = matches!(self.chunk.compression(), Compression::GZIP(_) | Compression::BROTLI(_));
        self.is_shortened(entry) || unbounded && entry.header.kind != PageKind::Index
    }

    /// Writes the page, with its long values replaced, to `output`; returns the bytes written.
    fn stream(&self, entry: &PageEntry, output: &mut impl Output) -> io::Result<u64> {
        let PageHeader { kind, uncompressed, compressed } = entry.header;
        let body = self.file.get_read(entry.body).map_err(io::Error::other)?;
        let mut body = body.take(compressed.into());
        let (mut levels, mut is_compressed) = (0, true);
        if let PageKind::DataV2 { definition_bytes, repetition_bytes, is_compressed: values, .. } = kind {
            levels = u64::from(definition_bytes) + u64::from(repetition_bytes);
            is_compressed = values;
            copy_exactly(&mut body, levels, output)?;
        }
        let left = u64::from(uncompressed) - levels;
        // A page of nulls has no values to decompress.
        if left > 0 {
            let codec = if is_compressed { self.chunk.compression() } else { Compression::UNCOMPRESSED };
            let mut values = BufReader::with_capacity(BUFFER_BYTES, decompressed(body, codec)?).take(left);
            if self.is_shortened(entry) {
                if matches!(kind, PageKind::DataV1 { .. }) && self.chunk.column_descr().max_def_level() > 0 {
                    let length = read_length(&mut values)?.ok_or_else(ended)?;
                    output.put(&length.to_le_bytes())?;
                    copy_exactly(&mut values, length.into(), output)?;
                }
                shorten_values(&mut values, self.max_value_bytes.unwrap_or(u64::MAX), output)?;
            } else {
                copy_exactly(&mut values, left, output)?;
            }
            if values.limit() > 0 || values.into_inner().read(&mut [0])? > 0 {
                return Err(bad("its bytes do not decompress to the size that its header tells"));
            }
        }
        Ok(output.len())
    }

    fn streamed_page(&self, entry: &PageEntry) -> Result<Page> {
        let mut buffer = Vec::with_capacity(entry.decoded as usize);
        self.stream(entry, &mut buffer).map_err(|error| fault(self.describe_kind(&error.to_string())))?;
        let buf = Bytes::from(buffer);
        let encoding =
            |number: i64| encoding_of(number).ok_or_else(|| fault(format!("there is no encoding {number}")));
        Ok(match entry.header.kind {
            PageKind::DataV1 { num_values, encoding: number, definition_encoding, repetition_encoding } => {
                Page::DataPage {
                    buf,
                    num_values,
                    encoding: encoding(number)?,
                    def_level_encoding: encoding(definition_encoding)?,
                    rep_level_encoding: encoding(repetition_encoding)?,
                    statistics: None,
                }
            }
            PageKind::DataV2 {
                num_values,
                num_nulls,
                num_rows,
                encoding: number,
                definition_bytes,
                repetition_bytes,
                ..
            } => Page::DataPageV2 {
                buf,
                num_values,
                encoding: encoding(number)?,
                num_nulls,
                num_rows,
                def_levels_byte_len: definition_bytes,
                rep_levels_byte_len: repetition_bytes,
                is_compressed: false,
                statistics: None,
            },
            PageKind::Dictionary { num_values } => {
                Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false }
            }
            PageKind::Index => return Err(fault("an index page holds no values".into())),
        })
    }

    fn next_page(&mut self) -> Result<Option<Page>> {
        self.skip_indexes()?;
        let entry = match self.pages.pop_front() {
            None => return Ok(None),
            Some(Ok(entry)) => entry,
            Some(Err(problem)) => return Err(fault(problem)),
        };
        let page = if self.is_streamed(&entry) {
            self.ordinary.skip_next_page()?;
            Some(self.streamed_page(&entry)?)
        } else {
            self.ordinary.get_next_page()?
        };
        if let Some(page) = &page {
            self.check_lengths(page, &entry)?;
        }
        Ok(page)
    }

    /// Checks what delta encodings claim: the decoder takes their word for the room it needs.
    fn check_lengths(&self, page: &Page, entry: &PageEntry) -> Result<()> {
        let kind = entry.header.kind;
        let Some(encoding @ (DELTA_LENGTH | DELTA_BYTES)) = kind.encoding() else { return Ok(()) };
        let lie = || fault(self.describe_kind("its lengths are not those of its values"));
        let values = self.values(page, kind).ok_or_else(lie)?;
        let most = u64::from(kind.num_data_values());
        let lengths = Lengths::new(values, most).ok_or_else(lie)?;
        if encoding == DELTA_LENGTH {
            return Ok(());
        }
        // Each value repeats the beginning of the one before, as long as a first run says; a second has the rest.
        let (prefixes, rest) = sum(lengths).ok_or_else(lie)?;
        let (suffixes, _) = sum(Lengths::new(rest, most).ok_or_else(lie)?).ok_or_else(lie)?;
        let (bytes, page_bytes) = (prefixes.saturating_add(suffixes), entry.decoded);
        if bytes > max_delta_bytes(page_bytes) {
            return Err(fault(self.describe_kind(&format!(
                "its {page_bytes} bytes hold {bytes} bytes of values, more than is decoded in one go; write the shard \
                 with another encoding"
            ))));
        }
        Ok(())
    }

    fn describe_kind(&self, problem: &str) -> String {
        format!("a page of column {}: {problem}", self.chunk.column_path().string())
    }

    /// The page's bytes behind its levels.
    fn values<'a>(&self, page: &'a Page, kind: PageKind) -> Option<&'a [u8]> {
        let mut bytes: &[u8] = page.buffer();
        let column = self.chunk.column_descr();
        match kind {
            PageKind::DataV2 { definition_bytes, repetition_bytes, .. } => {
                bytes.get(definition_bytes as usize + repetition_bytes as usize..)
            }
            PageKind::DataV1 { .. } => {
                for level in [column.max_rep_level(), column.max_def_level()] {
                    if level > 0 {
                        let (length, rest) = bytes.split_first_chunk()?;
                        bytes = rest.get(u32::from_le_bytes(*length) as usize..)?;
                    }
                }
                Some(bytes)
            }
            PageKind::Dictionary { .. } | PageKind::Index => None,
        }
    }

    fn skip_indexes(&mut self) -> Result<()> {
        while let Some(Ok(entry)) = self.pages.front()
            && entry.header.kind == PageKind::Index
        {
            self.ordinary.skip_next_page()?;
            self.pages.pop_front();
        }
        Ok(())
    }
}

impl PageReader for ChunkPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        match self.dictionary.take() {
            Some(page) => Ok(Some(page)),
            None => self.next_page(),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let page = |num_rows: Option<u32>, num_levels: Option<u32>, is_dict| PageMetadata {
            num_rows: num_rows.map(|n| n as usize),
            num_levels: num_levels.map(|n| n as usize),
            is_dict,
        };
        if self.dictionary.is_some() {
            return Ok(Some(page(None, None, true)));
        }
        self.skip_indexes()?;
        let entry = match self.pages.front() {
            None => return Ok(None),
            Some(Ok(entry)) => entry,
            Some(Err(problem)) => return Err(fault(problem.clone())),
        };
        Ok(Some(match entry.header.kind {
            PageKind::DataV1 { num_values, .. } => page(None, Some(num_values), false),
            PageKind::DataV2 { num_values, num_rows, .. } => page(Some(num_rows), Some(num_values), false),
            PageKind::Dictionary { .. } | PageKind::Index => page(None, None, true),
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if self.dictionary.take().is_some() {
            return Ok(());
        }
        self.skip_indexes()?;
        self.pages.pop_front();
        self.ordinary.skip_next_page()
    }
}

impl Iterator for ChunkPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Where a page's bytes go: to the decoder, or to nowhere to be counted.
trait Output {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn len(&self) -> u64;
}

struct Count(u64);

impl Output for Count {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.0
    }
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The file is not the one that was surveyed.
        if self.len() + bytes.len() > self.capacity() {
            return Err(bad("it is larger than it was a moment ago"));
        }
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len() as u64
    }
}

/// Bytes that values may have which share beginnings, in a page of `page_bytes`.
fn max_delta_bytes(page_bytes: u64) -> u64 {
    page_bytes.saturating_mul(8).max(1 << 20)
}

/// Sum of the lengths, and what follows them.
fn sum(mut lengths: Lengths<'_>) -> Option<(u64, &[u8])> {
    let mut total = 0u64;
    while lengths.left() > 0 {
        total += u64::from(lengths.next()?);
    }
    Some((total, lengths.rest()))
}

/// Whether pages of the codec can be decompressed piece by piece.
fn streams(codec: Compression) -> bool {
    use Compression::{BROTLI, GZIP, SNAPPY, UNCOMPRESSED, ZSTD};
    matches!(codec, UNCOMPRESSED | SNAPPY | GZIP(_) | BROTLI(_) | ZSTD(_))
}

fn decompressed<'a>(input: impl Read + 'a, codec: Compression) -> io::Result<Box<dyn Read + 'a>> {
    let input = BufReader::with_capacity(BUFFER_BYTES, input);
    Ok(match codec {
        Compression::UNCOMPRESSED => Box::new(input),
        Compression::SNAPPY => Box::new(SnappyReader::new(input)?),
        Compression::GZIP(_) => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::BROTLI(_) => Box::new(brotli::Decompressor::new(input, BUFFER_BYTES)),
        Compression::ZSTD(_) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        other => return Err(bad(&format!("{other} is not read piece by piece"))),
    })
}

fn copy_exactly(input: &mut impl Read, bytes: u64, output: &mut impl Output) -> io::Result<()> {
    let mut left = bytes;
    let mut buffer = vec![0; BUFFER_BYTES.min(left as usize)];
    while left > 0 {
        let n = (buffer.len() as u64).min(left) as usize;
        input.read_exact(&mut buffer[..n])?;
        output.put(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// Copies byte arrays, each after its length, and puts a marker in place of each that is longer than `most`.
fn shorten_values(input: &mut impl Read, most: u64, output: &mut impl Output) -> io::Result<()> {
    while let Some(length) = read_length(input)? {
        let bytes = u64::from(length);
        if bytes > most {
            output.put(&(Marker::BYTES as u32).to_le_bytes())?;
            output.put(&Marker::of(bytes))?;
            copy_exactly(input, bytes, &mut Count(0))?;
        } else {
            output.put(&length.to_le_bytes())?;
            copy_exactly(input, bytes, output)?;
        }
    }
    Ok(())
}

/// The next length; `None` at the end.
fn read_length(input: &mut impl Read) -> io::Result<Option<u32>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match input.read(&mut length[have..])? {
            0 if have == 0 => return Ok(None),
            0 => return Err(ended()),
            n => have += n,
        }
    }
    Ok(Some(u32::from_le_bytes(length)))
}

/// Length of the longest of byte arrays that each follow their length; what is no such thing is the decoder's to find.
fn longest_value(mut values: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = values.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(length);
        values = rest.get(length as usize..).unwrap_or_default();
    }
    longest.into()
}

#[allow(deprecated)]
fn encoding_of(number: i64) -> Option<Encoding> {
    Some(match number {
        PLAIN => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        RLE => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        DELTA_LENGTH => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        DELTA_BYTES => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return None,
    })
}

fn fault(problem: String) -> ParquetError {
    ParquetError::General(problem)
}

fn bad(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn ended() -> io::Error {
    bad("it ends inside a value")
}
