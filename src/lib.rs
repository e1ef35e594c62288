//! Runs the entropy model of the Byte Latent Transformer over Parquet.

pub mod config;
pub mod data;
pub mod patch;
