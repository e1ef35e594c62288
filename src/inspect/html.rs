//! A scored document in, a page out that needs nothing else: no network, no script. Whatever the document holds is text in it.

use std::ops::Range;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Facts, Inspected, Patch, Segment, buckets, counted,
    glyph::{self, Glyph, Look},
    grouped, level,
    picture::{Canvas, Picture},
    piece::pieces,
    wave::{Channel, Column, Sound},
};

const STYLE: &str = include_str!("page.css");
/// Bytes of text that are shown, and of what is no text.
const TEXT_BYTES: usize = 64 << 10;
const HEX_BYTES: usize = 16 << 10;
const HEX_PER_LINE: usize = 16;
/// Patches that are shown as such in a text: each is a few hundred bytes of page.
const MAX_PATCHES: usize = 20_000;
const MAX_SEGMENTS: usize = 200;
/// Segments that are marked where they start in a text, and drawn one by one in a picture.
const MAX_MARKED_SEGMENTS: usize = 4000;
/// A larger picture is made smaller.
const MAX_PIXELS: usize = 512 << 10;
/// Bytes of the samples of a sound that can be heard.
const MAX_SOUND_BYTES: usize = 6 << 20;
const MAX_CHANNELS: usize = 8;
/// Steps of uncertainty that are told apart in the drawings.
const LEVELS: usize = 10;
/// Units of a drawing: its width, and where its axes are.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 46.0;
const COLUMNS: usize = 477;

/// Shows the document as a page of HTML: what it is, its entropies, its bytes with their patches, and its segments. The page is of
/// bounded size and tells what it leaves out.
///
/// # Panics
/// May, if [`Inspected::check`] refuses the document.
pub fn html(document: &Inspected) -> String {
    let facts = Facts::of(document);
    let title = escaped(&glyph::visible(&document.doc_id, 200));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n",
        level_styles()
    );
    page.push_str(&format!("<header>\n<h1>{title}</h1>\n"));
    page.push_str(&format!(
        "<p class=\"dim\">{}</p>\n</header>\n",
        escaped(&glyph::visible(&document.source, 1000))
    ));
    page.push_str(&facts_section(document, &facts));
    if document.bytes.is_empty() {
        page.push_str("<section><p>The document has no bytes.</p></section>\n");
    } else {
        page.push_str(&entropy_section(document, &facts));
        let (picture, sound) = (Picture::of(document), Sound::of(document));
        if let Some(picture) = &picture {
            page.push_str(&picture_section(document, picture));
        }
        if let Some(sound) = &sound {
            page.push_str(&sound_section(document, sound));
        }
        if picture.is_none() && sound.is_none() {
            page.push_str(&bytes_section(document, &facts));
        }
        page.push_str(&segments_section(document));
    }
    page.push_str("<footer>blt-pipeline inspect</footer>\n</body>\n</html>\n");
    page
}

/// Colours of the levels, as grounds of text and in drawings.
fn level_styles() -> String {
    let level = |i: usize| {
        let (hot, share) = (100 * i / (LEVELS - 1), 70 * i / (LEVELS - 1));
        format!(
            "rect.h{i} {{ fill: color-mix(in oklab, var(--hot) {hot}%, var(--cool)) }}\n\
             #warm:checked ~ pre .h{i} {{ background: color-mix(in srgb, var(--hot) {share}%, var(--card)) }}\n"
        )
    };
    (0..LEVELS).map(level).collect()
}

fn facts_section(document: &Inspected, facts: &Facts) -> String {
    let mut shown = facts.shown.clone();
    if let Some(threshold) = document.threshold {
        shown.push(("threshold", format!("{threshold:.3} nats")));
    }
    if let Some(end) = document.entropies.get(document.bytes.len()) {
        shown.push(("entropy about the end", format!("{end:.3} nats")));
    }
    let shown: String = shown
        .iter()
        .map(|(label, value)| format!("<div><dt>{label}</dt><dd>{}</dd></div>\n", escaped(value)))
        .collect();
    format!("<section>\n<dl>\n{shown}</dl>\n</section>\n")
}

fn entropy_section(document: &Inspected, facts: &Facts) -> String {
    const TOP: f64 = 8.0;
    const BASE: f64 = 178.0;
    let entropies = document.byte_entropies();
    let buckets = buckets(entropies, COLUMNS);
    let top = f64::from(facts.max.max(document.threshold.unwrap_or(0.0))).max(0.001);
    let y = |nats: f32| BASE - (BASE - TOP) * f64::from(nats) / top;
    let step = (WIDTH - LEFT) / buckets.len() as f64;

    let mut drawn = String::new();
    for share in [0.0, 0.5, 1.0] {
        let at = BASE - (BASE - TOP) * share;
        drawn.push_str(&format!(
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at}\" y2=\"{at}\"/>"
        ));
        drawn.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.2}</text>\n",
            LEFT - 6.0,
            at + 4.0,
            top * share
        ));
    }
    let mut line = String::new();
    for (i, bucket) in buckets.iter().enumerate() {
        let x = LEFT + step * i as f64;
        drawn.push_str(&format!(
            "<rect class=\"h{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}\nlargest {:.3}, mean {:.3} nats</title></rect>\n",
            facts.level(bucket.max, LEVELS),
            y(bucket.max),
            (step * 0.86).max(0.5),
            BASE - y(bucket.max),
            byte_range(&bucket.bytes),
            bucket.max,
            bucket.mean
        ));
        line.push_str(&format!(
            "{}{:.1} {:.1}",
            if i == 0 { "M" } else { "L" },
            x + step / 2.0,
            y(bucket.mean)
        ));
    }
    // Of single bytes the mean is the value itself.
    if buckets.len() < entropies.len() {
        drawn.push_str(&format!("<path class=\"mean\" d=\"{line}\"/>\n"));
    }
    if let Some(threshold) = document.threshold.filter(|threshold| *threshold >= 0.0) {
        let at = y(threshold);
        drawn.push_str(&format!(
            "<line class=\"threshold\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\n"
        ));
    }
    drawn.push_str(&scale_of(
        &grouped(0),
        &grouped(entropies.len() / 2),
        &format!("{} bytes", grouped(entropies.len())),
        196.0,
    ));

    let each = match entropies.len() as f64 / buckets.len() as f64 {
        1.0 => "A bar a byte".into(),
        bytes => format!("A bar is the largest of {bytes:.1} bytes, the line their mean"),
    };
    format!(
        "<section>\n<h2>Entropy</h2>\n<p class=\"dim\">Uncertainty about each byte, in nats. {each}. Marked: {}.</p>\n\
         <svg viewBox=\"0 0 {WIDTH} 202\" role=\"img\" aria-label=\"entropy of the bytes\">\n{drawn}</svg>\n</section>\n",
        facts.marked(document)
    )
}

/// What is written below a drawing at its left end, its middle and its right end.
fn scale_of(left: &str, middle: &str, right: &str, y: f64) -> String {
    let middle_x = (LEFT + WIDTH) / 2.0;
    format!(
        "<text x=\"{LEFT}\" y=\"{y}\">{left}</text><text x=\"{middle_x}\" y=\"{y}\" text-anchor=\"middle\">{middle}</text>\
         <text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{right}</text>\n"
    )
}

fn bytes_section(document: &Inspected, facts: &Facts) -> String {
    let most = document.patch_starts().nth(MAX_PATCHES).unwrap_or(usize::MAX);
    let (heading, (shown, end)) = if document.reads_as_text() {
        ("Text", text(document, facts, most.min(TEXT_BYTES)))
    } else {
        ("Bytes", hex(document, facts, most.min(HEX_BYTES)))
    };
    let left = match document.bytes.len() - end {
        0 => String::new(),
        left => format!("<p class=\"dim\">{} more not shown.</p>\n", counted(left, "byte")),
    };
    format!(
        "<section>\n<h2>{heading}</h2>\n<p class=\"dim\">Patches in turns of two colours; underlined: {}.</p>\n\
         <input type=\"checkbox\" id=\"warm\"><label for=\"warm\">colour patches by their mean entropy</label>\n{shown}{left}</section>\n",
        facts.marked(document)
    )
}

/// The head of a text, and where it ends.
fn text(document: &Inspected, facts: &Facts, most: usize) -> (String, usize) {
    let (glyphs, end) = glyph::head(&document.bytes, most);
    let n_marked = document.segments.len();
    let marked: &[Segment] =
        if (2..=MAX_MARKED_SEGMENTS).contains(&n_marked) { &document.segments } else { &[] };
    let mut segments = marked.iter().enumerate().peekable();
    let mut patches = document.patches();
    let mut shown = String::from("<pre>");
    for piece in pieces(document, glyphs) {
        if piece.starts_patch {
            shown.push_str(if piece.patch > 0 { "</span>" } else { "" });
            shown.push_str(&patches.next().map(|patch| patch_tag(&patch, facts, true)).unwrap_or_default());
        }
        while let Some((i, segment)) =
            segments.next_if(|(_, segment)| segment.range().start < piece.bytes.end)
        {
            shown.push_str(&format!("<s title=\"{}\"></s>", segment_words(i, segment)));
        }
        let (written, is_escape) = match piece.look {
            None => ("┊".into(), true),
            Some(look @ Look::Plain(_)) => (escaped(&look.written()), false),
            Some(Look::Mark(mark)) if !piece.starts_patch => (mark.into(), false),
            Some(look) => (look.written(), true),
        };
        let written = if is_escape { format!("<i>{written}</i>") } else { written };
        if facts.marks(document, &piece.bytes) {
            shown.push_str(&format!("<b>{written}</b>"));
        } else {
            shown.push_str(&written);
        }
        shown.push_str(match piece.look {
            Some(Look::Newline) => "\n",
            Some(Look::Tab) => "\t",
            _ => "",
        });
    }
    shown.push_str("</span></pre>\n");
    (shown, end)
}

/// The head of the bytes, in hexadecimal and as characters, and where it ends.
fn hex(document: &Inspected, facts: &Facts, most: usize) -> (String, usize) {
    let end = document.bytes.len().min(most);
    let glyphs =
        (0..end).map(|i| Glyph { start: i, end: i + 1, look: Look::Byte(document.bytes[i]) }).collect();
    let mut patches = document.patches();
    let mut patch = patches.next();
    let mut shown = String::from("<pre class=\"hex\">");
    for line in pieces(document, glyphs).chunks(HEX_PER_LINE) {
        shown.push_str(&format!("<em>{:08x}</em>  ", line[0].bytes.start));
        let mut characters = String::new();
        for of_patch in line.chunk_by(|_, next| !next.starts_patch) {
            let number = of_patch[0].patch;
            while patch.as_ref().is_some_and(|patch| patch.number < number) {
                patch = patches.next();
            }
            let Some(patch) = &patch else { continue };
            let (mut hex, mut of_characters) = (String::new(), String::new());
            for piece in of_patch {
                let byte = document.bytes[piece.bytes.start];
                let character = if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '.' };
                let (start, end) =
                    if facts.marks(document, &piece.bytes) { ("<b>", "</b>") } else { ("", "") };
                let gap = if hex.is_empty() { "" } else { " " };
                hex.push_str(&format!("{gap}{start}{byte:02x}{end}"));
                of_characters
                    .push_str(&format!("{start}{}{end}", escaped(character.encode_utf8(&mut [0; 4]))));
            }
            shown.push_str(&format!("{}{hex}</span> ", patch_tag(patch, facts, true)));
            characters.push_str(&format!("{}{of_characters}</span>", patch_tag(patch, facts, false)));
        }
        shown.push_str(&format!("{} {characters}\n", "   ".repeat(HEX_PER_LINE - line.len())));
    }
    shown.push_str("</pre>\n");
    (shown, end)
}

/// The start of what a patch is shown in.
fn patch_tag(patch: &Patch, facts: &Facts, has_title: bool) -> String {
    let turn = if patch.number.is_multiple_of(2) { "e" } else { "o" };
    let level = facts.level(patch.entropy_mean, LEVELS);
    let title = if has_title { format!(" title=\"{}\"", patch_words(patch)) } else { String::new() };
    format!("<span class=\"{turn} h{level}\"{title}>")
}

fn patch_words(patch: &Patch) -> String {
    let norm = patch.norm_mean.map(|norm| format!("\nnorm {norm:.2}")).unwrap_or_default();
    format!(
        "patch {}, {}\nentropy at its start {:.3}, mean {:.3} nats{norm}",
        grouped(patch.number),
        byte_range(&patch.bytes),
        patch.entropy_start,
        patch.entropy_mean
    )
}

fn segment_words(i: usize, segment: &Segment) -> String {
    let words = format!("segment {}: {}", grouped(i), glyph::visible(&segment.kind, 100));
    let meta =
        segment.meta.as_ref().map(|meta| format!("\n{}", glyph::visible(meta, 500))).unwrap_or_default();
    escaped(&format!("{words}, {}{meta}", byte_range(&segment.range())))
}

fn byte_range(bytes: &Range<usize>) -> String {
    match bytes.len() {
        1 => format!("byte {}", grouped(bytes.start)),
        n => format!("{} bytes from {}", grouped(n), grouped(bytes.start)),
    }
}

fn picture_section(document: &Inspected, picture: &Picture) -> String {
    let (mut width, mut height) = (picture.width, picture.height);
    while width * height > MAX_PIXELS {
        (width, height) = picture.fit((width * 3 / 4).max(1), (height * 3 / 4).max(1));
    }
    let colours = picture.drawn(width, height);
    let turns = picture.patches_at(width, height).into_iter();
    let turns =
        turns.map(|patch| Some(if patch.is_multiple_of(2) { [40, 110, 255] } else { [255, 150, 20] }));
    let patches = Canvas { width, height, pixels: turns.collect() };
    let layers = [("", colours), ("patches", patches), ("heat", picture.heat(width, height))];
    let layers: Result<String, _> = layers
        .iter()
        .map(|(class, canvas)| {
            canvas
                .png()
                .map(|png| format!("<img class=\"{class}\" alt=\"\" src=\"{}\">\n", data("image/png", &png)))
        })
        .collect();
    let layers = layers.unwrap_or_else(|error| {
        format!("<p>failed to draw the picture: {}</p>", escaped(&error.to_string()))
    });

    let mut words = format!(
        "{} × {} pixels in {}.",
        picture.width,
        picture.height,
        counted(picture.tiles.len(), "segment")
    );
    if picture.n_pictures > 1 {
        words.push_str(&format!(" The first of {} pictures.", grouped(picture.n_pictures)));
    }
    if width < picture.width {
        words.push_str(&format!(" Shown in {width} × {height}."));
    }
    let grid = if picture.tiles.len() <= MAX_MARKED_SEGMENTS {
        grid(document, picture)
    } else {
        words.push_str(" Too many segments to be drawn.");
        String::new()
    };
    // Pixels of small pictures are made larger, by a whole number, so that they can be seen.
    let times = (640 / picture.width).clamp(1, 16);
    format!(
        "<section>\n<h2>Picture</h2>\n<p class=\"dim\">{words} Mean entropy of a pixel's bytes: 0<span class=\"scale\"></span>{:.3} nats</p>\n\
         <input type=\"checkbox\" id=\"grid\" checked><label for=\"grid\">segments</label>\
         <input type=\"checkbox\" id=\"patches\"><label for=\"patches\">patches of the model</label>\
         <input type=\"checkbox\" id=\"heat\"><label for=\"heat\">entropy</label>\n\
         <div class=\"picture\" style=\"aspect-ratio: {} / {}; max-width: {}px\">\n{layers}{grid}</div>\n</section>\n",
        picture.max_entropy(),
        picture.width,
        picture.height,
        picture.width * times
    )
}

/// A rectangle a segment, which tells of it.
fn grid(document: &Inspected, picture: &Picture) -> String {
    let mut rectangles = String::new();
    let mut starts = document.patch_starts().peekable();
    for (i, tile) in picture.tiles.iter().enumerate() {
        while starts.next_if(|start| *start < tile.bytes.start).is_some() {}
        let mut n_patches = 0;
        while starts.next_if(|start| *start < tile.bytes.end).is_some() {
            n_patches += 1;
        }
        rectangles.push_str(&format!(
            "<rect x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\"><title>segment {i}: {2} × {3} pixels at {0}, {1}\n{4}\nmean entropy {5:.3} nats, patches that start here: {6}</title></rect>\n",
            tile.x,
            tile.y,
            tile.width,
            tile.height,
            byte_range(&tile.bytes),
            super::mean(&document.entropies[tile.bytes.clone()]),
            grouped(n_patches)
        ));
    }
    format!(
        "<svg class=\"grid\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\">\n{rectangles}</svg>\n",
        picture.width, picture.height
    )
}

fn sound_section(document: &Inspected, sound: &Sound) -> String {
    let (wav, seconds) = sound.wav(&document.bytes, MAX_SOUND_BYTES);
    let mut words = format!(
        "{}. The more orange, the higher the mean entropy. Ticks above: frames; below: starts of patches, the longer the more.",
        sound.described()
    );
    if sound.channels.len() > MAX_CHANNELS {
        words.push_str(&format!(" The first {MAX_CHANNELS} channels are drawn."));
    }
    if seconds + 1e-9 < sound.seconds() {
        words.push_str(&format!(" The first {seconds:.3} s can be heard."));
    }
    let waves: String =
        sound.channels.iter().take(MAX_CHANNELS).map(|channel| wave(document, sound, channel)).collect();
    format!(
        "<section>\n<h2>Sound</h2>\n<p class=\"dim\">{words}</p>\n{waves}<audio controls src=\"{}\"></audio>\n</section>\n",
        data("audio/wav", &wav)
    )
}

fn wave(document: &Inspected, sound: &Sound, channel: &Channel) -> String {
    const TOP: f64 = 14.0;
    const HEIGHT: f64 = 140.0;
    let columns = channel.columns(document, 2 * COLUMNS);
    let max_entropy = columns.iter().map(|column| column.entropy).fold(0.0, f32::max);
    let step = (WIDTH - LEFT) / columns.len() as f64;
    let x = |i: usize| LEFT + step * i as f64;
    let y = |sample: i16| TOP + HEIGHT * (32767.0 - f64::from(sample)) / 65535.0;
    let mut drawn = format!(
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0}\" y2=\"{0}\"/>\n",
        TOP + HEIGHT / 2.0
    );
    if sound.channels.len() > 1 {
        drawn.push_str(&format!(
            "<text x=\"0\" y=\"{}\">ch {}</text>\n",
            TOP + HEIGHT / 2.0 + 4.0,
            channel.number
        ));
    }
    for (i, column) in columns.iter().enumerate() {
        drawn.push_str(&format!(
            "<rect class=\"h{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
            level(column.entropy, max_entropy, LEVELS),
            x(i),
            y(column.max),
            // A little wider, so that no ground shines through between them.
            step + 0.3,
            (y(column.min) - y(column.max)).max(1.0)
        ));
    }
    let ticks = |from: f64, longest: f64, starts: fn(&Column) -> usize| -> String {
        let most = columns.iter().map(starts).max().unwrap_or(0);
        let starting = columns.iter().map(starts).enumerate().filter(|(_, n)| *n > 0);
        let length = |n: usize| longest * n as f64 / most as f64;
        starting.map(|(i, n)| format!("M{:.1} {from}v{:.1}", x(i), length(n))).collect()
    };
    let below = TOP + HEIGHT + 4.0;
    drawn.push_str(&format!("<path class=\"tick\" d=\"{}\"/>\n", ticks(0.0, 8.0, |column| column.n_frames)));
    drawn.push_str(&format!(
        "<path class=\"cut\" d=\"{}\"/>\n",
        ticks(below, 18.0, |column| column.n_patches)
    ));
    let seconds = channel.n_samples() as f64 / f64::from(sound.rate);
    let scale = scale_of("0", &format!("{:.3}", seconds / 2.0), &format!("{seconds:.3} s"), below + 34.0);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"wave\">\n{drawn}{scale}</svg>\n",
        below + 40.0
    )
}

fn segments_section(document: &Inspected) -> String {
    let rows: String = document
        .segments
        .iter()
        .take(MAX_SEGMENTS)
        .enumerate()
        .map(|(i, segment)| {
            let meta = segment.meta.as_deref().map(|meta| glyph::visible(meta, 500)).unwrap_or_default();
            format!(
                "<tr><td>{i}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escaped(&glyph::visible(&segment.kind, 100)),
                grouped(segment.range().start),
                grouped(segment.range().len()),
                escaped(&meta)
            )
        })
        .collect();
    let left = match document.segments.len().saturating_sub(MAX_SEGMENTS) {
        0 => String::new(),
        left => format!("<p class=\"dim\">{} more not shown.</p>\n", counted(left, "segment")),
    };
    format!(
        "<section>\n<details>\n<summary>Segments ({})</summary>\n<table>\n\
         <tr><th>#</th><th>kind</th><th>first byte</th><th>bytes</th><th>meta</th></tr>\n{rows}</table>\n{left}</details>\n</section>\n",
        grouped(document.segments.len())
    )
}

fn data(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// `text` as it may stand between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{picture, tests::document, tests::segment, wave},
        *,
    };

    /// What stands in the first element that starts with `tag`.
    fn inside<'a>(page: &'a str, tag: &str, end: &str) -> &'a str {
        page.split_once(tag).unwrap().1.split_once(end).unwrap().0
    }

    #[test]
    fn patches_of_a_text_tell_of_themselves() {
        let mut document = document(b"a<b\n", &[0, 1], &[2.0, 1.0, 0.5, 0.0]);
        document.norms = Some(vec![1.0; 6]);
        assert_eq!(
            inside(&html(&document), "<pre>", "</pre>"),
            "<span class=\"e h9\" title=\"patch 0, byte 0\nentropy at its start 2.000, mean 2.000 nats\nnorm 1.00\"><b>a</b></span>\
             <span class=\"o h2\" title=\"patch 1, 3 bytes from 1\nentropy at its start 1.000, mean 0.500 nats\nnorm 1.00\">&lt;b<i>↵</i>\n</span>"
        );
    }

    #[test]
    fn segments_are_marked_where_they_start() {
        let mut document = document(b"ab", &[0], &[1.0; 2]);
        document.segments = vec![segment("x", 0..1, "{}"), segment("<y>", 1..2, "\"\u{1b}\"")];
        let page = html(&document);
        let shown = inside(&page, "<pre>", "</pre>");
        assert!(shown.ends_with(
            "><s title=\"segment 0: x, byte 0\n{}\"></s>a<s title=\"segment 1: &lt;y&gt;, byte 1\n&quot;⟨1b⟩&quot;\"></s>b</span>"
        ));
        assert!(page.contains("<td>&lt;y&gt;</td><td>1</td><td>1</td><td>&quot;⟨1b⟩&quot;</td>"));
    }

    #[test]
    fn nothing_of_a_document_becomes_a_tag() {
        let hostile = "</pre><script>alert('1')</script>\"><img src=x onerror=alert(1)>&\u{202e}\0";
        let bytes = hostile.as_bytes();
        for modality in ["text", "raw"] {
            let mut document = document(bytes, &[0, 3, 7], &vec![1.0; bytes.len()]);
            if modality == "raw" {
                document.bytes[0] = 0xff;
            }
            document.modality = if modality == "raw" { hostile.into() } else { modality.into() };
            document.doc_id = hostile.into();
            document.source = hostile.into();
            document.segments =
                vec![segment(hostile, 0..1, hostile), segment(hostile, 1..bytes.len() as u64, hostile)];
            let page = html(&document);
            assert!(!page.contains("<script") && !page.contains("onerror=alert(1)>"), "{page}");
            assert_eq!(page.matches("<img").count(), 0);
            assert_eq!(page.matches("</pre>").count(), 1);
            assert!(!page.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
        }
    }

    #[test]
    fn documents_of_no_and_one_byte_are_pages() {
        assert!(html(&document(b"", &[], &[])).contains("The document has no bytes."));
        let one = html(&document(b"x", &[0], &[0.0]));
        assert!(inside(&one, "<pre>", "</pre>").ends_with(">x</span>"));
        assert!(one.contains("A bar a byte."));
    }

    #[test]
    fn bytes_in_hexadecimal_are_cut_at_patches_and_lines() {
        let bytes = [vec![0xff; 17], b"<".to_vec()].concat();
        let document = Inspected { modality: "raw".into(), ..document(&bytes, &[0, 15], &[1.0; 18]) };
        let page = html(&document);
        let lines: Vec<&str> = inside(&page, "<pre class=\"hex\">", "</pre>").split("\n<em>").collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains(
            ">ff</span>  <span class=\"e h9\">...............</span><span class=\"o h9\">.</span>"
        ));
        assert!(
            lines[1].starts_with("00000010</em>  <span class=\"o h9\" title=\"patch 1, 3 bytes from 15\n")
        );
        assert!(lines[1].trim_end().ends_with(">.&lt;</span>"));
    }

    #[test]
    fn pages_are_bounded_and_tell_what_is_left_out() {
        let bytes = vec![b'a'; TEXT_BYTES + 5];
        let starts: Vec<usize> = (0..bytes.len()).collect();
        let entropies = vec![1.0; bytes.len()];
        let few = html(&document(&bytes, &starts[..1], &entropies));
        assert!(few.contains("<p class=\"dim\">5 bytes more not shown.</p>"));
        let many = html(&document(&bytes, &starts, &entropies));
        assert!(many.contains(&format!("{} bytes more not shown.", grouped(bytes.len() - MAX_PATCHES))));
        assert!(many.len() < 4 << 20, "{}", many.len());
    }

    #[test]
    fn a_picture_is_in_the_page_with_its_segments() {
        let page = html(&picture::tests::scored(20, 12, 8));
        assert_eq!(page.matches("src=\"data:image/png;base64,iVBORw0KGgo").count(), 3);
        assert_eq!(page.matches("pixels at").count(), 6);
        assert!(page.contains("<rect x=\"16\" y=\"8\" width=\"4\" height=\"4\"><title>segment 5: 4 × 4 pixels at 16, 8\n48 bytes from 672\nmean entropy 1.500 nats, patches that start here: 1</title></rect>"));
        assert!(page.contains("aspect-ratio: 20 / 12; max-width: 320px"));
    }

    #[test]
    fn a_large_picture_is_made_smaller_and_says_so() {
        let page = html(&picture::tests::scored(1000, 900, 100));
        assert!(page.contains("1000 × 900 pixels in 90 segments. Shown in 750 × 675."));
    }

    #[test]
    fn a_sound_can_be_seen_and_heard() {
        let samples: Vec<i16> = (0..800).map(|i| (i * 40 - 16000) as i16).collect();
        let page = html(&wave::tests::scored(&[&samples, &samples], 160, 8000));
        assert!(page.contains("0.100 s, 8000 Hz, 2 channels, 10 frames."));
        let wav = BASE64_STANDARD.decode(inside(&page, "data:audio/wav;base64,", "\"")).unwrap();
        assert_eq!(wav.len(), 44 + 800 * 4);
        assert_eq!(page.matches("aria-label=\"wave\"").count(), 2);
        // Five frames of each channel start somewhere.
        assert_eq!(inside(&page, "class=\"tick\" d=\"", "\"").matches('M').count(), 5);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_page_whose_spans_are_closed(
            bytes in prop::collection::vec(any::<u8>(), 1..200),
            patch in 1usize..20,
            is_text in any::<bool>(),
        ) {
            let starts: Vec<usize> = (0..bytes.len()).step_by(patch).collect();
            let mut document = document(&bytes, &starts, &vec![1.0; bytes.len()]);
            if !is_text {
                document.modality = "raw".into();
            }
            let page = html(&document);
            prop_assert_eq!(page.matches("<span").count(), page.matches("</span>").count());
            prop_assert!(!page.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
