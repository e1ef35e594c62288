//! From a source URI to shards, units and rows. Knows nothing of what the rows mean to a model.

mod access;
mod agree;
mod beside;
mod cells;
mod delta;
mod files;
#[cfg(feature = "filter")]
mod filter;
#[cfg(not(feature = "filter"))]
#[path = "no_filter.rs"]
mod filter;
mod footer;
mod json;
mod lines;
mod listing;
mod packed;
mod pages;
mod parquet;
mod reader;
mod rows;
mod shape;
mod shard;
mod snappy;
mod thrift;
mod typed;
mod units;

pub use self::{
    agree::agree_on_types,
    listing::{Member, ShardFile, list_shards},
    reader::{Grant, Held, RowReader},
    shard::{Identity, Shard, begin_keeping, is_read_through, open_shard},
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
    /// The service where a shard lies does not let us read it.
    #[error("{0}")]
    Denied(String),
    /// The network, or the service where a shard lies, failed; later it may be had.
    #[error("{0}")]
    Unreachable(String),
    /// More memory is needed than may be had.
    #[error("{0}")]
    Memory(String),
}
