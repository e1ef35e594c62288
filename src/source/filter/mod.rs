//! `source.where`: which rows of a batch meet an SQL condition on the shard's columns. Everything that can be wrong with
//! the condition is found when it is compiled for a schema, before a row is read. Knows nothing of files; polars stands in
//! this folder only.

mod bridge;
mod check;
mod skip;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, LargeBinaryArray, LargeStringArray, RecordBatch, RecordBatchOptions,
        StructArray,
    },
    datatypes::{DataType, Field, FieldRef, Fields, Schema},
};
use polars::prelude::{Column, DataFrame, DataType as PolarsType, IntoLazy, PolarsError};
use polars_expr::{
    ExpressionConversionState, create_physical_expr,
    prelude::{ExecutionState, PhysicalExpr},
};
use polars_plan::plans::{IR, IRPlan};

pub(super) use self::skip::GroupStatistics;
use super::SourceError;
use crate::config::Source;

/// Names of the columns that the condition of `source` asks about, each once; none without a condition.
///
/// # Errors
/// [`SourceError::Plan`] when it is no condition.
pub(super) fn names(source: &Source) -> Result<Vec<String>, SourceError> {
    let Some(sql) = source.filter.as_deref() else { return Ok(Vec::new()) };
    let names = guarded(|| check::names(&polars::sql::sql_expr(sql).map_err(problem)?));
    let names = names.map_err(|problem| SourceError::Plan(format!("source.where = {sql:?}: {problem}")))?;
    let mut once: Vec<String> = Vec::new();
    for name in names {
        if !once.iter().any(|known| *known == name.as_str()) {
            once.push(name.to_string());
        }
    }
    Ok(once)
}

/// The condition of `source` for rows of `schema`, if it has one; `path` is where they lie.
///
/// # Errors
/// [`SourceError::Plan`] with what is wrong with it.
pub(super) fn of(source: &Source, schema: &Schema, path: &Path) -> Result<Option<Filter>, SourceError> {
    let compiled = source.filter.as_deref().map(|sql| {
        Filter::compile(sql, schema).map_err(|problem| {
            SourceError::Plan(format!("source.where = {sql:?}: {problem} (asked of {})", path.display()))
        })
    });
    compiled.transpose()
}

/// A condition on the rows of one schema.
pub(super) struct Filter {
    condition: Arc<dyn PhysicalExpr>,
    skip: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<Field>,
}

/// Whether a row counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It meets the condition.
    Keep,
    /// It does not, or the condition is null.
    Drop,
    /// The condition cannot be asked of it, and why.
    Unknown(String),
}

impl Filter {
    /// Compiles `sql` for rows of `schema`.
    ///
    /// # Errors
    /// What is wrong with it: it is not SQL, names a column that is not there, compares what does not compare, is not true or
    /// false, or depends on other rows.
    pub(super) fn compile(sql: &str, schema: &Schema) -> Result<Filter, String> {
        guarded(|| {
            let expression = polars::sql::sql_expr(sql).map_err(problem)?;
            let columns = check::columns(&expression, schema)?;
            let empty = RecordBatch::new_empty(Arc::new(Schema::new(columns.clone())));
            let frame = frame(&empty, &columns)?;
            check::types(&expression, frame.schema())?;
            let mut plan =
                frame.clone().lazy().select([expression.alias("where")]).to_alp().map_err(problem)?;
            let only = match plan.root() {
                IR::Select { expr, .. } if expr.len() == 1 => expr[0].clone(),
                _ => return Err("it is not a condition on single rows".to_owned()),
            };
            check::row_wise(only.node(), &plan.expr_arena)?;
            let skip = skip::condition(only.node(), &mut plan.expr_arena, frame.schema());
            let IRPlan { mut expr_arena, .. } = plan;
            let mut state = ExpressionConversionState::new(false);
            let condition = create_physical_expr(&only, &mut expr_arena, frame.schema(), &mut state);
            let condition = condition.map_err(problem)?;
            // What the types alone do not tell, the kernels do: they refuse on no rows as they would on many.
            let probe = condition.evaluate(&frame, &ExecutionState::new()).map_err(problem)?;
            match probe.dtype() {
                PolarsType::Boolean => Ok(Filter { condition, skip, columns }),
                other => Err(format!("it must be true or false for a row, but is {other}")),
            }
        })
    }

    /// Columns that the condition names.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|field| field.name().as_str())
    }

    /// Whether each of `rows` counts. Text may come as bytes, as it is stored; `is_whole` says of a column's cell whether the
    /// condition may be asked of it.
    ///
    /// # Errors
    /// When a column is absent, or the condition fails on a value.
    pub(super) fn verdicts(
        &self,
        rows: &RecordBatch,
        is_whole: impl Fn(&str, &[u8]) -> bool + Copy,
    ) -> Result<Vec<Verdict>, String> {
        let n_rows = rows.num_rows();
        let mut unknown: Vec<Option<String>> = vec![None; n_rows];
        let mut columns = Vec::with_capacity(self.columns.len());
        for field in &self.columns {
            let name = field.name();
            let column = rows.column_by_name(name).ok_or_else(|| format!("column {name} is absent"))?;
            columns.push(as_planned(column, field, &|cell| is_whole(name, cell), &mut unknown)?);
        }
        let fields: Vec<Field> = self
            .columns
            .iter()
            .zip(&columns)
            .map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields.clone())),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(n_rows)),
        )
        .map_err(|error| error.to_string())?;
        let kept = guarded(|| {
            let frame = frame(&batch, &fields)?;
            evaluate(self.condition.as_ref(), &frame)
        })?;
        let verdict = |(unknown, kept): (Option<String>, bool)| match (unknown, kept) {
            (Some(reason), _) => Verdict::Unknown(reason),
            (None, true) => Verdict::Keep,
            (None, false) => Verdict::Drop,
        };
        Ok(unknown.into_iter().zip(kept).map(verdict).collect())
    }

    /// Which of the row groups that `statistics` tells of hold no row that the condition is true for.
    pub(super) fn skipped(&self, statistics: &GroupStatistics) -> Vec<bool> {
        let n_groups = statistics.n_groups();
        let skipped = |skip: &Arc<dyn PhysicalExpr>| {
            guarded(|| {
                let fields: Vec<Field> =
                    statistics.batch().schema().fields().iter().map(|f| f.as_ref().clone()).collect();
                evaluate(skip.as_ref(), &frame(statistics.batch(), &fields)?)
            })
            .ok()
        };
        // Without an answer all are read: they were only to be spared.
        self.skip
            .as_ref()
            .and_then(skipped)
            .filter(|all| all.len() == n_groups)
            .unwrap_or(vec![false; n_groups])
    }
}

/// The condition, row by row; null is false.
fn evaluate(condition: &dyn PhysicalExpr, frame: &DataFrame) -> Result<Vec<bool>, String> {
    let column = condition.evaluate(frame, &ExecutionState::new()).map_err(problem)?;
    // A condition without columns has one value for all rows.
    let column = match column.len() {
        1 if frame.height() != 1 => column.new_from_index(0, frame.height()),
        _ => column,
    };
    let values = column.bool().map_err(problem)?;
    Ok(values.iter().map(|value| value.unwrap_or(false)).collect())
}

fn frame(batch: &RecordBatch, fields: &[Field]) -> Result<DataFrame, String> {
    let column = |(field, array): (&Field, &ArrayRef)| -> Result<Column, String> {
        bridge::column(field.name(), array).map_err(|problem| format!("column {}: {problem}", field.name()))
    };
    let columns = fields.iter().zip(batch.columns()).map(column).collect::<Result<Vec<_>, _>>()?;
    DataFrame::new(batch.num_rows(), columns).map_err(problem)
}

/// `column` in the type of `field`, where it was read as bytes or with more in it. What is no text, or must not be asked
/// about, is null, and `unknown` says so.
fn as_planned(
    column: &ArrayRef,
    field: &Field,
    is_whole: &dyn Fn(&[u8]) -> bool,
    unknown: &mut [Option<String>],
) -> Result<ArrayRef, String> {
    if let (Some(whole), DataType::Struct(fields)) = (column.as_struct_opt(), field.data_type()) {
        if whole.fields() == fields {
            return Ok(column.clone());
        }
        let mut children = Vec::with_capacity(fields.len());
        for field in fields {
            let child = whole.column_by_name(field.name());
            let child = child.ok_or_else(|| format!("a field of {} is absent", field.name()))?;
            children.push(as_planned(child, field, &|_| true, unknown)?);
        }
        let typed = |(field, child): (&FieldRef, &ArrayRef)| {
            field.as_ref().clone().with_data_type(child.data_type().clone()).with_nullable(true)
        };
        let fields = fields.iter().zip(&children).map(typed).collect::<Fields>();
        let planned = StructArray::try_new_with_length(fields, children, whole.nulls().cloned(), whole.len());
        return Ok(Arc::new(planned.map_err(|error| error.to_string())?));
    }
    let Some(bytes) = column.as_binary_opt::<i64>() else {
        return Ok(column.clone());
    };
    let is_text = is_text(field.data_type());
    if bytes.iter().flatten().all(is_whole) {
        if !is_text {
            return Ok(column.clone());
        }
        if let Ok(text) = LargeStringArray::try_from_binary(bytes.clone()) {
            return Ok(Arc::new(text));
        }
    }
    let mut kept = Vec::with_capacity(bytes.len());
    for (cell, unknown) in bytes.iter().zip(unknown) {
        let problem = match cell {
            Some(cell) if !is_whole(cell) => "is longer than limits.max_document_bytes",
            Some(cell) if is_text && std::str::from_utf8(cell).is_err() => "is not UTF-8",
            _ => {
                kept.push(cell);
                continue;
            }
        };
        let reason = || format!("{} {problem}, so source.where cannot be asked", field.name());
        unknown.get_or_insert_with(reason);
        kept.push(None);
    }
    let kept = LargeBinaryArray::from_iter(kept);
    Ok(match is_text {
        true => Arc::new(LargeStringArray::try_from_binary(kept).map_err(|error| error.to_string())?),
        false => Arc::new(kept),
    })
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// The innermost words of `error`: what is around them tells of polars' own plans.
fn problem(error: PolarsError) -> String {
    match error {
        PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } => problem(*error),
        other => {
            let text = other.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
    }
}

/// polars panics on some input, an unknown unit of an interval among others.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(format!("it cannot be evaluated: {words}"))
    })
}
