//! Films made here, without a codec, in AVI; and small ones of `tests/data/video`, which an encoder made.

use std::{f64::consts::PI, fs};

use serde_json::Value;

use super::*;
use crate::pretokenize::check_tiling;

/// Layouts of pixels that a film here may have.
#[derive(Clone, Copy, PartialEq)]
enum Pixels {
    /// Blue, green, red; rows from the bottom, of whole words.
    Bgr,
    /// Y, U and V in whole planes; stored V before U.
    Yuv444,
}

/// A film whose every byte is known.
struct Made {
    pixels: Pixels,
    size: (u32, u32),
    fps: u32,
    pictures: Vec<Vec<u8>>,
    rate: u32,
    /// Samples of the channels in turn, and how many there are.
    sound: (Vec<i16>, u16),
}

fn chunk(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let data = parts.concat();
    let mut chunk = [name.as_slice(), &(data.len() as u32).to_le_bytes(), &data].concat();
    chunk.resize(chunk.len() + chunk.len() % 2, 0);
    chunk
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Made {
    /// Pictures of noise, each different, and a rising sound.
    fn new(size: (u32, u32), fps: u32, n_pictures: u32) -> Self {
        let noise = |n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8;
        let n_bytes = 3 * size.0 * size.1;
        let pictures = (0..n_pictures).map(|n| (0..n_bytes).map(|i| noise(i + n * 7919 + 1)).collect());
        let sound = (0..8000 * n_pictures / fps).map(|i| i as i16).collect();
        Self { pixels: Pixels::Bgr, size, fps, pictures: pictures.collect(), rate: 8000, sound: (sound, 1) }
    }

    /// Red, green, blue from the top, as a document of one picture has them.
    fn rgb(&self, n: usize) -> Vec<u8> {
        self.pictures[n].chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect()
    }

    fn stored(&self, picture: &[u8]) -> Vec<u8> {
        if self.pixels == Pixels::Yuv444 {
            let planes: Vec<&[u8]> = picture.chunks_exact(picture.len() / 3).collect();
            return [planes[0], planes[2], planes[1]].concat();
        }
        let row_bytes = 3 * self.size.0 as usize;
        let rows = picture.chunks_exact(row_bytes).rev();
        rows.flat_map(|row| [row, &[0; 3][..(4 - row_bytes % 4) % 4]].concat()).collect()
    }

    /// AVI, a second of sound behind each second of pictures.
    fn avi(&self) -> Vec<u8> {
        let Self { size: (width, height), fps, rate, sound: (samples, n_channels), .. } = self;
        let (fps, block) = (*fps, 2 * u32::from(*n_channels));
        let picture_bytes = self.stored(&self.pictures[0]).len() as u32;
        let n_pictures = self.pictures.len() as u32;
        let n_streams = if samples.is_empty() { 1 } else { 2 };
        let n_samples = (samples.len() / usize::from((*n_channels).max(1))) as u32;
        let head =
            words(&[1_000_000 / fps, 0, 0, 0, n_pictures, 0, n_streams, 0, *width, *height, 0, 0, 0, 0]);
        let stream = |kind: &[u8], codec: &[u8], scale: u32, rate: u32, length: u32, unit: u32| {
            let numbers = words(&[0, 0, 0, scale, rate, 0, length, 0, u32::MAX, unit, 0, 0]);
            chunk(b"strh", &[kind, codec, &numbers])
        };
        let (codec, bits) = match self.pixels {
            Pixels::Bgr => (*b"\0\0\0\0", 24_u32),
            Pixels::Yuv444 => (*b"YV24", 24),
        };
        let format = [
            words(&[40, *width, *height, 1 | bits << 16]),
            codec.to_vec(),
            words(&[picture_bytes, 0, 0, 0, 0]),
        ];
        let video = stream(b"vids", &codec, 1, fps, n_pictures, 0);
        let mut streams = chunk(b"LIST", &[b"strl", &video, &chunk(b"strf", &[&format.concat()])]);
        if n_streams == 2 {
            let format = words(&[1 | u32::from(*n_channels) << 16, *rate, rate * block, block | 16 << 16]);
            let audio = stream(b"auds", &[0; 4], 1, *rate, n_samples, block);
            streams.extend(chunk(b"LIST", &[b"strl", &audio, &chunk(b"strf", &[&format])]));
        }
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut seconds = bytes.chunks((rate * block) as usize);
        let mut data = Vec::new();
        for second in self.pictures.chunks(fps as usize) {
            second.iter().for_each(|picture| data.extend(chunk(b"00db", &[&self.stored(picture)])));
            data.extend(seconds.next().map_or_else(Vec::new, |sound| chunk(b"01wb", &[sound])));
        }
        let header = chunk(b"LIST", &[b"hdrl", &chunk(b"avih", &[&head]), &streams]);
        chunk(b"RIFF", &[b"AVI ", &header, &chunk(b"LIST", &[b"movi", &data])])
    }
}

fn video(change: impl FnOnce(&mut PretokenizeVideo)) -> Video {
    let mut settings = PretokenizeVideo::default();
    change(&mut settings);
    Video::new(&settings, &PretokenizeImage::default(), &PretokenizeAudio::default(), 1 << 20)
}

fn view(video: &Video, bytes: &[u8]) -> Result<View, String> {
    let content = Content { bytes: bytes.to_vec(), ..Content::default() };
    let estimate = video.needs(&content).views;
    let view = video.views(content)?.remove(0);
    assert_eq!(check_tiling(&view), Ok(()));
    assert!(estimate > 0 && estimate * 20 > view.bytes.len() as u64, "{estimate} of {}", view.bytes.len());
    Ok(view)
}

fn file(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/data/video/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// `(kind, meta, bytes)` of each segment.
fn parts(view: &View) -> Vec<(&'static str, Value, &[u8])> {
    let part = |segment: &Segment| {
        let meta = serde_json::from_str(segment.meta.as_ref().unwrap()).unwrap();
        (segment.kind, meta, &view.bytes[segment.bytes.start as usize..segment.bytes.end as usize])
    };
    view.segments.iter().map(part).collect()
}

#[derive(Debug, PartialEq)]
struct Picture {
    frame: u64,
    seconds: f64,
    size: (u64, u64),
    rgb: Vec<u8>,
}

/// The pictures in a document.
fn pictures(view: &View) -> Vec<Picture> {
    let patches: Vec<_> = parts(view).into_iter().filter(|(kind, ..)| *kind == "patch").collect();
    patches.chunk_by(|(_, a, _), (_, b, _)| a["frame"] == b["frame"]).map(picture).collect()
}

/// Puts a picture together from its patches.
fn picture(patches: &[(&'static str, Value, &[u8])]) -> Picture {
    let number = |meta: &Value, key: &str| meta[key].as_u64().unwrap();
    let end = |at: &str, length: &str| {
        patches.iter().map(|(_, meta, _)| number(meta, at) + number(meta, length)).max().unwrap()
    };
    let (width, height) = (end("x", "w"), end("y", "h"));
    let mut rgb = vec![0; (3 * width * height) as usize];
    for (_, meta, bytes) in patches {
        let [x, y, w] = ["x", "y", "w"].map(|key| number(meta, key));
        for (row, pixels) in (y..).zip(bytes.chunks((3 * w) as usize)) {
            let start = (3 * (row * width + x)) as usize;
            rgb[start..start + pixels.len()].copy_from_slice(pixels);
        }
    }
    let first = &patches[0].1;
    assert!(patches.iter().all(|(_, meta, _)| meta["t"] == first["t"]));
    let (frame, seconds) = (number(first, "frame"), first["t"].as_f64().unwrap());
    Picture { frame, seconds, size: (width, height), rgb }
}

fn samples(view: &View) -> Vec<i16> {
    let sound = parts(view).into_iter().filter(|(kind, ..)| *kind == "frame");
    let bytes = sound.flat_map(|(.., bytes)| bytes.to_vec()).collect::<Vec<u8>>();
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn pictures_at_even_times_and_all_sound_come_back_as_they_were() {
    let made = Made::new((33, 18), 10, 25);
    let view = view(&video(|v| v.fps = 2.0), &made.avi()).unwrap();
    assert_eq!((view.modality, &view.name), ("video", &None));
    let found = pictures(&view);
    let expected = |frame: u64| Picture {
        frame,
        seconds: frame as f64 / 2.0,
        size: (33, 18),
        rgb: made.rgb(5 * frame as usize),
    };
    assert_eq!(found.len(), 5);
    for (frame, picture) in (0..).zip(&found) {
        assert!(*picture == expected(frame), "{frame}, {} seconds, {:?}", picture.seconds, picture.size);
    }
    assert_eq!(samples(&view), made.sound.0);
}

#[test]
fn sound_stands_before_the_first_picture_that_is_shown_later() {
    let made = Made::new((8, 8), 5, 10);
    let view = view(&video(|_| {}), &made.avi()).unwrap();
    let parts = parts(&view);
    assert_eq!((parts[0].0, &parts[0].1["t"]), ("patch", &Value::from(0.0)));
    assert_eq!(parts[0].1.to_string(), r#"{"x":0,"y":0,"w":8,"h":8,"frame":0,"t":0.0}"#);
    assert_eq!(parts[1].1.to_string(), r#"{"start":0.0,"length":0.02,"channel":0,"rate":8000}"#);
    // A picture, a second of sound in frames of 20 ms, a picture, a second of sound.
    let patches: Vec<usize> = (0..parts.len()).filter(|i| parts[*i].0 == "patch").collect();
    assert_eq!((patches, parts.len()), (vec![0, 51], 102));
    assert_eq!(parts[52].1["start"], Value::from(1.0));
}

#[test]
fn settings_of_image_and_audio_cut_pictures_and_sound() {
    let mut made = Made::new((40, 20), 5, 5);
    made.sound = ((0..16_000).map(|i| if i % 2 == 0 { 1000 } else { 3000 }).collect(), 2);
    let settings = PretokenizeVideo { size: 20, ..PretokenizeVideo::default() };
    let image = PretokenizeImage { patch: 5, max_pixels: 1, ..PretokenizeImage::default() };
    let audio = PretokenizeAudio { mono: true, frame_ms: 500, max_seconds: 1, ..PretokenizeAudio::default() };
    let view = view(&Video::new(&settings, &image, &audio, 1 << 20), &made.avi()).unwrap();
    let found = pictures(&view);
    assert_eq!((found.len(), found[0].size), (1, (20, 10)));
    assert_eq!(view.segments.len(), 4 * 2 + 2);
    assert_eq!(samples(&view), vec![2000; 8000]);
    let silent = video(|v| v.audio = false);
    assert!(samples(&self::view(&silent, &made.avi()).unwrap()).is_empty());
}

#[test]
fn more_pictures_than_the_film_has_repeat_what_is_shown() {
    let made = Made::new((4, 4), 2, 3);
    let found = pictures(&view(&video(|v| v.fps = 4.0), &made.avi()).unwrap());
    assert_eq!(found.iter().map(|f| f.seconds).collect::<Vec<_>>(), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    for (k, picture) in found.iter().enumerate() {
        assert_eq!(picture.rgb, made.rgb(k / 2));
    }
    // And less than one a second leave out what is between.
    let found = pictures(&view(&video(|v| v.fps = 0.75), &made.avi()).unwrap());
    assert_eq!(found.iter().map(|f| f.seconds).collect::<Vec<_>>(), [0.0, 1.0 / 0.75]);
    assert_eq!(found[1].rgb, made.rgb(2));
}

#[test]
fn colours_are_those_of_the_standard() {
    let mut made = Made::new((16, 16), 1, 1);
    made.pixels = Pixels::Yuv444;
    let colour = |made: &mut Made, yuv: [u8; 3]| {
        let n = (made.size.0 * made.size.1) as usize;
        made.pictures = vec![yuv.iter().flat_map(|value| vec![*value; n]).collect()];
        pictures(&view(&video(|v| v.size = 16), &made.avi()).unwrap())[0].rgb[..3].to_vec()
    };
    // BT.601: black, white, grey, then the primaries at full amplitude.
    for (yuv, rgb) in [
        ([16, 128, 128], [0, 0, 0]),
        ([235, 128, 128], [255, 255, 255]),
        ([126, 128, 128], [128, 128, 128]),
        ([81, 90, 240], [254, 0, 0]),
        ([145, 54, 34], [0, 255, 1]),
        ([41, 240, 110], [0, 0, 255]),
        // Beyond black and white.
        ([0, 128, 128], [0, 0, 0]),
        ([255, 128, 128], [255, 255, 255]),
    ] {
        assert_eq!(colour(&mut made, yuv), rgb, "{yuv:?}");
    }
    // BT.709 for what is as large as high definition.
    made.size = (1280, 16);
    assert_eq!(colour(&mut made, [63, 102, 240]), [255, 1, 0]);
}

#[test]
fn every_planar_pixel_is_counted_for_itself() {
    let mut made = Made::new((9, 7), 1, 1);
    made.pixels = Pixels::Yuv444;
    let rgb = pictures(&view(&video(|_| {}), &made.avi()).unwrap()).remove(0).rgb;
    let plane = |n: usize, i: usize| f64::from(made.pictures[0][n * 63 + i]);
    for (i, pixel) in rgb.chunks(3).enumerate() {
        let (y, u, v) =
            ((plane(0, i) - 16.0) / 219.0, (plane(1, i) - 128.0) / 224.0, (plane(2, i) - 128.0) / 224.0);
        let (red, blue) = (y + 1.402 * v, y + 1.772 * u);
        let green = (y - 0.299 * red - 0.114 * blue) / 0.587;
        for (got, expected) in pixel.iter().zip([red, green, blue]) {
            let expected = (255.0 * expected).clamp(0.0, 255.0);
            assert!((f64::from(*got) - expected).abs() < 0.51, "{got} for {expected} at {i}");
        }
    }
}

#[test]
fn encoded_films_are_read_with_their_sound() {
    for (name, rate) in [
        ("h264_aac.mp4", 16_000),
        ("fragments.mp4", 16_000),
        ("vp9_opus.webm", 48_000),
        ("theora_vorbis.ogv", 16_000),
    ] {
        let view = view(&video(|v| v.fps = 10.0), &file(name)).unwrap();
        let found = pictures(&view);
        assert!((13..=15).contains(&found.len()), "{name}: {} pictures", found.len());
        assert!(found.iter().all(|picture| picture.size == (48, 32)), "{name}");
        assert!(found.windows(2).all(|pair| pair[0].seconds < pair[1].seconds), "{name}");
        // What hardly changed may not have been encoded anew.
        let n_changes = found.windows(2).filter(|pair| pair[0].rgb != pair[1].rgb).count();
        assert!(n_changes > 4, "{name}: {n_changes} changes");
        let sound = samples(&view);
        let seconds = sound.len() as f64 / f64::from(rate);
        assert!((1.4..1.7).contains(&seconds), "{name}: {seconds} seconds of sound");
        // 440 Hz: as many waves as there should be.
        let middle = &sound[sound.len() / 4..sound.len() * 3 / 4];
        let n_waves = middle.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        let expected = 440.0 * middle.len() as f64 / f64::from(rate);
        assert!((n_waves as f64 - expected).abs() < 0.02 * expected + 2.0, "{name}: {n_waves} waves");
    }
}

#[test]
fn a_film_that_is_to_be_turned_is() {
    let [upright, turned] = ["h264_aac.mp4", "turned.mp4"]
        .map(|name| pictures(&view(&video(|_| {}), &file(name)).unwrap()).remove(0));
    assert_eq!((upright.size, turned.size), ((48, 32), (32, 48)));
    let at = |rgb: &[u8], width: usize, x: usize, y: usize| rgb[3 * (y * width + x)..][..3].to_vec();
    // By a quarter, against the clock: the last column becomes the first row.
    for (x, y) in [(0, 0), (5, 0), (31, 47), (7, 40)] {
        assert_eq!(at(&turned.rgb, 32, x, y), at(&upright.rgb, 48, 47 - y, x));
    }
}

#[test]
fn a_film_without_its_last_bytes_is_refused() {
    let mut whole = vec![("avi", Made::new((8, 8), 5, 10).avi())];
    whole.extend(
        ["h264_aac.mp4", "fragments.mp4", "vp9_opus.webm", "theora_vorbis.ogv"]
            .map(|name| (name, file(name))),
    );
    for (name, bytes) in whole {
        let (every, video) = (bytes.len() / 60, video(|_| {}));
        assert!(view(&video, &bytes).is_ok(), "{name}");
        for end in (1..8).chain((1..60).map(|i| i * every)).chain(1..4).map(|n| bytes.len() - n) {
            let cut = Content { bytes: bytes[..end].to_vec(), ..Content::default() };
            // Between two fragments nothing tells that there were more.
            if let Ok(views) = video.views(cut) {
                assert_eq!(
                    name,
                    "fragments.mp4",
                    "{end} of {} bytes give {} bytes",
                    bytes.len(),
                    views[0].bytes.len()
                );
            }
        }
    }
}

#[test]
fn what_opens_other_files_is_not_opened() {
    let outside = format!("{}/tests/data/video/h264_aac.mp4", env!("CARGO_MANIFEST_DIR"));
    for text in [
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{outside}\n#EXT-X-ENDLIST\n"),
        format!("ffconcat version 1.0\nfile '{outside}'\n"),
        format!(
            "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"><BaseURL>{outside}</BaseURL></MPD>"
        ),
        format!(
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=tool:{outside}\n"
        ),
        "YUV4MPEG2 W4 H4 F1:1 Ip A1:1 C444\nFRAME\n".to_owned() + &"x".repeat(48),
    ] {
        let reason = view(&video(|_| {}), text.as_bytes()).unwrap_err();
        assert!(reason.starts_with("failed to decode: "), "{reason}");
    }
}

#[test]
fn what_is_no_film_says_so() {
    let reason = |bytes: &[u8]| {
        let content = Content { bytes: bytes.to_vec(), ..Content::default() };
        assert_eq!(video(|_| {}).needs(&content), Needs::default());
        video(|_| {}).views(content).unwrap_err()
    };
    assert_eq!(reason(b""), "failed to decode: an empty file is no film");
    assert_eq!(reason(b"no film"), "failed to decode: Invalid data found when processing input");
    let mut sound_alone = Made::new((4, 4), 1, 1).avi();
    let at = sound_alone.windows(4).position(|four| four == b"vids").unwrap();
    sound_alone[at..at + 4].copy_from_slice(b"txts");
    assert_eq!(reason(&sound_alone), "failed to decode: no pictures");
}

#[test]
fn limits_hold_before_and_while_decoding() {
    let made = Made::new((16, 8), 5, 10);
    let refused = |change: fn(&mut PretokenizeVideo)| view(&video(change), &made.avi()).unwrap_err();
    assert_eq!(
        refused(|v| v.max_pixels = 127),
        "16 x 8 pixels, more than pretokenize.video.max_pixels = 127"
    );
    assert_eq!(refused(|v| v.max_seconds = 1), "2.0 seconds, more than pretokenize.video.max_seconds = 1");
    let of_bytes = |most| {
        let default =
            (&PretokenizeVideo::default(), &PretokenizeImage::default(), &PretokenizeAudio::default());
        view(&Video::new(default.0, default.1, default.2, most), &made.avi())
    };
    let whole = 2 * 16 * 8 * 3 + 2 * 16_000;
    assert_eq!(of_bytes(whole).unwrap().bytes.len() as u64, whole);
    let reason = of_bytes(whole - 1).unwrap_err();
    assert_eq!(reason, too_long_decoded(whole, whole - 1));
    // A header that tells less than there is.
    let mut longer = made.avi();
    for name in [b"vids", b"auds"] {
        let at = longer.windows(4).position(|four| four == name).unwrap();
        longer[at + 32..at + 36].copy_from_slice(&1_u32.to_le_bytes());
    }
    let video = Video::new(
        &PretokenizeVideo { max_seconds: 1, ..PretokenizeVideo::default() },
        &PretokenizeImage::default(),
        &PretokenizeAudio::default(),
        1 << 20,
    );
    let reason = video.views(Content { bytes: longer, ..Content::default() }).unwrap_err();
    assert!(reason.ends_with("more than pretokenize.video.max_seconds = 1"), "{reason}");
}

#[test]
fn the_same_film_gives_the_same_document() {
    for name in ["h264_aac.mp4", "vp9_opus.webm", "theora_vorbis.ogv"] {
        let (video, bytes) = (video(|v| v.fps = 5.0), file(name));
        let first = view(&video, &bytes).unwrap();
        std::thread::scope(|scope| {
            let again: Vec<_> = (0..4).map(|_| scope.spawn(|| view(&video, &bytes).unwrap())).collect();
            again.into_iter().for_each(|again| assert!(again.join().unwrap() == first, "{name}"));
        });
    }
}

#[test]
fn damaged_films_end_in_an_error_or_in_segments_that_tile() {
    let mut seed = 1_u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    let video = video(|v| v.fps = 3.0);
    let mut whole = vec![Made::new((8, 8), 5, 10).avi()];
    whole.extend(["h264_aac.mp4", "fragments.mp4", "vp9_opus.webm", "theora_vorbis.ogv"].map(file));
    for good in whole {
        for _ in 0..60 {
            let mut bytes = good.clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                match below(3) {
                    0 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][below(5)],
                    1 => bytes[at] ^= 1 << below(8),
                    _ => drop(bytes.drain(at..(at + below(9)).min(bytes.len()))),
                }
            }
            let content = Content { bytes, ..Content::default() };
            video.needs(&content);
            if let Ok(views) = video.views(content) {
                assert_eq!(check_tiling(&views[0]), Ok(()));
            }
        }
    }
}

#[test]
fn quarter_turns_and_mirrors_are_told_from_other_matrices() {
    use super::colour::Turn;
    let matrix = |numbers: [i32; 9]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_ne_bytes()).collect() };
    let one = 1 << 16;
    let turn = |a, b, c, d| Turn::of_matrix(&matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30]));
    let letters = vec![b'a', 0, 0, b'b', 0, 0, b'c', 0, 0, b'd', 0, 0, b'e', 0, 0, b'f', 0, 0];
    let shown = |turn: Option<Turn>| {
        let ((width, _), rgb) = turn.unwrap().apply((3, 2), letters.clone());
        let rows: Vec<String> = rgb
            .chunks(3 * width as usize)
            .map(|row| row.chunks(3).map(|pixel| char::from(pixel[0])).collect())
            .collect();
        rows.join("/")
    };
    assert_eq!(shown(turn(one, 0, 0, one)), "abc/def");
    assert_eq!(shown(turn(-one, 0, 0, -one)), "fed/cba");
    assert_eq!(shown(turn(-one, 0, 0, one)), "cba/fed");
    // Clockwise, against the clock.
    assert_eq!(shown(turn(0, one, -one, 0)), "da/eb/fc");
    assert_eq!(shown(turn(0, -one, one, 0)), "cf/be/ad");
    assert_eq!(turn((f64::from(one) * (PI / 4.0).cos()) as i32, one, -one, one), None);
    assert_eq!(Turn::of_matrix(&[0; 7]), None);
}
