//! Rules that look at single tokens. Comments and strings are not tokens.

use super::Finding;
use super::source::{Source, Token};

const UNSAFE_FOLDERS: [&str; 2] = ["agent/datapath/src/kernel", "ebpf/"];
const ANYHOW_FOLDERS: [&str; 3] = ["cli/", "xtask/", "chaos/"];
/// A `SAFETY:` comment stands at most this many lines above its `unsafe`.
const SAFETY_LINES: usize = 8;
const MAIN_LINES: usize = 60;

/// All rules of this file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, token) in source.tokens.iter().enumerate() {
        let rest = &source.tokens[index..];
        let before = index.checked_sub(1).and_then(|before| source.tokens.get(before));
        findings.extend(unwrap(source, token, before, rest));
        findings.extend(unfinished(source, token, rest));
        findings.extend(silenced(source, token, rest));
        findings.extend(unsafe_code(source, token, rest));
        findings.extend(anyhow(source, token));
    }
    findings.extend(comments(source));
    findings.extend(opening(source));
    findings
}

fn unwrap(source: &Source, token: &Token, before: Option<&Token>, rest: &[Token]) -> Option<Finding> {
    let is_call = token.text == "unwrap" && before.is_some_and(|t| t.text == ".") && is(rest, 1, "(");
    (is_call && !source.is_test_line(token.line)).then(|| {
        let advice = "handle the error, or `expect(\"why it cannot happen\")`";
        Finding::new(&source.path, token.line, "unwrap", advice)
    })
}

fn unfinished(source: &Source, token: &Token, rest: &[Token]) -> Option<Finding> {
    let is_macro = ["todo", "unimplemented", "dbg"].contains(&token.text.as_str()) && is(rest, 1, "!");
    is_macro.then(|| Finding::new(&source.path, token.line, "unfinished", format!("remove `{}!`", token.text)))
}

fn silenced(source: &Source, token: &Token, rest: &[Token]) -> Option<Finding> {
    let bracket = if is(rest, 1, "!") { 2 } else { 1 };
    let is_allow = token.text == "#" && is(rest, bracket, "[") && is(rest, bracket + 1, "allow");
    is_allow.then(|| {
        Finding::new(
            &source.path,
            token.line,
            "allow",
            "use `#[expect(…, reason = \"…\")]`, which notices when it is not needed",
        )
    })
}

fn unsafe_code(source: &Source, token: &Token, rest: &[Token]) -> Option<Finding> {
    // `#[unsafe(no_mangle)]` is an attribute, not code that could go wrong.
    if token.text != "unsafe" || is(rest, 1, "(") {
        return None;
    }
    if !UNSAFE_FOLDERS.iter().any(|folder| source.path.starts_with(folder)) {
        let advice = format!("`unsafe` is allowed in {} only", UNSAFE_FOLDERS.join(" and "));
        return Some(Finding::new(&source.path, token.line, "unsafe", advice));
    }
    let needs_reason = is(rest, 1, "{") || is(rest, 1, "impl");
    let first = token.line.saturating_sub(SAFETY_LINES + 1);
    let above = &source.lines[first..token.line.min(source.lines.len())];
    let has_reason = above.iter().any(|line| line.contains("SAFETY:"));
    (needs_reason && !has_reason && !source.is_test_line(token.line)).then(|| {
        Finding::new(&source.path, token.line, "safety", "say in a `// SAFETY:` comment above why this is sound")
    })
}

fn anyhow(source: &Source, token: &Token) -> Option<Finding> {
    let allowed =
        ANYHOW_FOLDERS.iter().any(|folder| source.path.starts_with(folder)) || source.path.ends_with("/main.rs");
    let found = token.text == "anyhow" && !allowed && !source.is_test_line(token.line);
    found.then(|| Finding::new(&source.path, token.line, "anyhow", "use this boundary's own error enum (thiserror)"))
}

fn comments(source: &Source) -> impl Iterator<Item = Finding> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    source.lines.iter().enumerate().filter_map(move |(index, line)| {
        let comment = line.split_once("//")?.1;
        let word = words.iter().find(|word| comment.contains(**word))?;
        Some(Finding::new(
            &source.path,
            index + 1,
            "unfinished",
            format!("do it or file it, but do not leave a {word}"),
        ))
    })
}

fn opening(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_main = source.path.ends_with("src/main.rs");
    if (is_main || source.path.ends_with("src/lib.rs")) && !source.lines.first().is_some_and(|l| l.starts_with("//!")) {
        findings.push(Finding::new(
            &source.path,
            1,
            "crate-docs",
            "open with `//!`: what the crate is, and how data flows",
        ));
    }
    // The eBPF programs have no story to tell: their main.rs lists the hooks.
    if is_main && !source.path.starts_with("ebpf/") && source.lines.len() > MAIN_LINES {
        let advice = format!("{} lines; a main.rs reads as a story of at most {MAIN_LINES}", source.lines.len());
        findings.push(Finding::new(&source.path, MAIN_LINES + 1, "main-length", advice));
    }
    findings
}

fn is(tokens: &[Token], index: usize, text: &str) -> bool {
    tokens.get(index).is_some_and(|token| token.text == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(&'static str, usize)> {
        check(&Source::parse(path, text).unwrap()).into_iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    #[test]
    fn unwrap_is_seen_also_inside_macros_and_not_in_tests() {
        let text = "fn a() {\n  b().unwrap();\n  println!(\"{}\", c.unwrap());\n  d.unwrap_or(1);\n}\n#[test]\nfn t() { e.unwrap(); }\n";
        assert_eq!(rules("policy/src/a.rs", text), [("unwrap", 2), ("unwrap", 3)]);
        assert_eq!(rules("policy/tests/a.rs", text), []);
    }

    #[test]
    fn unfinished_code_is_seen_also_in_comments() {
        let comment = format!(
            "// {}: later\nfn a() {{ todo!() }}\nfn b() {{ dbg!(1); }}\nfn c() {{ \"todo!\"; }}\n",
            concat!("TO", "DO")
        );
        let mut found = rules("policy/src/a.rs", &comment);
        found.sort_unstable();
        assert_eq!(found, [("unfinished", 1), ("unfinished", 2), ("unfinished", 3)]);
    }

    #[test]
    fn silenced_lints_are_seen() {
        assert_eq!(
            rules("a/src/b.rs", "#![allow(x)]\n#[allow(y)]\nfn a() {}\n#[expect(z)]\nfn b() {}\n"),
            [("allow", 1), ("allow", 2)]
        );
    }

    #[test]
    fn unsafe_needs_its_place_and_its_reason() {
        let text = "fn a() {\n  unsafe { b() }\n}\n";
        assert_eq!(rules("agent/src/a.rs", text), [("unsafe", 2)]);
        assert_eq!(rules("agent/datapath/src/kernel/a.rs", text), [("safety", 2)]);
        let reasoned = "fn a() {\n  // SAFETY: b is sound.\n  unsafe { b() }\n}\n#[unsafe(no_mangle)]\nfn c() {}\n";
        assert_eq!(rules("ebpf/common/src/a.rs", reasoned), []);
    }

    #[test]
    fn anyhow_stays_in_its_places() {
        let text = "use anyhow::Result;\n";
        assert_eq!(rules("agent/src/a.rs", text), [("anyhow", 1)]);
        for path in ["cli/src/a.rs", "chaos/src/a.rs", "xtask/src/a.rs"] {
            assert_eq!(rules(path, text), []);
        }
        assert_eq!(rules("agent/src/main.rs", &format!("//! A story.\n{text}")), []);
    }

    #[test]
    fn a_crate_opens_with_its_docs_and_a_main_is_short() {
        assert_eq!(rules("agent/src/lib.rs", "fn a() {}\n"), [("crate-docs", 1)]);
        let long = format!("//! Long.\n{}fn main() {{}}\n", "// line\n".repeat(60));
        assert_eq!(rules("agent/src/main.rs", &long), [("main-length", 61)]);
    }
}
