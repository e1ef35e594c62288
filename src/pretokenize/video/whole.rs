//! Whether a film is whole, as far as its container's own structure tells: ffmpeg takes the end of what is cut off for the end of the film.
//! Knows nothing of what is inside.
//!
//! - MP4 and QuickTime: box by box to the end of the file, and no fragment's table without its data.
//! - Matroska and WebM: the segment's length; of one that was written as a stream, that of each part that tells it.
//! - AVI: the lengths of its RIFF chunks.
//! - Ogg: page by page, and a last page of every stream.
//! - FLV: tag by tag. ASF: object by object. Transport streams: whole packets.

/// `Err` with the reason if `bytes` lack a part. What is no container that is known here passes.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let is_box = |name: &&[u8; 4]| bytes.get(4..8) == Some(name.as_slice());
    if bytes.is_empty() {
        return Err("an empty file is no film");
    }
    if [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"].iter().any(is_box) {
        check_boxes(bytes)
    } else if bytes.starts_with(b"\x1a\x45\xdf\xa3") {
        check_elements(bytes).ok_or("the file ends before its segment does")
    } else if bytes.starts_with(b"RIFF") {
        check_riff(bytes).ok_or("the file ends before its RIFF chunk does")
    } else if bytes.starts_with(b"OggS") {
        check_ogg(bytes)
    } else if bytes.starts_with(b"FLV") {
        check_flv(bytes).ok_or("the file ends before its last tag does")
    } else if bytes.starts_with(&ASF_HEADER) {
        check_asf(bytes).ok_or("the file ends before its objects do")
    } else if is_transport_stream(bytes) && !bytes.len().is_multiple_of(TS_PACKET) {
        Err("the file ends before its last packet does")
    } else {
        Ok(())
    }
}

const ASF_HEADER: [u8; 16] = *b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c";
const TS_PACKET: usize = 188;

/// ISO/IEC 14496-12, 4.2.
fn check_boxes(bytes: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the file ends before its last box does";
    let mut rest = bytes;
    let mut awaits_data = false;
    while !rest.is_empty() {
        let short = u32::from_be_bytes(*rest.first_chunk().ok_or(CUT)?);
        let name = rest.get(4..8).ok_or(CUT)?;
        let length = match short {
            0 => rest.len() as u64,
            1 => u64::from_be_bytes(*rest.get(8..).and_then(<[u8]>::first_chunk).ok_or(CUT)?),
            short => short.into(),
        };
        let length =
            usize::try_from(length).ok().filter(|length| *length >= 8).ok_or("a box of no length")?;
        match name {
            b"moof" => awaits_data = true,
            b"mdat" => awaits_data = false,
            _ => {}
        }
        rest = rest.get(length..).ok_or(CUT)?;
    }
    if awaits_data { Err("the file ends before the data of its last fragment") } else { Ok(()) }
}

/// RFC 8794, 4 to 6; RFC 9559, 4.5.
fn check_elements(bytes: &[u8]) -> Option<()> {
    const SEGMENT: &[u8] = b"\x18\x53\x80\x67";
    let mut rest = bytes;
    while !rest.is_empty() {
        let id_bytes = n_bytes(rest, 4)?;
        let length_bytes = n_bytes(&rest[id_bytes..], 8)?;
        let head = id_bytes + length_bytes;
        let number = rest[id_bytes..head].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let mask = (1 << (7 * length_bytes)) - 1;
        rest = match number & mask {
            // Unknown: its parts are looked at in its place. One of them ends where the next begins, which is not followed.
            length if length == mask && rest.starts_with(SEGMENT) => &rest[head..],
            length if length == mask => return Some(()),
            length => rest[head..].get(usize::try_from(length).ok()?..)?,
        };
    }
    Some(())
}

/// Length of the number of variable length at the start of `bytes`, at most `most`.
fn n_bytes(bytes: &[u8], most: usize) -> Option<usize> {
    let n_bytes = bytes.first()?.leading_zeros() as usize + 1;
    (n_bytes <= most && n_bytes <= bytes.len()).then_some(n_bytes)
}

/// Large files have a chunk after another (OpenDML 1.02).
fn check_riff(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    while rest.starts_with(b"RIFF") {
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let after = rest.get(8..)?.get(length..)?;
        // Behind a chunk of odd length stands a byte, which some writers leave out at the end.
        rest = after.get(length % 2..).unwrap_or_default();
    }
    Some(())
}

/// RFC 3533, 6.
fn check_ogg(bytes: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the file ends before its last page does";
    let mut rest = bytes;
    let mut open: Vec<&[u8]> = Vec::new();
    while !rest.is_empty() {
        if !rest.starts_with(b"OggS") {
            return Err("something that is no page of Ogg");
        }
        let flags = *rest.get(5).ok_or(CUT)?;
        let stream = rest.get(14..18).ok_or(CUT)?;
        let n_lengths = usize::from(*rest.get(26).ok_or(CUT)?);
        let lengths = rest.get(27..27 + n_lengths).ok_or(CUT)?;
        let length: usize = lengths.iter().map(|length| usize::from(*length)).sum();
        rest = rest.get(27 + n_lengths + length..).ok_or(CUT)?;
        open.retain(|other| *other != stream);
        if flags & 4 == 0 {
            open.push(stream);
        }
    }
    if open.is_empty() { Ok(()) } else { Err("the file ends before the last page of a stream") }
}

/// Adobe Flash Video File Format 10.1, annex E.
fn check_flv(bytes: &[u8]) -> Option<()> {
    let head = u32::from_be_bytes(*bytes.get(5..)?.first_chunk()?) as usize;
    let mut rest = bytes.get(head..)?.get(4..)?;
    while !rest.is_empty() {
        let length = rest.get(1..4)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = rest.get(11 + length + 4..)?;
    }
    Some(())
}

fn check_asf(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = u64::from_le_bytes(*rest.get(16..)?.first_chunk()?);
        rest = rest.get(usize::try_from(length).ok().filter(|length| *length >= 24)?..)?;
    }
    Some(())
}

fn is_transport_stream(bytes: &[u8]) -> bool {
    bytes.len() > 2 * TS_PACKET && [0, TS_PACKET, 2 * TS_PACKET].iter().all(|at| bytes[*at] == 0x47)
}
