//! A plan in; what it says of tables and rows out. Knows nothing of files.

use arrow::datatypes::{Fields, Schema};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Checked, Problem};
use crate::{
    config::{DocumentView, Embeddings, Sample},
    schema::{self, Table, TableOptions},
    sink::PlanRecord,
};

/// What every unit of an output is held to.
pub(super) struct Rules {
    /// Columns of the tables, without those that are carried.
    pub tables: TableOptions,
    /// Which rows are taken; `None` takes all.
    pub sample: Option<Sample>,
    /// Whether `source.where` leaves rows out: which ones, only the source could tell.
    pub has_filter: bool,
    /// Tokens of a full batch.
    pub batch_tokens: Option<usize>,
    carry: Vec<String>,
    /// Fields of the carried columns as the first file has them: their types are the source's.
    carried: Option<Fields>,
}

impl Rules {
    /// Takes them from what `plan` means.
    pub fn of(plan: &PlanRecord) -> Checked<Rules> {
        let fraction: Option<f64> = key(plan, "source.sample.fraction")?;
        let seed: Option<u64> = key(plan, "source.sample.seed")?;
        let filter: Option<Value> = key(plan, "source.where")?;
        let views: Option<Vec<DocumentView>> = key(plan, "pretokenize.document.views")?;
        Ok(Rules {
            tables: TableOptions {
                dim: key(plan, "model.dim")?,
                embeddings: key(plan, "sink.embeddings")?,
                embedding_dtype: key(plan, "sink.embedding_dtype")?,
                entropies: key(plan, "sink.entropies")?,
                norms: key(plan, "sink.norms")?,
                views: views.is_some_and(|views| DocumentView::are_several(&views)),
                carried: Fields::empty(),
            },
            sample: fraction.map(|fraction| Sample { fraction, seed: seed.unwrap_or_default() }),
            has_filter: filter.is_some(),
            batch_tokens: key(plan, "model.batch_tokens")?,
            carry: key(plan, "source.carry")?,
            carried: None,
        })
    }

    /// Whether an output of this plan may have `table`.
    pub fn has(&self, table: Table) -> bool {
        table != Table::Bytes || self.tables.embeddings == Embeddings::Byte
    }

    /// Compares the schema of a file with that of the plan; tells how many of its columns are not carried.
    pub fn check_schema(&mut self, table: Table, found: &Schema) -> Result<usize, String> {
        let own = schema::schema(table, &self.tables);
        let n_own = own.fields().len();
        if table != Table::Documents || self.carry.is_empty() {
            return compare(&own, found).map(|()| n_own);
        }
        let after: Fields = found.fields().iter().skip(n_own).cloned().collect();
        let names: Vec<&String> = after.iter().map(|field| field.name()).collect();
        if names != self.carry.iter().collect::<Vec<_>>() {
            return Err(format!("its carried columns are {names:?}, those of the plan {:?}", self.carry));
        }
        if let Some(field) = after.iter().find(|field| !field.is_nullable()) {
            return Err(format!("its carried column {:?} is not nullable", field.name()));
        }
        let carried = self.carried.get_or_insert(after).clone();
        compare(&schema::schema(table, &TableOptions { carried, ..self.tables.clone() }), found)?;
        Ok(n_own)
    }
}

fn compare(expected: &Schema, found: &Schema) -> Result<(), String> {
    let show = |schema: &Schema, index: usize| match schema.fields().get(index) {
        None => "absent".to_owned(),
        Some(field) => {
            let null = if field.is_nullable() { ", nullable" } else { "" };
            format!("{} ({}{null})", field.name(), field.data_type())
        }
    };
    let n_columns = expected.fields().len().max(found.fields().len());
    let differ = |index: &usize| expected.fields().get(*index) != found.fields().get(*index);
    if let Some(index) = (0..n_columns).find(differ) {
        return Err(format!(
            "its column {index} is {}, expected {}",
            show(found, index),
            show(expected, index)
        ));
    }
    for (key, value) in expected.metadata() {
        if found.metadata().get(key) != Some(value) {
            return Err(format!(
                "its metadata has {key} = {:?}, expected {value:?}",
                found.metadata().get(key)
            ));
        }
    }
    Ok(())
}

fn key<T: DeserializeOwned>(plan: &PlanRecord, key: &str) -> Checked<T> {
    let value = plan.meaning.get(key).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value)
        .map_err(|error| Problem::of_record("_blt/plan.json", None, format!("{key}: {error}")))
}
