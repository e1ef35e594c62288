//! Text in, the tokens of a Hugging Face tokenizer out, as segments of the bytes that they stand for. Adds no token of its own.

use std::{fs, ops::Range};

use tokenizers::{ModelWrapper, PostProcessorWrapper, Tokenizer};

use super::segment;
use crate::data::Segment;

/// Memory that a text takes while it is tokenized, measured with 13.8 MB in one: 125 to 140 bytes.
pub(super) const BYTES_PER_BYTE: u64 = 160;

/// A tokenizer, set up to give the tokens of a whole text and no others.
pub(super) struct Tokens(Box<Tokenizer>);

impl Tokens {
    /// That of the file `path`, a `tokenizer.json`.
    ///
    /// # Errors
    /// When it cannot be read, or would not give the same tokens twice.
    pub(super) fn read(path: &str) -> Result<Tokens, String> {
        read_tokenizer(path).map(|tokenizer| Tokens(Box::new(tokenizer)))
    }

    /// Segments of `bytes`: tokens, and between them the bytes that no token stands for.
    ///
    /// # Errors
    /// In the tokenizer's words.
    pub(super) fn segments(&self, bytes: &[u8]) -> Result<Vec<Segment>, String> {
        tokens(&self.0, bytes)
    }
}

pub(super) fn read_tokenizer(path: &str) -> Result<Tokenizer, String> {
    let json = fs::read(path).map_err(|error| format!("failed to read {path}: {error}"))?;
    let mut tokenizer = Tokenizer::from_bytes(json)
        .map_err(|error| format!("failed to read a tokenizer from {path}: {error}"))?;
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some_and(|dropout| dropout > 0.0)
    {
        return Err(format!("the tokenizer {path} drops merges at random: its model.dropout is not null"));
    }
    tokenizer
        .with_truncation(None)
        .map_err(|error| format!("failed to set up the tokenizer {path}: {error}"))?;
    tokenizer.with_padding(None);
    // Its work is special tokens and narrower offsets: some take the blank before a word out of its token.
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    Ok(tokenizer)
}

/// Tokens, and between them the bytes that no token stands for. Each run of valid UTF-8 is tokenized by itself; bytes that
/// are not UTF-8 are in no token.
fn tokens(tokenizer: &Tokenizer, bytes: &[u8]) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let (mut run_start, mut tiled) = (0, 0);
    for run in bytes.utf8_chunks() {
        let text = run.valid();
        if !text.is_empty() {
            let encoding =
                tokenizer.encode(text, false).map_err(|error| format!("failed to tokenize: {error}"))?;
            for group in groups(encoding.get_offsets(), text.len())? {
                let start = run_start + group.bytes.start;
                if tiled < start {
                    segments.push(segment("rest", tiled..start));
                }
                tiled = run_start + group.bytes.end;
                let meta = Some(meta_of(&encoding.get_ids()[group.tokens]));
                segments.push(Segment { meta, ..segment("token", start..tiled) });
            }
        }
        run_start += text.len() + run.invalid().len();
    }
    if tiled < bytes.len() {
        segments.push(segment("rest", tiled..bytes.len()));
    }
    Ok(segments)
}

fn meta_of(ids: &[u32]) -> String {
    match ids {
        [id] => format!(r#"{{"id":{id}}}"#),
        _ => {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            format!(r#"{{"ids":[{}]}}"#, ids.join(","))
        }
    }
}

/// Tokens that share a segment, and their bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) tokens: Range<usize>,
    pub(super) bytes: Range<usize>,
}

/// Groups of tokens whose bytes follow each other without overlap; none is empty. Tokens that begin before the one before
/// them ends are parts of one character, or of one that was normalized to several, and are grouped. So are tokens without
/// bytes, which the tokenizer put in: with the token before, at the start with the one after, and if there is no other, with
/// all of the text.
pub(super) fn groups(offsets: &[(usize, usize)], n_bytes: usize) -> Result<Vec<Group>, String> {
    let mut groups: Vec<Group> = Vec::new();
    for (token, &(start, end)) in offsets.iter().enumerate() {
        if start > end || end > n_bytes {
            return Err(format!(
                "failed to tokenize: token {token} is said to be bytes {start} to {end} of {n_bytes}"
            ));
        }
        match groups.last_mut() {
            Some(last) if last.bytes.is_empty() => {
                *last = Group { tokens: last.tokens.start..token + 1, bytes: start..end }
            }
            Some(last) if start < last.bytes.end || start == end => {
                last.tokens.end = token + 1;
                last.bytes.end = last.bytes.end.max(end);
            }
            _ => groups.push(Group { tokens: token..token + 1, bytes: start..end }),
        }
    }
    if let Some(last) = groups.last_mut()
        && last.bytes.is_empty()
    {
        last.bytes = 0..n_bytes;
    }
    Ok(groups)
}
