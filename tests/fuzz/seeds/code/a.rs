a.rs//! A file.
use std::fmt;
use std::io;

/// Doc.
#[derive(Debug)]
pub struct Point<T> { x: T }

impl<T: Clone> Point<T> {
    // One.
    fn x(&self) -> T { self.x.clone() } // behind

    fn y() {}
}
mod inner { pub const N: u32 = 1; trait A { fn f(); } }
macro_rules! m { () => {} }
fn main() { let s = r#"}"#; }
