//! Holds a pipeline file against the JSON Schema that its types generate: unknown keys, wrong
//! types, values out of range, missing keys, all of them at once. Knows nothing of single keys.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value as Schema;
use toml::Value;

use super::error::{ConfigError, Problem};
use super::file::PipelineFile;
use super::tree::{Document, KeyPath, Part};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mut settings = SchemaSettings::draft2020_12();
    // Without references every place of the schema can be read on its own, as `wants_text` does.
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<PipelineFile>();
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
});

/// The JSON Schema (2020-12) of a pipeline file: every key with its meaning, unit and default.
pub fn json_schema() -> Schema {
    SCHEMA.clone()
}

/// The typed file, if every key exists and every value fits its key's type and range.
///
/// # Errors
/// Every misfit, in the order of the text.
pub(super) fn check(document: &Document<'_>) -> Result<PipelineFile, ConfigError> {
    let mut check = Check { document, problems: Vec::new() };
    let root = Value::Table(document.root.clone());
    check.value(&SCHEMA, &root, &mut Vec::new());
    if !check.problems.is_empty() {
        check.problems.sort_by_key(|(order, _)| *order);
        let problems = check.problems.into_iter().map(|(_, problem)| problem);
        return Err(ConfigError::Invalid(problems.collect()));
    }
    PipelineFile::deserialize(root).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        ConfigError::Invalid(vec![document.problem(&[], Part::Value, message)])
    })
}

/// Whether the key `path` takes a string, but nothing like `value`.
pub(super) fn wants_text(path: &[&str], value: &Value) -> bool {
    let schema = path
        .iter()
        .try_fold(&*SCHEMA, |schema, key| schema.get("properties").and_then(|keys| keys.get(*key)));
    schema.is_some_and(|schema| {
        let text = Value::String(String::new());
        alternative(schema, value).is_none() && alternative(schema, &text).is_some()
    })
}

/// TOML has no null, so the schema of an optional key should not offer it; and a description's
/// line breaks are those of the source code.
fn tidy(schema: &mut Schema) {
    match schema {
        Schema::Object(object) => {
            if let Some(Schema::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            if object.get("default").is_some_and(Schema::is_null) {
                object.shift_remove("default");
            }
            if let Some(Schema::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [name] = types.as_slice() {
                    let name = name.clone();
                    object.insert("type".to_owned(), name);
                }
            }
            if let Some(Schema::Array(options)) = object.get_mut("anyOf") {
                options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
                if let [Schema::Object(only)] = options.as_slice() {
                    let only = only.clone();
                    object.shift_remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            for value in object.values_mut() {
                tidy(value);
            }
        }
        Schema::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

struct Check<'a> {
    document: &'a Document<'a>,
    /// With their order in the text.
    problems: Vec<(usize, Problem)>,
}

impl Check<'_> {
    fn report(&mut self, path: &[String], part: Part, message: String, hint: Option<String>) {
        let mut problem = self.document.problem(path, part, message);
        problem.hint = hint;
        self.problems.push((self.document.order(path), problem));
    }

    fn value(&mut self, schema: &Schema, value: &Value, path: &mut KeyPath) {
        let Some(schema) = alternative(schema, value) else {
            let message =
                format!("expected {} for {}, found {}", expected(schema), path.join("."), found(value));
            return self.report(path, Part::Value, message, None);
        };
        match value {
            Value::Table(table) => self.table(schema, table, path),
            Value::Array(values) => {
                if (values.len() as u64) < bound(schema, "minItems").unwrap_or(0) {
                    let message = format!("{} is empty", path.join("."));
                    self.report(path, Part::Value, message, None);
                }
                let Some(items) = schema.get("items") else {
                    return;
                };
                for (index, value) in values.iter().enumerate() {
                    path.push(index.to_string());
                    self.value(items, value, path);
                    path.pop();
                }
            }
            Value::String(text) => self.text(schema, text, path),
            Value::Integer(number) => self.number(schema, *number as f64, &number.to_string(), path),
            Value::Float(number) => self.number(schema, *number, &format!("{number:?}"), path),
            Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    fn table(&mut self, schema: &Schema, table: &toml::Table, path: &mut KeyPath) {
        let Some(keys) = schema.get("properties").and_then(Schema::as_object) else {
            // A table whose type has no fields has no properties in its schema.
            for key in table.keys() {
                self.unknown_key(schema, key, path);
            }
            return;
        };
        for (key, value) in table {
            match keys.get(key) {
                None => self.unknown_key(schema, key, path),
                Some(schema) => {
                    path.push(key.clone());
                    self.value(schema, value, path);
                    path.pop();
                }
            }
        }
        for key in required(schema) {
            if table.contains_key(key) {
                continue;
            }
            path.push(key.to_owned());
            // A missing section is not what is missing: its required keys are.
            let inner: Vec<&str> = keys.get(key).into_iter().flat_map(required).collect();
            if inner.is_empty() {
                let message = format!("failed to find {}, which is required,", path.join("."));
                self.report(path, Part::Key, message, None);
            }
            for inner in inner {
                let message = format!("failed to find {}.{inner}, which is required,", path.join("."));
                self.report(path, Part::Key, message, None);
            }
            path.pop();
        }
    }

    fn unknown_key(&mut self, schema: &Schema, key: &str, path: &mut KeyPath) {
        let (kind, inside) = match path.as_slice() {
            [] => ("section", String::new()),
            _ => ("key", format!(" in [{}]", path.join("."))),
        };
        let keys: Vec<&str> = schema
            .get("properties")
            .and_then(Schema::as_object)
            .map(|keys| keys.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let hint = nearest(key, &keys)
            .or_else(|| section_of(key, path))
            .or_else(|| (!keys.is_empty()).then(|| format!("known {kind}s: {}", quoted(&keys))))
            .unwrap_or_else(|| "it has no keys".to_owned());
        let message = format!("unknown {kind} `{key}`{inside}");
        path.push(key.to_owned());
        self.report(path, Part::Key, message, Some(hint));
        path.pop();
    }

    fn text(&mut self, schema: &Schema, text: &str, path: &[String]) {
        let options = options(schema);
        if !options.is_empty() && !options.contains(&text) {
            let hint =
                nearest(text, &options).unwrap_or_else(|| format!("known values: {}", quoted(&options)));
            let message = format!("unknown value `{text}` for {}", path.join("."));
            self.report(path, Part::Value, message, Some(hint));
        }
        if (text.chars().count() as u64) < bound(schema, "minLength").unwrap_or(0) {
            let message = format!("{} is empty", path.join("."));
            self.report(path, Part::Value, message, None);
        }
    }

    fn number(&mut self, schema: &Schema, number: f64, written: &str, path: &[String]) {
        let limit = |name: &str| schema.get(name).and_then(Schema::as_f64);
        // Schemars tells the width of an integer by its format alone.
        let widest = match schema.get("format").and_then(Schema::as_str) {
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => None,
        };
        let rule = if !number.is_finite() {
            "a finite number".to_owned()
        } else if let Some(low) = limit("minimum").filter(|low| number < *low) {
            format!("at least {low}")
        } else if let Some(low) = limit("exclusiveMinimum").filter(|low| number <= *low) {
            format!("above {low}")
        } else if let Some(high) = limit("maximum").or(widest).filter(|high| number > *high) {
            format!("at most {high}")
        } else {
            return;
        };
        let message = format!("{} is {written}, but must be {rule},", path.join("."));
        self.report(path, Part::Value, message, None);
    }
}

/// The part of `schema` that takes values of the kind of `value`.
fn alternative<'s>(schema: &'s Schema, value: &Value) -> Option<&'s Schema> {
    if let Some(Schema::Array(options)) = schema.get("anyOf") {
        return options.iter().find_map(|option| alternative(option, value));
    }
    let fits = match kind(schema) {
        "object" => value.is_table(),
        "array" => value.is_array(),
        "string" => value.is_str(),
        "boolean" => value.is_bool(),
        "integer" => value.is_integer(),
        "number" => value.is_integer() || value.is_float(),
        _ => false,
    };
    fits.then_some(schema)
}

/// The schema's type; values that are listed one by one are strings.
fn kind(schema: &Schema) -> &str {
    match schema.get("type").and_then(Schema::as_str) {
        Some(kind) => kind,
        None if options(schema).is_empty() => "",
        None => "string",
    }
}

/// The strings that `schema` takes, if it takes no others.
fn options(schema: &Schema) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Schema::as_array);
    let described = schema.get("oneOf").and_then(Schema::as_array);
    let single = schema.get("const").and_then(Schema::as_str);
    listed
        .into_iter()
        .flatten()
        .filter_map(Schema::as_str)
        .chain(described.into_iter().flatten().flat_map(options))
        .chain(single)
        .collect()
}

fn required(schema: &Schema) -> impl Iterator<Item = &str> {
    let keys = schema.get("required").and_then(Schema::as_array);
    keys.into_iter().flatten().filter_map(Schema::as_str)
}

fn bound(schema: &Schema, name: &str) -> Option<u64> {
    schema.get(name).and_then(Schema::as_u64)
}

/// What `schema` takes, in words.
fn expected(schema: &Schema) -> String {
    if let Some(Schema::Array(options)) = schema.get("anyOf") {
        let words: Vec<String> = options.iter().map(expected).collect();
        return words.join(" or ");
    }
    match (kind(schema), options(schema).as_slice()) {
        ("string", [only]) => format!("\"{only}\""),
        ("string", _) => "a string".to_owned(),
        ("object", _) => "a table".to_owned(),
        ("array", _) => "an array".to_owned(),
        ("integer", _) => "an integer".to_owned(),
        ("boolean", _) => "true or false".to_owned(),
        (kind, _) => format!("a {kind}"),
    }
}

/// What kind of value is written, in words.
fn found(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// The one of `names` that was probably meant by `written`: at most a third of the letters differ.
fn nearest(written: &str, names: &[&str]) -> Option<String> {
    let written = written.to_lowercase();
    let letters = |name: &str| name.chars().count().max(written.chars().count());
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&written, name), *name))
        .min()
        .filter(|(distance, name)| distance * 3 <= letters(name))
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

/// The section that has the key which `path` has not.
fn section_of(key: &str, path: &[String]) -> Option<String> {
    let sections = SCHEMA.get("properties").and_then(Schema::as_object)?;
    let has_key = |schema: &Schema| {
        let keys = schema.get("properties");
        keys.is_some_and(|keys| keys.get(key).is_some())
    };
    let (section, _) = sections.iter().find(|(_, schema)| has_key(schema))?;
    Some(if path.is_empty() {
        format!("it belongs below [{section}]")
    } else {
        format!("it belongs in [{section}]")
    })
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
