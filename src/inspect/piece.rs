//! Glyphs and patches in, glyphs cut where patches start out. Knows nothing of how they are drawn.

use std::ops::Range;

use super::{
    Inspected,
    glyph::{Glyph, Look},
};

/// Bytes of a glyph that are in one patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) patch: usize,
    /// Whether the patch starts here.
    pub(super) starts_patch: bool,
    pub(super) bytes: Range<usize>,
    /// None for what follows a boundary inside a character, which is shown where it starts.
    pub(super) look: Option<Look>,
}

/// `glyphs` of the document from its first byte on, cut where patches start.
pub(super) fn pieces(document: &Inspected, glyphs: Vec<Glyph>) -> Vec<Piece> {
    let mut starts = document.patch_starts().enumerate().peekable();
    let mut patch = 0;
    let mut pieces = Vec::with_capacity(glyphs.len());
    for glyph in glyphs {
        let (mut start, mut look) = (glyph.start, Some(glyph.look));
        while start < glyph.end {
            let started = starts.next_if(|(_, first)| *first == start);
            patch = started.map_or(patch, |(number, _)| number);
            let end = starts.peek().map_or(glyph.end, |(_, next)| glyph.end.min(*next));
            pieces.push(Piece {
                patch,
                starts_patch: started.is_some(),
                bytes: start..end,
                look: look.take(),
            });
            start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::{
        super::{glyph::head, tests::document},
        *,
    };

    #[test]
    fn a_character_is_shown_where_it_starts_and_cut_where_patches_do() {
        let text = "a日b";
        let document = document(text.as_bytes(), &[0, 2, 3], &[1.0; 5]);
        let piece = |patch, starts_patch, bytes, look: Option<char>| Piece {
            patch,
            starts_patch,
            bytes,
            look: look.map(Look::Plain),
        };
        assert_eq!(
            pieces(&document, head(text.as_bytes(), 9).0),
            [
                piece(0, true, 0..1, Some('a')),
                piece(0, false, 1..2, Some('日')),
                piece(1, true, 2..3, None),
                piece(2, true, 3..4, None),
                piece(2, false, 4..5, Some('b')),
            ]
        );
    }
}
