//! Decides before each unit whether this process does it now, later or not at all, so that processes on one output
//! seldom do the same. Knows nothing of how a unit is done; a wrong decision costs time, never data.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    data::UnitId,
    sink::{Claims, Output},
};

/// What to do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deal {
    /// Do it.
    Now,
    /// Another process is at it: do it after all others, if it is not committed by then.
    Later,
    /// Another process has committed it.
    Never,
}

/// Asks the output what others did and are doing.
pub struct Dealer<'a> {
    output: &'a Output,
    claims: Arc<Claims>,
    repairs: bool,
    skipped: Mutex<BTreeSet<UnitId>>,
}

impl<'a> Dealer<'a> {
    /// In a repair, every unit is committed and may be done again all the same.
    pub fn new(output: &'a Output, claims: Arc<Claims>, repairs: bool) -> Self {
        Dealer { output, claims, repairs, skipped: Mutex::default() }
    }

    /// Whether units are done again.
    pub fn repairs(&self) -> bool {
        self.repairs
    }

    /// What to do with `unit`, and on [`Deal::Now`] tells the others. `at_last` never puts it off.
    pub fn deal(&self, unit: UnitId, at_last: bool) -> Deal {
        // A storage that cannot tell will say so when the unit is committed.
        if !self.repairs && self.claims.in_company() && self.output.is_committed(unit).unwrap_or(false) {
            self.skipped.lock().unwrap_or_else(PoisonError::into_inner).insert(unit);
            return Deal::Never;
        }
        if !at_last && self.claims.is_anothers(unit) {
            return Deal::Later;
        }
        self.claims.begin(unit);
        Deal::Now
    }

    /// The claims that units in flight are told to.
    pub fn claims(&self) -> Arc<Claims> {
        self.claims.clone()
    }

    /// Units that another process committed.
    pub fn skipped(&self) -> BTreeSet<UnitId> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
