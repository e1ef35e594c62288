//! Samples that lie in content as they are, PCM of any width or one of the two laws of telephony, to 16 bits. Knows nothing of what
//! stands around them.

use std::ops::Range;

use super::decode::{NO_NUMBER, Spec, from_f32, from_f64};

/// How a sample lies in content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    U8,
    S8,
    S16Le,
    S16Be,
    S24Le,
    S24Be,
    S32Le,
    S32Be,
    F32Le,
    F32Be,
    F64Le,
    F64Be,
    ALaw,
    MuLaw,
}

impl Form {
    /// Bytes of a sample.
    pub(super) fn n_bytes(self) -> usize {
        match self {
            Self::U8 | Self::S8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16Le | Self::S16Be => 2,
            Self::S24Le | Self::S24Be => 3,
            Self::S32Le | Self::S32Be | Self::F32Le | Self::F32Be => 4,
            Self::F64Le | Self::F64Be => 8,
        }
    }
}

/// Where samples lie, channel beside channel, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pcm {
    pub(super) form: Form,
    pub(super) spec: Spec,
    /// Of the content: whole blocks of a sample a channel.
    pub(super) bytes: Range<usize>,
}

impl Pcm {
    /// Bytes of a sample of every channel.
    fn block_bytes(&self) -> usize {
        self.form.n_bytes() * self.spec.n_channels
    }

    /// Samples a channel.
    pub(super) fn n_samples(&self) -> usize {
        self.bytes.len() / self.block_bytes()
    }

    /// Whether content holds the samples as they are wanted, whatever the length of a frame.
    pub(super) fn is_answer(&self) -> bool {
        self.form == Form::S16Le && self.spec.n_channels == 1
    }

    /// The bytes of the samples alone, in the place of the content.
    pub(super) fn cut_out(&self, mut content: Vec<u8>) -> Vec<u8> {
        content.truncate(self.bytes.end);
        content.drain(..self.bytes.start);
        content.shrink_to_fit();
        content
    }

    /// Where `samples` of all channels lie in the content.
    pub(super) fn place(&self, samples: &Range<usize>) -> Range<usize> {
        let at = |sample| self.bytes.start + sample * self.block_bytes();
        at(samples.start)..at(samples.end)
    }

    /// Writes the samples in `blocks` to `out`, channel after channel, 16 bits little-endian, as [`super::decode`] makes them.
    ///
    /// # Errors
    /// A float that is not a number.
    pub(super) fn read_frame(&self, blocks: &[u8], out: &mut [u8]) -> Result<(), String> {
        let channels = out.chunks_exact_mut((2 * blocks.len() / self.block_bytes()).max(1));
        channels.enumerate().try_for_each(|(channel, out)| self.read(blocks, channel, out))
    }

    /// As [`Self::read_frame`], those of one channel.
    pub(super) fn read(&self, blocks: &[u8], channel: usize, out: &mut [u8]) -> Result<(), String> {
        let data = Interleaved { bytes: blocks, n_channels: self.spec.n_channels, channel };
        let mut is_number = true;
        let mut checked = |is_nan: bool| is_number &= !is_nan;
        match self.form {
            Form::U8 => data.each(out, |[byte]| i16::from_le_bytes([0, byte ^ 0x80])),
            Form::S8 => data.each(out, |[byte]| i16::from_le_bytes([0, byte])),
            // The compiler takes many at once of these only when told that two of them are one number.
            Form::S16Le if data.n_channels == 2 => {
                data.each_of::<4, 1>(out, |pair| (u32::from_le_bytes(pair) >> (16 * channel)) as i16);
            }
            Form::S16Be if data.n_channels == 2 => {
                data.each_of::<4, 1>(out, |pair| {
                    ((u32::from_le_bytes(pair) >> (16 * channel)) as i16).swap_bytes()
                });
            }
            Form::S16Le => data.each(out, i16::from_le_bytes),
            Form::S16Be => data.each(out, i16::from_be_bytes),
            Form::S24Le => data.each(out, |[_, low, high]| i16::from_le_bytes([low, high])),
            Form::S24Be => data.each(out, |[high, low, _]| i16::from_le_bytes([low, high])),
            Form::S32Le => data.each(out, |bytes| (i32::from_le_bytes(bytes) >> 16) as i16),
            Form::S32Be => data.each(out, |bytes| (i32::from_be_bytes(bytes) >> 16) as i16),
            Form::F32Le => data.each(out, |bytes| {
                let sample = f32::from_le_bytes(bytes);
                checked(sample.is_nan());
                from_f32(sample)
            }),
            Form::F32Be => data.each(out, |bytes| {
                let sample = f32::from_be_bytes(bytes);
                checked(sample.is_nan());
                from_f32(sample)
            }),
            Form::F64Le => data.each(out, |bytes| {
                let sample = f64::from_le_bytes(bytes);
                checked(sample.is_nan());
                from_f64(sample)
            }),
            Form::F64Be => data.each(out, |bytes| {
                let sample = f64::from_be_bytes(bytes);
                checked(sample.is_nan());
                from_f64(sample)
            }),
            Form::ALaw => data.each(out, |[byte]| A_LAW[usize::from(byte)]),
            Form::MuLaw => data.each(out, |[byte]| MU_LAW[usize::from(byte)]),
        }
        if is_number { Ok(()) } else { Err(NO_NUMBER.into()) }
    }
}

/// A channel of several.
struct Interleaved<'a> {
    bytes: &'a [u8],
    n_channels: usize,
    channel: usize,
}

impl Interleaved<'_> {
    /// Writes every sample, of `N` bytes, to `out`.
    fn each<const N: usize>(&self, out: &mut [u8], mut to_s16: impl FnMut([u8; N]) -> i16) {
        // Steps that the compiler knows are several times as fast.
        match self.n_channels {
            1 => self.each_of::<N, 1>(out, to_s16),
            2 => self.each_of::<N, 2>(out, to_s16),
            4 => self.each_of::<N, 4>(out, to_s16),
            6 => self.each_of::<N, 6>(out, to_s16),
            8 => self.each_of::<N, 8>(out, to_s16),
            n => {
                let blocks = self.bytes.as_chunks::<N>().0.chunks_exact(n);
                for (out, block) in out.as_chunks_mut::<2>().0.iter_mut().zip(blocks) {
                    *out = to_s16(block[self.channel]).to_le_bytes();
                }
            }
        }
    }

    fn each_of<const N: usize, const N_CHANNELS: usize>(
        &self,
        out: &mut [u8],
        mut to_s16: impl FnMut([u8; N]) -> i16,
    ) {
        let channel = self.channel % N_CHANNELS;
        let blocks = self.bytes.as_chunks::<N>().0.as_chunks::<N_CHANNELS>().0;
        for (out, block) in out.as_chunks_mut::<2>().0.iter_mut().zip(blocks) {
            *out = to_s16(block[channel]).to_le_bytes();
        }
    }
}

static A_LAW: [i16; 256] = table(true);
static MU_LAW: [i16; 256] = table(false);

/// What each byte stands for by the A-law, or the µ-law, of ITU-T G.711: 13 or 14 bits, here the upper ones of 16.
const fn table(is_a_law: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if is_a_law { a_law(byte as u8) } else { mu_law(byte as u8) };
        byte += 1;
    }
    table
}

const fn a_law(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let (step, segment) = (((code & 15) as i16) << 4, code >> 4 & 7);
    let size = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
    if code & 0x80 == 0 { -size } else { size }
}

const fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let code = !byte;
    let (step, segment) = (((code & 15) as i16) << 3, code >> 4 & 7);
    let size = ((step + BIAS) << segment) - BIAS;
    if code & 0x80 == 0 { size } else { -size }
}
