//! Batch engine that runs the Byte Latent Transformer's entropy model over Parquet.

pub mod config;
pub mod data;
pub mod model;
pub mod patch;
pub mod pipeline;
pub mod pretokenize;
pub mod schema;
pub mod sink;
pub mod source;
