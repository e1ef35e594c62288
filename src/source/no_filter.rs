//! What stands for `filter` in a build without it: there is no condition on rows, and a plan that has one is refused.

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::Schema,
};

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
    pub(super) fn compile(_: &str, _: &Schema) -> Result<Filter, String> {
        Err("this build has no row filter; build it with the feature `filter`".to_owned())
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        match *self {}
        #[expect(unreachable_code, reason = "there is no such value")]
        std::iter::empty()
    }

    pub(super) fn verdicts(
        &self,
        _: &RecordBatch,
        _: impl Fn(&[u8]) -> bool + Copy,
    ) -> Result<Vec<Verdict>, String> {
        match *self {}
    }

    pub(super) fn skipped(&self, _: &GroupStatistics) -> Vec<bool> {
        match *self {}
    }
}
