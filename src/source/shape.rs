//! What the values of a JSON key have been, and the one Arrow type that holds all of them as they are. Knows nothing of rows
//! but where a kind of value was first seen.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::Path, sync::Arc};

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::{Map, Value, value::RawValue};

use super::json;

/// Names below one key: a struct has a column for each. Where every row has names of its own, they are data, not columns.
const MAX_FIELDS: usize = 1000;
const MAX_NAME_BYTES: usize = 4096;
/// Lists and objects inside of each other.
const MAX_DEPTH: usize = 32;
/// Up to here a float64 holds every integer.
const EXACT: u64 = 1 << 53;

/// Where a kind of value was first seen.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    Row {
        file: Arc<Path>,
        row: u64,
    },
    /// In the plan that the output was begun with.
    Output,
}

impl fmt::Display for Sight {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sight::Row { file, row } => write!(to, "row {row} of {}", file.display()),
            Sight::Output => write!(to, "the output, as it was begun"),
        }
    }
}

/// A key, or what is below it.
#[derive(Clone, Copy)]
struct Place<'a> {
    above: Option<&'a Place<'a>>,
    /// `None` for the items of a list.
    name: Option<&'a str>,
    depth: usize,
}

impl<'a> Place<'a> {
    fn key(name: &'a str) -> Place<'a> {
        Place { above: None, name: Some(name), depth: 0 }
    }

    fn below(&'a self, name: Option<&'a str>) -> Place<'a> {
        Place { above: Some(self), name, depth: self.depth + 1 }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.above, self.name) {
            (None, name) => to.write_str(name.unwrap_or_default()),
            (Some(above), None) => write!(to, "{above}[]"),
            (Some(above), Some(name)) => write!(to, "{above}.{name}"),
        }
    }
}

/// All values of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    shape: Shape,
    n_fields: usize,
}

impl Seen {
    /// Takes note of one more `value` of the key `name`.
    ///
    /// # Errors
    /// When no type holds it beside the others, or at all.
    pub(super) fn see(&mut self, name: &str, value: &RawValue, sight: &Sight) -> Result<(), String> {
        self.shape.see(value, Place::key(name), sight, &mut self.n_fields)
    }

    /// Takes note of all of `other`.
    ///
    /// # Errors
    /// When no type holds both.
    pub(super) fn merge(&mut self, name: &str, other: &Seen) -> Result<(), String> {
        self.shape.merge(&other.shape, Place::key(name))?;
        self.n_fields = self.shape.n_fields();
        if self.n_fields > MAX_FIELDS {
            return Err(too_many_fields(&Place::key(name), None));
        }
        Ok(())
    }

    /// The type for all of them; `None` when there was none but `null`, `[]` and `{}`.
    ///
    /// # Errors
    /// When there are numbers among them that no type holds together.
    pub(super) fn data_type(&self, name: &str) -> Result<Option<DataType>, String> {
        self.shape.data_type(Place::key(name))
    }

    /// As values of the type that [`to_json`] has put into words would have left it.
    pub(super) fn from_json(words: &Value) -> Option<Seen> {
        let shape = Shape::from_json(words)?;
        Some(Seen { n_fields: shape.n_fields(), shape })
    }
}

/// Whether `value` holds nothing but `null`, `[]` and `{}`.
pub(super) fn is_void(name: &str, value: &RawValue) -> bool {
    let mut seen = Seen::default();
    let seen = seen.see(name, value, &Sight::Output).and_then(|()| seen.data_type(name));
    matches!(seen, Ok(None))
}

#[derive(Clone, Debug, Default)]
enum Shape {
    #[default]
    Void,
    Boolean(Sight),
    Number(Numbers),
    Text(Sight),
    List(Sight, Box<Shape>),
    /// By name, so that the order of rows and files does not matter.
    Object(Sight, BTreeMap<String, Shape>),
}

/// First sights of each kind of number.
#[derive(Clone, Debug, Default)]
struct Numbers {
    integer: Option<Sight>,
    negative: Option<Sight>,
    above_i64: Option<Sight>,
    /// An integer that a float64 does not hold.
    inexact: Option<Sight>,
    float: Option<Sight>,
}

impl Shape {
    fn see(
        &mut self,
        value: &RawValue,
        place: Place<'_>,
        sight: &Sight,
        n_fields: &mut usize,
    ) -> Result<(), String> {
        let text = value.get();
        match (text.as_bytes().first(), &mut *self) {
            (None | Some(b'n'), _)
            | (Some(b't' | b'f'), Shape::Boolean(_))
            | (Some(b'"'), Shape::Text(_)) => Ok(()),
            (Some(b't' | b'f'), _) => self.merge(&Shape::Boolean(sight.clone()), place),
            (Some(b'"'), _) => self.merge(&Shape::Text(sight.clone()), place),
            (Some(b'[' | b'{'), _) if place.depth >= MAX_DEPTH => {
                let key = key_of(&place);
                Err(format!(
                    "{key} holds more than {MAX_DEPTH} lists and objects inside of each other in {sight}"
                ))
            }
            (Some(b'['), _) => {
                self.merge(&Shape::List(sight.clone(), Box::default()), place)?;
                let Shape::List(_, shape) = self else { return Ok(()) };
                let mut found = Ok(());
                // One that is broken goes to quarantine when it is read.
                let _ = json::items(text.as_bytes(), |item| {
                    if found.is_ok() {
                        found = shape.see(item, place.below(None), sight, n_fields);
                    }
                });
                found
            }
            (Some(b'{'), _) => {
                self.merge(&Shape::Object(sight.clone(), BTreeMap::new()), place)?;
                let Shape::Object(_, shapes) = self else { return Ok(()) };
                see_fields(text, shapes, place, sight, n_fields)
            }
            (Some(_), Shape::Number(numbers)) => numbers.see(text, place, sight),
            (Some(_), _) => {
                let mut numbers = Numbers::default();
                numbers.see(text, place, sight)?;
                self.merge(&Shape::Number(numbers), place)
            }
        }
    }

    fn merge(&mut self, other: &Shape, place: Place<'_>) -> Result<(), String> {
        match (&mut *self, other) {
            (_, Shape::Void) | (Shape::Boolean(_), Shape::Boolean(_)) | (Shape::Text(_), Shape::Text(_)) => {}
            (Shape::Void, other) => *self = other.clone(),
            (Shape::Number(numbers), Shape::Number(other)) => numbers.merge(other),
            (Shape::List(_, shape), Shape::List(_, other)) => shape.merge(other, place.below(None))?,
            (Shape::Object(_, shapes), Shape::Object(_, others)) => {
                for (name, other) in others {
                    shapes.entry(name.clone()).or_default().merge(other, place.below(Some(name)))?;
                }
            }
            (shape, other) => {
                let (a, b) = (shape.kind(), other.kind());
                return Err(format!(
                    "{place} is {} in {} and {} in {}; a column has one type, so make its values alike, or leave \
                     the key out",
                    a.0, a.1, b.0, b.1
                ));
            }
        }
        Ok(())
    }

    /// What it is, in words, and where that was seen.
    fn kind(&self) -> (&'static str, &Sight) {
        match self {
            Shape::Void => ("null", &Sight::Output),
            Shape::Boolean(sight) => ("true or false", sight),
            Shape::Number(numbers) => match (&numbers.integer, &numbers.float) {
                (Some(sight), _) => ("an integer", sight),
                (None, sight) => ("a number", sight.as_ref().unwrap_or(&Sight::Output)),
            },
            Shape::Text(sight) => ("a string", sight),
            Shape::List(sight, _) => ("a list", sight),
            Shape::Object(sight, _) => ("an object", sight),
        }
    }

    fn n_fields(&self) -> usize {
        match self {
            Shape::List(_, shape) => shape.n_fields(),
            Shape::Object(_, shapes) => shapes.values().map(|shape| 1 + shape.n_fields()).sum(),
            _ => 0,
        }
    }

    fn data_type(&self, place: Place<'_>) -> Result<Option<DataType>, String> {
        Ok(match self {
            Shape::Void => None,
            Shape::Boolean(_) => Some(DataType::Boolean),
            Shape::Number(numbers) => Some(numbers.data_type(place)?),
            Shape::Text(_) => Some(DataType::Utf8),
            Shape::List(_, shape) => {
                let item = shape.data_type(place.below(None))?;
                item.map(|item| DataType::List(Arc::new(Field::new_list_field(item, true))))
            }
            Shape::Object(_, shapes) => {
                let mut fields = Vec::new();
                for (name, shape) in shapes {
                    if let Some(data_type) = shape.data_type(place.below(Some(name)))? {
                        fields.push(Field::new(name, data_type, true));
                    }
                }
                (!fields.is_empty()).then(|| DataType::Struct(Fields::from(fields)))
            }
        })
    }

    fn from_json(words: &Value) -> Option<Shape> {
        let output = || Some(Sight::Output);
        Some(match words {
            Value::String(word) => match word.as_str() {
                "null" => Shape::Void,
                "boolean" => Shape::Boolean(Sight::Output),
                "string" => Shape::Text(Sight::Output),
                "int64" => Shape::Number(Numbers { integer: output(), ..Numbers::default() }),
                "uint64" => {
                    Shape::Number(Numbers { integer: output(), above_i64: output(), ..Numbers::default() })
                }
                "float64" => Shape::Number(Numbers { float: output(), ..Numbers::default() }),
                _ => return None,
            },
            Value::Array(items) => match &items[..] {
                [item] => Shape::List(Sight::Output, Box::new(Shape::from_json(item)?)),
                _ => return None,
            },
            Value::Object(fields) => {
                let shape = |(name, words): (&String, &Value)| Some((name.clone(), Shape::from_json(words)?));
                Shape::Object(Sight::Output, fields.iter().map(shape).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }
}

fn see_fields(
    text: &str,
    shapes: &mut BTreeMap<String, Shape>,
    place: Place<'_>,
    sight: &Sight,
    n_fields: &mut usize,
) -> Result<(), String> {
    let mut last: BTreeMap<Cow<'_, str>, &RawValue> = BTreeMap::new();
    let mut are_too_many = false;
    let is_whole = json::fields(text.as_bytes(), |name, value| {
        are_too_many = are_too_many || last.len() >= MAX_FIELDS && !last.contains_key(&name);
        if !are_too_many {
            last.insert(name, value);
        }
    });
    if is_whole.is_err() {
        // It goes to quarantine when it is read.
        return Ok(());
    }
    for (name, value) in last {
        if name.len() > MAX_NAME_BYTES {
            let key = key_of(&place);
            return Err(format!(
                "{key} has a field in {sight} whose name has {} bytes, more than {MAX_NAME_BYTES}",
                name.len()
            ));
        }
        if !shapes.contains_key(name.as_ref()) {
            *n_fields += 1;
            are_too_many = are_too_many || *n_fields > MAX_FIELDS;
            shapes.insert(name.clone().into_owned(), Shape::Void);
        }
        if are_too_many {
            return Err(too_many_fields(&place, Some(sight)));
        }
        if let Some(shape) = shapes.get_mut(name.as_ref()) {
            shape.see(value, place.below(Some(&name)), sight, n_fields)?;
        }
    }
    Ok(())
}

fn key_of<'a>(place: &Place<'a>) -> &'a str {
    let mut place = *place;
    while let Some(above) = place.above {
        place = *above;
    }
    place.name.unwrap_or_default()
}

fn too_many_fields(place: &Place<'_>, sight: Option<&Sight>) -> String {
    let seen = sight.map_or_else(String::new, |sight| format!(", the last of them in {sight}"));
    format!(
        "{} has objects with more than {MAX_FIELDS} names in all{seen}; each would be a column, so write them as a list of \
         names and values, or leave the key out",
        key_of(place)
    )
}

impl Numbers {
    fn see(&mut self, text: &str, place: Place<'_>, sight: &Sight) -> Result<(), String> {
        let note = |first: &mut Option<Sight>, is_one: bool| {
            if is_one && first.is_none() {
                *first = Some(sight.clone());
            }
        };
        if is_float(text) {
            note(&mut self.float, true);
            if float(text).is_none() {
                return Err(format!("{place} is {} in {sight}, more than a float64 holds", shown(text)));
            }
            return Ok(());
        }
        let Some(integer) = integer(text) else {
            return Err(format!(
                "{place} is {} in {sight}, more than an integer of 64 bits holds; write it as a string, or leave the \
                 key out",
                shown(text)
            ));
        };
        note(&mut self.integer, true);
        note(&mut self.negative, integer < 0);
        note(&mut self.above_i64, integer > i128::from(i64::MAX));
        note(&mut self.inexact, integer_as_float(integer).is_none());
        Ok(())
    }

    fn merge(&mut self, other: &Numbers) {
        for (first, other) in [
            (&mut self.integer, &other.integer),
            (&mut self.negative, &other.negative),
            (&mut self.above_i64, &other.above_i64),
            (&mut self.inexact, &other.inexact),
            (&mut self.float, &other.float),
        ] {
            if first.is_none() {
                first.clone_from(other);
            }
        }
    }

    fn data_type(&self, place: Place<'_>) -> Result<DataType, String> {
        match (&self.float, &self.inexact, &self.negative, &self.above_i64) {
            (Some(float), Some(integer), ..) => Err(format!(
                "{place} is a float64 in {float}, which the integer in {integer} does not fit into unchanged; write it as a \
                 string, or leave the key out"
            )),
            (Some(_), None, ..) => Ok(DataType::Float64),
            (None, _, Some(negative), Some(large)) => Err(format!(
                "{place} is a negative integer in {negative} and one above {} in {large}, which no type of 64 bits holds \
                 both; write it as a string, or leave the key out",
                i64::MAX
            )),
            (None, _, None, Some(_)) => Ok(DataType::UInt64),
            (None, _, _, None) => Ok(DataType::Int64),
        }
    }
}

/// Whether a JSON number is written as one with a fraction or an exponent.
pub(super) fn is_float(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// The nearest float64 to a JSON number that is written as a float, unless it is beyond all of them.
pub(super) fn float(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A JSON number that is written as an integer, if 64 bits hold it.
fn integer(text: &str) -> Option<i128> {
    let held = |integer: &i128| *integer >= i128::from(i64::MIN) && *integer <= i128::from(u64::MAX);
    text.parse().ok().filter(held)
}

/// The float64 that is this integer.
fn integer_as_float(integer: i128) -> Option<f64> {
    let float = integer as f64;
    let is_same = integer.unsigned_abs() <= u128::from(EXACT) || float as i128 == integer;
    is_same.then_some(float)
}

/// The float64 that is this JSON number: of one that is written as an integer exactly that, else the nearest.
pub(super) fn exact_float(text: &str) -> Option<f64> {
    if is_float(text) { float(text) } else { integer(text).and_then(integer_as_float) }
}

/// A number may be as long as a line.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A type in words that a plan is written with.
pub(super) fn to_json(data_type: &DataType) -> Value {
    match data_type {
        DataType::List(item) => Value::Array(vec![to_json(item.data_type())]),
        DataType::Struct(fields) => {
            let field = |field: &Arc<Field>| (field.name().clone(), to_json(field.data_type()));
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        DataType::Utf8 => "string".into(),
        other => other.to_string().to_lowercase().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[&str]) -> Result<Seen, String> {
        let mut seen = Seen::default();
        for (row, value) in (0..).zip(values) {
            let sight = Sight::Row { file: Path::new("a").into(), row };
            seen.see("k", &RawValue::from_string((*value).to_owned()).unwrap(), &sight)?;
        }
        Ok(seen)
    }

    fn agreed(values: &[&str]) -> Result<String, String> {
        let found = seen(values)?.data_type("k")?;
        Ok(found.as_ref().map_or("nothing".into(), |data_type| to_json(data_type).to_string()))
    }

    #[test]
    fn one_type_holds_all_values_or_the_first_rows_that_disagree_are_named() {
        for (values, expected) in [
            (&["null", "1", "-2"][..], r#""int64""#),
            (&["1", "9223372036854775808"], r#""uint64""#),
            (&["18446744073709551615"], r#""uint64""#),
            (&["1", "2.5"], r#""float64""#),
            (&["1e3", "9007199254740992"], r#""float64""#),
            (&["18014398509481984", "0.5"], r#""float64""#),
            (&["9007199254740993"], r#""int64""#),
            (&["-1", "9223372036854775808", "0.5"], r#""float64""#),
            (&["true", "false"], r#""boolean""#),
            (&[r#""x""#, "null"], r#""string""#),
            (&["[]", "[null, [1]]", "[[2.5]]"], r#"[["float64"]]"#),
            (&[r#"{"b": 1, "a": {"x": []}}"#, r#"{"a": {"y": "t"}}"#], r#"{"a":{"y":"string"},"b":"int64"}"#),
            (&[r#"{"b": "no", "b": 1}"#], r#"{"b":"int64"}"#),
            (&["null", "[]", "[[], null]"], "nothing"),
            (&["{}", r#"{"a": [{}]}"#], "nothing"),
        ] {
            assert_eq!(agreed(values).as_deref(), Ok(expected), "{values:?}");
            let mut both = seen(&values[..1]).unwrap();
            let reversed = {
                let mut reversed = seen(&values[1..]).unwrap();
                reversed.merge("k", &both).unwrap();
                reversed
            };
            both.merge("k", &seen(&values[1..]).unwrap()).unwrap();
            let words = |seen: &Seen| seen.data_type("k").unwrap().as_ref().map(to_json);
            assert_eq!(words(&both), words(&reversed), "{values:?}");
            if let Some(words) = words(&both) {
                let again = Seen::from_json(&words).unwrap().data_type("k").unwrap();
                assert_eq!(again.as_ref().map(to_json), Some(words));
            }
        }
        for (values, expected) in [
            (&["1", "null", r#""x""#][..], "k is an integer in row 0 of a and a string in row 2 of a"),
            (&["[1]", r#"["x"]"#], "k[] is an integer in row 0 of a and a string in row 1 of a"),
            (
                &[r#"{"a": {"b": 1}}"#, r#"{"a": 1}"#],
                "k.a is an object in row 0 of a and an integer in row 1",
            ),
            (&["0.5", "9007199254740993"], "k is a float64 in row 0 of a, which the integer in row 1 of a"),
            (&["9223372036854775808", "-1"], "k is a negative integer in row 1 of a and one above"),
            (&["18446744073709551616"], "k is 18446744073709551616 in row 0 of a, more than"),
            (&["-9223372036854775809"], "k is -9223372036854775809 in row 0 of a, more than"),
            (&["1e400"], "k is 1e400 in row 0 of a, more than a float64 holds"),
        ] {
            let problem = agreed(values).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn objects_with_names_of_their_own_are_bounded() {
        let rows: Vec<String> = (0..=MAX_FIELDS).map(|i| format!("{{\"user {i}\": 1}}")).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        assert!(agreed(&rows[..MAX_FIELDS]).is_ok());
        let problem = agreed(&rows).unwrap_err();
        assert!(
            problem.contains("more than 1000 names in all, the last of them in row 1000 of a"),
            "{problem}"
        );
        let (mut some, others) = (seen(&rows[..600]).unwrap(), seen(&rows[500..]).unwrap());
        assert!(some.merge("k", &others).unwrap_err().contains("more than 1000 names in all"));
        let one: Vec<String> = (0..5000).map(|i| format!("\"{i}\": null")).collect();
        assert!(agreed(&[&format!("{{{}}}", one.join(","))]).unwrap_err().contains("more than 1000 names"));
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(agreed(&[&deep(MAX_DEPTH)]).is_ok());
        assert!(agreed(&[&deep(100_000)]).unwrap_err().contains("k holds more than 32 lists"));
        let name = format!("{{\"{}\": 1}}", "x".repeat(5000));
        assert!(agreed(&[&name]).unwrap_err().contains("whose name has 5000 bytes"));
    }
}
