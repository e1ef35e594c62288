//! Audio: encoded sound to PCM, 16 bits little-endian, in frames of a fixed time, each with a segment a channel. Knows nothing of how sound
//! is encoded.

mod codebooks;
mod container;
mod decode;
mod pcm;
mod resample;
#[cfg(test)]
mod testing;

use std::ops::Range;

use super::{Content, Needs, Pretokenizer, View, too_long_decoded};
use crate::{config::PretokenizeAudio, data::Segment};
use decode::{Decoder, Opened, Spec};
use pcm::Pcm;
use resample::{Filters, Resampler, resampled_len};

/// Bytes of PCM for a byte of content whose header does not tell how many: AAC or Vorbis at 88 kbit/s, 44.1 kHz, stereo.
const ESTIMATED_RATIO: u64 = 16;
/// And of a stream of PCM or ADPCM, whose samples have 4 bits or more.
const OPEN_ENDED_RATIO: u64 = 4;
/// And the most that a header is believed: FLAC takes 14 bytes for 4096 samples of silence.
const MOST_RATIO: u64 = 1024;
/// Bytes set aside for a byte of content, whatever its header tells.
const RESERVED_RATIO: u64 = 64;
/// Samples a channel that are mixed or resampled at a time.
const BLOCK_SAMPLES: usize = 1152;

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

    /// Bytes to set aside for a document of `n` decoded samples a channel, from `n_bytes` of content.
    fn reserved_bytes(&self, n: u64, spec: Spec, n_bytes: usize) -> usize {
        self.document_bytes(n, spec).min(RESERVED_RATIO * n_bytes as u64) as usize
    }

    fn view(&self, content: Vec<u8>) -> Result<View, String> {
        let pcm = match Opened::new(&content).map_err(failed)? {
            Opened::Samples(pcm) => pcm,
            Opened::Packets(decoder) => return self.view_of_packets(*decoder, content.len()),
        };
        self.view_of_samples(&pcm, content)
    }

    fn view_of_packets(&self, mut decoder: Decoder<'_>, n_bytes: usize) -> Result<View, String> {
        let mut n_reserved = 0;
        if let (Some(n), Some(spec)) = (decoder.n_told(), decoder.spec()) {
            self.check(n, spec)?;
            n_reserved = self.reserved_bytes(n, spec, n_bytes);
        }
        self.shape(n_reserved, |planes| {
            let spec = decoder.next(planes).map_err(failed)?;
            spec.map_or(Ok(()), |spec| self.check(decoder.n_decoded(), spec))?;
            Ok(spec)
        })
    }

    fn view_of_samples(&self, pcm: &Pcm, mut content: Vec<u8>) -> Result<View, String> {
        let (spec, n) = (pcm.spec, pcm.n_samples());
        self.check(n as u64, spec)?;
        if self.mono && spec.n_channels > 1 || self.sample_rate.is_some_and(|rate| rate != spec.rate) {
            return self.shape_samples(pcm, &content);
        }
        let mut segments = Segments::new(self.frame_ms, spec.rate, spec.n_channels);
        if pcm.is_answer() {
            while segments.put_next(n).is_some() {}
            return Ok(view_of(pcm.cut_out(content), segments));
        }
        let place =
            |samples: &Range<usize>| 2 * spec.n_channels * samples.start..2 * spec.n_channels * samples.end;
        if pcm.form.n_bytes() < 2 {
            let mut bytes = vec![0; place(&(0..n)).end];
            while let Some(samples) = segments.put_next(n) {
                pcm.read_frame(&content[pcm.place(&samples)], &mut bytes[place(&samples)]).map_err(failed)?;
            }
            return Ok(view_of(bytes, segments));
        }
        // Others do not grow: what is written stays behind what is still to be read, so that no memory is needed but the content's own.
        let mut frame = Vec::new();
        while let Some(samples) = segments.put_next(n) {
            frame.clear();
            frame.extend_from_slice(&content[pcm.place(&samples)]);
            pcm.read_frame(&frame, &mut content[place(&samples)]).map_err(failed)?;
        }
        content.truncate(place(&(0..n)).end);
        content.shrink_to_fit();
        Ok(view_of(content, segments))
    }

    /// As [`Self::view_of_samples`], where samples are mixed or resampled.
    fn shape_samples(&self, pcm: &Pcm, content: &[u8]) -> Result<View, String> {
        let (spec, n) = (pcm.spec, pcm.n_samples());
        let mut read = [0; 2 * BLOCK_SAMPLES];
        let mut from = 0;
        self.shape(self.reserved_bytes(n as u64, spec, content.len()), |planes| {
            let samples = from..n.min(from + BLOCK_SAMPLES);
            planes.resize_with(spec.n_channels, Vec::new);
            for (channel, plane) in planes.iter_mut().enumerate() {
                let out = &mut read[..2 * samples.len()];
                pcm.read(&content[pcm.place(&samples)], channel, out).map_err(failed)?;
                plane.extend(out.as_chunks::<2>().0.iter().map(|&pair| i16::from_le_bytes(pair)));
            }
            from = samples.end;
            Ok((!samples.is_empty()).then_some(spec))
        })
    }

    /// Frames of the samples that `next` adds to the planes, one a channel, until it has none.
    fn shape(
        &self,
        n_reserved: usize,
        mut next: impl FnMut(&mut Vec<Vec<i16>>) -> Result<Option<Spec>, String>,
    ) -> Result<View, String> {
        let mut planes = Vec::new();
        let mut shaper: Option<Shaper> = None;
        while let Some(spec) = next(&mut planes)? {
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
        Ok(view_of(frames.bytes, frames.segments))
    }
}

fn failed(error: String) -> String {
    format!("failed to decode: {error}")
}

fn view_of(bytes: Vec<u8>, segments: Segments) -> View {
    View { modality: "audio", name: None, segments: segments.done, bytes }
}

impl Pretokenizer for Audio {
    fn needs(&self, content: &Content) -> Needs {
        let Ok(decoder) = Decoder::open(&content.bytes) else { return Needs::default() };
        let n_encoded = content.bytes.len() as u64;
        let ratio = if decoder.is_open_ended() { OPEN_ENDED_RATIO } else { ESTIMATED_RATIO };
        let n_bytes = match (decoder.n_told(), decoder.spec()) {
            // What is too long is not made.
            (Some(n), Some(spec)) if self.check(n, spec).is_err() => 0,
            (Some(n), Some(spec)) => self.document_bytes(n, spec),
            (None, Some(spec)) => match self.sample_rate {
                Some(rate) => resampled_len(ratio * n_encoded, spec.rate.max(1), rate),
                None => ratio * n_encoded,
            },
            (_, None) => ratio * n_encoded,
        };
        let views = n_bytes.min(MOST_RATIO * n_encoded).min(self.max_document_bytes);
        // The samples before they are laid out in frames.
        Needs { views, beside: views }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        Ok(vec![self.view(content.bytes)?])
    }
}

/// From decoded samples to frames: mixes and resamples on the way, so that no more is held than the document.
pub(super) struct Shaper {
    mono: bool,
    resampler: Option<Resampler>,
    resampled: Vec<Vec<i16>>,
    frames: Frames,
}

impl Shaper {
    fn new(audio: &Audio, spec: Spec, n_reserved: usize) -> Result<Self, String> {
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
    pub(super) fn push(&mut self, planes: &mut Vec<Vec<i16>>) {
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

#[cfg(feature = "video")]
impl Audio {
    /// Makes frames of sound that another modality decodes: `n_channels` channels of `rate` samples a second.
    ///
    /// # Errors
    /// A rate that cannot be brought to that of the settings.
    pub(super) fn shaper(&self, rate: u32, n_channels: usize) -> Result<Shaper, String> {
        Shaper::new(self, Spec { rate, n_channels }, 0)
    }

    /// Bytes of a document of `n` samples of each of `n_channels` channels at `rate`.
    pub(super) fn bytes_of(&self, n: u64, rate: u32, n_channels: usize) -> u64 {
        self.document_bytes(n, Spec { rate, n_channels })
    }
}

#[cfg(feature = "video")]
impl Shaper {
    /// Bytes of the frames that are complete.
    pub(super) fn n_bytes(&self) -> u64 {
        self.frames.bytes.len() as u64
    }

    /// Start of each frame in seconds, its segments, one a channel, and its bytes, if the first sample is heard at `zero` seconds.
    pub(super) fn into_frames(self, zero: f64) -> impl Iterator<Item = (f64, Vec<Segment>, Vec<u8>)> {
        let n_channels = self.resampled.len();
        let Frames { bytes, segments, .. } = self.finish();
        let rate = segments.rate;
        let mut segments = segments.done.into_iter();
        std::iter::from_fn(move || {
            let mut frame: Vec<Segment> = segments.by_ref().take(n_channels).collect();
            let (first, end) = (frame.first()?.bytes.start, frame.last()?.bytes.end);
            let start = zero + (first / (2 * n_channels as u64)) as f64 / f64::from(rate);
            for Segment { bytes, meta, .. } in &mut frame {
                *bytes = bytes.start - first..bytes.end - first;
                // All but the first of its numbers stays.
                let rest = meta.as_deref().and_then(|meta| meta.split_once(',')).map(|(_, rest)| rest);
                *meta = rest.map(|rest| format!(r#"{{"start":{start:?},{rest}"#));
            }
            Some((start, frame, bytes[first as usize..end as usize].to_vec()))
        })
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
    bytes: Vec<u8>,
    segments: Segments,
    /// Of each channel, the samples of the frame that is not complete.
    waiting: Vec<Vec<i16>>,
}

impl Frames {
    fn new(frame_ms: u32, rate: u32, n_channels: usize, n_reserved: usize) -> Self {
        let segments = Segments::new(frame_ms, rate, n_channels);
        Self { bytes: Vec::with_capacity(n_reserved), segments, waiting: vec![Vec::new(); n_channels] }
    }

    /// Takes the samples out of `planes`, one a channel.
    fn push(&mut self, planes: &mut [Vec<i16>]) {
        for (waiting, plane) in self.waiting.iter_mut().zip(planes) {
            waiting.append(plane);
        }
        let n_waiting = self.waiting.first().map_or(0, Vec::len);
        let mut used = 0;
        while self.segments.frame_samples() <= n_waiting - used {
            let end = used + self.segments.frame_samples();
            self.put(used..end);
            used = end;
        }
        self.waiting.iter_mut().for_each(|waiting| drop(waiting.drain(..used)));
    }

    fn push_rest(&mut self) {
        self.put(0..self.waiting.first().map_or(0, Vec::len));
    }

    /// Writes the waiting samples in `range` as a frame.
    fn put(&mut self, range: Range<usize>) {
        for plane in &self.waiting {
            let from = self.bytes.len();
            self.bytes.resize(from + 2 * range.len(), 0);
            let pairs = self.bytes[from..].chunks_exact_mut(2);
            for (pair, sample) in pairs.zip(&plane[range.clone()]) {
                pair.copy_from_slice(&sample.to_le_bytes());
            }
        }
        self.segments.put(range.len());
    }
}

/// The segments of frames that come in order.
struct Segments {
    frame_ms: u32,
    rate: u32,
    done: Vec<Segment>,
    /// How many frames they are.
    n_frames: u64,
    /// Samples a channel of these.
    n_samples: usize,
    /// Samples of the last frame, and their time in words: most are as long as that before.
    length: (usize, String),
    /// What the meta of each channel ends with.
    ends: Vec<String>,
}

impl Segments {
    fn new(frame_ms: u32, rate: u32, n_channels: usize) -> Self {
        let end = |channel| format!(r#","channel":{channel},"rate":{rate}}}"#);
        let ends = (0..n_channels).map(end).collect();
        let length = (0, String::new());
        Self { frame_ms, rate, done: Vec::new(), n_frames: 0, n_samples: 0, length, ends }
    }

    /// Samples a channel of the next frame, if it is not the last.
    fn frame_samples(&self) -> usize {
        // 64 bits hold what can lie in memory a thousand times.
        let end = (self.n_frames + 1) * u64::from(self.frame_ms) * u64::from(self.rate) / 1000;
        end as usize - self.n_samples
    }

    /// Adds a frame of `n` samples a channel.
    fn put(&mut self, n: usize) {
        if n > 0 {
            let start = seconds(self.n_samples, self.rate);
            if self.length.0 != n {
                self.length = (n, seconds(n, self.rate));
            }
            let mut from = 2 * (self.n_samples * self.ends.len()) as u64;
            for end in &self.ends {
                let meta =
                    [r#"{"start":"#, start.as_str(), r#","length":"#, self.length.1.as_str(), end.as_str()]
                        .concat();
                let bytes = from..from + 2 * n as u64;
                from = bytes.end;
                self.done.push(Segment { kind: "frame", bytes, meta: Some(meta) });
            }
        }
        self.n_samples += n;
        self.n_frames += 1;
    }

    /// Adds the next frame that holds any of the `n` samples that there are a channel: which of these.
    fn put_next(&mut self, n: usize) -> Option<Range<usize>> {
        let from = self.n_samples;
        while self.n_samples == from && from < n {
            self.put(self.frame_samples().min(n - from));
        }
        (self.n_samples > from).then_some(from..self.n_samples)
    }
}

/// The time of `n` samples, as `{:?}` writes the float. Whole milliseconds, which most frames begin at, have so few digits that they are
/// themselves the shortest number that reads as that float, and take a fifth of the time.
fn seconds(n: usize, rate: u32) -> String {
    let (n, rate) = (n as u64, u64::from(rate));
    let ms = 1000 * n / rate;
    if ms * rate != 1000 * n || ms >= 1_000_000_000_000_000 {
        return format!("{:?}", n as f64 / rate as f64);
    }
    let mut text = (ms / 1000).to_string();
    text.push('.');
    let mut rest = ms % 1000;
    loop {
        text.push(char::from(b'0' + (rest / 100) as u8));
        rest = rest % 100 * 10;
        if rest == 0 {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{aiff, every_pcm, flac, mp3, ogg_flac, wav},
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

    fn random() -> impl FnMut(usize) -> usize {
        let mut seed = 7u64;
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        }
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
        assert_eq!(audio.needs(&Content { bytes, ..Content::default() }).views, view.bytes.len() as u64);
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
            assert_eq!(audio.needs(&Content { bytes, ..Content::default() }).views, expected);
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

    /// What packets and their decoder make of content, even where its samples lie there as they are.
    fn decoded(audio: &Audio, bytes: &[u8]) -> Result<View, String> {
        Decoder::open(bytes).map_err(failed).and_then(|decoder| audio.view_of_packets(decoder, bytes.len()))
    }

    #[test]
    fn samples_that_lie_as_they_are_give_what_their_decoder_gives() {
        let settings = [
            audio(|_| {}),
            audio(|a| a.frame_ms = 7),
            audio(|a| a.mono = true),
            audio(|a| a.sample_rate = Some(16_000)),
            audio(|a| (a.mono, a.sample_rate) = (true, Some(8000))),
            audio(|a| (a.frame_ms, a.sample_rate) = (1, Some(11_025))),
            Audio::new(&PretokenizeAudio::default(), 1000),
        ];
        for n_channels in [1, 2, 3, 8] {
            for (name, bytes) in every_pcm(11_025, n_channels, 2500) {
                let opened = Opened::new(&bytes);
                assert!(matches!(opened, Ok(Opened::Samples(_))), "{name}, {:?}", opened.err());
                for audio in &settings {
                    let (ours, theirs) = (view(audio, &bytes), decoded(audio, &bytes));
                    // Where no header tells the length, they say how much was too long already.
                    let are_alike = ours == theirs
                        || name.ends_with("without an end") && ours.is_err() && theirs.is_err();
                    assert!(are_alike, "{name}, {n_channels} channels, {audio:?}");
                    assert_eq!(ours.is_ok(), audio.max_document_bytes > 1000, "{name}: {:?}", ours.err());
                }
            }
        }
    }

    #[test]
    fn damaged_samples_and_their_headers_fare_as_with_their_decoder() {
        let audio = audio(|_| {});
        let wholes = [every_pcm(8000, 1, 40), every_pcm(8000, 2, 40)].concat();
        let mut random = random();
        for (name, whole) in &wholes {
            for end in (0..whole.len()).step_by(13) {
                assert_eq!(
                    view(&audio, &whole[..end]),
                    decoded(&audio, &whole[..end]),
                    "{end} bytes of {name}"
                );
            }
            for _ in 0..200 {
                let mut bytes = whole.clone();
                for _ in 0..1 + random(3) {
                    let below = if random(3) == 0 { bytes.len() } else { bytes.len().min(110) };
                    bytes[random(below)] = [0, 1, 2, 255, random(256) as u8][random(5)];
                }
                assert_eq!(view(&audio, &bytes), decoded(&audio, &bytes), "{name}: {bytes:?}");
            }
        }
    }

    #[test]
    fn a_byte_that_makes_a_file_even_is_no_sound() {
        let files = every_pcm(8000, 1, 41);
        for name in ["AIFF, 24 bits", "CAF, 0, 24 bits"] {
            let (_, whole) = files.iter().find(|file| file.0 == name).unwrap();
            assert_eq!(whole.len() % 2, 1);
            let mut even = [&whole[..], &[0]].concat();
            if let Some(chunk) = whole.windows(4).position(|four| four == b"SSND") {
                // As libsndfile writes it.
                even[chunk + 7] += 1;
                even[7] += 1;
            }
            let audio = audio(|_| {});
            assert_eq!(view(&audio, &even), view(&audio, whole));
            assert_eq!(view(&audio, &even).unwrap().bytes.len(), 2 * 41);
        }
    }

    #[test]
    fn seconds_read_as_floats_do() {
        for rate in [1, 7, 8000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000, 4_294_967_295] {
            for n in (0..3000).chain((1..40).map(|i| (1 << i) + 17)).chain((1..2000).map(|i| i * 882)) {
                assert_eq!(seconds(n, rate), format!("{:?}", n as f64 / f64::from(rate)), "{n} at {rate}");
            }
        }
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
        let mut random = random();
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
            audio.needs(&Content { bytes: bytes.clone(), ..Content::default() });
            if let Ok(view) = view(&audio, &bytes) {
                assert_tiles(&view);
            }
        }
    }
}
