//! Bytes in, syntax tree out, or none if that would take too much. Knows nothing of items.

use std::{cell::Cell, ops::ControlFlow, time::Instant};

use tree_sitter::{ParseOptions, ParseState, Parser, Point, Tree};

use super::languages::Grammar;

/// Bytes of content above which it is not parsed, so that [`memory`] stays within what one row may take.
pub(super) const MAX_PARSED_BYTES: usize = 1 << 20;
/// The parser asks us each time it has done so many operations.
const OPERATIONS_PER_CALL: u64 = 100;
/// Operations after which a parse is given up: so many for four bytes of content and some more. Of 607 files of 12 to 900 kB in six
/// languages half take less than 0.66 a byte and 99 in 100 less than 1.9: the others are minified scripts and tables of numbers. What is
/// not code goes on to the end of the content, where all ways to read it are written down at once: 40 kB of `;-:?` as C++ take a
/// gigabyte there, after 2.2 operations a byte.
const OPERATIONS_PER_FOUR_BYTES: u64 = 7;
const MIN_OPERATIONS: u64 = 1 << 12;
/// The parser is given so many bytes at a time,
const CHUNK_BYTES: usize = 4 << 10;
/// and each byte so often on average, and some chunks more: it reads to the end for each `/*` that is never closed.
const MAX_READS: u64 = 32;
const MIN_CHUNKS: u64 = 1 << 10;

/// The parser goes down a chain of its own as deep as code nests, by calls of 100 bytes (`stack_node_release` in its `stack.c`): 50
/// bytes a byte of `{[{[…` as Go. Pages of a stack that are not touched take no memory.
const STACK_BYTES_PER_BYTE: usize = 256;
const MIN_STACK_BYTES: usize = 256 << 10;

/// Bytes of memory that [`parse`] takes for `n_bytes` of whatever content, as far as was measured: the parser has no bound of its own.
/// Code takes 5 to 60 a byte, and up to 100 where it is dense; what is not code, up to 960 (`a::a::…` as C), and short content that is
/// read to its end in spite of the bound on operations, up to 5 times its length for each byte (4 kB of `{[a=>async -` as Java).
pub(super) fn memory(n_bytes: usize) -> u64 {
    const BYTES_PER_BYTE: u64 = 1000;
    const MOST_AT_THE_END: u64 = 128 << 20;
    if n_bytes > MAX_PARSED_BYTES {
        return 0;
    }
    let n_bytes = n_bytes as u64;
    BYTES_PER_BYTE * n_bytes + (5 * n_bytes * n_bytes).min(MOST_AT_THE_END)
}

/// The deadline came while the parser was at work. Some of its operations take a millisecond: 2 kB of `)*` as Rust, many seconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfTime;

/// The tree of `content`. `None` if it is too long, or would take more than code does; that depends on the bytes alone.
///
/// # Errors
/// After `deadline`, which no answer may come of.
pub(super) fn parse(content: &[u8], grammar: &Grammar, deadline: Instant) -> Result<Option<Tree>, OutOfTime> {
    if content.len() > MAX_PARSED_BYTES {
        return Ok(None);
    }
    let stack_bytes = MIN_STACK_BYTES + STACK_BYTES_PER_BYTE * content.len();
    stacker::maybe_grow(stack_bytes, stack_bytes, || parse_here(content, grammar, deadline))
}

/// On the stack there is.
fn parse_here(content: &[u8], grammar: &Grammar, deadline: Instant) -> Result<Option<Tree>, OutOfTime> {
    let max_operations = MIN_OPERATIONS + OPERATIONS_PER_FOUR_BYTES * content.len() as u64 / 4;
    let max_chunks = MIN_CHUNKS + MAX_READS * content.len().div_ceil(CHUNK_BYTES) as u64;
    let (mut n_operations, n_chunks, is_late) = (0, Cell::new(0), Cell::new(false));
    let mut read = |at: usize, _: Point| {
        n_chunks.set(n_chunks.get() + 1);
        // After that it is told that nothing follows, and will ask soon.
        let rest = content.get(at..).filter(|_| n_chunks.get() <= max_chunks).unwrap_or_default();
        &rest[..rest.len().min(CHUNK_BYTES)]
    };
    let mut watch = |_: &ParseState| {
        n_operations += OPERATIONS_PER_CALL;
        is_late.set(Instant::now() > deadline);
        match is_late.get() || n_operations > max_operations || n_chunks.get() > max_chunks {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let mut parser = Parser::new();
    if parser.set_language(&(grammar.load)()).is_err() {
        return Ok(None);
    }
    let tree =
        parser.parse_with_options(&mut read, None, Some(ParseOptions::new().progress_callback(&mut watch)));
    match is_late.get() {
        true => Err(OutOfTime),
        // It may have come to its end before it asked.
        false => Ok(tree.filter(|_| n_chunks.get() <= max_chunks)),
    }
}

/// Bytes that fit nowhere, and one for each token that is missing.
pub(super) fn errors(tree: &Tree) -> u64 {
    let mut n_errors = 0;
    let mut cursor = tree.walk();
    let mut in_error = vec![false];
    loop {
        let node = cursor.node();
        let is_loose = in_error.last() == Some(&true) && node.child_count() == 0;
        if node.is_missing() {
            n_errors += 1;
        } else if is_loose || node.is_error() && node.child_count() == 0 {
            n_errors += (node.end_byte() - node.start_byte()) as u64;
        }
        if node.has_error() && cursor.goto_first_child() {
            in_error.push(node.is_error());
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return n_errors;
            }
            in_error.pop();
        }
    }
}
