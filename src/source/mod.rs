//! From a source URI to shards, units and rows. Knows nothing of what the rows mean to a model.

mod cells;
mod delta;
mod footer;
mod listing;
mod pages;
mod parquet;
mod snappy;
mod thrift;
mod units;

pub use self::{
    footer::{Identity, Shard, open_shard},
    listing::{ShardFile, list_shards, unsupported},
    parquet::{Held, RowReader},
    units::{Cut, RowGroup, cut},
};

/// Why shards or rows could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The plan asks for something that is not there; running it again changes nothing.
    #[error("{0}")]
    Plan(String),
    /// A shard's bytes are not what they should be.
    #[error("{0}")]
    Data(String),
    /// More memory is needed than may be had.
    #[error("{0}")]
    Memory(String),
}
