//! The segments of a sound in, its samples out, and what the model says of them. Knows nothing of terminals or pages.

use std::ops::Range;

use serde::Deserialize;

use super::{Inspected, counted, mean};

/// A sample is 16 bits, signed, the lower byte first.
const BYTES_PER_SAMPLE: usize = 2;
/// More are not told apart.
const MAX_CHANNELS: u32 = 64;

/// A sound that was cut into frames.
pub(super) struct Sound {
    /// Samples a second.
    pub(super) rate: u32,
    /// Never empty.
    pub(super) channels: Vec<Channel>,
}

/// One of the channels of a sound.
pub(super) struct Channel {
    pub(super) number: u32,
    /// Bytes of its frames, in order, none of them empty.
    frames: Vec<Range<usize>>,
    /// Samples before each frame, and all of them.
    offsets: Vec<usize>,
}

/// Samples that are drawn in one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) min: i16,
    pub(super) max: i16,
    /// Mean uncertainty about their bytes, nats.
    pub(super) entropy: f32,
    /// Patches that start in them.
    pub(super) n_patches: usize,
    /// Frames that start in them.
    pub(super) n_frames: usize,
}

impl Sound {
    /// The sound of the document; `None` if it has none, or a frame that is not what its segment holds.
    pub(super) fn of(document: &Inspected) -> Option<Sound> {
        #[derive(Deserialize)]
        struct Frame {
            #[serde(default)]
            channel: u32,
            rate: u32,
        }

        let mut sound = Sound { rate: 0, channels: Vec::new() };
        for segment in document.segments.iter().filter(|segment| segment.kind == "frame") {
            let Frame { channel: number, rate } = segment.meta()?;
            let bytes = segment.range();
            if rate == 0 || number >= MAX_CHANNELS || !bytes.len().is_multiple_of(BYTES_PER_SAMPLE) {
                return None;
            }
            if sound.rate == 0 {
                sound.rate = rate;
            }
            let channel = match sound.channels.iter_mut().position(|channel| channel.number == number) {
                Some(i) => &mut sound.channels[i],
                None => {
                    let channel = Channel { number, frames: Vec::new(), offsets: vec![0] };
                    sound.channels.push(channel);
                    sound.channels.last_mut()?
                }
            };
            if !bytes.is_empty() {
                channel.offsets.push(channel.n_samples() + bytes.len() / BYTES_PER_SAMPLE);
                channel.frames.push(bytes);
            }
        }
        sound.channels.retain(|channel| !channel.frames.is_empty());
        sound.channels.sort_by_key(|channel| channel.number);
        (!sound.channels.is_empty()).then_some(sound)
    }

    /// How long it is, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        let longest = self.channels.iter().map(Channel::n_samples).max().unwrap_or(0);
        longest as f64 / f64::from(self.rate)
    }

    pub(super) fn n_frames(&self) -> usize {
        self.channels.iter().map(|channel| channel.frames.len()).sum()
    }

    /// What it is, in words.
    pub(super) fn described(&self) -> String {
        let (channels, frames) = (counted(self.channels.len(), "channel"), counted(self.n_frames(), "frame"));
        format!("{:.3} s, {} Hz, {channels}, {frames}", self.seconds(), self.rate)
    }

    /// The sound as a WAV file whose samples take at most so many bytes, and how many of its seconds that are.
    pub(super) fn wav(&self, bytes: &[u8], most: usize) -> (Vec<u8>, f64) {
        let block = self.channels.len() * BYTES_PER_SAMPLE;
        let shortest = self.channels.iter().map(Channel::n_samples).min().unwrap_or(0);
        let n_blocks = shortest.min(most.min(u32::MAX as usize - 36) / block);
        let mut wav = wav_header(self.rate, self.channels.len() as u16, (n_blocks * block) as u32);
        let mut samples: Vec<_> = self.channels.iter().map(|channel| channel.samples(bytes)).collect();
        for _ in 0..n_blocks {
            wav.extend(samples.iter_mut().filter_map(Iterator::next).flat_map(i16::to_le_bytes));
        }
        (wav, n_blocks as f64 / f64::from(self.rate))
    }
}

impl Channel {
    pub(super) fn n_samples(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    fn samples<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = i16> {
        self.frames.iter().flat_map(|frame| {
            bytes[frame.clone()]
                .chunks_exact(BYTES_PER_SAMPLE)
                .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        })
    }

    /// It in `most` columns, or in one a sample if it has fewer.
    pub(super) fn columns(&self, document: &Inspected, most: usize) -> Vec<Column> {
        let n_samples = self.n_samples();
        let n = n_samples.min(most);
        let mut samples = self.samples(&document.bytes);
        let mut columns = Vec::with_capacity(n);
        let mut position = Position::default();
        for i in 0..n {
            let length = (i + 1) * n_samples / n - i * n_samples / n;
            let (mut min, mut max) = (i16::MAX, i16::MIN);
            for sample in samples.by_ref().take(length) {
                (min, max) = (min.min(sample), max.max(sample));
            }
            let entropy = self.take_entropies(document, &mut position, length);
            columns.push(Column { min, max, entropy, n_patches: 0, n_frames: 0 });
        }
        // The column of a sample is the last that starts at or before it.
        let column = |sample: usize| ((sample + 1) * n - 1) / n_samples;
        for sample in &self.offsets[..self.frames.len()] {
            columns[column(*sample)].n_frames += 1;
        }
        for sample in self.patch_starts(document) {
            columns[column(sample)].n_patches += 1;
        }
        columns
    }

    /// Mean over the bytes of the next `n_samples` samples.
    fn take_entropies(&self, document: &Inspected, position: &mut Position, n_samples: usize) -> f32 {
        let (mut sum, mut left) = (0.0, n_samples);
        while left > 0 {
            let frame = &self.frames[position.frame];
            let start = frame.start + position.sample * BYTES_PER_SAMPLE;
            let taken = left.min((frame.end - start) / BYTES_PER_SAMPLE);
            let end = start + taken * BYTES_PER_SAMPLE;
            sum += f64::from(mean(&document.entropies[start..end])) * taken as f64;
            left -= taken;
            position.sample += taken;
            if end == frame.end {
                *position = Position { frame: position.frame + 1, sample: 0 };
            }
        }
        (sum / n_samples as f64) as f32
    }

    /// Samples in which patches start.
    fn patch_starts(&self, document: &Inspected) -> impl Iterator<Item = usize> {
        let mut frame = 0;
        document.patch_starts().filter_map(move |start| {
            while self.frames.get(frame).is_some_and(|bytes| bytes.end <= start) {
                frame += 1;
            }
            let bytes = self.frames.get(frame).filter(|bytes| bytes.contains(&start))?;
            Some(self.offsets[frame] + (start - bytes.start) / BYTES_PER_SAMPLE)
        })
    }
}

/// A sample of a channel, by its frame.
#[derive(Default)]
struct Position {
    frame: usize,
    sample: usize,
}

/// Of a file of 16-bit PCM (RIFF WAVE).
fn wav_header(rate: u32, n_channels: u16, n_bytes: u32) -> Vec<u8> {
    let block = n_channels * BYTES_PER_SAMPLE as u16;
    let mut header = Vec::with_capacity(44 + n_bytes as usize);
    header.extend(b"RIFF");
    header.extend((36 + n_bytes).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16u32.to_le_bytes());
    header.extend(1u16.to_le_bytes());
    header.extend(n_channels.to_le_bytes());
    header.extend(rate.to_le_bytes());
    header.extend(rate.saturating_mul(u32::from(block)).to_le_bytes());
    header.extend(block.to_le_bytes());
    header.extend((8 * BYTES_PER_SAMPLE as u16).to_le_bytes());
    header.extend(b"data");
    header.extend(n_bytes.to_le_bytes());
    header
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::tests::{document, segment},
        *,
    };

    /// Frames of `frame` samples, all channels' first, then all their second, …; every frame is a patch.
    pub(in super::super) fn scored(channels: &[&[i16]], frame: usize, rate: u32) -> Inspected {
        let (mut bytes, mut segments, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..channels[0].len()).step_by(frame) {
            for (number, samples) in channels.iter().enumerate() {
                let samples = &samples[first..samples.len().min(first + frame)];
                let start = bytes.len();
                bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
                let seconds = |n: usize| n as f64 / f64::from(rate);
                let meta = format!(
                    r#"{{"start":{},"length":{},"channel":{number},"rate":{rate}}}"#,
                    seconds(first),
                    seconds(samples.len())
                );
                segments.push(segment("frame", start as u64..bytes.len() as u64, &meta));
                starts.push(start);
            }
        }
        let entropies: Vec<f32> = (0..bytes.len()).map(|i| (i % 4) as f32).collect();
        Inspected { segments, modality: "audio".into(), ..document(&bytes, &starts, &entropies) }
    }

    const LEFT: [i16; 6] = [1, -2, 3, -4, 5, i16::MIN];
    const RIGHT: [i16; 6] = [10, 20, 30, 40, 50, i16::MAX];

    #[test]
    fn channels_are_put_together_from_their_frames() {
        let document = scored(&[&LEFT, &RIGHT], 4, 8000);
        let sound = Sound::of(&document).unwrap();
        assert_eq!(sound.described(), "0.001 s, 8000 Hz, 2 channels, 4 frames");
        let samples = |i: usize| sound.channels[i].samples(&document.bytes).collect::<Vec<_>>();
        assert_eq!(samples(0), LEFT);
        assert_eq!(samples(1), RIGHT);
    }

    #[test]
    fn columns_hold_the_extremes_and_what_starts_in_them() {
        let document = scored(&[&LEFT, &RIGHT], 4, 8000);
        let sound = Sound::of(&document).unwrap();
        let column = |min, max, n| Column { min, max, entropy: 1.5, n_patches: n, n_frames: n };
        assert_eq!(
            sound.channels[0].columns(&document, 3),
            [column(-2, 1, 1), column(-4, 3, 0), column(i16::MIN, 5, 1)]
        );
        let by_sample = sound.channels[1].columns(&document, 100);
        assert_eq!(by_sample.iter().map(|column| column.n_frames).collect::<Vec<_>>(), [1, 0, 0, 0, 1, 0]);
        assert_eq!(
            by_sample.iter().map(|column| column.entropy).collect::<Vec<_>>(),
            [0.5, 2.5, 0.5, 2.5, 0.5, 2.5]
        );
    }

    #[test]
    fn patches_that_start_in_another_channel_are_not_this_ones() {
        let mut document = scored(&[&LEFT, &RIGHT], 6, 8000);
        // BOS, the first channel up to its second sample, and all the rest.
        document.patch_lengths = vec![1, 2, 22, 1];
        assert_eq!(document.check(), Ok(()));
        let sound = Sound::of(&document).unwrap();
        assert_eq!(sound.channels[0].patch_starts(&document).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(sound.channels[1].patch_starts(&document).count(), 0);
    }

    #[test]
    fn a_wav_file_interleaves_the_channels_and_ends_where_it_must() {
        let document = scored(&[&LEFT, &RIGHT], 4, 8000);
        let sound = Sound::of(&document).unwrap();
        let (wav, seconds) = sound.wav(&document.bytes, 1000);
        let fields = |at: usize| u32::from_le_bytes([wav[at], wav[at + 1], wav[at + 2], wav[at + 3]]);
        assert_eq!((&wav[..4], &wav[8..16], &wav[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
        // Size, sample rate, bytes a second, bytes of samples.
        assert_eq!([4, 24, 28, 40].map(fields), [60, 8000, 32000, 24]);
        assert_eq!(wav[44..48], [1, 0, 10, 0]);
        assert_eq!((wav.len(), seconds), (68, 6.0 / 8000.0));
        let (cut, seconds) = sound.wav(&document.bytes, 9);
        assert_eq!((cut.len(), seconds), (52, 2.0 / 8000.0));
    }

    #[test]
    fn frames_that_lie_are_no_sound() {
        for (bytes, lie) in [
            (0..3, r#"{"start":0,"length":1,"channel":0,"rate":8000}"#),
            (0..2, r#"{"start":0,"length":1,"channel":0,"rate":0}"#),
            (0..2, r#"{"start":0,"length":1,"channel":4294967295,"rate":8000}"#),
            (0..2, "[]"),
            (0..0, r#"{"start":0,"length":1,"channel":0,"rate":8000}"#),
        ] {
            let lying = Inspected {
                segments: vec![segment("frame", bytes, lie)],
                ..document(b"abc", &[0], &[1.0; 3])
            };
            assert!(Sound::of(&lying).is_none(), "{lie}");
        }
    }
}
