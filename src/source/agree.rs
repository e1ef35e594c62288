//! From what the keys of each file of JSON Lines have been to one type a key, the same in all files and in every run of an
//! output. Reads nothing.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::datatypes::{DataType, Fields, Schema};
use serde_json::{Map, Value};

use super::{
    SourceError,
    lines::{self, LineIndex},
    shape::{self, Seen},
    shard::{Format, Shard},
    typed,
};
use crate::config::Source;

/// Gives the columns of JSON Lines among `shards` that `source` carries or asks about a type each, which holds the values of
/// all files as they are, and checks the condition on rows with them. `begun_with` is what an output was begun with: types
/// stay so, whichever files are still there. Returns them in words for the plan, `None` where no file needs any.
///
/// # Errors
/// [`SourceError::Plan`] when values of a key have no common type, or none that `begun_with` says, when no row has the key, or
/// the condition is wrong.
pub fn agree_on_types<'a>(
    shards: impl IntoIterator<Item = &'a mut Shard>,
    source: &Source,
    begun_with: Option<&Value>,
) -> Result<Option<Value>, SourceError> {
    let mut files: Vec<File<'a>> = Vec::new();
    for shard in shards {
        if let Format::Lines(index) = &mut shard.format {
            let (path, carried) = (shard.file.path.as_path(), &mut shard.carried);
            files.push(File { path, carried, index: Arc::make_mut(index) });
        }
    }
    let Some(first) = files.first() else { return Ok(begun_with.cloned()) };
    let names = lines::typed_keys(source)?;
    let mut types: Vec<DataType> = Vec::new();
    for name in &names {
        let data_type = agreed(name, &files, begun_with.and_then(|types| types.get(name)))
            .map_err(|problem| refused(source, name, &problem))?;
        types.push(match data_type {
            Some(data_type) => data_type,
            // Nor is there a row to write then.
            None if files.iter().all(|file| file.index.rows_seen == 0) => DataType::Null,
            None => return Err(refused(source, name, &absent(name, &files))),
        });
    }
    let columns: Fields =
        names.iter().zip(types).map(|(name, data_type)| typed::field(name, data_type)).collect();
    lines::condition(&columns, source, first.path)?;
    let schema = Schema::new(columns.clone());
    let carried = source.carry.iter().filter_map(|name| schema.field_with_name(name).ok().cloned());
    let carried: Fields = carried.collect();
    for file in files {
        *file.carried = carried.clone();
        file.index.columns = columns.clone();
        file.index.seen = BTreeMap::new();
    }
    let words = columns.iter().map(|column| (column.name().clone(), shape::to_json(column.data_type())));
    Ok((!columns.is_empty()).then(|| Value::Object(words.collect::<Map<_, _>>())))
}

struct File<'a> {
    path: &'a Path,
    carried: &'a mut Fields,
    index: &'a mut LineIndex,
}

/// The type of the key `name`, if it has a value in any row.
fn agreed(name: &str, files: &[File<'_>], begun_with: Option<&Value>) -> Result<Option<DataType>, String> {
    let mut seen = match begun_with {
        None => Seen::default(),
        Some(words) => Seen::from_json(words)
            .ok_or_else(|| format!("the output was begun with {words} for {name}, which is no type"))?,
    };
    let in_words = |data_type: Option<&DataType>| data_type.map_or_else(|| "null".into(), shape::to_json);
    for file in files {
        let Some(more) = file.index.seen.get(name) else { continue };
        seen.merge(name, more)?;
        let Some(was) = begun_with else { continue };
        let is = in_words(seen.data_type(name)?.as_ref());
        if is != *was {
            return Err(format!(
                "with {}, the type of {name} is {is}, but the output was begun with {was}; give this plan a folder of its own \
                 (sink.uri or --output), or start over with --fresh",
                file.path.display()
            ));
        }
    }
    seen.data_type(name)
}

fn absent(name: &str, files: &[File<'_>]) -> String {
    let Some(file) = files.iter().find(|file| !file.index.first_keys.is_empty()) else {
        return format!("no row has a value for {name}");
    };
    let keys = &file.index.first_keys;
    let is_null = files.iter().any(|file| file.index.seen.contains_key(name));
    if is_null {
        return format!("{name} is null or empty in every row, which gives it no type; leave the key out");
    }
    let nearest = keys.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let hint = nearest.filter(|(distance, _)| *distance <= 2);
    let hint = hint.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
    format!(
        "no row has a key {name}{hint}; the first rows of {} have {}",
        file.path.display(),
        keys.join(", ")
    )
}

fn refused(source: &Source, name: &str, problem: &str) -> SourceError {
    let key = if source.carry.iter().any(|carried| carried == name) { "carry" } else { "where" };
    SourceError::Plan(format!("source.{key}: {problem}"))
}
