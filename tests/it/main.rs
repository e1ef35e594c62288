//! Integration tests, one binary: linking dominates.

mod golden;
mod packing;
mod weights;
mod window;
