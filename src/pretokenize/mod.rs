//! From the content of a row to the bytes the model sees and their segments, one file a modality. Knows
//! nothing of tokens or tensors.

#[cfg(feature = "media")]
mod audio;
#[cfg(feature = "media")]
mod auto;
#[cfg(feature = "media")]
mod binary;
#[cfg(feature = "media")]
mod code;
#[cfg(feature = "media")]
mod document;
#[cfg(feature = "media")]
mod image;
#[cfg(feature = "media")]
mod sniff;
mod text;
#[cfg(feature = "video")]
mod video;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{Limits, Modality, Pretokenize},
    data::{Content, Segment, View},
};

/// Memory for the views of a row, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of the views in all: a good guess, or an upper bound.
    pub views: u64,
    /// Beside content and views, while they are made.
    pub beside: u64,
}

/// What a modality does to a row.
pub trait Pretokenizer: Send + Sync {
    /// Whether views are something else than the content's bytes, so that it takes a decoder, which may be slow, fail in ways of
    /// its own, and make much of little.
    fn decodes(&self) -> bool {
        true
    }

    /// What it takes to make the views of `content`, from headers, fast: memory is set aside by it before anything is decoded. Nothing
    /// for content that is too large, or cannot be decoded. Panics only where a decoder does, see [`needs_of`].
    fn needs(&self, content: &Content) -> Needs;

    /// The views of a row.
    ///
    /// # Errors
    /// The reason why the row goes to quarantine: lowercase, no full stop, the decoder's own words at its end.
    fn views(&self, content: Content) -> Result<Vec<View>, String>;
}

impl fmt::Debug for dyn Pretokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pretokenizer")
    }
}

/// What it takes to make the views of `content`. Nothing where a decoder panics at its headers: it will again when the row is decoded,
/// which is where it costs that row only.
pub fn needs_of(pretokenizer: &dyn Pretokenizer, content: &Content) -> Needs {
    catch_unwind(AssertUnwindSafe(|| pretokenizer.needs(content))).unwrap_or_default()
}

/// The pretokenizer of `modality`.
///
/// # Errors
/// When its settings cannot be met, or this build lacks it.
pub fn pretokenizer(
    modality: Modality,
    settings: &Pretokenize,
    limits: &Limits,
) -> Result<Arc<dyn Pretokenizer>, String> {
    match modality {
        Modality::Text => Ok(Arc::new(text::Text::new(&settings.text, limits.max_document_bytes)?)),
        #[cfg(feature = "media")]
        _ => Ok(decoder(modality, settings, limits.max_document_bytes)?.into()),
        #[cfg(not(feature = "media"))]
        _ => Err(format!(
            "source.modality = {:?}: this build reads text only; build it with the feature `media`",
            modality.name()
        )),
    }
}

#[cfg(feature = "media")]
fn decoder(
    modality: Modality,
    settings: &Pretokenize,
    max_document_bytes: u64,
) -> Result<Box<dyn Pretokenizer>, String> {
    let other = |modality| decoder(modality, settings, max_document_bytes);
    Ok(match modality {
        Modality::Text => Box::new(text::Text::new(&settings.text, max_document_bytes)?),
        Modality::Image => Box::new(image::Image::new(&settings.image, max_document_bytes)),
        Modality::Audio => Box::new(audio::Audio::new(&settings.audio, max_document_bytes)),
        Modality::Code => Box::new(code::Code::new(&settings.code, max_document_bytes, settings.row_time)),
        Modality::Document => {
            // A page is a picture like any other.
            let image = image::Image::new(&settings.image, max_document_bytes);
            let picture = move |width, height, rgb| image.of_pixels(width, height, rgb);
            Box::new(document::Document::new(&settings.document, max_document_bytes, Arc::new(picture)))
        }
        Modality::Binary => Box::new(binary::Binary::new(max_document_bytes)),
        #[cfg(feature = "video")]
        Modality::Video => {
            let Pretokenize { video, image, audio, .. } = settings;
            Box::new(video::Video::new(video, image, audio, max_document_bytes))
        }
        #[cfg(not(feature = "video"))]
        Modality::Video => {
            return Err(
                "source.modality = \"video\": this build reads no video; build it with the feature `video`"
                    .into(),
            );
        }
        Modality::Auto => Box::new(auto::Auto::new(auto::Modalities {
            text: other(Modality::Text)?,
            image: other(Modality::Image)?,
            audio: other(Modality::Audio)?,
            code: other(Modality::Code)?,
            document: other(Modality::Document)?,
            binary: other(Modality::Binary)?,
            video: cfg!(feature = "video").then(|| other(Modality::Video)).transpose()?,
        })),
    })
}

/// Whether the segments of `view` tile its bytes.
///
/// # Errors
/// Where they do not.
pub fn check_tiling(view: &View) -> Result<(), String> {
    let mut end = 0;
    for Segment { kind, bytes, .. } in &view.segments {
        if bytes.start != end || bytes.end <= bytes.start {
            return Err(format!(
                "a segment {kind} has the bytes {} to {} behind {end}",
                bytes.start, bytes.end
            ));
        }
        end = bytes.end;
    }
    match view.bytes.len() as u64 {
        n if n == end => Ok(()),
        n => Err(format!("the segments end at byte {end} of {n}")),
    }
}

/// Why a document of more than `max_document_bytes` is not made.
pub(crate) fn too_long_decoded(n_bytes: u64, max_document_bytes: u64) -> String {
    format!("{n_bytes} bytes once decoded, more than limits.max_document_bytes = {max_document_bytes}")
}

/// Why a row is given up that took more than `row_time`.
pub(crate) fn took_too_long(row_time: Duration) -> String {
    format!("decoding took longer than pretokenize.row_seconds = {}", row_time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_leave_a_gap_overlap_or_hold_nothing_do_not_tile() {
        let view = |ranges: &[(u64, u64)]| View {
            modality: "text",
            name: None,
            segments: ranges
                .iter()
                .map(|&(a, b)| Segment { kind: "text", bytes: a..b, meta: None })
                .collect(),
            bytes: vec![0; 4],
        };
        for good in [&[(0, 4)][..], &[(0, 1), (1, 4)]] {
            assert_eq!(check_tiling(&view(good)), Ok(()));
        }
        for bad in [&[][..], &[(0, 3)], &[(0, 1), (2, 4)], &[(0, 2), (1, 4)], &[(0, 0), (0, 4)], &[(0, 5)]] {
            assert!(check_tiling(&view(bad)).is_err(), "{bad:?}");
        }
    }
}
