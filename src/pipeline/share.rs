//! Deals the units of a plan to processes that share one output. Knows nothing of what the others do: a process
//! may die, be started twice, or be the only one that ever runs.

use std::sync::Arc;

use crate::data::Unit;

/// One of `count` equal parts of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u32,
    count: u32,
}

impl Share {
    /// Part `index`, counted from 0, of `count`.
    ///
    /// # Errors
    /// When there is no such part, in words.
    pub fn new(index: u32, count: u32) -> Result<Share, String> {
        if index < count {
            return Ok(Share { index, count });
        }
        Err(format!(
            "share {index} of {count} does not exist: shares are counted from 0 and below their number"
        ))
    }

    /// The units of this part: a run of the plan, since neighbours are read in one pass. A unit belongs to the part
    /// that its middle byte falls into, so that parts differ by one unit's size at most.
    pub fn of(&self, units: &[Arc<Unit>]) -> Vec<Arc<Unit>> {
        let total: u128 = units.iter().map(|unit| weight(unit)).sum();
        let mut before = 0;
        let mut own = Vec::new();
        for unit in units {
            let weight = weight(unit);
            // Twice the position, to stay in whole numbers.
            let middle = 2 * before + weight;
            before += weight;
            if middle * u128::from(self.count) / (2 * total) == u128::from(self.index) {
                own.push(unit.clone());
            }
        }
        own
    }
}

/// As units are cut: content, carried columns, and something for the row itself. Never 0.
fn weight(unit: &Unit) -> u128 {
    let rows = u128::from(unit.rows.end - unit.rows.start);
    u128::from(unit.content_bytes) + u128::from(unit.carried_bytes) + 64 * rows.max(1)
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::UnitId;

    proptest! {
        #[test]
        fn shares_take_every_unit_once_and_are_even(
            sizes in prop::collection::vec(0u64..5_000_000, 1..200),
            count in 1u32..20,
        ) {
            let units: Vec<Arc<Unit>> = (0u32..).zip(&sizes).map(|(unit, &content_bytes)| Arc::new(Unit {
                id: UnitId { shard: 0, unit },
                source_file: "a".into(),
                rows: u64::from(unit)..u64::from(unit) + 1,
                content_bytes,
                carried_bytes: 0,
            })).collect();
            let shares: Vec<_> =
                (0..count).map(|index| Share::new(index, count).unwrap().of(&units)).collect();
            prop_assert_eq!(shares.concat(), units.clone());
            let total: u128 = units.iter().map(|u| weight(u)).sum();
            let largest = units.iter().map(|u| weight(u)).max().unwrap();
            for share in &shares {
                let own: u128 = share.iter().map(|u| weight(u)).sum();
                let even = total / u128::from(count);
                prop_assert!(own <= even + largest + 1 && own + largest + 1 >= even);
            }
        }
    }

    #[test]
    fn a_share_that_does_not_exist_is_refused() {
        assert!(Share::new(2, 3).is_ok());
        assert!(Share::new(3, 3).is_err() && Share::new(0, 0).is_err());
    }
}
