//! An output or a model in; the text that stands on the front page of its repository out. Says what the records say, and nothing that
//! they do not. Knows nothing of the Hub but how it reads a card's head.

use std::{collections::BTreeMap, fmt::Write, fs::File, path::Path};

use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::{Options, PushError, package::Output, uri::Target};
use crate::{
    figures::{megabytes, thousands},
    model::{ModelFiles, ModelInfo},
    schema::{self, Table},
    sink::{Counts, PlanRecord},
};

/// Stands in every card that was written here; a card without it is somebody's own.
const MARKER: &str =
    "<!-- Written by blt-pipeline push, which writes it anew each time: changes belong elsewhere. -->";
/// The part of it that every version had.
const SIGN: &[u8] = b"<!-- Written by blt-pipeline push";
/// Of the shards, as many as a reader looks at.
const SHOWN_SHARDS: usize = 10;

/// What a card says of a table.
pub(super) struct TableFacts {
    table: Table,
    files: u64,
    rows: u64,
    bytes: u64,
    schema: SchemaRef,
}

/// Whether a card was written here.
pub(super) fn is_ours(card: &[u8]) -> bool {
    card.windows(SIGN.len()).any(|part| part == SIGN)
}

/// Checks that a licence is what the Hub calls one.
pub(super) fn check_license(license: &str) -> Result<(), PushError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.+".contains(c);
    let is_identifier = !license.is_empty() && license.chars().all(fits);
    if is_identifier { Ok(()) } else { Err(PushError::License(license.to_owned())) }
}

/// The tables of the output in folder `root` that have files, with the columns of the first.
pub(super) fn tables(root: &Path, output: &Output) -> Result<Vec<TableFacts>, PushError> {
    let mut tables = Vec::new();
    for table in Table::ALL {
        let mut files = output.manifest.files.iter().filter(|file| file.table == table.name()).peekable();
        let Some(first) = files.peek() else { continue };
        let path = root.join(&first.path);
        let unread = |error| PushError::Read { file: path.clone(), error };
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).map_err(unread)?);
        let schema = reader.map_err(|error| unread(std::io::Error::other(error)))?.schema().clone();
        let mut facts = TableFacts { table, files: 0, rows: 0, bytes: 0, schema };
        for file in files {
            facts.files += 1;
            facts.rows += file.rows;
            facts.bytes += file.bytes;
        }
        tables.push(facts);
    }
    Ok(tables)
}

/// The card of an output.
pub(super) fn of_output(
    output: &Output,
    tables: &[TableFacts],
    target: &Target,
    options: &Options,
) -> String {
    let plan = &output.ledger.plan;
    let mut card = output_head(tables, target, options);
    // Nothing of what follows can fail: a string takes everything.
    let _ = write!(
        card,
        "\n# {}\n\nThe uncertainty of a byte-level language model about every byte of {} documents, and the *patches* that follow from it: \
         the unit that the Byte Latent Transformer ([Pagnoni et al. 2024](https://arxiv.org/abs/2412.09871)) works on in place of tokens. \
         Made by blt-pipeline.\n",
        target.name,
        thousands(output.manifest.counts.documents),
    );
    counts(&mut card, &output.manifest.counts);
    for facts in tables {
        describe(&mut card, facts);
    }
    provenance(&mut card, plan, &output.manifest.device_classes, options);
    licences(&mut card, plan, options);
    reading(&mut card, tables, target);
    card
}

fn output_head(tables: &[TableFacts], target: &Target, options: &Options) -> String {
    let mut head = String::from("---\n");
    let _ = writeln!(head, "license: {}", options.license.as_deref().unwrap_or("other"));
    let _ = writeln!(head, "pretty_name: {}", quoted(&target.name));
    head.push_str("tags:\n- byte-latent-transformer\n- entropy\n- patches\n- blt-pipeline\n");
    // Without it the viewer would take all tables for parts of one.
    head.push_str(if tables.is_empty() { "" } else { "configs:\n" });
    for (index, facts) in tables.iter().enumerate() {
        let table = facts.table;
        let _ = writeln!(head, "- config_name: {table}");
        head.push_str(if index == 0 { "  default: true\n" } else { "" });
        let _ = writeln!(head, "  data_files:\n  - split: train\n    path: {table}/*.parquet");
    }
    let _ = write!(head, "---\n{MARKER}\n");
    head
}

/// A string as YAML takes it, which JSON is a part of.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn counts(card: &mut String, counts: &Counts) {
    let mut rows = vec![
        ("source rows", thousands(counts.rows)),
        ("documents", thousands(counts.documents)),
        ("bytes", thousands(counts.bytes)),
        ("patches", thousands(counts.patches)),
    ];
    if counts.filtered > 0 {
        rows.insert(1, ("of these left out", thousands(counts.filtered)));
    }
    if counts.quarantined > 0 {
        rows.push(("rows in quarantine", thousands(counts.quarantined)));
    }
    if counts.patches > 0 {
        rows.push(("bytes a patch", format!("{:.2}", counts.bytes as f64 / counts.patches as f64)));
    }
    if counts.bytes > 0 {
        rows.push(("mean entropy, nats", format!("{:.3}", counts.entropy_sum / counts.bytes as f64)));
    }
    table(card, ["what", "how much"], rows.into_iter().map(|(what, much)| [what.to_owned(), much]));
}

/// Cells as Markdown takes them.
fn table<const N: usize>(card: &mut String, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let _ = write!(card, "\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let cells = row.map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " "));
        let _ = writeln!(card, "| {} |", cells.join(" | "));
    }
}

fn describe(card: &mut String, facts: &TableFacts) {
    let described = schema::describe(facts.table);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meanings: BTreeMap<String, String> = described["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|field| (text(&field["name"]), text(&field["meaning"])))
        .collect();
    let _ = write!(card, "\n## `{}`\n\n{}. ", facts.table, sentence(&text(&described["rows"])));
    let (rows, files) = (thousands(facts.rows), thousands(facts.files));
    let size = megabytes(facts.bytes);
    let _ = writeln!(card, "Rows: {rows}. Files: {files}, {size} together.");
    let rows = facts.schema.fields().iter().map(|field| {
        let null = if field.is_nullable() { ", may be null" } else { "" };
        let meaning = meanings.get(field.name()).map_or("the source row's own value", String::as_str);
        let type_name = code(&schema::type_name(field.data_type()));
        // Or `<file>` would be taken for a tag.
        [code(field.name()), format!("{type_name}{null}"), meaning.replace('<', "&lt;")]
    });
    table(card, ["column", "type", "meaning"], rows);
}

/// Text as it is, also where it has backticks.
fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn provenance(card: &mut String, plan: &PlanRecord, device_classes: &[String], options: &Options) {
    card.push_str("\n## How it was made\n\n");
    if let Some(source) = &options.source {
        let _ = writeln!(card, "* **Source:** {}", source.replace(['\n', '\r'], " "));
    }
    let names = plan.shards.iter().take(SHOWN_SHARDS).map(|shard| code(&shard.source_file));
    let names = names.collect::<Vec<_>>().join(", ");
    let more = match plan.shards.len().saturating_sub(SHOWN_SHARDS) {
        0 => String::new(),
        n => format!(" and {} more", thousands(n as u64)),
    };
    let n_shards = thousands(plan.shards.len() as u64);
    let _ = writeln!(
        card,
        "* **Shards:** {n_shards}: {names}{more}. Size and checksum of each are in `_blt/plan.json`."
    );
    for (revision, commit) in &plan.revisions {
        let _ = writeln!(card, "* **From the Hub:** {} at commit {}", code(revision), code(commit));
    }
    let _ = writeln!(card, "* **Rows:** {}", rows_taken(plan));
    let _ = writeln!(card, "* **Patches:** {}", rule(plan));
    let model = if is_embedded(plan) { "the small model inside blt-pipeline, SHA-256" } else { "SHA-256" };
    let _ = writeln!(
        card,
        "* **Model:** {model} `{}`, as `blt-pipeline model info` tells it, computed in {}",
        show(plan, "model.sha256"),
        show(plan, "model.precision")
    );
    let devices: Vec<String> = device_classes.iter().map(|class| code(class)).collect();
    let _ = writeln!(card, "* **Devices:** {}", devices.join(", "));
    card.push_str("\nEvery key that decides what the tables hold:\n");
    let keys = plan.meaning.iter().filter(|(_, value)| !value.is_null());
    table(card, ["key", "value"], keys.map(|(key, value)| [code(key), code(&value.to_string())]));
    card.push_str(
        "\n`_blt` holds the plan, a record of each unit with the SHA-256 of its files, and the manifest of all files. With it a copy of this \
         repository is an output of blt-pipeline: `blt-pipeline verify FOLDER` checks every row of it.\n",
    );
}

/// What the plan says of `key`, without quotes.
fn show(plan: &PlanRecord, key: &str) -> String {
    match plan.meaning.get(key) {
        None | Some(Value::Null) => "?".into(),
        Some(Value::String(text)) => text.clone(),
        // Thresholds are 32-bit floats, with fewer digits than the plan's.
        Some(value) if value.is_f64() => {
            value.as_f64().map_or_else(String::new, |value| (value as f32).to_string())
        }
        Some(value) => value.to_string(),
    }
}

fn is_some(plan: &PlanRecord, key: &str) -> bool {
    plan.meaning.get(key).is_some_and(|value| !value.is_null())
}

fn is_embedded(plan: &PlanRecord) -> bool {
    ModelFiles::embedded()
        .is_ok_and(|model| plan.meaning.get("model.sha256") == Some(&json!(model.info.sha256)))
}

fn rows_taken(plan: &PlanRecord) -> String {
    let mut parts = Vec::new();
    if is_some(plan, "source.limit") {
        parts.push(format!("the first {}", show(plan, "source.limit")));
    }
    if is_some(plan, "source.where") {
        parts.push(format!("those where {}", code(&show(plan, "source.where"))));
    }
    if is_some(plan, "source.sample.fraction") {
        let (fraction, seed) = (show(plan, "source.sample.fraction"), show(plan, "source.sample.seed"));
        parts.push(format!("a share of {fraction}, chosen by a hash of file and row with seed {seed}"));
    }
    let rows = if parts.is_empty() { "all".to_owned() } else { parts.join(", of these ") };
    format!("{rows}; the content is that of {}", code(&show(plan, "source.content")))
}

fn rule(plan: &PlanRecord) -> String {
    let threshold = show(plan, "patch.threshold");
    let mut rule = match show(plan, "patch.mode").as_str() {
        "entropy" if is_some(plan, "patch.patch_size") => {
            let size = show(plan, "patch.patch_size");
            format!(
                "one begins at the most uncertain bytes, so many that a patch has {size} bytes on average"
            )
        }
        "entropy" if is_some(plan, "patch.threshold_add") => {
            let rise = show(plan, "patch.threshold_add");
            format!(
                "one begins where the uncertainty about the next byte is above {threshold} nats and {rise} nats above that about the byte before"
            )
        }
        "entropy" if plan.meaning.get("patch.monotonicity") == Some(&Value::Bool(true)) => {
            format!(
                "one begins where the uncertainty about the next byte is {threshold} nats above that about the byte before"
            )
        }
        "entropy" => {
            format!("one begins where the uncertainty about the next byte is above {threshold} nats")
        }
        "static" => format!("every {} bytes", show(plan, "patch.patch_size")),
        "space" => "one begins after each space".to_owned(),
        "byte" => "each byte is one".to_owned(),
        other => other.to_owned(),
    };
    if is_some(plan, "patch.max_patch_length") {
        let _ = write!(rule, "; none is longer than {}", show(plan, "patch.max_patch_length"));
    }
    rule
}

fn licences(card: &mut String, plan: &PlanRecord, options: &Options) {
    card.push_str("\n## Licence\n\n");
    card.push_str(match options.license {
        Some(_) => "The licence named at the top was chosen by those who published this.",
        None => "Nobody named a licence for this data, so the card says `other`.",
    });
    card.push_str(" The tables follow from the source's documents, and may hold columns of theirs: the licence of the source goes with them. ");
    card.push_str(if is_embedded(plan) {
        "The model that was used is part of blt-pipeline and under CC BY-NC 4.0, as blt-pipeline itself is.\n"
    } else {
        "The model that was used has a licence of its own. blt-pipeline itself is under CC BY-NC 4.0.\n"
    });
}

fn reading(card: &mut String, tables: &[TableFacts], target: &Target) {
    let Some(facts) = tables.iter().find(|facts| facts.table == Table::Patches).or(tables.first()) else {
        return;
    };
    let (table, id) = (facts.table, target.id());
    let branch = &target.revision;
    let (at, revision) = match target.is_main() {
        true => (String::new(), String::new()),
        false => (format!("@{branch}"), format!(", revision={}", quoted(branch))),
    };
    let _ = write!(
        card,
        "\n## Reading it\n\n```python\nfrom datasets import load_dataset\n{table} = load_dataset(\"{id}\", \"{table}\", split=\"train\"{revision})\n\n\
         import polars as pl\n{table} = pl.scan_parquet(\"hf://datasets/{id}{at}/{table}/*.parquet\")\n\n\
         import pyarrow.dataset as ds\nfrom huggingface_hub import HfFileSystem\n\
         {table} = ds.dataset(\"datasets/{id}{at}/{table}\", format=\"parquet\", filesystem=HfFileSystem())\n```\n\n\
         `source_file` and `source_row` are the key that joins the tables, and the way back to the source.\n"
    );
}

/// The card of a model.
pub(super) fn of_model(info: &ModelInfo, target: &Target, options: &Options) -> String {
    let mut card = String::from("---\n");
    let _ = writeln!(card, "license: {}", options.license.as_deref().unwrap_or("other"));
    card.push_str("tags:\n- byte-latent-transformer\n- entropy\n- blt-pipeline\n");
    let _ = write!(card, "---\n{MARKER}\n\n# {}\n\n", target.name);
    card.push_str(
        "A byte-level language model that says how uncertain it is about the next byte, in the form of the Byte Latent Transformer's entropy \
         model ([Pagnoni et al. 2024](https://arxiv.org/abs/2412.09871)), as blt-pipeline reads it.\n\n",
    );
    let _ = write!(card, "```\n{info}\n```\n");
    if let Some(source) = &options.source {
        let _ = write!(card, "\n**Source:** {}\n", source.replace(['\n', '\r'], " "));
    }
    let revision = if target.is_main() { String::new() } else { format!("@{}", target.revision) };
    let address = format!("hf://{}{revision}", target.id());
    card.push_str("\n## Licence\n\n");
    card.push_str(match options.license {
        Some(_) => "The licence named at the top was chosen by those who published this.\n",
        None => "Nobody named a licence for this model, so the card says `other`.\n",
    });
    let _ = write!(
        card,
        "\n## Using it\n\n    blt-pipeline model verify {address}\n\nand in the pipeline file `model.weights = \"{address}\"`.\n",
    );
    card
}
