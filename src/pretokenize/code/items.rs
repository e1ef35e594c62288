//! From a syntax tree to the items in it, as byte ranges that nest. Knows nothing of segments.

use std::ops::Range;

use tree_sitter::{Node, Tree};

use super::languages::{
    ATTRIBUTES, CLASS, COMMENTS, ENUM, ERROR, FUNCTION, Grammar, IMPL, INTERFACE, Kind, METHOD, Name, Role,
    STRUCT, TRAIT, UNION,
};

/// A function, a type, an import …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// With comments and attributes before it, in whole lines where it does not share them.
    pub(super) bytes: Range<usize>,
    pub(super) kind: &'static str,
    /// Where in the content its name stands.
    pub(super) name: Option<Range<usize>>,
}

/// The items of `content`, in order of their first bytes, each before those inside it.
pub(super) fn items(tree: &Tree, content: &[u8], grammar: &Grammar) -> Vec<Item> {
    let frame = Frame::new(Scope::Module, Closing::Nothing);
    let mut walk = Walk { content, grammar, items: Vec::new(), frame, outer: Vec::new() };
    let mut cursor = tree.walk();
    // A cursor and a stack of our own: hostile code nests deeper than a thread's stack.
    let mut has_node = cursor.goto_first_child();
    while has_node {
        if let Some(frame) = walk.visit(cursor.node()) {
            walk.open(frame);
            if cursor.goto_first_child() {
                continue;
            }
            walk.close();
        }
        has_node = cursor.goto_next_sibling();
        while !has_node && walk.close() {
            cursor.goto_parent();
            has_node = cursor.goto_next_sibling();
        }
    }
    let mut items = walk.items;
    items.retain(|item| !item.kind.is_empty());
    for item in &mut items {
        item.bytes = whole_lines(content, item.bytes.clone());
    }
    items
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Module,
    Type,
}

impl Scope {
    /// What an item of that kind is here, if it is one.
    fn kind(self, kind: &'static str) -> Option<&'static str> {
        match (self, kind) {
            (Scope::Module, _) => Some(kind),
            (Scope::Type, FUNCTION | METHOD) => Some(METHOD),
            (Scope::Type, CLASS | STRUCT | ENUM | UNION | INTERFACE | TRAIT | IMPL) => Some(kind),
            (Scope::Type, _) => None,
        }
    }
}

/// What is to be done after the last child of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    Nothing,
    /// Item of that index is complete.
    Item(usize),
    /// Item of that index takes over from the one inside it.
    Around(usize),
}

/// What is known while the children of a node are gone through.
struct Frame {
    scope: Scope,
    closing: Closing,
    /// Items that are children.
    n_items: usize,
    /// One of them.
    child: Option<usize>,
    /// The last of them, if nothing but what belongs to it came since.
    last: Option<usize>,
    /// First byte of the comments and attributes that were just passed.
    before: Option<usize>,
    /// Whether an attribute is among them.
    has_attribute: bool,
}

impl Frame {
    fn new(scope: Scope, closing: Closing) -> Frame {
        Frame { scope, closing, n_items: 0, child: None, last: None, before: None, has_attribute: false }
    }

    fn passes(&mut self, last: Option<usize>) {
        (self.last, self.before, self.has_attribute) = (last, None, false);
    }
}

struct Walk<'a> {
    content: &'a [u8],
    grammar: &'a Grammar,
    /// Those of kind "" are void.
    items: Vec<Item>,
    frame: Frame,
    /// Of the nodes around.
    outer: Vec<Frame>,
}

impl Walk<'_> {
    fn open(&mut self, frame: Frame) {
        self.outer.push(std::mem::replace(&mut self.frame, frame));
    }

    /// Takes the next node; with a frame back, its children are next.
    fn visit(&mut self, node: Node<'_>) -> Option<Frame> {
        let kind = node.kind();
        if !node.is_named() {
            self.token(node);
            return None;
        }
        if COMMENTS.contains(&kind) {
            self.comment(node);
            return None;
        }
        if ATTRIBUTES.contains(&kind) {
            self.attribute(node);
            return None;
        }
        let scope = self.frame.scope;
        let found = match node.end_byte() > node.start_byte() {
            _ if node.is_error() => Some((&ERROR, None)),
            // A token that is missing is no item.
            false => None,
            true => self.grammar.rules(kind).find_map(|rule| {
                let kind = kind_of(rule.kind, node).and_then(|kind| scope.kind(kind));
                let is_one = kind.is_some() || matches!(rule.role, Role::Around | Role::Through);
                is_one.then_some((rule, kind))
            }),
        };
        let Some((rule, kind)) = found else {
            self.frame.passes(None);
            return None;
        };
        if rule.role == Role::Through {
            // What stands before a block may belong to the first item in it, where the block has no opening token.
            let mut inner = Frame::new(scope, Closing::Nothing);
            (inner.before, inner.has_attribute) = (self.frame.before, self.frame.has_attribute);
            self.frame.passes(None);
            return Some(inner);
        }
        let bytes = self.start(node)..node.end_byte();
        let name = name_of(rule.name, node, self.content);
        let index = self.items.len();
        self.items.push(Item { bytes, kind: kind.unwrap_or_default(), name });
        self.frame.passes(None);
        match rule.role {
            Role::Whole | Role::Through => {
                self.complete(index);
                None
            }
            Role::Module => Some(Frame::new(Scope::Module, Closing::Item(index))),
            Role::Type => Some(Frame::new(Scope::Type, Closing::Item(index))),
            Role::Around => Some(Frame::new(scope, Closing::Around(index))),
        }
    }

    fn complete(&mut self, index: usize) {
        self.frame.n_items += 1;
        self.frame.child = Some(index);
        self.frame.passes(Some(index));
    }

    /// After the last child of a node that was looked into; false if there is no node around.
    fn close(&mut self) -> bool {
        let Some(outer) = self.outer.pop() else { return false };
        let inner = std::mem::replace(&mut self.frame, outer);
        match (inner.closing, inner.child) {
            (Closing::Nothing, _) => {}
            (Closing::Item(index), _) => self.complete(index),
            (Closing::Around(index), Some(child)) if inner.n_items == 1 => {
                let kind = std::mem::take(&mut self.items[child].kind);
                let name = self.items[child].name.take();
                (self.items[index].kind, self.items[index].name) = (kind, name);
                self.complete(index);
            }
            (Closing::Around(index), _) if !self.items[index].kind.is_empty() => {
                self.items.truncate(index + 1);
                self.complete(index);
            }
            (Closing::Around(_), _) => self.frame.n_items += inner.n_items,
        }
        true
    }

    /// A token between items: the end of a statement belongs to it.
    fn token(&mut self, node: Node<'_>) {
        let last = self.frame.last.filter(|_| matches!(node.kind(), ";" | ","));
        if let Some(last) = last {
            self.items[last].bytes.end = node.end_byte();
        }
        self.frame.passes(last);
    }

    fn comment(&mut self, node: Node<'_>) {
        let (content, start) = (self.content, node.start_byte());
        if let Some(last) = self.frame.last {
            // Behind an item, on its last line.
            let end = self.items[last].bytes.end;
            let is_open = end <= start && !content[..end].ends_with(b"\n");
            if is_open && content[end..start].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                self.items[last].bytes.end = node.end_byte();
                return;
            }
        }
        let is_of_file =
            node.child_by_field_name("inner").is_some() || start == 0 && content.starts_with(b"#!");
        if is_of_file {
            self.frame.passes(None);
            return;
        }
        let continues = is_next_line(content, start);
        let frame = &mut self.frame;
        frame.last = None;
        if frame.before.is_none() || !(continues || frame.has_attribute) {
            // Behind something else it says nothing of what follows.
            frame.before = line_start(content, start).map(|_| start);
        }
    }

    fn attribute(&mut self, node: Node<'_>) {
        let start = self.start(node);
        let frame = &mut self.frame;
        (frame.last, frame.before, frame.has_attribute) = (None, Some(start), true);
    }

    /// Where an item begins with what belongs to it.
    fn start(&mut self, node: Node<'_>) -> usize {
        let start = node.start_byte();
        let continues = is_next_line(self.content, start);
        let frame = &mut self.frame;
        frame.before.filter(|_| continues || frame.has_attribute).unwrap_or(start)
    }
}

/// Whether there is no blank line before `at`.
fn is_next_line(content: &[u8], at: usize) -> bool {
    let blank = content[..at].iter().rev().take_while(|byte| byte.is_ascii_whitespace());
    blank.filter(|&&byte| byte == b'\n').take(2).count() < 2
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

/// First byte of the line of `at`, if only blanks are before it there.
fn line_start(content: &[u8], at: usize) -> Option<usize> {
    let start = content[..at].iter().rposition(|&byte| !is_blank(byte)).map_or(0, |at| at + 1);
    match &content[..start] {
        [] | [.., b'\n'] => Some(start),
        b"\xef\xbb\xbf" => Some(0),
        _ => None,
    }
}

/// With the blanks before and behind up to the ends of its lines, where nothing else is on them.
fn whole_lines(content: &[u8], bytes: Range<usize>) -> Range<usize> {
    let start = line_start(content, bytes.start).unwrap_or(bytes.start);
    if content[..bytes.end].ends_with(b"\n") {
        return start..bytes.end;
    }
    let tail = &content[bytes.end..];
    let n_blanks = tail.iter().position(|&byte| !is_blank(byte)).unwrap_or(tail.len());
    match tail.get(n_blanks) {
        Some(b'\n') => start..bytes.end + n_blanks + 1,
        None => start..content.len(),
        Some(_) => start..bytes.end,
    }
}

fn kind_of(kind: Kind, node: Node<'_>) -> Option<&'static str> {
    match kind {
        Kind::None => None,
        Kind::Is(kind) => Some(kind),
        Kind::By(field, cases, otherwise) => {
            let found = node.child_by_field_name(field).map_or("", |child| child.kind());
            cases.iter().find(|(node, _)| *node == found).map(|(_, kind)| *kind).or(otherwise)
        }
        Kind::Declared(otherwise) => {
            if declared(node).is_some_and(|(_, is_function)| is_function) {
                Some(FUNCTION)
            } else {
                otherwise
            }
        }
    }
}

fn name_of(name: Name, node: Node<'_>, content: &[u8]) -> Option<Range<usize>> {
    match name {
        Name::None => None,
        Name::Field(field) => Some(node.child_by_field_name(field)?.byte_range()),
        Name::Span(first, last) => {
            let last = node.child_by_field_name(last)?;
            Some(node.child_by_field_name(first).unwrap_or(last).start_byte()..last.end_byte())
        }
        Name::Declarator => {
            let (name, _) = declared(node)?;
            let end = match name.child_by_field_name("declarator") {
                // `operator bool` of `operator bool() const`.
                Some(parameters) if name.kind() == "operator_cast" => parameters.start_byte(),
                _ => name.end_byte(),
            };
            let text = content.get(name.start_byte()..end)?.trim_ascii_end();
            (!text.is_empty()).then(|| name.start_byte()..name.start_byte() + text.len())
        }
    }
}

/// The name in a C declarator, and whether what it is the name of is a function: `*f(int)` is one, `(*f)(int)` is not.
fn declared(node: Node<'_>) -> Option<(Node<'_>, bool)> {
    let mut node = node.child_by_field_name("declarator")?;
    let mut is_function = false;
    loop {
        let kind = node.kind();
        is_function = match kind {
            "function_declarator" | "operator_cast" => true,
            "parenthesized_declarator" | "attributed_declarator" => is_function,
            _ if kind.ends_with("_declarator") => false,
            _ => is_function,
        };
        let inner = match kind {
            "operator_cast" | "structured_binding_declarator" => None,
            // These hold theirs in no field.
            "reference_declarator" | "parenthesized_declarator" | "attributed_declarator" => {
                let mut cursor = node.walk();
                node.named_children(&mut cursor).find(|child| {
                    !COMMENTS.contains(&child.kind())
                        && !matches!(child.kind(), "ms_call_modifier" | "attribute_declaration")
                })
            }
            _ => node.child_by_field_name("declarator"),
        };
        match inner {
            Some(inner) => node = inner,
            None => return Some((node, is_function)),
        }
    }
}
