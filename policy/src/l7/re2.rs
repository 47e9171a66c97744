//! From RE2's syntax, which policy objects are written in, to the syntax of the engine that matches them.
//!
//! They agree on the common part. Where they do not, the text is rewritten: `\d \w \s \b` are ASCII in RE2; `[`, `&&`
//! and `--` mean nothing special inside its classes; `x{`, `x{,5}` are literal; `x**` is an error, as is `x{1001}`.
//! One difference is left: RE2 reads `a(?i)*` as `a*(?i)`, here nothing can be repeated after bare flags.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::expression::Expression;

mod class;

/// Where and why a text is not an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Bytes from the beginning of the text.
    pub(super) offset: usize,
    /// What is wrong there.
    pub(super) problem: SyntaxProblem,
}

/// What can be wrong with an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SyntaxProblem {
    /// `(` without `)`.
    #[error("a group is not closed")]
    UnclosedGroup,
    /// `)` without `(`.
    #[error("a group is closed that is not open")]
    UnopenedGroup,
    /// Look-around, unknown flags, a name that is not a word or is used twice.
    #[error("unknown kind of group")]
    UnknownGroup,
    /// Groups within groups, too many.
    #[error("too many groups within each other")]
    TooDeep,
    /// `[` without `]`.
    #[error("a class is not closed")]
    UnclosedClass,
    /// An unknown name in `[[:…:]]`, or a broken `\p`.
    #[error("unknown class")]
    UnknownClass,
    /// `[z-a]`.
    #[error("a range ends before it begins")]
    InvalidRange,
    /// `*` at the beginning, after `(` or `|`.
    #[error("nothing to repeat")]
    NothingToRepeat,
    /// `a**`.
    #[error("a repetition of a repetition")]
    NestedRepetition,
    /// More than 1000 times, also through nesting; or at least more than at most.
    #[error("a repetition of more than 1000 times, or of an empty range")]
    InvalidRepetition,
    /// An unknown escape; a backreference.
    #[error("unknown escape sequence")]
    UnknownEscape,
}

/// What a repetition would apply to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Atom,
    Repetition,
}

struct Translator<'p> {
    pattern: &'p str,
    offset: usize,
    out: String,
    last: Last,
    /// How many copies of the last atom's innermost part its repetitions ask for.
    last_copies: u32,
    /// The largest such number in each open group; the first is the expression itself.
    most_copies: Vec<u32>,
    names: BTreeSet<&'p str>,
}

const MAX_COPIES: u32 = 1000;
const MAX_OPEN_GROUPS: usize = 100;

/// Rewrites an expression.
pub(super) fn translate(pattern: &str) -> Result<String, SyntaxError> {
    debug_assert!(pattern.len() <= Expression::MAX_TEXT_BYTES);
    let mut translator = Translator {
        pattern,
        offset: 0,
        out: String::with_capacity(pattern.len() * 2),
        last: Last::Nothing,
        last_copies: 1,
        most_copies: vec![1],
        names: BTreeSet::new(),
    };
    while let Some(next) = translator.peek() {
        let offset = translator.offset;
        translator.item(next).map_err(|problem| SyntaxError { offset, problem })?;
    }
    match translator.most_copies.len() {
        1 => Ok(translator.out),
        _ => Err(SyntaxError { offset: pattern.len(), problem: SyntaxProblem::UnclosedGroup }),
    }
}

impl<'p> Translator<'p> {
    fn rest(&self) -> &'p str {
        &self.pattern[self.offset..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.offset += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.offset += text.len();
        }
        found
    }

    /// Takes everything before `end`, and `end`.
    fn eat_until(&mut self, end: &str) -> Option<&'p str> {
        let (taken, _) = self.rest().split_once(end)?;
        self.offset += taken.len() + end.len();
        Some(taken)
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Atom;
        self.last_copies = 1;
    }

    fn literal(&mut self, character: char) {
        self.push_literal(character);
        self.last = Last::Atom;
        self.last_copies = 1;
    }

    /// Writes a character so that it means itself, inside a class too.
    fn push_literal(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || character == '/' || character == '_' {
            self.out.push(character);
        } else {
            self.out.push_str(&format!(r"\x{{{:x}}}", u32::from(character)));
        }
    }

    fn item(&mut self, next: char) -> Result<(), SyntaxProblem> {
        match next {
            '(' => return self.open_group(),
            ')' => return self.close_group(),
            '[' => return self.class(),
            '\\' => return self.escape(),
            '{' => return self.counted(),
            '*' | '+' | '?' => {
                self.offset += 1;
                return self.repeat(next.encode_utf8(&mut [0; 4]), 1);
            }
            _ => {}
        }
        self.offset += next.len_utf8();
        match next {
            '|' => {
                self.out.push('|');
                self.last = Last::Nothing;
            }
            '^' | '$' | '.' => self.atom(next.encode_utf8(&mut [0; 4])),
            _ => self.literal(next),
        }
        Ok(())
    }

    fn repeat(&mut self, operator: &str, copies: u32) -> Result<(), SyntaxProblem> {
        let lazy = self.eat("?");
        match self.last {
            Last::Nothing => return Err(SyntaxProblem::NothingToRepeat),
            Last::Repetition => return Err(SyntaxProblem::NestedRepetition),
            Last::Atom => {}
        }
        // Both are at most 1000.
        let copies = self.last_copies * copies.max(1);
        if copies > MAX_COPIES {
            return Err(SyntaxProblem::InvalidRepetition);
        }
        self.out.push_str(operator);
        if lazy {
            self.out.push('?');
        }
        self.last = Last::Repetition;
        self.last_copies = copies;
        self.note_copies(copies);
        Ok(())
    }

    fn note_copies(&mut self, copies: u32) {
        if let Some(most) = self.most_copies.last_mut() {
            *most = copies.max(*most);
        }
    }

    /// `{2}`, `{2,}`, `{2,5}`; anything else that begins with `{` is literal.
    fn counted(&mut self) -> Result<(), SyntaxProblem> {
        let Some((inside, _)) = self.rest()[1..].split_once('}') else {
            self.offset += 1;
            self.literal('{');
            return Ok(());
        };
        let (least, most) = inside.split_once(',').map_or((inside, inside), |(least, most)| (least, most));
        let open_end = most.is_empty() && inside.ends_with(',');
        if !is_count(least) || !(is_count(most) || open_end) {
            self.offset += 1;
            self.literal('{');
            return Ok(());
        }
        self.offset += inside.len() + 2;
        // A number that does not fit is beyond the limit.
        let count = |digits: &str| digits.parse::<u32>().unwrap_or(u32::MAX);
        let least = count(least);
        let most_or_least = if open_end { least } else { count(most) };
        if least > most_or_least || most_or_least > MAX_COPIES {
            return Err(SyntaxProblem::InvalidRepetition);
        }
        self.repeat(&format!("{{{inside}}}"), most_or_least)
    }

    fn open_group(&mut self) -> Result<(), SyntaxProblem> {
        self.offset += 1;
        if self.eat("?P<") || self.eat("?<") {
            let name = self.eat_until(">").ok_or(SyntaxProblem::UnknownGroup)?;
            let word = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            if !word || !self.names.insert(name) {
                return Err(SyntaxProblem::UnknownGroup);
            }
        } else if self.eat("?") {
            return self.flags();
        }
        self.push_group("(?:")
    }

    fn push_group(&mut self, opening: &str) -> Result<(), SyntaxProblem> {
        if self.most_copies.len() > MAX_OPEN_GROUPS {
            return Err(SyntaxProblem::TooDeep);
        }
        self.out.push_str(opening);
        self.most_copies.push(1);
        self.last = Last::Nothing;
        Ok(())
    }

    /// What follows `(?`: `i)`, `i-s:`.
    fn flags(&mut self) -> Result<(), SyntaxProblem> {
        let (mut on, mut off) = (BTreeSet::new(), BTreeSet::new());
        let mut negative = false;
        let mut flag_needed = false;
        loop {
            match self.take() {
                Some(flag @ ('i' | 'm' | 's' | 'U')) => {
                    flag_needed = false;
                    on.remove(&flag);
                    off.remove(&flag);
                    if negative {
                        off.insert(flag)
                    } else {
                        on.insert(flag)
                    };
                }
                Some('-') if !negative => {
                    negative = true;
                    flag_needed = true;
                }
                Some(end @ (')' | ':')) if !flag_needed => {
                    let on: String = on.into_iter().collect();
                    let off: String = off.into_iter().collect();
                    let minus = if off.is_empty() { "" } else { "-" };
                    if end == ':' {
                        return self.push_group(&format!("(?{on}{minus}{off}:"));
                    }
                    if !(on.is_empty() && off.is_empty()) {
                        self.out.push_str(&format!("(?{on}{minus}{off})"));
                    }
                    self.last = Last::Nothing;
                    return Ok(());
                }
                _ => return Err(SyntaxProblem::UnknownGroup),
            }
        }
    }

    fn close_group(&mut self) -> Result<(), SyntaxProblem> {
        self.offset += 1;
        let copies = match self.most_copies.pop() {
            Some(copies) if !self.most_copies.is_empty() => copies,
            _ => return Err(SyntaxProblem::UnopenedGroup),
        };
        self.atom(")");
        self.last_copies = copies;
        self.note_copies(copies);
        Ok(())
    }
}

/// A number as repetitions write it: digits, no leading zero.
fn is_count(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::{
        super::expression::{Expression, InvalidExpression},
        *,
    };

    fn problem(pattern: &str) -> Option<SyntaxProblem> {
        match Expression::new(pattern) {
            Err(InvalidExpression::Syntax { problem, .. }) => Some(problem),
            Ok(_) => None,
            Err(other) => panic!("{pattern}: {other}"),
        }
    }

    #[test]
    fn val_32_what_re2_refuses() {
        use SyntaxProblem::*;
        for (pattern, expected) in [
            ("GET[", UnclosedClass),
            ("[a-", UnclosedClass),
            ("[]", UnclosedClass),
            ("/a(", UnclosedGroup),
            ("a)(b", UnopenedGroup),
            ("*a", NothingToRepeat),
            ("(*a)", NothingToRepeat),
            ("a|*", NothingToRepeat),
            ("a**", NestedRepetition),
            ("a{2}{3}", NestedRepetition),
            ("a*??", NestedRepetition),
            ("a{1001}", InvalidRepetition),
            ("a{99999999999}", InvalidRepetition),
            ("a{3,2}", InvalidRepetition),
            ("(a{100}){11}", InvalidRepetition),
            ("((a{10}b){10}c){11}", InvalidRepetition),
            ("(?=a)", UnknownGroup),
            ("(?!a)", UnknownGroup),
            ("(?x)a", UnknownGroup),
            ("(?i-)a", UnknownGroup),
            ("(?P<n>a)(?P<n>b)", UnknownGroup),
            ("(?P<>a)", UnknownGroup),
            (r"(a)\1", UnknownEscape),
            (r"\8", UnknownEscape),
            (r"\Z", UnknownEscape),
            (r"\u0041", UnknownEscape),
            (r"\x{110000}", UnknownEscape),
            (r"\x{+41}", UnknownEscape),
            (r"a\", UnknownEscape),
            (r"[\b]", UnknownEscape),
            ("[z-a]", InvalidRange),
            ("[a--z]", InvalidRange),
            ("[[:alphabet:]]", UnknownClass),
            (r"\p{sc=Greek}", UnknownClass),
            (r"\p", UnknownClass),
        ] {
            assert_eq!(problem(pattern), Some(expected), "{pattern}");
        }
        let deep = format!("{}{}", "(".repeat(MAX_OPEN_GROUPS + 1), ")".repeat(MAX_OPEN_GROUPS + 1));
        assert_eq!(problem(&deep), Some(TooDeep));
        assert_eq!(problem(&deep[1..deep.len() - 1]), None);
    }

    #[test]
    fn http_1_what_re2_means() {
        for (pattern, yes, no) in [
            (r"\d+", "12", "١٢"),
            (r"\w", "a", "é"),
            (r"[^\w]", "é", "a"),
            (r"[\D]", "٣", "3"),
            (r"\S", "é", "\t"),
            (r"a\bé", "aé", "é"),
            ("a{", "a{", "a"),
            ("a{,2}", "a{,2}", "aa"),
            ("a{01}", "a{01}", "a"),
            ("a{2,}", "aaa", "a"),
            ("a{0}", "", "a"),
            ("[[a]", "[", "]"),
            ("[a&&b]", "&", "c"),
            ("[+--]", ",", "."),
            ("[a~~b]", "~", "c"),
            ("[]a]", "]", "b"),
            ("[^]a]", "b", "]"),
            ("[a-]", "-", "b"),
            ("[-a]", "-", "b"),
            (r"\<a\>", "<a>", "a"),
            (r"\_", "_", "a"),
            (r"\Qa.b*\E+", "a.b**", "aXb*"),
            (r"\Qa|b", "a|b", "a"),
            (r"\x41\x{42}\103", "ABC", "abc"),
            ("(?P<n>a)(?<m>b)", "ab", "a"),
            ("(?i)a|b", "B", "c"),
            ("(?i:a)b", "Ab", "AB"),
            ("(?ii)a", "A", "b"),
            ("(?i-i)a", "a", "A"),
            ("(?)a", "a", "b"),
            (r"\p{Greek}", "α", "a"),
            (r"\p{^Greek}", "a", "α"),
            (r"\PL", "1", "a"),
            (r"[\pL.]", ".", "1"),
            ("[[:alpha:]_]", "_", "1"),
            ("[[:^alpha:]]", "1", "a"),
            ("a#b c", "a#b c", "a"),
            ("^*a$", "a", "b"),
        ] {
            let expression = Expression::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert!(expression.matches(yes.as_bytes()), "{pattern} {yes}");
            assert!(!expression.matches(no.as_bytes()), "{pattern} {no}");
        }
    }
}
