//! The bytes of a row and its path in, the kind of content out: by signature, then by the path's ending, then by the
//! bytes being text. Decodes nothing, so what is cut or broken stays what it claims to be and fails where it is decoded.

use super::code;

/// What the content of a row is, and so which modality reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text that is not code, and content of no bytes.
    Text,
    /// A still or animated picture.
    Image,
    /// Sound without moving pictures.
    Audio,
    /// Text of a programming language, by the path's ending.
    Code,
    /// PDF.
    Document,
    /// A program or library: ELF, PE or Mach-O.
    Binary,
    /// Moving pictures, with or without sound.
    Video,
    /// Anything else, archives and office files among it.
    Raw,
}

/// Endings of text that may be in another encoding than UTF-8.
const TEXT: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "tex", "log", "csv", "tsv", "json", "jsonl", "ndjson", "xml",
    "html", "htm", "yaml", "yml", "toml", "ini", "cfg", "srt", "vtt",
];
/// Endings of TGA, which has no signature at its start.
const TGA: &[&str] = &["tga", "icb", "vda", "vst"];
/// The ending of JPEG XL, whose bare streams have a signature of two bytes.
const JPEG_XL: &str = "jxl";
/// Endings of sound that is frames alone: what lies before the first one may be anything.
const AUDIO: &[&str] = &["mp3", "mp2", "mp1", "mpga", "aac"];

/// What `bytes` are; `path` is the name of the file they were, of which only the ending counts.
///
/// Text is UTF-8, with or without a byte order mark, without control characters other than BEL, BS, TAB, LF, VT, FF,
/// CR and ESC (those that `file` takes for text). No signature of binary content counts in text: `BM`, `MZ`, `GIF` or
/// `RIFF` may begin a sentence, but no such file is free of other control characters; so it is in other encodings.
/// Content with a path that ends as that of code or text is taken for it in any encoding, as long as it has no
/// signature and no NUL.
pub fn kind_of(bytes: &[u8], path: Option<&str>) -> Kind {
    let ending = path.and_then(ending_of).unwrap_or_default();
    let ends_in = |endings: &[&str]| endings.contains(&ending.as_str());
    if is_text(bytes) {
        return match written_signature(bytes) {
            Some(kind) => kind,
            None if path.is_some_and(code::is_path) => Kind::Code,
            None => Kind::Text,
        };
    }
    if let Some(kind) = signature(bytes) {
        return kind;
    }
    let has_nul = memchr::memchr(0, bytes).is_some();
    if ends_in(TGA) || ending == JPEG_XL {
        Kind::Image
    } else if ends_in(AUDIO) {
        Kind::Audio
    } else if !has_nul && path.is_some_and(code::is_path) {
        Kind::Code
    } else if !has_nul && ends_in(TEXT) {
        Kind::Text
    } else {
        Kind::Raw
    }
}

/// What follows the last dot of a file's name, in lower case.
fn ending_of(path: &str) -> Option<String> {
    let name = path.rsplit(['/', '\\', ':']).next()?;
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase())
}

fn is_text(bytes: &[u8]) -> bool {
    !has_controls(bytes) && std::str::from_utf8(bytes).is_ok()
}

/// Whether there are control characters that text has not.
fn has_controls(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, 0..=6 | 14..=26 | 28..=31 | 127))
}

/// Whether `bytes`, which have no other signature, are a TGA picture: by the mark at the end of its second version, or by the
/// ending of `path`.
pub fn is_tga(bytes: &[u8], path: Option<&str>) -> bool {
    is_signed_tga(bytes) || path.and_then(ending_of).is_some_and(|ending| TGA.contains(&ending.as_str()))
}

/// Of text: the formats that may consist of it.
fn written_signature(text: &[u8]) -> Option<Kind> {
    if is_radiance(text) || is_pnm(text, true) {
        Some(Kind::Image)
    } else {
        // A text may begin with the name of the format, but no PDF is without objects.
        (is_pdf(text) && memchr::memmem::find(text, b" 0 obj").is_some()).then_some(Kind::Document)
    }
}

/// Of content that is not UTF-8, or has control characters.
fn signature(bytes: &[u8]) -> Option<Kind> {
    // It may be text in another encoding, where words are no signatures either: `The wide`, `GIF89a`.
    let may_be_text = !has_controls(bytes);
    let is_believed = |magic: &[u8]| bytes.starts_with(magic) && !(may_be_text && magic.is_ascii());
    if let Some((kind, _)) = SIGNATURES.iter().find(|(_, magic)| is_believed(magic)) {
        return Some(*kind);
    }
    if !may_be_text && let Some(kind) = container(bytes) {
        return Some(kind);
    }
    if is_pdf(bytes) {
        Some(Kind::Document)
    } else if is_radiance(bytes)
        || is_pnm(bytes, may_be_text)
        || is_bmp(bytes)
        || is_ico(bytes)
        || is_signed_tga(bytes)
    {
        Some(Kind::Image)
    } else if is_id3(bytes) || is_ape(bytes) || has_frames(bytes) {
        Some(Kind::Audio)
    } else if is_transport_stream(bytes) {
        Some(Kind::Video)
    } else {
        (is_pe(bytes) || is_universal_mach_o(bytes)).then_some(Kind::Binary)
    }
}

fn container(bytes: &[u8]) -> Option<Kind> {
    let kind = riff(bytes).or_else(|| iso_media(bytes)).or_else(|| matroska(bytes));
    kind.or_else(|| ogg(bytes)).or_else(|| asf(bytes))
}

/// Signatures at the start that are long enough to be believed. Formats whose modality cannot decode them are here, too:
/// a picture is a picture, and goes to quarantine rather than to the raw bytes.
const SIGNATURES: &[(Kind, &[u8])] = &[
    (Kind::Image, b"\x89PNG\r\n\x1a\n"),
    (Kind::Image, b"\xff\xd8\xff"),
    (Kind::Image, b"GIF87a"),
    (Kind::Image, b"GIF89a"),
    (Kind::Image, b"II*\0"),
    (Kind::Image, b"MM\0*"),
    (Kind::Image, b"II+\0"),
    (Kind::Image, b"MM\0+"),
    (Kind::Image, b"II\xbc\x01"),
    (Kind::Image, b"qoif"),
    (Kind::Image, b"\x76\x2f\x31\x01"),
    (Kind::Image, b"DDS \x7c\0\0\0"),
    (Kind::Image, b"farbfeld"),
    (Kind::Image, b"8BPS\0"),
    (Kind::Image, b"P7\n"),
    (Kind::Image, b"\0\0\0\x0cJXL \r\n\x87\n"),
    (Kind::Image, b"\0\0\0\x0cjP  \r\n\x87\n"),
    (Kind::Image, b"\xff\x4f\xff\x51\0"),
    // Not that of a bare JPEG XL stream, `FF 0A`: noise begins so once in 65,536 times.
    (Kind::Audio, b"fLaC"),
    (Kind::Audio, b"wvpk"),
    (Kind::Audio, b"MPCK"),
    (Kind::Audio, b"MP+\x07"),
    (Kind::Audio, b"TTA1"),
    (Kind::Audio, b"caff\0\x01"),
    (Kind::Audio, b"#!AMR"),
    (Kind::Audio, b".snd\0"),
    // With the length of its first chunk, as `DSD ` is a word.
    (Kind::Audio, b"DSD \x1c\0\0\0\0\0\0\0"),
    (Kind::Audio, b"ADIF"),
    (Kind::Audio, b"APETAGEX"),
    (Kind::Video, b"FLV\x01"),
    (Kind::Video, b"\0\0\x01\xba"),
    (Kind::Video, b"\0\0\x01\xb3"),
    (Kind::Binary, b"\x7fELF"),
    (Kind::Binary, b"\xfe\xed\xfa\xce"),
    (Kind::Binary, b"\xfe\xed\xfa\xcf"),
    (Kind::Binary, b"\xce\xfa\xed\xfe"),
    (Kind::Binary, b"\xcf\xfa\xed\xfe"),
    // Packed content with a misleading path: `notes.txt` that holds gzip is no text.
    (Kind::Raw, b"PK\x03\x04"),
    (Kind::Raw, b"PK\x05\x06"),
    (Kind::Raw, b"\x1f\x8b\x08"),
    (Kind::Raw, b"\x28\xb5\x2f\xfd"),
    (Kind::Raw, b"\xfd7zXZ\0"),
    (Kind::Raw, b"BZh"),
    (Kind::Raw, b"7z\xbc\xaf\x27\x1c"),
    (Kind::Raw, b"Rar!\x1a\x07"),
    (Kind::Raw, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    (Kind::Raw, b"\0asm"),
    (Kind::Raw, b"MThd\0\0\0\x06"),
];

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// `%PDF-1.` or `%PDF-2.` at the start, after at most a byte order mark and white space. Readers look for it in the first
/// 1024 bytes, but there it may lie in an archive's first member, too.
fn is_pdf(bytes: &[u8]) -> bool {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    start.starts_with(b"%PDF-1.") || start.starts_with(b"%PDF-2.")
}

fn is_radiance(bytes: &[u8]) -> bool {
    bytes.starts_with(b"#?RADIANCE\n") || bytes.starts_with(b"#?RGBE\n")
}

/// P1 to P6 of the PNM family (<https://netpbm.sourceforge.net/doc/pnm.html>). A text whose first words look like such a
/// header is one only if its samples are digits alone, or as many bytes as the header says.
fn is_pnm(bytes: &[u8], is_text: bool) -> bool {
    let [b'P', format @ b'1'..=b'6', b' ' | b'\t' | b'\n' | b'\r', ..] = *bytes else { return false };
    let is_bitmap = matches!(format, b'1' | b'4');
    let mut rest = &bytes[2..];
    let mut numbers = [1_u64; 3];
    for number in &mut numbers[..if is_bitmap { 2 } else { 3 }] {
        rest = after_blanks(rest);
        let n_digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&rest[..n_digits]).unwrap_or_default();
        let Some(value @ 1..=0xffff_ffff) = digits.parse().ok() else { return false };
        *number = value;
        rest = &rest[n_digits..];
    }
    let [width, height, most] = numbers;
    let Some((b' ' | b'\t' | b'\n' | b'\r', samples)) = rest.split_first() else { return false };
    if most > 65535 {
        return false;
    }
    let row_bytes = match format {
        b'4' => width.div_ceil(8),
        b'5' => width * (1 + u64::from(most > 255)),
        b'6' => width * 3 * (1 + u64::from(most > 255)),
        _ => {
            let is_sample = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace();
            let start = after_blanks(samples);
            return !start.is_empty() && start.iter().all(is_sample);
        }
    };
    !is_text || u128::from(row_bytes) * u128::from(height) == samples.len() as u128
}

/// `bytes` without white space and comments, which go from `#` to the line's end, at their start.
fn after_blanks(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = bytes.trim_ascii_start();
        if bytes.first() != Some(&b'#') {
            return bytes;
        }
        let end = memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
        bytes = &bytes[end..];
    }
}

/// `BM` and, behind the header of the file, one of a length that exists.
fn is_bmp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BM") && matches!(u32_le(bytes, 14), Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// Icon or cursor: the first picture has a length and lies behind the list of all.
fn is_ico(bytes: &[u8]) -> bool {
    let (Some([0, 0, 1 | 2, 0]), Some(count)) = (array(bytes, 0), array(bytes, 4)) else { return false };
    let count = u32::from(u16::from_le_bytes(count));
    let (length, start) = (u32_le(bytes, 14), u32_le(bytes, 18));
    count > 0 && length.is_some_and(|n| n > 0) && start.is_some_and(|at| at >= 6 + 16 * count)
}

/// The signature at the end of TGA's second version.
fn is_signed_tga(bytes: &[u8]) -> bool {
    bytes.ends_with(b"TRUEVISION-XFILE.\0")
}

/// RIFF and its relatives, by the form they name: WAVE, AVI, WebP, AIFF.
fn riff(bytes: &[u8]) -> Option<Kind> {
    let (group, form): ([u8; 4], [u8; 4]) = (array(bytes, 0)?, array(bytes, 8)?);
    match (&group, &form) {
        (b"RIFF" | b"RIFX" | b"RF64" | b"BW64", b"WAVE") => Some(Kind::Audio),
        (b"FORM", b"AIFF" | b"AIFC") => Some(Kind::Audio),
        (b"RIFF", b"AVI ") => Some(Kind::Video),
        (b"RIFF", b"WEBP") => Some(Kind::Image),
        _ => None,
    }
}

/// MP4 and its relatives (ISO/IEC 14496-12): pictures and sound books by brand, others by what their tracks hold. A film
/// whose tracks are not there is taken for one with pictures.
fn iso_media(bytes: &[u8]) -> Option<Kind> {
    match &array::<4>(bytes, 4)? {
        b"ftyp" => (),
        // QuickTime before there were brands.
        b"moov" | b"mdat" | b"wide" if u32_be(bytes, 0)? != 0 => (),
        _ => return None,
    }
    if has(bytes, 4, b"ftyp") {
        match &array::<4>(bytes, 8)? {
            b"avif" | b"avis" | b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1"
            | b"msf1" => {
                return Some(Kind::Image);
            }
            b"M4A " | b"M4B " | b"M4P " | b"F4A " | b"F4B " => return Some(Kind::Audio),
            _ => (),
        }
    }
    let handlers: Vec<[u8; 4]> = boxes(bytes, b"moov")
        .flat_map(|movie| boxes(movie, b"trak"))
        .flat_map(|track| boxes(track, b"mdia"))
        .flat_map(|media| boxes(media, b"hdlr"))
        .filter_map(|handler| array(handler, 8))
        .collect();
    let is_sound = handlers.contains(b"soun") && !handlers.contains(b"vide");
    Some(if is_sound { Kind::Audio } else { Kind::Video })
}

/// The contents of the boxes of that name directly in `bytes`.
fn boxes<'a>(bytes: &'a [u8], name: &'static [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let found: [u8; 4] = array(rest, 4)?;
            let (head, length) = match u32_be(rest, 0)? {
                0 => (8, rest.len() as u64),
                1 => (16, u64::from_be_bytes(array(rest, 8)?)),
                length => (8, u64::from(length)),
            };
            let end = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            let content = rest.get(head..end)?;
            rest = &rest[end..];
            if found == *name {
                return Some(content);
            }
        }
    })
}

/// Matroska and WebM (RFC 9559), by the types of their tracks; without any, taken for one with pictures.
fn matroska(bytes: &[u8]) -> Option<Kind> {
    if !bytes.starts_with(b"\x1a\x45\xdf\xa3") {
        return None;
    }
    let types: Vec<u8> = elements(bytes, 0x1853_8067)
        .flat_map(|segment| elements(segment, 0x1654_ae6b))
        .flat_map(|tracks| elements(tracks, 0xae))
        .flat_map(|track| elements(track, 0x83))
        .filter_map(|kind| kind.last().copied())
        .collect();
    let is_sound = types.contains(&2) && !types.contains(&1);
    Some(if is_sound { Kind::Audio } else { Kind::Video })
}

/// The contents of the EBML elements (RFC 8794) of that id directly in `bytes`; one of unknown length goes to their end.
fn elements(bytes: &[u8], id: u64) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let (found, id_bytes) = vint(rest, 4, true)?;
            let (length, length_bytes) = vint(&rest[id_bytes..], 8, false)?;
            let head = id_bytes + length_bytes;
            let is_unknown = length == (1 << (7 * length_bytes)) - 1;
            let length = if is_unknown { usize::MAX } else { usize::try_from(length).unwrap_or(usize::MAX) };
            let end = head.saturating_add(length).min(rest.len());
            let content = &rest[head..end];
            rest = &rest[end..];
            if found == id {
                return Some(content);
            }
        }
    })
}

/// A number of EBML's variable length and its length, at most `most` bytes; an id is kept with its marker.
fn vint(bytes: &[u8], most: usize, with_marker: bool) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let n_bytes = first.leading_zeros() as usize + 1;
    if n_bytes > most {
        return None;
    }
    let number = bytes.get(..n_bytes)?.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let marker = 1 << (7 * n_bytes);
    Some((if with_marker { number } else { number & (marker - 1) }, n_bytes))
}

/// Ogg (RFC 3533), by the codecs that the first pages of its streams name.
fn ogg(bytes: &[u8]) -> Option<Kind> {
    if !bytes.starts_with(b"OggS\0") {
        return None;
    }
    let mut rest = bytes;
    while has(rest, 0, b"OggS\0") && rest.get(5).is_some_and(|flags| flags & 2 != 0) {
        let Some(n_segments) = rest.get(26).map(|n| usize::from(*n)) else { break };
        let Some(lengths) = rest.get(27..27 + n_segments) else { break };
        let packet = &rest[27 + n_segments..];
        if [b"\x80theora" as &[u8], b"BBCD\0", b"\x01video"].iter().any(|codec| packet.starts_with(codec)) {
            return Some(Kind::Video);
        }
        let length = lengths.iter().map(|n| usize::from(*n)).sum();
        rest = packet.get(length..).unwrap_or_default();
    }
    Some(Kind::Audio)
}

/// ASF, the container of WMA and WMV: pictures if its header speaks of a stream of them.
fn asf(bytes: &[u8]) -> Option<Kind> {
    const HEADER: &[u8] = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c";
    const PICTURES: &[u8] = b"\xc0\xef\x19\xbc\x4d\x5b\xcf\x11\xa8\xfd\x00\x80\x5f\x5c\x44\x2b";
    if !bytes.starts_with(HEADER) {
        return None;
    }
    let length = array(bytes, 16).map_or(u64::MAX, u64::from_le_bytes);
    let header = &bytes[..usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len())];
    Some(if memchr::memmem::find(header, PICTURES).is_some() { Kind::Video } else { Kind::Audio })
}

/// ID3's second version (<https://id3.org/id3v2.4.0-structure>, 3.1), which stands before MPEG audio alone.
fn is_id3(bytes: &[u8]) -> bool {
    matches!(
        array(bytes, 0),
        Some([b'I', b'D', b'3', 2..=4, 0..=0xfe, _, 0..=0x7f, 0..=0x7f, 0..=0x7f, 0..=0x7f])
    )
}

/// Monkey's Audio: `MAC `, which is a word, and a version that somebody still reads, from 3.80 on.
fn is_ape(bytes: &[u8]) -> bool {
    let version = array(bytes, 4).map(u16::from_le_bytes);
    bytes.starts_with(b"MAC ") && matches!(version, Some(3800..=4095))
}

/// Two frames of MPEG audio or ADTS, the second right behind the first, or one that is all there is. The 11 bits that begin
/// a frame alone are in noise and in the byte order mark of UTF-16, too.
fn has_frames(bytes: &[u8]) -> bool {
    let Some((length, stream)) = frame(bytes) else { return false };
    length == bytes.len()
        || bytes.get(length..).and_then(frame).is_some_and(|(_, next_stream)| next_stream == stream)
}

/// Length of the frame whose header starts `bytes`, and what of the header is the same in all frames of a stream.
fn frame(bytes: &[u8]) -> Option<(usize, [u8; 2])> {
    let [sync, version_layer, rates, ..] = array::<4>(bytes, 0)?;
    if sync != 0xff || version_layer < 0xe0 {
        return None;
    }
    let length = match version_layer & 0x06 {
        0 => adts_frame_bytes(bytes)?,
        _ => mpeg_frame_bytes(version_layer, rates)?,
    };
    Some((length, [version_layer & 0xfe, rates & 0x0c]))
}

/// ISO/IEC 11172-3, 2.4.2.3 and 2.4.3.1, with the lower rates of ISO/IEC 13818-3 and MPEG 2.5.
fn mpeg_frame_bytes(version_layer: u8, rates: u8) -> Option<usize> {
    const FIRST: [[usize; 14]; 3] = [
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    ];
    const LOWER: [[usize; 14]; 3] = [
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    ];
    let hertz_of_first = *[44100, 48000, 32000].get(usize::from(rates >> 2 & 3))?;
    let (is_first, hertz) = match version_layer >> 3 & 3 {
        3 => (true, hertz_of_first),
        2 => (false, hertz_of_first / 2),
        0 => (false, hertz_of_first / 4),
        _ => return None,
    };
    // 1 is the third layer, 3 the first.
    let layer_bits = usize::from(version_layer >> 1 & 3);
    let table = if is_first { &FIRST } else { &LOWER }.get(layer_bits.checked_sub(1)?)?;
    let bits_per_second = 1000 * table.get(usize::from(rates >> 4).checked_sub(1)?)?;
    let padding = usize::from(rates >> 1 & 1);
    Some(match layer_bits {
        3 => (12 * bits_per_second / hertz + padding) * 4,
        1 if !is_first => 72 * bits_per_second / hertz + padding,
        _ => 144 * bits_per_second / hertz + padding,
    })
}

/// ISO/IEC 13818-7, 6.2.
fn adts_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let [_, sync, rate, high, middle, low] = array::<6>(bytes, 0)?;
    let length = usize::from(high & 3) << 11 | usize::from(middle) << 3 | usize::from(low >> 5);
    (sync & 0xf0 == 0xf0 && rate >> 2 & 15 < 13 && length > 7).then_some(length)
}

/// MPEG-2 transport stream: three packets of 188 bytes, or of 192 with a time before each.
fn is_transport_stream(bytes: &[u8]) -> bool {
    let is_sync = |at: usize| bytes.get(at) == Some(&0x47);
    [0, 188, 376].into_iter().all(is_sync) || [4, 196, 388].into_iter().all(is_sync)
}

/// `MZ` and a pointer to a PE header; if that lies behind the end, the file was cut.
fn is_pe(bytes: &[u8]) -> bool {
    let Some(at) = u32_le(bytes, 0x3c) else { return false };
    let is_cut = at as usize + 4 > bytes.len() && at < 0x1_0000;
    bytes.starts_with(b"MZ") && (has(bytes, at as usize, b"PE\0\0") || is_cut)
}

/// Mach-O for several processors. Java's classes begin alike, but their version, from 45 on, stands where the number of
/// processors is.
fn is_universal_mach_o(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"\xca\xfe\xba\xbe") || bytes.starts_with(b"\xca\xfe\xba\xbf"))
        && matches!(u32_be(bytes, 4), Some(1..45))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// A box of ISO media.
    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        cat(&[&(content.len() as u32 + 8).to_be_bytes(), name, content])
    }

    /// A film or sound of that brand whose tracks have these handlers; its `moov` stands at the end.
    fn mp4(brand: &[u8; 4], handlers: &[&[u8; 4]]) -> Vec<u8> {
        let track = |handler: &&[u8; 4]| {
            let hdlr = boxed(b"hdlr", &cat(&[&[0; 8], *handler, &[0; 13]]));
            boxed(b"trak", &boxed(b"mdia", &hdlr))
        };
        let tracks: Vec<u8> = handlers.iter().flat_map(track).collect();
        let ftyp = boxed(b"ftyp", &cat(&[brand, b"\0\0\x02\0"]));
        cat(&[&ftyp, &boxed(b"mdat", b"moov and what looks like it"), &boxed(b"moov", &tracks)])
    }

    /// Matroska with tracks of these types; the segment's length is unknown, as it is in a live recording.
    fn mkv(types: &[u8]) -> Vec<u8> {
        let tracks: Vec<u8> = types.iter().flat_map(|kind| [0xae, 0x83, 0x83, 0x81, *kind]).collect();
        let head = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\xff\xec\x81\0\x16\x54\xae\x6b";
        cat(&[head, &[0x80 | tracks.len() as u8], &tracks, b"\x1f\x43\xb6\x75\x80"])
    }

    /// A first page of an Ogg stream.
    fn ogg_page(packet: &[u8]) -> Vec<u8> {
        cat(&[b"OggS\0\x02", &[0; 20], &[1, packet.len() as u8], packet])
    }

    fn frames(header: &[u8], frame_bytes: usize) -> Vec<u8> {
        let mut frame = header.to_vec();
        frame.resize(frame_bytes, 0);
        cat(&[&frame, &frame])
    }

    fn exe(pointer: u32, n_bytes: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; n_bytes];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c..0x40].copy_from_slice(&pointer.to_le_bytes());
        bytes[0x80..0x80 + magic.len()].copy_from_slice(magic);
        bytes
    }

    fn riff_of(group: &[u8; 4], form: &[u8; 4]) -> Vec<u8> {
        cat(&[group, b"\x24\0\0\0", form, b"fmt \x10\0\0\0"])
    }

    #[track_caller]
    fn assert_kinds(table: &[(Kind, &[u8], &str)]) {
        for (kind, bytes, path) in table {
            let path = (!path.is_empty()).then_some(*path);
            let head = &bytes[..bytes.len().min(40)];
            assert_eq!(kind_of(bytes, path), *kind, "{:?} {path:?}", head.escape_ascii().to_string());
        }
    }

    #[test]
    fn pictures_are_known_by_their_signatures() {
        let bmp = |header: u8| cat(&[b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", &[header, 0, 0, 0], &[0; 20]]);
        let icon = b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\x68\0\0\0\x16\0\0\0";
        assert_kinds(&[
            (Kind::Image, b"\x89PNG\r\n\x1a\n", ""),
            (Kind::Image, b"\xff\xd8\xff\xe0", "song.mp3"),
            (Kind::Image, b"GIF89a\x01\0\x01\0", "a.txt"),
            (Kind::Image, b"II*\0\x08\0\0\0", ""),
            (Kind::Image, b"MM\0*\0\0\0\x08", ""),
            (Kind::Image, &riff_of(b"RIFF", b"WEBP"), ""),
            (Kind::Image, &bmp(40), ""),
            (Kind::Image, &bmp(124), ""),
            (Kind::Raw, &bmp(41), ""),
            (Kind::Image, icon, ""),
            (Kind::Raw, b"\0\0\x01\0\x01\0\x10\x10", ""),
            (Kind::Image, b"qoif\0\0\0\x01", ""),
            (Kind::Image, &mp4(b"avif", &[b"pict"]), ""),
            (Kind::Image, &mp4(b"heic", &[]), ""),
            (Kind::Image, &cat(&[&[0; 30], b"TRUEVISION-XFILE.\0"]), ""),
            (Kind::Image, b"\0\0\x02\0\0\0\0\0", "dir.d/A.TGA"),
            (Kind::Raw, b"\0\0\x02\0\0\0\0\0", "tga"),
            (Kind::Raw, b"\xff\x0a\xfa\x1f", "a.bin"),
            (Kind::Image, b"\xff\x0a\xfa\x1f", "a.jxl"),
        ]);
    }

    #[test]
    fn maps_of_pixels_written_as_text_are_told_from_text() {
        assert_kinds(&[
            (Kind::Image, b"P1\n# a cross\n3 3\n010\n111\n010\n", ""),
            (Kind::Image, b"P3 1 2 255\n0 0 0\r\n255 255 255", ""),
            (Kind::Image, b"P5\n2 2\n255\n\0\x01\x02\xff", ""),
            (Kind::Image, b"P5 2 2 255 abcd", ""),
            (Kind::Image, b"P4 9 1\n\xff\x80", ""),
            (Kind::Image, b"P6\n2 2\n255\n\0cut", ""),
            (Kind::Text, b"P5 2 2 255 more words than pixels", ""),
            (Kind::Text, b"P1 and P2 are points.", ""),
            (Kind::Text, b"P3 1 2 255\n", ""),
            (Kind::Text, b"P3 10 20 30 oranges", ""),
            (Kind::Text, b"P6 99999999999 1 255 a", ""),
            (Kind::Text, b"P2 2 2 70000 1 2 3 4", ""),
            (Kind::Image, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\nabcd", ""),
            (Kind::Text, b"#?RADIANCE is a format", ""),
        ]);
    }

    #[test]
    fn sound_is_told_from_moving_pictures_by_what_the_container_holds() {
        assert_kinds(&[
            (Kind::Audio, &riff_of(b"RIFF", b"WAVE"), ""),
            (Kind::Audio, &riff_of(b"RF64", b"WAVE"), ""),
            (Kind::Audio, &riff_of(b"FORM", b"AIFC"), ""),
            (Kind::Video, &riff_of(b"RIFF", b"AVI "), ""),
            (Kind::Raw, &riff_of(b"RIFF", b"ACON"), ""),
            (Kind::Audio, b"fLaC\0\0\0\x22", "x.rs"),
            (Kind::Audio, &mp4(b"M4A ", &[b"soun", b"vide"]), ""),
            (Kind::Audio, &mp4(b"isom", &[b"soun"]), ""),
            (Kind::Video, &mp4(b"isom", &[b"soun", b"vide"]), ""),
            (Kind::Video, &mp4(b"isom", &[]), "a.m4a"),
            (Kind::Video, b"\0\0\0\x08wide\0\0\0\0mdat", ""),
            (Kind::Audio, &mkv(&[2]), ""),
            (Kind::Video, &mkv(&[2, 1]), ""),
            (Kind::Video, &mkv(&[2])[..22], ""),
            (Kind::Audio, &ogg_page(b"\x01vorbis"), ""),
            (Kind::Video, &cat(&[&ogg_page(b"OpusHead"), &ogg_page(b"\x80theora")]), ""),
            (Kind::Video, b"FLV\x01\x05\0\0\0\x09", ""),
            (Kind::Video, &[b"\x47" as &[u8], &[0; 187]].concat().repeat(3), "x.ts"),
            (Kind::Raw, &[b"\x47" as &[u8], &[0; 187]].concat().repeat(2), "x.ts"),
        ]);
    }

    #[test]
    fn frames_of_sound_need_a_second_one_or_a_path() {
        let mp3 = frames(b"\xff\xfb\x90\x00", 417);
        let layer_1 = frames(b"\xff\xff\x40\x00", 136);
        let adts = frames(b"\xff\xf1\x50\x80\x02\x1f\xfc", 16);
        let utf16: Vec<u8> = "\u{feff}Hello, world".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut noise = mp3.clone();
        noise[417] = 0;
        assert_kinds(&[
            (Kind::Audio, &mp3, ""),
            (Kind::Audio, &mp3[..417], ""),
            (Kind::Raw, &mp3[..400], ""),
            (Kind::Audio, &mp3[..400], "a.MP3"),
            (Kind::Raw, &noise, ""),
            (Kind::Audio, &layer_1, ""),
            (Kind::Audio, &adts, ""),
            (Kind::Audio, b"ID3\x04\0\0\0\0\x02\x01", ""),
            (Kind::Raw, b"ID3\x04\0\0\0\0\xf2\x01", ""),
            (Kind::Audio, b"\x80\x81 junk", "a.mp3"),
            (Kind::Text, b"Not found", "a.mp3"),
            (Kind::Raw, &utf16, ""),
            (Kind::Raw, &utf16, "a.txt"),
            (Kind::Raw, &[0xff; 3000], ""),
        ]);
    }

    #[test]
    fn programs_and_what_resembles_them() {
        assert_kinds(&[
            (Kind::Binary, b"\x7fELF\x02\x01\x01", ""),
            (Kind::Binary, &exe(0x80, 512, b"PE\0\0"), ""),
            (Kind::Binary, &exe(0x400, 512, b""), ""),
            (Kind::Raw, &exe(0x80, 512, b"NE\0\0"), ""),
            (Kind::Raw, b"MZ\x90\0", ""),
            (Kind::Binary, b"\xcf\xfa\xed\xfe\x07\0\0\x01", ""),
            (Kind::Binary, b"\xca\xfe\xba\xbe\0\0\0\x02", ""),
            (Kind::Raw, b"\xca\xfe\xba\xbe\0\0\0\x34", "A.class"),
            (Kind::Raw, b"\0asm\x01\0\0\0", ""),
        ]);
    }

    #[test]
    fn documents_are_pdf_and_packed_content_is_raw() {
        assert_kinds(&[
            (Kind::Document, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", ""),
            (Kind::Document, b"\xef\xbb\xbf\r\n%PDF-2.0\n1 0 obj\n<<>>\nendobj", ""),
            (Kind::Document, b"%PDF-1.4\n\0", "x.txt"),
            (Kind::Text, b"%PDF-1.5 and later can compress objects.", ""),
            (Kind::Text, b"The mark is %PDF-1.5, before 1 0 obj", ""),
            (Kind::Raw, b"PK\x03\x04\x14\0\0\0\0\0%PDF-1.4", "a.docx"),
            (Kind::Raw, b"\x1f\x8b\x08\x08\x01\x01\x01\x01\x02\x03", "notes.txt"),
        ]);
    }

    #[test]
    fn words_that_are_signatures_elsewhere_stay_text() {
        for word in [
            "BM",
            "MZ",
            "GIF",
            "GIF89a",
            "II*",
            "RIFF1234WAVE",
            "OggS",
            "ID3",
            "qoif",
            "fLaC",
            "BZh9",
            "MAC",
            "DSD",
            "farbfeld",
            "#!AMR",
            "PK",
        ] {
            assert_eq!(kind_of(format!("{word} is a word.\n").as_bytes(), None), Kind::Text, "{word}");
            let latin_1 = [word.as_bytes(), b" adresse d'\xe9quipement\r\n"].concat();
            assert_eq!(kind_of(&latin_1, Some("a.txt")), Kind::Text, "{word}");
            assert_eq!(kind_of(&latin_1, None), Kind::Raw, "{word}");
        }
        assert_kinds(&[
            (Kind::Text, b"The wide caf\xe9.\n", "a.txt"),
            (Kind::Text, b"P5 2 2 255 de plus, et ils sont d\xe9\xe7us", "a.txt"),
            // As written on DOS, with the mark of its end.
            (Kind::Text, b"MAC adresse d'\xe9quipement\r\n\x1a", "a.txt"),
            (Kind::Text, b"DSD et caf\xe9\r\n\x1a", "a.txt"),
            (Kind::Audio, b"MAC \x96\x0f\0\0", "a.txt"),
            (Kind::Audio, b"DSD \x1c\0\0\0\0\0\0\0", "a.txt"),
        ]);
    }

    #[test]
    fn text_is_code_by_its_path_alone() {
        assert_kinds(&[
            (Kind::Text, b"", ""),
            (Kind::Text, b"", "a.png"),
            (Kind::Text, b"fn main() {}", ""),
            (Kind::Code, b"fn main() {}", "src/main.rs"),
            (Kind::Code, b"MZ = 1", "C:\\x\\A.PY"),
            (Kind::Code, b"int x;", "a.tar.gz::lib/x.h"),
            (Kind::Text, b"fn main() {}", "rs"),
            (Kind::Text, b"fn main() {}", "src.rs/README"),
            (Kind::Text, "\u{feff}gr\u{fc}n \u{1f600}\t\r\n\x0c\x1b[1m".as_bytes(), ""),
            (Kind::Text, b"<html>not a picture</html>", "a.png"),
            (Kind::Code, b"// caf\xe9", "a.c"),
            (Kind::Text, b"caf\xe9", "a.md"),
            (Kind::Raw, b"caf\xe9", "a.bin"),
            (Kind::Raw, b"caf\xe9", ""),
            (Kind::Raw, b"a\0b", "a.txt"),
            (Kind::Raw, b"a\0b", "a.c"),
            (Kind::Raw, b"a\x01b", ""),
            (Kind::Text, b"a\x01b", "a.txt"),
            (Kind::Raw, "a\u{7f}".as_bytes(), ""),
            (Kind::Raw, &std::array::from_fn::<u8, 256, _>(|n| n as u8), "allbytes.bin"),
        ]);
    }

    #[test]
    fn cut_and_changed_content_never_panics() {
        let samples = [
            mp4(b"isom", &[b"soun", b"vide"]),
            mkv(&[2, 2, 17]),
            cat(&[&ogg_page(b"OpusHead"), &ogg_page(b"\x01vorbis")]),
            frames(b"\xff\xfb\x90\x00", 417),
            frames(b"\xff\xf1\x50\x80\x02\x1f\xfc", 16),
            exe(0x80, 512, b"PE\0\0"),
            b"P6 # c\n 2 2\n255\n\0aaaaaaaaaaa".to_vec(),
            cat(&[b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", &[7; 30]]),
        ];
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for sample in samples {
            for end in 0..sample.len() {
                kind_of(&sample[..end], None);
            }
            for _ in 0..500 {
                let mut changed = sample.clone();
                for _ in 0..1 + random(8) {
                    changed[random(sample.len())] = [0, 0xff, 0x80, random(256) as u8][random(4)];
                }
                kind_of(&changed, None);
            }
        }
    }
}
