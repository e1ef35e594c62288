use std::io::Cursor;

use super::*;
use image::{
    DynamicImage, ExtendedColorType, Frame, ImageEncoder, ImageFormat, RgbImage, Rgba, RgbaImage,
    codecs::{gif::GifEncoder, jpeg::JpegEncoder, png::PngEncoder},
    metadata::Orientation,
};

const FORMATS: [ImageFormat; 12] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::Gif,
    ImageFormat::WebP,
    ImageFormat::Tiff,
    ImageFormat::Bmp,
    ImageFormat::Qoi,
    ImageFormat::Tga,
    ImageFormat::Pnm,
    ImageFormat::Hdr,
    ImageFormat::OpenExr,
    ImageFormat::Ico,
];

/// A number generator (xorshift64*), so that every run sees the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// A gradient with some noise.
fn rgb(width: u32, height: u32) -> RgbImage {
    let mut random = Random(7);
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 5) as u8, (y * 9) as u8, (x + y) as u8 ^ random.below(8) as u8])
    })
}

fn rgba(width: u32, height: u32) -> RgbaImage {
    let rgb = rgb(width, height);
    RgbaImage::from_fn(width, height, |x, y| {
        let [r, g, b] = rgb.get_pixel(x, y).0;
        Rgba([r, g, b, (x * 7 + y) as u8])
    })
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.into().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// A 37 x 21 file of that format.
fn sample(format: ImageFormat) -> Vec<u8> {
    let picture = DynamicImage::from(rgb(37, 21));
    match format {
        ImageFormat::Hdr | ImageFormat::OpenExr => encoded(picture.to_rgb32f(), format),
        ImageFormat::Ico => encoded(picture.to_rgba8(), format),
        _ => encoded(picture, format),
    }
}

fn content(format: ImageFormat, bytes: Vec<u8>) -> Content {
    let path = (format == ImageFormat::Tga).then(|| "folder/Sample.TGA".to_owned());
    Content { bytes, path, language: None }
}

fn settings(patch: u32) -> PretokenizeImage {
    PretokenizeImage { patch, ..Default::default() }
}

fn view(settings: &PretokenizeImage, content: Content) -> Result<View, String> {
    let image = Image::new(settings, 1 << 20);
    let estimate = image.needs(&content).views;
    let mut views = image.views(content)?;
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].bytes.len() as u64, estimate);
    Ok(views.remove(0))
}

fn rectangles(view: &View) -> Vec<[u32; 4]> {
    let numbers = |segment: &Segment| -> [u32; 4] {
        let meta: serde_json::Value = serde_json::from_str(segment.meta.as_deref().unwrap()).unwrap();
        ["x", "y", "w", "h"].map(|key| meta[key].as_u64().unwrap() as u32)
    };
    view.segments.iter().map(numbers).collect()
}

/// The picture that the segments and their rectangles tell; asserts that both tile it.
fn rebuilt(view: &View) -> RgbImage {
    let rectangles = rectangles(view);
    let width = rectangles.iter().map(|[x, _, w, _]| x + w).max().unwrap();
    let height = rectangles.iter().map(|[_, y, _, h]| y + h).max().unwrap();
    let mut picture = RgbImage::new(width, height);
    let (mut end, mut n_pixels) = (0, 0);
    for (segment, [x, y, w, h]) in view.segments.iter().zip(rectangles) {
        assert_eq!((segment.kind, segment.bytes.start), ("patch", end));
        end = segment.bytes.end;
        n_pixels += w * h;
        let bytes = &view.bytes[segment.bytes.start as usize..end as usize];
        assert_eq!(bytes.len() as u32, 3 * w * h);
        for (i, pixel) in (0..).zip(bytes.as_chunks::<3>().0) {
            picture.put_pixel(x + i % w, y + i / w, image::Rgb(*pixel));
        }
    }
    assert_eq!(end, view.bytes.len() as u64);
    assert_eq!(n_pixels, width * height);
    picture
}

fn decoded(bytes: Vec<u8>) -> RgbImage {
    rebuilt(&view(&settings(8), content(ImageFormat::Png, bytes)).unwrap())
}

#[test]
fn lossless_formats_give_the_pixels_that_went_in() {
    for format in FORMATS {
        let found = rebuilt(&view(&settings(8), content(format, sample(format))).unwrap());
        let worst = found.iter().zip(rgb(37, 21).iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let bound = match format {
            // Eight bits of mantissa under a common exponent.
            ImageFormat::Hdr => 1,
            ImageFormat::Jpeg => 40,
            // One table of 256 colours.
            ImageFormat::Gif => 40,
            _ => 0,
        };
        assert!(worst <= bound, "{format:?}: {worst}");
    }
}

#[test]
fn patches_are_in_reading_order_and_cropped_at_the_edges() {
    let view =
        view(&settings(16), content(ImageFormat::Png, encoded(rgb(37, 21), ImageFormat::Png))).unwrap();
    assert_eq!(
        rectangles(&view),
        [[0, 0, 16, 16], [16, 0, 16, 16], [32, 0, 5, 16], [0, 16, 16, 5], [16, 16, 16, 5], [32, 16, 5, 5]]
    );
    assert_eq!(view.segments[2].meta.as_deref(), Some(r#"{"x":32,"y":0,"w":5,"h":16}"#));
    assert_eq!((view.modality, view.name.as_deref()), ("image", None));
    assert_eq!(rebuilt(&view), rgb(37, 21));
}

#[test]
fn patches_of_any_size_tile_the_image() {
    for (patch, n_segments) in
        [(1, 37 * 21), (8, 15), (14, 6), (16, 6), (20, 4), (32, 2), (36, 2), (65535, 1)]
    {
        let view = view(&settings(patch), content(ImageFormat::Png, encoded(rgb(37, 21), ImageFormat::Png)));
        let view = view.unwrap();
        assert_eq!(view.segments.len(), n_segments);
        assert_eq!(rebuilt(&view), rgb(37, 21));
    }
}

#[test]
fn neighbours_of_low_entropy_are_one_segment_and_rows_stay_apart() {
    // Noise in the second patch of the second row, one colour elsewhere.
    let mut random = Random(3);
    let picture = RgbImage::from_fn(20, 8, |x, y| {
        let is_noisy = (4..8).contains(&x) && y >= 4;
        image::Rgb(std::array::from_fn(|_| if is_noisy { random.below(256) as u8 } else { 200 }))
    });
    let merged = |bound| {
        let settings = PretokenizeImage { merge_below: Some(bound), ..settings(4) };
        let view = view(&settings, content(ImageFormat::Png, encoded(picture.clone(), ImageFormat::Png)));
        let view = view.unwrap();
        assert_eq!(rebuilt(&view), picture);
        rectangles(&view)
    };
    assert_eq!(merged(1.0), [[0, 0, 20, 4], [0, 4, 4, 4], [4, 4, 4, 4], [8, 4, 12, 4]]);
    assert_eq!(merged(0.0).len(), 10);
    assert_eq!(merged(8.0), [[0, 0, 20, 4], [0, 4, 20, 4]]);
}

#[test]
fn entropy_is_in_bits_per_byte() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(entropy([7; 768].iter()), 0.0);
    assert_eq!(entropy([0, 255].iter()), 1.0);
    assert_eq!(entropy(all.iter()), 8.0);
    // 3/4 log2(4/3) + 1/4 log2(4)
    assert!((entropy([0, 0, 0, 1].iter()) - 0.811_278_124_459_132_9).abs() < 1e-15);
}

#[test]
fn log2_is_that_of_the_mathematical_library_to_its_last_bits() {
    for n in 1..20_000_u32 {
        let x = f64::from(n) / 7.0 + 1.0;
        assert!((log2(x) - x.log2()).abs() <= 4.0 * f64::EPSILON * x.log2(), "{x}");
    }
    assert_eq!((log2(1.0), log2(1024.0)), (0.0, 10.0));
}

#[test]
fn transparent_pixels_are_laid_on_white() {
    let found = decoded(encoded(rgba(37, 21), ImageFormat::Png));
    for (x, y, pixel) in rgba(37, 21).enumerate_pixels() {
        let [r, g, b, a] = pixel.0.map(f64::from);
        let expected = [r, g, b].map(|s| ((s * a + 255.0 * (255.0 - a)) / 255.0).round() as u8);
        assert_eq!(found.get_pixel(x, y).0, expected);
    }
}

#[test]
fn grey_and_wide_samples_become_rgb() {
    let grey = image::GrayImage::from_fn(3, 1, |x, _| image::Luma([x as u8]));
    assert_eq!(decoded(encoded(grey.clone(), ImageFormat::Png)).into_raw(), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
    let grey_jpeg =
        decoded(encoded(image::GrayImage::from_pixel(9, 9, image::Luma([77])), ImageFormat::Jpeg));
    assert_eq!(grey_jpeg, RgbImage::from_pixel(9, 9, image::Rgb([77; 3])));
    let wide =
        image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(1, 1, vec![0x01FF, 0x8000, 0xFFFF]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(decoded(encoded(wide.clone(), format)).into_raw(), [1, 128, 255], "{format:?}");
    }
}

#[test]
fn a_tiff_tells_whether_its_colors_are_multiplied_by_alpha() {
    let tiff = |extra_samples: u32| {
        let entry = |tag: u16, kind: u16, count: u32, value: u32| {
            [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat()
        };
        // 1 x 1, 8 bits each (at 134), uncompressed, RGB, at 142, 4 samples, 1 row, 4 bytes.
        let values =
            [(256, 1), (257, 1), (258, 134), (259, 1), (262, 2), (273, 142), (277, 4), (278, 1), (279, 4)];
        let mut file = b"II*\0\x08\0\0\0\x0a\0".to_vec();
        for (tag, value) in values {
            file.extend(entry(tag, 3, if tag == 258 { 4 } else { 1 }, value));
        }
        file.extend(entry(338, 3, 1, extra_samples));
        file.extend([0; 4]);
        file.extend([8, 0, 8, 0, 8, 0, 8, 0]);
        file.extend([0, 50, 100, 100]);
        file
    };
    // s * 100 / 255 + 155 where alpha is yet to be applied, s + 155 where it has been.
    assert_eq!(decoded(tiff(2)).into_raw(), [155, 175, 194]);
    assert_eq!(decoded(tiff(1)).into_raw(), [155, 205, 255]);
}

/// EXIF with that orientation and nothing else.
fn exif(orientation: u8) -> Vec<u8> {
    let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    [b"II*\0\x08\0\0\0\x01\0".as_slice(), &entry, &[0; 4]].concat()
}

/// By the bits of the PNG specification's annex D.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

#[test]
fn pictures_are_turned_as_their_exif_tells() {
    let picture = rgb(11, 6);
    let mut behind = encoded(picture.clone(), ImageFormat::Png);
    let end = behind.split_off(behind.len() - 12);
    let chunk = [b"eXIf".as_slice(), &exif(6)].concat();
    behind.extend((chunk.len() as u32 - 4).to_be_bytes());
    behind.extend_from_slice(&chunk);
    behind.extend(crc(&chunk).to_be_bytes());
    behind.extend(end);
    let (mut before, mut jpeg, mut upright_jpeg) = (Vec::new(), Vec::new(), Vec::new());
    let mut encoder = PngEncoder::new(&mut before);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.write_image(&picture, 11, 6, ExtendedColorType::Rgb8).unwrap();
    let mut encoder = JpegEncoder::new(&mut jpeg);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.encode_image(&picture).unwrap();
    JpegEncoder::new(&mut upright_jpeg).encode_image(&picture).unwrap();

    let turned = image::imageops::rotate90(&picture);
    assert_eq!(decoded(before), turned);
    assert_eq!(decoded(behind), turned);
    assert_eq!(decoded(jpeg), image::imageops::rotate90(&decoded(upright_jpeg)));
}

#[test]
fn an_orientation_that_cannot_be_read_turns_nothing() {
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(exif(200)).unwrap();
    encoder.write_image(&rgb(11, 6), 11, 6, ExtendedColorType::Rgb8).unwrap();
    assert_eq!(decoded(png), rgb(11, 6));
    assert_eq!(Orientation::from_exif_chunk(&exif(200)), None);
}

#[test]
fn an_animation_gives_its_first_frame_but_only_if_it_is_whole() {
    let first = RgbaImage::from_pixel(8, 5, Rgba([255, 0, 0, 255]));
    let second = RgbaImage::from_pixel(8, 5, Rgba([0, 0, 255, 255]));
    let mut gif = Vec::new();
    GifEncoder::new(&mut gif).encode_frames([first, second].map(Frame::new)).unwrap();
    assert_eq!(decoded(gif.clone()), RgbImage::from_pixel(8, 5, image::Rgb([255, 0, 0])));
    gif.truncate(gif.len() - 10);
    let reason = view(&settings(8), content(ImageFormat::Gif, gif)).unwrap_err();
    assert_eq!(reason, "failed to decode gif: the file ends before its trailer");
}

#[test]
fn an_icon_gives_its_largest_picture_whatever_the_colors_of_its_png() {
    let png = encoded(rgb(9, 9), ImageFormat::Png);
    let entry = |side: u8, start: u32, length: u32| {
        [&[side, side, 0, 0, 1, 0, 24, 0][..], &length.to_le_bytes(), &start.to_le_bytes()].concat()
    };
    let length = png.len() as u32;
    let icon = [b"\0\0\x01\0\x02\0".as_slice(), &entry(9, 38, length), &entry(4, 38 + length, 1), &png, b"?"]
        .concat();
    assert_eq!(decoded(icon.clone()), rgb(9, 9));
    let cut = icon[..icon.len() - 2].to_vec();
    assert_eq!(
        view(&settings(8), content(ImageFormat::Ico, cut)).unwrap_err(),
        "failed to decode ico: the file ends before its picture does"
    );
}

#[test]
fn large_images_are_made_smaller_and_none_is_enlarged() {
    let fit = |width, height, max_side| fitted((width, height), max_side);
    assert_eq!(fit(100, 50, 10), (10, 5));
    assert_eq!(fit(3, 1000, 10), (1, 10));
    assert_eq!(fit(1000, 15, 100), (100, 2));
    assert_eq!(fit(10, 10, 10), (10, 10));
    assert_eq!(fit(1, 1, 65535), (1, 1));

    let settings = PretokenizeImage { max_side: Some(20), ..settings(8) };
    let small = view(&settings, content(ImageFormat::Png, encoded(rgb(37, 21), ImageFormat::Png))).unwrap();
    assert_eq!(rebuilt(&small).dimensions(), (20, 11));
    let mut turned = Vec::new();
    let mut encoder = PngEncoder::new(&mut turned);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.write_image(&rgb(37, 21), 37, 21, ExtendedColorType::Rgb8).unwrap();
    assert_eq!(rebuilt(&view(&settings, content(ImageFormat::Png, turned)).unwrap()).dimensions(), (11, 20));
}

#[test]
fn limits_are_checked_by_the_header_alone() {
    // A header of a billion pixels and nothing behind it.
    let mut bomb = encoded(rgb(1, 1), ImageFormat::Png);
    bomb.splice(16..24, [0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    let sum = crc(&bomb[12..29]).to_be_bytes();
    bomb.splice(29..33, sum);
    assert_eq!(
        view(&settings(8), content(ImageFormat::Png, bomb)).unwrap_err(),
        "32768 x 32768 pixels, more than pretokenize.image.max_pixels = 100000000"
    );
    let png = || content(ImageFormat::Png, encoded(rgb(37, 21), ImageFormat::Png));
    let of_pixels = |max_pixels| PretokenizeImage { max_pixels, ..settings(8) };
    assert!(view(&of_pixels(37 * 21), png()).is_ok());
    assert!(view(&of_pixels(37 * 21 - 1), png()).is_err());

    let n_bytes = 3 * 37 * 21;
    assert!(Image::new(&settings(8), n_bytes).views(png()).is_ok());
    assert_eq!(
        Image::new(&settings(8), n_bytes - 1).views(png()).unwrap_err(),
        "2331 bytes once decoded, more than limits.max_document_bytes = 2330"
    );
    let small = PretokenizeImage { max_side: Some(10), ..settings(8) };
    assert!(Image::new(&small, n_bytes - 1).views(png()).is_ok());
}

#[test]
fn what_is_no_image_says_so() {
    let reason = |bytes: &[u8], path: Option<&str>| {
        let content = Content { bytes: bytes.to_vec(), path: path.map(str::to_owned), language: None };
        assert_eq!(Image::new(&settings(8), 1 << 20).needs(&content).views, 0);
        Image::new(&settings(8), 1 << 20).views(content).unwrap_err()
    };
    let unknown = "the first bytes are those of no known image format";
    assert_eq!(reason(b"", Some("a.png")), "an empty file is no image");
    assert_eq!(reason(&(0..=255).collect::<Vec<u8>>(), Some("a.png")), unknown);
    assert_eq!(reason(&[0], None), unknown);
    assert!(reason(b"DDS  and more", None).starts_with("failed to decode dds: "));
    assert!(reason(&[0; 17], Some("a.tga")).starts_with("failed to decode tga: "));
    assert!(
        reason(b"#?RGBE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\nabcd", None)
            .starts_with("failed to decode hdr: ")
    );
    assert!(reason(b"\x89PNG\r\n\x1a\n", None).starts_with("failed to decode png: "));
    let flat = content(ImageFormat::Pnm, b"P6 0 5 255\n".to_vec());
    let reason = Image::new(&settings(8), 1 << 20).views(flat).unwrap_err();
    assert_eq!(reason, "an image of 0 x 5 pixels has no content");
}

#[test]
fn tga_is_known_by_its_last_bytes_or_any_of_its_endings() {
    let file = sample(ImageFormat::Tga);
    let signed = [&file[..], &[0; 8], b"TRUEVISION-XFILE.\0"].concat();
    let pixels = |bytes: &[u8], path: Option<&str>| {
        let content = Content { bytes: bytes.to_vec(), path: path.map(str::to_owned), language: None };
        view(&settings(8), content).map(|view| view.bytes)
    };
    let expected = pixels(&file, Some("a.tga")).unwrap();
    for (bytes, path) in [
        (&signed, None),
        (&signed, Some("a.png")),
        (&file, Some("a.icb")),
        (&file, Some("a.VDA")),
        (&file, Some("a.vst")),
    ] {
        assert_eq!(pixels(bytes, path).as_ref(), Ok(&expected), "{path:?}");
    }
    assert!(pixels(&file, None).is_err());
}

#[test]
fn a_file_of_any_format_that_lacks_its_last_bytes_is_refused() {
    for format in FORMATS {
        let whole = sample(format);
        for length in 0..whole.len() {
            let cut = view(&settings(8), content(format, whole[..length].to_vec()));
            assert!(cut.is_err(), "{format:?} of {length} of {} bytes", whole.len());
        }
    }
}

#[test]
fn a_jpeg_with_scans_of_its_components_apart_must_have_them_all() {
    let segment = |marker: u8, data: &[u8]| {
        [&[0xFF, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat()
    };
    let scan =
        |id: u8| [segment(0xDA, &[1, id, 0, 0, 63, 0]), vec![1, 2, 0xFF, 0, 3, 0xFF, 0xD0, 4]].concat();
    let frame = |marker: u8| {
        [vec![0xFF, 0xD8], segment(marker, &[8, 0, 9, 0, 9, 2, 1, 0x11, 0, 2, 0x11, 0])].concat()
    };
    let end = vec![0xFF, 0xD9];
    let is_whole = |parts: &[Vec<u8>]| whole::check(ImageFormat::Jpeg, &parts.concat(), (9, 9)).is_ok();
    assert!(is_whole(&[frame(0xC0), scan(1), scan(2), end.clone()]));
    assert!(!is_whole(&[frame(0xC0), scan(1), end.clone()]));
    assert!(!is_whole(&[frame(0xC0), scan(1), scan(2)]));
    assert!(!is_whole(&[frame(0xC0), scan(1), scan(2), scan(2), end.clone()]));
    assert!(!is_whole(&[frame(0xC0), scan(1), scan(2), segment(0xFE, b"behind"), end.clone()]));
    assert!(is_whole(&[frame(0xC2), scan(1), scan(2), scan(2), end]));
}

#[test]
fn damaged_files_end_in_an_error_or_in_patches_that_tile() {
    let mut random = Random(1);
    let settings = PretokenizeImage { merge_below: Some(4.0), max_side: Some(30), ..settings(8) };
    for format in FORMATS {
        let good = sample(format);
        for round in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                // Mostly the header, where sizes and offsets are.
                let at = random.below(if round % 2 == 0 { bytes.len() } else { bytes.len().min(64) });
                match random.below(4) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
                    2 => bytes.insert(at, random.below(256) as u8),
                    _ => bytes[at] ^= 1 << random.below(8),
                }
            }
            let image = Image::new(&settings, 1 << 20);
            let content = content(format, bytes);
            let estimate = image.needs(&content).views;
            if let Ok(views) = image.views(content) {
                assert_eq!(estimate, views[0].bytes.len() as u64);
                rebuilt(&views[0]);
            }
        }
    }
}
