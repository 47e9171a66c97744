//! A Rust file as the rules see it: its tokens, its functions, and which of its lines are tests.

use std::ops::RangeInclusive;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;

/// One Rust file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) lines: Vec<String>,
    pub(super) tokens: Vec<Token>,
    pub(super) functions: Vec<Function>,
    /// The whole file is compiled for tests only.
    pub(super) is_test: bool,
    test_lines: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that are compiled for tests only.
    test_modules: Vec<String>,
}

/// One token, with groups opened up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) length: usize,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Result<Self, Finding> {
        let broken = |error: syn::Error| {
            Finding::new(path, error.span().start().line, "syntax", format!("does not parse: {error}"))
        };
        let file = syn::parse_file(text).map_err(broken)?;
        let stream: TokenStream = text_without_shebang(text).parse().map_err(|error: proc_macro2::LexError| {
            Finding::new(path, error.span().start().line, "syntax", format!("does not parse: {error}"))
        })?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut walk = Walk::default();
        walk.visit_file(&file);
        Ok(Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            tokens,
            functions: walk.functions,
            is_test: is_test_path(path),
            test_lines: walk.test_lines,
            test_modules: walk.test_modules,
        })
    }

    /// Whether a line (from 1) is compiled for tests only.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// Lines that are not tests.
    pub(super) fn production_lines(&self) -> usize {
        (1..=self.lines.len()).filter(|line| !self.is_test_line(*line)).count()
    }
}

/// Marks the files of modules that are declared under `#[cfg(test)]`.
pub(super) fn mark_test_files(mut sources: Vec<Source>) -> Vec<Source> {
    let marked: Vec<String> = sources
        .iter()
        .flat_map(|source| source.test_modules.iter().flat_map(|name| module_paths(&source.path, name)))
        .collect();
    for source in &mut sources {
        let below = |path: &String| {
            let folder = path.strip_suffix(".rs").unwrap_or(path);
            source.path == *path || source.path.starts_with(&format!("{folder}/"))
        };
        source.is_test |= marked.iter().any(below);
    }
    sources
}

/// Where `mod name;` in the file at `path` may lie.
fn module_paths(path: &str, name: &str) -> [String; 2] {
    let path = Path::new(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let parent = path.parent().unwrap_or_else(|| Path::new(""));
    let folder = if ["lib", "main", "mod"].contains(&stem.as_ref()) { parent.to_owned() } else { parent.join(&*stem) };
    let folder = folder.display();
    [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
}

fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "benches" || part == "examples")
}

fn text_without_shebang(text: &str) -> &str {
    if text.starts_with("#!/") { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let end = group.span_close().start().line;
                tokens.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: end });
            }
            // A literal's text is nobody's business here: strings may name anything.
            TokenTree::Literal(_) => tokens.push(Token { text: "literal".to_owned(), line }),
            other => tokens.push(Token { text: other.to_string(), line }),
        }
    }
}

#[derive(Default)]
struct Walk {
    functions: Vec<Function>,
    test_lines: Vec<RangeInclusive<usize>>,
    test_modules: Vec<String>,
}

impl Walk {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (begin, end) = (signature.span().start().line, block.span().end().line);
        self.functions.push(Function { name: signature.ident.to_string(), line: begin, length: end - begin + 1 });
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = attributes(item);
        if attributes.iter().any(is_for_tests) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(module.ident.to_string());
            }
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.attrs.iter().any(is_for_tests) {
            self.test_lines.push(function.span().start().line..=function.span().end().line);
        }
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    if attribute.path().segments.last().is_some_and(|segment| segment.ident == "test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let mut tokens = Vec::new();
    flatten(list.tokens.clone(), &mut tokens);
    let has = |word: &str| tokens.iter().any(|token| token.text == word);
    attribute.path().is_ident("cfg") && has("test") && !has("not") && !has("any")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_code_is_told_from_production_code() {
        let text = "fn one() {\n}\n#[cfg(test)]\nmod tests {\n  fn two() {}\n}\n#[cfg(test)]\nmod more;\n#[cfg(not(test))]\nfn three() {}\n";
        let source = Source::parse("agent/src/lib.rs", text).unwrap();
        let test: Vec<usize> = (1..=10).filter(|line| source.is_test_line(*line)).collect();
        assert_eq!(test, [3, 4, 5, 6, 7, 8]);
        assert_eq!(source.functions[0], Function { name: "one".to_owned(), line: 1, length: 2 });
        let more = Source::parse("agent/src/more.rs", "fn x() {}").unwrap();
        let below = Source::parse("agent/src/more/deep.rs", "fn x() {}").unwrap();
        let other = Source::parse("agent/src/moreover.rs", "fn x() {}").unwrap();
        let marked: Vec<bool> = mark_test_files(vec![source, more, below, other]).iter().map(|s| s.is_test).collect();
        assert_eq!(marked, [false, true, true, false]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_finding_with_its_line() {
        let finding = Source::parse("a.rs", "fn a() {}\nfn {").unwrap_err();
        assert_eq!((finding.rule, finding.line), ("syntax", 2));
    }
}
