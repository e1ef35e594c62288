//! A page in, the characters that it shows out, in the order in which its content shows them. Knows of fonts and places, not of
//! pixels.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use hayro_font::{
    CMapResolverFn, Font, FontCache, FontGlyph, FontQuery, FontResolverFn,
    hayro_cmap::{self, BfString, CMap},
    kurbo::{Affine, Point, Vec2},
};
use hayro_syntax::{
    content::UntypedIter,
    object::{
        Array, Dict, MaybeRef, Name, Object, Stream,
        dict::keys::{
            CID_TO_GID_MAP, CONTENTS, DESCENDANT_FONTS, ENCODING, FIRST_CHAR, FONT, MATRIX, RESOURCES,
            SUBTYPE, TO_UNICODE, W, W2,
        },
    },
    page::{Page, Resources},
};

use memchr::memmem;

use super::streams::{self, Bounds};
use crate::pretokenize::too_long_decoded;

/// Stands for a glyph whose character the file does not tell.
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;
/// Stands, between two parts of this program, for no character; it is none and will be none.
const NOTHING: char = '\u{ffff}';
/// Forms within forms, graphics states within states: real files stay far below.
const MOST_FORMS: u32 = 28;
const MOST_STATES: usize = 1 << 14;
/// What content costs at least, so that many empty forms cost something, too.
const LEAST_CONTENT_BYTES: u64 = 4 << 10;
/// An operator that no file has, behind the last of each content: content that is read to its end ends with it.
const END: &[u8] = b"blt:end-of-content";

/// A gap between two glyphs that is as wide as a space, in ems: TeX's narrowest space is 0.22, its widest kern 0.09.
const SPACE: f64 = 0.15;
/// A glyph so far off the line of the one before it is on another line, in ems: super- and subscripts are nearer.
const LINE: f64 = 0.5;
/// A glyph on the same line, but so far before the end of the one before it, begins another line, in ems: a second column, say.
const BACK: f64 = 2.0;

/// Reads the pages of a file.
pub(super) struct TextReader<'a> {
    bounds: Bounds,
    /// Bytes of content that may still be gone through.
    content_left: u64,
    fonts: Fonts<'a>,
}

/// Text of a page.
#[derive(Debug, Default)]
pub(super) struct PageText {
    pub(super) text: String,
    /// Glyphs of which the file does not tell the character; a U+FFFD is in the place of each.
    pub(super) n_unknown: u64,
}

impl<'a> TextReader<'a> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, content_left: bounds.content(), fonts: Fonts::new(bounds) }
    }

    /// The text of `page`, which is the rest of a document that has `n_bytes` and may have `most`.
    ///
    /// # Errors
    /// When a part of the page cannot be read, or when it is too long.
    pub(super) fn read(&mut self, page: &Page<'a>, n_bytes: u64, most: u64) -> Result<PageText, String> {
        let content = self.page_content(page)?;
        let mut line = Line { n_bytes, most, page: PageText::default(), before: None };
        self.show(content, page.resources(), State::default(), 0, &mut line)?;
        Ok(line.page)
    }

    /// Content of a page; that of several streams as one, as the standard wants it (PDF 32000-1, 7.7.3.3).
    fn page_content(&mut self, page: &Page<'a>) -> Result<Vec<u8>, String> {
        let dict = page.raw();
        match dict.get::<Object<'_>>(CONTENTS) {
            Some(Object::Stream(stream)) => self.content(&stream),
            Some(Object::Array(array)) => {
                let mut content = Vec::new();
                let parts = array.raw_iter().count();
                let mut n_read = 0;
                for part in array.iter::<Object<'_>>() {
                    if let Object::Stream(stream) = part {
                        content.extend(self.content(&stream)?);
                        content.push(b'\n');
                        if content.len() as u64 > self.bounds.one() {
                            return Err(streams::Stop::TooLong.reason(self.bounds));
                        }
                    }
                    n_read += 1;
                }
                if n_read < parts {
                    Err("a part of its content is not there".to_owned())
                } else {
                    Ok(content)
                }
            }
            None if matches!(dict.get_raw::<Object<'_>>(CONTENTS), Some(MaybeRef::Ref(_))) => {
                Err("its content is not there".to_owned())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Content of a stream, each time it is shown charged to what may still be gone through.
    fn content(&mut self, stream: &Stream<'_>) -> Result<Vec<u8>, String> {
        let content = streams::content(stream, self.bounds).map_err(|stop| stop.reason(self.bounds))?;
        let n_bytes = (content.len() as u64).max(LEAST_CONTENT_BYTES);
        self.content_left = self.content_left.checked_sub(n_bytes).ok_or(
            "more content than limits.max_document_bytes allows, each stream counted each time it is shown",
        )?;
        Ok(content)
    }

    /// Goes through `content`, which it owns so that the end can be marked, from `state` on.
    fn show(
        &mut self,
        mut content: Vec<u8>,
        resources: &Resources<'a>,
        mut state: State<'a>,
        depth: u32,
        line: &mut Line,
    ) -> Result<(), String> {
        content.push(b'\n');
        content.extend_from_slice(END);
        let mut saved: Vec<State<'a>> = Vec::new();
        let mut is_whole = false;
        let mut operators = UntypedIter::new(&content);
        while let Some(operator) = operators.next() {
            let name: &[u8] = operator.operator;
            is_whole = name == END;
            let mut operands = operator.operands();
            match name {
                b"q" if saved.len() < MOST_STATES => saved.push(state.clone()),
                b"q" => return Err(format!("more than {MOST_STATES} graphics states within each other")),
                b"Q" => state = saved.pop().unwrap_or(state),
                b"cm" => state.place *= affine(operands),
                b"BT" => state.start_line(Affine::IDENTITY),
                b"Tm" => state.start_line(affine(operands)),
                b"Td" => state.next_line(vector(operands)),
                b"TD" => {
                    let step = vector(operands);
                    state.leading = -step.y;
                    state.next_line(step);
                }
                b"T*" => state.next_line(Vec2::new(0.0, -state.leading)),
                b"TL" => state.leading = number(operands.next()),
                b"Tc" => state.after_glyph = number(operands.next()),
                b"Tw" => state.after_space = number(operands.next()),
                b"Tz" => state.stretch = number(operands.next()) / 100.0,
                b"Ts" => state.rise = number(operands.next()),
                b"Tf" => {
                    let font = name_of(operands.next()).and_then(|name| resources.get_font(name));
                    state.font = self.fonts.get(font)?;
                    state.size = number(operands.next());
                }
                b"gs" => {
                    let settings = name_of(operands.next()).and_then(|name| resources.get_ext_g_state(name));
                    if let Some(array) = settings.and_then(|settings| settings.get::<Array<'a>>(FONT)) {
                        let mut parts = array.iter::<Object<'a>>();
                        state.font = self.fonts.get(parts.next().and_then(Object::into_dict))?;
                        state.size = number(parts.next().as_ref());
                    }
                }
                b"Tj" => state.show_string(operands.next(), line)?,
                b"'" => {
                    state.next_line(Vec2::new(0.0, -state.leading));
                    state.show_string(operands.next(), line)?;
                }
                b"\"" => {
                    state.after_space = number(operands.next());
                    state.after_glyph = number(operands.next());
                    state.next_line(Vec2::new(0.0, -state.leading));
                    state.show_string(operands.next(), line)?;
                }
                b"TJ" => {
                    if let Some(Object::Array(array)) = operands.next() {
                        for part in array.iter::<Object<'_>>() {
                            match part {
                                Object::Number(back) => state.step_back(back.as_f64()),
                                part => state.show_string(Some(&part), line)?,
                            }
                        }
                    }
                }
                b"Do" => {
                    if let Some(form) = name_of(operands.next()).and_then(|name| resources.get_x_object(name))
                    {
                        self.show_form(&form, resources, &state, depth, line)?;
                    }
                }
                _ => {}
            }
        }
        if is_whole { Ok(()) } else { Err("its content is damaged: an operand cannot be read".to_owned()) }
    }

    /// Shows a form where `state` is, which is its own to start with (PDF 32000-1, 8.10.1).
    fn show_form(
        &mut self,
        form: &Stream<'a>,
        resources: &Resources<'a>,
        state: &State<'a>,
        depth: u32,
        line: &mut Line,
    ) -> Result<(), String> {
        let dict = form.dict();
        if dict.get::<Name<'_>>(SUBTYPE).as_deref() != Some(b"Form") {
            return Ok(());
        }
        if depth >= MOST_FORMS {
            return Err(format!("more than {MOST_FORMS} forms within each other"));
        }
        let content = self.content(form)?;
        let matrix = dict.get::<[f64; 6]>(MATRIX).map_or(Affine::IDENTITY, Affine::new);
        let own = dict.get::<Dict<'a>>(RESOURCES).map(Resources::new);
        let mut state = state.clone();
        state.place *= matrix;
        state.start_line(Affine::IDENTITY);
        self.show(content, own.as_ref().unwrap_or(resources), state, depth + 1, line)
    }
}

fn number(operand: Option<&Object<'_>>) -> f64 {
    match operand {
        Some(Object::Number(number)) => number.as_f64(),
        _ => 0.0,
    }
}

fn name_of<'b, 'c>(operand: Option<&'b Object<'c>>) -> Option<&'b Name<'c>> {
    match operand {
        Some(Object::Name(name)) => Some(name),
        _ => None,
    }
}

fn vector<'b, 'c: 'b>(mut operands: impl Iterator<Item = &'b Object<'c>>) -> Vec2 {
    let x = number(operands.next());
    Vec2::new(x, number(operands.next()))
}

/// Of six operands; fewer are no matrix, and move nothing.
fn affine<'b, 'c: 'b>(operands: impl Iterator<Item = &'b Object<'c>>) -> Affine {
    let numbers: Vec<f64> = operands.take(6).map(|operand| number(Some(operand))).collect();
    numbers.try_into().map_or(Affine::IDENTITY, Affine::new)
}

/// The part of a graphics state that moves text (PDF 32000-1, 9.3).
#[derive(Clone)]
struct State<'a> {
    place: Affine,
    font: Option<Rc<Face<'a>>>,
    size: f64,
    after_glyph: f64,
    after_space: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
    line_start: Affine,
    next_glyph: Affine,
}

impl Default for State<'_> {
    fn default() -> Self {
        Self {
            place: Affine::IDENTITY,
            font: None,
            size: 1.0,
            after_glyph: 0.0,
            after_space: 0.0,
            stretch: 1.0,
            leading: 0.0,
            rise: 0.0,
            line_start: Affine::IDENTITY,
            next_glyph: Affine::IDENTITY,
        }
    }
}

impl State<'_> {
    fn start_line(&mut self, at: Affine) {
        self.line_start = at;
        self.next_glyph = at;
    }

    fn next_line(&mut self, step: Vec2) {
        self.start_line(self.line_start * Affine::translate(step));
    }

    fn step(&mut self, along: f64) {
        let is_horizontal = self.font.as_ref().is_none_or(|face| face.font.is_horizontal());
        let step = if is_horizontal { (along * self.stretch, 0.0) } else { (0.0, along) };
        self.next_glyph *= Affine::translate(step);
    }

    fn step_back(&mut self, thousandths: f64) {
        self.step(-thousandths / 1000.0 * self.size);
    }

    fn show_string(&mut self, string: Option<&Object<'_>>, line: &mut Line) -> Result<(), String> {
        let Some(Object::String(string)) = string else { return Ok(()) };
        let bytes = string.as_bytes();
        let Some(face) = self.font.clone() else {
            // Where its codes end is not known either.
            return if bytes.is_empty() { Ok(()) } else { line.add(None, self.glyph(Vec2::ZERO, 1.0)) };
        };
        let mut at = 0;
        while at < bytes.len() {
            let (code, n_bytes) = face.font.read_code(bytes, at);
            at += n_bytes.max(1);
            let advance = face.font.code_advance(code) / 1000.0;
            line.add(face.character(code), self.glyph(advance, face.em))?;
            let along = if face.font.is_horizontal() { advance.x } else { advance.y };
            let after_space = if code == 32 && n_bytes == 1 { self.after_space } else { 0.0 };
            self.step(along * self.size + self.after_glyph + after_space);
        }
        Ok(())
    }

    /// Where the next glyph is.
    fn glyph(&self, advance: Vec2, em: f64) -> Placed {
        let em_square = Affine::new([self.size * self.stretch, 0.0, 0.0, self.size, 0.0, self.rise]);
        let place = self.place * self.next_glyph * em_square;
        let origin = place * Point::ORIGIN;
        let is_vertical = self.font.as_ref().is_some_and(|face| !face.font.is_horizontal());
        let (ahead, aside) = if is_vertical { ((0.0, -1.0), (1.0, 0.0)) } else { ((1.0, 0.0), (0.0, 1.0)) };
        Placed {
            start: origin,
            end: place * advance.to_point(),
            ahead: place * Point::from(ahead) - origin,
            em: (place * Point::from(aside) - origin).hypot() * em,
        }
    }
}

/// A glyph on the page.
#[derive(Clone, Copy)]
struct Placed {
    start: Point,
    end: Point,
    /// Which way its line goes.
    ahead: Vec2,
    em: f64,
}

/// Where the text of a page is written down.
struct Line {
    /// Of the pages before.
    n_bytes: u64,
    most: u64,
    page: PageText,
    /// The glyph before.
    before: Option<Placed>,
}

impl Line {
    /// Appends what a glyph shows, and before it what stands between it and the glyph before.
    fn add(&mut self, character: Option<BfString>, at: Placed) -> Result<(), String> {
        let text = &mut self.page.text;
        if let Some(between) = self.before.and_then(|before| between(before, at)) {
            let is_blank = match &character {
                Some(BfString::Char(character)) => character.is_whitespace(),
                Some(BfString::String(characters)) => characters.is_empty(),
                None => false,
            };
            // A space that is there need not be guessed.
            if between == '\n' || !is_blank && !text.ends_with(char::is_whitespace) {
                text.push(between);
            }
        }
        self.before = Some(at);
        match character {
            Some(BfString::Char(character)) => text.push(character),
            Some(BfString::String(characters)) => text.push_str(&characters),
            None => {
                self.page.n_unknown += 1;
                text.push(UNKNOWN);
            }
        }
        let n_bytes = self.n_bytes + text.len() as u64;
        if n_bytes > self.most { Err(too_long_decoded(n_bytes, self.most)) } else { Ok(()) }
    }
}

/// What separates a glyph from the one before: a line's end, a space, nothing. A file need not tell, so the page decides.
fn between(before: Placed, at: Placed) -> Option<char> {
    let em = before.em.max(at.em);
    let ahead = before.ahead / before.ahead.hypot();
    let step = at.start - before.end;
    let (along, aside) = (step.dot(ahead), step.cross(ahead).abs());
    let is_turned = at.ahead.dot(ahead) < 0.9 * at.ahead.hypot();
    if is_turned || aside > LINE * em || along < -BACK * em {
        Some('\n')
    } else if along > SPACE * em {
        Some(' ')
    } else {
        None
    }
}

/// A font, and what else is asked of it.
struct Face<'a> {
    font: Font<'a>,
    /// Its em, in sizes of the font: 1 but for Type 3, where it can be anything.
    em: f64,
    /// What the file says of characters, if it says of some glyphs that they have none.
    told: Option<CMap>,
    /// Of the codes that have been asked for.
    characters: std::cell::RefCell<HashMap<u32, Option<BfString>>>,
}

impl Face<'_> {
    fn character(&self, code: u32) -> Option<BfString> {
        let look_up = || match self.told.as_ref().and_then(|told| told.lookup_bf_string(code)) {
            Some(BfString::Char(NOTHING)) => Some(BfString::String(String::new())),
            Some(told) => Some(told),
            None => match self.font.glyph(self.font.map_code(code), code) {
                FontGlyph::Outline(glyph) => glyph.as_unicode(),
                FontGlyph::Type3(glyph) => glyph.as_unicode(),
            },
        };
        self.characters.borrow_mut().entry(code).or_insert_with(look_up).clone()
    }
}

/// Fonts of a file, each read once.
struct Fonts<'a> {
    bounds: Bounds,
    /// Bytes that maps of characters may still have: each font keeps its own, even if several are of one stream.
    maps_left: u64,
    cache: FontCache<'a>,
    programs: FontResolverFn,
    cmaps: CMapResolverFn,
    /// By the place of their dictionaries.
    faces: HashMap<(usize, usize), Option<Rc<Face<'a>>>>,
}

impl<'a> Fonts<'a> {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            maps_left: bounds.content(),
            cache: FontCache::new(),
            programs: Arc::new(|query| match query {
                FontQuery::Standard(font) => Some(font.get_font_data()),
                FontQuery::Fallback(query) => Some(query.pick_standard_font().get_font_data()),
            }),
            cmaps: Arc::new(hayro_cmap::load_embedded),
            faces: HashMap::new(),
        }
    }

    /// The font of a dictionary, `None` if it is none that can be read.
    fn get(&mut self, dict: Option<Dict<'a>>) -> Result<Option<Rc<Face<'a>>>, String> {
        let Some(dict) = dict else { return Ok(None) };
        let key = (dict.data().as_ptr() as usize, dict.data().len());
        if let Some(face) = self.faces.get(&key) {
            return Ok(face.clone());
        }
        self.check(&dict)?;
        self.charge_maps(&dict)?;
        let told = self.told_characters(&dict)?;
        let font = self.cache.font(&dict, &self.programs, &self.cmaps);
        let is_type3 = dict.get::<Name<'_>>(SUBTYPE).as_deref() == Some(b"Type3");
        let face = font.map(|font| {
            let widest = (0..256).map(|code| font.code_advance(code).x / 1000.0);
            let em = if is_type3 { widest.fold(0.0, f64::max) } else { 1.0 };
            Rc::new(Face { font, em, told, characters: HashMap::new().into() })
        });
        self.faces.insert(key, face.clone());
        Ok(face)
    }

    fn charge_maps(&mut self, dict: &Dict<'a>) -> Result<(), String> {
        let descendants = dict.get::<Array<'a>>(DESCENDANT_FONTS);
        let of_descendants = descendants.iter().flat_map(|fonts| fonts.iter::<Dict<'a>>());
        let glyphs = of_descendants.filter_map(|font| font.get::<Stream<'a>>(CID_TO_GID_MAP));
        let own = [TO_UNICODE, ENCODING].into_iter().filter_map(|key| dict.get::<Stream<'a>>(key));
        for map in own.chain(glyphs) {
            let map = streams::content(&map, self.bounds).map_err(|stop| stop.reason(self.bounds))?;
            self.maps_left = self.maps_left.checked_sub(map.len() as u64).ok_or_else(|| {
                format!("maps of characters of more than {} bytes in all fonts", self.bounds.content())
            })?;
        }
        Ok(())
    }

    /// Refuses what would make the reader of fonts set memory aside by a number alone.
    fn check(&self, dict: &Dict<'a>) -> Result<(), String> {
        if dict.get::<i64>(FIRST_CHAR).is_some_and(|first| !(0..=255).contains(&first)) {
            return Err("a font whose first character is none of 256".to_owned());
        }
        let descendants = dict.get::<Array<'a>>(DESCENDANT_FONTS);
        for font in descendants.iter().flat_map(|fonts| fonts.iter::<Dict<'a>>()) {
            for (key, range) in [(W, 3), (W2, 5)] {
                if font.get::<Array<'a>>(key).is_some_and(|widths| !are_ranges_short(&widths, range)) {
                    return Err("a font with the width of more than 65536 characters".to_owned());
                }
            }
        }
        Ok(())
    }

    /// The map to characters where it has `<>` for glyphs that are only a part of what another one shows (of a ligature, of a
    /// syllable): the reader of maps stops there, so it is given one that has [`NOTHING`] in their place.
    ///
    /// # Errors
    /// When there is a map, but it cannot be decoded whole.
    fn told_characters(&self, dict: &Dict<'a>) -> Result<Option<CMap>, String> {
        let Some(map) = dict.get::<Stream<'a>>(TO_UNICODE) else { return Ok(None) };
        let map = streams::content(&map, self.bounds).map_err(|stop| stop.reason(self.bounds))?;
        let is_empty_string = |at: usize| !map[..at].ends_with(b"<") && !map[at + 2..].starts_with(b">");
        let mut plain = Vec::new();
        let mut end = 0;
        for at in memmem::find_iter(&map, b"<>").filter(|at| is_empty_string(*at)) {
            plain.extend_from_slice(&map[end..at]);
            plain.extend_from_slice(b"<ffff>");
            end = at + 2;
        }
        if end == 0 {
            return Ok(None);
        }
        plain.extend_from_slice(&map[end..]);
        Ok(CMap::parse(&plain, hayro_cmap::load_embedded))
    }
}

/// Whether no range among widths of a CID font spans more characters than there can be (PDF 32000-1, 9.7.4.3): a range is its
/// first, its last, and one or three numbers, `n` in all; else there is an array behind the first.
fn are_ranges_short(widths: &Array<'_>, n: usize) -> bool {
    let mut range = Vec::with_capacity(n);
    for part in widths.iter::<Object<'_>>() {
        match part {
            Object::Number(number) => range.push(number.as_f64()),
            _ => range.clear(),
        }
        if range.len() == n {
            if range[1] - range[0] > 65536.0 {
                return false;
            }
            range.clear();
        }
    }
    true
}
