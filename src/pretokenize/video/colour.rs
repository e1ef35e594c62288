//! From a decoded picture in whatever layout its codec has to 8-bit RGB. Knows nothing of time.
//!
//! ffmpeg's swscale brings a picture to three whole planes (colour that is stored at a lower resolution is interpolated), and what is RGB
//! already to RGB; from Y'CbCr to RGB it is counted here. Its own way there takes every film for one of standard definition, and the
//! film's own word on its matrix cannot be had: the binding reads it into an enumeration without looking whether it is one of its
//! values, which a hostile file decides. So the matrix goes by size, as players take it where a file says nothing: BT.709
//! from 1280 pixels of width or above 576 lines, else BT.601. Alpha is not looked at, fields stay woven, pixels count as square.

use ffmpeg_next::{
    color::Range,
    format::Pixel,
    frame,
    software::scaling::{Context, Flags},
};

/// Turns pictures of a film into RGB; keeps what swscale prepares, as most are of one size and layout.
#[derive(Default)]
pub(super) struct Colours {
    scaler: Option<(Shape, Context)>,
}

type Shape = (Pixel, u32, u32);

impl Colours {
    /// The pixels of `picture`, row by row from the top, 3 bytes each.
    ///
    /// # Errors
    /// A layout that swscale does not read.
    pub(super) fn rgb(&mut self, picture: &frame::Video) -> Result<Vec<u8>, String> {
        let (format, width, height) = (picture.format(), picture.width(), picture.height());
        let layout = Layout::of(format, picture.color_range());
        let shape = (format, width, height);
        let scaler = match &mut self.scaler {
            Some((known, scaler)) if *known == shape => scaler,
            scaler => {
                let flags = Flags::BILINEAR
                    | Flags::ACCURATE_RND
                    | Flags::BITEXACT
                    | Flags::FULL_CHR_H_INP
                    | Flags::FULL_CHR_H_INT;
                let made = Context::get(format, width, height, layout.target(), width, height, flags);
                let made = made.map_err(|_| format!("pixels of the layout {format:?} are not read"))?;
                &mut scaler.insert((shape, made)).1
            }
        };
        let mut out = frame::Video::new(layout.target(), width, height);
        scaler.run(picture, &mut out).map_err(|error| error.to_string())?;
        let (width, height) = (width as usize, height as usize);
        let row = |plane: usize, y: usize, n: usize| &out.data(plane)[y * out.stride(plane)..][..n];
        let mut rgb = Vec::with_capacity(3 * width * height);
        match layout {
            Layout::Rgb => (0..height).for_each(|y| rgb.extend(row(0, y, 3 * width))),
            Layout::Yuv { is_full, .. } => {
                let matrix = Matrix::new(width >= 1280 || height > 576, is_full);
                for y in 0..height {
                    let planes = row(0, y, width).iter().zip(row(1, y, width)).zip(row(2, y, width));
                    rgb.extend(planes.flat_map(|((y, u), v)| matrix.rgb(*y, *u, *v)));
                }
            }
        }
        Ok(rgb)
    }
}

#[derive(Clone, Copy)]
enum Layout {
    Rgb,
    /// `is_full`: black is 0 and white 255, else 16 and 235. `is_named_full`: swscale knows so from the layout's name, and must be told
    /// that the planes are to be so, too.
    Yuv {
        is_full: bool,
        is_named_full: bool,
    },
}

impl Layout {
    fn of(format: Pixel, range: Range) -> Self {
        let name = format.descriptor().map_or("", |descriptor| descriptor.name());
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&["rgb", "bgr", "gbr", "pal8", "mono", "xyz", "bayer"]) {
            return Layout::Rgb;
        }
        let is_grey = has(&["gray", "ya8", "ya16"]);
        let is_named_full = is_grey || has(&["yuvj"]);
        let is_full = range == Range::JPEG || is_named_full && !(is_grey && range == Range::MPEG);
        Layout::Yuv { is_full, is_named_full }
    }

    fn target(self) -> Pixel {
        match self {
            Layout::Rgb => Pixel::RGB24,
            Layout::Yuv { is_named_full: true, .. } => Pixel::YUVJ444P,
            Layout::Yuv { .. } => Pixel::YUV444P,
        }
    }
}

/// From Y'CbCr to RGB, in steps of 1/65536 (ITU-R BT.601-7 2.5, BT.709-6 3).
struct Matrix {
    black: i32,
    y: i32,
    r_of_v: i32,
    g_of_u: i32,
    g_of_v: i32,
    b_of_u: i32,
}

impl Matrix {
    fn new(is_709: bool, is_full: bool) -> Self {
        let (red, blue) = if is_709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let green = 1.0 - red - blue;
        let (black, luma, chroma) = if is_full { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |x: f64| (65536.0 * x).round() as i32;
        Self {
            black,
            y: fixed(luma),
            r_of_v: fixed(chroma * 2.0 * (1.0 - red)),
            g_of_u: fixed(chroma * 2.0 * (1.0 - blue) * blue / green),
            g_of_v: fixed(chroma * 2.0 * (1.0 - red) * red / green),
            b_of_u: fixed(chroma * 2.0 * (1.0 - blue)),
        }
    }

    fn rgb(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let y = self.y * (i32::from(y) - self.black) + 32768;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let byte = |sum: i32| (sum >> 16).clamp(0, 255) as u8;
        [byte(y + self.r_of_v * v), byte(y - self.g_of_u * u - self.g_of_v * v), byte(y + self.b_of_u * u)]
    }
}

/// Whether rows and columns change places when a picture is shown, and which of the file's axes then run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    is_transposed: bool,
    flip_x: bool,
    flip_y: bool,
}

impl Turn {
    /// Of a display matrix, nine 32-bit numbers in the machine's order of bytes; none if it is not one of quarter turns and mirrors.
    pub(super) fn of_matrix(bytes: &[u8]) -> Option<Self> {
        let at = |i: usize| Some(i32::from_ne_bytes(*bytes.get(4 * i..)?.first_chunk()?).signum());
        // x' = a x + c y, y' = b x + d y.
        let [a, b, c, d] = [at(0)?, at(1)?, at(3)?, at(4)?];
        match (a, b, c, d) {
            (1 | -1, 0, 0, 1 | -1) => Some(Self { is_transposed: false, flip_x: a < 0, flip_y: d < 0 }),
            (0, 1 | -1, 1 | -1, 0) => Some(Self { is_transposed: true, flip_x: b < 0, flip_y: c < 0 }),
            _ => None,
        }
    }

    /// A picture as it is shown: its size and pixels.
    pub(super) fn apply(self, size: (u32, u32), rgb: Vec<u8>) -> ((u32, u32), Vec<u8>) {
        if self == Self::default() {
            return (size, rgb);
        }
        let (old_width, old_height) = (size.0 as usize, size.1 as usize);
        let size = if self.is_transposed { (size.1, size.0) } else { size };
        let old = rgb.as_chunks::<3>().0;
        let mut turned = vec![0; rgb.len()];
        for (y, row) in turned.chunks_exact_mut(3 * size.0 as usize).enumerate() {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let (x, y) = if self.is_transposed { (y, x) } else { (x, y) };
                let x = if self.flip_x { old_width - 1 - x } else { x };
                let y = if self.flip_y { old_height - 1 - y } else { y };
                *pixel = old[y * old_width + x];
            }
        }
        (size, turned)
    }
}
