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
}

/// Row ranges of a shard's units with their content bytes: runs of whole row groups of at most
/// `unit_bytes` together, and even row ranges inside a row group that is larger.
///
/// The ranges are in order, not empty, and tile the shard's rows.
pub fn cut(row_groups: &[RowGroup], unit_bytes: u64) -> Vec<(Range<u64>, u64)> {
    let mut units = Vec::new();
    let mut run: Option<(Range<u64>, u64)> = None;
    let mut first = 0;
    for group in row_groups.iter().filter(|g| g.rows > 0) {
        let rows = first..first + group.rows;
        first = rows.end;
        if let Some((open, bytes)) = &mut run
            && bytes.saturating_add(group.content_bytes) <= unit_bytes
        {
            open.end = rows.end;
            *bytes += group.content_bytes;
            continue;
        }
        units.extend(run.take());
        if group.content_bytes <= unit_bytes {
            run = Some((rows, group.content_bytes));
        } else {
            units.extend(split(rows, group.content_bytes, unit_bytes));
        }
    }
    units.extend(run);
    units
}

fn split(rows: Range<u64>, bytes: u64, unit_bytes: u64) -> impl Iterator<Item = (Range<u64>, u64)> {
    let n_rows = rows.end - rows.start;
    let parts = bytes.div_ceil(unit_bytes.max(1)).min(n_rows);
    // u128: rows × parts of a hostile footer may not fit 64 bits.
    let share =
        move |total: u64, part: u64| (u128::from(total) * u128::from(part) / u128::from(parts)) as u64;
    (0..parts).map(move |part| {
        let range = rows.start + share(n_rows, part)..rows.start + share(n_rows, part + 1);
        (range, share(bytes, part + 1) - share(bytes, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(shape: &[(u64, u64)]) -> Vec<RowGroup> {
        shape.iter().map(|&(rows, content_bytes)| RowGroup { rows, content_bytes }).collect()
    }

    #[test]
    fn small_row_groups_share_a_unit_and_large_ones_are_split_evenly() {
        let units = cut(&groups(&[(10, 40), (10, 50), (10, 20), (7, 250), (1, 5)]), 100);
        let expected = [(0..20, 90), (20..30, 20), (30..32, 83), (32..34, 83), (34..37, 84), (37..38, 5)];
        assert_eq!(units, expected);
    }

    #[test]
    fn one_row_larger_than_a_unit_is_a_unit() {
        assert_eq!(cut(&groups(&[(1, 1000)]), 10), [(0..1, 1000)]);
    }

    proptest! {
        #[test]
        fn units_tile_the_rows_and_account_for_every_byte(
            shape in prop::collection::vec((0u64..2000, 0u64..u64::MAX / 64), 0..20),
            unit_bytes in 1u64..u64::MAX / 64,
        ) {
            // A hostile footer may ask for a unit a row: bounded by its rows, so keep those small here.
            let units = cut(&groups(&shape), unit_bytes);
            let mut next = 0;
            for (rows, _) in &units {
                prop_assert_eq!(rows.start, next);
                prop_assert!(rows.end > rows.start);
                next = rows.end;
            }
            prop_assert_eq!(next, shape.iter().map(|(rows, _)| rows).sum::<u64>());
            let bytes: u64 = units.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(bytes, shape.iter().filter(|(rows, _)| *rows > 0).map(|(_, b)| b).sum::<u64>());
        }
    }
}
