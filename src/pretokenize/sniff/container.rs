//! Containers that may hold sound or moving pictures: what their headers say is in them.

use super::{Kind, array, has, u32_be};

pub(super) fn kind_of(bytes: &[u8]) -> Option<Kind> {
    let kind = riff(bytes).or_else(|| iso_media(bytes)).or_else(|| matroska(bytes));
    kind.or_else(|| ogg(bytes)).or_else(|| asf(bytes))
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
