//! A row of any content in, the views of the modality that reads it out; what no modality reads passes as raw bytes.
//! Knows no format itself.

use super::{
    Content, Needs, Pretokenizer, View, code,
    sniff::{Kind, kind_of},
};
use crate::data::Segment;

/// The modalities that [`Auto`] hands rows to.
pub struct Modalities {
    pub text: Box<dyn Pretokenizer>,
    pub image: Box<dyn Pretokenizer>,
    pub audio: Box<dyn Pretokenizer>,
    pub code: Box<dyn Pretokenizer>,
    pub document: Box<dyn Pretokenizer>,
    pub binary: Box<dyn Pretokenizer>,
    /// None in a build that cannot read video.
    pub video: Option<Box<dyn Pretokenizer>>,
}

/// The modality `auto`: each row is read by the modality that [`kind_of`] finds. Its failures are the row's: a picture
/// that cannot be decoded does not become raw bytes.
pub struct Auto(Modalities);

impl Auto {
    /// Of the modalities as they are set up.
    pub fn new(modalities: Modalities) -> Self {
        Self(modalities)
    }

    fn reader(&self, content: &Content) -> Result<&dyn Pretokenizer, String> {
        let modalities = &self.0;
        Ok(match kind_of(&content.bytes, content.path.as_deref()) {
            // A column that names languages names others, too: prose, tables, markup.
            Kind::Text if content.language.as_deref().is_some_and(code::is_language) => &*modalities.code,
            Kind::Text => &*modalities.text,
            Kind::Image => &*modalities.image,
            Kind::Audio => &*modalities.audio,
            Kind::Code => &*modalities.code,
            Kind::Document => &*modalities.document,
            Kind::Binary => &*modalities.binary,
            Kind::Video => modalities
                .video
                .as_deref()
                .ok_or("failed to read video: built without the feature `video`")?,
            Kind::Raw => &Raw,
        })
    }
}

impl Pretokenizer for Auto {
    fn needs(&self, content: &Content) -> Needs {
        self.reader(content).map_or(Needs::default(), |reader| reader.needs(content))
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        self.reader(&content)?.views(content)
    }
}

/// Content that no modality reads: its bytes as they are, in one segment.
struct Raw;

impl Pretokenizer for Raw {
    fn needs(&self, content: &Content) -> Needs {
        Needs { views: content.bytes.len() as u64, beside: 0 }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let bytes = content.bytes;
        let n_bytes = bytes.len() as u64;
        let whole = Segment { kind: "raw", bytes: 0..n_bytes, meta: None };
        let segments = if n_bytes == 0 { Vec::new() } else { vec![whole] };
        Ok(vec![View { modality: "raw", name: None, segments, bytes }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says which modality was asked, in the place of an error.
    struct Asked(&'static str);

    impl Pretokenizer for Asked {
        fn needs(&self, _: &Content) -> Needs {
            Needs { views: self.0.len() as u64, beside: 0 }
        }

        fn views(&self, _: Content) -> Result<Vec<View>, String> {
            Err(self.0.to_owned())
        }
    }

    fn auto(video: Option<Box<dyn Pretokenizer>>) -> Auto {
        let asked = |name| -> Box<dyn Pretokenizer> { Box::new(Asked(name)) };
        Auto::new(Modalities {
            text: asked("text"),
            image: asked("image"),
            audio: asked("audio"),
            code: asked("code"),
            document: asked("document"),
            binary: asked("binary"),
            video,
        })
    }

    fn content(bytes: &[u8], path: Option<&str>) -> Content {
        Content { bytes: bytes.to_vec(), path: path.map(str::to_owned), language: None }
    }

    #[test]
    fn each_row_is_read_by_the_modality_of_its_kind() {
        let auto = auto(Some(Box::new(Asked("video"))));
        for (name, bytes, path) in [
            ("text", b"" as &[u8], None),
            ("image", b"\x89PNG\r\n\x1a\ncut", Some("a.txt")),
            ("audio", b"fLaC\0", None),
            ("code", b"x = 1", Some("a.py")),
            ("document", b"%PDF-1.4\n\xff", None),
            ("binary", b"\x7fELF\0", None),
            ("video", b"FLV\x01\0", None),
        ] {
            let content = content(bytes, path);
            assert_eq!(auto.needs(&content).views, name.len() as u64);
            assert_eq!(auto.views(content), Err(name.to_owned()));
        }
    }

    #[test]
    fn content_of_no_modality_is_one_segment_of_its_own_bytes() {
        let auto = auto(None);
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(auto.needs(&content(&bytes, None)).views, 256);
        let views = auto.views(content(&bytes, Some("all.bin"))).unwrap();
        let segments = vec![Segment { kind: "raw", bytes: 0..256, meta: None }];
        assert_eq!(views, [View { modality: "raw", name: None, segments, bytes }]);
    }

    #[test]
    fn video_without_its_reader_says_so() {
        let auto = auto(None);
        let reason = auto.views(content(b"FLV\x01\0", None)).unwrap_err();
        assert_eq!(reason, "failed to read video: built without the feature `video`");
        assert_eq!(auto.needs(&content(b"FLV\x01\0", None)), Needs::default());
    }
}
