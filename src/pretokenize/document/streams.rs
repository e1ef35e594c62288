//! Streams of a PDF file, packed bytes in, unpacked bytes out, never more than a bound. Knows of no object but a stream's dictionary.

use flate2::{Decompress, FlushDecompress, Status};
use hayro_syntax::{
    Filter, Pdf,
    object::{
        Array, Dict, Object, Stream,
        dict::keys::{DECODE_PARMS, DP, EARLY_CHANGE, ENCRYPT, PREDICTOR},
    },
};
use memchr::memmem;

/// What the best packed byte of deflate unpacks to (RFC 1951: 258 bytes in two bits).
const MOST_FLATE_BYTES: u64 = 1032;
/// How far before a stream its dictionary is looked for.
const MOST_DICTIONARY_BYTES: usize = 64 << 10;

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
    /// and all together sixteen times that; what every file may need is allowed in any case.
    pub(super) fn of(max_document_bytes: u64) -> Self {
        let one = max_document_bytes.saturating_mul(4).max(64 << 20);
        Self { one, all: one.saturating_mul(16) }
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

/// Whether what is unpacked are differences (PDF 32000-1, 7.4.4.4); there are as many bytes of them as of content.
fn has_predictor(dict: &Dict<'_>) -> bool {
    parameters(dict).iter().any(|parameters| parameters.get::<i32>(PREDICTOR).is_some_and(|kind| kind > 1))
}

/// Whether codes of LZW get longer one code early, as they do by default.
fn is_early(dict: &Dict<'_>) -> bool {
    !parameters(dict).iter().any(|parameters| parameters.get::<i32>(EARLY_CHANGE) == Some(0))
}

fn parameters<'a>(dict: &Dict<'a>) -> Vec<Dict<'a>> {
    let key = if dict.contains_key(DECODE_PARMS) { DECODE_PARMS } else { DP };
    match dict.get::<Object<'_>>(key) {
        Some(Object::Dict(dict)) => vec![dict],
        Some(Object::Array(array)) => of_array(&array),
        _ => Vec::new(),
    }
}

fn of_array<'a>(array: &Array<'a>) -> Vec<Dict<'a>> {
    array.iter::<Object<'_>>().filter_map(Object::into_dict).collect()
}

/// Measures every stream of the file, by what stands before it, as nothing else is known yet.
///
/// # Errors
/// When one or all are too long.
pub(super) fn check_unread(file: &[u8], bounds: Bounds) -> Result<(), String> {
    let mut left = bounds.all;
    let is_encrypted = memmem::find(file, b"/Encrypt").is_some();
    for at in memmem::find_iter(file, b"stream") {
        if file[..at].ends_with(b"end") {
            continue;
        }
        let head = &file[at.saturating_sub(MOST_DICTIONARY_BYTES)..at];
        let dictionary = &head[memmem::rfind(head, b"obj").unwrap_or(0)..];
        let filters = told_filters(dictionary);
        if filters.is_empty() {
            continue;
        }
        let packed = match &file[at + b"stream".len()..] {
            [b'\r', b'\n', packed @ ..] | [b'\n' | b'\r', packed @ ..] => packed,
            _ => continue,
        };
        let (packed, n_sure) = extent(packed, dictionary, filters[0]);
        let early = memmem::find(dictionary, b"EarlyChange").is_none();
        check(packed, n_sure, &filters, early, is_encrypted, bounds, &mut left)?;
    }
    Ok(())
}

/// Measures the streams that [`check_unread`] could not, now that they can be found and decrypted.
///
/// # Errors
/// When one or all are too long.
pub(super) fn check_read(pdf: &Pdf, file: &[u8], bounds: Bounds) -> Result<(), String> {
    let mut left = bounds.all;
    let is_encrypted = memmem::find(file, ENCRYPT).is_some();
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        let filters = stream.filters();
        if is_encrypted || filters.as_slice() != told_filters(stream.dict().data()) {
            let packed = stream.raw_data();
            check(&packed, packed.len(), &filters, is_early(stream.dict()), false, bounds, &mut left)?;
        }
    }
    Ok(())
}

/// What may be read of a stream, and how much of that is the stream in any case. The word at its end may be in it, too, so its
/// length counts, if it is told here; if not, deflate finds its end by itself.
fn extent<'a>(rest: &'a [u8], dictionary: &[u8], first: Filter) -> (&'a [u8], usize) {
    let ends = |n_bytes: &usize| rest.get(*n_bytes..).is_some_and(is_end);
    if let Some(n_bytes) = told_length(dictionary).filter(ends) {
        return (&rest[..n_bytes], n_bytes);
    }
    let n_bytes = memmem::find(rest, b"endstream").unwrap_or(rest.len());
    if first == Filter::FlateDecode { (rest, n_bytes) } else { (&rest[..n_bytes], n_bytes) }
}

fn is_end(behind: &[u8]) -> bool {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let n_spaces = behind.iter().take_while(|byte| is_space(byte)).count();
    behind[n_spaces..].starts_with(b"endstream")
}

/// The number behind `/Length`, if it is there and no reference.
fn told_length(dictionary: &[u8]) -> Option<usize> {
    let mut names = Names { bytes: dictionary };
    names.find(|name| name == b"Length")?;
    let value = names.bytes.trim_ascii_start();
    let (digits, behind) = value.split_at(value.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let is_reference = behind.trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
    if is_reference { None } else { std::str::from_utf8(digits).ok()?.parse().ok() }
}

fn check(
    packed: &[u8],
    n_sure: usize,
    filters: &[Filter],
    early: bool,
    is_encrypted: bool,
    bounds: Bounds,
    left: &mut u64,
) -> Result<(), String> {
    let n_bytes = match unpack(packed, filters, early, bounds.one, false) {
        Ok(sink) => sink.n_bytes,
        Err(Stop::TooLong) => return Err(Stop::TooLong.reason(bounds)),
        Err(Stop::Picture) => 0,
        // Other readers go on where a stream is damaged. What is still encrypted looks damaged, too.
        Err(Stop::Damaged(_, n_packed)) => {
            let n_behind = packed.len().saturating_sub(n_sure) as u64;
            let most = n_packed.saturating_sub(n_behind).saturating_mul(MOST_FLATE_BYTES);
            if most > bounds.one && !is_encrypted {
                return Err(format!("a damaged stream that may have up to {most} bytes once decoded"));
            }
            0
        }
    };
    *left = left.checked_sub(n_bytes).ok_or_else(|| {
        format!("streams of more than {} bytes once decoded in all, by limits.max_document_bytes", bounds.all)
    })?;
    Ok(())
}

/// The filters that a dictionary names behind `/Filter` or `/F`. A reference there is taken for the usual one.
fn told_filters(dictionary: &[u8]) -> Vec<Filter> {
    let mut filters = Vec::new();
    let mut names = Names { bytes: dictionary };
    while let Some(name) = names.next() {
        if name != b"Filter" && name != b"F" {
            continue;
        }
        match names.bytes.trim_ascii_start() {
            [b'[', list @ ..] => {
                let list = &list[..memchr::memchr(b']', list).unwrap_or(list.len())];
                filters.extend(Names { bytes: list }.filter_map(|name| filter_of(&name)));
            }
            [b'/', ..] => filters.extend(names.next().and_then(|name| filter_of(&name))),
            [b'0'..=b'9', ..] => filters.push(Filter::FlateDecode),
            _ => {}
        }
    }
    filters
}

fn filter_of(name: &[u8]) -> Option<Filter> {
    Some(match name {
        b"FlateDecode" | b"Fl" => Filter::FlateDecode,
        b"LZWDecode" | b"LZW" => Filter::LzwDecode,
        b"RunLengthDecode" | b"RL" => Filter::RunLengthDecode,
        b"ASCII85Decode" | b"A85" => Filter::Ascii85Decode,
        b"ASCIIHexDecode" | b"AHx" => Filter::AsciiHexDecode,
        b"DCTDecode" | b"DCT" => Filter::DctDecode,
        b"JPXDecode" => Filter::JpxDecode,
        b"JBIG2Decode" => Filter::Jbig2Decode,
        b"CCITTFaxDecode" | b"CCF" => Filter::CcittFaxDecode,
        b"Crypt" => Filter::Crypt,
        _ => return None,
    })
}

/// The names in some bytes, `#41` read as `A`.
struct Names<'a> {
    bytes: &'a [u8],
}

impl Iterator for Names<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[memchr::memchr(b'/', self.bytes)? + 1..];
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\0()<>[]{}/%".contains(byte);
        let (name, rest) = rest.split_at(rest.iter().position(is_end).unwrap_or(rest.len()));
        self.bytes = rest;
        let mut plain = Vec::with_capacity(name.len());
        let mut i = 0;
        while i < name.len() {
            let digit = |i: usize| name.get(i).and_then(|byte| char::from(*byte).to_digit(16));
            match (name[i], digit(i + 1), digit(i + 2)) {
                (b'#', Some(high), Some(low)) => {
                    plain.push((16 * high + low) as u8);
                    i += 3;
                }
                (byte, ..) => {
                    plain.push(byte);
                    i += 1;
                }
            }
        }
        Some(plain)
    }
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

fn apply(filter: Filter, packed: &[u8], early: bool, sink: &mut Sink) -> Result<(), Stop> {
    match filter {
        Filter::FlateDecode => flate(packed, sink),
        Filter::LzwDecode => lzw(packed, early, sink),
        Filter::RunLengthDecode => run_length(packed, sink),
        Filter::Ascii85Decode => ascii_85(packed, sink),
        Filter::AsciiHexDecode => ascii_hex(packed, sink),
        Filter::DctDecode | Filter::JpxDecode | Filter::Jbig2Decode | Filter::CcittFaxDecode => {
            Err(Stop::Picture)
        }
        Filter::Crypt => Err(Stop::Damaged("a stream decrypts what it has decoded".to_owned(), 0)),
    }
}

fn damaged(words: &str, left: usize) -> Stop {
    Stop::Damaged(words.to_owned(), left as u64)
}

fn flate(packed: &[u8], sink: &mut Sink) -> Result<(), Stop> {
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
            return Ok(());
        }
        if decoder.total_in() == n_in && decoder.total_out() == n_out {
            // Some writers leave out the sum at the end; then the last block is there to its end.
            return if has_header && is_whole(&packed[2..]) {
                Ok(())
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
fn lzw(packed: &[u8], early: bool, sink: &mut Sink) -> Result<(), Stop> {
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
            let Some(byte) = packed.get(at) else { return Ok(()) };
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
            END => return Ok(()),
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
fn run_length(packed: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    let mut rest = packed;
    while let [length, after @ ..] = rest {
        let length = usize::from(*length);
        match (length, after) {
            (128, _) => return Ok(()),
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
    Ok(())
}

/// PDF 32000-1, 7.4.3.
fn ascii_85(packed: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    let mut group = Vec::with_capacity(5);
    let mut put = |group: &mut Vec<u8>| -> Result<(), Stop> {
        let n_bytes = group.len().saturating_sub(1);
        group.resize(5, 84);
        let value = group.iter().fold(0_u64, |value, digit| value * 85 + u64::from(*digit)) as u32;
        group.clear();
        sink.put(&value.to_be_bytes()[..n_bytes])
    };
    let packed = packed.strip_prefix(b"<~").unwrap_or(packed);
    for (i, byte) in packed.iter().enumerate() {
        match byte {
            b'!'..=b'u' => group.push(byte - b'!'),
            b'z' if group.is_empty() => group.extend([0; 5]),
            b'~' => break,
            0 | b'\t'..=b'\r' | b' ' => continue,
            _ => return Err(damaged("a stream is damaged: no digit of ASCII85", packed.len() - i)),
        }
        if group.len() == 5 {
            put(&mut group)?;
        }
    }
    if group.is_empty() { Ok(()) } else { put(&mut group) }
}

/// PDF 32000-1, 7.4.2.
fn ascii_hex(packed: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    let mut high = None;
    for (i, byte) in packed.iter().enumerate() {
        let digit = match byte {
            b'>' => break,
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
    high.map_or(Ok(()), |high| sink.put(&[(16 * high) as u8]))
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

    #[test]
    fn a_bomb_behind_a_false_end_is_found() {
        let mut packed = Vec::new();
        for (level, bytes) in
            [(Compression::none(), b"endstream".to_vec()), (Compression::best(), vec![0; 70 << 20])]
        {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(&bytes).unwrap();
            encoder.flush().unwrap();
            packed.extend(encoder.get_ref());
        }
        packed.extend([3, 0]);
        let bounds = Bounds::of(0);
        for length in [format!("{}", packed.len()), "7 0 R".to_owned()] {
            let mut file = format!("1 0 obj<</Length {length}/Filter/FlateDecode>>stream\n").into_bytes();
            file.extend(&packed);
            file.extend(b"\nendstream");
            assert_eq!(check_unread(&file, bounds).unwrap_err(), Stop::TooLong.reason(bounds));
        }
    }

    #[test]
    fn filters_are_read_off_a_dictionary() {
        let filters = |dictionary: &[u8]| told_filters(dictionary);
        assert_eq!(filters(b"<</Length 5/Filter/FlateDecode>>"), [Filter::FlateDecode]);
        assert_eq!(
            filters(b"<< /Filter [ /A85 /#46late#44ecode ] /Length 5>>"),
            [Filter::Ascii85Decode, Filter::FlateDecode]
        );
        assert_eq!(filters(b"<</Filter 7 0 R>>"), [Filter::FlateDecode]);
        assert_eq!(filters(b"<</Length 5/Resources<</Font<</Fl 1 0 R>>>>>>"), []);
    }
}
