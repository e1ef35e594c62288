//! Encoded sound, packet by packet, to a plane of 16-bit samples for each channel. Damage is an error, and so is an end before or behind
//! the one that the header tells. Knows nothing of documents.

use std::io::{Cursor, ErrorKind, Read};

use symphonia::{
    core::{
        audio::{Audio, AudioBuffer, GenericAudioBufferRef, sample::Sample},
        codecs::audio::{AudioCodecId, AudioDecoder, AudioDecoderOptions, well_known::*},
        errors::Error,
        formats::{FormatOptions, FormatReader, Track, TrackType},
        io::{MediaSource, MediaSourceStream, ReadBytes, ReadOnlySource},
        packet::Packet,
    },
    default::formats::{
        AdtsReader, AiffReader, CafReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader,
        WavReader,
    },
};

use super::{
    codebooks,
    container::{self, Container, Found, MAX_CHANNELS},
    pcm::{Form, Pcm},
};

/// Why floats are refused.
pub(super) const NO_NUMBER: &str = "a sample is not a number";
/// And why content without any sample is.
pub(super) const NO_SAMPLE: &str = "no sound: not one sample";

/// How samples are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// Samples a second of each channel.
    pub(super) rate: u32,
    pub(super) n_channels: usize,
}

/// Content whose header has been read.
pub(super) enum Opened<'a> {
    /// Its samples lie there as they are.
    Samples(Pcm),
    /// They are to be decoded.
    Packets(Box<Decoder<'a>>),
}

impl<'a> Opened<'a> {
    /// # Errors
    /// As [`Decoder::open`].
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let decoder = Decoder::open(bytes)?;
        match decoder.samples() {
            Some((form, spec, n)) => decoder.into_pcm(form, spec, n).map(Self::Samples),
            None => Ok(Self::Packets(Box::new(decoder))),
        }
    }
}

/// The default track of sound, or the first, of encoded content.
pub(super) struct Decoder<'a> {
    found: Found,
    reader: Box<dyn FormatReader + 'a>,
    codec: Box<dyn AudioDecoder>,
    track: Track,
    /// Of the packets so far.
    spec: Option<Spec>,
    n_decoded: u64,
    n_packets: u64,
    packet_bytes: usize,
}

impl<'a> Decoder<'a> {
    /// # Errors
    /// Content that is no whole container of sound in a codec that is known.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let found = container::find(bytes)?;
        let reader = reader(&found, &bytes[found.bytes.clone()]).map_err(|error| error.to_string())?;
        let track = reader.default_track(TrackType::Audio).ok_or("no track of sound")?.clone();
        let params = track.codec_params.as_ref().and_then(|params| params.audio());
        let params = params.ok_or("a track without a codec")?;
        if let (CODEC_ID_VORBIS, Some(headers)) = (params.codec, &params.extra_data) {
            codebooks::check(headers)?;
        }
        // The reader of FLAC files gives out frames whose CRC is right, and no others. In other containers nothing but the MD5 of all
        // samples tells of damage; here it would take a third of the time.
        let options = AudioDecoderOptions::default().verify(found.container != Container::Flac);
        let codec = symphonia::default::get_codecs().make_audio_decoder(params, &options);
        let codec = codec.map_err(|error| error.to_string())?;
        Ok(Self { found, reader, codec, track, spec: None, n_decoded: 0, n_packets: 0, packet_bytes: 0 })
    }

    /// Of content whose samples lie there as they are, one block after the other: what they are, and how many a channel, unless they go
    /// on to the end.
    fn samples(&self) -> Option<(Form, Spec, Option<u64>)> {
        let params = self.codec.codec_params();
        let form = match self.found.container {
            Container::Wav | Container::Aiff | Container::Caf => form(params.codec)?,
            _ => return None,
        };
        let spec = self.spec().filter(|spec| spec.rate > 0 && spec.n_channels > 0)?;
        // A header of CAF may tell of blocks that its samples do not fill.
        let block_bytes = (spec.n_channels * form.n_bytes()) as u32;
        let is_packed = self.found.container != Container::Caf || self.found.block_bytes == Some(block_bytes);
        let has_all_bits = params.bits_per_sample == params.bits_per_coded_sample;
        let n = self.n_told();
        let is_bounded = n.is_some() || self.found.container == Container::Wav && self.found.is_open_ended;
        (is_packed && has_all_bits && is_bounded).then_some((form, spec, n))
    }

    /// The samples, which start where its reader stands behind the header.
    fn into_pcm(self, form: Form, spec: Spec, n: Option<u64>) -> Result<Pcm, String> {
        let bytes = self.found.bytes.clone();
        let position = (self.reader.into_inner().pos() as usize).saturating_sub(self.found.head.len());
        let start = bytes.start + position.min(bytes.len());
        let block_bytes = form.n_bytes() * spec.n_channels;
        let n_left = (bytes.end - start) / block_bytes;
        match n.unwrap_or(n_left as u64) {
            told if told > n_left as u64 => Err(format!("{n_left} samples where the header tells {told}")),
            0 => Err(NO_SAMPLE.into()),
            n => Ok(Pcm { form, spec, bytes: start..start + n as usize * block_bytes }),
        }
    }

    /// What the last packet was like; before the first, what the header tells.
    pub(super) fn spec(&self) -> Option<Spec> {
        let params = self.codec.codec_params();
        let told = || Some(Spec { rate: params.sample_rate?, n_channels: params.channels.as_ref()?.count() });
        self.spec.or_else(told)
    }

    /// Samples a channel that there will be, where the header tells.
    pub(super) fn n_told(&self) -> Option<u64> {
        let told = self.track.num_frames;
        match self.found.container {
            _ if self.found.is_open_ended => None,
            // The end of the last page is told; where the first starts counts.
            Container::Ogg => told.map(|n| n.saturating_sub(self.track.start_ts.get().max(0) as u64)),
            Container::Mpeg | Container::Adts => told.or(self.found.packets.map(|(n, samples)| n * samples)),
            // Of fragments the tables in front tell nothing.
            Container::Mp4 => told.filter(|&n| n > 0),
            _ => told,
        }
    }

    /// Whether the content is PCM or ADPCM up to its end, wherever that is.
    pub(super) fn is_open_ended(&self) -> bool {
        self.found.is_open_ended
    }

    pub(super) fn n_decoded(&self) -> u64 {
        self.n_decoded
    }

    /// Adds the samples of the next packet to `planes`, one a channel; `None` behind the last.
    ///
    /// # Errors
    /// Damage, or an end that is not where it should be.
    pub(super) fn next(&mut self, planes: &mut Vec<Vec<i16>>) -> Result<Option<Spec>, String> {
        let Some(packet) = self.next_packet()? else {
            self.check_whole()?;
            return Ok(None);
        };
        if self.found.container == Container::Flac && packet.pts.get() != self.n_decoded as i64 {
            return Err(format!(
                "{} samples, then the one that is number {}",
                self.n_decoded,
                packet.pts.get()
            ));
        }
        self.packet_bytes += packet.data.len();
        self.n_packets += 1;
        let buffer = self.codec.decode(&packet).map_err(|error| error.to_string())?;
        let spec = Spec { rate: buffer.spec().rate(), n_channels: buffer.spec().channels().count() };
        if spec.rate == 0 || spec.n_channels == 0 || spec.n_channels > MAX_CHANNELS {
            return Err(format!("{} channels at {} samples a second", spec.n_channels, spec.rate));
        }
        if self.spec.is_some_and(|before| before != spec) {
            return Err("rate or channels change on the way".into());
        }
        self.spec = Some(spec);
        planes.resize_with(spec.n_channels, Vec::new);
        if !append(&buffer, planes) {
            return Err(NO_NUMBER.into());
        }
        self.n_decoded += buffer.frames() as u64;
        Ok(Some(spec))
    }

    /// The next packet of the track.
    fn next_packet(&mut self) -> Result<Option<Packet>, String> {
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet)) if packet.track_id != self.track.id => {}
                Ok(packet) => return Ok(packet),
                Err(Error::IoError(error))
                    if error.kind() == ErrorKind::UnexpectedEof && self.found.is_open_ended =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Whether all that the content tells of has come. Of a stream that tells nothing (MPEG audio without a Xing or VBRI header, a WAV
    /// or WebM that was not finished), a cut between two packets cannot be seen.
    fn check_whole(&mut self) -> Result<(), String> {
        if self.codec.finalize().verify_ok == Some(false) {
            return Err("the samples do not have the MD5 that the header tells".into());
        }
        if let Some(told) = self.found.packet_bytes.filter(|&told| told != self.packet_bytes) {
            return Err(format!("{} bytes of sound of which only {} are frames", told, self.packet_bytes));
        }
        let n = self.n_decoded;
        match (self.found.container, self.n_told()) {
            (Container::Mpeg, Some(_)) => self.check_mpeg()?,
            // The last packet of AAC is decoded whole, although its table may end within.
            (Container::Mp4 | Container::Mkv, Some(told)) if n >= told => {}
            (_, Some(told)) if n != told => return Err(format!("{n} samples where the header tells {told}")),
            _ => {}
        }
        if n == 0 {
            return Err(NO_SAMPLE.into());
        }
        Ok(())
    }

    /// What a Xing, Info or VBRI header tells must be there, and nothing behind it that its reader would cut off.
    fn check_mpeg(&self) -> Result<(), String> {
        let (Some(told), Some((_, samples))) = (self.track.num_frames, self.found.packets) else {
            return Ok(());
        };
        let cut = u64::from(self.track.delay.unwrap_or(0)) + u64::from(self.track.padding.unwrap_or(0));
        let (told, coded) = (told.saturating_add(cut), self.n_packets * samples);
        if told != coded {
            return Err(format!("{coded} samples where the header tells {told}"));
        }
        Ok(())
    }
}

/// How the samples of a codec lie in content, if it leaves them as they are.
fn form(codec: AudioCodecId) -> Option<Form> {
    Some(match codec {
        CODEC_ID_PCM_U8 => Form::U8,
        CODEC_ID_PCM_S8 => Form::S8,
        CODEC_ID_PCM_S16LE => Form::S16Le,
        CODEC_ID_PCM_S16BE => Form::S16Be,
        CODEC_ID_PCM_S24LE => Form::S24Le,
        CODEC_ID_PCM_S24BE => Form::S24Be,
        CODEC_ID_PCM_S32LE => Form::S32Le,
        CODEC_ID_PCM_S32BE => Form::S32Be,
        CODEC_ID_PCM_F32LE => Form::F32Le,
        CODEC_ID_PCM_F32BE => Form::F32Be,
        CODEC_ID_PCM_F64LE => Form::F64Le,
        CODEC_ID_PCM_F64BE => Form::F64Be,
        CODEC_ID_PCM_ALAW => Form::ALaw,
        CODEC_ID_PCM_MULAW => Form::MuLaw,
        _ => return None,
    })
}

/// What reads the packets of a container that lies in `bytes`.
fn reader<'a>(found: &Found, bytes: &'a [u8]) -> Result<Box<dyn FormatReader + 'a>, Error> {
    let source: Box<dyn MediaSource + 'a> = match found.container {
        // Of what is seekable, these guess the number of samples from the first frames, and cut off what comes behind.
        Container::Mpeg | Container::Adts => Box::new(ReadOnlySource::new(bytes)),
        _ if !found.head.is_empty() => {
            Box::new(ReadOnlySource::new(Cursor::new(found.head.clone()).chain(bytes)))
        }
        _ => Box::new(Cursor::new(bytes)),
    };
    let mut stream = MediaSourceStream::new(source, Default::default());
    let options = FormatOptions::default();
    Ok(match found.container {
        Container::Wav => Box::new(WavReader::try_new(stream, options)?),
        Container::Aiff => Box::new(AiffReader::try_new(stream, options)?),
        Container::Flac => Box::new(FlacReader::try_new(stream, options)?),
        Container::Ogg => Box::new(OggReader::try_new(stream, options)?),
        Container::Caf => Box::new(CafReader::try_new(stream, options)?),
        Container::Mp4 => {
            // It steps back over the size of the first box.
            stream.read_quad_bytes()?;
            Box::new(IsoMp4Reader::try_new(stream, options)?)
        }
        Container::Mkv => Box::new(MkvReader::try_new(stream, options)?),
        Container::Mpeg => Box::new(MpaReader::try_new(stream, options)?),
        Container::Adts => Box::new(AdtsReader::try_new(stream, options)?),
    })
}

/// Adds decoded samples to `planes` as 16 bits; false if one is not a number.
///
/// Integers keep their upper 16 bits: wider ones are shifted down, narrower ones up, unsigned ones with their middle at zero. A float x
/// becomes 32768·x, rounded (halves to even), beyond the range its end: at most half a step off.
fn append(buffer: &GenericAudioBufferRef<'_>, planes: &mut [Vec<i16>]) -> bool {
    use GenericAudioBufferRef as Any;
    match buffer {
        Any::U8(samples) => each(samples, planes, |s| (i16::from(s) - 0x80) << 8),
        Any::U16(samples) => each(samples, planes, |s| (s ^ 0x8000) as i16),
        Any::U24(samples) => each(samples, planes, |s| ((s.inner() >> 8) as u16 ^ 0x8000) as i16),
        Any::U32(samples) => each(samples, planes, |s| ((s >> 16) as u16 ^ 0x8000) as i16),
        Any::S8(samples) => each(samples, planes, |s| i16::from(s) << 8),
        Any::S16(samples) => each(samples, planes, |s| s),
        Any::S24(samples) => each(samples, planes, |s| (s.inner() >> 8) as i16),
        Any::S32(samples) => each(samples, planes, |s| (s >> 16) as i16),
        Any::F32(samples) => {
            each(samples, planes, from_f32);
            return (0..samples.num_planes()).filter_map(|c| samples.plane(c)).flatten().all(|s| !s.is_nan());
        }
        Any::F64(samples) => {
            each(samples, planes, from_f64);
            return (0..samples.num_planes()).filter_map(|c| samples.plane(c)).flatten().all(|s| !s.is_nan());
        }
    }
    true
}

fn each<S: Sample>(samples: &AudioBuffer<S>, planes: &mut [Vec<i16>], to_s16: impl Fn(S) -> i16) {
    for (n, plane) in planes.iter_mut().enumerate() {
        plane.extend(samples.plane(n).unwrap_or_default().iter().map(|&sample| to_s16(sample)));
    }
}

/// The whole number next to 32768 times `sample`, halves to the even one, within 16 bits.
pub(super) fn from_f32(sample: f32) -> i16 {
    /// Adding it leaves no bits for a fraction, so that the sum is rounded, and the last 16 bits are the number's.
    const ROUND: f32 = 1.5 * (1u32 << 23) as f32;
    ((sample * 32768.0).clamp(-32768.0, 32767.0) + ROUND).to_bits() as i16
}

/// As [`from_f32`].
pub(super) fn from_f64(sample: f64) -> i16 {
    const ROUND: f64 = 1.5 * (1u64 << 52) as f64;
    ((sample * 32768.0).clamp(-32768.0, 32767.0) + ROUND).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{aiff, flac, mp3, ogg_flac, ogg_flac_of, stream_info, wav, wav_of},
        *,
    };

    fn decode(bytes: &[u8]) -> Result<(Spec, Vec<Vec<i16>>), String> {
        let mut decoder = Decoder::open(bytes)?;
        let mut planes = Vec::new();
        while decoder.next(&mut planes)?.is_some() {}
        Ok((decoder.spec().unwrap(), planes))
    }

    fn noise(n: usize, seed: u32) -> Vec<i16> {
        (0..n as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 16) as i16).collect()
    }

    #[test]
    fn lossless_samples_come_back_from_every_container() {
        let planes = vec![noise(9001, 1), noise(9001, 2)];
        let expected = Ok((Spec { rate: 44_100, n_channels: 2 }, planes.clone()));
        assert_eq!(decode(&wav(44_100, &planes)), expected);
        assert_eq!(decode(&aiff(44_100, &planes)), expected);
        assert_eq!(decode(&flac(44_100, &planes)), expected);
        assert_eq!(decode(&ogg_flac(44_100, &planes)), expected);
    }

    #[test]
    fn integers_of_other_widths_keep_their_upper_bits() {
        let samples = |tag, bits, data: &[u8]| {
            decode(&wav_of(tag, 8000, 1, bits, data)).map(|(_, planes)| planes.concat())
        };
        assert_eq!(samples(1, 8, &[0, 1, 128, 255]), Ok(vec![-32768, -32512, 0, 32512]));
        assert_eq!(samples(1, 24, &[0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), Ok(vec![0, -1, 32767]));
        assert_eq!(samples(1, 32, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]), Ok(vec![0, -1]));
    }

    #[test]
    fn floats_are_rounded_and_clipped_and_must_be_numbers() {
        let values = [0.0, 1.0, -1.0, -2.0, 0.5 / 32768.0, 1.5 / 32768.0, -0.6 / 32768.0, f64::INFINITY];
        let expected = vec![0, 32767, -32768, -32768, 0, 2, -1, 32767];
        let f32s = values.map(|v| (v as f32).to_le_bytes()).concat();
        let f64s = values.map(f64::to_le_bytes).concat();
        for (bits, data) in [(32, f32s), (64, f64s)] {
            assert_eq!(
                decode(&wav_of(3, 8000, 1, bits, &data)).map(|(_, planes)| planes.concat()),
                Ok(expected.clone())
            );
        }
        let nan = wav_of(3, 8000, 1, 32, &f32::NAN.to_le_bytes());
        assert_eq!(decode(&nan).unwrap_err(), "a sample is not a number");
    }

    #[test]
    fn no_samples_are_no_sound_but_silence_is() {
        assert_eq!(decode(&wav(8000, &[vec![]])).unwrap_err(), "no sound: not one sample");
        assert_eq!(decode(&wav(8000, &[vec![0; 5]])).unwrap().1, [[0; 5]]);
        let (spec, planes) = decode(&mp3(3)).unwrap();
        assert_eq!((spec.rate, planes), (44_100, vec![vec![0; 3456]]));
    }

    #[test]
    fn a_flac_that_is_cut_or_changed_is_an_error() {
        let whole = flac(44_100, &[noise(9000, 3)]);
        for end in [whole.len() - 1, whole.len() - 500, whole.len() - 5000, 60, 42, 41, 5] {
            assert!(decode(&whole[..end]).is_err(), "{end}");
        }
        let mut longer = whole.clone();
        longer.extend(b"junk");
        assert!(decode(&longer).is_err());
        // Without the number of samples a gap is seen by the frames' numbers.
        for n_told in [9000_u32, 0] {
            let mut whole = whole.clone();
            whole[22..26].copy_from_slice(&n_told.to_be_bytes());
            assert!(decode(&whole).is_ok());
            // Behind the header: each byte lies in a frame with a checksum.
            for at in 42..whole.len() {
                whole[at] ^= 1 << (at % 8);
                assert!(decode(&whole).is_err(), "byte {at} of {}, {n_told} samples told", whole.len());
                whole[at] ^= 1 << (at % 8);
            }
        }
    }

    #[test]
    fn flac_in_another_container_is_held_to_its_md5() {
        let planes = [noise(9000, 3)];
        let mut info = stream_info(44_100, &planes);
        assert!(decode(&ogg_flac_of(&info, &planes)).is_ok());
        info[20] ^= 1;
        let error = decode(&ogg_flac_of(&info, &planes)).unwrap_err();
        assert_eq!(error, "the samples do not have the MD5 that the header tells");
    }

    #[test]
    fn frames_that_a_xing_header_tells_must_be_there() {
        let mut told = mp3(5);
        told[4 + 17..4 + 33].copy_from_slice(b"Info\0\0\0\x01\0\0\0\x04\0\0\0\0");
        assert_eq!(decode(&told).unwrap().1[0].len(), 4 * 1152);
        assert_eq!(decode(&told[..4 * 417]).unwrap_err(), "3456 samples where the header tells 4608");
        told.extend(mp3(2));
        assert_eq!(decode(&told).unwrap_err(), "6912 samples where the header tells 4608");
    }
}
