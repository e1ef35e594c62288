//! A page in, a reason not to draw it out: that it would take more memory or stack than there is, of which a few bytes of content may
//! ask for any amount. Goes through the content as drawing does, but draws nothing, and stops where the room is used up. Knows nothing
//! of colours.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use hayro::{
    hayro_interpret::{
        BlendMode, CacheKey as _, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
        InterpreterCache, InterpreterSettings, Paint, SoftMask,
        font::{Glyph, GlyphRun},
        interpret_page,
        pattern::{Pattern, TilingPattern},
    },
    kurbo::{Affine, BezPath, PathEl, Point, Rect, Shape as _},
};
use hayro_syntax::{
    object::{
        Stream,
        dict::keys::{HEIGHT, SMASK, WIDTH},
    },
    page::Page,
};

/// Of whatever is drawn, before anything of it is.
const STEP_BYTES: f64 = 256.0;
/// Of an element of a path.
const ELEMENT_BYTES: f64 = 32.0;
/// Of four pixels in a row or column that an outline goes through, while it is made, and of all of these that are told from each other,
/// until the page is done; measured: 9 and 48.
const CROSSING_BYTES: f64 = 10.0;
const KEPT_BYTES: f64 = 50.0;
/// Length of the outline of a letter, in ems.
const GLYPH_EMS: f64 = 8.0;
/// Units of glyphs in an em.
const EM: f64 = 1000.0;
const PIXEL_BYTES: f64 = 4.0;
/// Pixels of a stencil that is decoded to ask whether it lets a pattern through; of larger ones it is taken for granted.
const STENCIL_PIXELS: f64 = 65_536.0;

/// Glyphs that are content themselves, tiles and masks within each other, of which the interpreter bounds only the others; real files
/// stay far below.
const MOST_WITHIN: u32 = 28;

/// Thrown where it is too much, and caught by [`check`]: an interpreter asks nobody whether it may go on.
enum TooMuch {
    Bytes,
    Within,
}

/// Refuses a page that takes more than `most` bytes while it is drawn, in a picture of `size` in which `place` puts it, or whose content
/// shows content that shows content, without end.
///
/// # Errors
/// When it does.
pub(super) fn check<'a>(
    page: &'a Page<'a>,
    place: Affine,
    size: (u16, u16),
    cache: &InterpreterCache<'a>,
    settings: &InterpreterSettings,
    most: u64,
) -> Result<(), String> {
    let picture = Rect::new(0.0, 0.0, size.0.into(), size.1.into());
    let mut bill = Bill { picture, left: most as f64, masks: HashSet::new(), n_within: 0 };
    let mut context = Context::new(place, picture, cache, page.xref(), settings.clone());
    let gone_through = AssertUnwindSafe(|| interpret_page(page, &mut context, &mut bill));
    match catch_unwind(gone_through) {
        Ok(()) => Ok(()),
        Err(thrown) => Err(match thrown.downcast_ref() {
            Some(TooMuch::Bytes) => format!("drawing it takes more than {most} bytes"),
            Some(TooMuch::Within) => {
                format!("more than {MOST_WITHIN} glyphs, tiles and masks within each other")
            }
            None => resume_unwind(thrown),
        }),
    }
}

struct Bill {
    picture: Rect,
    /// Bytes.
    left: f64,
    /// Those that are drawn already.
    masks: HashSet<u128>,
    n_within: u32,
}

impl Bill {
    fn pay(&mut self, bytes: f64) {
        self.left -= bytes;
        if self.left < 0.0 || self.left.is_nan() {
            resume_unwind(Box::new(TooMuch::Bytes));
        }
    }

    /// Goes through content that is shown by other content.
    fn within(&mut self, go_through: impl FnOnce(&mut Self)) {
        if self.n_within == MOST_WITHIN {
            resume_unwind(Box::new(TooMuch::Within));
        }
        self.n_within += 1;
        go_through(self);
        self.n_within -= 1;
    }

    /// Pays for so many outlines like that of `path`.
    fn pay_path(&mut self, path: &BezPath, transform: Affine, times: f64) {
        let (mut length, mut point, mut start) = (0.0, Point::ZERO, Point::ZERO);
        // No line has more of itself in the picture.
        let most = self.picture.width() + self.picture.height();
        let mut go = |from: &mut Point, to: &[Point]| {
            for to in to {
                length += (transform * *to - transform * *from).hypot().min(most);
                *from = *to;
            }
        };
        for element in path.elements() {
            match *element {
                PathEl::MoveTo(to) => (start, point) = (to, to),
                PathEl::LineTo(to) => go(&mut point, &[to]),
                PathEl::QuadTo(via, to) => go(&mut point, &[via, to]),
                PathEl::CurveTo(first, second, to) => go(&mut point, &[first, second, to]),
                PathEl::ClosePath => go(&mut point, &[start]),
            }
        }
        let n_elements = path.elements().len() as f64;
        self.pay(STEP_BYTES + times * (ELEMENT_BYTES * n_elements + self.outline_bytes(length)));
    }

    /// Of an outline so many pixels long.
    fn outline_bytes(&self, length: f64) -> f64 {
        let n_crossings = length / 4.0;
        CROSSING_BYTES * n_crossings + KEPT_BYTES * n_crossings.min(self.picture.area() / 16.0)
    }

    /// Pays for the colours of what lies in `area` of the picture.
    fn pay_paint(&mut self, paint: &Paint<'_>, area: impl FnOnce() -> Rect) {
        let Paint::Pattern(pattern) = paint else { return };
        self.pay(PIXEL_BYTES * area().intersect(self.picture).area());
        if let Pattern::Tiling(tile) = &**pattern {
            let before = self.left;
            self.within(|bill| {
                tile.interpret(bill, tile.matrix, false);
            });
            self.pay((before - self.left) * (n_copies(tile) - 1.0));
        }
    }

    /// Pays for a picture of the page in the shape of a stencil, and what shows through it.
    fn pay_stencil(&mut self, paint: &Paint<'_>, area: Rect) {
        if let Paint::Pattern(_) = paint {
            self.pay((PIXEL_BYTES + 1.0) * self.picture.area());
            self.pay_paint(paint, || area);
        }
    }

    fn pay_mask(&mut self, mask: Option<&SoftMask<'_>>) {
        if let Some(mask) = mask
            && self.masks.insert(mask.cache_key())
        {
            self.pay((PIXEL_BYTES + 1.0) * self.picture.area());
            self.within(|bill| mask.interpret(bill));
        }
    }
}

/// Times that a tile is drawn for one that is shown: so many lie over each other, or side by side.
fn n_copies(tile: &TilingPattern<'_>) -> f64 {
    let copies = |length: f64, step: f32| (length / f64::from(step.abs())).ceil() + 1.0;
    copies(tile.bbox.width(), tile.x_step) * copies(tile.bbox.height(), tile.y_step)
}

/// Outlines that are drawn of one.
fn n_outlines(mode: &DrawMode) -> f64 {
    match mode {
        DrawMode::Fill(_) => 1.0,
        DrawMode::Stroke(_) => 2.0,
        DrawMode::FillAndStroke(..) => 3.0,
        DrawMode::Invisible => 0.0,
    }
}

impl<'a> Device<'a> for Bill {
    fn draw_path(&mut self, path: &BezPath, props: DrawProps<'a>, mode: &DrawMode) {
        self.pay_path(path, props.transform, n_outlines(mode));
        self.pay_paint(&props.paint, || props.transform.transform_rect_bbox(path.bounding_box()));
        self.pay_mask(props.soft_mask.as_ref());
    }

    fn push_clip_path(&mut self, clip: &ClipPath) {
        self.pay_path(&clip.path, Affine::IDENTITY, 1.0);
    }

    fn push_transparency_group(&mut self, _: f32, mask: Option<SoftMask<'a>>, _: BlendMode) {
        self.pay(STEP_BYTES);
        self.pay_mask(mask.as_ref());
    }

    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, mode: &DrawMode) {
        for glyph in run.glyphs() {
            let transform = props.transform * glyph.transform();
            match &**glyph {
                Glyph::Outline(_) => {
                    let [a, b, c, d, ..] = transform.as_coeffs();
                    let em = EM * [a, b, c, d].into_iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                    let most = self.picture.width() + self.picture.height();
                    let length = GLYPH_EMS * em.min(most);
                    self.pay(STEP_BYTES + n_outlines(mode) * self.outline_bytes(length));
                    let em = Rect::new(-EM, -EM, 2.0 * EM, 2.0 * EM);
                    self.pay_paint(&props.paint, || transform.transform_rect_bbox(em));
                }
                Glyph::Type3(content) => {
                    self.pay(STEP_BYTES);
                    self.within(|bill| {
                        content.interpret(bill, props.transform, glyph.transform(), &props.paint);
                    });
                }
            }
        }
        self.pay_mask(props.soft_mask.as_ref());
    }

    fn draw_image(&mut self, image: Image<'a, '_>, props: ImageDrawProps<'a>) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let place = props.transform.transform_rect_bbox(Rect::new(0.0, 0.0, width, height));
        self.pay(STEP_BYTES);
        if place.overlaps(self.picture) {
            let mask = match &image {
                Image::Raster(image) => image.stream().dict().get::<Stream<'_>>(SMASK),
                Image::Stencil(_) => None,
            };
            let side = |key| mask.as_ref().and_then(|mask| mask.dict().get::<f64>(key)).unwrap_or(0.0);
            let [a, b, c, d, ..] = props.transform.as_coeffs();
            let (x, y) = (a.hypot(b), c.hypot(d));
            // Made smaller before it is drawn, but not larger, unless it is made smaller in the other direction.
            let times = if x < 1.0 || y < 1.0 { x * y } else { 1.0 };
            let n_pixels = (width * height * times).max(1.0);
            let mask_pixels = side(WIDTH) * side(HEIGHT) * times.min(1.0);
            self.pay(PIXEL_BYTES * (n_pixels + if mask_pixels > n_pixels { mask_pixels } else { 0.0 }));
            match &image {
                Image::Stencil(stencil) if width * height <= STENCIL_PIXELS => {
                    stencil.with_stencil(|_, paint| self.pay_stencil(paint, place), None);
                }
                Image::Stencil(_) => self.pay((2.0 * PIXEL_BYTES + 1.0) * self.picture.area()),
                Image::Raster(_) => {}
            }
        }
        self.pay_mask(props.soft_mask.as_ref());
    }

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}
}
