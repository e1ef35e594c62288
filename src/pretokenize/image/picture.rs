//! From samples as decoders give them to a picture of 8-bit RGB, and a picture turned. Knows nothing of files.
//!
//! Rules: a 16-bit sample gives its high byte, as Pillow and libpng's `png_set_strip_16` have it; a float sample is bounded to 0..1,
//! times 255, rounded half up, without tone mapping or gamma (NaN gives 0); grey becomes R = G = B. Alpha `a` of 8 bits lays a sample
//! `s` on white as `(s * a + 255 * (255 - a)) / 255`, rounded to the nearest, which is what Pillow's `alpha_composite` gives; a sample
//! that is multiplied by its alpha already as `s + 255 - a`, at most 255. 16-bit samples and their alpha are reduced first; float samples
//! are laid on white before they are reduced.

use image::{ColorType, metadata::Orientation};

/// Pixels of 8-bit RGB: row by row from the top, `3 * width * height` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

impl Picture {
    /// Of samples as the `image` crate's decoders give them: row by row, interleaved, in the machine's order of bytes.
    pub(super) fn of_samples(
        size: (u32, u32),
        color: ColorType,
        is_premultiplied: bool,
        samples: Vec<u8>,
    ) -> Result<Picture, String> {
        let on_white =
            |s: u8, a: u8| if is_premultiplied { s.saturating_add(255 - a) } else { on_white(s, a) };
        let rgb = match color {
            ColorType::Rgb8 => samples,
            ColorType::L8 => each_pixel(&samples, |[l]| [l; 3]),
            ColorType::La8 => each_pixel(&samples, |[l, a]| [on_white(l, a); 3]),
            ColorType::Rgba8 => each_pixel(&samples, |[r, g, b, a]| match a {
                // Nothing of the white is seen, as with most pixels of most files.
                255 => [r, g, b],
                _ => [r, g, b].map(|s| on_white(s, a)),
            }),
            ColorType::L16 => each_pixel(&samples, |l: [u8; 2]| [high_bytes::<2, 1>(l)[0]; 3]),
            ColorType::La16 => each_pixel(&samples, |la: [u8; 4]| {
                let [l, a] = high_bytes(la);
                [on_white(l, a); 3]
            }),
            ColorType::Rgb16 => each_pixel(&samples, high_bytes::<6, 3>),
            ColorType::Rgba16 => each_pixel(&samples, |rgba: [u8; 8]| {
                let [r, g, b, a] = high_bytes(rgba);
                [r, g, b].map(|s| on_white(s, a))
            }),
            ColorType::Rgb32F => each_pixel(&samples, |rgb| floats::<12, 3>(rgb).map(of_float)),
            ColorType::Rgba32F => each_pixel(&samples, |rgba| {
                let [r, g, b, a] = floats::<16, 4>(rgba);
                let a = a.clamp(0.0, 1.0);
                let weight = if is_premultiplied { 1.0 } else { a };
                [r, g, b].map(|s| of_float(s * weight + (1.0 - a)))
            }),
            _ => return Err(format!("samples of the kind {color:?} are not read")),
        };
        Ok(Picture { width: size.0, height: size.1, rgb })
    }

    /// `width` pixels of row `y` from column `x` on.
    pub(super) fn row(&self, y: u32, x: u32, width: u32) -> &[u8] {
        let start = 3 * (y as usize * self.width as usize + x as usize);
        &self.rgb[start..start + 3 * width as usize]
    }

    /// As `orientation` says it is meant to be seen.
    pub(super) fn turned(self, orientation: Orientation) -> Picture {
        // Whether rows and columns change places, and which of the file's axes then run backwards.
        let (is_transposed, flip_x, flip_y) = match orientation {
            Orientation::NoTransforms => return self,
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::Rotate180 => (false, true, true),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate90 => (true, false, true),
            Orientation::Rotate270FlipH => (true, true, true),
            Orientation::Rotate270 => (true, true, false),
        };
        let (old_width, old_height) = (self.width as usize, self.height as usize);
        let (width, height) =
            if is_transposed { (self.height, self.width) } else { (self.width, self.height) };
        let old = self.rgb.as_chunks::<3>().0;
        let mut rgb = vec![0; self.rgb.len()];
        for (y, row) in rgb.chunks_exact_mut(3 * width as usize).enumerate() {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let (x, y) = if is_transposed { (y, x) } else { (x, y) };
                let x = if flip_x { old_width - 1 - x } else { x };
                let y = if flip_y { old_height - 1 - y } else { y };
                *pixel = old[y * old_width + x];
            }
        }
        Picture { width, height, rgb }
    }
}

fn each_pixel<const N: usize>(samples: &[u8], rgb_of: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let samples = samples.as_chunks::<N>().0;
    let mut rgb = vec![0; 3 * samples.len()];
    for (pixel, out) in samples.iter().zip(rgb.as_chunks_mut::<3>().0) {
        *out = rgb_of(*pixel);
    }
    rgb
}

fn on_white(sample: u8, alpha: u8) -> u8 {
    let [sample, alpha] = [sample, alpha].map(u32::from);
    ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// The high bytes of `M` samples of 16 bits.
fn high_bytes<const N: usize, const M: usize>(samples: [u8; N]) -> [u8; M] {
    let samples = samples.as_chunks::<2>().0;
    std::array::from_fn(|i| (u16::from_ne_bytes(samples[i]) >> 8) as u8)
}

/// `M` samples of 32 bits.
fn floats<const N: usize, const M: usize>(samples: [u8; N]) -> [f32; M] {
    let samples = samples.as_chunks::<4>().0;
    std::array::from_fn(|i| f32::from_ne_bytes(samples[i]))
}

fn of_float(sample: f32) -> u8 {
    (sample.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb_of(color: ColorType, samples: Vec<u8>) -> Vec<u8> {
        Picture::of_samples((1, 1), color, false, samples).unwrap().rgb
    }

    fn bytes_of_16(samples: &[u16]) -> Vec<u8> {
        samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect()
    }

    fn bytes_of_32(samples: &[f32]) -> Vec<u8> {
        samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect()
    }

    #[test]
    fn alpha_lays_a_sample_on_white_rounded_to_the_nearest() {
        for sample in 0..=255_u8 {
            for alpha in 0..=255_u8 {
                let exact =
                    (f64::from(sample) * f64::from(alpha) + 255.0 * (255.0 - f64::from(alpha))) / 255.0;
                assert_eq!(f64::from(on_white(sample, alpha)), exact.round(), "{sample} {alpha}");
            }
        }
        assert_eq!(rgb_of(ColorType::Rgba8, vec![10, 20, 30, 255]), [10, 20, 30]);
        assert_eq!(rgb_of(ColorType::Rgba8, vec![10, 20, 30, 0]), [255; 3]);
        assert_eq!(rgb_of(ColorType::La8, vec![0, 128]), [127; 3]);
        let premultiplied = Picture::of_samples((1, 1), ColorType::Rgba8, true, vec![0, 100, 200, 100]);
        assert_eq!(premultiplied.unwrap().rgb, [155, 255, 255]);
    }

    #[test]
    fn sixteen_bits_give_their_high_byte_before_alpha_is_applied() {
        assert_eq!(rgb_of(ColorType::L16, bytes_of_16(&[0x12FF])), [0x12; 3]);
        assert_eq!(rgb_of(ColorType::Rgb16, bytes_of_16(&[0x0080, 0xFFFF, 0x8000])), [0, 255, 128]);
        assert_eq!(rgb_of(ColorType::La16, bytes_of_16(&[0x00FF, 0x80FF])), [127; 3]);
        assert_eq!(rgb_of(ColorType::Rgba16, bytes_of_16(&[0, 0x7F00, 0xFF00, 0xFFFF])), [0, 127, 255]);
    }

    #[test]
    fn floats_are_bounded_and_rounded_half_up() {
        assert_eq!(rgb_of(ColorType::Rgb32F, bytes_of_32(&[-1.0, 0.5, 7.0])), [0, 128, 255]);
        assert_eq!(rgb_of(ColorType::Rgb32F, bytes_of_32(&[f32::NAN, f32::INFINITY, 0.001])), [0, 255, 0]);
        assert_eq!(rgb_of(ColorType::Rgba32F, bytes_of_32(&[1.0, 0.0, 0.5, 0.5])), [255, 128, 191]);
        let premultiplied =
            Picture::of_samples((1, 1), ColorType::Rgba32F, true, bytes_of_32(&[0.5, 0.0, 0.25, 0.5]));
        assert_eq!(premultiplied.unwrap().rgb, [255, 128, 191]);
    }

    #[test]
    fn every_orientation_turns_as_the_image_crate_does() {
        let rgb: Vec<u8> = (0..3 * 5 * 3).collect();
        let buffer = image::RgbImage::from_raw(5, 3, rgb.clone()).unwrap();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = image::DynamicImage::ImageRgb8(buffer.clone());
            expected.apply_orientation(orientation);
            let turned = Picture { width: 5, height: 3, rgb: rgb.clone() }.turned(orientation);
            assert_eq!((turned.width, turned.height), (expected.width(), expected.height()), "{exif}");
            assert_eq!(turned.rgb, expected.as_bytes(), "{exif}");
        }
    }
}
