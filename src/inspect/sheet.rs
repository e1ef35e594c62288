//! Characters and their styles in, lines of a terminal out. Knows nothing of documents; what it is given is free of control characters.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Colour;

type Rgb = [u8; 3];

/// How characters are drawn; without colours, all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) ink: Option<Rgb>,
    pub(super) ground: Option<Rgb>,
    pub(super) is_bold: bool,
    pub(super) is_underlined: bool,
}

/// Lines of at most so many columns. No style goes on beyond the end of its line.
pub(super) struct Sheet {
    text: String,
    colour: Colour,
    columns: usize,
    column: usize,
    style: Style,
}

impl Sheet {
    pub(super) fn new(columns: usize, colour: Colour) -> Sheet {
        Sheet { text: String::new(), colour, columns, column: 0, style: Style::default() }
    }

    /// Columns of the line that are taken.
    pub(super) fn column(&self) -> usize {
        self.column
    }

    /// Puts characters that take `width` columns, in the next line if this one has no room.
    pub(super) fn put(&mut self, shown: &str, width: usize, style: Style) {
        if self.column > 0 && self.column + width > self.columns {
            self.end_line();
        }
        self.switch_to(style);
        self.text.push_str(shown);
        self.column += width;
    }

    /// Puts words, each in the next line if this one has no room for all of it.
    pub(super) fn words(&mut self, words: &str, style: Style) {
        for (i, word) in words.split(' ').enumerate() {
            if i > 0
                && self.column > 0
                && self.column + 1 + word.width().min(self.columns - 1) <= self.columns
            {
                self.put(" ", 1, style);
            } else if i > 0 {
                self.end_words();
            }
            for c in word.chars() {
                self.put(c.encode_utf8(&mut [0; 4]), c.width().unwrap_or(0), style);
            }
        }
    }

    /// Puts items with dots between them, each in the next line if this one has no room for all of it, and ends the line.
    pub(super) fn items(&mut self, items: &[String]) {
        for item in items {
            if self.column > 0 && self.column + 3 + item.width() > self.columns {
                self.end_line();
            } else if self.column > 0 {
                self.put(" · ", 3, Style::default());
            }
            self.words(item, Style::default());
        }
        self.end_words();
    }

    /// Ends the line, unless nothing is in it.
    pub(super) fn end_words(&mut self) {
        if self.column > 0 {
            self.end_line();
        }
    }

    /// Ends the line.
    pub(super) fn end_line(&mut self) {
        self.switch_to(Style::default());
        self.text.push('\n');
        self.column = 0;
    }

    /// Puts what the terminal obeys in a line of its own.
    pub(super) fn command(&mut self, command: &str) {
        self.end_words();
        self.text.push_str(command);
        self.end_line();
    }

    pub(super) fn finish(mut self) -> String {
        self.end_words();
        self.text
    }

    fn switch_to(&mut self, style: Style) {
        if style == self.style || self.colour == Colour::None {
            return;
        }
        self.style = style;
        self.text.push_str("\x1b[0");
        if style.is_bold {
            self.text.push_str(";1");
        }
        if style.is_underlined {
            self.text.push_str(";4");
        }
        for (ink_or_ground, colour) in [(38, style.ink), (48, style.ground)] {
            match (colour, self.colour) {
                (None, _) => {}
                (Some([r, g, b]), Colour::TrueColor) => {
                    self.text.push_str(&format!(";{ink_or_ground};2;{r};{g};{b}"))
                }
                (Some(colour), _) => self.text.push_str(&format!(";{ink_or_ground};5;{}", of_256(colour))),
            }
        }
        self.text.push('m');
    }
}

/// The nearest of xterm's colours: a cube of 6 × 6 × 6 from 16 on, and 24 greys from 232 on.
fn of_256(colour: Rgb) -> usize {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let distance =
        |other: Rgb| -> u32 { (0..3).map(|c| u32::from(colour[c].abs_diff(other[c])).pow(2)).sum() };
    let level = |value: u8| (0..6).min_by_key(|i| LEVELS[*i].abs_diff(value)).unwrap_or(0);
    let [r, g, b] = colour.map(level);
    let mean = colour.iter().map(|value| usize::from(*value)).sum::<usize>() / 3;
    let grey = (mean.saturating_sub(3) / 10).min(23);
    if distance([(8 + 10 * grey) as u8; 3]) < distance([LEVELS[r], LEVELS[g], LEVELS[b]]) {
        232 + grey
    } else {
        16 + 36 * r + 6 * g + b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_the_columns_do_and_styles_with_them() {
        let red = Style { ink: Some([255, 0, 0]), is_bold: true, ..Style::default() };
        let mut sheet = Sheet::new(3, Colour::TrueColor);
        for _ in 0..4 {
            sheet.put("x", 1, red);
        }
        sheet.put("日", 2, red);
        sheet.put("日", 2, Style::default());
        let start = "\x1b[0;1;38;2;255;0;0m";
        assert_eq!(sheet.finish(), format!("{start}xxx\x1b[0m\n{start}x日\x1b[0m\n日\n"));
    }

    #[test]
    fn words_stay_whole_where_they_can() {
        let mut sheet = Sheet::new(6, Colour::None);
        sheet.words("ab cd ef abcdefgh i", Style { is_bold: true, ..Style::default() });
        assert_eq!(sheet.finish(), "ab cd\nef\nabcdef\ngh i\n");
    }

    #[test]
    fn items_stay_whole_and_dots_between_them() {
        let mut sheet = Sheet::new(8, Colour::None);
        sheet.items(&["ab", "cde", "f g", "hijklmnopq r"].map(String::from));
        assert_eq!(sheet.finish(), "ab · cde\nf g\nhijklmno\npq r\n");
    }

    #[test]
    fn the_nearest_of_256_colours_is_taken() {
        let cases = [
            ([0, 0, 0], 16),
            ([255, 255, 255], 231),
            ([255, 0, 0], 196),
            ([128; 3], 244),
            ([95, 135, 175], 67),
        ];
        for (colour, expected) in cases {
            assert_eq!(of_256(colour), expected, "{colour:?}");
        }
    }
}
