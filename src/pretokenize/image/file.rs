//! From the bytes of an image file to its picture: its format, its header, then its pixels, or the reason why not. Knows nothing of
//! patches.
//!
//! The format is told by the first bytes, and for TGA alone, which has no such mark, by its last ones or the path's ending. Of an animation or a file of
//! several pages the first picture is taken; of an icon the one of most colours, then most pixels. Metadata that cannot be read says
//! nothing about orientation.
//!
//! JPEG is decoded by `zune-jpeg` itself, in its strict mode: the `image` crate's way to it paints grey what a damaged file lacks.
//! All other formats are the `image` crate's.

use std::io::Cursor;

use image::{ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Picture, whole};
use crate::pretokenize::sniff::is_tga;

/// Bytes a pixel of the widest samples, four floats.
const MAX_PIXEL_BYTES: u64 = 16;
/// What a decoder may hold besides as much as its picture takes: windows of a decompressor, tables, metadata.
const WORKING_BYTES: u64 = 16 << 20;

/// A file whose header is read and whose pixels are not.
pub(super) struct File<'a> {
    format: ImageFormat,
    bytes: &'a [u8],
    size: (u32, u32),
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>),
    Other(Box<dyn ImageDecoder + 'a>),
}

impl<'a> File<'a> {
    /// Reads the header of `bytes`, which were at `path`. What is held for that is bounded by `max_pixels`, which the picture itself may
    /// still exceed.
    pub(super) fn open(bytes: &'a [u8], path: Option<&str>, max_pixels: u64) -> Result<File<'a>, String> {
        let (mut format, mut bytes) = (format_of(bytes, path)?, bytes);
        if format == ImageFormat::Ico
            && let Some(png) = whole::png_of_icon(bytes)?
        {
            (format, bytes) = (ImageFormat::Png, png);
        }
        if format == ImageFormat::Jpeg {
            let options = DecoderOptions::default()
                .set_strict_mode(true)
                .set_max_width(usize::from(u16::MAX))
                .set_max_height(usize::from(u16::MAX))
                .jpeg_set_out_colorspace(ColorSpace::RGB);
            let mut decoder = Box::new(JpegDecoder::new_with_options(ZCursor::new(bytes), options));
            decoder.decode_headers().map_err(|e| failed(format, &e))?;
            let (width, height) = decoder.dimensions().unwrap_or_default();
            return Ok(File {
                format,
                bytes,
                size: (width as u32, height as u32),
                decoder: Decoder::Jpeg(decoder),
            });
        }
        let header_pixels = match format {
            ImageFormat::Png => whole::png_pixels(bytes),
            ImageFormat::OpenExr if whole::exr_pixels(bytes) > max_pixels => {
                return Err(format!("a data window of more than {max_pixels} pixels"));
            }
            _ => max_pixels,
        };
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits(header_pixels.min(max_pixels)));
        let decoder = reader.into_decoder().map_err(|e| failed(format, &e))?;
        let size = decoder.dimensions();
        Ok(File { format, bytes, size, decoder: Decoder::Other(Box::new(decoder)) })
    }

    /// Width and height in pixels, as the header tells them: before the picture is turned.
    pub(super) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The picture, turned as it is meant to be seen. Takes at most 16 bytes a pixel of [`size`](Self::size) for its samples, and as much
    /// again for the decoder's own buffers and for the result: bound that before.
    pub(super) fn decode(self) -> Result<Picture, String> {
        let failed = |e: &dyn std::fmt::Display| failed(self.format, e);
        whole::check(self.format, self.bytes, self.size).map_err(|e| failed(&e))?;
        let (width, height) = self.size;
        let n_pixels = u64::from(width) * u64::from(height);
        match self.decoder {
            Decoder::Jpeg(mut decoder) => {
                let mut rgb = vec![0; 3 * n_pixels as usize];
                decoder.decode_into(&mut rgb).map_err(|e| failed(&e))?;
                let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
                Ok(Picture { width, height, rgb }.turned(orientation.unwrap_or(Orientation::NoTransforms)))
            }
            Decoder::Other(mut decoder) => {
                decoder.set_limits(limits(n_pixels)).map_err(|e| failed(&e))?;
                let orientation = match self.format {
                    ImageFormat::Png => whole::png_exif(self.bytes).and_then(Orientation::from_exif_chunk),
                    _ => decoder.orientation().ok(),
                };
                let color = decoder.color_type();
                let mut samples = vec![0; decoder.total_bytes() as usize];
                decoder.read_image_boxed(&mut samples).map_err(|e| failed(&e))?;
                let is_premultiplied = match self.format {
                    ImageFormat::OpenExr => true,
                    ImageFormat::Tiff => whole::tiff_is_premultiplied(self.bytes),
                    _ => false,
                };
                let picture = Picture::of_samples(self.size, color, is_premultiplied, samples)?;
                Ok(picture.turned(orientation.unwrap_or(Orientation::NoTransforms)))
            }
        }
    }
}

fn format_of(bytes: &[u8], path: Option<&str>) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("an empty file is no image".to_owned());
    }
    match image::guess_format(bytes) {
        Ok(format) => Ok(format),
        Err(_) if is_tga(bytes, path) => Ok(ImageFormat::Tga),
        // Radiance HDR under the name of its pixels; its decoder says that it does not read that.
        Err(_) if bytes.starts_with(b"#?RGBE\n") => Ok(ImageFormat::Hdr),
        Err(_) => Err("the first bytes are those of no known image format".to_owned()),
    }
}

fn limits(n_pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(n_pixels.saturating_mul(MAX_PIXEL_BYTES).saturating_add(WORKING_BYTES));
    limits
}

fn failed(format: ImageFormat, reason: &dyn std::fmt::Display) -> String {
    let name = format.extensions_str().first().unwrap_or(&"image");
    format!("failed to decode {name}: {reason}")
}
