//! Which language a row is in, by what is said of it or by its content. Knows nothing of items.

use std::time::Instant;

use super::languages::{GRAMMARS, Grammar};
use super::tree::{OutOfTime, errors, parse};
use crate::{config::Language, pretokenize::Content};

/// Bytes at the start of content that its language is found out by.
pub(super) const HEAD_BYTES: usize = 32 << 10;
/// Of a head, the part of its bytes that may be in syntax errors: 1 in so many.
const ERRORS_ONE_IN: u64 = 50;

/// Starts of lines in C++ that C has not.
const CPP_LINES: [&str; 7] =
    ["namespace ", "template<", "template <", "using namespace ", "public:", "private:", "protected:"];

/// What is known of a row's language.
pub(super) enum Found {
    /// Whichever of them parses with the fewest errors; the first, if several do.
    OneOf(Vec<&'static Grammar>),
    /// Another one, as the row calls it.
    Other(String),
    Unknown,
}

/// The language of `content`: what the settings say, else what the row says, else its path's ending, else its first line, else the
/// content.
///
/// # Errors
/// After `deadline`.
pub(super) fn language(
    settings: Option<Language>,
    content: &Content,
    deadline: Instant,
) -> Result<Found, OutOfTime> {
    if let Some(language) = settings {
        return Ok(Found::OneOf(vec![Grammar::of(language)]));
    }
    let path = content.path.as_deref().and_then(by_ending);
    if let Some(named) = content.language.as_deref().map(str::trim).filter(|named| !named.is_empty()) {
        return Ok(match by_name(named) {
            // Data sets know no TSX.
            Some(Language::TypeScript) => Found::OneOf(match path {
                Some(Language::Tsx) => vec![Grammar::of(Language::Tsx)],
                _ => vec![Grammar::of(Language::TypeScript), Grammar::of(Language::Tsx)],
            }),
            Some(language) => Found::OneOf(vec![Grammar::of(language)]),
            None => Found::Other(named.to_owned()),
        });
    }
    Ok(match path {
        // C++ has no ending of its own for headers, and C takes much of it for something else.
        Some(Language::C) if content.path.as_deref().and_then(ending).as_deref() == Some("h") => {
            let (c, cpp) = (Grammar::of(Language::C), Grammar::of(Language::Cpp));
            Found::OneOf(if looks_like_cpp(&content.bytes) { vec![cpp, c] } else { vec![c, cpp] })
        }
        Some(language) => Found::OneOf(vec![Grammar::of(language)]),
        None => by_content(&content.bytes, deadline)?,
    })
}

pub(super) fn by_name(named: &str) -> Option<Language> {
    let named = named.to_ascii_lowercase();
    GRAMMARS.iter().find(|grammar| grammar.aliases.contains(&&*named)).map(|grammar| grammar.language)
}

fn ending(path: &str) -> Option<String> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(ending.to_ascii_lowercase())
}

pub(super) fn by_ending(path: &str) -> Option<Language> {
    let ending = ending(path)?;
    GRAMMARS.iter().find(|grammar| grammar.endings.contains(&&*ending)).map(|grammar| grammar.language)
}

/// Whether a line begins as none does in C.
fn looks_like_cpp(bytes: &[u8]) -> bool {
    bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).any(|line| match line {
        // In a comment, `class` is a word like others.
        [b'c', b'l', b'a', b's', b's', b' ', name @ ..] => {
            matches!(name.last(), Some(b'{' | b';')) || !name.contains(&b' ')
        }
        _ => CPP_LINES.iter().any(|start| line.starts_with(start.as_bytes())),
    })
}

fn by_content(bytes: &[u8], deadline: Instant) -> Result<Found, OutOfTime> {
    if let Some(line) = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).strip_prefix(b"#!") {
        let end = memchr::memchr(b'\n', line).unwrap_or(line.len());
        return Ok(by_interpreter(&line[..end]).map_or(Found::Unknown, |grammar| Found::OneOf(vec![grammar])));
    }
    Ok(by_errors(head(bytes), deadline)?.map_or(Found::Unknown, |grammar| Found::OneOf(vec![grammar])))
}

/// The language of `#!/usr/bin/env -S python3.12 -u`, without `#!`.
fn by_interpreter(line: &[u8]) -> Option<&'static Grammar> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let program = words.find_map(|word| {
        let name = word.rsplit(|&byte| byte == b'/').next()?;
        let is_program = name != b"env" && !word.starts_with(b"-") && !word.contains(&b'=');
        is_program.then_some(name)
    })?;
    let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let end = program.iter().rposition(|byte| !is_version(byte)).map_or(0, |at| at + 1);
    GRAMMARS.iter().find(|grammar| grammar.interpreters.iter().any(|name| name.as_bytes() == &program[..end]))
}

/// The first lines.
fn head(bytes: &[u8]) -> &[u8] {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    if head.len() == bytes.len() {
        return head;
    }
    &head[..memchr::memrchr(b'\n', head).map_or(head.len(), |at| at + 1)]
}

/// The language in which `head` has the fewest errors, if they are few and there are items that another text would hardly have.
fn by_errors(head: &[u8], deadline: Instant) -> Result<Option<&'static Grammar>, OutOfTime> {
    let mut best: Option<(u64, &Grammar)> = None;
    for grammar in &GRAMMARS {
        let Some(tree) = parse(head, grammar, deadline)? else { continue };
        let n_errors = errors(&tree);
        let is_better = best.is_none_or(|(least, _)| n_errors < least);
        let is_code = || {
            super::items::items(&tree, head, grammar)
                .iter()
                .any(|item| item.kind != super::languages::VARIABLE)
        };
        if is_better && n_errors <= head.len() as u64 / ERRORS_ONE_IN && is_code() {
            best = Some((n_errors, grammar));
        }
    }
    Ok(best.map(|(_, grammar)| grammar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(language: Option<&str>, path: Option<&str>, bytes: &[u8]) -> String {
        let (language, path) = (language.map(str::to_owned), path.map(str::to_owned));
        let deadline = Instant::now() + std::time::Duration::from_secs(600);
        match super::language(None, &Content { bytes: bytes.to_vec(), path, language }, deadline).unwrap() {
            Found::OneOf(grammars) => {
                grammars.iter().map(|grammar| grammar.name).collect::<Vec<_>>().join(" or ")
            }
            Found::Other(name) => format!("other: {name}"),
            Found::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn a_column_comes_before_the_path_and_the_path_before_the_content() {
        let python = b"def f():\n    return 1\n";
        assert_eq!(found(Some("C++"), Some("a.rs"), python), "cpp");
        assert_eq!(found(Some(" JavaScript "), Some("a.rs"), python), "javascript");
        assert_eq!(found(Some(""), Some("a.rs"), python), "rust");
        assert_eq!(found(None, Some("src/A.RS"), python), "rust");
        assert_eq!(found(None, Some("a.tar.gz::lib/a.go"), python), "go");
        assert_eq!(found(None, Some("dir.rs/script"), python), "python");
        assert_eq!(found(Some("Ruby"), Some("a.rs"), python), "other: Ruby");
        let settings = super::language(
            Some(Language::Java),
            &Content { language: Some("C".to_owned()), ..Content::default() },
            Instant::now(),
        );
        assert!(matches!(settings, Ok(Found::OneOf(grammars)) if grammars[0].name == "java"));
    }

    #[test]
    fn what_a_name_leaves_open_is_left_to_parsing() {
        assert_eq!(found(None, Some("a.h"), b""), "c or cpp");
        assert_eq!(found(None, Some("a.h"), b"/* A\n class of functions */\n"), "c or cpp");
        assert_eq!(found(None, Some("a.H"), b"\nclass A\r\n{};\n"), "cpp or c");
        assert_eq!(found(None, Some("a.h"), b"  class A : public B {\n"), "cpp or c");
        assert_eq!(found(None, Some("a.h"), b"namespace a {\n"), "cpp or c");
        assert_eq!(found(Some("C"), Some("a.h"), b""), "c");
        assert_eq!(found(Some("TypeScript"), None, b""), "typescript or tsx");
        assert_eq!(found(Some("TypeScript"), Some("a.tsx"), b""), "tsx");
        assert_eq!(found(None, Some("a.ts"), b""), "typescript");
    }

    #[test]
    fn a_first_line_names_the_interpreter() {
        for (line, name) in [
            ("#!/usr/bin/python", "python"),
            ("#!/usr/bin/env python3.12\r", "python"),
            ("#! /usr/bin/env -S LANG=C node --harmony", "javascript"),
            ("\u{feff}#!/usr/bin/env deno", "typescript"),
            ("#!/bin/sh", "unknown"),
            ("#!", "unknown"),
            ("#!/usr/bin/env", "unknown"),
        ] {
            assert_eq!(found(None, None, format!("{line}\ndef f(): pass\n").as_bytes()), name, "{line}");
        }
    }

    #[test]
    fn content_tells_its_language_and_other_text_has_none() {
        for (text, name) in [
            ("use std::fmt;\n\npub fn f(x: &str) -> usize { x.len() }\n", "rust"),
            ("import os\n\ndef f(x):\n    return x + 1\n", "python"),
            ("#include <stdio.h>\n\nint main(void) { return puts(\"a\"); }\n", "c"),
            (
                "#include <map>\nnamespace a { template <class T> T f(std::map<int, T> &m) { return m[0]; } }\n",
                "cpp",
            ),
            ("import a from './a';\nexport const f = (x) => ({ ...x, y: 1 });\n", "javascript"),
            (
                "export interface A { b: string; }\nexport function f(a: A): a is A { return true; }\n",
                "typescript",
            ),
            ("export const f = (p: { a: string }) => <b key=\"a\">{p.a} it's</b>;\n", "tsx"),
            ("package a;\n\npublic final class B extends C { private int d() { return 1; } }\n", "java"),
            ("package main\n\nimport \"fmt\"\n\nfunc main() { x := 1; fmt.Println(x) }\n", "go"),
            ("It was a bright cold day in April, and the clocks were striking thirteen.\n", "unknown"),
            ("{\"a\": [1, 2, {\"b\": null}]}\n", "unknown"),
            ("a,b,c\n1,2,3\n", "unknown"),
            ("a: 1\nb:\n  - c\n", "unknown"),
            ("body { color: red; }\n", "unknown"),
            ("<p>Hello, <b>world</b></p>\n", "unknown"),
            ("# Title\n\nSome *text*.\n", "unknown"),
            ("SELECT a FROM b WHERE c = 1;\n", "unknown"),
            ("\0\u{1}\u{2}\u{3}", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(found(None, None, text.as_bytes()), name, "{text}");
        }
    }
}
