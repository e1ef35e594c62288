//! A page in, its picture out. Knows of pixels, not of text.

use std::sync::{Arc, Mutex, PoisonError};

use hayro::{
    PixmapSettings, RenderCache, RenderSettings,
    hayro_interpret::{InterpreterSettings, InterpreterWarning},
    hayro_syntax::{
        Pdf,
        object::{
            Name, Object,
            dict::keys::{HEIGHT, SUBTYPE, WIDTH},
        },
        page::Page,
    },
    vello_cpu::color::palette::css::WHITE,
};

use crate::pretokenize::too_long_decoded;

/// Draws the pages of a file.
pub(super) struct Painter<'a> {
    scale: f32,
    most: u64,
    cache: RenderCache<'a>,
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
    /// At `dpi`, pictures of up to `most` bytes.
    pub(super) fn new(dpi: u32, most: u64) -> Self {
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
        Self { scale: dpi as f32 / 72.0, most, cache: RenderCache::new(), settings, fault }
    }

    /// The picture of `page`, over white.
    ///
    /// # Errors
    /// When it is too large, or when a font or an image would be left out of it.
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
        let output = PixmapSettings { x_scale: self.scale, y_scale: self.scale, bg_color: WHITE };
        let pixels = hayro::render(page, &self.cache, &self.settings, &RenderSettings::default(), &output);
        if let Some(fault) = *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault.to_owned());
        }
        let rgb = pixels.data().iter().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
        Ok(Picture { width: pixels.width().into(), height: pixels.height().into(), rgb })
    }
}

/// Refuses images that have more than `most` bytes once decoded: which of them a page shows is only known when it is drawn.
pub(super) fn check_images(pdf: &Pdf, most: u64) -> Result<(), String> {
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        let dict = stream.dict();
        if dict.get::<Name<'_>>(SUBTYPE).as_deref() != Some(b"Image") {
            continue;
        }
        let side = |key: &[u8]| u64::from(dict.get::<u32>(key).unwrap_or(0));
        let n_bytes = side(WIDTH).saturating_mul(side(HEIGHT)).saturating_mul(4);
        if n_bytes > most {
            return Err(format!("an image of {n_bytes} bytes once decoded, more than {most}"));
        }
    }
    Ok(())
}
