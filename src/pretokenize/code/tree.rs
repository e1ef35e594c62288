//! Bytes in, syntax tree out, or none if that would take too much. Knows nothing of items.

use std::{cell::Cell, ops::ControlFlow};

use tree_sitter::{ParseOptions, ParseState, Parser, Point, Tree};

use super::languages::Grammar;

/// Bytes of content above which it is not parsed. Code takes some 35 bytes of memory a byte, and what is not code up to 800.
pub(super) const MAX_PARSED_BYTES: usize = 4 << 20;
/// The parser asks us each time it has done so many operations.
const OPERATIONS_PER_CALL: u64 = 100;
/// Operations after which a parse is given up: so many a byte of content and some more. Code takes 0.5 to 2; what takes more than 4
/// may take far more memory, too (20 kB of `a<a<…` as Java, a gigabyte).
const OPERATIONS_PER_BYTE: u64 = 3;
const MIN_OPERATIONS: u64 = 1 << 13;
/// The parser is given so many bytes at a time,
const CHUNK_BYTES: usize = 4 << 10;
/// and each byte so often on average, and some chunks more: it reads to the end for each `/*` that is never closed.
const MAX_READS: u64 = 32;
const MIN_CHUNKS: u64 = 1 << 10;

/// The parser goes down a chain of its own as deep as code nests, by calls of 100 bytes (`stack_node_release` in its `stack.c`): 50
/// bytes a byte of `{[{[…` as Go. Pages of a stack that are not touched take no memory.
const STACK_BYTES_PER_BYTE: usize = 256;
const MIN_STACK_BYTES: usize = 256 << 10;

/// The tree of `content`. `None` if it is too long, or would take more than code does; that depends on the bytes alone.
pub(super) fn parse(content: &[u8], grammar: &Grammar) -> Option<Tree> {
    if content.len() > MAX_PARSED_BYTES {
        return None;
    }
    let stack_bytes = MIN_STACK_BYTES + STACK_BYTES_PER_BYTE * content.len();
    stacker::maybe_grow(stack_bytes, stack_bytes, || parse_here(content, grammar))
}

/// On the stack there is.
fn parse_here(content: &[u8], grammar: &Grammar) -> Option<Tree> {
    let max_operations = MIN_OPERATIONS + OPERATIONS_PER_BYTE * content.len() as u64;
    let max_chunks = MIN_CHUNKS + MAX_READS * content.len().div_ceil(CHUNK_BYTES) as u64;
    let (mut n_operations, n_chunks) = (0, Cell::new(0));
    let mut read = |at: usize, _: Point| {
        n_chunks.set(n_chunks.get() + 1);
        // After that it is told that nothing follows, and will ask soon.
        let rest = content.get(at..).filter(|_| n_chunks.get() <= max_chunks).unwrap_or_default();
        &rest[..rest.len().min(CHUNK_BYTES)]
    };
    let mut watch = |_: &ParseState| {
        n_operations += OPERATIONS_PER_CALL;
        match n_operations > max_operations || n_chunks.get() > max_chunks {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let mut parser = Parser::new();
    parser.set_language(&(grammar.load)()).ok()?;
    let tree =
        parser.parse_with_options(&mut read, None, Some(ParseOptions::new().progress_callback(&mut watch)));
    // It may have come to its end before it asked.
    tree.filter(|_| n_chunks.get() <= max_chunks)
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
