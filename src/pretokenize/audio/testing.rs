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
    let block = n_channels * bits / 8;
    let mut bytes = b"RIFF????WAVEfmt \x10\0\0\0".to_vec();
    bytes.extend([tag, n_channels].map(u16::to_le_bytes).concat());
    bytes.extend([rate, rate * u32::from(block)].map(u32::to_le_bytes).concat());
    bytes.extend([block, bits].map(u16::to_le_bytes).concat());
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

pub(crate) fn aiff(rate: u16, planes: &[Vec<i16>]) -> Vec<u8> {
    let data = interleaved(planes, i16::to_be_bytes);
    let mut bytes = b"FORM????AIFFCOMM\0\0\0\x12".to_vec();
    bytes.extend((planes.len() as u16).to_be_bytes());
    bytes.extend((planes[0].len() as u32).to_be_bytes());
    bytes.extend(16u16.to_be_bytes());
    // The rate as an 80-bit float: exponent, and a mantissa whose first bit is one.
    let shift = rate.leading_zeros();
    bytes.extend((16_383 + 15 - shift as u16).to_be_bytes());
    bytes.extend((u64::from(rate) << (48 + shift)).to_be_bytes());
    bytes.extend(b"SSND");
    bytes.extend((data.len() as u32 + 8).to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(data);
    let n_bytes = bytes.len() as u32 - 8;
    bytes[4..8].copy_from_slice(&n_bytes.to_be_bytes());
    bytes
}

/// Header block STREAMINFO, without what stands before it.
fn stream_info(rate: u32, planes: &[Vec<i16>]) -> Vec<u8> {
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
    let mut head = b"\x7fFLAC\x01\0\0\x01fLaC\0\0\0\x22".to_vec();
    head.extend(stream_info(rate, planes));
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
