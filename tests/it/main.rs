//! Everything that is tested from the outside, in one binary: linking dominates.
// Clippy lets only functions marked #[test] unwrap, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
#[cfg(feature = "flex")]
mod burn_itself;
mod command_line;
mod content_types;
#[cfg(feature = "media")]
mod decoders;
mod engine;
#[cfg(feature = "remote")]
mod fault_proxy;
mod faults;
#[cfg(feature = "filter")]
mod filter;
mod fuzz;
mod golden;
#[cfg(feature = "gpu")]
mod gpu;
mod hard_files;
#[cfg(feature = "remote")]
mod http1;
#[cfg(feature = "remote")]
mod hub;
#[cfg(feature = "remote")]
mod hub_client;
#[cfg(feature = "remote")]
mod hub_server;
#[cfg(feature = "media")]
mod inspect;
mod lines;
mod loose_files;
#[cfg(feature = "media")]
mod media;
mod memory;
mod model_files;
mod packing;
mod patches;
mod pipeline_keys;
mod profile;
#[cfg(feature = "push")]
mod publish;
mod quickstart;
mod reference;
mod resume;
#[cfg(feature = "remote")]
mod s3_server;
#[cfg(feature = "remote")]
mod s3_stories;
mod signals;
mod storage;
#[cfg(feature = "remote")]
mod store_sink;
#[cfg(feature = "remote")]
mod store_source;
mod support;
mod tables;
#[cfg(feature = "media")]
mod tiling;
mod torture;
mod units;
mod verify;
#[cfg(feature = "media")]
mod video;
mod weights;
mod window;
