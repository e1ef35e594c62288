//! Cuts a shard into units from its footer alone, so that every machine cuts alike. Knows nothing of
//! files.

use std::ops::Range;

/// What a footer says of one row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// Rows.
    pub rows: u64,
    /// Uncompressed bytes of the content column.
    pub content_bytes: u64,
    /// Uncompressed bytes of the carried columns.
    pub carried_bytes: u64,
}

/// What a row takes besides its content: without it, millions of nulls would be one unit.
const ROW_BYTES: u64 = 64;

impl RowGroup {
    /// Bytes that count against the size of a unit.
    pub fn weight(&self) -> u64 {
        let rows = self.rows.saturating_mul(ROW_BYTES);
        self.content_bytes.saturating_add(self.carried_bytes).saturating_add(rows)
    }
}

/// A run of a shard's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Row numbers in the shard.
    pub rows: Range<u64>,
    /// Their share of the content column.
    pub content_bytes: u64,
    /// Their share of the carried columns.
    pub carried_bytes: u64,
}

/// A shard's units: runs of whole row groups of at most `unit_bytes` together, and even row ranges inside a row
/// group that is larger. Content, carried columns and 64 bytes a row count.
///
/// Units are in order, not empty, and tile the shard's rows.
pub fn cut(row_groups: &[RowGroup], unit_bytes: u64) -> Vec<Cut> {
    let mut units: Vec<Cut> = Vec::new();
    let mut first = 0;
    // Weight of the last unit while it may take more row groups.
    let mut open: Option<u64> = None;
    for group in row_groups.iter().filter(|g| g.rows > 0) {
        let rows = first..first + group.rows;
        first = rows.end;
        let together = open.map(|weight| weight.saturating_add(group.weight()));
        match (together, units.last_mut()) {
            (Some(weight), Some(last)) if weight <= unit_bytes => {
                last.rows.end = rows.end;
                last.content_bytes += group.content_bytes;
                last.carried_bytes += group.carried_bytes;
                open = Some(weight);
            }
            _ => {
                units.extend(split(group, rows, unit_bytes));
                open = (group.weight() <= unit_bytes).then_some(group.weight());
            }
        }
    }
    units
}

fn split(group: &RowGroup, rows: Range<u64>, unit_bytes: u64) -> impl Iterator<Item = Cut> {
    let RowGroup { rows: n_rows, content_bytes, carried_bytes } = *group;
    let parts = group.weight().div_ceil(unit_bytes.max(1)).clamp(1, n_rows);
    // u128: rows × parts of a hostile footer may not fit 64 bits.
    let until =
        move |total: u64, part: u64| (u128::from(total) * u128::from(part) / u128::from(parts)) as u64;
    let share = move |total, part| until(total, part + 1) - until(total, part);
    (0..parts).map(move |part| Cut {
        rows: rows.start + until(n_rows, part)..rows.start + until(n_rows, part + 1),
        content_bytes: share(content_bytes, part),
        carried_bytes: share(carried_bytes, part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(shape: &[(u64, u64, u64)]) -> Vec<RowGroup> {
        let group = |&(rows, content_bytes, carried_bytes)| RowGroup { rows, content_bytes, carried_bytes };
        shape.iter().map(group).collect()
    }

    fn rows_and_content(shape: &[(u64, u64, u64)], unit_bytes: u64) -> Vec<(Range<u64>, u64)> {
        cut(&groups(shape), unit_bytes).into_iter().map(|unit| (unit.rows, unit.content_bytes)).collect()
    }

    #[test]
    fn small_row_groups_share_a_unit_and_large_ones_are_split_evenly() {
        let units = rows_and_content(
            &[(10, 40_000, 0), (10, 50_000, 0), (10, 20_000, 0), (7, 250_000, 0), (1, 5_000, 0)],
            100_000,
        );
        let expected = [
            (0..20, 90_000),
            (20..30, 20_000),
            (30..32, 83_333),
            (32..34, 83_333),
            (34..37, 83_334),
            (37..38, 5_000),
        ];
        assert_eq!(units, expected);
    }

    #[test]
    fn rows_without_content_and_carried_columns_weigh_too() {
        assert_eq!(rows_and_content(&[(1000, 0, 0)], 32_000), [(0..500, 0), (500..1000, 0)]);
        assert_eq!(rows_and_content(&[(2, 10, 9_000)], 5_000), [(0..1, 5), (1..2, 5)]);
    }

    #[test]
    fn one_row_larger_than_a_unit_is_a_unit() {
        assert_eq!(rows_and_content(&[(1, 1000, 0)], 10), [(0..1, 1000)]);
    }

    proptest! {
        #[test]
        fn units_tile_the_rows_and_account_for_every_byte(
            shape in prop::collection::vec((0u64..2000, 0u64..u64::MAX / 64, 0u64..u64::MAX / 64), 0..20),
            unit_bytes in 1u64..u64::MAX / 64,
        ) {
            let units = cut(&groups(&shape), unit_bytes);
            let mut next = 0;
            for unit in &units {
                prop_assert_eq!(unit.rows.start, next);
                prop_assert!(unit.rows.end > unit.rows.start);
                next = unit.rows.end;
            }
            let kept: Vec<_> = shape.iter().filter(|(rows, ..)| *rows > 0).collect();
            prop_assert_eq!(next, kept.iter().map(|(rows, ..)| rows).sum::<u64>());
            let content: u64 = units.iter().map(|unit| unit.content_bytes).sum();
            prop_assert_eq!(content, kept.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
            let carried: u64 = units.iter().map(|unit| unit.carried_bytes).sum();
            prop_assert_eq!(carried, kept.iter().map(|(.., bytes)| bytes).sum::<u64>());
        }
    }
}
