//! Everything that is tested from the outside, in one binary: linking dominates.
// Clippy lets only functions marked #[test] unwrap, not what they call.
#![allow(clippy::unwrap_used)]

mod command_line;
mod content_types;
mod golden;
mod packing;
mod patches;
mod pipeline_keys;
mod quickstart;
mod reference;
mod support;
mod tables;
mod weights;
mod window;
