//! Encoded films, by ffmpeg's libraries, to the pictures shown at even times and to samples of sound. Damage is an error, and so is an
//! end before the one that the container tells. Knows nothing of documents.
//!
//! **What ffmpeg may do.** It reads the content from memory, through callbacks, and is given no name. Only the containers and codecs
//! listed here are opened, so that no playlist is; and no protocol, so that a film that refers to another file or address does not get it.
//! Its log is off. Codecs decode on the thread that calls them, by the algorithms that are the same on every processor where they
//! have a choice, and of two decoders that are known the one that counts in integers is taken; what Opus and Vorbis give may still differ
//! in its last bit from one kind of processor or version of the libraries to another.
//!
//! **What is not seen.** A codec that has no sums decodes what some changed bits say. In a transport or program stream, an FLV file
//! or a Matroska file that was written as a stream, a cut between two pictures leaves no trace. Pictures before the first that
//! can be decoded alone are left out, as a player does. And to find out what a stream is, ffmpeg decodes a few of its pictures
//! before their size is known here, so that `max_pixels` does not bound these. A defect of its C code ends the process: nothing here can catch
//! that.

use std::{io::Cursor, sync::Once};

use ffmpeg_next::{
    self as ffmpeg, Codec, Dictionary, Error, Packet, Rational, Stream,
    codec::{self, Id, decoder},
    error::EAGAIN,
    format::{
        self, Sample,
        context::{Input, StreamIo},
        stream::Disposition,
    },
    frame, log, media,
    packet::side_data,
};

use super::{
    check_size,
    colour::{Colours, Turn},
    whole,
};
use crate::config::PretokenizeVideo;

/// What may be opened, by ffmpeg's names.
const CONTAINERS: &str = "mov,matroska,avi,flv,ogg,asf,mpegts,mpeg,mpegvideo";
/// Likewise.
const CODECS: &str = "h264,hevc,libdav1d,libaom-av1,av1,vp9,vp8,vp7,vp6,vp6a,vp6f,vp5,vp3,theora,mpeg4,mpeg2video,mpeg1video,mpegvideo,\
    h261,h263,h263p,flv,msmpeg4v1,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,mjpeg,mjpegb,ffv1,ffvhuff,huffyuv,utvideo,magicyuv,\
    rawvideo,v210,prores,dnxhd,dvvideo,cfhd,qtrle,rpza,smc,svq1,svq3,cinepak,msvideo1,png,zmbv,aac,aac_fixed,aac_latm,mp3,\
    mp3float,mp2,mp2float,mp1,mp1float,ac3,ac3_fixed,eac3,dca,opus,libopus,vorbis,flac,alac,wmav1,wmav2,wmapro,amrnb,amrwb,\
    nellymoser,pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,\
    pcm_f64be,pcm_mulaw,pcm_alaw,pcm_dvd,pcm_bluray,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf";
/// Streams that a container may hold; each costs a decoder when it is opened.
const MAX_STREAMS: &str = "64";
/// The most channels of sound, as for sound alone.
const MAX_CHANNELS: usize = 32;

/// Seconds by which a picture may begin late: Matroska and FLV round times to milliseconds.
const SLACK: f64 = 0.0005;

/// What a header tells.
pub(super) struct Told {
    /// Width and height of the pictures in pixels, as they are encoded; 0 where the first picture is to tell.
    pub(super) size: (u32, u32),
    /// Length of the film.
    pub(super) seconds: Option<f64>,
    /// Samples a second and channels of the sound.
    pub(super) sound: Option<(u32, usize)>,
}

/// What takes what is decoded.
pub(super) trait Takes {
    /// Whether a picture of `size` that is shown from `seconds` on may be.
    fn check_picture(&self, size: (u32, u32), seconds: f64) -> Result<(), String>;

    /// Number `frame` of the pictures at even times, `seconds` from time zero.
    fn picture(&mut self, frame: u64, seconds: f64, size: (u32, u32), rgb: Vec<u8>) -> Result<(), String>;

    /// Samples of each channel, the first of which is heard at `seconds`, where the file tells; leaves `planes` empty.
    fn sound(&mut self, seconds: Option<f64>, rate: u32, planes: &mut Vec<Vec<i16>>) -> Result<(), String>;
}

/// Keeps ffmpeg's libraries from writing to the terminal.
pub(super) fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Texts of errors; it cannot fail.
        ffmpeg::init().unwrap_or_default();
        log::set_level(log::Level::Quiet);
    });
}

/// A film whose header is read.
pub(super) struct Film {
    input: Input,
    video: Track<decoder::Video>,
    audio: Option<Track<decoder::Audio>>,
    turn: Turn,
    size: (u32, u32),
    fps: f64,
}

/// A stream and its decoder.
struct Track<D> {
    index: usize,
    decoder: D,
    clock: Clock,
}

impl Film {
    /// # Errors
    /// Content that is no whole container of a film in a codec that is known.
    pub(super) fn open(bytes: Vec<u8>, settings: &PretokenizeVideo) -> Result<Self, String> {
        whole::check(&bytes).map_err(failed)?;
        let stream = StreamIo::from_read_seek(Cursor::new(bytes)).map_err(failed)?;
        let options = Dictionary::from_iter([
            ("format_whitelist", CONTAINERS),
            ("codec_whitelist", CODECS),
            ("protocol_whitelist", "none"),
            ("max_streams", MAX_STREAMS),
            ("err_detect", "crccheck+bitstream+buffer+explode"),
        ]);
        let input = format::input_from_stream(stream, None, Some(options)).map_err(failed)?;
        let pictures = input.streams().best(media::Type::Video);
        // The cover of a record is no film.
        let pictures = pictures.filter(|stream| !stream.disposition().contains(Disposition::ATTACHED_PIC));
        let pictures = pictures.ok_or("failed to decode: no pictures")?;
        let zero = Zero::of(&pictures);
        let turn = pictures.side_data().find(|data| data.kind() == side_data::Type::DisplayMatrix);
        let turn = turn.and_then(|matrix| Turn::of_matrix(matrix.data())).unwrap_or_default();
        let (size, video) = video_decoder(&pictures, settings.max_pixels)?;
        let video = Track { index: pictures.index(), decoder: video, clock: Clock::of(&pictures, zero) };
        let sound = settings.audio.then(|| input.streams().best(media::Type::Audio)).flatten();
        let audio = sound.map(|sound| {
            let (index, clock) = (sound.index(), Clock::of(&sound, zero));
            audio_decoder(&sound).map(|decoder| Track { index, decoder, clock })
        });
        let audio = audio.transpose()?;
        Ok(Self { input, video, audio, turn, size, fps: settings.fps })
    }

    pub(super) fn told(&self) -> Told {
        // Guessed from bytes a second in what is no more than a stream.
        let is_guessed = self.input.format().name().starts_with("mpeg");
        let seconds = self.input.duration() as f64 / f64::from(ffmpeg::ffi::AV_TIME_BASE);
        let sound = self.audio.as_ref().map(|audio| (audio.decoder.rate(), audio.decoder.channels().into()));
        Told { size: self.size, seconds: Some(seconds).filter(|s| *s > 0.0 && !is_guessed), sound }
    }

    /// Decodes all of it.
    ///
    /// # Errors
    /// Damage, and what `to` says.
    pub(super) fn decode(&mut self, to: &mut impl Takes) -> Result<(), String> {
        let mut shown =
            Shown { fps: self.fps, turn: self.turn, next: 0, last: None, colours: Colours::default() };
        let mut planes = Vec::new();
        loop {
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) => {}
                Err(Error::Eof) => break,
                Err(error) => return Err(failed(error)),
            }
            let is_video = packet.stream() == self.video.index;
            let audio = self.audio.as_mut().filter(|audio| audio.index == packet.stream());
            // One without bytes says that nothing changes, and would be taken for the end.
            if !is_video && audio.is_none() || packet.size() == 0 {
                continue;
            }
            if packet.is_corrupt() {
                return Err(failed("the container says that a packet is damaged"));
            }
            if let Some(audio) = audio {
                audio.decoder.send_packet(&packet).map_err(failed)?;
                hear(audio, &mut planes, to)?;
            } else {
                self.video.decoder.send_packet(&packet).map_err(failed)?;
                see(&mut self.video, &mut shown, to)?;
            }
        }
        self.video.decoder.send_eof().map_err(failed)?;
        see(&mut self.video, &mut shown, to)?;
        shown.finish(to)?;
        if let Some(audio) = &mut self.audio {
            audio.decoder.send_eof().map_err(failed)?;
            hear(audio, &mut planes, to)?;
        }
        Ok(())
    }
}

/// Size of the pictures as the header tells it, and what decodes them.
fn video_decoder(stream: &Stream<'_>, max_pixels: u64) -> Result<((u32, u32), decoder::Video), String> {
    // Never opened: what it is set up with is what the header tells.
    let told = decoder::Video(decoder::Opened(context(stream)?.0));
    let size = (told.width(), told.height());
    check_size(size, max_pixels)?;
    let mut options = decoder_options();
    options.set("max_pixels", &max_pixels.min(i32::MAX as u64).to_string());
    // No guess at what damaged blocks may have been.
    options.set("ec", "0");
    options.set("idct", "simple");
    let (context, codec) = context(stream)?;
    let decoder = context.open_as_with(codec, options).and_then(decoder::Opened::video).map_err(failed)?;
    Ok((size, decoder))
}

fn audio_decoder(stream: &Stream<'_>) -> Result<decoder::Audio, String> {
    let (context, codec) = context(stream)?;
    context.open_as_with(codec, decoder_options()).and_then(decoder::Opened::audio).map_err(failed)
}

/// A decoder that is not opened, and which one it is to be.
fn context(stream: &Stream<'_>) -> Result<(decoder::Decoder, Codec), String> {
    let mut context = codec::Context::from_parameters(stream.parameters()).map_err(failed)?.decoder();
    context.set_packet_time_base(stream.time_base());
    let in_integers = match context.id() {
        Id::AAC => decoder::find_by_name("aac_fixed"),
        Id::AC3 => decoder::find_by_name("ac3_fixed"),
        Id::MP1 => decoder::find_by_name("mp1"),
        Id::MP2 => decoder::find_by_name("mp2"),
        Id::MP3 => decoder::find_by_name("mp3"),
        _ => None,
    };
    let codec = in_integers.or_else(|| decoder::find(context.id()));
    let codec = codec.ok_or_else(|| failed(format!("no decoder for {:?}", context.id())))?;
    Ok((context, codec))
}

fn decoder_options() -> Dictionary<'static> {
    Dictionary::from_iter([
        ("codec_whitelist", CODECS),
        ("threads", "1"),
        ("err_detect", "crccheck+bitstream+buffer+explode"),
        ("flags", "bitexact"),
    ])
}

/// Takes what pictures the decoder has.
fn see(track: &mut Track<decoder::Video>, shown: &mut Shown, to: &mut impl Takes) -> Result<(), String> {
    loop {
        let mut picture = frame::Video::empty();
        if !receive(&mut track.decoder, &mut picture)? {
            return Ok(());
        }
        let seconds = track.clock.seconds(picture.timestamp()).unwrap_or_else(|| shown.end());
        let length = track.clock.length(picture.packet().duration);
        shown.take(picture, seconds, length, to)?;
    }
}

/// Takes what sound the decoder has.
fn hear(
    track: &mut Track<decoder::Audio>,
    planes: &mut Vec<Vec<i16>>,
    to: &mut impl Takes,
) -> Result<(), String> {
    loop {
        let mut sound = frame::Audio::empty();
        if !receive(&mut track.decoder, &mut sound)? {
            return Ok(());
        }
        let (n_channels, rate) = (usize::from(sound.channels()), sound.rate());
        if rate == 0 || n_channels == 0 || n_channels > MAX_CHANNELS {
            return Err(failed(format!("{n_channels} channels at {rate} samples a second")));
        }
        planes.resize_with(n_channels, Vec::new);
        samples(&sound, planes)?;
        to.sound(track.clock.seconds(sound.timestamp()), rate, planes)?;
    }
}

/// The next frame, if there is one.
fn receive(decoder: &mut decoder::Opened, frame: &mut frame::Frame) -> Result<bool, String> {
    match decoder.receive_frame(frame) {
        Ok(()) if frame.is_corrupt() || frame.has_decode_errors() => {
            Err(failed("the decoder says that a frame is damaged"))
        }
        Ok(()) => Ok(true),
        Err(Error::Eof | Error::Other { errno: EAGAIN }) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Adds the samples of `sound` to `planes` as 16 bits, by the rules for sound alone: integers keep their upper 16 bits, floats are multiplied by
/// 32768, rounded and clipped.
fn samples(sound: &frame::Audio, planes: &mut [Vec<i16>]) -> Result<(), String> {
    let of_float = |x: f64| (x * 32768.0).clamp(-32768.0, 32767.0).round_ties_even() as i16;
    let n_planes = if sound.is_packed() { 1 } else { planes.len() };
    match sound.format() {
        _ if sound.samples() == 0 => {}
        _ if sound.planes() != n_planes => return Err(failed("sound without samples")),
        Sample::U8(_) => each(sound, planes, |s: u8| (i16::from(s) - 0x80) << 8),
        Sample::I16(_) => each(sound, planes, |s: i16| s),
        Sample::I32(_) => each(sound, planes, |s: i32| (s >> 16) as i16),
        Sample::F32(_) => each(sound, planes, |s: f32| of_float(f64::from(s))),
        Sample::F64(_) => each(sound, planes, of_float),
        other => return Err(failed(format!("samples of the kind {other:?} are not read"))),
    }
    Ok(())
}

fn each<S: frame::audio::Sample + Copy>(
    sound: &frame::Audio,
    planes: &mut [Vec<i16>],
    to_s16: impl Fn(S) -> i16,
) {
    let n = planes.len();
    for (channel, plane) in planes.iter_mut().enumerate() {
        let (source, first, step) = if sound.is_packed() { (0, channel, n) } else { (channel, 0, 1) };
        plane.extend(sound.plane::<S>(source)[first..].iter().step_by(step).map(|sample| to_s16(*sample)));
    }
}

/// The picture that is being shown while the film goes on.
struct Shown {
    fps: f64,
    turn: Turn,
    /// Number of the even time that is next.
    next: u64,
    last: Option<Last>,
    colours: Colours,
}

struct Last {
    picture: frame::Video,
    seconds: f64,
    /// How long it is shown at least, if the file tells.
    length: f64,
}

impl Shown {
    /// When the next picture is shown if the file does not tell, as program streams do not for each.
    fn end(&self) -> f64 {
        self.last.as_ref().map_or(0.0, |last| last.seconds + last.length)
    }

    /// Takes the picture that is shown from `seconds` on.
    fn take(
        &mut self,
        picture: frame::Video,
        seconds: f64,
        length: f64,
        to: &mut impl Takes,
    ) -> Result<(), String> {
        to.check_picture((picture.width(), picture.height()), seconds)?;
        if self.last.as_ref().is_some_and(|last| last.seconds > seconds) {
            return Err(failed("a picture is to be shown before the one that comes before it"));
        }
        self.give(|at| at + SLACK < seconds, to)?;
        if self.last.is_none() {
            // There is nothing to see before it.
            self.next = ((seconds - SLACK) * self.fps).ceil() as u64;
        }
        self.last = Some(Last { picture, seconds, length });
        Ok(())
    }

    fn finish(mut self, to: &mut impl Takes) -> Result<(), String> {
        let Some(Last { seconds, length, .. }) = self.last else { return Ok(()) };
        self.give(|at| at <= seconds + SLACK || at + SLACK < seconds + length, to)
    }

    /// Gives the picture for each even time at which it `is_shown`.
    fn give(&mut self, is_shown: impl Fn(f64) -> bool, to: &mut impl Takes) -> Result<(), String> {
        let Some(last) = &self.last else { return Ok(()) };
        let mut made: Option<((u32, u32), Vec<u8>)> = None;
        loop {
            let seconds = self.next as f64 / self.fps;
            if !is_shown(seconds) {
                return Ok(());
            }
            let (size, rgb) = match &made {
                Some(made) => made.clone(),
                None => {
                    let rgb = self.colours.rgb(&last.picture).map_err(failed)?;
                    let size = (last.picture.width(), last.picture.height());
                    self.turn.apply(size, rgb)
                }
            };
            // Kept only where it is wanted again.
            made = is_shown((self.next + 1) as f64 / self.fps).then(|| (size, rgb.clone()));
            to.check_picture(size, seconds)?;
            to.picture(self.next, seconds, size, rgb)?;
            self.next += 1;
        }
    }
}

/// Time zero: where the track of pictures begins.
#[derive(Clone, Copy)]
struct Zero {
    ticks: i128,
    base: Rational,
}

impl Zero {
    fn of(pictures: &Stream<'_>) -> Self {
        let start = pictures.start_time();
        // What is unknown is the smallest number.
        Self { ticks: if start == i64::MIN { 0 } else { start.into() }, base: pictures.time_base() }
    }
}

/// From the ticks of a stream to seconds from time zero.
#[derive(Clone, Copy)]
struct Clock {
    zero: Zero,
    base: Rational,
}

impl Clock {
    fn of(stream: &Stream<'_>, zero: Zero) -> Self {
        Self { zero, base: stream.time_base() }
    }

    /// The fraction is exact and rounded once, so that it is what the same fraction gives elsewhere.
    fn seconds(&self, ticks: Option<i64>) -> Option<f64> {
        let [(n, d), (zero_n, zero_d)] =
            [self.base, self.zero.base].map(|base| (i128::from(base.0), i128::from(base.1.max(1))));
        let (of_stream, of_zero) = (i128::from(ticks?) * n, self.zero.ticks * zero_n);
        if (n, d) == (zero_n, zero_d) {
            return Some((of_stream - of_zero) as f64 / d as f64);
        }
        let ticks = of_stream.checked_mul(zero_d)?.checked_sub(of_zero.checked_mul(d)?)?;
        Some(ticks as f64 / (d * zero_d) as f64)
    }

    fn length(&self, ticks: i64) -> f64 {
        ticks.max(0) as f64 * f64::from(self.base.0) / f64::from(self.base.1.max(1))
    }
}

fn failed(reason: impl std::fmt::Display) -> String {
    format!("failed to decode: {reason}")
}
