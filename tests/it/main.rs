//! Everything that is tested from the outside, in one binary: linking dominates.
// Clippy lets only functions marked #[test] unwrap, not what they call.
#![allow(clippy::unwrap_used)]

mod golden;
mod packing;
mod patches;
mod quickstart;
mod reference;
mod weights;
mod window;
