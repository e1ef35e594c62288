//! Sound that is frames alone, which have no signature but how they follow each other.

use super::array;

/// Two frames of MPEG audio or ADTS, the second right behind the first, or one that is all there is. The 11 bits that begin
/// a frame alone are in noise and in the byte order mark of UTF-16, too.
pub(super) fn are_all_of(bytes: &[u8]) -> bool {
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
