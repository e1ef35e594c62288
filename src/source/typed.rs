//! JSON values as Arrow arrays of given types: each value unchanged, or an error that names it. Knows nothing of files.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions,
        StringBuilder, StructArray, UInt64Array, new_null_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Schema},
};
use serde_json::value::RawValue;

use super::{json, shape};

/// Of one value of a row: its place in a list of values, and its place in an array.
const SLOT_BYTES: u64 = 24;

/// About what it takes in memory to turn `value` into `data_type`.
pub(super) fn cost(value: &RawValue, data_type: &DataType) -> u64 {
    let text = value.get();
    // Every value inside of it has one of these before it.
    let n_inside = match text.as_bytes().first() {
        Some(b'[' | b'{') => text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() as u64,
        _ => 0,
    };
    2 * text.len() as u64 + (1 + n_inside).saturating_mul(width(data_type)).saturating_mul(SLOT_BYTES)
}

/// Arrays that one of `data_type` is made of.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::List(item) => 1 + width(item.data_type()),
        DataType::Struct(fields) => 1 + fields.iter().map(|field| width(field.data_type())).sum::<u64>(),
        _ => 1,
    }
}

/// `rows`, each with a value for every field, or with none at all.
///
/// # Errors
/// What is wrong with a value, with its name.
pub(super) fn batch(fields: &Fields, rows: &[&[Option<Box<RawValue>>]]) -> Result<RecordBatch, String> {
    let mut columns = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let values = rows.iter().map(|row| row.get(index)?.as_deref());
        columns.push(column(&values.collect::<Vec<_>>(), field.data_type(), field.name())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.clone())), columns, &options)
        .map_err(|error| error.to_string())
}

fn column(values: &[Option<&RawValue>], data_type: &DataType, name: &str) -> Result<ArrayRef, String> {
    let unfit = |text: &str| {
        format!("{name} is {}, which is not the {} that was planned", kind(text), words(data_type))
    };
    let texts = values.iter().map(|value| value.map(RawValue::get).filter(|text| *text != "null"));
    Ok(match data_type {
        DataType::Null => match texts.flatten().next() {
            None => new_null_array(data_type, values.len()),
            Some(text) => return Err(unfit(text)),
        },
        DataType::Boolean => {
            let value = |text: &str| match text {
                "true" => Ok(true),
                "false" => Ok(false),
                other => Err(unfit(other)),
            };
            let values = texts.map(|text| text.map(value).transpose());
            Arc::new(values.collect::<Result<BooleanArray, _>>()?)
        }
        DataType::Int64 => {
            let value = |text: &str| text.parse::<i64>().map_err(|_| unfit(text));
            Arc::new(texts.map(|text| text.map(value).transpose()).collect::<Result<Int64Array, _>>()?)
        }
        DataType::UInt64 => {
            let value = |text: &str| text.parse::<u64>().map_err(|_| unfit(text));
            Arc::new(texts.map(|text| text.map(value).transpose()).collect::<Result<UInt64Array, _>>()?)
        }
        DataType::Float64 => {
            let value = |text: &str| shape::exact_float(text).ok_or_else(|| unfit(text));
            Arc::new(texts.map(|text| text.map(value).transpose()).collect::<Result<Float64Array, _>>()?)
        }
        DataType::Utf8 => {
            let (mut column, mut n_bytes) = (StringBuilder::new(), 0);
            for text in texts {
                let Some(text) = text else {
                    column.append_null();
                    continue;
                };
                if !text.starts_with('"') {
                    return Err(unfit(text));
                }
                let value = json::string(text).map_err(|error| broken(name, &error))?;
                n_bytes += value.len();
                if n_bytes > i32::MAX as usize {
                    return Err(format!("{name} is longer than a column holds, {} bytes", i32::MAX));
                }
                column.append_value(value);
            }
            Arc::new(column.finish())
        }
        DataType::List(item) => {
            let (mut items, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
            for text in texts {
                let before = items.len();
                valid.push(text.is_some());
                if let Some(text) = text {
                    if !text.starts_with('[') {
                        return Err(unfit(text));
                    }
                    json::items(text.as_bytes(), |item| items.push(Some(item)))
                        .map_err(|error| broken(name, &error))?;
                }
                if items.len() > i32::MAX as usize {
                    return Err(format!("{name} has more items than a column holds, {}", i32::MAX));
                }
                lengths.push(items.len() - before);
            }
            let items = column(&items, item.data_type(), &format!("{name}[]"))?;
            let offsets = OffsetBuffer::from_lengths(lengths);
            let list = ListArray::try_new(item.clone(), offsets, items, Some(NullBuffer::from(valid)));
            Arc::new(list.map_err(|error| format!("{name}: {error}"))?)
        }
        DataType::Struct(fields) => {
            let mut columns: Vec<Vec<Option<&RawValue>>> = vec![vec![None; values.len()]; fields.len()];
            let mut valid = Vec::with_capacity(values.len());
            for (row, text) in texts.enumerate() {
                valid.push(text.is_some());
                let Some(text) = text else { continue };
                if !text.starts_with('{') {
                    return Err(unfit(text));
                }
                take_fields(text, fields, &mut columns, row, name)?;
            }
            let mut children = Vec::with_capacity(fields.len());
            for (field, values) in fields.iter().zip(columns) {
                let name = format!("{name}.{}", field.name());
                children.push(column(&values, field.data_type(), &name)?);
            }
            let nulls = Some(NullBuffer::from(valid));
            let structs = StructArray::try_new_with_length(fields.clone(), children, nulls, values.len());
            Arc::new(structs.map_err(|error| format!("{name}: {error}"))?)
        }
        other => return Err(format!("{name} was planned as {other}, which is no type of JSON")),
    })
}

/// Puts each field of the object in `text` into its column, at `row`.
fn take_fields<'a>(
    text: &'a str,
    fields: &Fields,
    columns: &mut [Vec<Option<&'a RawValue>>],
    row: usize,
    name: &str,
) -> Result<(), String> {
    let mut stray = None;
    json::fields(text.as_bytes(), |field, value| {
        // They are sorted by name.
        match fields.binary_search_by(|known| known.name().as_str().cmp(&field)) {
            Ok(index) => columns[index][row] = Some(value),
            // What had no value in any row has no column.
            Err(_) if stray.is_none() && !shape::is_void(&field, value) => stray = Some(field),
            Err(_) => {}
        }
    })
    .map_err(|error| broken(name, &error))?;
    stray.map_or(Ok(()), |field| Err(format!("{name}.{field} is not among the fields that were planned")))
}

fn broken(name: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    format!("{name} is no JSON: {}", text.split(" at line ").next().unwrap_or_default())
}

fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b't' | b'f') => "true or false",
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        _ if shape::is_float(text) => "a number",
        _ => "an integer",
    }
}

fn words(data_type: &DataType) -> String {
    match data_type {
        DataType::List(_) => "list".into(),
        DataType::Struct(_) => "object".into(),
        other => shape::to_json(other).as_str().unwrap_or_default().to_owned(),
    }
}

/// A field that may be null, as every one of JSON may.
pub(super) fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: DataType, values: &[&str]) -> Result<String, String> {
        let rows: Vec<Vec<Option<Box<RawValue>>>> = values
            .iter()
            .map(|text| vec![Some(RawValue::from_string((*text).to_owned()).unwrap())])
            .collect();
        let rows: Vec<&[Option<Box<RawValue>>]> = rows.iter().map(Vec::as_slice).collect();
        let batch = batch(&Fields::from(vec![field("k", data_type)]), &rows)?;
        Ok(format!("{:?}", batch.column(0)))
    }

    #[test]
    fn a_value_is_taken_as_it_is_or_not_at_all() {
        let object = DataType::Struct(Fields::from(vec![field("a", DataType::Int64)]));
        for (data_type, value, problem) in [
            (DataType::Int64, "1.0", "k is a number, which is not the int64 that was planned"),
            (DataType::Int64, r#""1""#, "k is a string, which is not the int64"),
            (DataType::Int64, "9223372036854775808", "k is an integer, which is not the int64"),
            (DataType::UInt64, "-1", "k is an integer, which is not the uint64"),
            (DataType::Float64, "9007199254740993", "k is an integer, which is not the float64"),
            (DataType::Float64, "1e400", "k is a number, which is not the float64"),
            (DataType::Boolean, "1", "k is an integer, which is not the boolean"),
            (DataType::Utf8, "1", "k is an integer, which is not the string"),
            (DataType::Utf8, r#""\ud83d""#, "k is no JSON: "),
            (DataType::new_list(DataType::Int64, true), "{}", "k is an object, which is not the list"),
            (DataType::new_list(DataType::Int64, true), "[1, [2]]", "k[] is a list, which is not the int64"),
            (object.clone(), "[]", "k is a list, which is not the object"),
            (object.clone(), r#"{"b": 1}"#, "k.b is not among the fields"),
            (object.clone(), r#"{"a": true}"#, "k.a is true or false, which is not the int64"),
            (DataType::Null, "1", "k is an integer, which is not the null"),
        ] {
            let found = of(data_type, &["null", value]).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
        let last = of(object, &[r#"{"a": 1, "b": [null], "a": 2}"#, "{}", "null"]).unwrap();
        assert!(last.contains("  2,\n  null,\n  null,\n"), "{last}");
    }
}
