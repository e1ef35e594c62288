//! Whether a file is whole, as far as its own structure tells and its decoder would not: decoders stop where they have all pixels, or
//! make some up. Knows nothing of pixels.
//!
//! - PNG: chunk by chunk up to the end of IEND; the decoder checks sums.
//! - JPEG: marker by marker up to EOI, and a frame that is not progressive has each of its components in exactly one scan, with nothing
//!   but EOI after a scan of all of them. What a scan lacks before a marker that ends it early is not seen.
//! - GIF: block by block up to the trailer, though only the first frame is decoded.
//! - WebP: chunk by chunk to the end that the RIFF header tells.
//! - BMP: the bytes of compressed pixels that the header tells; for others the decoder needs every byte.
//! - TIFF, QOI, TGA, PNM, HDR, OpenEXR and icons: their decoders need every byte of the pixels. What follows these, such as the footer
//!   of TGA, is not looked at.

use image::ImageFormat;
use memchr::{memchr, memmem};

/// `Err` with the reason if `bytes`, of the size that the header tells, lack a part, or would have a decoder hold more than that size
/// lets expect.
pub(super) fn check(format: ImageFormat, bytes: &[u8], size: (u32, u32)) -> Result<(), &'static str> {
    match format {
        ImageFormat::Png => {
            let ends = png_chunks(bytes).any(|(kind, _)| kind == *b"IEND");
            ends.then_some(()).ok_or("the file ends before its IEND chunk does")
        }
        ImageFormat::Jpeg => check_jpeg(bytes),
        ImageFormat::Gif => check_gif(bytes).ok_or("the file ends before its trailer"),
        ImageFormat::WebP => check_webp(bytes, size),
        ImageFormat::Bmp => check_bmp(bytes).ok_or("the file ends before its compressed pixels do"),
        _ => Ok(()),
    }
}

/// Kind and data of each chunk of a PNG that is whole, up to the first that is not.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let (kind, after) = after.split_first_chunk()?;
        let (data, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (_sum, after) = after.split_at_checked(4)?;
        rest = after;
        Some((*kind, data))
    })
}

/// Pixels of a PNG by its header, 0 if it has none.
pub(super) fn png_pixels(bytes: &[u8]) -> u64 {
    let header = png_chunks(bytes).next().filter(|(kind, _)| kind == b"IHDR");
    let sides = header.and_then(|(_, data)| Some((be_u32(data, 0)?, be_u32(data, 4)?)));
    sides.map_or(0, |(width, height)| u64::from(width) * u64::from(height))
}

/// EXIF of a PNG, which may stand behind the pixels, too.
pub(super) fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    png_chunks(bytes).find(|(kind, _)| kind == b"eXIf").map(|(_, data)| data)
}

/// Whether the first picture of a TIFF tells that its colours are multiplied by their alpha already (`ExtraSamples` is 1).
pub(super) fn tiff_is_premultiplied(bytes: &[u8]) -> bool {
    const EXTRA_SAMPLES: u16 = 338;
    let is_big = bytes.starts_with(b"MM");
    let short = |at| if is_big { be_u16(bytes, at) } else { le_u16(bytes, at) };
    let directory = if is_big { be_u32(bytes, 4) } else { le_u32(bytes, 4) }.unwrap_or(0) as usize;
    let n_entries = usize::from(short(directory).unwrap_or(0));
    let entries = (0..n_entries).map(|i| directory + 2 + 12 * i);
    entries.filter(|at| short(*at) == Some(EXTRA_SAMPLES)).any(|at| short(at + 8) == Some(1))
}

/// Pixels of the largest data window of an OpenEXR file: its decoder goes through all of them and keeps those of the display window, whose
/// size is the picture's.
pub(super) fn exr_pixels(bytes: &[u8]) -> u64 {
    const ATTRIBUTE: &[u8] = b"dataWindow\0box2i\0\x10\0\0\0";
    let area = |at: usize| {
        let corner =
            |i: usize| le_u32(bytes, at + ATTRIBUTE.len() + 4 * i).map_or(0, |n| i64::from(n.cast_signed()));
        let side = |i| (corner(i + 2) - corner(i)).unsigned_abs() + 1;
        side(0).saturating_mul(side(1))
    };
    memmem::find_iter(bytes, ATTRIBUTE).map(area).max().unwrap_or(0)
}

/// The picture of an icon, if that is a PNG: of most bits a pixel, then most pixels. `Err` if the file ends before its picture does.
pub(super) fn png_of_icon(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let n_entries = le_u16(bytes, 4).unwrap_or(0);
    let entries = bytes.get(6..).unwrap_or_default().as_chunks::<16>().0;
    // A side of 0 is one of 256.
    let side = |byte: u8| u32::from(byte.wrapping_sub(1)) + 1;
    let rank = |entry: &[u8; 16]| (le_u16(entry, 6), side(entry[0]) * side(entry[1]));
    // Of equal ones the last entry, else the first, as the decoder of the other kind of picture chooses.
    let Some((last, others)) = entries.get(..usize::from(n_entries)).unwrap_or_default().split_last() else {
        return Ok(None);
    };
    let best = others.iter().fold(last, |best, entry| if rank(entry) > rank(best) { entry } else { best });
    let [start, length] = [12, 8].map(|at| le_u32(best, at).unwrap_or(0) as usize);
    let picture = bytes.get(start..).and_then(|rest| rest.get(..length));
    let picture = picture.ok_or("failed to decode ico: the file ends before its picture does")?;
    Ok(picture.starts_with(b"\x89PNG\r\n\x1a\n").then_some(picture))
}

fn check_jpeg(bytes: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the file ends before its EOI marker";
    let (mut position, mut is_progressive) = (2, false);
    let mut components: &[[u8; 3]] = &[];
    let mut scans: Vec<u8> = Vec::new();
    loop {
        let (marker, start) = next_marker(bytes, position).ok_or(CUT)?;
        let segment = match marker {
            // Restarts, a second start, the reserved marker without length.
            0xD0..=0xD8 | 0x01 => {
                position = start;
                continue;
            }
            0xD9 => break,
            _ => {
                let length = be_u16(bytes, start).ok_or(CUT)?;
                bytes.get(start..start + usize::from(length)).ok_or(CUT)?
            }
        };
        if !is_progressive && !components.is_empty() && scans.len() == components.len() {
            return Err("there is more than the end of the image behind its only scan");
        }
        match marker {
            // Starts of frame, without the tables of Huffman and arithmetic coding and the reserved one.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                is_progressive = marker == 0xC2;
                components = segment.get(8..).unwrap_or_default().as_chunks::<3>().0;
            }
            0xDA => {
                let n = segment.get(2).map_or(0, |n| usize::from(*n));
                let listed = segment.get(3..).unwrap_or_default().as_chunks::<2>().0;
                scans.extend(listed.iter().take(n).map(|[id, _tables]| *id));
            }
            _ => {}
        }
        position = start + segment.len();
    }
    let is_in_scans = |[id, ..]: &[u8; 3]| scans.contains(id);
    if !components.iter().all(is_in_scans) || !is_progressive && scans.len() != components.len() {
        return Err("not each component of the image is in one scan");
    }
    Ok(())
}

/// The next marker from `position` on, and where its segment starts.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let mut position = position;
    loop {
        position += memchr(0xFF, bytes.get(position..)?)? + 1;
        match bytes.get(position)? {
            // A byte 0xFF of data, or one that fills up before a marker.
            0x00 | 0xFF => {}
            marker => return Some((*marker, position + 1)),
        }
    }
}

/// `None` if the trailer is not reached.
fn check_gif(bytes: &[u8]) -> Option<()> {
    let color_table_bytes = |flags: u8| if flags & 0x80 == 0 { 0 } else { 6_usize << (flags & 7) };
    let mut position = 13 + color_table_bytes(*bytes.get(10)?);
    loop {
        match bytes.get(position)? {
            b';' => return Some(()),
            b'!' => position += 2,
            // A frame; what else there may be, the decoder refuses or skips as it does this.
            _ => position += 11 + color_table_bytes(*bytes.get(position + 9)?),
        }
        loop {
            let length = usize::from(*bytes.get(position)?);
            position += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

fn check_webp(bytes: &[u8], size: (u32, u32)) -> Result<(), &'static str> {
    let riff_bytes = le_u32(bytes, 4).map_or(usize::MAX, |length| length as usize);
    let riff = bytes.get(8..).and_then(|rest| rest.get(..riff_bytes));
    let chunks = riff.and_then(|riff| riff.get(4..)).ok_or("the file ends before its RIFF chunk does")?;
    let check_frame = |kind: &[u8; 4], data: &[u8]| {
        // The decoder makes room for what the frame tells before it compares that with the picture's size.
        let side = |at| le_u16(data, at).map_or(0, |side| u32::from(side & 0x3FFF));
        if kind == b"VP8 " && (side(6) > size.0 || side(8) > size.1) {
            return Err("a frame is larger than the image");
        }
        Ok(())
    };
    for (kind, data) in riff_chunks(chunks) {
        let data = data.ok_or("a chunk ends behind its RIFF chunk")?;
        check_frame(kind, data)?;
        if kind == b"ANMF" {
            for (kind, data) in riff_chunks(data.get(16..).unwrap_or_default()) {
                check_frame(kind, data.unwrap_or_default())?;
            }
        }
    }
    Ok(())
}

/// Kind and data of each chunk, `None` for data that are not whole.
fn riff_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], Option<&[u8]>)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = after.get(..length);
        rest = after.get(length + length % 2..).unwrap_or_default();
        Some((kind, data))
    })
}

/// `None` if pixels are lacking.
fn check_bmp(bytes: &[u8]) -> Option<()> {
    let header_bytes = le_u32(bytes, 14)?;
    let is_compressed = header_bytes >= 40 && matches!(le_u32(bytes, 30)?, 1 | 2);
    if is_compressed {
        let [start, length] = [le_u32(bytes, 10)?, le_u32(bytes, 34)?].map(|n| n as usize);
        bytes.get(start..)?.get(..length)?;
    }
    Some(())
}

fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
