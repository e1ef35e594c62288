//! Sound files for tests, made here: from planes of samples to WAV, AIFF, FLAC and Ogg FLAC, and silent MP3.

use symphonia::core::{
    checksum::{Crc16Ansi, Crc32, Md5},
    io::Monitor,
};

fn interleaved(planes: &[Vec<i16>], bytes_of: fn(i16) -> [u8; 2]) -> Vec<u8> {
    (0..planes[0].len()).flat_map(|i| planes.iter().flat_map(move |plane| bytes_of(plane[i]))).collect()
}

/// RIFF/WAVE with samples of `bits` bits, which are in `data`.
pub(crate) fn wav_of(tag: u16, rate: u32, n_channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    wav_with(&[], tag, rate, n_channels, bits, data)
}

/// As [`wav_of`], with more in the format chunk.
fn wav_with(extra: &[u8], tag: u16, rate: u32, n_channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    let block = n_channels * bits / 8;
    let mut bytes = b"RIFF????WAVEfmt ".to_vec();
    bytes.extend((16 + extra.len() as u32).to_le_bytes());
    bytes.extend([tag, n_channels].map(u16::to_le_bytes).concat());
    bytes.extend([rate, rate * u32::from(block)].map(u32::to_le_bytes).concat());
    bytes.extend([block, bits].map(u16::to_le_bytes).concat());
    bytes.extend(extra);
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    let n_bytes = bytes.len() as u32 - 8;
    bytes[4..8].copy_from_slice(&n_bytes.to_le_bytes());
    bytes
}

pub(crate) fn wav(rate: u32, planes: &[Vec<i16>]) -> Vec<u8> {
    wav_of(1, rate, planes.len() as u16, 16, &interleaved(planes, i16::to_le_bytes))
}

/// AIFF, or with a `codec` AIFF-C, of `n` samples a channel.
fn aiff_of(codec: Option<&str>, rate: u16, n_channels: u16, n: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"FORM????AIFFCOMM\0\0\0\x12".to_vec();
    bytes.extend(n_channels.to_be_bytes());
    bytes.extend(n.to_be_bytes());
    bytes.extend(bits.to_be_bytes());
    // The rate as an 80-bit float: exponent, and a mantissa whose first bit is one.
    let shift = rate.leading_zeros();
    bytes.extend((16_383 + 15 - shift as u16).to_be_bytes());
    bytes.extend((u64::from(rate) << (48 + shift)).to_be_bytes());
    if let Some(codec) = codec {
        (bytes[11], bytes[19]) = (b'C', 24);
        bytes.extend(codec.as_bytes());
        bytes.extend([0; 2]);
    }
    bytes.extend(b"SSND");
    bytes.extend((data.len() as u32 + 8).to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(data);
    let n_bytes = bytes.len() as u32 - 8;
    bytes[4..8].copy_from_slice(&n_bytes.to_be_bytes());
    bytes
}

pub(crate) fn aiff(rate: u16, planes: &[Vec<i16>]) -> Vec<u8> {
    let data = interleaved(planes, i16::to_be_bytes);
    aiff_of(None, rate, planes.len() as u16, planes[0].len() as u32, 16, &data)
}

/// CAF with PCM of `bits` bits; of its flags the first tells floats, the second that they are little-endian.
fn caf_of(flags: u32, rate: u16, n_channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    bytes.extend(f64::from(rate).to_be_bytes());
    bytes.extend(b"lpcm");
    let (n_channels, bits) = (u32::from(n_channels), u32::from(bits));
    bytes.extend([flags, n_channels * bits / 8, 1, n_channels, bits].map(u32::to_be_bytes).concat());
    bytes.extend(b"data");
    bytes.extend((data.len() as u64 + 4).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(data);
    bytes
}

/// A file of each way to hold samples as they are, `n` a channel, with its name.
pub(crate) fn every_pcm(rate: u16, n_channels: u16, n: u32) -> Vec<(String, Vec<u8>)> {
    let n_all = u32::from(n_channels) * n;
    let noise = |i: u32| i.wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(0x9e37_79b1);
    let integers = |bits: u16| -> Vec<u8> {
        let bytes = (0..n_all).flat_map(|i| (u64::from(noise(i)) << 32 | u64::from(noise(!i))).to_le_bytes());
        bytes.take(n_all as usize * usize::from(bits / 8)).collect()
    };
    // Halves of steps, which are rounded to even; beyond the range; next to nothing.
    let float = |i: u32| match i % 5 {
        0 => f64::from(noise(i) as i16) / 65536.0,
        1 => f64::from(noise(i) as i32) / f64::from(1 << 30),
        2 => (0.5 - f64::EPSILON) * f64::from(i % 7) / 32768.0,
        3 => [f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, -0.0, 1.0, 32767.5 / 32768.0]
            [i as usize % 6],
        _ => f64::from(noise(i) as i32) / f64::from(1 << 31),
    };
    let floats = |bits: u16, is_le: bool| -> Vec<u8> {
        let one = |i| match (bits, is_le) {
            (32, true) => (float(i) as f32).to_le_bytes().to_vec(),
            (32, false) => (float(i) as f32).to_be_bytes().to_vec(),
            (_, true) => float(i).to_le_bytes().to_vec(),
            (_, false) => float(i).to_be_bytes().to_vec(),
        };
        (0..n_all).flat_map(one).collect()
    };
    let mut files = Vec::new();
    let wide = u32::from(rate);
    for (tag, bits) in [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (6, 8), (7, 8)] {
        let data = if tag == 3 { floats(bits, true) } else { integers(bits) };
        let extra: &[u8] = if tag > 3 { &[0; 2] } else { &[] };
        let name = format!("WAV, {tag}, {bits} bits");
        files.push((name, wav_with(extra, tag, wide, n_channels, bits, &data)));
        if tag > 3 {
            // The reader has no decoder for these where they are extensible.
            continue;
        }
        let guid = [&tag.to_le_bytes()[..], b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"].concat();
        let extra = [&22u16.to_le_bytes()[..], &bits.to_le_bytes(), &[0; 4], &guid[..]].concat();
        let name = format!("WAVE_FORMAT_EXTENSIBLE, {tag}, {bits} bits");
        let extensible = wav_with(&extra, 0xfffe, wide, n_channels, bits, &data);
        files.push((format!("{name}, without an end"), without_end(extensible.clone())));
        files.push((format!("{name}, RF64"), rf64(&extensible)));
        files.push((name, extensible));
    }
    for bits in [8, 12, 16, 24, 32] {
        let name = format!("AIFF, {bits} bits");
        files.push((name, aiff_of(None, rate, n_channels, n, bits, &integers(bits.next_multiple_of(8)))));
    }
    let codecs = ["NONE", "in24", "in32", "23ni", "fl32", "fl64", "sowt", "twos", "raw ", "alaw", "ulaw"];
    for (codec, bits) in codecs.into_iter().zip([16, 24, 32, 32, 32, 64, 16, 16, 8, 8, 8]) {
        let data = if codec.starts_with("fl") { floats(bits, false) } else { integers(bits) };
        let name = format!("AIFF-C, {codec}");
        files.push((name, aiff_of(Some(codec), rate, n_channels, n, bits, &data)));
    }
    for (flags, bits) in
        [(0, 16), (2, 16), (0, 24), (2, 24), (0, 32), (2, 32), (1, 32), (3, 32), (1, 64), (3, 64)]
    {
        let data = if flags & 1 == 1 { floats(bits, flags & 2 == 2) } else { integers(bits) };
        files.push((format!("CAF, {flags}, {bits} bits"), caf_of(flags, rate, n_channels, bits, &data)));
    }
    files
}

/// RIFF/WAVE as it is written where nobody can go back to the header.
fn without_end(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[4..8].fill(255);
    let data = bytes.windows(4).position(|four| four == b"data").unwrap();
    bytes[data + 4..data + 8].fill(255);
    bytes
}

/// A RIFF/WAVE as RF64, with a chunk behind its data.
pub(crate) fn rf64(riff: &[u8]) -> Vec<u8> {
    let data = riff.windows(4).position(|four| four == b"data").unwrap();
    let n_bytes = (riff.len() - data - 8) as u64;
    let mut bytes = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".to_vec();
    bytes.extend([riff.len() as u64 + 28 + 18, n_bytes, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0; 4]);
    bytes.extend(&riff[12..data + 4]);
    bytes.extend([255; 4]);
    bytes.extend(&riff[data + 8..]);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes.extend(b"LIST\x04\0\0\0INFO");
    bytes
}

/// Header block STREAMINFO, without what stands before it.
pub(crate) fn stream_info(rate: u32, planes: &[Vec<i16>]) -> Vec<u8> {
    let mut md5 = Md5::default();
    md5.process_buf_bytes(&interleaved(planes, i16::to_le_bytes));
    let mut info = [4096u16, 4096].map(u16::to_be_bytes).concat();
    info.extend([0; 6]);
    let (channels, n) = (planes.len() as u64 - 1, planes[0].len() as u64);
    info.extend((u64::from(rate) << 44 | channels << 41 | 15 << 36 | n).to_be_bytes());
    info.extend(md5.md5());
    info
}

/// Frames of 4096 samples or what is left, all verbatim (RFC 9639, 9).
fn frames(planes: &[Vec<i16>]) -> Vec<Vec<u8>> {
    let frame = |(number, start): (usize, usize)| {
        let end = planes[0].len().min(start + 4096);
        let mut bytes = vec![0xff, 0xf8, 0x70, (planes.len() as u8 - 1) << 4 | 8, number as u8];
        bytes.extend((end as u16 - start as u16 - 1).to_be_bytes());
        bytes.push(crc8(&bytes));
        for plane in planes {
            bytes.push(2);
            bytes.extend(plane[start..end].iter().flat_map(|s| s.to_be_bytes()));
        }
        let mut crc = Crc16Ansi::new(0);
        crc.process_buf_bytes(&bytes);
        bytes.extend(crc.crc().to_be_bytes());
        bytes
    };
    (0..planes[0].len()).step_by(4096).enumerate().map(frame).collect()
}

fn crc8(bytes: &[u8]) -> u8 {
    let bit = |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 7 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ byte, bit))
}

/// FLAC of at most 128 frames.
pub(crate) fn flac(rate: u32, planes: &[Vec<i16>]) -> Vec<u8> {
    let mut bytes = b"fLaC\x80\0\0\x22".to_vec();
    bytes.extend(stream_info(rate, planes));
    bytes.extend(frames(planes).concat());
    bytes
}

/// FLAC in Ogg, a page a frame.
pub(crate) fn ogg_flac(rate: u32, planes: &[Vec<i16>]) -> Vec<u8> {
    ogg_flac_of(&stream_info(rate, planes), planes)
}

/// The same, with a header of any content.
pub(crate) fn ogg_flac_of(info: &[u8], planes: &[Vec<i16>]) -> Vec<u8> {
    let mut head = b"\x7fFLAC\x01\0\0\x01fLaC\0\0\0\x22".to_vec();
    head.extend(info);
    let comment = b"\x84\0\0\x08\0\0\0\0\0\0\0\0".to_vec();
    let frames = frames(planes);
    let n_pages = frames.len() + 2;
    let n_samples = planes[0].len() as u64;
    let mut bytes = Vec::new();
    for (number, packet) in [head, comment].into_iter().chain(frames).enumerate() {
        let flags = if number == 0 { 2 } else { 0 } | if number + 1 == n_pages { 4 } else { 0 };
        let end = (number as u64).saturating_sub(1) * 4096;
        bytes.extend(page(flags, number as u32, end.min(n_samples), &packet));
    }
    bytes
}

fn page(flags: u8, number: u32, end: u64, packet: &[u8]) -> Vec<u8> {
    let mut bytes = b"OggS\0".to_vec();
    bytes.push(flags);
    bytes.extend(end.to_le_bytes());
    bytes.extend([7, number, 0].map(u32::to_le_bytes).concat());
    let mut segments = vec![255; packet.len() / 255];
    segments.push((packet.len() % 255) as u8);
    bytes.push(segments.len() as u8);
    bytes.extend(segments);
    bytes.extend(packet);
    let mut crc = Crc32::new(0);
    crc.process_buf_bytes(&bytes);
    bytes[22..26].copy_from_slice(&crc.crc().to_le_bytes());
    bytes
}

/// Silent frames of MPEG 1 layer III at 128 kbit/s and 44.1 kHz, mono, of 417 bytes and 1152 samples.
pub(crate) fn mp3(n_frames: usize) -> Vec<u8> {
    let mut frame = vec![0; 417];
    frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0xc4]);
    frame.repeat(n_frames)
}
