//! Everything that is tested from the outside, in one binary: linking dominates.
// Clippy lets only functions marked #[test] unwrap, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod command_line;
mod content_types;
mod engine;
mod faults;
#[cfg(feature = "filter")]
mod filter;
mod fuzz;
mod golden;
#[cfg(feature = "gpu")]
mod gpu;
mod hard_files;
#[cfg(feature = "push")]
mod hub_server;
mod lines;
mod loose_files;
mod memory;
mod packing;
mod patches;
mod pipeline_keys;
mod profile;
#[cfg(feature = "push")]
mod publish;
mod quickstart;
mod reference;
mod resume;
mod signals;
mod storage;
mod support;
mod tables;
mod torture;
mod units;
mod verify;
mod weights;
mod window;
