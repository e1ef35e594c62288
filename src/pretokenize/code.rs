//! Source code in, its bytes as they are out, with its items (functions, types, imports …) and the methods inside them as segments. Knows
//! nothing of what the code means.
//!
//! - Segments tile the content. An item has the comments and attributes that stand directly before it, a comment behind it on its last
//!   line, and the whole of its lines where it does not share them. Imports that follow each other are one.
//! - What holds other items (class, impl, module …) is cut at these: what comes before the first, with the name of what it begins, what
//!   is between them and what is behind the last are of kind `rest`, as is all that is in no item. Without items in it, it is one segment.
//! - Meta is `{"name":"f","language":"rust","lines":[1,3]}`. `name` is there where the item has one of at most `MAX_NAME_BYTES` that is
//!   UTF-8; `language` is that of the pipeline file, the one the row names where it is another, or null; `lines` are those in which the
//!   segment's first and last byte stand, counted from 1, each with the `\n` that ends it.
//! - Code in another language, in none that was found, or that would take too much to parse, is one segment of kind `rest`.

mod find;
mod items;
mod languages;
#[cfg(test)]
mod tests;
mod tree;

use std::time::{Duration, Instant};

use find::Found;
use items::Item;
use languages::{Grammar, IMPORT, REST};

use tree::OutOfTime;

use super::{Content, Needs, Pretokenizer, View, too_long_decoded, took_too_long};
use crate::{
    config::{Language, PretokenizeCode},
    data::Segment,
};

const MODALITY: &str = "code";
/// Longer ones are left out, so that meta stays small.
const MAX_NAME_BYTES: usize = 256;

/// Pretokenizing of source code.
#[derive(Debug)]
pub struct Code {
    language: Option<Language>,
    max_document_bytes: u64,
    row_time: Duration,
}

impl Code {
    /// By `settings`, for documents of at most `max_document_bytes`, each of which may take `row_time`: whoever asks for one goes on
    /// without it then, and the parser should not.
    pub fn new(settings: &PretokenizeCode, max_document_bytes: u64, row_time: Duration) -> Self {
        Self { language: settings.language, max_document_bytes, row_time }
    }
}

/// Whether `name` is that of a language whose items are found.
pub(super) fn is_language(name: &str) -> bool {
    find::by_name(name).is_some()
}

/// Whether the ending of `path` is that of such a language.
pub(super) fn is_path(path: &str) -> bool {
    find::by_ending(path).is_some()
}

impl Pretokenizer for Code {
    fn needs(&self, content: &Content) -> Needs {
        let n_bytes = content.bytes.len();
        // The head of what is longer is parsed, too, where nothing else tells its language.
        let beside = tree::memory(n_bytes).max(tree::memory(n_bytes.min(find::HEAD_BYTES)));
        Needs { views: n_bytes as u64, beside }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let n_bytes = content.bytes.len() as u64;
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        let deadline = Instant::now() + self.row_time;
        let late = |OutOfTime| took_too_long(self.row_time);
        let found = find::language(self.language, &content, deadline).map_err(late)?;
        let (items, language) = match &found {
            Found::OneOf(grammars) => {
                match fewest_errors(grammars, &content.bytes, deadline).map_err(late)? {
                    Some((items, grammar)) => (items, Some(grammar.name)),
                    None => (Vec::new(), grammars.first().map(|grammar| grammar.name)),
                }
            }
            Found::Other(name) => (Vec::new(), Some(&**name).filter(|name| name.len() <= MAX_NAME_BYTES)),
            Found::Unknown => (Vec::new(), None),
        };
        let segments = segments(&content.bytes, &tile(content.bytes.len(), &items), language);
        Ok(vec![View { modality: MODALITY, name: None, segments, bytes: content.bytes }])
    }
}

/// The items by the grammar that has the fewest errors. One tree is held at a time.
///
/// # Errors
/// After `deadline`.
fn fewest_errors(
    grammars: &[&'static Grammar],
    content: &[u8],
    deadline: Instant,
) -> Result<Option<(Vec<Item>, &'static Grammar)>, OutOfTime> {
    let mut best: Option<(u64, Vec<Item>, &Grammar)> = None;
    for &grammar in grammars {
        let Some(tree) = tree::parse(content, grammar, deadline)? else { continue };
        let n_errors = tree::errors(&tree);
        if best.as_ref().is_none_or(|(least, ..)| n_errors < *least) {
            best = Some((n_errors, items::items(&tree, content, grammar), grammar));
        }
        if n_errors == 0 {
            break;
        }
    }
    Ok(best.map(|(_, items, grammar)| (items, grammar)))
}

/// Tiles `n_bytes` with `items`, which nest and are in order, and the rest between them. None of the pieces is empty.
fn tile(n_bytes: usize, items: &[Item]) -> Vec<Item> {
    let mut pieces = Pieces { at: 0, pieces: Vec::new() };
    // The item that no piece was cut from yet.
    let mut begun: Option<&Item> = None;
    for item in items {
        if let Some(before) = begun {
            match item.bytes.start < before.bytes.end {
                true => pieces.cut(item.bytes.start, REST, before.name.clone()),
                false => pieces.cut(before.bytes.end, before.kind, before.name.clone()),
            }
        }
        pieces.cut(item.bytes.start, REST, None);
        begun = Some(item);
    }
    if let Some(last) = begun {
        pieces.cut(last.bytes.end, last.kind, last.name.clone());
    }
    pieces.cut(n_bytes, REST, None);
    pieces.pieces
}

struct Pieces {
    /// End of the last one.
    at: usize,
    pieces: Vec<Item>,
}

impl Pieces {
    /// Adds what comes before `end`, if there is something.
    fn cut(&mut self, end: usize, kind: &'static str, name: Option<std::ops::Range<usize>>) {
        if end <= self.at {
            return;
        }
        match self.pieces.last_mut() {
            Some(last) if last.kind == IMPORT && kind == IMPORT => last.bytes.end = end,
            _ => self.pieces.push(Item { bytes: self.at..end, kind, name }),
        }
        self.at = end;
    }
}

fn segments(content: &[u8], pieces: &[Item], language: Option<&str>) -> Vec<Segment> {
    let language = language.map_or("null".to_owned(), json);
    let mut line = 1;
    let mut segment = |piece: &Item| {
        let bytes = &content[piece.bytes.clone()];
        let n_breaks = memchr::memchr_iter(b'\n', bytes).count();
        let (first, last) = (line, line + n_breaks - usize::from(bytes.ends_with(b"\n")));
        line += n_breaks;
        let name = piece.name.clone().and_then(|name| std::str::from_utf8(&content[name]).ok());
        let name = name.filter(|name| name.len() <= MAX_NAME_BYTES);
        let name = name.map_or(String::new(), |name| format!("\"name\":{},", json(name)));
        let meta = format!("{{{name}\"language\":{language},\"lines\":[{first},{last}]}}");
        Segment {
            kind: piece.kind,
            bytes: piece.bytes.start as u64..piece.bytes.end as u64,
            meta: Some(meta),
        }
    };
    pieces.iter().map(&mut segment).collect()
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
