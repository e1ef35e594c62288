//! Code written as the segments that it is cut into: what is expected is also what is given.

use super::*;

/// Time that no test takes.
const MINUTES: Duration = Duration::from_secs(600);

/// Kind, name ("" for none) and text.
type Piece<'a> = (&'a str, &'a str, &'a str);

fn view(language: Option<Language>, content: Content) -> View {
    let mut views =
        Code::new(&PretokenizeCode { language }, 1 << 30, MINUTES).views(content.clone()).unwrap();
    let view = views.pop().unwrap();
    assert!(views.is_empty());
    assert_eq!((view.modality, &view.name, &view.bytes), ("code", &None, &content.bytes));
    let mut at = 0;
    for segment in &view.segments {
        assert_eq!(segment.bytes.start, at);
        assert!(segment.bytes.end > at);
        at = segment.bytes.end;
    }
    assert_eq!(at, content.bytes.len() as u64);
    view
}

fn meta(segment: &Segment) -> serde_json::Value {
    serde_json::from_str(segment.meta.as_ref().unwrap()).unwrap()
}

#[track_caller]
fn check(language: Language, pieces: &[Piece]) {
    let code: String = pieces.iter().map(|(.., text)| *text).collect();
    let view = view(Some(language), Content { bytes: code.clone().into_bytes(), ..Content::default() });
    let found: Vec<_> = view
        .segments
        .iter()
        .map(|segment| {
            let text = &code[segment.bytes.start as usize..segment.bytes.end as usize];
            (segment.kind, meta(segment)["name"].as_str().unwrap_or("").to_owned(), text)
        })
        .collect();
    let expected: Vec<_> = pieces.iter().map(|&(kind, name, text)| (kind, name.to_owned(), text)).collect();
    assert_eq!(found, expected);
}

#[test]
fn rust_code_is_cut_at_its_items_and_methods() {
    check(
        Language::Rust,
        &[
            ("rest", "", "//! About the file.\n#![allow(dead_code)]\n\n"),
            ("import", "", "use std::fmt;\nuse std::io;\n"),
            ("rest", "", "\n"),
            ("import", "", "extern crate core;\n"),
            ("constant", "N", "const N: usize = 1; // one\n"),
            ("rest", "", "\n"),
            (
                "struct",
                "A",
                "/// Of two lines,\n/// this is the second.\n#[derive(Debug)]\n\n// Still with it.\npub struct A {\n    b: u8,\n}\n",
            ),
            ("rest", "", "\n// Alone.\n\n"),
            ("enum", "E", "enum E { F }"),
            ("rest", "", " "),
            ("union", "U", "union U { g: u8 }\n"),
            ("rest", "fmt::Display for A", "impl fmt::Display for A {\n    const H: u8 = 1;\n\n"),
            (
                "method",
                "fmt",
                "    /// Writes it.\n    #[inline]\n    fn fmt(&self) -> R {\n        fn inner() {}\n    }\n",
            ),
            ("rest", "", "\n    // Nothing follows.\n}\n"),
            ("rest", "T", "trait T: Sized {\n    type I;\n"),
            ("method", "a", "    fn a();\n"),
            ("method", "b", "    fn b() {}\n"),
            ("rest", "", "}\n\n"),
            ("impl", "A", "impl<'a> A {}\n"),
            ("macro", "m", "macro_rules! m { () => {} }\n"),
            ("type", "X", "type X = u8;\n"),
            ("rest", "", "m!();\nextern \"C\" {\n"),
            ("function", "c", "    fn c();\n"),
            ("rest", "", "}\n"),
            ("module", "d", "mod d;\n"),
            ("rest", "tests", "#[cfg(test)]\nmod tests {\n"),
            ("import", "", "    use super::*;\n"),
            ("rest", "", "\n"),
            ("function", "t", "    #[test]\n    fn t() {}\n"),
            ("rest", "", "}\n"),
        ],
    );
}

#[test]
fn python_code_is_cut_at_its_items_and_methods() {
    check(
        Language::Python,
        &[
            ("rest", "", "#!/usr/bin/env python\n\"\"\"About the file.\"\"\"\n\n"),
            ("import", "", "from __future__ import annotations\nimport os\nfrom a import (\n    b,\n)\n"),
            ("rest", "", "\nN = 1\n\n"),
            (
                "function",
                "f",
                "# Before it.\n@a\n@b(1)\nasync def f(x):\n    def inner():\n        pass\n    return x\n",
            ),
            ("rest", "", "\n\n"),
            ("rest", "C", "@a\nclass C(B):\n    \"\"\"Text.\"\"\"\n\n    n = 1\n\n"),
            ("method", "__init__", "    def __init__(self):\n        pass\n"),
            ("rest", "", "\n"),
            ("method", "g", "    @property\n    def g(self):\n        return 1  # one\n"),
            ("rest", "", "\n"),
            ("rest", "D", "    class D:  # Of the class.\n"),
            ("method", "h", "        # First.\n        def h(self): pass\n"),
            ("rest", "", "\ntry:\n"),
            ("import", "", "    import json\n"),
            ("rest", "", "except ImportError:\n    json = None\nif N:\n"),
            ("function", "k", "    def k(): ...\n"),
            ("rest", "", "else:\n"),
            ("class", "L", "    class L: x = 1\n"),
            ("type", "P", "type P = int\n"),
            ("rest", "", "print(1)"),
        ],
    );
}

#[test]
fn c_code_is_cut_at_its_items() {
    check(
        Language::C,
        &[
            ("rest", "", "/* About the file. */\n\n#ifndef A_H\n"),
            ("macro", "A_H", "#define A_H\n"),
            ("import", "", "#include <stdio.h>\n#include \"b.h\"\n"),
            ("macro", "MAX", "#define MAX(a, b) \\\n    ((a) > (b) ? (a) : (b))\n"),
            ("rest", "", "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"),
            ("struct", "s", "/** A pair. */\nstruct s {\n    int a, b;\n};\n"),
            ("struct", "pair", "typedef struct { int a; } pair;\n"),
            ("type", "fn", "typedef int (*fn)(void);\n"),
            ("enum", "e", "enum e { X, Y };\n"),
            ("union", "u", "union u { int i; float f; };\n"),
            ("function", "f", "static char *f(const char *, int (*g)(void)); // declared\n"),
            ("variable", "h", "int (*h)(int) = 0;\n"),
            ("variable", "table", "static const int table[] = { 1, 2 };\n"),
            ("rest", "", "\n"),
            (
                "function",
                "main",
                "int\nmain(int argc, char **argv)\n{\n    struct s local;\n    return 0;\n}\n",
            ),
            ("rest", "", "\n#ifdef __cplusplus\n}\n#endif\n#endif\n"),
        ],
    );
}

#[test]
fn cpp_code_is_cut_at_its_items_and_methods() {
    check(
        Language::Cpp,
        &[
            ("import", "", "#include <map>\nusing namespace std;\n"),
            ("rest", "a::b", "namespace a::b {\n\n"),
            (
                "rest",
                "C",
                "// A class.\ntemplate <class T>\nclass C : public B {\n  public:\n    int n = 0;\n",
            ),
            ("method", "C", "    explicit C(int n) : n(n) {}\n"),
            ("method", "~C", "    virtual ~C() = default;\n"),
            ("method", "size", "    int size() const;\n"),
            ("method", "operator bool", "    operator bool() const { return n; }\n"),
            ("method", "operator[]", "    T &operator[](int i) { return x[i]; }\n"),
            ("method", "g", "    template <class U>\n    U g();\n"),
            ("rest", "D", "    struct D {\n"),
            ("method", "h", "        void h() {}\n"),
            ("rest", "", "    };\n};\n\n"),
            ("enum", "E", "enum class E : int { X };\n"),
            ("type", "P", "using P = int *;\n"),
            ("type", "Q", "template <class T> concept Q = true;\n"),
            ("function", "C<T>::size", "template <class T>\nint C<T>::size() const { return n; }\n"),
            ("struct", "S", "template <class T> struct S { T t; };\n"),
            ("rest", "", "\n} // namespace a::b\n\n"),
            ("function", "k", "extern \"C\" void k(int &r);\n"),
            ("rest", "", "extern \"C\" {\n"),
            ("function", "l", "int &l();\n"),
            ("rest", "", "}\n"),
        ],
    );
}

#[test]
fn javascript_code_is_cut_at_its_items_and_methods() {
    check(
        Language::JavaScript,
        &[
            ("rest", "", "'use strict';\n\n"),
            ("import", "", "import a from 'a';\nimport { b } from './b';\n"),
            ("variable", "c", "const c = require('c');\n"),
            ("variable", "", "let d = 1, e = 2;\n"),
            ("rest", "", "\n"),
            ("function", "f", "/** Adds. */\nexport async function f(x) {\n  return x;\n}\n"),
            ("function", "g", "export const g = (x) => <b className=\"y\">{x}</b>;\n"),
            ("function", "h", "function* h() {}\n"),
            ("function", "module.exports.k", "module.exports.k = function () {};\n"),
            ("rest", "A", "@decorated\nexport default class A extends B {\n  n = 1;\n"),
            ("method", "#p", "  #p = () => {};\n"),
            ("method", "constructor", "  constructor() { super(); }\n"),
            ("rest", "", "\n"),
            ("method", "m", "  // Of the class.\n  static async m() {}\n"),
            ("rest", "", "}\n(function () { var x; })();\nexport { c };\n"),
            ("function", "", "export default () => 1"),
        ],
    );
}

const TYPESCRIPT: &[Piece] = &[
    ("import", "", "import type { A } from './a';\nimport b = require('b');\n"),
    ("rest", "C", "export interface C extends A {\n  n: number;\n"),
    ("method", "m", "  m(x: string): void;\n"),
    ("rest", "", "}\n"),
    ("interface", "I", "interface I { n?: number }\n"),
    ("type", "T", "export type T<X> = { x: X };\n"),
    ("enum", "E", "declare const enum E { F }\n"),
    ("function", "f", "function f(x: string): string;\n"),
    ("function", "f", "function f(x: any) { return x as string; }\n"),
    ("rest", "D", "export abstract class D<T> {\n  private n: number = 1;\n"),
    ("method", "a", "  abstract a(): void;\n"),
    ("method", "g", "  @bound() public g = (): void => {};\n"),
    ("method", "h", "  @bound()\n  h(): void {}\n"),
    ("rest", "", "}\n"),
    ("rest", "N", "namespace N {\n"),
    ("function", "k", "  export function k() {}\n"),
    ("rest", "", "}\n"),
    ("rest", "'m'", "declare module 'm' {\n"),
    ("variable", "v", "  const v: string;\n"),
    ("rest", "", "}\n"),
];

#[test]
fn typescript_code_is_cut_at_its_items_and_methods() {
    check(Language::TypeScript, TYPESCRIPT);
    check(Language::TypeScript, &[("variable", "a", "const a = <string>b;\n")]);
}

#[test]
fn tsx_code_is_cut_at_its_items_and_methods() {
    check(Language::Tsx, TYPESCRIPT);
    check(Language::Tsx, &[("function", "G", "const G = (p: { a: string }) => <b>{p.a}</b>;\n")]);
}

#[test]
fn java_code_is_cut_at_its_items_and_methods() {
    check(
        Language::Java,
        &[
            ("rest", "", "package a.b;\n\n"),
            ("import", "", "import java.util.List;\nimport static java.lang.Math.*;\n"),
            ("rest", "", "\n"),
            (
                "rest",
                "A",
                "/** A class. */\n@Deprecated\npublic final class A<T> extends B implements C {\n    private int n;\n\n",
            ),
            ("method", "A", "    public A() {}\n"),
            ("rest", "", "\n"),
            (
                "method",
                "get",
                "    /** Gets. */\n    @Override\n    public <X> List<X> get(int i) throws E { return null; }\n",
            ),
            ("rest", "", "    static { }\n"),
            ("rest", "D", "    interface D {\n"),
            ("method", "f", "        void f();\n"),
            ("rest", "", "    }\n}\n"),
            ("rest", "E", "enum E {\n    X, Y;\n"),
            ("method", "g", "    int g() { return 1; }\n"),
            ("rest", "", "}\n"),
            ("enum", "F", "enum F { X }\n"),
            ("class", "R", "record R(int x) {}\n"),
            ("rest", "N", "@interface N { "),
            ("method", "value", "int value();"),
            ("rest", "", " }\n"),
        ],
    );
}

#[test]
fn go_code_is_cut_at_its_items_and_methods() {
    check(
        Language::Go,
        &[
            ("rest", "", "// Package a is one.\npackage a\n\n"),
            ("import", "", "import (\n\t\"fmt\"\n)\n"),
            ("rest", "", "\n"),
            ("constant", "", "const (\n\tA = iota\n\tB\n)\n"),
            ("constant", "C", "const C = 1 // one\n"),
            ("variable", "", "var (\n\td = 1\n)\n"),
            ("variable", "e", "var e int\n"),
            ("rest", "", "\n"),
            ("struct", "S", "// S is one.\ntype S struct {\n\tn int\n}\n"),
            ("rest", "I", "type I interface {\n"),
            ("method", "F", "\tF(x int) error\n"),
            ("rest", "", "}\n\ntype (\n"),
            ("type", "T", "\tT int\n"),
            ("type", "U", "\tU = string\n"),
            ("rest", "", ")\n\n"),
            ("function", "f", "func f[X any](x X) X { return x }\n"),
            ("method", "Get", "// Get gets.\nfunc (s *S) Get() int {\n\treturn s.n\n}\n"),
        ],
    );
}

#[test]
fn meta_is_as_documented() {
    let code = "# \"a\"\n\ndef f():\n    pass\n\nclass A:\n    def g(self): pass\n    x";
    let view = view(Some(Language::Python), Content { bytes: code.into(), ..Content::default() });
    let metas: Vec<_> = view.segments.iter().map(|segment| segment.meta.as_deref().unwrap()).collect();
    assert_eq!(
        metas,
        [
            r#"{"language":"python","lines":[1,2]}"#,
            r#"{"name":"f","language":"python","lines":[3,4]}"#,
            r#"{"language":"python","lines":[5,5]}"#,
            r#"{"name":"A","language":"python","lines":[6,6]}"#,
            r#"{"name":"g","language":"python","lines":[7,7]}"#,
            r#"{"language":"python","lines":[8,8]}"#,
        ]
    );
    let code = "declare module \"a\\\"\t\" { }";
    let view = self::view(Some(Language::TypeScript), Content { bytes: code.into(), ..Content::default() });
    assert_eq!(
        view.segments[0].meta.as_deref(),
        Some(r#"{"name":"\"a\\\"\t\"","language":"typescript","lines":[1,1]}"#)
    );
}

#[test]
fn segments_that_share_a_line_both_name_it() {
    let view =
        view(Some(Language::Rust), Content { bytes: "fn a() {} fn b() {\n}".into(), ..Content::default() });
    let lines: Vec<_> = view.segments.iter().map(|segment| meta(segment)["lines"].to_string()).collect();
    assert_eq!(lines, ["[1,1]", "[1,1]", "[1,2]"]);
}

#[test]
fn no_code_is_a_document_of_no_bytes() {
    for language in [None, Some(Language::Go)] {
        assert!(view(language, Content::default()).segments.is_empty());
    }
}

#[test]
fn a_language_that_is_not_known_is_all_rest() {
    let content = |language: &str| Content {
        bytes: b"fn a() {}\nx".to_vec(),
        language: Some(language.into()),
        path: None,
    };
    let rest = |meta: &str| [Segment { kind: "rest", bytes: 0..11, meta: Some(meta.to_owned()) }];
    assert_eq!(view(None, content("Ru\"by")).segments, rest(r#"{"language":"Ru\"by","lines":[1,2]}"#));
    assert_eq!(view(None, content(&"x".repeat(1000))).segments, rest(r#"{"language":null,"lines":[1,2]}"#));
    let text = Content { bytes: b"It rained.\n".to_vec(), path: Some("a.txt".into()), language: None };
    assert_eq!(view(None, text).segments[0].meta.as_deref(), Some(r#"{"language":null,"lines":[1,1]}"#));
}

#[test]
fn headers_are_c_unless_they_parse_better_as_cpp() {
    let language = |code: &str| {
        let content = Content { bytes: code.into(), path: Some("a.h".into()), language: None };
        meta(&view(None, content).segments[0])["language"].as_str().unwrap().to_owned()
    };
    assert_eq!(language("int f(int class);\n"), "c");
    assert_eq!(language("namespace a { class B; }\n"), "cpp");
    assert_eq!(language("int f(;\n"), "c");
}

#[test]
fn what_looks_like_typescript_may_be_tsx() {
    let content =
        Content { bytes: "const a = <b>it's</b>;\n".into(), language: Some("TypeScript".into()), path: None };
    assert_eq!(meta(&view(None, content).segments[0])["language"], "tsx");
}

#[test]
fn items_around_a_syntax_error_are_found() {
    let code = "fn a() {}\n\nfn b( {\n\nfn c() {}\n";
    let view = view(Some(Language::Rust), Content { bytes: code.into(), ..Content::default() });
    assert_eq!((view.segments[0].kind, view.segments[0].bytes.clone()), ("function", 0..10));
}

#[test]
fn line_ends_and_marks_of_other_systems_stay_with_their_lines() {
    check(
        Language::C,
        &[
            ("import", "", "\u{feff}#include <a.h>\r\n#include <b.h>\r\n"),
            ("rest", "", "\r\n"),
            ("function", "f", "// f\r\nint f(void)\r\n{\r\n}  \r\n"),
            ("variable", "x", "\tint x;\t"),
        ],
    );
}

#[test]
fn names_that_are_long_or_no_utf8_are_left_out() {
    let code = format!("int {}(void) {{}}\n", "a".repeat(MAX_NAME_BYTES + 1));
    let segment = &view(Some(Language::C), Content { bytes: code.into(), ..Content::default() }).segments[0];
    assert_eq!(
        (segment.kind, segment.meta.as_deref()),
        ("function", Some(r#"{"language":"c","lines":[1,1]}"#))
    );
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    for content in [
        &b"fn a() {}\n\0\xff\xfe\0fn b() {}\n"[..],
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"\r",
        b"\n",
        b" ",
    ] {
        for grammar in &languages::GRAMMARS {
            view(Some(grammar.language), Content { bytes: content.to_vec(), ..Content::default() });
        }
        view(None, Content { bytes: content.to_vec(), ..Content::default() });
    }
}

#[test]
fn a_document_over_the_limit_is_refused() {
    let code = Code::new(&PretokenizeCode::default(), 3, MINUTES);
    let content = |bytes: &[u8]| Content { bytes: bytes.to_vec(), ..Content::default() };
    assert!(code.views(content(b"abc")).is_ok());
    assert_eq!(code.views(content(b"abcd")), Err(too_long_decoded(4, 3)));
    assert_eq!(code.needs(&content(b"abcd")).views, 4);
}

#[test]
fn a_parse_that_does_not_come_to_an_end_is_given_up() {
    let code =
        Code::new(&PretokenizeCode { language: Some(Language::Rust) }, 1 << 30, Duration::from_secs(1));
    let started = Instant::now();
    let content = Content { bytes: b")*".repeat(4000), ..Content::default() };
    assert_eq!(code.views(content), Err("decoding took longer than pretokenize.row_seconds = 1".into()));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Highest resident memory of a process that tiles so many bytes of it, less that of one that tiles a single one, with 3 operations a
/// byte; today's bound is lower.
#[test]
fn memory_is_set_aside_for_what_is_not_code_too() {
    let code = Code::new(&PretokenizeCode::default(), 1 << 30, MINUTES);
    for (n_bytes, unit, measured) in [
        (300_000, "a::", 275_000_000), // as C
        (100_000, "a<", 89_354_240),   // as C++
        (20_000, "a(a(a(}[", 20_017_152),
        (8_000, ";-:?", 51_884_032),
        (4_000, "{[a=>async -", 74_571_776), // as Java
    ] {
        let mut bytes = unit.repeat(n_bytes).into_bytes();
        bytes.truncate(n_bytes);
        let overhead = code.needs(&Content { bytes, ..Content::default() }).beside;
        assert!(overhead >= measured, "{n_bytes} of {unit}: {overhead}");
    }
    let overhead = |n_bytes| code.needs(&Content { bytes: vec![b'a'; n_bytes], ..Content::default() }).beside;
    assert_eq!(overhead(0), 0);
    assert!(overhead(tree::MAX_PARSED_BYTES) < 5 << 28);
    // What is not parsed takes nothing, but its head may be, to find out its language.
    assert_eq!(overhead(tree::MAX_PARSED_BYTES + 1), overhead(find::HEAD_BYTES));
}

/// Trees nest as deep as brackets do, and this thread's stack is small.
#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let check = || {
        for grammar in &languages::GRAMMARS {
            for (open, n) in
                [("(", 100_000), ("{[", 100_000), ("a<", 20_000), ("if a:\n ", 10_000), ("- !", 20_000)]
            {
                let bytes = open.repeat(n).into_bytes();
                view(Some(grammar.language), Content { bytes, ..Content::default() });
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn what_takes_more_than_code_does_is_all_rest() {
    for (language, unit, n) in [
        // The last 20 kB of it take a gigabyte.
        (Language::Java, "a<", 200_000),
        // All ways to read what stands before the end would take 200 MB.
        (Language::Cpp, ";-:?", 5_000),
        // Each is looked for the end of.
        (Language::JavaScript, "/*a", 100_000),
        (Language::Rust, "fn a() {}\n", tree::MAX_PARSED_BYTES / 10 + 1),
        (Language::C, "(", 32 << 20),
    ] {
        let view = view(Some(language), Content { bytes: unit.repeat(n).into_bytes(), ..Content::default() });
        assert_eq!((view.segments.len(), view.segments[0].kind), (1, "rest"), "{unit}");
    }
}

#[test]
fn deep_modules_are_cut_at_every_depth() {
    let n = 2000;
    let code = "mod a {\n".repeat(n) + &"}\n".repeat(n);
    let view = view(Some(Language::Rust), Content { bytes: code.into(), ..Content::default() });
    assert_eq!(view.segments.len(), n + 1);
    assert_eq!((view.segments[n - 1].kind, view.segments[n].kind), ("module", "rest"));
}

#[test]
fn damaged_code_tiles_and_gives_the_same_twice() {
    let mut random = 6u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    let good: String = TYPESCRIPT.iter().map(|(.., text)| *text).collect();
    let c =
        "#if A\nstruct a { int b; } c; // d\n#endif\n@e\nclass F:\n  def g(): pass\nimpl H { fn i() {} }\n";
    for round in 0..300 {
        let mut bytes = if round % 2 == 0 { good.as_bytes().to_vec() } else { c.as_bytes().to_vec() };
        bytes.truncate(bytes.len() - next(bytes.len()) * (round % 3) / 3);
        for _ in 0..next(8) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes.insert(at, b"(){}[]<>;:,\"'`\n\t\0#/*"[next(20)]),
                _ => drop(bytes.drain(at..(at + next(6)).min(bytes.len()))),
            }
            bytes.push(b'\n');
        }
        let language = languages::GRAMMARS[next(9)].language;
        let content = Content { bytes, ..Content::default() };
        assert_eq!(view(Some(language), content.clone()), view(Some(language), content));
    }
}
