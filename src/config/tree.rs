//! TOML text and overriding flags in, one tree of values out, each of which remembers where it was
//! written. Knows nothing of which keys exist, but for `source.limit` and `sink.uri`, which have
//! flags of their own.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Problem, excerpt, line_and_column};
use super::{Overrides, check};

/// Keys from the outermost inwards; an element of an array has its index.
pub(super) type KeyPath = Vec<String>;

/// A pipeline file with its overrides applied.
pub(super) struct Document<'a> {
    text: &'a str,
    name: &'a str,
    pub root: Table,
    places: BTreeMap<KeyPath, Place>,
}

/// Where a key and its value were written.
#[derive(Clone, Debug)]
enum Place {
    Text {
        key: Range<usize>,
        value: Range<usize>,
    },
    /// The flag with its argument.
    Flag(String),
}

/// Which part of a place a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

impl<'a> Document<'a> {
    /// # Errors
    /// The first mistake of syntax; a `--set` that is not `section.key=value` or goes through a
    /// value that is no table.
    pub fn parse(text: &'a str, name: &'a str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| {
            let span = error.span().unwrap_or(0..0);
            let (line, column) = line_and_column(text, span.start);
            ConfigError::Invalid(vec![Problem {
                message: format!("failed to parse TOML: {}", error.message().replace('\n', ", ")),
                place: format!("at {name}:{line}:{column}"),
                hint: None,
                excerpt: Some(excerpt(text, &span)),
            }])
        };
        let spans = DeTable::parse(text).map_err(syntax)?;
        let root: Table = toml::from_str(text).map_err(syntax)?;
        let mut document = Self { text, name, root, places: BTreeMap::new() };
        document.note_table(&mut Vec::new(), spans.get_ref());

        let mut problems = Vec::new();
        for argument in &overrides.set {
            if let Err(problem) = document.set_argument(argument) {
                problems.push(problem);
            }
        }
        if let Some(limit) = overrides.limit {
            // TOML integers are signed; a limit beyond them is no limit that could matter.
            let value = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
            let flag = format!("--limit {limit}");
            if let Err(problem) = document.set(&["source", "limit"], value, &flag) {
                problems.push(problem);
            }
        }
        if let Some(output) = &overrides.output {
            let value = Value::String(output.clone());
            let flag = format!("--output {output}");
            if let Err(problem) = document.set(&["sink", "uri"], value, &flag) {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(document) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The name of the file in messages.
    pub fn name(&self) -> &str {
        self.name
    }

    /// A problem with what is written at `path`, or else with the innermost table around it that
    /// is written.
    pub fn problem(&self, path: &[String], part: Part, message: String) -> Problem {
        let known = (1..=path.len()).rev().find_map(|n| Some((n, self.places.get(&path[..n])?)));
        let (place, excerpt) = match known {
            None => (format!("in {}", self.name), None),
            Some((_, Place::Flag(flag))) => (format!("in `{flag}`"), None),
            Some((n, Place::Text { key, value })) => {
                let exact = n == path.len();
                let span = if exact && part == Part::Value { value } else { key };
                let (line, column) = line_and_column(self.text, span.start);
                (format!("at {}:{line}:{column}", self.name), Some(excerpt(self.text, span)))
            }
        };
        Problem { message, place, hint: None, excerpt }
    }

    /// Where `path` was written, to sort problems by: the file's text in its order, then flags.
    pub fn order(&self, path: &[String]) -> usize {
        (1..=path.len()).rev().find_map(|n| self.places.get(&path[..n])).map_or(0, |place| match place {
            Place::Text { key, .. } => key.start,
            Place::Flag(_) => usize::MAX,
        })
    }

    fn note_table(&mut self, path: &mut KeyPath, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            self.note(path, key.span(), value);
            path.pop();
        }
    }

    fn note(&mut self, path: &mut KeyPath, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let place = Place::Text { key, value: value.span() };
        self.places.insert(path.clone(), place);
        match value.get_ref() {
            DeValue::Table(table) => self.note_table(path, table),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    path.push(index.to_string());
                    self.note(path, element.span(), element);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn set_argument(&mut self, argument: &str) -> Result<(), Problem> {
        let flag = format!("--set {argument}");
        let Some((keys, text)) = argument.split_once('=') else {
            return Err(flag_problem("failed to find `=`", &flag));
        };
        let keys: Vec<&str> = keys.split('.').map(str::trim).collect();
        if keys.len() < 2 || keys.contains(&"") {
            return Err(flag_problem("failed to find `section.key`", &flag));
        }
        let text = text.trim();
        let bare = Value::String(text.to_owned());
        let value = match toml::from_str::<Table>(&format!("value = {text}")) {
            // More keys than the one mean that the argument holds a line break.
            Ok(table) if table.len() == 1 => table.get("value").cloned().unwrap_or(bare),
            _ => bare,
        };
        // `source.id=7` means the column `7`: a key that takes strings only takes the text.
        let value = if check::wants_text(&keys, &value) { Value::String(text.to_owned()) } else { value };
        self.set(&keys, value, &flag)
    }

    fn set(&mut self, keys: &[&str], value: Value, flag: &str) -> Result<(), Problem> {
        let mut path: KeyPath = Vec::new();
        let mut table = &mut self.root;
        let Some((last, outer)) = keys.split_last() else {
            return Ok(());
        };
        for key in outer {
            path.push((*key).to_owned());
            let entry = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            self.places.entry(path.clone()).or_insert_with(|| Place::Flag(flag.to_owned()));
            let Value::Table(inner) = entry else {
                let message = format!("{} is not a table", path.join("."));
                return Err(flag_problem(&message, flag));
            };
            table = inner;
        }
        table.insert((*last).to_owned(), value);
        path.push((*last).to_owned());
        self.places.retain(|known, _| !known.starts_with(&path));
        self.places.insert(path, Place::Flag(flag.to_owned()));
        Ok(())
    }
}

fn flag_problem(message: &str, flag: &str) -> Problem {
    Problem { message: message.to_owned(), place: format!("in `{flag}`"), hint: None, excerpt: None }
}
