//! Which container content is, by its bytes alone, and whether all of it is there: what a lenient reader would pass over in silence
//! (a cut chunk, junk between frames, a missing page) is an error here. Knows nothing of codecs.

use std::ops::Range;

use symphonia::core::{checksum::Crc32, io::Monitor};

/// Channels above which a header is taken for damage; what is held for a packet grows with them.
pub(super) const MAX_CHANNELS: usize = 255;

/// How sound is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Wav,
    Aiff,
    Flac,
    Ogg,
    Caf,
    Mp4,
    Mkv,
    /// Frames of MPEG 1, 2 or 2.5, layers I to III, with nothing around them.
    Mpeg,
    /// Frames of AAC with nothing around them but their headers.
    Adts,
}

/// Content that is one whole container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) container: Container,
    /// What a reader of the container is to see first.
    pub(super) head: Vec<u8>,
    /// And then these bytes of the content.
    pub(super) bytes: Range<usize>,
    /// Bytes that the packets of its only track hold in all, where that can be told.
    pub(super) packet_bytes: Option<usize>,
    /// The packets, where counted and not only told by a header, and samples a channel of each, delay and padding of the encoder included.
    pub(super) packets: Option<(u64, u64)>,
    /// Bytes of a block of CAF in which every channel has one sample.
    pub(super) block_bytes: Option<u32>,
    /// The header does not tell where the sound ends.
    pub(super) is_open_ended: bool,
}

impl Found {
    fn all(container: Container, bytes: Range<usize>) -> Self {
        Self {
            container,
            head: Vec::new(),
            bytes,
            packet_bytes: None,
            packets: None,
            block_bytes: None,
            is_open_ended: false,
        }
    }
}

/// The container that `bytes` are.
///
/// # Errors
/// Why they are none that is known, or not a whole one.
pub(super) fn find(bytes: &[u8]) -> Result<Found, String> {
    let start = behind_id3(bytes)?;
    let rest = &bytes[start..];
    match rest {
        [b'f', b'L', b'a', b'C', ..] => flac(rest, start),
        [0xff, second, ..] if second & 0xf6 == 0xf0 => adts(rest, start),
        [0xff, second, ..] if second & 0xe0 == 0xe0 => mpeg(rest, start),
        _ if start > 0 => Err("no sound that is known stands behind the ID3 tag".into()),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => wav(rest),
        [b'R', b'F', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => wav(rest),
        [b'B', b'W', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => wav(rest),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => aiff(rest),
        [b'O', b'g', b'g', b'S', ..] => ogg(rest),
        [b'c', b'a', b'f', b'f', ..] => caf(rest),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => mp4(rest),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => mkv(rest),
        [] => Err("no bytes".into()),
        _ => Err("no format of sound that is known".into()),
    }
}

/// Where the ID3v2 tags at the start end, and the zeros that some writers put behind them.
fn behind_id3(bytes: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    while let [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] = bytes[at..] {
        let size = [a, b, c, d].iter().fold(0, |size, &byte| size << 7 | usize::from(byte & 0x7f));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        at += 10 + size + footer;
        if at > bytes.len() {
            return Err(format!("the ID3 tag ends at byte {at}, the content at byte {}", bytes.len()));
        }
    }
    if at > 0 {
        at += bytes[at..].iter().take_while(|&&byte| byte == 0).count();
    }
    Ok(at)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    be16(bytes, at).map(u16::swap_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    be32(bytes, at).map(u32::swap_bytes)
}

/// A chunk of RIFF or IFF.
struct Chunk<'a> {
    id: [u8; 4],
    /// Where its body starts.
    start: usize,
    size: u32,
    /// As much of it as is there.
    body: &'a [u8],
}

impl Chunk<'_> {
    fn whole(&self) -> Result<&[u8], String> {
        if (self.body.len() as u64) < u64::from(self.size) {
            return Err(format!("{} bytes of the {} that a chunk is to have", self.body.len(), self.size));
        }
        Ok(self.body)
    }
}

/// The chunks from byte 12 on.
fn chunks(bytes: &[u8], u32_at: fn(&[u8], usize) -> Option<u32>) -> impl Iterator<Item = Chunk<'_>> {
    let mut at = 12;
    std::iter::from_fn(move || {
        let id = bytes.get(at..at + 4)?.try_into().ok()?;
        let size = u32_at(bytes, at + 4)?;
        let start = at + 8;
        let end = start.saturating_add(size as usize).min(bytes.len());
        at = end + (size % 2) as usize;
        Some(Chunk { id, start, size, body: &bytes[start..end] })
    })
}

fn check_channels(n: u32) -> Result<(), String> {
    if n == 0 || n as usize > MAX_CHANNELS {
        return Err(format!("{n} channels, not 1 to {MAX_CHANNELS}"));
    }
    Ok(())
}

/// RIFF/WAVE: the samples that the data chunk tells are there, in whole blocks. In RF64 and BW64 a chunk before it tells how many.
fn wav(bytes: &[u8]) -> Result<Found, String> {
    const ADPCM: [u16; 2] = [0x02, 0x11];
    let is_64 = bytes[2..4] == *b"64";
    let (mut block_bytes, mut told) = (None, None);
    for chunk in chunks(bytes, le32) {
        match &chunk.id {
            b"fmt " => {
                let format = chunk.whole()?;
                let field = |at| le16(format, at).ok_or("a format chunk of fewer than 16 bytes");
                let (tag, n_channels, align, bits) = (field(0)?, field(2)?, field(12)?, field(14)?);
                check_channels(u32::from(n_channels))?;
                // The reader takes samples for packed, whatever the header says.
                let packed = u32::from(n_channels) * u32::from(bits).div_ceil(8);
                if align == 0 || !ADPCM.contains(&tag) && u32::from(align) != packed {
                    return Err(format!("{n_channels} samples of {bits} bits in blocks of {align} bytes"));
                }
                block_bytes = Some(u64::from(align));
            }
            b"ds64" if is_64 => told = be64(chunk.whole()?, 8).map(u64::swap_bytes),
            b"data" => {
                let block_bytes = block_bytes.ok_or("no format chunk before the data")?;
                let n_held = chunk.body.len() as u64;
                let n_bytes = match chunk.size {
                    u32::MAX if is_64 => told.ok_or("no ds64 chunk before the data")?,
                    u32::MAX => n_held,
                    size => u64::from(size),
                };
                if n_bytes > n_held {
                    return Err(format!("{n_held} bytes of the {n_bytes} that a chunk is to have"));
                }
                if !n_bytes.is_multiple_of(block_bytes) {
                    return Err(format!("{n_bytes} bytes of data in blocks of {block_bytes}"));
                }
                if is_64 {
                    return Ok(of_rf64(&bytes[..chunk.start], n_bytes));
                }
                let is_open_ended = chunk.size == u32::MAX;
                return Ok(Found { is_open_ended, ..Found::all(Container::Wav, 0..bytes.len()) });
            }
            _ => {}
        }
    }
    Err("no data chunk".into())
}

/// RF64 whose `header` ends where its `n_bytes` of data start, as a RIFF, which is what there is a reader for.
fn of_rf64(header: &[u8], n_bytes: u64) -> Found {
    let size = u32::try_from(n_bytes).unwrap_or(u32::MAX);
    let behind_size = header.get(8..header.len() - 4).unwrap_or_default();
    let head = [&b"RIFF\xff\xff\xff\xff"[..], behind_size, &size.to_le_bytes()].concat();
    let data = header.len()..header.len() + n_bytes as usize;
    Found { head, is_open_ended: size == u32::MAX, ..Found::all(Container::Wav, data) }
}

/// AIFF and AIFF-C: the sound chunk is whole, and in AIFF as long as the common chunk tells.
fn aiff(bytes: &[u8]) -> Result<Found, String> {
    let (mut told, mut held) = (None, None);
    for chunk in chunks(bytes, be32) {
        match &chunk.id {
            b"COMM" => {
                let common = chunk.whole()?;
                let field = |at| be16(common, at).ok_or("a common chunk of fewer than 18 bytes");
                let (n_channels, bits) = (u32::from(field(0)?), u32::from(field(6)?));
                check_channels(n_channels)?;
                let n_samples = be32(common, 2).map_or(0, u64::from);
                told = Some(n_samples * u64::from(n_channels * bits.div_ceil(8)));
            }
            b"SSND" => {
                let offset = be32(chunk.whole()?, 0).map_or(0, u64::from);
                held = Some(u64::from(chunk.size).saturating_sub(8).saturating_sub(offset));
            }
            _ => {}
        }
    }
    let told = told.ok_or("no common chunk")?;
    let held = held.unwrap_or(0);
    // What the samples of AIFF-C are packed into is its codec's matter.
    // Some writers count the byte that makes the chunk even as sound.
    let is_padded = told % 2 == 1 && held == told + 1;
    if bytes[11] == b'F' && told != held && !is_padded {
        return Err(format!("{held} bytes of sound where the common chunk tells {told}"));
    }
    Ok(Found::all(Container::Aiff, 0..bytes.len()))
}

/// FLAC: its frames, behind a header with STREAMINFO alone: what else stands there (pictures, tables of contents) is not sound, and
/// its faults are no fault of the sound.
fn flac(bytes: &[u8], start: usize) -> Result<Found, String> {
    const STREAMINFO: Range<usize> = 8..42;
    let info = bytes.get(STREAMINFO).ok_or("the header is cut")?;
    if be32(bytes, 4).map(|block| block & 0x7fff_ffff) != Some(34) {
        return Err("the header does not start with STREAMINFO".into());
    }
    let mut at = 4;
    loop {
        let block = be32(bytes, at).ok_or("the header is cut")?;
        at += 4 + (block & 0xff_ffff) as usize;
        if at > bytes.len() {
            return Err(format!("a block of the header ends at byte {at} of {}", bytes.len()));
        }
        if block >> 31 == 1 {
            break;
        }
    }
    let head = [&b"fLaC\x80\0\0\x22"[..], info].concat();
    let frames = start + at..start + bytes.len();
    Ok(Found { head, packet_bytes: Some(frames.len()), ..Found::all(Container::Flac, frames) })
}

/// Ogg: page on page without a gap, each with its checksum, and every stream with its last one.
fn ogg(bytes: &[u8]) -> Result<Found, String> {
    /// Each page is looked for among them.
    const MOST_STREAMS: usize = 64;
    /// Stream, number of the last page, whether that ends the stream.
    type Stream = (u32, u32, bool);
    let mut streams: Vec<Stream> = Vec::new();
    let mut at = 0;
    let mut is_begun = false;
    while at < bytes.len() {
        let page = &bytes[at..];
        let n_bytes = page_bytes(page).ok_or_else(|| format!("no whole page at byte {at}"))?;
        if checksum(&page[..n_bytes]) != le32(page, 22) {
            return Err(format!("the checksum of the page at byte {at} is wrong"));
        }
        let (flags, serial, number) = (page[5], le32(page, 14).unwrap_or(0), le32(page, 18).unwrap_or(0));
        let is_last = flags & 4 != 0;
        let n_streams = streams.len();
        let known = streams.iter_mut().find(|stream| stream.0 == serial);
        match known {
            None if flags & 2 == 0 => return Err(format!("the page at byte {at} belongs to no stream")),
            None if is_begun => return Err("one sound is chained to another".into()),
            None if n_streams == MOST_STREAMS => {
                return Err(format!("more than {MOST_STREAMS} streams side by side"));
            }
            None => streams.push((serial, number, is_last)),
            Some((_, last, is_ended)) => {
                if *is_ended || number != last.wrapping_add(1) {
                    return Err(format!("page {number} of a stream follows page {last}"));
                }
                (*last, *is_ended) = (number, is_last);
                is_begun = true;
            }
        }
        at += n_bytes;
    }
    if streams.iter().any(|stream| !stream.2) {
        return Err("a stream has no last page".into());
    }
    Ok(Found::all(Container::Ogg, 0..bytes.len()))
}

/// Length of the page that `bytes` start with, if all of it is there.
fn page_bytes(bytes: &[u8]) -> Option<usize> {
    let n_segments = usize::from(*bytes.get(26)?);
    let body: usize = bytes.get(27..27 + n_segments)?.iter().map(|&segment| usize::from(segment)).sum();
    let n_bytes = 27 + n_segments + body;
    (bytes.starts_with(b"OggS\0") && n_bytes <= bytes.len()).then_some(n_bytes)
}

/// Of a page, its own field counted as zeros.
fn checksum(page: &[u8]) -> Option<u32> {
    let mut crc = Crc32::new(0);
    crc.process_buf_bytes(page.get(..22)?);
    crc.process_buf_bytes(&[0; 4]);
    crc.process_buf_bytes(page.get(26..)?);
    Some(crc.crc())
}

/// CAF: every chunk is whole; only the data may run to the end, in whole packets.
fn caf(bytes: &[u8]) -> Result<Found, String> {
    let mut at = 8;
    if bytes.len() < at {
        return Err("the header is cut".into());
    }
    let (mut packet_bytes, mut packet_samples, mut is_open_ended) = (0, 0, false);
    let mut end = bytes.len();
    while at < end {
        // Some writers make the file's length even with a byte that belongs to no chunk.
        if bytes[at..] == [0] {
            end = at;
            break;
        }
        let (id, size) = (be32(bytes, at).map(u32::to_be_bytes), be64(bytes, at + 4));
        let (Some(id), Some(size)) = (id, size) else { return Err(format!("a chunk is cut at byte {at}")) };
        let body = &bytes[at + 12..];
        if &id == b"desc" {
            let field = |at| be32(body, at).ok_or("the description is cut");
            (packet_bytes, packet_samples) = (field(16)?, field(20)?);
            check_channels(field(24)?)?;
            // A decoder sets room aside for as much as this tells of.
            if packet_bytes > 1 << 20 || packet_samples > 1 << 16 {
                return Err(format!("packets of {packet_bytes} bytes, {packet_samples} samples"));
            }
        }
        is_open_ended = &id == b"data" && size == u64::MAX;
        if is_open_ended {
            // Before the packets stands the number of edits.
            let n_bytes = body.len().saturating_sub(4);
            if packet_bytes == 0 || !n_bytes.is_multiple_of(packet_bytes as usize) {
                return Err(format!("{n_bytes} bytes of data in packets of {packet_bytes}"));
            }
            break;
        }
        if size > body.len() as u64 {
            return Err(format!("{} bytes of the {size} that a chunk is to have", body.len()));
        }
        at += 12 + size as usize;
    }
    let block_bytes = (packet_samples == 1).then_some(packet_bytes);
    Ok(Found { block_bytes, is_open_ended, ..Found::all(Container::Caf, 0..end) })
}

/// MP4 and its kin: boxes without a gap up to the last byte; where samples lie its tables tell.
fn mp4(bytes: &[u8]) -> Result<Found, String> {
    let mut at = 0;
    while at < bytes.len() {
        let n_bytes = match be32(bytes, at) {
            Some(0) => (bytes.len() - at) as u64,
            Some(1) => be64(bytes, at + 8).unwrap_or(0),
            size => size.map_or(0, u64::from),
        };
        if n_bytes < 8 {
            return Err(format!("no box at byte {at}"));
        }
        if n_bytes > (bytes.len() - at) as u64 {
            return Err(format!("{} bytes of a box of {n_bytes}", bytes.len() - at));
        }
        at += n_bytes as usize;
    }
    Ok(Found::all(Container::Mp4, 0..bytes.len()))
}

/// Matroska and WebM: the elements of the first level are whole.
fn mkv(bytes: &[u8]) -> Result<Found, String> {
    let mut at = 0;
    let mut is_open_ended = false;
    while at < bytes.len() && !is_open_ended {
        let id_bytes = bytes[at].leading_zeros() as usize + 1;
        let (size_bytes, size) =
            vint(bytes, at + id_bytes).ok_or_else(|| format!("an element is cut at byte {at}"))?;
        let body = at + id_bytes + size_bytes;
        is_open_ended = size == (1 << (7 * size_bytes)) - 1;
        if !is_open_ended && size > (bytes.len() - body) as u64 {
            return Err(format!("{} bytes of the {size} that an element is to have", bytes.len() - body));
        }
        at = body.saturating_add(size as usize);
    }
    Ok(Found::all(Container::Mkv, 0..bytes.len()))
}

/// An EBML number of variable length: its bytes and its value.
fn vint(bytes: &[u8], at: usize) -> Option<(usize, u64)> {
    let first = *bytes.get(at)?;
    let n_bytes = first.leading_zeros() as usize + 1;
    let tail = bytes.get(at + 1..at + n_bytes)?;
    let head = u64::from(first) & ((1 << (8 - n_bytes.min(8))) - 1);
    (n_bytes <= 8).then(|| (n_bytes, tail.iter().fold(head, |value, &byte| value << 8 | u64::from(byte))))
}

/// Frames of MPEG audio without a gap, all of one format, and at most a tag or zeros behind the last.
fn mpeg(bytes: &[u8], start: usize) -> Result<Found, String> {
    /// Version, layer, rate; and whether there is one channel.
    const FORMAT: u32 = 0x001e_0c00;
    let format = |header: u32| (header & FORMAT, header >> 6 & 3 == 3);
    let first = be32(bytes, 0).unwrap_or(0);
    let (mut n_frames, mut samples, mut borrowed) = (0, 0, None);
    let end = frames(bytes, start, |frame| {
        let header = be32(frame, 0)?;
        let n_bytes;
        (n_bytes, samples) = mpeg_frame(header)?;
        n_frames += 1;
        // The first may hold no sound but what is said of all.
        if n_frames < 3 && borrowed.is_none() && !is_told(frame, header) {
            borrowed = Some(borrowed_bytes(frame, header));
        }
        (format(header) == format(first)).then_some(n_bytes)
    })?;
    if let Some(n) = borrowed.filter(|&n| n > 0) {
        // A decoder makes silence of it.
        return Err(format!(
            "the first frame lacks {n} bytes that stood before it: a part cut out of a sound"
        ));
    }
    Ok(Found { packets: Some((n_frames, samples)), ..Found::all(Container::Mpeg, start..start + end) })
}

/// Where the side information of a frame of layer III starts and ends.
fn side_info(header: u32) -> Range<usize> {
    let (is_mpeg1, is_mono) = (header >> 19 & 3 == 3, header >> 6 & 3 == 3);
    let start = if header >> 16 & 1 == 0 { 6 } else { 4 };
    let n_bytes = match (is_mpeg1, is_mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    start..start + n_bytes
}

/// Whether a frame is one that tells of the others in place of sound.
fn is_told(frame: &[u8], header: u32) -> bool {
    // The tag's place does not heed a checksum.
    let at = side_info(header | 1 << 16).end;
    let tag = |at: usize| frame.get(at..at + 4).unwrap_or_default();
    [&b"Xing"[..], b"Info"].contains(&tag(at)) || tag(36) == b"VBRI"
}

/// Bytes before a frame of layer III that its sound begins in: `main_data_begin` (ISO 11172-3, 2.4.1.7).
fn borrowed_bytes(frame: &[u8], header: u32) -> u32 {
    let is_layer3 = header >> 17 & 3 == 1;
    let bits = be16(frame, side_info(header).start).filter(|_| is_layer3).map_or(0, u32::from);
    if header >> 19 & 3 == 3 { bits >> 7 } else { bits >> 8 }
}

/// Bytes and samples a channel of the frame with this header (ISO 11172-3, 2.4.2.3; 13818-3; 2.5 as everyone does it).
fn mpeg_frame(header: u32) -> Option<(usize, u64)> {
    const KBITS: [[u32; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let is_mpeg1 = header >> 19 & 3 == 3;
    let rate = [44_100, 48_000, 32_000].get((header >> 10 & 3) as usize)?;
    let rate = match header >> 19 & 3 {
        0 => rate / 4,
        2 => rate / 2,
        3 => *rate,
        _ => return None,
    };
    let (table, samples, slot) = match (header >> 17 & 3, is_mpeg1) {
        (3, true) => (0, 384, 4),
        (3, false) => (3, 384, 4),
        (2, true) => (1, 1152, 1),
        (2, false) => (4, 1152, 1),
        (1, true) => (2, 1152, 1),
        (1, false) => (4, 576, 1),
        _ => return None,
    };
    let bits = KBITS[table].get((header >> 12 & 15) as usize).filter(|&&kbits| kbits > 0)? * 1000;
    let slots = u64::from(bits) * samples / 8 / slot / rate + u64::from(header >> 9 & 1);
    (header >> 21 == 0x7ff).then_some(((slots * slot) as usize, samples))
}

/// Frames of AAC without a gap, all of one format.
fn adts(bytes: &[u8], start: usize) -> Result<Found, String> {
    /// What stays the same of a header: sync word, version, profile, rate, channels.
    const FORMAT: u32 = 0xfffe_fdc0;
    let first = be32(bytes, 0).unwrap_or(0);
    let (mut n_frames, mut packet_bytes) = (0, 0);
    let end = frames(bytes, start, |frame| {
        let header = be32(frame, 0)?;
        let n_bytes = usize::from(be16(frame, 4)?) >> 5 | (header as usize & 3) << 11;
        let header_bytes = if header >> 16 & 1 == 0 { 9 } else { 7 };
        n_frames += 1;
        packet_bytes += n_bytes.checked_sub(header_bytes)?;
        (header & FORMAT == first & FORMAT).then_some(n_bytes)
    })?;
    let (packets, packet_bytes) = (Some((n_frames, 1024)), Some(packet_bytes));
    Ok(Found { packets, packet_bytes, ..Found::all(Container::Adts, start..start + end) })
}

/// Where the frames end whose length `frame_bytes` tells of the bytes from their start on; `start` is for messages.
fn frames(
    bytes: &[u8],
    start: usize,
    mut frame_bytes: impl FnMut(&[u8]) -> Option<usize>,
) -> Result<usize, String> {
    let mut at = 0;
    while !is_trailer(&bytes[at..]) {
        let rest = &bytes[at..];
        let n_bytes =
            frame_bytes(rest).ok_or_else(|| format!("no frame like the first at byte {}", start + at))?;
        if n_bytes > rest.len() {
            return Err(format!("{} bytes of a frame of {n_bytes} at byte {}", rest.len(), start + at));
        }
        at += n_bytes;
    }
    Ok(at)
}

/// Whether these bytes are what may follow the last frame: nothing, zeros, or tags (ID3, APE, Lyrics3).
fn is_trailer(rest: &[u8]) -> bool {
    const TAGS: [&[u8]; 4] = [b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3"];
    TAGS.iter().any(|tag| rest.starts_with(tag)) || rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{aiff, flac, mp3, ogg_flac, rf64, wav},
        *,
    };

    fn error(bytes: &[u8]) -> String {
        find(bytes).map(|found| found.container).unwrap_err()
    }

    #[test]
    fn a_container_is_known_by_its_bytes() {
        let samples = [vec![1i16, -2, 3]];
        assert_eq!(find(&wav(8000, &samples)).unwrap().container, Container::Wav);
        assert_eq!(find(&aiff(8000, &samples)).unwrap().container, Container::Aiff);
        assert_eq!(find(&flac(8000, &samples)).unwrap().container, Container::Flac);
        assert_eq!(find(&ogg_flac(8000, &samples)).unwrap().container, Container::Ogg);
        assert_eq!(find(&mp3(2)).unwrap().packets, Some((2, 1152)));
        assert_eq!(error(b""), "no bytes");
        assert_eq!(error(b"RIFF\0\0\0\0AVI "), "no format of sound that is known");
        assert_eq!(error(&(0..=255).collect::<Vec<u8>>()), "no format of sound that is known");
    }

    #[test]
    fn tags_around_frames_are_no_sound() {
        let mut tagged = b"ID3\x04\0\0\0\0\0\x02??\0\0".to_vec();
        tagged.extend(mp3(3));
        let end = tagged.len();
        tagged.extend(b"TAG");
        tagged.resize(end + 128, b' ');
        let found = find(&tagged).unwrap();
        assert_eq!((found.bytes, found.packets), (14..end, Some((3, 1152))));
        assert_eq!(error(b"ID3\x04\0\0\0\0\0\x02?"), "the ID3 tag ends at byte 12, the content at byte 11");
        assert_eq!(
            error(b"ID3\x04\0\0\0\0\0\0RIFF????WAVE"),
            "no sound that is known stands behind the ID3 tag"
        );
    }

    #[test]
    fn headers_that_are_cut_anywhere_are_errors() {
        let heads: [&[u8]; 5] =
            [b"caff\0\x01\0", b"OggS\0", b"fLaC\0\0\0\x22", b"RIFF\0\0\0\0WAVEfmt ", b"FORM\0\0\0\0AIFFCOMM"];
        for head in heads {
            for n in 1..=head.len() {
                assert!(find(&head[..n]).is_err(), "{n} bytes of {head:?}");
            }
        }
    }

    #[test]
    fn an_mp3_that_begins_inside_of_a_sound_is_an_error() {
        let mut part = mp3(3);
        part[4] = 1;
        assert_eq!(
            error(&part),
            "the first frame lacks 2 bytes that stood before it: a part cut out of a sound"
        );
        // What tells of the others is no sound; the one behind it is the first.
        let side = if part[3] >> 6 == 3 { 17 } else { 32 };
        part[4 + side..8 + side].copy_from_slice(b"Info");
        assert!(find(&part).is_ok());
        part[417 + 4] = 0x80;
        assert!(error(&part).starts_with("the first frame lacks 256 bytes"));
    }

    #[test]
    fn streams_of_ogg_are_not_without_number() {
        let page = |serial: u32| {
            let mut page = b"OggS\0\x02\0\0\0\0\0\0\0\0........\0\0\0\0\0".to_vec();
            page[14..18].copy_from_slice(&serial.to_le_bytes());
            page[18..22].fill(0);
            let crc = checksum(&page).unwrap();
            page[22..26].copy_from_slice(&crc.to_le_bytes());
            page
        };
        let pages: Vec<u8> = (0..100).flat_map(page).collect();
        assert_eq!(error(&pages), "more than 64 streams side by side");
        assert_eq!(error(&pages[..27 * 64]), "a stream has no last page");
    }

    #[test]
    fn a_frame_that_is_cut_or_junk_between_two_is_an_error() {
        let whole = mp3(3);
        assert_eq!(error(&whole[..whole.len() - 1]), "416 bytes of a frame of 417 at byte 834");
        let mut junk = whole[..834].to_vec();
        junk.extend(b"junk");
        junk.extend(&whole[834..]);
        assert_eq!(error(&junk), "no frame like the first at byte 834");
        let mut other_rate = whole;
        other_rate[417 + 2] = 0x94;
        assert_eq!(error(&other_rate), "no frame like the first at byte 417");
    }

    #[test]
    fn a_wav_must_hold_the_data_that_it_tells_in_whole_blocks() {
        let whole = wav(8000, &[vec![1, 2, 3], vec![4, 5, 6]]);
        assert_eq!(error(&whole[..whole.len() - 1]), "11 bytes of the 12 that a chunk is to have");
        let mut odd = whole.clone();
        odd[32] = 6;
        assert_eq!(error(&odd), "2 samples of 16 bits in blocks of 6 bytes");
        let mut half = whole.clone();
        half[40] = 10;
        assert_eq!(error(&half), "10 bytes of data in blocks of 4");
        let mut streamed = whole;
        streamed[40..44].fill(255);
        assert!(find(&streamed).unwrap().is_open_ended);
        streamed[..4].copy_from_slice(b"RF64");
        assert_eq!(error(&streamed), "no ds64 chunk before the data");
    }

    #[test]
    fn an_rf64_is_read_as_a_riff_of_its_own_data() {
        let riff = wav(8000, &[vec![1, 2, 3], vec![4, 5, 6]]);
        let whole = rf64(&riff);
        let found = find(&whole).unwrap();
        assert_eq!((found.container, found.is_open_ended), (Container::Wav, false));
        assert_eq!(found.head[..8], *b"RIFF\xff\xff\xff\xff");
        assert_eq!(found.head[found.head.len() - 8..], *b"data\x0c\0\0\0");
        assert_eq!(whole[found.bytes.clone()], riff[44..]);
        let cut = &whole[..found.bytes.end - 1];
        assert_eq!(error(cut), "11 bytes of the 12 that a chunk is to have");
    }

    #[test]
    fn no_page_of_an_ogg_may_be_missing_or_damaged() {
        let whole = ogg_flac(8000, &[vec![7; 9000]]);
        let starts: Vec<usize> = (0..whole.len()).filter(|&at| whole[at..].starts_with(b"OggS")).collect();
        let last = *starts.last().unwrap();
        assert!(starts.len() > 3);
        assert_eq!(error(&whole[..last]), "a stream has no last page");
        assert_eq!(error(&whole[..whole.len() - 1]), format!("no whole page at byte {last}"));
        let mut damaged = whole.clone();
        damaged[last - 1] ^= 1;
        let before = starts[starts.len() - 2];
        assert_eq!(error(&damaged), format!("the checksum of the page at byte {before} is wrong"));
        let mut gap = whole[..before].to_vec();
        gap.extend(&whole[last..]);
        let (n, from) = (starts.len() - 1, starts.len() - 3);
        assert_eq!(error(&gap), format!("page {n} of a stream follows page {from}"));
        assert_eq!(error(&[&whole[..], &whole[..]].concat()), format!("page 0 of a stream follows page {n}"));
    }

    #[test]
    fn boxes_and_elements_must_be_whole() {
        let boxes = b"\0\0\0\x0cftypM4A \0\0\0\x08mdat";
        assert_eq!(find(boxes).unwrap().container, Container::Mp4);
        assert_eq!(error(&boxes[..19]), "7 bytes of a box of 8");
        assert_eq!(error(&[&boxes[..], &b"\0\0\0\x04"[..]].concat()), "no box at byte 20");
        assert_eq!(error(b"\0\0\0\x10ftypM4A "), "12 bytes of a box of 16");
        let elements = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x82??";
        assert_eq!(find(elements).unwrap().container, Container::Mkv);
        assert_eq!(error(&elements[..11]), "1 bytes of the 2 that an element is to have");
        let chunks = b"caff\0\x01\0\0free\0\0\0\0\0\0\0\x01?";
        assert_eq!(find(chunks).unwrap().container, Container::Caf);
        assert_eq!(error(&chunks[..20]), "0 bytes of the 1 that a chunk is to have");
    }
}
