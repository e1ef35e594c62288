//! A scored document in, lines for a terminal out. Whatever the document holds, the only commands in them are our own.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Colour, Facts, Inspected, Pictures, buckets, counted,
    glyph::{self, Glyph, Look},
    grouped,
    picture::{Canvas, Picture, luminance},
    piece::{Piece, pieces},
    sheet::{Sheet, Style},
    sixel::sixels,
    wave::{Channel, Sound},
};

/// Patches take turns. Both are among xterm's 256.
const GROUNDS: [[u8; 3]; 2] = [[0, 95, 135], [68, 68, 68]];
const INK: [u8; 3] = [232, 232, 232];
const MARKED_INK: [u8; 3] = [255, 209, 102];
/// From certain to uncertain, on a ground that may be dark or light.
const LINE_INKS: [[u8; 3]; 2] = [[59, 130, 246], [249, 115, 22]];
const SPARKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const TAB: usize = 4;
const MAX_COLUMNS: u16 = 1000;
const MAX_ROWS: u16 = 200;
/// Of a picture or a wave, where the terminal does not say how many it has.
const ROWS: u16 = 34;
/// What is written above and below a picture or a wave.
const OTHER_ROWS: u16 = 10;
/// Channels of a sound that are drawn.
const MAX_CHANNELS: usize = 2;

/// What a document is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Characters of a line; 20 at least are used.
    pub columns: u16,
    /// Lines, which pictures are made to fit in.
    pub rows: Option<u16>,
    /// Its colours.
    pub colour: Colour,
    /// How it shows pictures.
    pub pictures: Pictures,
    /// Width and height of a character in pixels.
    pub cell: (u16, u16),
    /// Bytes of text, or of what is neither picture nor sound, that are shown.
    pub max_bytes: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            columns: 80,
            rows: None,
            colour: Colour::None,
            pictures: Pictures::HalfBlocks,
            // Small as characters go: what is drawn for larger ones fits.
            cell: (8, 16),
            max_bytes: 4 << 10,
        }
    }
}

/// Shows the document: what it is, its entropies, and its bytes with their patches.
///
/// # Panics
/// May, if [`Inspected::check`] refuses the document.
pub fn terminal(document: &Inspected, terminal: &Terminal) -> String {
    let columns = usize::from(terminal.columns.clamp(20, MAX_COLUMNS));
    let facts = Facts::of(document);
    let mut sheet = Sheet::new(columns, terminal.colour);
    write_head(&mut sheet, document, &facts);
    if document.bytes.is_empty() {
        sheet.words("no bytes", Style::default());
        return sheet.finish();
    }
    draw_entropies(&mut sheet, document, &facts, columns);
    sheet.end_line();

    let rows = terminal.rows.unwrap_or(ROWS).clamp(OTHER_ROWS + 4, MAX_ROWS) - OTHER_ROWS;
    let (picture, sound) = (Picture::of(document), Sound::of(document));
    if let Some(picture) = &picture {
        draw_picture(&mut sheet, picture, terminal, columns, usize::from(rows));
    }
    if let Some(sound) = &sound {
        draw_sound(&mut sheet, document, sound, columns, usize::from(rows));
    }
    if picture.is_none() && sound.is_none() {
        let end = if document.reads_as_text() {
            draw_text(&mut sheet, document, &facts, columns, terminal)
        } else {
            draw_bytes(&mut sheet, document, &facts, columns, terminal)
        };
        sheet.end_words();
        if end < document.bytes.len() {
            let left = counted(document.bytes.len() - end, "byte");
            sheet.words(&format!("… {left} more not shown"), Style::default());
        }
    }
    sheet.finish()
}

fn write_head(sheet: &mut Sheet, document: &Inspected, facts: &Facts) {
    let bold = Style { is_bold: true, ..Style::default() };
    sheet.words(&glyph::visible(&document.doc_id, 200), bold);
    if document.source != document.doc_id {
        sheet.words(&format!(" ({})", glyph::visible(&document.source, 200)), Style::default());
    }
    sheet.end_words();
    let facts: Vec<String> = facts.shown.iter().map(|(label, value)| format!("{label} {value}")).collect();
    sheet.items(&facts);
}

/// The largest uncertainty of each run of bytes.
fn draw_entropies(sheet: &mut Sheet, document: &Inspected, facts: &Facts, columns: usize) {
    let entropies = document.byte_entropies();
    let buckets = buckets(entropies, columns);
    let each = match entropies.len() as f64 / buckets.len() as f64 {
        1.0 => "1 byte a column".into(),
        bytes => format!("the largest of {bytes:.1} bytes a column"),
    };
    sheet.items(&[
        format!("entropy from 0 to {:.3} nats", facts.max),
        each,
        format!("marked: {}", facts.marked(document)),
    ]);
    for bucket in buckets {
        let ink = LINE_INKS[usize::from(bucket.max > facts.mark_above)];
        let spark = SPARKS[facts.level(bucket.max, SPARKS.len())];
        sheet.put(spark, 1, Style { ink: Some(ink), ..Style::default() });
    }
    sheet.end_words();
}

fn patch_style(patch: usize, is_marked: bool) -> Style {
    Style {
        ink: Some(if is_marked { MARKED_INK } else { INK }),
        ground: Some(GROUNDS[patch % GROUNDS.len()]),
        is_bold: is_marked,
        is_underlined: is_marked,
    }
}

/// Draws the head of a text and tells where it ends.
fn draw_text(
    sheet: &mut Sheet,
    document: &Inspected,
    facts: &Facts,
    columns: usize,
    terminal: &Terminal,
) -> usize {
    let (glyphs, end) = glyph::head(&document.bytes, terminal.max_bytes);
    let mut follows_plain = false;
    for piece in pieces(document, glyphs) {
        let style = patch_style(piece.patch, facts.marks(document, &piece.bytes));
        let is_boundary = piece.starts_patch && piece.patch > 0;
        if is_boundary && terminal.colour == Colour::None && piece.look.is_some() {
            sheet.put("│", 1, style);
        }
        match piece.look {
            None => sheet.put("┊", 1, style),
            Some(Look::Tab) => {
                let left = columns.saturating_sub(sheet.column()).max(1);
                let width = (TAB - sheet.column() % TAB).min(left);
                sheet.put(&format!("→{}", " ".repeat(width - 1)), width, style);
            }
            Some(Look::Mark(mark)) if follows_plain && !is_boundary => {
                sheet.put(mark.encode_utf8(&mut [0; 4]), 0, style);
            }
            Some(look) => sheet.put(&look.written(), look.columns(), style),
        }
        if piece.look == Some(Look::Newline) {
            sheet.end_line();
        }
        follows_plain = matches!(piece.look, Some(Look::Plain(_) | Look::Mark(_)));
    }
    end
}

/// Draws the head of the bytes, in hexadecimal and as characters, and tells where it ends.
fn draw_bytes(
    sheet: &mut Sheet,
    document: &Inspected,
    facts: &Facts,
    columns: usize,
    terminal: &Terminal,
) -> usize {
    // Three columns a byte and one for its character; two between; eight of the offset.
    let per_line = [16, 8, 4].into_iter().find(|n| 8 + 3 * n + 2 + n <= columns).unwrap_or(2);
    let end = document.bytes.len().min(terminal.max_bytes);
    let glyphs =
        (0..end).map(|i| Glyph { start: i, end: i + 1, look: Look::Byte(document.bytes[i]) }).collect();
    for line in pieces(document, glyphs).chunks(per_line) {
        let style = |piece: &Piece| patch_style(piece.patch, facts.marks(document, &piece.bytes));
        let start = line[0].bytes.start;
        sheet.put(&format!("{start:08x}"), 8, Style::default());
        for (i, piece) in line.iter().enumerate() {
            let is_boundary = piece.starts_patch && piece.patch > 0 && terminal.colour == Colour::None;
            let goes_on = i > 0 && !piece.starts_patch;
            let before = Style { is_underlined: false, ..style(piece) };
            let before = if goes_on { before } else { Style::default() };
            sheet.put(if is_boundary { "│" } else { " " }, 1, before);
            sheet.put(&format!("{:02x}", document.bytes[piece.bytes.start]), 2, style(piece));
        }
        sheet.put(
            &" ".repeat(3 * (per_line - line.len()) + 2),
            3 * (per_line - line.len()) + 2,
            Style::default(),
        );
        for piece in line {
            let byte = document.bytes[piece.bytes.start];
            let shown = if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '.' };
            sheet.put(shown.encode_utf8(&mut [0; 4]), 1, style(piece));
        }
        sheet.end_line();
    }
    end
}

fn draw_picture(sheet: &mut Sheet, picture: &Picture, terminal: &Terminal, columns: usize, rows: usize) {
    const GAP: usize = 2;
    let (pixels_a_column, pixels_a_row) = match terminal.pictures {
        Pictures::HalfBlocks => (1, 2),
        _ => (usize::from(terminal.cell.0.clamp(1, 64)), usize::from(terminal.cell.1.clamp(1, 64))),
    };
    let room = (columns - GAP) / 2 * pixels_a_column;
    let (width, height) = picture.fit(room, rows * pixels_a_row);
    let mut drawn = picture.drawn(width, height);
    let has_grid = picture.draw_grid(&mut drawn);
    let canvas = drawn.beside(GAP * pixels_a_column, &picture.heat(width, height));

    let mut items = vec![
        format!("picture of {} × {} pixels", picture.width, picture.height),
        format!(
            "{}{}",
            counted(picture.tiles.len(), "segment"),
            if has_grid { "" } else { ", too small to be drawn" }
        ),
        format!("beside it the mean entropy of a pixel's bytes, from 0 to {:.3} nats", picture.max_entropy()),
    ];
    if picture.n_pictures > 1 {
        items.insert(0, format!("the first of {} pictures", grouped(picture.n_pictures)));
    }
    sheet.items(&items);
    match terminal.pictures {
        Pictures::HalfBlocks => draw_half_blocks(sheet, &canvas, terminal.colour),
        Pictures::Sixel => sheet.command(&sixels(&canvas)),
        Pictures::Kitty => match canvas.png() {
            Ok(png) => sheet.command(&kitty(&png, canvas.width.div_ceil(pixels_a_column))),
            Err(error) => sheet.words(&format!("failed to draw the picture: {error}"), Style::default()),
        },
    }
}

/// Two pixels a character, one above the other; without colours, how bright they are.
fn draw_half_blocks(sheet: &mut Sheet, canvas: &Canvas, colour: Colour) {
    for rows in canvas.pixels.chunks(2 * canvas.width) {
        let (upper, lower) = rows.split_at(canvas.width);
        for (x, upper) in upper.iter().enumerate() {
            let lower = lower.get(x).copied().flatten();
            let (shown, ink, ground) = match (*upper, lower) {
                (upper, lower) if colour == Colour::None => (shade(upper, lower), None, None),
                (None, None) => (" ", None, None),
                (Some(upper), lower) => ("▀", Some(upper), lower),
                (None, lower) => ("▄", lower, None),
            };
            sheet.put(shown, 1, Style { ink, ground, ..Style::default() });
        }
        sheet.end_line();
    }
}

fn shade(upper: Option<[u8; 3]>, lower: Option<[u8; 3]>) -> &'static str {
    const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];
    let bright = |pixel: Option<[u8; 3]>| pixel.map_or(0, luminance);
    SHADES[((bright(upper) + bright(lower)) * 5 / 511) as usize]
}

/// Sends a PNG by kitty's graphics protocol, `columns` wide, without an answer: in pieces of 4096 characters, all but the last of which
/// say that more follow.
fn kitty(png: &[u8], columns: usize) -> String {
    let encoded = BASE64_STANDARD.encode(png);
    let mut command = String::new();
    let mut rest = encoded.as_str();
    let mut keys = format!("a=T,f=100,q=2,c={columns},");
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(4096));
        command.push_str(&format!("\x1b_G{keys}m={};{piece}\x1b\\", u8::from(!more.is_empty())));
        keys = "q=2,".into();
        rest = more;
    }
    command
}

fn draw_sound(sheet: &mut Sheet, document: &Inspected, sound: &Sound, columns: usize, rows: usize) {
    sheet.words(&format!("sound of {}", sound.described()), Style::default());
    sheet.end_words();
    let shown = &sound.channels[..sound.channels.len().min(MAX_CHANNELS)];
    for channel in shown {
        if sound.channels.len() > 1 {
            sheet.words(&format!("channel {}", channel.number), Style::default());
            sheet.end_words();
        }
        draw_wave(sheet, document, channel, columns, (rows / shown.len()).clamp(3, 12));
    }
    if shown.len() < sound.channels.len() {
        let left = counted(sound.channels.len() - shown.len(), "channel");
        sheet.words(&format!("… {left} more not shown"), Style::default());
    }
}

/// From the lowest to the highest sample of each column, two steps a line, and below it where patches start.
fn draw_wave(sheet: &mut Sheet, document: &Inspected, channel: &Channel, columns: usize, lines: usize) {
    let wave = channel.columns(document, columns);
    let steps = 2 * lines as i32;
    let max_entropy = wave.iter().map(|column| column.entropy).fold(f32::MIN_POSITIVE, f32::max);
    let step = |sample: i16| (i32::from(i16::MAX) - i32::from(sample)) * steps / 65536;
    for line in 0..lines as i32 {
        for column in &wave {
            let (top, bottom) = (step(column.max), step(column.min));
            let is_filled = |step: i32| top <= step && step <= bottom;
            let shown = match (is_filled(2 * line), is_filled(2 * line + 1)) {
                (true, true) => "█",
                (true, false) => "▀",
                (false, true) => "▄",
                (false, false) => " ",
            };
            let share = column.entropy / max_entropy;
            sheet.put(shown, 1, Style { ink: Some(between(LINE_INKS, share)), ..Style::default() });
        }
        sheet.end_line();
    }
    let most = wave.iter().map(|column| column.n_patches).max().unwrap_or(0);
    for column in &wave {
        let shown = match (most, column.n_patches) {
            (_, 0) => " ",
            (..=1, _) => "│",
            (_, n) => SPARKS[(n * SPARKS.len() - 1) / most],
        };
        sheet.put(shown, 1, Style::default());
    }
    sheet.end_line();
    let caption = match most {
        0 => "no patch starts here".into(),
        1 => "│ where a patch starts".into(),
        _ => format!("patches that start in a column, from 0 to {}", grouped(most)),
    };
    sheet.words(&caption, Style::default());
    sheet.end_words();
}

fn between([from, to]: [[u8; 3]; 2], share: f32) -> [u8; 3] {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|c| {
        (f32::from(from[c]) + (f32::from(to[c]) - f32::from(from[c])) * share).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::{
        super::{Segment, picture, tests::document, wave},
        *,
    };

    const PLAIN: Terminal = Terminal {
        columns: 40,
        rows: None,
        colour: Colour::None,
        pictures: Pictures::HalfBlocks,
        cell: (8, 16),
        max_bytes: 4096,
    };
    const COLOURED: Terminal = Terminal { colour: Colour::TrueColor, ..PLAIN };

    /// What is below the head and the entropies.
    fn body(document: &Inspected, on: &Terminal) -> String {
        terminal(document, on).split_once("\n\n").unwrap().1.to_string()
    }

    fn raw(bytes: &[u8], starts: &[usize], entropies: &[f32]) -> Inspected {
        Inspected { modality: "raw".into(), ..document(bytes, starts, entropies) }
    }

    #[test]
    fn a_text_is_shown_with_its_figures_and_its_patches() {
        let document =
            document(b"the cat\nsat", &[0, 4, 8], &[2.0, 1.0, 0.0, 0.0, 1.6, 0.5, 0.0, 0.0, 4.0, 0.0, 0.0]);
        assert_eq!(
            terminal(&document, &Terminal { columns: 60, ..PLAIN }),
            "a.parquet#0\n\
             modality text · bytes 11 · segments 1 (text) · patches 3\n\
             bytes a patch 3.67\n\
             mean entropy 0.827 nats, 1.194 bits a byte\n\
             entropy from 0 to 4.000 nats · 1 byte a column\n\
             marked: 3 bytes above the threshold of 1.500 nats\n\
             ▅▃▁▁▄▂▁▁█▁▁\n\
             \n\
             the │cat↵\n\
             │sat\n"
        );
    }

    #[test]
    fn colours_take_turns_and_uncertain_bytes_stand_out() {
        let document = document(b"abc", &[0, 2], &[2.0, 1.0, 0.0]);
        let marked = "\x1b[0;1;4;38;2;255;209;102;48;2;0;95;135m";
        let first = "\x1b[0;38;2;232;232;232;48;2;0;95;135m";
        let second = "\x1b[0;38;2;232;232;232;48;2;68;68;68m";
        assert_eq!(body(&document, &COLOURED), format!("{marked}a{first}b{second}c\x1b[0m\n"));
        let of_256 = body(&document, &Terminal { colour: Colour::Ansi256, ..PLAIN });
        assert_eq!(
            of_256,
            "\x1b[0;1;4;38;5;221;48;5;24ma\x1b[0;38;5;254;48;5;24mb\x1b[0;38;5;254;48;5;238mc\x1b[0m\n"
        );
    }

    #[test]
    fn a_boundary_inside_a_character_is_shown_after_it() {
        let document = document("日é".as_bytes(), &[0, 1, 2, 4], &[1.0; 5]);
        assert_eq!(body(&document, &PLAIN), "日┊┊é┊\n");
    }

    #[test]
    fn what_a_terminal_could_obey_never_reaches_it() {
        let hostile = b"\x1b[31m\x1b]0;x\x07\x9b1m\r\x08\xc2\x9bm\xe2\x80\xae\0".as_slice();
        let name = "\u{1b}]52;c;eA==\u{7}\n\u{202e}";
        for mut document in [document(hostile, &[0], &[1.0; 23]), raw(hostile, &[0], &[1.0; 23])] {
            document.doc_id = name.into();
            document.source = name.into();
            document.segments = vec![Segment { kind: name.into(), bytes: 0..23, meta: Some(name.into()) }];
            if document.modality == "raw" {
                document.modality = name.into();
            }
            let shown = terminal(&document, &PLAIN);
            assert!(
                !shown.contains(|c: char| c.is_control() && c != '\n') && !shown.contains('\u{202e}'),
                "{shown:?}"
            );
            assert!(shown.starts_with("⟨1b⟩]52;c;eA==⟨07⟩↵⟨U+202E⟩"), "{shown}");
        }
        assert_eq!(
            body(&document(hostile, &[0], &[1.0; 23]), &PLAIN),
            "⟨1b⟩[31m⟨1b⟩]0;x⟨07⟩⟨9b⟩1m⟨0d⟩⟨08⟩\n⟨U+009B⟩m⟨U+202E⟩⟨00⟩\n"
        );
    }

    #[test]
    fn a_document_without_bytes_says_so() {
        assert_eq!(
            terminal(&document(b"", &[], &[]), &PLAIN),
            "a.parquet#0\nmodality text · bytes 0 · segments 0\npatches 0\nno bytes\n"
        );
    }

    #[test]
    fn one_byte_is_a_document() {
        assert_eq!(body(&document(b"\n", &[0], &[0.0]), &PLAIN), "↵\n");
        assert_eq!(body(&raw(b"\xff", &[0], &[0.0]), &PLAIN), "00000000 ff           .\n");
    }

    #[test]
    fn long_patches_go_on_in_the_next_line_and_tabs_keep_their_stops() {
        let text = [b"\tab\tc".as_slice(), &[b'x'; 45]].concat();
        let document = document(&text, &[0], &[1.0; 50]);
        let shown = body(&document, &PLAIN);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], format!("→   ab→ c{}", "x".repeat(31)));
        assert_eq!(lines[1], "x".repeat(14));
        let coloured = body(&document, &COLOURED);
        assert_eq!(coloured.matches("\x1b[0m\n").count(), 2);
    }

    #[test]
    fn combining_marks_stay_with_their_character_unless_a_patch_parts_them() {
        let text = "e\u{301}e\u{301}".as_bytes();
        let document = document(text, &[0, 4], &[1.0; 6]);
        assert_eq!(body(&document, &PLAIN), "e\u{301}e│\u{25cc}\u{301}\n");
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let document = document(&[b'a'; 5000], &[0], &[1.0; 5000]);
        assert!(terminal(&document, &PLAIN).ends_with("a\n… 904 bytes more not shown\n"));
        let cut = body(&document, &Terminal { max_bytes: 3, ..PLAIN });
        assert_eq!(cut, "aaa\n… 4,997 bytes more not shown\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        let document = raw(b"\x7fELF\x02\0\0\xff, \x1b", &[0, 4, 5], &[1.0; 11]);
        let on = Terminal { columns: 44, ..PLAIN };
        assert_eq!(
            body(&document, &on),
            "00000000 7f 45 4c 46│02│00 00 ff  .ELF....\n\
             00000008 2c 20 1b                 , .\n"
        );
        assert!(body(&document, &Terminal { columns: 1, ..PLAIN }).starts_with("00000000 7f 45  .E\n"));
    }

    #[test]
    fn a_picture_is_drawn_in_half_blocks_beside_its_entropies() {
        let document = picture::tests::scored(2, 2, 2);
        let shown = body(&document, &Terminal { columns: 20, rows: Some(1), ..COLOURED });
        let (caption, drawn) = shown.split_at(shown.find('\x1b').unwrap());
        assert_eq!(
            caption,
            "picture of 2 × 2\npixels · 1 segment\nbeside it the mean\nentropy of a pixel's\nbytes, from 0 to\n2.000 nats\n"
        );
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("\x1b[0;38;2;0;0;7;48;2;0;0;7m▀▀▀▀\x1b[0;38;2;1;0;7;48;2;1;0;7m▀▀▀▀\x1b[0m  \x1b[0;38;2;252;255;164"));
        let plain = body(&document, &PLAIN);
        assert!(!plain.contains('\x1b') && plain.contains('█'));
    }

    #[test]
    fn sixels_and_kitty_get_one_picture() {
        let document = picture::tests::scored(40, 30, 8);
        let sixel = body(&document, &Terminal { pictures: Pictures::Sixel, ..COLOURED });
        assert_eq!((sixel.matches("\x1bP").count(), sixel.matches("\x1b\\\n").count()), (1, 1));
        // 19 columns of 8 pixels take the picture three times, and the gap is two columns.
        assert!(sixel.contains("\"1;1;256;90"));
        let kitty = body(&document, &Terminal { pictures: Pictures::Kitty, ..COLOURED });
        assert!(kitty.contains("\x1b_Ga=T,f=100,q=2,c=32,m=0;iVBORw0KGgo"), "{kitty}");
    }

    #[test]
    fn a_long_png_is_sent_to_kitty_in_pieces() {
        let command = kitty(&[0; 4000], 7);
        let pieces: Vec<&str> = command.split_terminator("\x1b\\").collect();
        assert_eq!(pieces[0], format!("\x1b_Ga=T,f=100,q=2,c=7,m=1;{}", "A".repeat(4096)));
        assert!(pieces[1].starts_with("\x1b_Gq=2,m=0;AAAA"));
        assert_eq!(pieces.len(), 2);
    }

    #[test]
    fn a_sound_is_drawn_from_its_lowest_to_its_highest_samples() {
        let samples = [0, i16::MAX, i16::MIN, 0];
        let shown = body(&wave::tests::scored(&[&samples], 2, 8000), &Terminal { rows: Some(13), ..PLAIN });
        assert_eq!(
            shown,
            "sound of 0.001 s, 8000 Hz, 1 channel, 2\nframes\n ▀  \n▄  ▄\n    \n  ▄ \n│ │ \n│ where a patch starts\n"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_stay_in_their_lines_and_obey_nobody(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'\t'), Just(0xe2)], 1..300),
            columns in 0u16..100,
            patch in 1usize..40,
            is_text in any::<bool>(),
        ) {
            let starts: Vec<usize> = (0..bytes.len()).step_by(patch).collect();
            let mut document = document(&bytes, &starts, &vec![1.0; bytes.len()]);
            if !is_text {
                document.modality = "raw".into();
            }
            let shown = terminal(&document, &Terminal { columns, ..PLAIN });
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
            prop_assert!(shown.lines().all(|line| line.width() <= usize::from(columns.max(20))));
            let coloured = terminal(&document, &Terminal { columns, ..COLOURED });
            prop_assert!(coloured.split('\x1b').skip(1).all(|rest| rest.starts_with("[0")));
        }
    }
}
