//! A page in, its picture out. Knows of pixels, not of text, and of images only what is to be asked before.

use std::sync::{Arc, Mutex, PoisonError};

use hayro::{
    RenderCache, RenderSettings,
    hayro_interpret::{InterpreterCache, InterpreterSettings, InterpreterWarning, TransformExt as _},
    kurbo::Affine,
    render_into,
    vello_cpu::{
        self, Level, Pixmap, RasterizerSettings, RenderContext, TargetInit, color::palette::css::WHITE,
    },
};
use hayro_syntax::page::Page;

pub(super) use self::image::{check as check_image, check_images};
use super::streams::Bounds;
use crate::pretokenize::too_long_decoded;

mod bill;
mod image;

/// A picture itself, as often as it may lie in memory while its page is drawn, besides what its content takes.
const LAYERS: u64 = 8;

/// Draws the pages of a file.
pub(super) struct Painter<'a> {
    scale: f32,
    most: u64,
    bounds: Bounds,
    cache: RenderCache<'a>,
    /// Of the way through a page before it is drawn.
    checked: InterpreterCache<'a>,
    settings: InterpreterSettings,
    /// What was left out of the page that is drawn.
    fault: Arc<Mutex<Option<&'static str>>>,
}

/// RGB, 8 bits each, row by row from the top, without padding.
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

impl<'a> Painter<'a> {
    /// At `dpi`, pictures of up to `most` bytes, drawn within `bounds`.
    pub(super) fn new(dpi: u32, most: u64, bounds: Bounds) -> Self {
        let fault = Arc::new(Mutex::new(None));
        let told = Arc::clone(&fault);
        let settings = InterpreterSettings {
            warning_sink: Arc::new(move |warning| {
                let fault = match warning {
                    InterpreterWarning::UnsupportedFont => "a font cannot be read",
                    InterpreterWarning::ImageDecodeFailure => "an image cannot be decoded",
                    // A note or a form's field without a look of its own has none.
                    _ => return,
                };
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            }),
            ..InterpreterSettings::default()
        };
        let (cache, checked) = (RenderCache::new(), InterpreterCache::new());
        Self { scale: dpi as f32 / 72.0, most, bounds, cache, checked, settings, fault }
    }

    /// The picture of `page`, over white.
    ///
    /// # Errors
    /// When it is too large, when drawing it takes too much memory, or when a font or an image would be left out of it.
    pub(super) fn draw(&self, page: &'a Page<'a>) -> Result<Picture, String> {
        let (width, height) = page.render_dimensions();
        let (width, height) = (width * self.scale, height * self.scale);
        if !(1.0..65536.0).contains(&width) || !(1.0..65536.0).contains(&height) {
            return Err(format!("a picture of {width} × {height} pixels, not of 1 to 65535 each"));
        }
        let n_bytes = 3 * u64::from(width as u32) * u64::from(height as u32);
        if n_bytes > self.most {
            return Err(too_long_decoded(n_bytes, self.most));
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let place = Affine::scale(f64::from(self.scale)) * page.initial_transform(true).to_kurbo();
        let size = (width as u16, height as u16);
        let most = self.bounds.one() + LAYERS * n_bytes;
        bill::check(page, place, size, &self.checked, &self.settings, most)?;
        let pixels = self.pixels(page, place, size);
        if let Some(fault) = *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault.to_owned());
        }
        let rgb = pixels.data().iter().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
        Ok(Picture { width: pixels.width().into(), height: pixels.height().into(), rgb })
    }

    /// Draws `page` as `hayro::render` does, but with the instructions that each processor of its kind has: others round otherwise.
    fn pixels(&self, page: &'a Page<'a>, place: Affine, (width, height): (u16, u16)) -> Pixmap {
        let settings = vello_cpu::RenderSettings { level: Level::baseline(), num_threads: 0 };
        let mut context = RenderContext::new_with(width, height, settings);
        render_into(page, &self.cache, &self.settings, &RenderSettings::default(), &mut context, place);
        context.flush();
        let mut pixels = Pixmap::new(width, height);
        let over_white =
            RasterizerSettings { target_init: TargetInit::Clear(WHITE), ..RasterizerSettings::default() };
        context.render_with(&mut pixels, &mut vello_cpu::Resources::default(), over_white);
        pixels
    }
}
