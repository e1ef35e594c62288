//! Text: the row's bytes as they are, UTF-8 or not, in one segment. Does not split or repair.

use super::Pretokenizer;
use crate::data::{Document, RawRow, Segment};

/// The modality `text`.
pub struct Text;

impl Pretokenizer for Text {
    fn modality(&self) -> &'static str {
        "text"
    }

    fn pretokenize(&self, row: RawRow) -> Result<Document, String> {
        let n_bytes = row.content.len() as u64;
        let whole = Segment { kind: "text", bytes: 0..n_bytes, meta: None };
        Ok(Document {
            source_row: row.source_row,
            doc_id: row.doc_id,
            modality: self.modality(),
            segments: if n_bytes == 0 { Vec::new() } else { vec![whole] },
            bytes: row.content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_stay_as_they_are() {
        let content = vec![0xff, 0x00, b'a', 0xc3];
        let row = RawRow { source_row: 7, doc_id: "x".into(), content: content.clone() };
        let document = Text.pretokenize(row).unwrap();
        assert_eq!(document.bytes, content);
        assert_eq!(document.segments, [Segment { kind: "text", bytes: 0..4, meta: None }]);
    }

    #[test]
    fn an_empty_text_is_a_document_without_segments() {
        let row = RawRow { source_row: 0, doc_id: "x".into(), content: Vec::new() };
        assert!(Text.pretokenize(row).unwrap().segments.is_empty());
    }
}
