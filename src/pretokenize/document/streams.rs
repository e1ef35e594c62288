//! Streams of a PDF file, packed bytes in, unpacked bytes out, never more than a bound. Knows of no object but a stream's dictionary.

use flate2::{Decompress, FlushDecompress, Status};
use hayro_syntax::{
    Filter,
    object::{
        Array, Dict, Object, Stream,
        dict::keys::{DECODE_PARMS, DP, EARLY_CHANGE, PREDICTOR},
    },
};

pub(super) use self::measure::{check_read, check_unread};

mod measure;

/// How much streams may unpack to. The reader of objects unpacks what it needs to find its way, and asks nobody: so all streams
/// are measured before it is let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a stream.
    one: u64,
    /// Bytes of all streams of a file.
    all: u64,
}

impl Bounds {
    /// Fonts and pictures are longer than the text that they are there for, so a stream may be four times as long as a document,
    /// and all together four times that; what every file may need is allowed in any case. The reader of objects keeps what it
    /// unpacks until the file is closed, so this bounds memory, too.
    pub(super) fn of(max_document_bytes: u64) -> Self {
        let one = max_document_bytes.saturating_mul(4).max(64 << 20);
        Self { one, all: one.saturating_mul(4) }
    }

    /// Bytes of a stream.
    pub(super) fn one(self) -> u64 {
        self.one
    }

    /// Bytes of content that may be gone through for the pages of a file; forms count each time they are shown.
    pub(super) fn content(self) -> u64 {
        self.all
    }
}

/// Why a stream was not unpacked to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has more bytes than it may.
    TooLong,
    /// The decoder's words, and how many packed bytes were left.
    Damaged(String, u64),
    /// Pixels are no concern of ours.
    Picture,
}

impl Stop {
    pub(super) fn reason(self, bounds: Bounds) -> String {
        match self {
            Stop::TooLong => format!(
                "a stream of more than {} bytes once decoded, by limits.max_document_bytes",
                bounds.one
            ),
            Stop::Damaged(words, _) => words,
            Stop::Picture => "a picture where there should be text".to_owned(),
        }
    }
}

/// Where unpacked bytes go: they are counted, and kept if there is somebody who wants them.
struct Sink {
    n_bytes: u64,
    most: u64,
    kept: Option<Vec<u8>>,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.n_bytes += bytes.len() as u64;
        if self.n_bytes > self.most {
            return Err(Stop::TooLong);
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// The bytes of a stream: all of them, or an error.
pub(super) fn content(stream: &Stream<'_>, bounds: Bounds) -> Result<Vec<u8>, Stop> {
    let filters = stream.filters();
    let packed = stream.raw_data();
    if !has_predictor(stream.dict()) {
        let early = is_early(stream.dict());
        return unpack(&packed, &filters, early, bounds.one, true).map(|sink| sink.kept.unwrap_or_default());
    }
    unpack(&packed, &filters, is_early(stream.dict()), bounds.one, false)?;
    let unread = |failure| Stop::Damaged(format!("a stream cannot be decoded: {failure:?}"), 0);
    stream.decoded_data().map(|bytes| bytes.into_owned()).map_err(unread)
}

/// The bytes of an image and the filter that makes pixels of them, if its last one does: all of them, or an error.
pub(super) fn image(stream: &Stream<'_>, bounds: Bounds) -> Result<(Option<Filter>, Vec<u8>), Stop> {
    let filters = stream.filters();
    let Some((last, first)) = filters.split_last().filter(|(last, _)| makes_pixels(**last)) else {
        return content(stream, bounds).map(|bytes| (None, bytes));
    };
    if has_predictor(stream.dict()) {
        return Err(Stop::Damaged("an image of differences that are packed twice".to_owned(), 0));
    }
    let unpacked = unpack(&stream.raw_data(), first, is_early(stream.dict()), bounds.one, true)?;
    Ok((Some(*last), unpacked.kept.unwrap_or_default()))
}

/// Whether a filter is a decoder of images.
pub(super) fn makes_pixels(filter: Filter) -> bool {
    use Filter::{CcittFaxDecode, DctDecode, Jbig2Decode, JpxDecode};
    matches!(filter, DctDecode | JpxDecode | Jbig2Decode | CcittFaxDecode)
}

/// Whether what is unpacked are differences (PDF 32000-1, 7.4.4.4); there are as many bytes of them as of content.
fn has_predictor(dict: &Dict<'_>) -> bool {
    parameters(dict).iter().any(|parameters| parameters.get::<i32>(PREDICTOR).is_some_and(|kind| kind > 1))
}

/// Whether codes of LZW get longer one code early, as they do by default.
fn is_early(dict: &Dict<'_>) -> bool {
    !parameters(dict).iter().any(|parameters| parameters.get::<i32>(EARLY_CHANGE) == Some(0))
}

/// Parameters of filters, under both their names.
pub(super) fn parameters<'a>(dict: &Dict<'a>) -> Vec<Dict<'a>> {
    let told = [DP, DECODE_PARMS].map(|key| match dict.get::<Object<'_>>(key) {
        Some(Object::Dict(dict)) => vec![dict],
        Some(Object::Array(array)) => of_array(&array),
        _ => Vec::new(),
    });
    told.concat()
}

fn of_array<'a>(array: &Array<'a>) -> Vec<Dict<'a>> {
    array.iter::<Object<'_>>().filter_map(Object::into_dict).collect()
}

/// Puts `packed` through `filters`. Only the result of the last is kept, and only `if_kept`.
fn unpack(packed: &[u8], filters: &[Filter], early: bool, most: u64, if_kept: bool) -> Result<Sink, Stop> {
    let mut sink = Sink { n_bytes: 0, most, kept: if_kept.then(Vec::new) };
    // Decryption, where there is any, has been done.
    let filters = filters.strip_prefix(&[Filter::Crypt]).unwrap_or(filters);
    let Some((last, first)) = filters.split_last() else {
        sink.put(packed)?;
        return Ok(sink);
    };
    let mut input = std::borrow::Cow::Borrowed(packed);
    for filter in first {
        let mut between = Sink { n_bytes: 0, most, kept: Some(Vec::new()) };
        apply(*filter, &input, early, &mut between)?;
        input = between.kept.unwrap_or_default().into();
    }
    apply(*last, &input, early, &mut sink)?;
    Ok(sink)
}

/// Puts `packed` through a filter; how many bytes of it there are up to the end that the filter finds.
fn apply(filter: Filter, packed: &[u8], early: bool, sink: &mut Sink) -> Result<usize, Stop> {
    match filter {
        Filter::FlateDecode => flate(packed, sink),
        Filter::LzwDecode => lzw(packed, early, sink),
        Filter::RunLengthDecode => run_length(packed, sink),
        Filter::Ascii85Decode => ascii_85(packed, sink),
        Filter::AsciiHexDecode => ascii_hex(packed, sink),
        _ if makes_pixels(filter) => Err(Stop::Picture),
        _ => Err(Stop::Damaged("a stream decrypts what it has decoded".to_owned(), 0)),
    }
}

fn damaged(words: &str, left: usize) -> Stop {
    Stop::Damaged(words.to_owned(), left as u64)
}

fn flate(packed: &[u8], sink: &mut Sink) -> Result<usize, Stop> {
    if packed.is_empty() {
        // A page without content, as some writers have it.
        return Ok(0);
    }
    let has_header = matches!(packed, [kind, flags, ..]
        if kind & 15 == 8 && u16::from_be_bytes([*kind, *flags]).is_multiple_of(31) && flags & 32 == 0);
    let mut decoder = Decompress::new(has_header);
    let mut unpacked = vec![0; 64 << 10];
    loop {
        let (n_in, n_out) = (decoder.total_in(), decoder.total_out());
        let rest = &packed[n_in as usize..];
        let status = decoder
            .decompress(rest, &mut unpacked, FlushDecompress::None)
            .map_err(|error| damaged(&format!("a stream is damaged: {error}"), rest.len()))?;
        sink.put(&unpacked[..(decoder.total_out() - n_out) as usize])?;
        if status == Status::StreamEnd {
            return Ok(decoder.total_in() as usize);
        }
        if decoder.total_in() == n_in && decoder.total_out() == n_out {
            // Some writers leave out the sum at the end; then the last block is there to its end.
            return if has_header && is_whole(&packed[2..]) {
                Ok(packed.len())
            } else {
                Err(damaged("a stream is truncated: deflate has no last block", 0))
            };
        }
    }
}

/// Whether blocks of deflate, which have been unpacked once, end with the last.
fn is_whole(blocks: &[u8]) -> bool {
    let mut decoder = Decompress::new(false);
    let mut unpacked = vec![0; 64 << 10];
    loop {
        let (n_in, n_out) = (decoder.total_in(), decoder.total_out());
        match decoder.decompress(&blocks[n_in as usize..], &mut unpacked, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return true,
            Ok(_) if decoder.total_in() > n_in || decoder.total_out() > n_out => {}
            _ => return false,
        }
    }
}

/// PDF 32000-1, 7.4.4: codes of 9 to 12 bits, the first bit on top; 256 begins anew, 257 is the end.
fn lzw(packed: &[u8], early: bool, sink: &mut Sink) -> Result<usize, Stop> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    // Of each entry: the entry it continues, its last byte, its length.
    let mut table: Vec<(usize, u8, usize)> = Vec::with_capacity(4096);
    let mut entry = Vec::new();
    let mut previous = None;
    let (mut buffer, mut n_bits, mut at) = (0_u32, 0, 0);
    let begin = |table: &mut Vec<_>| {
        table.clear();
        table.extend((0..258).map(|code| (0, code as u8, 1)));
    };
    begin(&mut table);
    loop {
        let width = match table.len() + usize::from(early) {
            0..512 => 9,
            512..1024 => 10,
            1024..2048 => 11,
            _ => 12,
        };
        while n_bits < width {
            // Many writers leave out the end.
            let Some(byte) = packed.get(at) else { return Ok(at) };
            buffer = buffer << 8 | u32::from(*byte);
            n_bits += 8;
            at += 1;
        }
        n_bits -= width;
        let code = (buffer >> n_bits) as usize & ((1 << width) - 1);
        match code {
            CLEAR => {
                begin(&mut table);
                previous = None;
                continue;
            }
            END => return Ok(at),
            _ => {}
        }
        let is_new = code == table.len();
        let Some(start) = (if is_new { previous } else { (code < table.len()).then_some(code) }) else {
            return Err(damaged("a stream is damaged: no such LZW code", packed.len() - at));
        };
        entry.clear();
        let mut link = start;
        for _ in 0..table[start].2 {
            entry.push(table[link].1);
            link = table[link].0;
        }
        entry.reverse();
        let first = entry[0];
        if is_new {
            entry.push(first);
        }
        sink.put(&entry)?;
        if let (Some(previous), true) = (previous, table.len() < 4096) {
            let length = table[previous].2 + 1;
            table.push((previous, first, length));
        }
        previous = Some(code.min(table.len() - 1));
    }
}

/// PDF 32000-1, 7.4.5.
fn run_length(packed: &[u8], sink: &mut Sink) -> Result<usize, Stop> {
    let mut rest = packed;
    while let [length, after @ ..] = rest {
        let length = usize::from(*length);
        match (length, after) {
            (128, after) => return Ok(packed.len() - after.len()),
            (0..128, _) if after.len() > length => {
                sink.put(&after[..=length])?;
                rest = &after[length + 1..];
            }
            (129.., [byte, after @ ..]) => {
                sink.put(&[*byte; 128][..257 - length])?;
                rest = after;
            }
            _ => return Err(damaged("a stream is truncated: a run has no end", 0)),
        }
    }
    Ok(packed.len())
}

/// PDF 32000-1, 7.4.3.
fn ascii_85(packed: &[u8], sink: &mut Sink) -> Result<usize, Stop> {
    let mut group = Vec::with_capacity(5);
    let mut put = |group: &mut Vec<u8>| -> Result<(), Stop> {
        let n_bytes = group.len().saturating_sub(1);
        group.resize(5, 84);
        let value = group.iter().fold(0_u64, |value, digit| value * 85 + u64::from(*digit)) as u32;
        group.clear();
        sink.put(&value.to_be_bytes()[..n_bytes])
    };
    let start = if packed.starts_with(b"<~") { 2 } else { 0 };
    let mut end = packed.len();
    for (i, byte) in packed.iter().enumerate().skip(start) {
        match byte {
            b'!'..=b'u' => group.push(byte - b'!'),
            b'z' if group.is_empty() => group.extend([0; 5]),
            b'~' => {
                end = i;
                break;
            }
            0 | b'\t'..=b'\r' | b' ' => continue,
            _ => return Err(damaged("a stream is damaged: no digit of ASCII85", packed.len() - i)),
        }
        if group.len() == 5 {
            put(&mut group)?;
        }
    }
    if !group.is_empty() {
        put(&mut group)?;
    }
    Ok(end)
}

/// PDF 32000-1, 7.4.2.
fn ascii_hex(packed: &[u8], sink: &mut Sink) -> Result<usize, Stop> {
    let mut high = None;
    let mut end = packed.len();
    for (i, byte) in packed.iter().enumerate() {
        let digit = match byte {
            b'>' => {
                end = i;
                break;
            }
            0 | b'\t'..=b'\r' | b' ' => continue,
            _ => char::from(*byte).to_digit(16),
        };
        let Some(digit) = digit else {
            return Err(damaged("a stream is damaged: no hexadecimal digit", packed.len() - i));
        };
        high = match high {
            None => Some(digit),
            Some(high) => {
                sink.put(&[(16 * high + digit) as u8])?;
                None
            }
        };
    }
    if let Some(high) = high {
        sink.put(&[(16 * high) as u8])?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn unpacked(packed: &[u8], filters: &[Filter]) -> Result<Vec<u8>, Stop> {
        unpack(packed, filters, true, 1000, true).map(|sink| sink.kept.unwrap())
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn filters_give_what_the_standard_says() {
        // The standard's own example of LZW (7.4.4.2).
        let lzw = [0x80, 0x0b, 0x60, 0x50, 0x22, 0x0c, 0x0c, 0x85, 0x01];
        assert_eq!(unpacked(&lzw, &[Filter::LzwDecode]).unwrap(), [45, 45, 45, 45, 45, 65, 45, 45, 45, 66]);
        assert_eq!(unpacked(b"9jqo^ ~>", &[Filter::Ascii85Decode]).unwrap(), b"Man ");
        assert_eq!(unpacked(b"z9jq~>", &[Filter::Ascii85Decode]).unwrap(), b"\0\0\0\0Ma");
        assert_eq!(unpacked(b"4a 4B5>", &[Filter::AsciiHexDecode]).unwrap(), b"JKP");
        assert_eq!(unpacked(b"\x02abc\xfed\x80", &[Filter::RunLengthDecode]).unwrap(), b"abcddd");
        assert_eq!(unpacked(&deflated(b"text"), &[Filter::FlateDecode]).unwrap(), b"text");
        let hex: String = deflated(b"text").iter().map(|byte| format!("{byte:02x}")).collect();
        let chain = [Filter::AsciiHexDecode, Filter::FlateDecode];
        assert_eq!(unpacked(hex.as_bytes(), &chain).unwrap(), b"text");
    }

    #[test]
    fn a_stream_is_whole_or_an_error() {
        let packed = deflated(&(0..=255).collect::<Vec<u8>>());
        let is_cut = |length: usize| unpacked(&packed[..length], &[Filter::FlateDecode]).is_err();
        assert!((1..packed.len() - 4).all(is_cut));
        assert!(!is_cut(packed.len() - 4), "only the sum is missing");
        let mut wrong_sum = packed.clone();
        *wrong_sum.last_mut().unwrap() ^= 1;
        assert!(matches!(unpacked(&wrong_sum, &[Filter::FlateDecode]), Err(Stop::Damaged(..))));
        assert!(unpacked(b"\x05ab", &[Filter::RunLengthDecode]).is_err());
        assert!(unpacked(b"4x", &[Filter::AsciiHexDecode]).is_err());
        assert_eq!(unpacked(b"", &[Filter::DctDecode]), Err(Stop::Picture));
    }

    #[test]
    fn unpacking_stops_at_the_bound() {
        let bomb = deflated(&vec![0; 1 << 20]);
        assert_eq!(unpacked(&bomb, &[Filter::FlateDecode]), Err(Stop::TooLong));
        let twice = deflated(&bomb);
        let chain = [Filter::FlateDecode, Filter::FlateDecode];
        assert_eq!(unpacked(&twice, &chain), Err(Stop::TooLong));
        assert_eq!(unpacked(&[0x81, 0].repeat(8), &[Filter::RunLengthDecode]), Err(Stop::TooLong));
        assert_eq!(unpacked(&[b'z'; 251], &[Filter::Ascii85Decode]), Err(Stop::TooLong));
    }
}
