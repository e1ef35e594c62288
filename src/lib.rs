//! Batch engine that runs the Byte Latent Transformer's entropy model over Parquet.

pub mod data;
pub mod model;
