//! Text: the row's bytes as they are, UTF-8 or not, in one segment or in paragraphs, sentences or a tokenizer's tokens.
//! Never changes a byte: what a tokenizer normalizes or drops is in the segments as it stood in the row.

#[cfg(feature = "media")]
#[cfg(test)]
mod tests;
#[cfg(feature = "media")]
mod tokens;
#[cfg(not(feature = "media"))]
#[path = "text/no_tokens.rs"]
mod tokens;

use std::ops::Range;

use icu_segmenter::{SentenceSegmenter, options::SentenceBreakInvariantOptions};

use self::tokens::Tokens;
use super::{Content, Needs, Pretokenizer, View, too_long_decoded};
use crate::{
    config::{InvalidUtf8, PretokenizeText, TextSegments},
    data::Segment,
};

/// The modality `text`.
pub struct Text {
    segmentation: Segmentation,
    invalid_utf8: InvalidUtf8,
    max_document_bytes: u64,
}

enum Segmentation {
    Whole,
    Paragraph,
    Sentence,
    Tokens(Tokens),
}

impl Text {
    /// Text with these settings; a document of more than `max_document_bytes` is refused.
    ///
    /// # Errors
    /// When the tokenizer that the settings ask for is not named, cannot be read, or would not give the same tokens twice.
    pub fn new(settings: &PretokenizeText, max_document_bytes: u64) -> Result<Self, String> {
        let segmentation = match settings.segments {
            TextSegments::Whole => Segmentation::Whole,
            TextSegments::Paragraph => Segmentation::Paragraph,
            TextSegments::Sentence => Segmentation::Sentence,
            TextSegments::Tokenizer => {
                let path =
                    settings.tokenizer.as_deref().ok_or("segments = \"tokenizer\" needs the path of one")?;
                let tokens = Tokens::read(path);
                Segmentation::Tokens(
                    tokens.map_err(|problem| format!("pretokenize.text.tokenizer = {path:?}: {problem}"))?,
                )
            }
        };
        Ok(Self { segmentation, invalid_utf8: settings.invalid_utf8, max_document_bytes })
    }
}

impl Pretokenizer for Text {
    fn decodes(&self) -> bool {
        // Its views are the content, but a tokenizer takes its time and fails in ways of its own.
        matches!(self.segmentation, Segmentation::Tokens(_))
    }

    fn needs(&self, content: &Content) -> Needs {
        let views = content.bytes.len() as u64;
        let beside = match self.segmentation {
            Segmentation::Tokens(_) => tokens::BYTES_PER_BYTE * views,
            _ => 0,
        };
        Needs { views, beside }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let bytes = content.bytes;
        if bytes.len() as u64 > self.max_document_bytes {
            return Err(too_long_decoded(bytes.len() as u64, self.max_document_bytes));
        }
        if self.invalid_utf8 == InvalidUtf8::Quarantine
            && let Err(error) = std::str::from_utf8(&bytes)
        {
            return Err(format!("failed to read text as UTF-8: {error}"));
        }
        let segments = match &self.segmentation {
            _ if bytes.is_empty() => Vec::new(),
            Segmentation::Whole => vec![segment("text", 0..bytes.len())],
            Segmentation::Paragraph => paragraphs(&bytes),
            Segmentation::Sentence => sentences(&bytes),
            Segmentation::Tokens(tokens) => tokens.segments(&bytes)?,
        };
        Ok(vec![View { modality: "text", name: None, segments, bytes }])
    }
}

fn segment(kind: &'static str, bytes: Range<usize>) -> Segment {
    Segment { kind, bytes: bytes.start as u64..bytes.end as u64, meta: None }
}

/// A paragraph ends where a line that is not blank follows a blank one; blank lines at the start are in the first. A line
/// ends with LF, CR LF or CR, and is blank with nothing but blanks and tabs in it. Holds for any encoding in which these
/// bytes mean what they mean in ASCII.
fn paragraphs(bytes: &[u8]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let (mut start, mut line) = (0, 0);
    let (mut has_words, mut after_blank) = (false, false);
    while line < bytes.len() {
        let (length, length_with_end) = first_line(&bytes[line..]);
        let is_blank = bytes[line..line + length].iter().all(|byte| matches!(byte, b' ' | b'\t'));
        if !is_blank && after_blank && has_words {
            segments.push(segment("paragraph", start..line));
            start = line;
        }
        has_words |= !is_blank;
        after_blank = is_blank;
        line += length_with_end;
    }
    segments.push(segment("paragraph", start..bytes.len()));
    segments
}

/// Length of the first line, without and with its end.
fn first_line(bytes: &[u8]) -> (usize, usize) {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        None => (bytes.len(), bytes.len()),
        Some(length) if bytes[length..].starts_with(b"\r\n") => (length, length + 2),
        Some(length) => (length, length + 1),
    }
}

/// Sentences of UAX #29's default rules. Bytes that are not UTF-8 count as U+FFFD, which ends no sentence.
fn sentences(bytes: &[u8]) -> Vec<Segment> {
    let segmenter = SentenceSegmenter::new(SentenceBreakInvariantOptions::default());
    let mut start = 0;
    let ends = segmenter.segment_utf8(bytes).filter(|end| *end > 0);
    ends.map(|end| segment("sentence", std::mem::replace(&mut start, end)..end)).collect()
}
