//! The bytes of a row and its path in, the kind of content out: by signature, then by the path's ending, then by the
//! bytes being text. Decodes nothing, so what is cut or broken stays what it claims to be and fails where it is decoded.

mod container;
mod frames;
#[cfg(test)]
mod tests;

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
    if !may_be_text && let Some(kind) = container::kind_of(bytes) {
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
    } else if is_id3(bytes) || is_ape(bytes) || frames::are_all_of(bytes) {
        Some(Kind::Audio)
    } else if is_transport_stream(bytes) {
        Some(Kind::Video)
    } else {
        (is_pe(bytes) || is_universal_mach_o(bytes)).then_some(Kind::Binary)
    }
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
