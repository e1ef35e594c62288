//! Audio: encoded sound to PCM, 16 bits little-endian, in frames of a fixed time, each with a segment a channel. Knows nothing of how sound
//! is encoded.

mod container;
mod decode;
mod resample;
#[cfg(test)]
mod testing;

use super::{Content, Pretokenizer, View, too_long_decoded};
use crate::{config::PretokenizeAudio, data::Segment};
use decode::{Decoder, Spec};
use resample::{Filters, Resampler, resampled_len};

/// Bytes of PCM for a byte of content whose header does not tell how many: AAC or Vorbis at 88 kbit/s, 44.1 kHz, stereo.
const ESTIMATED_RATIO: u64 = 16;
/// And of a stream of PCM or ADPCM, whose samples have 4 bits or more.
const OPEN_ENDED_RATIO: u64 = 4;
/// Bytes set aside for a byte of content, whatever its header tells.
const RESERVED_RATIO: u64 = 64;

/// The modality `audio`.
///
/// A document holds frames of `frame_ms` in order, the last one shorter; frame k holds the samples from ⌊k·frame_ms·rate/1000⌋ on, up to
/// those of frame k + 1. Within a frame stand its channels, one after the other, a segment `frame` each, with `start` and `length` in
/// seconds, `channel` from 0 on, and `rate` in samples a second.
#[derive(Debug)]
pub struct Audio {
    frame_ms: u32,
    mono: bool,
    filters: Option<Filters>,
    sample_rate: Option<u32>,
    max_seconds: u32,
    max_document_bytes: u64,
}

impl Audio {
    /// Sound as the settings say, in documents of at most `max_document_bytes`.
    pub fn new(settings: &PretokenizeAudio, max_document_bytes: u64) -> Self {
        Self {
            frame_ms: settings.frame_ms.max(1),
            mono: settings.mono,
            filters: settings.sample_rate.map(Filters::new),
            sample_rate: settings.sample_rate,
            max_seconds: settings.max_seconds,
            max_document_bytes,
        }
    }

    /// Bytes of a document of `n` decoded samples a channel.
    fn document_bytes(&self, n: u64, spec: Spec) -> u64 {
        let n = self.sample_rate.map_or(n, |rate| resampled_len(n, spec.rate.max(1), rate));
        let n_channels = if self.mono { 1 } else { spec.n_channels as u64 };
        n.saturating_mul(2 * n_channels)
    }

    /// Whether there may be `n` decoded samples a channel.
    fn check(&self, n: u64, spec: Spec) -> Result<(), String> {
        if n > u64::from(self.max_seconds) * u64::from(spec.rate) {
            let seconds = n as f64 / f64::from(spec.rate);
            return Err(format!(
                "{seconds:.1} seconds, more than pretokenize.audio.max_seconds = {}",
                self.max_seconds
            ));
        }
        let n_bytes = self.document_bytes(n, spec);
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        Ok(())
    }

    fn view(&self, bytes: &[u8]) -> Result<View, String> {
        let failed = |error| format!("failed to decode: {error}");
        let mut decoder = Decoder::open(bytes).map_err(failed)?;
        let mut n_reserved = 0;
        if let (Some(n), Some(spec)) = (decoder.n_told(), decoder.spec()) {
            self.check(n, spec)?;
            n_reserved = self.document_bytes(n, spec).min(RESERVED_RATIO * bytes.len() as u64);
        }
        let mut planes = Vec::new();
        let mut shaper: Option<Shaper> = None;
        while let Some(spec) = decoder.next(&mut planes).map_err(failed)? {
            self.check(decoder.n_decoded(), spec)?;
            let shaper = match &mut shaper {
                Some(shaper) => shaper,
                none => none.insert(Shaper::new(self, spec, n_reserved)?),
            };
            shaper.push(&mut planes);
        }
        let frames = shaper.ok_or("failed to decode: no sound")?.finish();
        if frames.bytes.is_empty() {
            return Err("no sound: not one sample once resampled".into());
        }
        Ok(View { modality: "audio", name: None, segments: frames.segments, bytes: frames.bytes })
    }
}

impl Pretokenizer for Audio {
    fn estimate(&self, content: &Content) -> u64 {
        let Ok(decoder) = Decoder::open(&content.bytes) else { return 0 };
        let n_bytes = match (decoder.n_told(), decoder.spec()) {
            (Some(n), Some(spec)) => self.document_bytes(n, spec),
            _ if decoder.is_open_ended() => OPEN_ENDED_RATIO * content.bytes.len() as u64,
            _ => ESTIMATED_RATIO * content.bytes.len() as u64,
        };
        // A longer one is not made.
        n_bytes.min(self.max_document_bytes)
    }

    fn overhead(&self, content: &Content) -> u64 {
        // The samples before they are laid out in frames.
        self.estimate(content)
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        Ok(vec![self.view(&content.bytes)?])
    }
}

/// From decoded samples to frames: mixes and resamples on the way, so that no more is held than the document.
struct Shaper {
    mono: bool,
    resampler: Option<Resampler>,
    resampled: Vec<Vec<i16>>,
    frames: Frames,
}

impl Shaper {
    fn new(audio: &Audio, spec: Spec, n_reserved: u64) -> Result<Self, String> {
        let n_channels = if audio.mono { 1 } else { spec.n_channels };
        let resampler = match &audio.filters {
            Some(filters) => filters.resampler(spec.rate, n_channels)?,
            None => None,
        };
        let rate = audio.sample_rate.unwrap_or(spec.rate);
        let frames = Frames::new(audio.frame_ms, rate, n_channels, n_reserved);
        Ok(Self { mono: audio.mono, resampler, resampled: vec![Vec::new(); n_channels], frames })
    }

    /// Takes the samples out of `planes`.
    fn push(&mut self, planes: &mut Vec<Vec<i16>>) {
        if self.mono {
            mix(planes);
        }
        match &mut self.resampler {
            Some(resampler) => {
                resampler.push(planes, &mut self.resampled);
                self.frames.push(&mut self.resampled);
                planes.iter_mut().for_each(Vec::clear);
            }
            None => self.frames.push(planes),
        }
    }

    fn finish(mut self) -> Frames {
        if let Some(resampler) = &mut self.resampler {
            resampler.finish(&mut self.resampled);
            self.frames.push(&mut self.resampled);
        }
        self.frames.push_rest();
        self.frames
    }
}

/// Leaves one plane: the mean of the channels' 16-bit samples, rounded, halves up.
fn mix(planes: &mut Vec<Vec<i16>>) {
    let n = planes.len() as i32;
    if let [first, others @ ..] = &mut planes[..]
        && !others.is_empty()
    {
        for (i, sample) in first.iter_mut().enumerate() {
            let sum = others.iter().fold(i32::from(*sample), |sum, plane| sum + i32::from(plane[i]));
            *sample = (2 * sum + n).div_euclid(2 * n) as i16;
        }
    }
    planes.truncate(1);
}

/// A document on its way.
struct Frames {
    frame_ms: u32,
    rate: u32,
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    /// Of each channel, the samples of the frame that is not complete.
    waiting: Vec<Vec<i16>>,
    /// Number of that frame.
    frame: u64,
    /// Number of its first sample.
    first: u64,
}

impl Frames {
    fn new(frame_ms: u32, rate: u32, n_channels: usize, n_reserved: u64) -> Self {
        let bytes = Vec::with_capacity(n_reserved as usize);
        let waiting = vec![Vec::new(); n_channels];
        Self { frame_ms, rate, bytes, segments: Vec::new(), waiting, frame: 0, first: 0 }
    }

    /// Takes the samples out of `planes`, one a channel.
    fn push(&mut self, planes: &mut [Vec<i16>]) {
        for (waiting, plane) in self.waiting.iter_mut().zip(planes) {
            waiting.append(plane);
        }
        let n_waiting = self.waiting.first().map_or(0, Vec::len);
        let mut used = 0;
        loop {
            let next = u128::from(self.frame + 1) * u128::from(self.frame_ms) * u128::from(self.rate) / 1000;
            let end = (next - u128::from(self.first)) as usize;
            if end > n_waiting {
                break;
            }
            self.put(used..end);
            (used, self.frame) = (end, self.frame + 1);
        }
        self.waiting.iter_mut().for_each(|waiting| drop(waiting.drain(..used)));
        self.first += used as u64;
    }

    fn push_rest(&mut self) {
        self.put(0..self.waiting.first().map_or(0, Vec::len));
    }

    /// Writes the waiting samples in `range` as a frame.
    fn put(&mut self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        let rate = self.rate;
        let start = (self.first + range.start as u64) as f64 / f64::from(rate);
        let length = range.len() as f64 / f64::from(rate);
        for (channel, plane) in self.waiting.iter().enumerate() {
            let from = self.bytes.len() as u64;
            self.bytes.resize(self.bytes.len() + 2 * range.len(), 0);
            let pairs = self.bytes[from as usize..].chunks_exact_mut(2);
            for (pair, sample) in pairs.zip(&plane[range.clone()]) {
                pair.copy_from_slice(&sample.to_le_bytes());
            }
            let meta =
                format!(r#"{{"start":{start:?},"length":{length:?},"channel":{channel},"rate":{rate}}}"#);
            let bytes = from..self.bytes.len() as u64;
            self.segments.push(Segment { kind: "frame", bytes, meta: Some(meta) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{aiff, flac, mp3, ogg_flac, wav},
        *,
    };

    fn audio(change: impl FnOnce(&mut PretokenizeAudio)) -> Audio {
        let mut settings = PretokenizeAudio::default();
        change(&mut settings);
        Audio::new(&settings, 1 << 20)
    }

    fn view(audio: &Audio, bytes: &[u8]) -> Result<View, String> {
        let content = Content { bytes: bytes.to_vec(), ..Content::default() };
        audio.views(content).map(|mut views| views.remove(0))
    }

    fn samples(view: &View) -> Vec<i16> {
        view.bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    fn assert_tiles(view: &View) {
        let mut end = 0;
        for segment in &view.segments {
            assert!(segment.bytes.start == end && segment.bytes.end > end, "{segment:?}");
            let meta: serde_json::Value = serde_json::from_str(segment.meta.as_ref().unwrap()).unwrap();
            assert!(meta["length"].as_f64().unwrap() > 0.0);
            end = segment.bytes.end;
        }
        assert_eq!(end, view.bytes.len() as u64);
    }

    fn ramp(n: usize) -> Vec<i16> {
        (0..n).map(|i| i as i16).collect()
    }

    #[test]
    fn a_frame_holds_its_channels_one_after_the_other() {
        let left = ramp(250);
        let right: Vec<i16> = left.iter().map(|s| -s).collect();
        let view = view(&audio(|_| {}), &wav(8000, &[left.clone(), right.clone()])).unwrap();
        assert_tiles(&view);
        assert_eq!(samples(&view), [&left[..160], &right[..160], &left[160..], &right[160..]].concat());
        let metas: Vec<&str> = view.segments.iter().map(|s| s.meta.as_deref().unwrap()).collect();
        assert_eq!(
            metas,
            [
                r#"{"start":0.0,"length":0.02,"channel":0,"rate":8000}"#,
                r#"{"start":0.0,"length":0.02,"channel":1,"rate":8000}"#,
                r#"{"start":0.02,"length":0.01125,"channel":0,"rate":8000}"#,
                r#"{"start":0.02,"length":0.01125,"channel":1,"rate":8000}"#,
            ]
        );
    }

    #[test]
    fn frames_of_a_broken_length_do_not_drift() {
        // 11025 samples a second are 220.5 in 20 ms.
        let view = view(&audio(|_| {}), &wav(11_025, &[ramp(11_025)])).unwrap();
        assert_tiles(&view);
        let ends: Vec<u64> = view.segments.iter().map(|s| s.bytes.end / 2).collect();
        assert_eq!(ends[..4], [220, 441, 661, 882]);
        assert_eq!((ends.len(), ends[49]), (50, 11_025));
    }

    #[test]
    fn a_frame_shorter_than_a_sample_is_left_out() {
        let view = view(&audio(|a| a.frame_ms = 1), &wav(400, &[ramp(5)])).unwrap();
        assert_tiles(&view);
        assert_eq!(view.segments.len(), 5);
        assert_eq!(
            view.segments[4].meta.as_deref(),
            Some(r#"{"start":0.01,"length":0.0025,"channel":0,"rate":400}"#)
        );
    }

    #[test]
    fn mono_is_the_mean_rounded_halves_up() {
        let planes = [vec![1, -1, i16::MAX, i16::MIN, 0, -3], vec![2, -2, i16::MAX, i16::MIN, -1, 0]];
        let view = view(&audio(|a| a.mono = true), &wav(8000, &planes)).unwrap();
        assert_eq!(samples(&view), [2, -1, i16::MAX, i16::MIN, 0, -1]);
    }

    #[test]
    fn a_new_rate_gives_as_many_samples_as_its_ratio() {
        let audio = audio(|a| a.sample_rate = Some(16_000));
        let bytes = wav(44_100, &[vec![1000; 44_101], vec![-1000; 44_101]]);
        let view = view(&audio, &bytes).unwrap();
        assert_tiles(&view);
        assert_eq!(view.bytes.len(), 16_000 * 2 * 2);
        assert_eq!(audio.estimate(&Content { bytes, ..Content::default() }), view.bytes.len() as u64);
        let middle = samples(&view)[16_000..16_320].to_vec();
        assert_eq!(middle, vec![1000; 320]);
    }

    #[test]
    fn headers_tell_the_estimate() {
        let audio = audio(|_| {});
        let planes = [ramp(5000), ramp(5000)];
        for (bytes, expected) in [
            (wav(8000, &planes), 20_000),
            (aiff(8000, &planes), 20_000),
            (flac(8000, &planes), 20_000),
            (ogg_flac(8000, &planes), 20_000),
            (mp3(3), 3 * 1152 * 2),
            (b"no sound".to_vec(), 0),
        ] {
            assert_eq!(audio.estimate(&Content { bytes, ..Content::default() }), expected);
        }
    }

    #[test]
    fn what_would_be_too_long_is_not_decoded() {
        let bytes = wav(8000, &[ramp(8001)]);
        let error = view(&audio(|a| a.max_seconds = 1), &bytes).unwrap_err();
        assert_eq!(error, "1.0 seconds, more than pretokenize.audio.max_seconds = 1");
        assert!(view(&audio(|a| a.max_seconds = 2), &bytes).is_ok());
        let small = |sample_rate| PretokenizeAudio { sample_rate, ..PretokenizeAudio::default() };
        let error = view(&Audio::new(&small(None), 16_000), &bytes).unwrap_err();
        assert_eq!(error, "16002 bytes once decoded, more than limits.max_document_bytes = 16000");
        assert!(view(&Audio::new(&small(None), 16_002), &bytes).is_ok());
        assert!(view(&Audio::new(&small(Some(4000)), 8002), &bytes).is_ok());
    }

    #[test]
    fn what_does_not_tell_its_length_is_stopped_on_the_way() {
        let mut streamed = wav(8000, &[ramp(20_000)]);
        streamed[4..8].fill(255);
        streamed[40..44].fill(255);
        assert_eq!(view(&audio(|_| {}), &streamed).unwrap().bytes.len(), 40_000);
        let error = view(&audio(|a| a.max_seconds = 1), &streamed).unwrap_err();
        assert!(error.ends_with("more than pretokenize.audio.max_seconds = 1"), "{error}");
    }

    #[test]
    fn no_bytes_no_samples_and_no_sound_are_errors_with_words() {
        let error = |bytes: &[u8]| view(&audio(|_| {}), bytes).unwrap_err();
        assert_eq!(error(b""), "failed to decode: no bytes");
        assert_eq!(error(b"\0"), "failed to decode: no format of sound that is known");
        assert_eq!(error(&wav(8000, &[vec![]])), "failed to decode: no sound: not one sample");
        let down = audio(|a| a.sample_rate = Some(8000));
        let error = view(&down, &wav(48_000, &[vec![1]])).unwrap_err();
        assert_eq!(error, "no sound: not one sample once resampled");
    }

    #[test]
    fn no_cut_of_a_sound_is_taken_for_a_whole_one() {
        let planes = [ramp(5000)];
        for whole in [wav(8000, &planes), aiff(8000, &planes), flac(8000, &planes), ogg_flac(8000, &planes)] {
            let ends = (0..whole.len()).step_by(97).chain(whole.len() - 8..whole.len());
            for end in ends {
                assert!(view(&audio(|_| {}), &whole[..end]).is_err(), "{end} of {}", whole.len());
            }
        }
    }

    #[test]
    fn damage_gives_an_error_or_a_document_that_tiles() {
        let planes = [ramp(5000), ramp(5000)];
        let wholes =
            [wav(8000, &planes), aiff(8000, &planes), flac(8000, &planes), ogg_flac(8000, &planes), mp3(12)];
        let audio = audio(|a| (a.mono, a.sample_rate) = (true, Some(11_025)));
        let mut seed = 7u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for n in 0..600 {
            let mut bytes = wholes[n % wholes.len()].clone();
            for _ in 0..1 + random(4) {
                // Headers are short, so that they would rarely be met.
                let below = if random(2) == 0 { 64 } else { bytes.len() };
                let at = random(below.min(bytes.len()));
                bytes[at] = random(256) as u8;
            }
            if random(4) == 0 {
                bytes.truncate(random(bytes.len()));
            }
            audio.estimate(&Content { bytes: bytes.clone(), ..Content::default() });
            if let Ok(view) = view(&audio, &bytes) {
                assert_tiles(&view);
            }
        }
    }
}
