//! What a condition must be before it is asked of a row: it names columns that are there, compares like with like, and each row's answer
//! depends on that row alone. polars accepts more, a number compared with a moment among it.

use arrow::datatypes::{Field, Schema};
use polars::prelude::{DataType, Expr, Operator, PlSmallStr};
use polars_plan::{
    plans::{AExpr, is_elementwise, is_scalar_ae},
    utils::expr_to_leaf_column_names,
};
use polars_utils::{
    UnitVec,
    arena::{Arena, Node},
};

/// Names of the columns that `expression` asks about.
///
/// # Errors
/// When one stands for several, or for none.
pub(super) fn names(expression: &Expr) -> Result<Vec<PlSmallStr>, String> {
    for part in expression {
        match part {
            Expr::Selector(_) => return Err("it must name columns one by one, without patterns".to_owned()),
            Expr::SubPlan(..) => return Err("it must not hold a query of its own".to_owned()),
            _ => {}
        }
    }
    Ok(expr_to_leaf_column_names(expression))
}

/// Columns of `schema` that `expression` names, in the order of the schema.
///
/// # Errors
/// When one is not there, or as [`names`].
pub(super) fn columns(expression: &Expr, schema: &Schema) -> Result<Vec<Field>, String> {
    let names = names(expression)?;
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
        let hint = nearest
            .filter(|(distance, _)| *distance <= 2)
            .map(|(_, known)| format!("; did you mean {known}?"));
        let all = known.join(", ");
        return Err(format!("there is no column {name}{}; the columns are {all}", hint.unwrap_or_default()));
    }
    let named = schema.fields().iter().filter(|field| names.iter().any(|name| name.as_str() == field.name()));
    Ok(named.map(|field| field.as_ref().clone()).collect())
}

/// Refuses comparisons and connections of values that are not of one kind.
pub(super) fn types(expression: &Expr, schema: &polars::prelude::Schema) -> Result<(), String> {
    for part in expression {
        let Expr::BinaryExpr { left, op, right } = part else { continue };
        let kind = |side: &Expr| {
            let field = side.to_field(schema).map_err(super::problem)?;
            Ok::<_, String>((Kind::of(field.dtype()), field.dtype().clone()))
        };
        let ((left, left_type), (right, right_type)) = (kind(left)?, kind(right)?);
        let (expected, together) = match op {
            Operator::And | Operator::Or | Operator::Xor | Operator::LogicalAnd | Operator::LogicalOr => {
                ("true or false on both sides", left.fits(Kind::Boolean) && right.fits(Kind::Boolean))
            }
            Operator::Eq
            | Operator::EqValidity
            | Operator::NotEq
            | Operator::NotEqValidity
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq => ("values of one kind", left.fits(right)),
            _ => continue,
        };
        if !together {
            return Err(format!(
                "`{op}` needs {expected}, and has {left_type} and {right_type}; CAST one of them"
            ));
        }
    }
    Ok(())
}

/// Kinds of values that compare with each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Bytes,
    Date,
    Moment,
    Time,
    Duration,
    Nested,
    Other,
}

impl Kind {
    fn of(data_type: &DataType) -> Kind {
        match data_type {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Boolean,
            DataType::String => Kind::Text,
            DataType::Binary => Kind::Bytes,
            DataType::Date => Kind::Date,
            DataType::Datetime(..) => Kind::Moment,
            DataType::Time => Kind::Time,
            DataType::Duration(_) => Kind::Duration,
            other if other.is_nested() => Kind::Nested,
            other if other.is_numeric() => Kind::Number,
            _ => Kind::Other,
        }
    }

    fn fits(self, other: Kind) -> bool {
        // A date is the moment at which it begins.
        let moment = |kind| matches!(kind, Kind::Date | Kind::Moment);
        self == other || self == Kind::Null || other == Kind::Null || moment(self) && moment(other)
    }
}

/// Refuses what depends on other rows: a batch must not decide about a row.
pub(super) fn row_wise(node: Node, arena: &Arena<AExpr>) -> Result<(), String> {
    let mut left: UnitVec<Node> = UnitVec::new();
    left.push(node);
    while let Some(node) = left.pop() {
        if !is_constant(node, arena) && !is_elementwise(&mut left, arena.get(node), arena) {
            return Err("it must ask about each row alone, without aggregates, windows or the order of rows"
                .to_owned());
        }
    }
    Ok(())
}

/// Whether it is one value, whatever the rows are. A TIMESTAMP in quotes is such a value, though its format is told
/// from the text.
fn is_constant(node: Node, arena: &Arena<AExpr>) -> bool {
    let mut left = vec![node];
    while let Some(node) = left.pop() {
        let part = arena.get(node);
        if matches!(part, AExpr::Column(_) | AExpr::Len) {
            return false;
        }
        part.children_rev(&mut left);
    }
    is_scalar_ae(node, arena)
}
