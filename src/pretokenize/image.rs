//! From an image file to its pixels as 8-bit RGB, cut into square patches in reading order: one document whose segments are the
//! patches, each with its rectangle. Knows nothing of shards, and of formats only what `file` tells.
//!
//! Bytes of the document: one patch after the other, each row by row from the top, each pixel as R, G, B. Patches at the right and
//! lower edge hold what is there. Rectangles are in pixels of the image as it is meant to be seen: turned by its EXIF orientation,
//! laid on white where it is transparent, made smaller to `max_side` where that is set.

mod file;
mod picture;
mod resize;
mod whole;

use self::{file::File, picture::Picture};
use super::{Content, Needs, Pretokenizer, View, too_long_decoded};
use crate::{config::PretokenizeImage, data::Segment};

/// Images as patches of their pixels.
#[derive(Clone, Debug)]
pub struct Image {
    settings: PretokenizeImage,
    max_document_bytes: u64,
}

impl Image {
    /// Cuts as `settings` say and makes no document of more than `max_document_bytes`.
    pub fn new(settings: &PretokenizeImage, max_document_bytes: u64) -> Self {
        Self { settings: settings.clone(), max_document_bytes }
    }

    /// The patches of a picture of `rgb`, row by row, and its bytes in their order.
    ///
    /// # Errors
    /// When it is too large.
    pub fn of_pixels(
        &self,
        width: u32,
        height: u32,
        rgb: Vec<u8>,
    ) -> Result<(Vec<Segment>, Vec<u8>), String> {
        self.check((width, height))?;
        let mut picture = Picture { width, height, rgb };
        let (width, height) = self.fitted((width, height));
        if (width, height) != (picture.width, picture.height) {
            picture = resize::lanczos3(&picture, width, height);
        }
        Ok(cut(picture, self.settings.patch, self.settings.merge_below))
    }

    /// Bytes of a document of a picture of `size`.
    #[cfg(feature = "video")]
    pub(super) fn fitted_bytes(&self, size: (u32, u32)) -> u64 {
        n_bytes(self.fitted(size))
    }

    /// Width and height that the header tells, unless the image is refused for them.
    fn size_told(&self, content: &Content) -> Option<(u32, u32)> {
        let file = File::open(&content.bytes, content.path.as_deref(), self.settings.max_pixels).ok()?;
        self.check(file.size()).ok()?;
        Some(file.size())
    }

    /// Width and height of the document's image if the file's is `size`.
    fn fitted(&self, size: (u32, u32)) -> (u32, u32) {
        self.settings.max_side.map_or(size, |max_side| fitted(size, max_side))
    }

    /// What the header alone forbids.
    fn check(&self, (width, height): (u32, u32)) -> Result<(), String> {
        let n_pixels = u64::from(width) * u64::from(height);
        if n_pixels == 0 {
            return Err(format!("an image of {width} x {height} pixels has no content"));
        }
        if n_pixels > self.settings.max_pixels {
            return Err(format!(
                "{width} x {height} pixels, more than pretokenize.image.max_pixels = {}",
                self.settings.max_pixels
            ));
        }
        let n_bytes = n_bytes(self.fitted((width, height)));
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        Ok(())
    }
}

impl Pretokenizer for Image {
    fn needs(&self, content: &Content) -> Needs {
        let Some((width, height)) = self.size_told(content) else { return Needs::default() };
        Needs {
            views: n_bytes(self.fitted((width, height))),
            // Four samples of 16 bits a pixel, before they are RGB.
            beside: 8 * u64::from(width) * u64::from(height),
        }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let file = File::open(&content.bytes, content.path.as_deref(), self.settings.max_pixels)?;
        let size = file.size();
        self.check(size)?;
        let Picture { width, height, rgb } = file.decode()?;
        let (segments, bytes) = self.of_pixels(width, height, rgb)?;
        Ok(vec![View { modality: "image", name: None, segments, bytes }])
    }
}

/// Whether a JPEG that lies in another file can be decoded and is all there, by the same rules; its width and height.
pub(super) fn check_jpeg(bytes: &[u8], max_pixels: u64) -> Result<(u32, u32), String> {
    let file = File::open(bytes, None, max_pixels)?;
    let (width, height) = file.size();
    let n_pixels = u64::from(width) * u64::from(height);
    if n_pixels > max_pixels {
        return Err(format!("{n_pixels} pixels, more than {max_pixels}"));
    }
    file.decode().map(|_| (width, height))
}

/// Bytes of an image of that size in RGB.
fn n_bytes((width, height): (u32, u32)) -> u64 {
    3 * u64::from(width) * u64::from(height)
}

/// `size` made smaller so that no side is longer than `max_side`: the longer one becomes that, the other what keeps the aspect,
/// rounded half up, but not 0.
fn fitted(size: (u32, u32), max_side: u32) -> (u32, u32) {
    let longest = u64::from(size.0.max(size.1));
    if longest <= u64::from(max_side) {
        return size;
    }
    let fit = |side: u32| (u64::from(side) * u64::from(max_side) + longest / 2) / longest;
    (fit(size.0).max(1) as u32, fit(size.1).max(1) as u32)
}

/// The patches of a picture and its bytes in their order.
///
/// Patches are squares of `patch` pixels, less at the right and lower edge, in reading order. With `merge_below`, neighbours in a row
/// of patches that each have an [entropy] below it become one segment; rows stay apart, so that segments are rectangles in
/// reading order.
fn cut(mut picture: Picture, patch: u32, merge_below: Option<f64>) -> (Vec<Segment>, Vec<u8>) {
    let row_bytes = 3 * picture.width as usize;
    // The rows of patches share their columns, and so how the meta of a patch begins.
    let heads: Vec<String> =
        (0..picture.width).step_by(patch as usize).map(|x| format!(r#"{{"x":{x}"#)).collect();
    let n_patches = heads.len() * picture.height.div_ceil(patch) as usize;
    let mut segments = Vec::with_capacity(if merge_below.is_none() { n_patches } else { 0 });
    let mut rows = Vec::new();
    let mut end = 0;
    for y in (0..picture.height).step_by(patch as usize) {
        let height = patch.min(picture.height - y);
        let spans = spans(&picture, y, height, patch, merge_below);
        // A row of patches takes the place of its rows of pixels: a second picture would cost more than the copying.
        let start = y as usize * row_bytes;
        let band = &mut picture.rgb[start..start + height as usize * row_bytes];
        rows.clear();
        rows.extend_from_slice(band);
        let mut rest = band;
        let mut tail = (0, String::new());
        for (x, width) in spans {
            let (span, left) = (3 * width as usize, 3 * x as usize);
            let (segment, after) = std::mem::take(&mut rest).split_at_mut(span * height as usize);
            copy_columns(segment, span, &rows, row_bytes, left);
            rest = after;
            if tail.0 != width {
                tail = (width, format!(r#","y":{y},"w":{width},"h":{height}}}"#));
            }
            let meta = [heads[(x / patch) as usize].as_str(), &tail.1].concat();
            let start = end;
            end += 3 * u64::from(width) * u64::from(height);
            segments.push(Segment { kind: "patch", bytes: start..end, meta: Some(meta) });
        }
    }
    (segments, picture.rgb)
}

/// Copies `span` bytes from `left` on of each of `rows` to `out`, one behind the other.
fn copy_columns(out: &mut [u8], span: usize, rows: &[u8], row_bytes: usize, left: usize) {
    // A length that the compiler knows saves a call for each row: patches of 8, 14, 16 and 32 pixels.
    match span {
        24 => copy_known::<24>(out, rows, row_bytes, left),
        42 => copy_known::<42>(out, rows, row_bytes, left),
        48 => copy_known::<48>(out, rows, row_bytes, left),
        96 => copy_known::<96>(out, rows, row_bytes, left),
        _ => {
            for (out, row) in out.chunks_exact_mut(span).zip(rows.chunks_exact(row_bytes)) {
                out.copy_from_slice(&row[left..left + span]);
            }
        }
    }
}

fn copy_known<const SPAN: usize>(out: &mut [u8], rows: &[u8], row_bytes: usize, left: usize) {
    for (out, row) in out.as_chunks_mut::<SPAN>().0.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        out.copy_from_slice(&row[left..left + SPAN]);
    }
}

/// First column and width of each segment in the row of patches that begins at `y`.
fn spans(picture: &Picture, y: u32, height: u32, patch: u32, merge_below: Option<f64>) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let mut may_grow = false;
    for x in (0..picture.width).step_by(patch as usize) {
        let width = patch.min(picture.width - x);
        let is_low = merge_below
            .is_some_and(|bound| entropy((y..y + height).flat_map(|row| picture.row(row, x, width))) < bound);
        match spans.last_mut() {
            Some((_, grown)) if may_grow && is_low => *grown += width,
            _ => spans.push((x, width)),
        }
        may_grow = is_low;
    }
    spans
}

/// Shannon entropy of how often each value occurs, in bits per byte: 0 where all are the same, at most 8.
///
/// Additions, multiplications and divisions in a fixed order alone, so that every machine draws the same line.
fn entropy<'a>(bytes: impl Iterator<Item = &'a u8>) -> f64 {
    let mut counts = [0_u64; 256];
    bytes.for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = counts.iter().sum::<u64>() as f64;
    let bits = counts.iter().filter(|count| **count > 0).map(|count| *count as f64);
    bits.map(|count| count * log2(total / count)).sum::<f64>() / total
}

/// Logarithm of a number of at least 1; std's may differ in its last bit from one system to the next.
fn log2(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let mut exponent = (x.to_bits() >> 52) as f64 - 1023.0;
    let mut mantissa = f64::from_bits(x.to_bits() & MANTISSA | 1.0_f64.to_bits());
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), whose argument is below 0.172 here: the first term left out is below 1e-19.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..12).rev().fold(0.0_f64, |sum, k| sum * s * s + 1.0 / f64::from(2 * k + 1));
    exponent + 2.0 * s * series * std::f64::consts::LOG2_E
}

#[cfg(test)]
mod tests;
