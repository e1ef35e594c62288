//! How `compare.py` gives a side of the comparison its turns: lines of JSON on standard input.

use std::{fs, io, path::PathBuf};

/// A stream to score.
#[derive(serde::Deserialize)]
pub struct Turn {
    tokens: PathBuf,
    /// Of a context, in tokens.
    pub length: usize,
    /// "all" or "entropies": what leaves the device.
    pub wanted: String,
    /// Where entropies and norms go, `f32`, little-endian.
    pub scores: PathBuf,
}

impl Turn {
    /// The stream, contexts end to end.
    pub fn tokens(&self) -> Vec<u16> {
        let bytes = fs::read(&self.tokens).expect("tokens");
        let (tokens, _) = bytes.as_chunks::<2>();
        tokens.iter().map(|&token| u16::from_le_bytes(token)).collect()
    }
}

/// Those that come, until there are no more.
pub fn turns() -> impl Iterator<Item = Turn> {
    io::stdin().lines().map(|line| serde_json::from_str(&line.expect("input")).expect("a turn"))
}
