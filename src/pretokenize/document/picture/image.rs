//! The images of a file in, a reason not to draw its pages out: what an image would take and whether all of it is there, by its
//! headers and its packed bytes. Knows nothing of pages: which of them shows an image is only known when it is drawn.

use hayro_syntax::{
    Filter, Pdf,
    object::stream::ImageDecodeParams,
    object::{
        Array, Dict, Name, Object, Stream,
        dict::keys::{
            BITS_PER_COMPONENT, BPC, COLORSPACE, COLUMNS, CS, H, HEIGHT, IM, IMAGE_MASK, JBIG2_GLOBALS, N,
            SUBTYPE, TYPE, W, WIDTH,
        },
    },
};

use super::super::streams::{self, Bounds};
use crate::pretokenize::image::check_jpeg;

/// Of a pixel, while it is drawn: four samples.
const PIXEL_BYTES: u64 = 4;
/// Tiles of JPEG 2000 that there can be (ISO 15444-1, A.4.2).
const MOST_TILES: u64 = 65535;
/// Binary logarithm of the samples of a precinct of JPEG 2000, of which the decoder has a table each: real ones have 2¹² and more.
const LEAST_PRECINCT: u8 = 8;

/// Asks of all images of a file what decoders do not: whether they are small enough, by every number that memory is set aside by,
/// and whether they are all there, as decoders make up the rest.
///
/// - Plain pixels have as many bytes as the size tells (where colours are told elsewhere, as many as one sample a pixel takes).
/// - A JPEG is decoded strictly.
/// - CCITT has as many rows that can be decoded as the size tells.
/// - JBIG2 has every segment to its end, JPEG 2000 every part of a tile and its end; damage within these is drawn as it is decoded.
///
/// All other streams are decoded to their ends, too, since content and fonts are drawn; images within content are found where that is
/// gone through.
///
/// # Errors
/// When an image is too large, or not all there, or of a kind of which that cannot be told.
pub(in super::super) fn check_images(pdf: &Pdf, bounds: Bounds) -> Result<(), String> {
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        if is_image(&stream) {
            check(&stream, bounds)?;
            continue;
        }
        if is_decrypted_table(&stream) {
            continue;
        }
        streams::content(&stream, bounds).map_err(|stop| stop.reason(bounds))?;
    }
    Ok(())
}

/// Whether `stream` is a table of objects in an encrypted file: those are not encrypted, but the reader decrypts them here, too.
fn is_decrypted_table(stream: &Stream<'_>) -> bool {
    stream.dict().get::<Name<'_>>(TYPE).as_deref() == Some(b"XRef")
        && matches!(stream.raw_data(), std::borrow::Cow::Owned(_))
}

/// Whether anybody would take `stream` for an image.
fn is_image(stream: &Stream<'_>) -> bool {
    let dict = stream.dict();
    let has = |long: &[u8], short: &[u8]| dict.contains_key(long) || dict.contains_key(short);
    dict.get::<Name<'_>>(SUBTYPE).as_deref() == Some(b"Image")
        || has(WIDTH, W) && has(HEIGHT, H)
        || stream.filters().iter().any(|filter| streams::makes_pixels(*filter))
}

/// Asks the same of one image, also of one that lies within a content.
///
/// # Errors
/// As [`check_images`].
pub(in super::super) fn check(image: &Stream<'_>, bounds: Bounds) -> Result<(), String> {
    let dict = image.dict();
    let side = |long, short| dict.get::<u32>(short).or_else(|| dict.get::<u32>(long)).unwrap_or(0);
    let (width, height) = (side(WIDTH, W), side(HEIGHT, H));
    if width == 0 || height == 0 {
        return Err("an image of no pixels".to_owned());
    }
    let n_pixels = u64::from(width) * u64::from(height);
    let (n_samples, n_bits) = depth(dict);
    let sample_bytes = if n_bits > 8 { 2 } else { 1 };
    check_size(n_pixels.saturating_mul(PIXEL_BYTES.max(n_samples) * sample_bytes), bounds)?;
    let (filter, bytes) = streams::image(image, bounds).map_err(|stop| stop.reason(bounds))?;
    match filter {
        None => {
            let row_bytes = (u64::from(width) * n_samples * n_bits).div_ceil(8);
            let needed = row_bytes * u64::from(height);
            let n_bytes = bytes.len() as u64;
            if n_bytes < needed {
                return Err(format!("an image of {n_bytes} bytes once decoded, of {needed}"));
            }
            Ok(())
        }
        Some(Filter::DctDecode) => {
            let (told_width, told_height) = check_jpeg(&bytes, n_pixels)?;
            if u64::from(told_width) * u64::from(told_height) > n_pixels {
                return Err("an image of which only a part would be drawn".to_owned());
            }
            Ok(())
        }
        Some(Filter::CcittFaxDecode) => check_ccitt(image, width, height, bounds),
        Some(Filter::Jbig2Decode) => check_jbig2(image, &bytes, bounds),
        _ => check_jpx(&bytes, bounds),
    }
}

fn check_size(n_bytes: u64, bounds: Bounds) -> Result<(), String> {
    let most = bounds.one();
    if n_bytes > most {
        return Err(format!("an image of {n_bytes} bytes once decoded, more than {most}"));
    }
    Ok(())
}

/// Samples of a pixel, at least, and bits of a sample.
fn depth(dict: &Dict<'_>) -> (u64, u64) {
    let is_mask = dict.get::<bool>(IM).or_else(|| dict.get::<bool>(IMAGE_MASK)).unwrap_or(false);
    let n_bits = dict.get::<u8>(BPC).or_else(|| dict.get::<u8>(BITS_PER_COMPONENT));
    if is_mask {
        return (1, n_bits.unwrap_or(1).into());
    }
    let colours = dict.get::<Object<'_>>(CS).or_else(|| dict.get::<Object<'_>>(COLORSPACE));
    (colours.and_then(|colours| samples(&colours)).unwrap_or(1), n_bits.unwrap_or(8).into())
}

/// Samples of a pixel in this space of colours (PDF 32000-1, 8.6), if the space is told here.
fn samples(colours: &Object<'_>) -> Option<u64> {
    let array = match colours {
        Object::Array(array) => Some(array),
        _ => None,
    };
    let first = match array {
        Some(array) => array.iter::<Object<'_>>().next().and_then(Object::into_name)?,
        None => colours.clone().into_name()?,
    };
    let second = || array.and_then(|array| array.iter::<Object<'_>>().nth(1));
    Some(match &*first {
        b"DeviceRGB" | b"RGB" | b"CalRGB" | b"Lab" => 3,
        b"DeviceCMYK" | b"CMYK" => 4,
        b"ICCBased" => second()?.into_stream()?.dict().get::<u8>(N)?.into(),
        b"DeviceN" => Array::try_from(second()?).ok()?.raw_iter().count() as u64,
        _ => 1,
    })
}

/// CCITT, which the decoder of pages takes for white where it ends too early: rows that it can decode are those that it keeps if
/// colours are looked up.
fn check_ccitt(image: &Stream<'_>, width: u32, height: u32, bounds: Bounds) -> Result<(), String> {
    let parameters = streams::parameters(image.dict());
    // Which parameters are those of the last filter is a matter of how they are written.
    let columns = parameters.iter().filter_map(|parameters| parameters.get::<usize>(COLUMNS));
    let columns = columns.map(|columns| columns as u32).max();
    let columns = u64::from(columns.unwrap_or(0).max(1728));
    check_size(columns * u64::from(height), bounds)?;
    let settings = ImageDecodeParams { is_indexed: true, width, height, ..ImageDecodeParams::default() };
    let decoded = image.decoded_image(&settings).map_err(|_| "an image of CCITT cannot be decoded")?;
    let told = decoded.image_data.map_or(0, |data| data.width);
    let n_rows = decoded.data.len() as u64 / u64::from(told.div_ceil(8).max(1));
    if n_rows < u64::from(height) {
        return Err(format!("an image of CCITT of which {n_rows} rows of {height} can be decoded"));
    }
    Ok(())
}

/// JBIG2 (ITU-T T.88, 7.2): that segments are whole, and how large bitmaps are by their headers.
fn check_jbig2(image: &Stream<'_>, bytes: &[u8], bounds: Bounds) -> Result<(), String> {
    let mut n_bytes = 0_u64;
    for parameters in streams::parameters(image.dict()) {
        if let Some(globals) = parameters.get::<Stream<'_>>(JBIG2_GLOBALS) {
            let globals = streams::content(&globals, bounds).map_err(|stop| stop.reason(bounds))?;
            n_bytes += jbig2_bytes(&globals)?;
        }
    }
    check_size(n_bytes.saturating_add(jbig2_bytes(bytes)?), bounds)
}

/// Bytes of all bitmaps of these segments.
fn jbig2_bytes(mut rest: &[u8]) -> Result<u64, String> {
    let mut n_bytes = 0_u64;
    let mut page_width = 0;
    while !rest.is_empty() {
        let (kind, data, behind) =
            jbig2_segment(rest).ok_or("a segment of an image of JBIG2 is not all there")?;
        rest = behind;
        let number = |at: usize| be_u32(data, at).map_or(u64::MAX, u64::from);
        let bits = |width: u64, height: u64| width.saturating_mul(height).div_ceil(8);
        n_bytes = n_bytes.saturating_add(match kind {
            // Symbols by Huffman codes may be large in no time; by the other code each pixel takes its time.
            0 if data.get(1).is_none_or(|flags| flags & 1 == 1) => {
                return Err("an image of JBIG2 with Huffman codes".to_owned());
            }
            4..=7 | 36..=43 => bits(number(0), number(4)),
            16 => {
                let side = |at: usize| data.get(at).map_or(u64::MAX, |side| u64::from(*side));
                bits(side(1).saturating_mul(side(2)), number(3).saturating_add(1))
            }
            20..=23 => {
                let grid = number(18).saturating_mul(number(22)).saturating_mul(8);
                bits(number(0), number(4)).saturating_add(grid)
            }
            // Of a page there is a byte a pixel.
            48 => {
                page_width = number(0);
                let height = number(4);
                if height == u64::from(u32::MAX) { 0 } else { page_width.saturating_mul(height) }
            }
            50 => page_width.saturating_mul(number(0).saturating_add(1)),
            _ => 0,
        });
    }
    Ok(n_bytes)
}

/// Kind and data of a segment, and what is behind it.
fn jbig2_segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let number = be_u32(bytes, 0)?;
    let [flags, count] = [4, 5].map(|at| bytes.get(at).copied());
    let (flags, count) = (flags?, count?);
    let (n_references, behind_count) = match count >> 5 {
        0..=4 => (usize::from(count >> 5), 6),
        7 => {
            let n_references = (be_u32(bytes, 5)? & 0x1fff_ffff) as usize;
            (n_references, 9 + (n_references + 1).div_ceil(8))
        }
        _ => return None,
    };
    let reference_bytes = match number {
        0..=256 => 1,
        257..=65536 => 2,
        _ => 4,
    };
    let page_bytes = if flags & 0x40 == 0 { 1 } else { 4 };
    let at = behind_count + n_references * reference_bytes + page_bytes;
    // Where there is no length, only a decoder finds the end.
    let length = be_u32(bytes, at).filter(|length| *length != u32::MAX)?;
    let (data, behind) = bytes.get(at + 4..)?.split_at_checked(length as usize)?;
    Some((flags & 0x3f, data, behind))
}

/// JPEG 2000, as a code stream or in boxes around some (ISO 15444-1, annexes A and I).
fn check_jpx(bytes: &[u8], bounds: Bounds) -> Result<(), String> {
    const CUT: &str = "an image of JPEG 2000 is not all there";
    if bytes.starts_with(&[0xff, 0x4f]) {
        return check_code_stream(bytes, bounds);
    }
    let mut rest = bytes;
    let mut n_streams = 0;
    while !rest.is_empty() {
        let (kind, length) = (rest.get(4..8).ok_or(CUT)?, be_u32(rest, 0).ok_or(CUT)? as usize);
        let (start, length) = match length {
            0 => (8, rest.len()),
            1 => (16, be_u32(rest, 12).filter(|_| be_u32(rest, 8) == Some(0)).ok_or(CUT)? as usize),
            _ => (8, length),
        };
        let data = rest.get(start..length).ok_or(CUT)?;
        if kind == b"jp2c" {
            check_code_stream(data, bounds)?;
            n_streams += 1;
        }
        rest = &rest[length..];
    }
    if n_streams == 0 { Err(CUT.to_owned()) } else { Ok(()) }
}

fn check_code_stream(bytes: &[u8], bounds: Bounds) -> Result<(), String> {
    const CUT: &str = "an image of JPEG 2000 ends before its end";
    let size = bytes.get(2..).filter(|size| size.starts_with(&[0xff, 0x51])).ok_or(CUT)?;
    let number = |at: usize| be_u32(size, at).map(u64::from).ok_or(CUT);
    let (width, height) = (number(6)?, number(10)?);
    let n_samples =
        u64::from(size.get(38).copied().ok_or(CUT)?) << 8 | u64::from(size.get(39).copied().ok_or(CUT)?);
    check_size(width.saturating_mul(height).saturating_mul(n_samples.max(1)).saturating_mul(4), bounds)?;
    let n_tiles = width.div_ceil(number(22)?.max(1)) * height.div_ceil(number(26)?.max(1));
    if n_tiles > MOST_TILES {
        return Err(format!("an image of {n_tiles} tiles, more than {MOST_TILES}"));
    }
    let (mut at, mut part_end) = (2, bytes.len());
    loop {
        let marker = bytes.get(at..at + 2).ok_or(CUT)?;
        if marker == [0xff, 0xd9] {
            return Ok(());
        }
        if marker == [0xff, 0x93] {
            // What is behind it has no markers.
            at = Some(part_end).filter(|end| *end > at).ok_or(CUT)?;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([
            bytes.get(at + 2).copied().ok_or(CUT)?,
            bytes.get(at + 3).copied().ok_or(CUT)?,
        ]));
        let segment = bytes.get(at + 4..at + 2 + length.max(2)).ok_or(CUT)?;
        match marker {
            [0xff, 0x90] => {
                let n_bytes = be_u32(segment, 2).ok_or(CUT)? as usize;
                // A part without a length is the last, up to the end.
                part_end = if n_bytes == 0 { bytes.len().saturating_sub(2) } else { at + n_bytes.max(14) };
            }
            [0xff, 0x52] if segment.first().is_some_and(|style| style & 1 == 1) => {
                check_precincts(segment.get(10..).unwrap_or_default())?;
            }
            [0xff, 0x53] => {
                let wide = usize::from(n_samples > 256);
                if segment.get(1 + wide).is_some_and(|style| style & 1 == 1) {
                    check_precincts(segment.get(7 + wide..).unwrap_or_default())?;
                }
            }
            _ => {}
        }
        at += 2 + length.max(2);
    }
}

fn check_precincts(sides: &[u8]) -> Result<(), String> {
    if sides.iter().any(|side| (side & 15) + (side >> 4) < LEAST_PRECINCT) {
        return Err("an image of JPEG 2000 of tiny precincts".to_owned());
    }
    Ok(())
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}
