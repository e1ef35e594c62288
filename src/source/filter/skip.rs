//! Row groups that hold no row that a condition is true for, by what the footer says of their columns. Never wrong: where
//! a footer says too little, the group is read.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::cast,
    datatypes::{DataType, Field, Schema},
};
use polars::prelude::{DataType as PolarsType, PlSmallStr, SchemaRef};
use polars_expr::{ExpressionConversionState, create_physical_expr, prelude::PhysicalExpr};
use polars_plan::plans::{
    AExpr,
    expr_ir::{ExprIR, OutputName},
    predicates::aexpr_to_skip_batch_predicate,
};
use polars_utils::arena::{Arena, Node};

/// Smallest and largest value and number of nulls of columns, a row a row group; null where the footer does not say.
pub(in crate::source) struct GroupStatistics {
    batch: RecordBatch,
}

impl GroupStatistics {
    /// Of groups of so many `rows`; `columns` gives name, smallest, largest and nulls of each.
    ///
    /// # Errors
    /// When the arrays are not a value a group.
    pub(in crate::source) fn new(
        rows: Vec<u32>,
        columns: Vec<(String, ArrayRef, ArrayRef, ArrayRef)>,
    ) -> Result<GroupStatistics, String> {
        let mut fields = vec![Field::new("len", DataType::UInt32, false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(rows))];
        for (name, smallest, largest, nulls) in columns {
            let nulls = cast(&nulls, &DataType::UInt32).map_err(|error| error.to_string())?;
            for (part, array) in [("min", smallest), ("max", largest), ("nc", nulls)] {
                fields.push(Field::new(format!("{name}_{part}"), array.data_type().clone(), true));
                arrays.push(array);
            }
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays);
        Ok(GroupStatistics { batch: batch.map_err(|error| error.to_string())? })
    }

    pub(super) fn n_groups(&self) -> usize {
        self.batch.num_rows()
    }

    pub(super) fn batch(&self) -> &RecordBatch {
        &self.batch
    }
}

/// The condition on [`GroupStatistics`] under which a group is skipped, if the condition `node` allows one.
pub(super) fn condition(
    node: Node,
    arena: &mut Arena<AExpr>,
    schema: &SchemaRef,
) -> Option<Arc<dyn PhysicalExpr>> {
    if schema.iter_values().any(PolarsType::is_nested) {
        return None;
    }
    let skip = aexpr_to_skip_batch_predicate(node, arena, schema)?;
    let mut of_groups = polars::prelude::Schema::with_capacity(1 + 3 * schema.len());
    of_groups.insert(PlSmallStr::from_static("len"), PolarsType::UInt32);
    for (name, data_type) in schema.iter() {
        for (part, data_type) in [("min", data_type), ("max", data_type), ("nc", &PolarsType::UInt32)] {
            of_groups.insert(format!("{name}_{part}").into(), data_type.clone());
        }
    }
    let skip = ExprIR::new(skip, OutputName::Alias(PlSmallStr::from_static("skip")));
    create_physical_expr(&skip, arena, &Arc::new(of_groups), &mut ExpressionConversionState::new(false)).ok()
}
