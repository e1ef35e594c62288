//! Bytes in, characters out that can be seen and that no terminal takes for a command. Knows nothing of patches or colours.

use unicode_width::UnicodeWidthChar;

/// What stands for some bytes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glyph {
    /// First byte.
    pub(super) start: usize,
    /// Byte after the last one.
    pub(super) end: usize,
    pub(super) look: Look,
}

/// How bytes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As the character that they are, one or two columns wide.
    Plain(char),
    /// A character that is drawn over the one before it.
    Mark(char),
    Newline,
    Tab,
    /// A byte that is no character, or an ASCII control character.
    Byte(u8),
    /// A character that cannot be seen, or that changes how others are shown.
    Hidden(char),
}

impl Look {
    /// How it is written where it stands alone.
    pub(super) fn written(self) -> String {
        match self {
            Look::Plain(c) => c.into(),
            Look::Mark(c) => format!("\u{25cc}{c}"),
            Look::Newline => "↵".into(),
            Look::Tab => "→".into(),
            Look::Byte(byte) => format!("⟨{byte:02x}⟩"),
            Look::Hidden(c) => format!("⟨U+{:04X}⟩", u32::from(c)),
        }
    }

    /// Columns that [`written`](Self::written) takes.
    pub(super) fn columns(self) -> usize {
        match self {
            Look::Plain(c) => c.width().unwrap_or(1),
            Look::Mark(_) | Look::Newline | Look::Tab => 1,
            Look::Byte(_) => 4,
            Look::Hidden(c) if u32::from(c) > 0xf_ffff => 10,
            Look::Hidden(c) if u32::from(c) > 0xffff => 9,
            Look::Hidden(_) => 8,
        }
    }
}

/// What stands for `bytes`, in order and without gap.
pub(super) fn glyphs(bytes: &[u8]) -> impl Iterator<Item = Glyph> {
    let looks = bytes.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|c| (c.len_utf8(), look(c)));
        valid.chain(chunk.invalid().iter().map(|byte| (1, Look::Byte(*byte))))
    });
    let mut end = 0;
    looks.map(move |(length, look)| {
        let start = end;
        end += length;
        Glyph { start, end, look }
    })
}

/// The glyphs that start in the first `most` bytes of `bytes`, and the end of the last.
pub(super) fn head(bytes: &[u8], most: usize) -> (Vec<Glyph>, usize) {
    // No character has more than four bytes, so those that start before `most` are whole.
    let enough = &bytes[..bytes.len().min(most.saturating_add(3))];
    let head: Vec<Glyph> = glyphs(enough).take_while(|glyph| glyph.start < most).collect();
    let end = head.last().map_or(0, |glyph| glyph.end);
    (head, end)
}

/// `text` in characters that can be seen, no more than `most` of its own.
pub(super) fn visible(text: &str, most: usize) -> String {
    let mut chars = text.chars();
    let mut visible: String = chars.by_ref().take(most).map(|c| look(c).written()).collect();
    if chars.next().is_some() {
        visible.push('…');
    }
    visible
}

fn look(c: char) -> Look {
    match c {
        '\n' => Look::Newline,
        '\t' => Look::Tab,
        ' '..='~' => Look::Plain(c),
        c if c.is_ascii() => Look::Byte(c as u8),
        // Which draws how those before it look, or joins nothing.
        '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => {
            Look::Hidden(c)
        }
        c => match (is_printable_after_another(c), c.width()) {
            (true, Some(1..)) => Look::Plain(c),
            (true, Some(0)) if c.escape_debug().len() > 1 => Look::Mark(c),
            _ => Look::Hidden(c),
        },
    }
}

/// The standard library knows which characters are controls, formats, separators, private or not assigned: it escapes them. Marks
/// it escapes only where they have nothing to stand on.
fn is_printable_after_another(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8]) -> String {
        glyphs(bytes).map(|glyph| glyph.look.written()).collect()
    }

    #[test]
    fn what_a_terminal_could_obey_is_shown_instead() {
        let cases: [(&[u8], &str); 9] = [
            (b"\x1b[2Jx", "⟨1b⟩[2Jx"),
            (b"\x1b]0;t\x07", "⟨1b⟩]0;t⟨07⟩"),
            (b"\x00\x7f\r\n\t", "⟨00⟩⟨7f⟩⟨0d⟩↵→"),
            // C1 controls, as characters and as bytes.
            ("\u{9b}2J\u{85}".as_bytes(), "⟨U+009B⟩2J⟨U+0085⟩"),
            (b"\x9b2J", "⟨9b⟩2J"),
            ("a\u{202e}b\u{2066}c".as_bytes(), "a⟨U+202E⟩b⟨U+2066⟩c"),
            (
                "\u{feff}\u{200b}\u{200d}\u{ad}\u{e0041}".as_bytes(),
                "⟨U+FEFF⟩⟨U+200B⟩⟨U+200D⟩⟨U+00AD⟩⟨U+E0041⟩",
            ),
            ("\u{2028}\u{a0}\u{fe0f}\u{10fffd}".as_bytes(), "⟨U+2028⟩⟨U+00A0⟩⟨U+FE0F⟩⟨U+10FFFD⟩"),
            (b"\xff\xc3(\xe2\x82", "⟨ff⟩⟨c3⟩(⟨e2⟩⟨82⟩"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(written(bytes), expected);
        }
    }

    #[test]
    fn writing_stays_as_it_is() {
        let text = "it's \"a\\b\" äß 日本 שלום 😀 ▀ e";
        assert_eq!(written(text.as_bytes()), text);
        assert_eq!(look('\u{301}'), Look::Mark('\u{301}'));
        assert_eq!(look('日').columns(), 2);
    }

    #[test]
    fn a_head_ends_with_a_whole_character() {
        let (head_, end) = head("aé日x".as_bytes(), 4);
        assert_eq!(head_.last().map(|glyph| glyph.look), Some(Look::Plain('日')));
        assert_eq!(end, 6);
        assert_eq!(head(b"abc", 2).1, 2);
        assert_eq!(head(b"\xe2\x82", 1).1, 1);
        assert_eq!(head(b"", 9), (Vec::new(), 0));
        assert_eq!(head(b"abc", usize::MAX).1, 3);
    }

    #[test]
    fn a_name_is_cut() {
        assert_eq!(visible("ab\u{1b}cd", 3), "ab⟨1b⟩…");
        assert_eq!(visible("abc", 3), "abc");
    }

    proptest! {
        #[test]
        fn glyphs_tile_any_bytes_and_hold_no_control(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut end = 0;
            for glyph in glyphs(&bytes) {
                prop_assert_eq!(glyph.start, end);
                prop_assert!(glyph.end > end);
                prop_assert!(!glyph.look.written().contains(char::is_control));
                end = glyph.end;
            }
            prop_assert_eq!(end, bytes.len());
        }

        #[test]
        fn any_character_takes_the_columns_it_is_said_to(c in any::<char>()) {
            use unicode_width::UnicodeWidthStr;
            let look = look(c);
            prop_assert!(!look.written().contains(char::is_control));
            prop_assert_eq!(look.written().width(), look.columns());
        }
    }
}
