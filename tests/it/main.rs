//! Integration tests, one binary: linking dominates.
// Clippy lets only functions marked #[test] unwrap, not what they call.
#![allow(clippy::unwrap_used)]

mod golden;
mod packing;
mod reference;
mod weights;
mod window;
