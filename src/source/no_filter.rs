//! What stands for `filter` in a build without it: there is no condition on rows, and a plan that has one is refused.

use std::path::Path;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::Schema,
};

use super::SourceError;
use crate::config::Source;

/// As the real one.
pub(super) fn of(source: &Source, _: &Schema, _: &Path) -> Result<Option<Filter>, SourceError> {
    let problem = "source.where: this build has no row filter; build it with the feature `filter`, or leave the key out";
    if source.filter.is_some() { Err(SourceError::Plan(problem.to_owned())) } else { Ok(None) }
}

/// Likewise.
pub(super) fn names(source: &Source) -> Result<Vec<String>, SourceError> {
    of(source, &Schema::empty(), Path::new("")).map(|_| Vec::new())
}

pub(super) enum Filter {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Drop,
    Unknown(String),
}

pub(super) struct GroupStatistics;

impl GroupStatistics {
    pub(super) fn new(
        _: Vec<u32>,
        _: Vec<(String, ArrayRef, ArrayRef, ArrayRef)>,
    ) -> Result<GroupStatistics, String> {
        Ok(GroupStatistics)
    }
}

impl Filter {
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        match *self {}
        #[expect(unreachable_code, reason = "there is no such value")]
        std::iter::empty()
    }

    pub(super) fn verdicts(
        &self,
        _: &RecordBatch,
        _: impl Fn(&str, &[u8]) -> bool + Copy,
    ) -> Result<Vec<Verdict>, String> {
        match *self {}
    }

    pub(super) fn skipped(&self, _: &GroupStatistics) -> Vec<bool> {
        match *self {}
    }
}
