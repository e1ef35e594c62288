//! A file in, whether its streams unpack to more than they may out, before and after the reader of objects opens it. Knows of no object
//! but a stream's dictionary.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use hayro_syntax::{
    Filter, Pdf,
    object::{
        Dict, FromBytes, MaybeRef, Name, Object, Stream,
        dict::keys::{ENCRYPT, F, FILTER, LENGTH, TYPE, W},
    },
};
use memchr::memmem;

use super::{Bounds, Sink, Stop, apply};

/// What the best packed byte of deflate unpacks to (RFC 1951: 258 bytes in two bits).
const MOST_FLATE_BYTES: u64 = 1032;
/// How often a byte of the file may be looked at for dictionaries; those of real files lie some five deep within each other.
const MOST_READINGS: usize = 32;

/// Streams that are measured, by where their dictionaries start in memory, with the filters that they were measured with.
#[derive(Default)]
pub(in super::super) struct Measured {
    by_dictionary: HashMap<usize, Vec<Filters>>,
    /// Bytes that may still be unpacked.
    left: u64,
}

type Filters = Vec<Filter>;

/// Where a dictionary stands in the file that has a stream behind it.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    end: usize,
    /// Where the packed bytes of the stream start.
    data: usize,
}

/// A stream as it stands in the file.
struct Told<'a> {
    place: Place,
    dictionary: &'a [u8],
    dict: Dict<'a>,
    /// What may be of its packed bytes, if anybody finds an end to them.
    extent: Option<Range<usize>>,
}

impl<'a> Told<'a> {
    fn read(file: &'a [u8], ends: &[usize], place: Place) -> Option<Self> {
        let dictionary = &file[place.start..place.end];
        let dict = Dict::from_bytes(dictionary)?;
        let extent = extent(file, ends, &dict, place.data);
        Some(Self { place, dictionary, dict, extent })
    }
}

/// Measures every stream of the file before anything else is known: wherever a dictionary may start and a stream stands behind it,
/// be it in a comment, a string or another stream.
///
/// In an encrypted file packed bytes say nothing, and what the reader unpacks while it opens the file is taken for as long as it
/// may be: streams of objects, and what a table may call one. The rest of such a file is measured by [`check_read`].
///
/// # Errors
/// When one or all are too long, or when that cannot be told.
pub(in super::super) fn check_unread(file: &[u8], bounds: Bounds) -> Result<Measured, String> {
    let mut measured = Measured { left: bounds.all, ..Measured::default() };
    let (places, is_encrypted) = places(file)?;
    let ends: Vec<usize> = memmem::find_iter(file, b"endstream").collect();
    let streams = || places.iter().filter_map(|place| Told::read(file, &ends, *place));
    for stream in streams() {
        let Some(extent) = stream.extent.clone() else { continue };
        let filters = filters_of(&stream).ok_or("the filters of a stream are told elsewhere in the file")?;
        // Tables are not encrypted.
        let says_nothing = is_encrypted && !stream.dict.contains_key(W);
        check(&file[extent], &filters, says_nothing, bounds, &mut measured.left)?;
        if !is_encrypted {
            let place = stream.dictionary.as_ptr() as usize;
            measured.by_dictionary.entry(place).or_default().push(filters);
        }
    }
    if is_encrypted {
        let numbers: HashSet<u32> =
            streams().flat_map(|stream| numbers_of_object_streams(file, &ends, &stream)).collect();
        for stream in streams().filter(|stream| may_hold_objects(file, stream, &numbers)) {
            let n_packed = stream.extent.clone().map_or(0, |extent| extent.len() as u64);
            let most = growth(&filters_of(&stream).unwrap_or_default()).saturating_mul(n_packed);
            if most > bounds.one {
                return Err(format!(
                    "an encrypted stream of objects that may have up to {most} bytes once decoded"
                ));
            }
            charge(&mut measured.left, most, bounds)?;
        }
    }
    Ok(measured)
}

/// Measures the streams that [`check_unread`] could not, now that they can be found and decrypted.
///
/// # Errors
/// When one or all are too long.
pub(in super::super) fn check_read(pdf: &Pdf, mut measured: Measured, bounds: Bounds) -> Result<(), String> {
    // A wrong table is made again while objects are read for the first time.
    pdf.objects().into_iter().for_each(drop);
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        let filters = stream.filters().to_vec();
        let place = stream.dict().data().as_ptr() as usize;
        if !measured.by_dictionary.get(&place).is_some_and(|known| known.contains(&filters)) {
            check(&stream.raw_data(), &filters, false, bounds, &mut measured.left)?;
        }
    }
    Ok(())
}

/// Where `file` has dictionaries with streams, and whether one of all its dictionaries says that it is encrypted.
///
/// # Errors
/// When dictionaries lie within each other so often that they would have to be read again and again.
fn places(file: &[u8]) -> Result<(Vec<Place>, bool), String> {
    let mut places = Vec::new();
    let mut is_encrypted = false;
    let mut steps = file.len().saturating_mul(MOST_READINGS).saturating_add(1 << 20);
    for start in memchr::memchr_iter(b'<', file) {
        if !file[start..].starts_with(b"<<") {
            continue;
        }
        let end = end_of_dictionary(file, start, &mut steps);
        if steps == 0 {
            return Err(format!("dictionaries within each other, more than {MOST_READINGS} deep"));
        }
        let Some(end) = end else { continue };
        places.extend(start_of_data(file, end).map(|data| Place { start, end, data }));
        let dictionary = &file[start..end];
        let may_encrypt = memmem::find(dictionary, ENCRYPT).is_some() || dictionary.contains(&b'#');
        if may_encrypt && !is_encrypted {
            is_encrypted = Dict::from_bytes(dictionary).is_some_and(|dict| dict.contains_key(ENCRYPT));
        }
    }
    Ok((places, is_encrypted))
}

/// Where the dictionary ends that starts at `start`, if there is one; at least those are found that the reader of objects finds.
/// `steps` go down by the bytes that are looked at; once they are 0 the answer means nothing.
fn end_of_dictionary(file: &[u8], start: usize, steps: &mut usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    while *steps > 0 {
        let rest = &file[at..];
        let length = match rest {
            [b'<', b'<', ..] => 2,
            [b'>', b'>', ..] => 2,
            [b'<', hex @ ..] => length_of_hex(hex).map(|length| 1 + length)?,
            [b'(', ..] => length_of_string(rest).unwrap_or(rest.len()),
            [b'%', ..] => memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len()),
            [b')' | b'>' | b'{' | b'}', ..] | [] => return None,
            _ => 1,
        };
        *steps = steps.saturating_sub(length);
        at += length;
        match rest {
            [b'<', b'<', ..] => depth += 1,
            [b'>', b'>', ..] if depth == 1 => return Some(at),
            [b'>', b'>', ..] => depth -= 1,
            _ => {}
        }
    }
    None
}

fn length_of_hex(hex: &[u8]) -> Option<usize> {
    let length = hex.iter().position(|byte| !byte.is_ascii_hexdigit() && !is_space(byte))?;
    (hex[length] == b'>').then_some(length + 1)
}

/// PDF 32000-1, 7.3.4.2.
fn length_of_string(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let next = at + memchr::memchr3(b'\\', b'(', b')', bytes.get(at..)?)?;
        at = next + 1;
        match bytes[next] {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// White space, as the standard has it (PDF 32000-1, 7.2.2).
fn is_space(byte: &u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 12 | b'\r' | b' ')
}

/// Where the bytes of the stream start whose dictionary ends at `end`.
fn start_of_data(file: &[u8], end: usize) -> Option<usize> {
    let mut rest = &file[end..];
    loop {
        rest = match rest {
            [b'%', comment @ ..] => &comment[memchr::memchr2(b'\r', b'\n', comment)?..],
            [byte, after @ ..] if is_space(byte) => after,
            _ => break,
        };
    }
    match rest.strip_prefix(b"stream")? {
        [b'\r', b'\n', packed @ ..] | [b'\n' | b'\r', packed @ ..] => Some(file.len() - packed.len()),
        _ => None,
    }
}

/// What may be of a stream. The word at its end may be in it, too, so its length counts, if it is told here; if it is told elsewhere
/// the stream may reach to the end of the file, though most filters find their end by themselves.
fn extent(file: &[u8], ends: &[usize], dict: &Dict<'_>, data: usize) -> Option<Range<usize>> {
    let first_end = *ends.get(ends.partition_point(|end| *end < data))?;
    let is_elsewhere = matches!(dict.get_raw::<Object<'_>>(LENGTH), Some(MaybeRef::Ref(_)));
    let end = if is_elsewhere { file.len() } else { told_end(file, dict, data).unwrap_or(first_end) };
    Some(data..end)
}

/// The end of a stream by the length in its dictionary, if it ends there.
fn told_end(file: &[u8], dict: &Dict<'_>, data: usize) -> Option<usize> {
    let end = data.checked_add(usize::try_from(dict.get::<u32>(LENGTH)?).ok()?)?;
    let behind = file.get(end..)?;
    let n_spaces = behind.iter().take_while(|byte| is_space(byte)).count();
    behind[n_spaces..].starts_with(b"endstream").then_some(end)
}

/// The filters of a stream, as the reader of objects finds them; `None` if it finds them elsewhere in the file.
fn filters_of(stream: &Told<'_>) -> Option<Filters> {
    for key in [F, FILTER] {
        let is_elsewhere = match stream.dict.get_raw::<Object<'_>>(key) {
            Some(MaybeRef::Ref(_)) => true,
            Some(MaybeRef::NotRef(Object::Array(names))) => {
                names.raw_iter().any(|name| matches!(name, MaybeRef::Ref(_)))
            }
            _ => false,
        };
        if is_elsewhere {
            return None;
        }
    }
    let empty = [stream.dictionary, b"stream\n\nendstream"].concat();
    Stream::from_bytes(&empty).map(|stream| stream.filters().to_vec())
}

/// The numbers of all objects that `stream`, if it is a table, calls streams of objects (PDF 32000-1, 7.5.8).
fn numbers_of_object_streams(file: &[u8], ends: &[usize], stream: &Told<'_>) -> HashSet<u32> {
    let mut numbers = HashSet::new();
    let Place { start, data, .. } = stream.place;
    let told_end = told_end(file, &stream.dict, data).unwrap_or(data);
    let end = ends.get(ends.partition_point(|end| *end < told_end));
    let widths = stream.dict.get::<[u8; 3]>(W).map(|widths| widths.map(usize::from));
    let (Some([kind, number, index]), Some(end)) = (widths, end) else { return numbers };
    let table = Stream::from_bytes(&file[start..end + b"endstream".len()]);
    let Some(Ok(table)) = table.as_ref().map(|table| table.decoded_data()) else { return numbers };
    // A kind has one byte, whatever its width is.
    let kind = kind.min(1);
    for row in table.chunks_exact((kind + number + index).max(1)) {
        if kind == 1 && row[0] == 2 {
            let bytes = &row[kind..kind + number];
            numbers.insert(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)));
        }
    }
    numbers
}

/// Whether the reader may take `stream` for a stream of objects: by what it says of itself, or by its number.
fn may_hold_objects(file: &[u8], stream: &Told<'_>, numbers: &HashSet<u32>) -> bool {
    if stream.dict.get::<Name<'_>>(TYPE).as_deref() == Some(b"ObjStm") {
        return true;
    }
    // The number and the generation; where anything else stands, such as a comment, it may be any.
    let trimmed = |bytes: &[u8]| bytes.len() - bytes.iter().rev().take_while(|byte| is_space(byte)).count();
    let digits =
        |bytes: &[u8]| bytes.len() - bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let before = &file[..stream.place.start];
    let Some(before) = before[..trimmed(before)].strip_suffix(b"obj") else { return true };
    let before = &before[..trimmed(before)];
    let before = &before[..digits(before)];
    let before = &before[..trimmed(before)];
    let (before, number) = before.split_at(digits(before));
    // A table may point to any of its digits.
    number.is_empty()
        || before.ends_with(b".")
        || before.ends_with(b"+")
        || before.ends_with(b"-")
        || (0..number.len()).any(|i| {
            let number = std::str::from_utf8(&number[i..]).ok().and_then(|digits| digits.parse().ok());
            number.is_some_and(|number| numbers.contains(&number))
        })
}

/// Measures what `packed` unpacks to. What is still encrypted looks damaged, and tells nothing.
fn check(
    packed: &[u8],
    filters: &[Filter],
    is_encrypted: bool,
    bounds: Bounds,
    left: &mut u64,
) -> Result<(), String> {
    if filters.iter().filter(|filter| **filter == Filter::LzwDecode).count() > 1 {
        return Err("a stream that is packed twice by LZW".to_owned());
    }
    // The kinds of LZW differ in their parameters, which may be told elsewhere.
    let kinds: &[bool] = if filters.contains(&Filter::LzwDecode) { &[true, false] } else { &[true] };
    for early in kinds {
        let Work { n_bytes, most_more } =
            measure(packed, filters, *early, bounds.one).map_err(|stop| stop.reason(bounds))?;
        let most = if is_encrypted { 0 } else { most_more };
        if most > bounds.one {
            return Err(format!("a damaged stream that may have up to {most} bytes once decoded"));
        }
        charge(left, n_bytes.saturating_add(most), bounds)?;
    }
    Ok(())
}

fn charge(left: &mut u64, n_bytes: u64, bounds: Bounds) -> Result<(), String> {
    *left = left.checked_sub(n_bytes).ok_or_else(|| {
        format!("streams of more than {} bytes once decoded in all, by limits.max_document_bytes", bounds.all)
    })?;
    Ok(())
}

/// What it takes to unpack a stream.
struct Work {
    /// Bytes that go into and come out of filters, up to where one finds damage.
    n_bytes: u64,
    /// How many may come out by readers that go on there.
    most_more: u64,
}

/// Measures what `packed` has once it went through `filters`.
///
/// # Errors
/// When more than `most` bytes come out of one.
fn measure(packed: &[u8], filters: &[Filter], early: bool, most: u64) -> Result<Work, Stop> {
    let filters = filters.strip_prefix(&[Filter::Crypt]).unwrap_or(filters);
    let mut work = Work { n_bytes: 0, most_more: 0 };
    let mut input = std::borrow::Cow::Borrowed(packed);
    for (i, filter) in filters.iter().enumerate() {
        let is_last = i + 1 == filters.len();
        let mut sink = Sink { n_bytes: 0, most, kept: (!is_last).then(Vec::new) };
        let n_read = match apply(*filter, &input, early, &mut sink) {
            Ok(n_read) => n_read as u64,
            Err(Stop::TooLong) => return Err(Stop::TooLong),
            Err(Stop::Damaged(_, n_left)) => {
                // The first two are those in which readers go on.
                if matches!(filter, Filter::FlateDecode | Filter::Ascii85Decode) {
                    work.most_more = work.most_more.max(growth(&filters[i..]).saturating_mul(n_left));
                }
                (input.len() as u64).saturating_sub(n_left)
            }
            Err(Stop::Picture) => break,
        };
        work.n_bytes += n_read + sink.n_bytes;
        input = sink.kept.unwrap_or_default().into();
    }
    Ok(work)
}

/// What the best packed byte of these filters unpacks to.
fn growth(filters: &[Filter]) -> u64 {
    let of_one = |filter: &Filter| match filter {
        Filter::FlateDecode => MOST_FLATE_BYTES,
        Filter::LzwDecode => 4096,
        Filter::RunLengthDecode => 128,
        Filter::Ascii85Decode => 4,
        _ => 1,
    };
    filters.iter().map(of_one).fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
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
            assert_eq!(refused(&file), Stop::TooLong.reason(bounds));
        }
    }

    fn refused(file: &[u8]) -> String {
        check_unread(file, Bounds::of(0)).err().unwrap_or_default()
    }

    /// A file that is nothing but a stream of too many bytes with this dictionary.
    fn bomb(dictionary: &str) -> Vec<u8> {
        let mut file = dictionary.as_bytes().to_vec();
        file.extend(b"stream\n");
        file.extend(deflated(&vec![0; (64 << 20) + 1]));
        file.extend(b"\nendstream");
        file
    }

    #[test]
    fn a_bomb_is_found_whatever_its_dictionary_holds() {
        let reason = Stop::TooLong.reason(Bounds::of(0));
        let padding = " ".repeat(200_000);
        for dictionary in [
            "<</Type/ObjStm/Filter/FlateDecode/X(obj)/Length 65244>>".to_owned(),
            "<</Type/ObjStm/Filter/FlateDecode/X(5 0 obj<<)/Length 7 0 R>>".to_owned(),
            "1 0 obj<</Filter/FlateDecode%5 0 obj<<\n/Length 3>>".to_owned(),
            "1 0 obj<</Filter/FlateDecode/X[(\\)obj<<)<6f626a>]>>%>>stream\n".to_owned(),
            format!("1 0 obj<</#46ilter/Fl{padding}/Length 3>>"),
            format!("1 0 obj<</Filter[/FlateDecode]{padding}>>%{padding}\n"),
            "(<</Filter/FlateDecode>>".to_owned(),
            "<</Unclosed <</Filter/FlateDecode/Length 65244>>".to_owned(),
        ] {
            assert_eq!(refused(&bomb(&dictionary)), reason, "{}", &dictionary[..40.min(dictionary.len())]);
        }
        let elsewhere = refused(&bomb("<</Filter 7 0 R>>"));
        assert_eq!(elsewhere, "the filters of a stream are told elsewhere in the file");
        let elsewhere = refused(&bomb("<</Filter[7 0 R]>>"));
        assert_eq!(elsewhere, "the filters of a stream are told elsewhere in the file");
    }

    #[test]
    fn damage_counts_for_all_that_may_lie_behind_it() {
        let damaged = |encrypt: &str, dictionary: &str, n_bytes: usize| {
            let mut file = format!("{encrypt} 5 0 obj{dictionary}stream\n").into_bytes();
            file.extend(vec![255; n_bytes]);
            file.extend(b"\nendstream");
            refused(&file)
        };
        assert_eq!(damaged("", "<</Filter/FlateDecode>>", 60_000), "");
        assert_eq!(
            damaged("", "<</Filter/FlateDecode>>", 70_000),
            "a damaged stream that may have up to 72241032 bytes once decoded"
        );
        assert!(damaged("%/Encrypt", "<</Filter/FlateDecode>>", 70_000).starts_with("a damaged stream"));
        let encrypt = "<</Root 1 0 R/Encrypt<<>>>>";
        assert_eq!(damaged(encrypt, "<</Filter/FlateDecode>>", 70_000), "");
        let objects = damaged(encrypt, "<</Type/ObjStm/Filter/FlateDecode>>", 70_000);
        assert_eq!(objects, "an encrypted stream of objects that may have up to 72241032 bytes once decoded");
        let table = "<</W[1 1 1]/Length 3>>stream\n\x02\x05\0\nendstream";
        let objects = damaged(&format!("{encrypt}{table}"), "<</Filter/FlateDecode>>", 70_000);
        assert!(objects.starts_with("an encrypted stream of objects"), "{objects}");
        let other = damaged(
            &format!("{encrypt}{}", table.replace('\u{5}', "\u{6}")),
            "<</Filter/FlateDecode>>",
            70_000,
        );
        assert_eq!(other, "");
        let many = (0..5).map(|_| {
            "<</Filter/FlateDecode/Length 60000>>stream\n".to_owned() + &"\u{7f}".repeat(60_000) + "endstream"
        });
        assert!(refused(many.collect::<String>().as_bytes()).starts_with("streams of more than"));
    }

    #[test]
    fn what_would_be_read_again_and_again_is_refused() {
        assert_eq!(
            refused("<</A".repeat(1 << 20).as_bytes()),
            "dictionaries within each other, more than 32 deep"
        );
        assert_eq!(
            refused("<</A(".repeat(1 << 20).as_bytes()),
            "dictionaries within each other, more than 32 deep"
        );
        let words = "<</Filter/FlateDecode>>stream\n".repeat(1 << 16);
        assert_eq!(refused(words.as_bytes()), "", "streams without an end");
    }

    #[test]
    fn filters_are_read_off_a_dictionary() {
        let filters = |dictionary: &str| {
            let file = format!("{dictionary}stream\n\nendstream");
            let (places, _) = places(file.as_bytes()).unwrap();
            let told = |place: &Place| Told::read(file.as_bytes(), &[], *place).unwrap();
            places.iter().flat_map(|place| filters_of(&told(place)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(filters("<</Length 5/Filter/FlateDecode>>"), [Filter::FlateDecode]);
        assert_eq!(
            filters("<< /Filter [ /A85 /#46late#44ecode ] /Length 5>>"),
            [Filter::Ascii85Decode, Filter::FlateDecode]
        );
        assert_eq!(filters("<</Length 5/Resources<</Font<</Fl 1 0 R>>>>>>"), []);
    }
}
