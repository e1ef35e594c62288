//! The segments of a picture in, its pixels out, and what the model says of each. Knows nothing of terminals or pages.

use std::ops::Range;

use serde::Deserialize;

use super::{Inspected, heat};

const BYTES_PER_PIXEL: usize = 3;

/// A colour, or none where the ground is to be seen.
pub(super) type Pixel = Option<[u8; 3]>;

/// A picture that was cut into segments.
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[height × width]`.
    pub(super) colours: Vec<Pixel>,
    /// `[height × width]`, nats: mean uncertainty about the three bytes of a pixel.
    pub(super) entropies: Vec<f32>,
    /// `[height × width]`: number of the patch that holds a pixel's first byte.
    pub(super) patches: Vec<usize>,
    /// The segments it was cut into.
    pub(super) tiles: Vec<Tile>,
    /// Pictures in the document; this is the first.
    pub(super) n_pictures: usize,
}

/// A rectangle of a picture, whose bytes are its rows of RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) bytes: Range<usize>,
}

/// Pixels that are drawn as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[height × width]`.
    pub(super) pixels: Vec<Pixel>,
}

impl Picture {
    /// The first picture of the document; `None` if it has none, or one that its segments do not fill.
    pub(super) fn of(document: &Inspected) -> Option<Picture> {
        let mut tiles = tiles(document)?;
        let starts_picture = |tile: &Tile| tile.x == 0 && tile.y == 0;
        let n_pictures = tiles.iter().filter(|tile| starts_picture(tile)).count();
        let next = tiles.iter().skip(1).position(starts_picture);
        tiles.truncate(next.map_or(tiles.len(), |next| next + 1));

        let width = tiles.iter().map(|tile| tile.x + tile.width).max()?;
        let height = tiles.iter().map(|tile| tile.y + tile.height).max()?;
        let n_pixels = width.checked_mul(height)?;
        if tiles.iter().map(|tile| tile.width * tile.height).sum::<usize>() != n_pixels {
            return None;
        }
        let mut picture = Picture {
            width,
            height,
            colours: vec![None; n_pixels],
            entropies: vec![0.0; n_pixels],
            patches: vec![0; n_pixels],
            tiles,
            n_pictures,
        };
        picture.fill(document);
        Some(picture)
    }

    fn fill(&mut self, document: &Inspected) {
        let mut starts = document.patch_starts().enumerate().peekable();
        let mut patch = 0;
        for tile in &self.tiles {
            let bytes = document.bytes[tile.bytes.clone()].chunks_exact(BYTES_PER_PIXEL);
            let entropies = document.entropies[tile.bytes.clone()].chunks_exact(BYTES_PER_PIXEL);
            for (i, (bytes, entropies)) in bytes.zip(entropies).enumerate() {
                let byte = tile.bytes.start + BYTES_PER_PIXEL * i;
                while let Some((number, _)) = starts.next_if(|(_, start)| *start <= byte) {
                    patch = number;
                }
                let pixel = (tile.y + i / tile.width) * self.width + tile.x + i % tile.width;
                self.colours[pixel] = Some([bytes[0], bytes[1], bytes[2]]);
                self.entropies[pixel] = entropies.iter().sum::<f32>() / BYTES_PER_PIXEL as f32;
                self.patches[pixel] = patch;
            }
        }
    }

    /// The size at which it fills at most `width` × `height`: made smaller in its proportions, or larger by a whole number up to 8.
    pub(super) fn fit(&self, width: usize, height: usize) -> (usize, usize) {
        let times = (width / self.width).min(height / self.height).min(8);
        if times > 0 {
            return (self.width * times, self.height * times);
        }
        // The one of its sides that fills its room decides.
        if self.width * height > self.height * width {
            (width.max(1), (self.height * width / self.width).max(1))
        } else {
            ((self.width * height / self.height).max(1), height.max(1))
        }
    }

    /// Its colours at another size.
    pub(super) fn drawn(&self, width: usize, height: usize) -> Canvas {
        let pixels = self.resampled(width, height, |pixels| {
            let (mut sum, mut count) = ([0; 3], 0);
            for [r, g, b] in pixels.filter_map(|pixel| self.colours[pixel]) {
                sum = [sum[0] + u64::from(r), sum[1] + u64::from(g), sum[2] + u64::from(b)];
                count += 1;
            }
            (count > 0).then(|| sum.map(|sum| (sum / count) as u8))
        });
        Canvas { width, height, pixels }
    }

    /// Its entropies at another size, nats: means of pixels.
    pub(super) fn entropies_at(&self, width: usize, height: usize) -> Vec<f32> {
        self.resampled(width, height, |pixels| {
            let (sum, count) =
                pixels.fold((0.0, 0), |(sum, count), p| (sum + f64::from(self.entropies[p]), count + 1));
            (sum / f64::from(count)) as f32
        })
    }

    /// At another size, the numbers of the patches of a pixel of those that become one.
    pub(super) fn patches_at(&self, width: usize, height: usize) -> Vec<usize> {
        self.resampled(width, height, |pixels| pixels.map(|pixel| self.patches[pixel]).next().unwrap_or(0))
    }

    /// Its entropies at another size, in colours.
    pub(super) fn heat(&self, width: usize, height: usize) -> Canvas {
        let max = self.max_entropy();
        let share = |entropy: f32| if max > 0.0 { entropy / max } else { 0.0 };
        let pixels =
            self.entropies_at(width, height).into_iter().map(|entropy| Some(heat(share(entropy)))).collect();
        Canvas { width, height, pixels }
    }

    /// Of a pixel, nats.
    pub(super) fn max_entropy(&self) -> f32 {
        self.entropies.iter().copied().fold(0.0, f32::max)
    }

    /// Draws where its tiles begin on `canvas`, which shows it at another size; `false` if they are too small for that.
    pub(super) fn draw_grid(&self, canvas: &mut Canvas) -> bool {
        const LEAST: usize = 4;
        let at = |tile: &Tile| (tile.x * canvas.width / self.width, tile.y * canvas.height / self.height);
        let Some(first) = self.tiles.first() else { return false };
        let beyond = Tile { x: first.width, y: first.height, ..first.clone() };
        let (step_x, step_y) = at(&beyond);
        if step_x < LEAST || step_y < LEAST {
            return false;
        }
        let lines: Vec<_> = self
            .tiles
            .iter()
            .map(|tile| {
                let end = Tile { x: tile.x + tile.width, y: tile.y + tile.height, ..tile.clone() };
                (at(tile), at(&end))
            })
            .collect();
        for ((left, top), (right, bottom)) in lines {
            if top > 0 {
                (left..right).for_each(|x| canvas.contrast(x, top));
            }
            if left > 0 {
                // Not the corner twice.
                (top + usize::from(top > 0)..bottom).for_each(|y| canvas.contrast(left, y));
            }
        }
        true
    }

    /// `of` the pixels that become one, for each of `width` × `height`.
    fn resampled<T>(
        &self,
        width: usize,
        height: usize,
        of: impl Fn(&mut dyn Iterator<Item = usize>) -> T,
    ) -> Vec<T> {
        let run = |i: usize, to: usize, from: usize| {
            let start = i * from / to;
            start..((i + 1) * from / to).max(start + 1)
        };
        let mut resampled = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let columns = run(x, width, self.width);
                let mut pixels = run(y, height, self.height)
                    .flat_map(|y| columns.clone().map(move |x| y * self.width + x));
                resampled.push(of(&mut pixels));
            }
        }
        resampled
    }
}

impl Canvas {
    /// With `other`, of the same height, at its right and nothing between.
    pub(super) fn beside(&self, gap: usize, other: &Canvas) -> Canvas {
        let rows = self.pixels.chunks(self.width).zip(other.pixels.chunks(other.width));
        let pixels = rows.flat_map(|(left, right)| [left, &vec![None; gap], right].concat()).collect();
        Canvas { width: self.width + gap + other.width, height: self.height, pixels }
    }

    /// As a PNG file.
    pub(super) fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let rgba: Vec<u8> =
            self.pixels.iter().flat_map(|pixel| pixel.map_or([0; 4], |[r, g, b]| [r, g, b, 255])).collect();
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&rgba)?;
        writer.finish()?;
        Ok(png)
    }

    /// Makes a pixel darker or lighter, so that it stands out.
    fn contrast(&mut self, x: usize, y: usize) {
        if let Some(colour) = &mut self.pixels[y * self.width + x] {
            let towards = if luminance(*colour) < 128 { 255 } else { 0 };
            *colour = colour.map(|value| ((u16::from(value) + towards) / 2) as u8);
        }
    }
}

/// How bright a colour is, of 255 (ITU-R BT.601).
pub(super) fn luminance([r, g, b]: [u8; 3]) -> u32 {
    (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)) / 1000
}

/// The rectangles of the document; `None` if there are none, or one that is not what its segment holds.
fn tiles(document: &Inspected) -> Option<Vec<Tile>> {
    #[derive(Deserialize)]
    struct Rectangle {
        x: u32,
        y: u32,
        w: u32,
        h: u32,
    }

    let mut tiles = Vec::new();
    for segment in document.segments.iter().filter(|segment| segment.kind == "patch") {
        let Rectangle { x, y, w, h } = segment.meta()?;
        let bytes = segment.range();
        let n_pixels = u64::from(w) * u64::from(h);
        if n_pixels == 0 || !bytes.len().is_multiple_of(BYTES_PER_PIXEL) {
            return None;
        }
        if (bytes.len() / BYTES_PER_PIXEL) as u64 != n_pixels {
            return None;
        }
        tiles.push(Tile { x: x as usize, y: y as usize, width: w as usize, height: h as usize, bytes });
    }
    (!tiles.is_empty()).then_some(tiles)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{document, segment},
        *,
    };

    /// A picture whose pixels tell where they are, in tiles of `side`; every second byte is uncertain and each tile a patch.
    pub(in super::super) fn scored(width: usize, height: usize, side: usize) -> Inspected {
        let (mut bytes, mut segments, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for y in (0..height).step_by(side) {
            for x in (0..width).step_by(side) {
                let (w, h) = (side.min(width - x), side.min(height - y));
                let start = bytes.len();
                for (y, x) in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (y, x))) {
                    bytes.extend([x as u8, y as u8, 7]);
                }
                starts.push(start);
                let meta = format!(r#"{{"x":{x},"y":{y},"w":{w},"h":{h}}}"#);
                segments.push(segment("patch", start as u64..bytes.len() as u64, &meta));
            }
        }
        let entropies: Vec<f32> = (0..bytes.len()).map(|i| if i % 2 == 0 { 3.0 } else { 0.0 }).collect();
        Inspected { segments, modality: "image".into(), ..document(&bytes, &starts, &entropies) }
    }

    #[test]
    fn a_picture_is_rebuilt_from_its_tiles() {
        let picture = Picture::of(&scored(5, 3, 2)).unwrap();
        assert_eq!((picture.width, picture.height, picture.tiles.len(), picture.n_pictures), (5, 3, 6, 1));
        for y in 0..3 {
            for x in 0..5 {
                assert_eq!(picture.colours[y * 5 + x], Some([x as u8, y as u8, 7]));
                assert_eq!(picture.patches[y * 5 + x], y / 2 * 3 + x / 2);
            }
        }
        assert_eq!(picture.entropies[..2], [2.0, 1.0]);
        assert_eq!(picture.max_entropy(), 2.0);
    }

    #[test]
    fn of_many_pictures_the_first_is_shown() {
        let mut twice = scored(4, 4, 2);
        let again: Vec<_> = twice
            .segments
            .iter()
            .map(|s| segment("patch", s.bytes.start..s.bytes.end, s.meta.as_ref().unwrap()))
            .collect();
        twice.segments.extend(again);
        let picture = Picture::of(&twice).unwrap();
        assert_eq!((picture.width, picture.height, picture.tiles.len(), picture.n_pictures), (4, 4, 4, 2));
    }

    #[test]
    fn rectangles_that_lie_are_no_picture() {
        let lies = [
            r#"{"x":0,"y":0,"w":4294967295,"h":4294967295}"#,
            r#"{"x":4294967295,"y":4294967295,"w":1,"h":1}"#,
            r#"{"x":1,"y":0,"w":1,"h":1}"#,
            r#"{"x":0,"y":0,"w":0,"h":1}"#,
            r#"{"x":0,"y":0,"w":1,"h":2}"#,
            r#"{"x":-1,"y":0,"w":1,"h":1}"#,
            "{",
        ];
        for lie in lies {
            let lying = Inspected { segments: vec![segment("patch", 0..3, lie)], ..scored(1, 1, 1) };
            assert!(Picture::of(&lying).is_none(), "{lie}");
        }
        assert!(Picture::of(&scored(1, 1, 1)).is_some());
        assert!(Picture::of(&document(b"abc", &[0], &[1.0; 3])).is_none());
    }

    #[test]
    fn it_is_made_to_fit() {
        let fit = |width, height, w, h| Picture::of(&scored(width, height, 8)).unwrap().fit(w, h);
        assert_eq!(fit(10, 5, 40, 40), (40, 20));
        assert_eq!(fit(2, 2, 400, 400), (16, 16));
        assert_eq!(fit(100, 50, 40, 40), (40, 20));
        assert_eq!(fit(50, 100, 40, 40), (20, 40));
        assert_eq!(fit(100, 1, 10, 10), (10, 1));
    }

    #[test]
    fn a_smaller_drawing_shows_means() {
        let picture = Picture::of(&scored(4, 4, 4)).unwrap();
        assert_eq!(picture.drawn(2, 2).pixels[3], Some([2, 2, 7]));
        assert_eq!(picture.drawn(4, 4).pixels, picture.colours);
        assert_eq!(picture.entropies_at(1, 1), [1.5]);
        assert_eq!(picture.heat(1, 1).pixels, [Some(heat(0.75))]);
        assert_eq!(picture.drawn(8, 8).pixels[9], Some([0, 0, 7]));
    }

    #[test]
    fn the_grid_is_drawn_where_tiles_begin_and_only_if_there_is_room() {
        let picture = Picture::of(&scored(8, 8, 4)).unwrap();
        let mut canvas = picture.drawn(8, 8);
        assert!(picture.draw_grid(&mut canvas));
        let plain = picture.drawn(8, 8);
        let on_grid = |i: usize| i % 8 == 4 || i / 8 == 4;
        assert!((0..64).all(|i| (canvas.pixels[i] != plain.pixels[i]) == on_grid(i)));
        assert!(!picture.draw_grid(&mut picture.drawn(7, 7)));
    }

    #[test]
    fn canvases_stand_side_by_side() {
        let of = |value| Canvas { width: 1, height: 2, pixels: vec![Some([value; 3]); 2] };
        let both = of(1).beside(1, &of(2));
        let row = [Some([1; 3]), None, Some([2; 3])];
        assert_eq!(both, Canvas { width: 3, height: 2, pixels: [row, row].concat() });
    }

    proptest! {
        #[test]
        fn any_picture_fits_any_room(w in 1usize..40, h in 1usize..40, side in 1usize..9, room in (1usize..50, 1usize..50)) {
            let picture = Picture::of(&scored(w, h, side)).unwrap();
            let (width, height) = picture.fit(room.0, room.1);
            prop_assert!((1..=room.0).contains(&width) && (1..=room.1).contains(&height));
            let mut canvas = picture.drawn(width, height);
            picture.draw_grid(&mut canvas);
            prop_assert!(canvas.pixels.iter().all(Option::is_some));
        }
    }
}
