//! The contents of a file in, a reason not to draw its pages out: an image between the operators that is too large, or a line of more
//! dashes than memory has room for. Drawing a line makes all of its dashes first. Knows nothing of where a line lies: dashes are told in
//! the units of its points.

use std::collections::HashSet;

use hayro_syntax::{
    Pdf,
    content::UntypedIter,
    object::{
        Array, Dict, Name, Object, Stream,
        dict::keys::{CONTENTS, D, RESOURCES, SUBTYPE},
    },
    page::Resources,
};

use super::{
    picture::check_image,
    streams::{self, Bounds},
};

/// Of a dash while its line is drawn, measured: 375.
const DASH_BYTES: u64 = 400;
/// Length of a glyph's outline in ems: the most intricate letters have less.
const GLYPH_EMS: f64 = 32.0;
/// Graphics states within each other whose dashes are known; within more, those of the outer one count.
const MOST_STATES: usize = 1 << 14;

/// Refuses files with an image or a line in its contents that `bounds` leave no room for. Content that is shown by other content, a form
/// say, is taken to begin with the closest dashes in the file.
///
/// # Errors
/// When there is one.
pub(super) fn check(pdf: &Pdf, bounds: Bounds) -> Result<(), String> {
    let most = Most { bounds, dashes: (bounds.one() / DASH_BYTES) as f64 };
    let at_first = Most { dashes: f64::INFINITY, ..most };
    let mut closest = 0.0_f64;
    let mut of_pages = HashSet::new();
    for page in pdf.pages().iter() {
        match page.raw().get::<Object<'_>>(CONTENTS) {
            Some(Object::Stream(stream)) => drop(of_pages.insert(stream.obj_id())),
            Some(Object::Array(parts)) => {
                of_pages.extend(parts.iter::<Stream<'_>>().map(|stream| stream.obj_id()))
            }
            _ => {}
        }
        let content = page.page_stream().unwrap_or_default();
        closest = closest.max(Lines::new(0.0, most).draw(content, Some(page.resources()))?);
    }
    let mut shown = Vec::new();
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        if stream.dict().get::<Name<'_>>(SUBTYPE).as_deref() == Some(b"Image") {
            continue;
        }
        // What cannot be unpacked is not drawn.
        let Ok(content) = streams::content(&stream, bounds) else { continue };
        let resources = stream.dict().get::<Dict<'_>>(RESOURCES).map(Resources::new);
        closest = closest.max(Lines::new(0.0, at_first).draw(&content, resources.as_ref())?);
        if !of_pages.contains(&stream.obj_id()) {
            shown.push(stream);
        }
    }
    if closest > 0.0 {
        for stream in shown {
            let Ok(content) = streams::content(&stream, bounds) else { continue };
            let resources = stream.dict().get::<Dict<'_>>(RESOURCES).map(Resources::new);
            Lines::new(closest, most).draw(&content, resources.as_ref())?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Most {
    /// Of images.
    bounds: Bounds,
    /// Dashes of a line.
    dashes: f64,
}

/// The lines of a content.
struct Lines {
    most: Most,
    state: State,
    saved: Vec<State>,
    /// Length of the path so far.
    length: f64,
    start: (f64, f64),
    point: (f64, f64),
}

#[derive(Clone, Copy)]
struct State {
    /// Dashes in a unit of length, and gaps; 0 for a line without.
    dashes: f64,
    font_size: f64,
    font_scale: f64,
    text_is_lines: bool,
}

impl Lines {
    /// With so many dashes in a unit at first.
    fn new(dashes: f64, most: Most) -> Self {
        let state = State { dashes, font_size: 0.0, font_scale: 1.0, text_is_lines: false };
        Lines { most, state, saved: Vec::new(), length: 0.0, start: (0.0, 0.0), point: (0.0, 0.0) }
    }

    /// Goes through `content` and gives the closest dashes that it sets.
    fn draw(&mut self, content: &[u8], resources: Option<&Resources<'_>>) -> Result<f64, String> {
        let mut closest = 0.0_f64;
        let mut operators = UntypedIter::new(content);
        while let Some(operator) = operators.next() {
            let name: &[u8] = operator.operator;
            let number = |operand: &Object<'_>| match operand {
                Object::Number(number) => number.as_f64(),
                _ => 0.0,
            };
            let mut numbers = [0.0; 6];
            for (slot, operand) in numbers.iter_mut().zip(operator.operands()) {
                *slot = number(operand);
            }
            let [a, b, c, d, e, f] = numbers;
            match name {
                b"q" if self.saved.len() < MOST_STATES => self.saved.push(self.state),
                b"Q" => self.state = self.saved.pop().unwrap_or(self.state),
                b"d" => {
                    if let Some(Object::Array(array)) = operator.operands().next() {
                        self.state.dashes = in_a_unit(array);
                    }
                }
                b"gs" => {
                    let set = operator.operands().next().and_then(|operand| match operand {
                        Object::Name(name) => resources?.get_ext_g_state(name)?.get::<Array<'_>>(D),
                        _ => None,
                    });
                    if let Some(array) = set.and_then(|set| set.iter::<Array<'_>>().next()) {
                        self.state.dashes = in_a_unit(&array);
                    }
                }
                b"m" => (self.start, self.point) = ((a, b), (a, b)),
                b"l" => self.go(&[(a, b)]),
                b"c" => self.go(&[(a, b), (c, d), (e, f)]),
                b"v" | b"y" => self.go(&[(a, b), (c, d)]),
                b"h" => self.go(&[self.start]),
                b"re" => {
                    (self.start, self.point) = ((a, b), (a, b));
                    self.length += 2.0 * (c.abs() + d.abs());
                }
                b"s" | b"b" | b"b*" => {
                    self.go(&[self.start]);
                    self.line(self.length)?;
                    self.length = 0.0;
                }
                b"S" | b"B" | b"B*" => {
                    self.line(self.length)?;
                    self.length = 0.0;
                }
                b"f" | b"F" | b"f*" | b"n" => self.length = 0.0,
                b"BI" => {
                    for operand in operator.operands() {
                        if let Object::Stream(image) = operand {
                            check_image(image, self.most.bounds)?;
                        }
                    }
                }
                b"BT" => self.state.font_scale = 1.0,
                b"Tm" => {
                    self.state.font_scale = [a, b, c, d].into_iter().fold(0.0, |most, x| x.abs().max(most))
                }
                b"Tf" => self.state.font_size = b.abs(),
                b"Tr" => self.state.text_is_lines = [1.0, 2.0, 5.0, 6.0].contains(&a),
                b"Tj" | b"TJ" | b"'" | b"\"" if self.state.text_is_lines => {
                    self.line(GLYPH_EMS * self.state.font_size * self.state.font_scale)?;
                }
                _ => {}
            }
            closest = closest.max(self.state.dashes);
        }
        Ok(closest)
    }

    /// Adds what a line through `points`, or a curve that they hold, has at most.
    fn go(&mut self, points: &[(f64, f64)]) {
        for point in points {
            let (x, y) = (point.0 - self.point.0, point.1 - self.point.1);
            self.length += (x * x + y * y).sqrt();
            self.point = *point;
        }
    }

    fn line(&self, length: f64) -> Result<(), String> {
        let n_dashes = length * self.state.dashes;
        if length > 0.0 && n_dashes > self.most.dashes {
            return Err(format!("a line of {n_dashes:.0} dashes, more than {}", self.most.dashes));
        }
        Ok(())
    }
}

/// Dashes and gaps in a unit of length, 0 for a line without.
fn in_a_unit(array: &Array<'_>) -> f64 {
    let (mut n, mut length) = (0.0, 0.0);
    for part in array.iter::<f64>() {
        n += 1.0;
        // What is drawn for one of no length.
        length += if part == 0.0 { 0.01 } else { part };
    }
    match n > 0.0 {
        // No line gets on by negative ones.
        true if length <= 0.0 => f64::INFINITY,
        true => n / length,
        false => 0.0,
    }
}
