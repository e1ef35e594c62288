//! Video: a film to the pictures that it shows at even times, cut into patches, and its sound between them, in one document. Knows
//! nothing of how films are encoded; `decode` asks ffmpeg's libraries.
//!
//! Time zero is where the track of pictures begins. Picture k is what is shown at k/fps seconds: the last one that began by then, or
//! within half a millisecond, to which some containers round. It is
//! made smaller to `size` and cut as an image is, by the settings of images; `meta` of its patches tells `frame`, which is k, and `t`,
//! its seconds, besides. Sound is cut into frames by the settings of audio, and each frame stands before the first picture that
//! is shown later than it starts: the model sees what is to be seen, then hears what goes with it. Sound that starts before
//! time zero has a negative `start`.

mod colour;
mod decode;
#[cfg(test)]
mod tests;
mod whole;

use self::decode::{Film, Told};
use super::{
    Content, Needs, Pretokenizer, View,
    audio::{Audio, Shaper},
    image::Image,
    too_long_decoded,
};
use crate::{
    config::{PretokenizeAudio, PretokenizeImage, PretokenizeVideo},
    data::Segment,
};

/// Bytes set aside for a byte of content whose header does not tell how long it is.
const ESTIMATED_RATIO: u64 = 16;
/// A dozen pictures that a decoder may hold, in samples of 16 bits with colour at half the resolution, and one that is converted.
const HELD_BYTES_A_PIXEL: u64 = 12 * 3 + 12;
/// Seconds by which sound may be elsewhere than where the sound before it ends: times in a container are rounded.
const MOST_SKEW: f64 = 0.1;

/// The modality `video`.
#[derive(Debug)]
pub struct Video {
    settings: PretokenizeVideo,
    image: Image,
    audio: Audio,
    max_document_bytes: u64,
}

impl Video {
    /// Films as `settings` say, in documents of at most `max_document_bytes`; pictures and sound of them as `image` and `audio` say.
    pub fn new(
        settings: &PretokenizeVideo,
        image: &PretokenizeImage,
        audio: &PretokenizeAudio,
        max_document_bytes: u64,
    ) -> Self {
        decode::silence();
        let max_side = Some(image.max_side.map_or(settings.size, |side| side.min(settings.size)));
        let image = PretokenizeImage { max_side, max_pixels: settings.max_pixels, ..image.clone() };
        Self {
            settings: settings.clone(),
            image: Image::new(&image, max_document_bytes),
            audio: Audio::new(audio, max_document_bytes),
            max_document_bytes,
        }
    }

    /// Bytes of a document of what the header tells, unless it does not tell how long the film is.
    fn n_bytes(&self, told: &Told) -> Option<u64> {
        let seconds = told.seconds?;
        let n_pictures = (seconds * self.settings.fps).ceil() as u64;
        let picture = self.image.fitted_bytes(told.size);
        let sound = told.sound.map_or(0, |(rate, n_channels)| {
            self.audio.bytes_of((seconds * f64::from(rate)) as u64, rate, n_channels)
        });
        Some(n_pictures.saturating_mul(picture).saturating_add(sound))
    }

    /// What the header alone forbids.
    fn check(&self, told: &Told) -> Result<(), String> {
        self.check_seconds(told.seconds.unwrap_or(0.0))?;
        self.check_bytes(self.n_bytes(told).unwrap_or(0))
    }

    fn check_seconds(&self, seconds: f64) -> Result<(), String> {
        let most = self.settings.max_seconds;
        if seconds > f64::from(most) {
            return Err(format!("{seconds:.1} seconds, more than pretokenize.video.max_seconds = {most}"));
        }
        Ok(())
    }

    fn check_bytes(&self, n_bytes: u64) -> Result<(), String> {
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        Ok(())
    }

    fn told(&self, content: &Content) -> Result<Told, String> {
        let told = Film::open(content.bytes.clone(), &self.settings)?.told();
        self.check(&told)?;
        Ok(told)
    }

    /// Bytes that the document of `content` is thought to have.
    fn expected(&self, told: &Told, content: &Content) -> u64 {
        let guess = || ESTIMATED_RATIO * content.bytes.len() as u64;
        self.n_bytes(told).unwrap_or_else(guess).min(self.max_document_bytes)
    }

    fn view(&self, bytes: Vec<u8>) -> Result<View, String> {
        let mut film = Film::open(bytes, &self.settings)?;
        self.check(&film.told())?;
        let mut document = Document::new(self);
        film.decode(&mut document)?;
        document.finish()
    }
}

impl Pretokenizer for Video {
    fn needs(&self, content: &Content) -> Needs {
        let Ok(told) = self.told(content) else { return Needs::default() };
        let n_pixels = u64::from(told.size.0) * u64::from(told.size.1);
        let views = self.expected(&told, content);
        // Parts of the document before they are put in order, and what the container's reader keeps of the content.
        let beside = views + content.bytes.len() as u64 + HELD_BYTES_A_PIXEL * n_pixels;
        Needs { views, beside }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        Ok(vec![self.view(content.bytes)?])
    }
}

/// Whether a picture of that size may be.
fn check_size((width, height): (u32, u32), max_pixels: u64) -> Result<(), String> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!(
            "{width} x {height} pixels, more than pretokenize.video.max_pixels = {max_pixels}"
        ));
    }
    Ok(())
}

/// A piece of the document.
struct Part {
    seconds: f64,
    segments: Vec<Segment>,
    bytes: Vec<u8>,
}

/// A document on its way: takes what is decoded.
struct Document<'a> {
    video: &'a Video,
    pictures: Vec<Part>,
    sound: Vec<Part>,
    run: Option<Run>,
    n_bytes: u64,
}

/// Sound without a gap.
struct Run {
    shaper: Shaper,
    rate: u32,
    n_channels: usize,
    zero: f64,
    n_samples: u64,
}

impl Document<'_> {
    fn new(video: &Video) -> Document<'_> {
        Document { video, pictures: Vec::new(), sound: Vec::new(), run: None, n_bytes: 0 }
    }

    fn add_bytes(&mut self, n: u64) -> Result<(), String> {
        self.n_bytes += n;
        self.video.check_bytes(self.n_bytes)
    }
}

impl decode::Takes for Document<'_> {
    fn check_picture(&self, size: (u32, u32), seconds: f64) -> Result<(), String> {
        check_size(size, self.video.settings.max_pixels)?;
        self.video.check_seconds(seconds)
    }

    fn picture(
        &mut self,
        frame: u64,
        seconds: f64,
        (width, height): (u32, u32),
        rgb: Vec<u8>,
    ) -> Result<(), String> {
        let (mut segments, bytes) = self.video.image.of_pixels(width, height, rgb)?;
        self.add_bytes(bytes.len() as u64)?;
        let tail = format!(r#","frame":{frame},"t":{seconds:?}}}"#);
        for meta in segments.iter_mut().filter_map(|segment| segment.meta.as_mut()) {
            // Before the brace that closes it.
            meta.pop();
            meta.push_str(&tail);
        }
        self.pictures.push(Part { seconds, segments, bytes });
        Ok(())
    }

    fn sound(&mut self, seconds: Option<f64>, rate: u32, planes: &mut Vec<Vec<i16>>) -> Result<(), String> {
        let n_channels = planes.len();
        let n = planes.first().map_or(0, Vec::len) as u64;
        if let Some(run) = &self.run {
            if (run.rate, run.n_channels) != (rate, n_channels) {
                return Err("rate or channels of the sound change on the way".into());
            }
            let end = run.zero + run.n_samples as f64 / f64::from(rate);
            if seconds.is_some_and(|seconds| (seconds - end).abs() > MOST_SKEW) {
                self.end_run();
            }
        }
        let run = match &mut self.run {
            Some(run) => run,
            none => {
                let zero = seconds.ok_or("the sound does not tell when it begins")?;
                let shaper = self.video.audio.shaper(rate, n_channels)?;
                none.insert(Run { shaper, rate, n_channels, zero, n_samples: 0 })
            }
        };
        let before = run.shaper.n_bytes();
        run.shaper.push(planes);
        run.n_samples += n;
        let end = run.zero + run.n_samples as f64 / f64::from(rate);
        let n_bytes = run.shaper.n_bytes() - before;
        self.video.check_seconds(end)?;
        self.add_bytes(n_bytes)
    }
}

impl Document<'_> {
    /// Takes the frames of the run that ends here.
    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let before = run.shaper.n_bytes();
        for (seconds, segments, bytes) in run.shaper.into_frames(run.zero) {
            self.n_bytes += bytes.len() as u64;
            self.sound.push(Part { seconds, segments, bytes });
        }
        self.n_bytes -= before;
    }

    /// The document: each frame of sound stands before the first picture that is shown later than it starts.
    fn finish(mut self) -> Result<View, String> {
        self.end_run();
        self.video.check_bytes(self.n_bytes)?;
        if self.pictures.is_empty() {
            return Err("failed to decode: no picture".into());
        }
        let mut view = View {
            modality: "video",
            name: None,
            segments: Vec::new(),
            bytes: Vec::with_capacity(self.n_bytes as usize),
        };
        let mut sound = self.sound.into_iter().peekable();
        for picture in self.pictures {
            while let Some(part) = sound.next_if(|part| part.seconds < picture.seconds) {
                append(&mut view, part);
            }
            append(&mut view, picture);
        }
        sound.for_each(|part| append(&mut view, part));
        Ok(view)
    }
}

fn append(view: &mut View, part: Part) {
    let start = view.bytes.len() as u64;
    view.bytes.extend(part.bytes);
    view.segments.extend(
        part.segments.into_iter().map(|segment| Segment {
            bytes: segment.bytes.start + start..segment.bytes.end + start,
            ..segment
        }),
    );
}
