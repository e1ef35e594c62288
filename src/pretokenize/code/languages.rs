//! What the syntax trees of each programming language call the things that become segments. A language is one entry of `GRAMMARS` and one
//! crate. Knows nothing of documents.

use crate::config::Language;

pub(super) const FUNCTION: &str = "function";
pub(super) const METHOD: &str = "method";
pub(super) const CLASS: &str = "class";
pub(super) const STRUCT: &str = "struct";
pub(super) const ENUM: &str = "enum";
pub(super) const UNION: &str = "union";
pub(super) const INTERFACE: &str = "interface";
pub(super) const TRAIT: &str = "trait";
pub(super) const IMPL: &str = "impl";
pub(super) const MODULE: &str = "module";
pub(super) const MACRO: &str = "macro";
pub(super) const CONSTANT: &str = "constant";
pub(super) const VARIABLE: &str = "variable";
pub(super) const TYPE: &str = "type";
pub(super) const IMPORT: &str = "import";
/// What is in no item.
pub(super) const REST: &str = "rest";

/// Nodes that belong to the item after them: on the line before it, or above others that are.
pub(super) const COMMENTS: [&str; 3] = ["comment", "line_comment", "block_comment"];
/// Nodes that belong to the item after them wherever they stand.
pub(super) const ATTRIBUTES: [&str; 2] = ["attribute_item", "decorator"];

/// A language and how its syntax trees are read.
pub(super) struct Grammar {
    pub(super) language: Language,
    /// In meta; as in a pipeline file.
    pub(super) name: &'static str,
    /// What columns of data sets call it, lowercase.
    pub(super) aliases: &'static [&'static str],
    /// Of paths, lowercase.
    pub(super) endings: &'static [&'static str],
    /// Programs that a first line with `#!` runs it with, up to their version.
    pub(super) interpreters: &'static [&'static str],
    pub(super) load: fn() -> tree_sitter::Language,
    rules: &'static [&'static [Rule]],
}

impl Grammar {
    pub(super) fn of(language: Language) -> &'static Grammar {
        // The order of the table is that of the enum; a test holds them together.
        &GRAMMARS[language as usize]
    }

    /// The first that makes something of a node counts. Nodes without one are not looked into.
    pub(super) fn rules(&self, node: &str) -> impl Iterator<Item = &'static Rule> {
        self.rules.iter().copied().flatten().filter(move |rule| rule.node == node)
    }
}

/// What a node is.
pub(super) struct Rule {
    node: &'static str,
    pub(super) role: Role,
    pub(super) kind: Kind,
    pub(super) name: Name,
}

/// What is looked for inside a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An item in one piece.
    Whole,
    /// An item that holds others of all kinds.
    Module,
    /// An item whose functions are methods, and whose other parts are no items unless they are types.
    Type,
    /// Something around one item, which then reaches as far as it does. Around none or several it is an item itself if it has a
    /// kind, and else no more than `Through`.
    Around,
    /// No item, but items may be in it.
    Through,
}

/// How the kind of an item is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    None,
    Is(&'static str),
    /// By the node in a field; if it is none of these, the last, and `None` is no item.
    By(&'static str, &'static [(&'static str, &'static str)], Option<&'static str>),
    /// A function if that is what a C declarator declares, else this.
    Declared(Option<&'static str>),
}

/// Where the name of an item stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    None,
    /// In a field.
    Field(&'static str),
    /// From the first field, where it is there, to the end of the second.
    Span(&'static str, &'static str),
    /// In a C declarator.
    Declarator,
}

const NAME: Name = Name::Field("name");

const fn whole(node: &'static str, kind: &'static str, name: Name) -> Rule {
    Rule { node, role: Role::Whole, kind: Kind::Is(kind), name }
}

const fn whole_by(node: &'static str, kind: Kind, name: Name) -> Rule {
    Rule { node, role: Role::Whole, kind, name }
}

const fn module(node: &'static str) -> Rule {
    Rule { node, role: Role::Module, kind: Kind::Is(MODULE), name: NAME }
}

const fn members(node: &'static str, kind: &'static str) -> Rule {
    members_by(node, Kind::Is(kind))
}

const fn members_by(node: &'static str, kind: Kind) -> Rule {
    Rule { node, role: Role::Type, kind, name: NAME }
}

const fn around(node: &'static str, kind: Kind) -> Rule {
    Rule { node, role: Role::Around, kind, name: Name::None }
}

const fn through(node: &'static str) -> Rule {
    Rule { node, role: Role::Through, kind: Kind::None, name: Name::None }
}

/// What a syntax error is.
pub(super) static ERROR: Rule = through("ERROR");

pub(super) static GRAMMARS: [Grammar; 9] = [
    Grammar {
        language: Language::Rust,
        name: "rust",
        aliases: &["rust", "rs"],
        endings: &["rs"],
        interpreters: &["rust-script"],
        load: || tree_sitter_rust::LANGUAGE.into(),
        rules: &[&RUST],
    },
    Grammar {
        language: Language::Python,
        name: "python",
        aliases: &["python", "python3", "python2", "py", "python 3", "python 2"],
        endings: &["py", "pyi", "pyw"],
        interpreters: &["python", "pypy"],
        load: || tree_sitter_python::LANGUAGE.into(),
        rules: &[&PYTHON],
    },
    Grammar {
        language: Language::C,
        name: "c",
        aliases: &["c", "ansi c", "c89", "c99", "c11"],
        endings: &["c", "h"],
        interpreters: &["tcc"],
        load: || tree_sitter_c::LANGUAGE.into(),
        rules: &[&C],
    },
    Grammar {
        language: Language::Cpp,
        name: "cpp",
        aliases: &["c++", "cpp", "cxx", "cc", "cplusplus", "hpp"],
        endings: &["cpp", "cc", "cxx", "c++", "hpp", "hh", "hxx", "h++", "ipp", "tpp", "tcc", "inl"],
        interpreters: &[],
        load: || tree_sitter_cpp::LANGUAGE.into(),
        rules: &[&CPP, &C],
    },
    Grammar {
        language: Language::JavaScript,
        name: "javascript",
        aliases: &[
            "javascript",
            "js",
            "jsx",
            "ecmascript",
            "javascriptreact",
            "node",
            "nodejs",
            "node.js",
            "mjs",
            "cjs",
        ],
        endings: &["js", "mjs", "cjs", "jsx"],
        interpreters: &["node", "nodejs"],
        load: || tree_sitter_javascript::LANGUAGE.into(),
        rules: &[&JAVASCRIPT],
    },
    Grammar {
        language: Language::TypeScript,
        name: "typescript",
        aliases: &["typescript", "ts"],
        endings: &["ts", "mts", "cts"],
        interpreters: &["deno", "ts-node", "bun"],
        load: || tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
        rules: &[&TYPESCRIPT, &JAVASCRIPT],
    },
    Grammar {
        language: Language::Tsx,
        name: "tsx",
        aliases: &["tsx", "typescriptreact"],
        endings: &["tsx"],
        interpreters: &["tsx"],
        load: || tree_sitter_typescript::LANGUAGE_TSX.into(),
        rules: &[&TYPESCRIPT, &JAVASCRIPT],
    },
    Grammar {
        language: Language::Java,
        name: "java",
        aliases: &["java"],
        endings: &["java"],
        interpreters: &["java"],
        load: || tree_sitter_java::LANGUAGE.into(),
        rules: &[&JAVA],
    },
    Grammar {
        language: Language::Go,
        name: "go",
        aliases: &["go", "golang"],
        endings: &["go"],
        interpreters: &[],
        load: || tree_sitter_go::LANGUAGE.into(),
        rules: &[&GO],
    },
];

static RUST: [Rule; 17] = [
    whole("function_item", FUNCTION, NAME),
    whole("function_signature_item", FUNCTION, NAME),
    whole("struct_item", STRUCT, NAME),
    whole("enum_item", ENUM, NAME),
    whole("union_item", UNION, NAME),
    whole("type_item", TYPE, NAME),
    whole("const_item", CONSTANT, NAME),
    whole("static_item", CONSTANT, NAME),
    whole("macro_definition", MACRO, NAME),
    whole("use_declaration", IMPORT, Name::None),
    whole("extern_crate_declaration", IMPORT, Name::None),
    members("trait_item", TRAIT),
    // `Display for Patch`, or `Patch` alone.
    Rule { node: "impl_item", role: Role::Type, kind: Kind::Is(IMPL), name: Name::Span("trait", "type") },
    module("mod_item"),
    through("foreign_mod_item"),
    through("declaration_list"),
    through("expression_statement"),
];

static PYTHON: [Rule; 15] = [
    whole("function_definition", FUNCTION, NAME),
    whole("import_statement", IMPORT, Name::None),
    whole("import_from_statement", IMPORT, Name::None),
    whole("future_import_statement", IMPORT, Name::None),
    whole("type_alias_statement", TYPE, Name::Field("left")),
    members("class_definition", CLASS),
    around("decorated_definition", Kind::None),
    // Functions are often made in one of several ways: `if sys.platform == …`, `try: import …`.
    through("if_statement"),
    through("elif_clause"),
    through("else_clause"),
    through("try_statement"),
    through("except_clause"),
    through("finally_clause"),
    through("with_statement"),
    through("block"),
];

/// Those that are declared elsewhere are no items, and no part of a field's type.
const WITH_BODY_STRUCT: Kind = Kind::By("body", &[("field_declaration_list", STRUCT)], None);
const WITH_BODY_UNION: Kind = Kind::By("body", &[("field_declaration_list", UNION)], None);
const C_TYPES: Kind = Kind::By(
    "type",
    &[
        ("struct_specifier", STRUCT),
        ("union_specifier", UNION),
        ("enum_specifier", ENUM),
        ("class_specifier", CLASS),
    ],
    Some(TYPE),
);

static C: [Rule; 16] = [
    whole("function_definition", FUNCTION, Name::Declarator),
    whole_by("declaration", Kind::Declared(Some(VARIABLE)), Name::Declarator),
    whole_by("struct_specifier", WITH_BODY_STRUCT, NAME),
    whole_by("union_specifier", WITH_BODY_UNION, NAME),
    whole_by("enum_specifier", Kind::By("body", &[("enumerator_list", ENUM)], None), NAME),
    whole_by("type_definition", C_TYPES, Name::Declarator),
    whole("preproc_def", MACRO, NAME),
    whole("preproc_function_def", MACRO, NAME),
    whole("preproc_include", IMPORT, Name::None),
    // `extern "C"` before one declaration or a block.
    around("linkage_specification", Kind::None),
    through("declaration_list"),
    through("preproc_if"),
    through("preproc_ifdef"),
    through("preproc_else"),
    through("preproc_elif"),
    through("preproc_elifdef"),
];

static CPP: [Rule; 11] = [
    members_by("class_specifier", Kind::By("body", &[("field_declaration_list", CLASS)], None)),
    members_by("struct_specifier", WITH_BODY_STRUCT),
    members_by("union_specifier", WITH_BODY_UNION),
    module("namespace_definition"),
    around("template_declaration", Kind::None),
    whole_by("field_declaration", Kind::Declared(None), Name::Declarator),
    // Types inside types.
    around("field_declaration", Kind::None),
    whole("alias_declaration", TYPE, NAME),
    whole("concept_definition", TYPE, NAME),
    whole("using_declaration", IMPORT, Name::None),
    through("field_declaration_list"),
];

const CALLABLES: &[(&str, &str)] = &[
    ("arrow_function", FUNCTION),
    ("function_expression", FUNCTION),
    ("generator_function", FUNCTION),
    ("class", CLASS),
];

static JAVASCRIPT: [Rule; 18] = [
    whole("function_declaration", FUNCTION, NAME),
    whole("generator_function_declaration", FUNCTION, NAME),
    whole("method_definition", FUNCTION, NAME),
    // `export default` of one without a name.
    whole("function_expression", FUNCTION, NAME),
    whole("generator_function", FUNCTION, NAME),
    whole("arrow_function", FUNCTION, Name::None),
    members("class", CLASS),
    members("class_declaration", CLASS),
    whole_by("field_definition", Kind::By("value", CALLABLES, None), Name::Field("property")),
    whole_by("variable_declarator", Kind::By("value", CALLABLES, Some(VARIABLE)), NAME),
    // `module.exports.parse = function …`
    whole_by("assignment_expression", Kind::By("right", CALLABLES, None), Name::Field("left")),
    whole("import_statement", IMPORT, Name::None),
    around("lexical_declaration", Kind::Is(VARIABLE)),
    around("variable_declaration", Kind::Is(VARIABLE)),
    around("export_statement", Kind::None),
    around("expression_statement", Kind::None),
    through("class_body"),
    through("statement_block"),
];

static TYPESCRIPT: [Rule; 13] = [
    whole("function_signature", FUNCTION, NAME),
    whole("method_signature", FUNCTION, NAME),
    whole("abstract_method_signature", FUNCTION, NAME),
    whole("enum_declaration", ENUM, NAME),
    whole("type_alias_declaration", TYPE, NAME),
    whole("import_alias", IMPORT, Name::None),
    whole_by("public_field_definition", Kind::By("value", CALLABLES, None), NAME),
    members("abstract_class_declaration", CLASS),
    members("interface_declaration", INTERFACE),
    module("internal_module"),
    module("module"),
    around("ambient_declaration", Kind::None),
    through("interface_body"),
];

static JAVA: [Rule; 16] = [
    whole("method_declaration", FUNCTION, NAME),
    whole("constructor_declaration", FUNCTION, NAME),
    whole("compact_constructor_declaration", FUNCTION, NAME),
    whole("annotation_type_element_declaration", FUNCTION, NAME),
    whole("import_declaration", IMPORT, Name::None),
    whole("module_declaration", MODULE, NAME),
    members("class_declaration", CLASS),
    members("record_declaration", CLASS),
    members("enum_declaration", ENUM),
    members("interface_declaration", INTERFACE),
    members("annotation_type_declaration", INTERFACE),
    through("class_body"),
    through("interface_body"),
    through("enum_body"),
    through("enum_body_declarations"),
    through("annotation_type_body"),
];

static GO: [Rule; 12] = [
    whole("function_declaration", FUNCTION, NAME),
    whole("method_declaration", METHOD, NAME),
    whole("method_elem", FUNCTION, NAME),
    whole("type_alias", TYPE, NAME),
    whole("const_spec", CONSTANT, NAME),
    whole("var_spec", VARIABLE, NAME),
    whole("import_declaration", IMPORT, Name::None),
    members_by(
        "type_spec",
        Kind::By("type", &[("struct_type", STRUCT), ("interface_type", INTERFACE)], Some(TYPE)),
    ),
    around("type_declaration", Kind::None),
    around("const_declaration", Kind::Is(CONSTANT)),
    around("var_declaration", Kind::Is(VARIABLE)),
    through("interface_type"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that a grammar's new version has dropped would find nothing, without a word.
    #[test]
    fn every_rule_names_what_its_grammar_has() {
        for grammar in &GRAMMARS {
            let language = (grammar.load)();
            let has = |node: &str| language.id_for_node_kind(node, true) != 0;
            for rule in grammar.rules.iter().copied().flatten() {
                // Rules that C++ and TypeScript take from C and JavaScript may be idle there.
                let shared =
                    grammar.rules.len() > 1 && !grammar.rules[0].iter().any(|own| own.node == rule.node);
                assert!(shared || has(rule.node), "{}: {}", grammar.name, rule.node);
                let mut fields = Vec::new();
                if let Kind::By(field, cases, _) = rule.kind {
                    fields.push(field);
                    assert!(
                        shared || grammar.language == Language::C || cases.iter().all(|(node, _)| has(node)),
                        "{}: {}",
                        grammar.name,
                        rule.node
                    );
                }
                match rule.name {
                    Name::Field(field) => fields.push(field),
                    Name::Span(first, last) => fields.extend([first, last]),
                    Name::None | Name::Declarator => {}
                }
                for field in fields {
                    assert!(
                        shared || language.field_id_for_name(field).is_some(),
                        "{}: {}.{field}",
                        grammar.name,
                        rule.node
                    );
                }
            }
        }
    }

    #[test]
    fn each_language_has_its_grammar_and_shares_no_name() {
        let mut names = std::collections::HashSet::new();
        for grammar in &GRAMMARS {
            assert_eq!(Grammar::of(grammar.language).name, grammar.name);
            assert_eq!(serde_json::to_value(grammar.language).unwrap(), grammar.name);
            assert!(grammar.aliases.contains(&grammar.name));
            assert!(grammar.aliases.iter().all(|alias| names.insert(("alias", *alias))));
            assert!(grammar.endings.iter().all(|ending| names.insert(("ending", *ending))));
            assert!(tree_sitter::Parser::new().set_language(&(grammar.load)()).is_ok());
        }
    }
}
