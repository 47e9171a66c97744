//! Escapes and classes of RE2.

use super::{SyntaxProblem, Translator};

const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x{c}\r\x{20}";
const WORD: &str = "0-9A-Za-z_";
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

impl Translator<'_> {
    pub(super) fn escape(&mut self) -> Result<(), SyntaxProblem> {
        if self.eat(r"\Q") {
            let quoted = match self.eat_until(r"\E") {
                Some(quoted) => quoted,
                None => {
                    let quoted = self.rest();
                    self.offset = self.pattern.len();
                    quoted
                }
            };
            quoted.chars().for_each(|character| self.literal(character));
            return Ok(());
        }
        for (text, meaning) in [(r"\A", r"\A"), (r"\z", r"\z"), (r"\b", r"(?-u:\b)"), (r"\B", r"(?-u:\B)")] {
            if self.eat(text) {
                self.atom(meaning);
                return Ok(());
            }
        }
        if let Some(class) = self.class_escape()? {
            self.atom(&format!("[{class}]"));
            return Ok(());
        }
        let character = self.character_escape()?;
        self.literal(character);
        Ok(())
    }

    /// `\d` and its like, `\pN`, `\p{Greek}`: as a part of a class.
    fn class_escape(&mut self) -> Result<Option<String>, SyntaxProblem> {
        for (small, large, members) in [(r"\d", r"\D", DIGIT), (r"\s", r"\S", SPACE), (r"\w", r"\W", WORD)] {
            if self.eat(small) {
                return Ok(Some(members.into()));
            }
            if self.eat(large) {
                return Ok(Some(format!("[^{members}]")));
            }
        }
        let mut negative = self.rest().starts_with(r"\P");
        if !(self.eat(r"\p") || self.eat(r"\P")) {
            return Ok(None);
        }
        let name = if self.eat("{") {
            negative ^= self.eat("^");
            self.eat_until("}").ok_or(SyntaxProblem::UnknownClass)?
        } else {
            let letter = self.rest();
            let bytes = self.take().ok_or(SyntaxProblem::UnknownClass)?.len_utf8();
            &letter[..bytes]
        };
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_') {
            return Err(SyntaxProblem::UnknownClass);
        }
        Ok(Some(format!(r"\{}{{{name}}}", if negative { 'P' } else { 'p' })))
    }

    /// An escape that stands for one character.
    fn character_escape(&mut self) -> Result<char, SyntaxProblem> {
        self.offset += 1;
        let next = self.take().ok_or(SyntaxProblem::UnknownEscape)?;
        match next {
            'a' => Ok('\x07'),
            'f' => Ok('\x0c'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0b'),
            'x' => {
                let digits = if self.eat("{") {
                    self.eat_until("}").ok_or(SyntaxProblem::UnknownEscape)?
                } else {
                    let digits = self.rest().get(..2).ok_or(SyntaxProblem::UnknownEscape)?;
                    self.offset += 2;
                    digits
                };
                let hexadecimal = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_hexdigit());
                let code = hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten();
                code.and_then(char::from_u32).ok_or(SyntaxProblem::UnknownEscape)
            }
            '0'..='7' => {
                let more = self.rest().bytes().take(2).take_while(|c| (b'0'..=b'7').contains(c)).count();
                if next != '0' && more == 0 {
                    return Err(SyntaxProblem::UnknownEscape);
                }
                let digits = &self.pattern[self.offset - 1..self.offset + more];
                self.offset += more;
                let code = u32::from_str_radix(digits, 8).ok();
                code.and_then(char::from_u32).ok_or(SyntaxProblem::UnknownEscape)
            }
            _ if next.is_ascii() && !next.is_ascii_alphanumeric() => Ok(next),
            _ => Err(SyntaxProblem::UnknownEscape),
        }
    }

    pub(super) fn class(&mut self) -> Result<(), SyntaxProblem> {
        self.offset += 1;
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            self.class_item()?;
        }
        self.offset += 1;
        self.atom("]");
        Ok(())
    }

    fn class_item(&mut self) -> Result<(), SyntaxProblem> {
        if self.rest().starts_with("[:") && self.rest()[2..].contains(":]") {
            self.offset += 2;
            let name = self.eat_until(":]").ok_or(SyntaxProblem::UnknownClass)?;
            if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(SyntaxProblem::UnknownClass);
            }
            self.out.push_str(&format!("[:{name}:]"));
            return Ok(());
        }
        if let Some(class) = self.class_escape()? {
            self.out.push_str(&class);
            return Ok(());
        }
        let low = self.class_character()?;
        self.push_literal(low);
        if self.rest().starts_with('-') && !self.rest().starts_with("-]") && self.rest().len() > 1 {
            self.offset += 1;
            let high = self.class_character()?;
            if high < low {
                return Err(SyntaxProblem::InvalidRange);
            }
            self.out.push('-');
            self.push_literal(high);
        }
        Ok(())
    }

    fn class_character(&mut self) -> Result<char, SyntaxProblem> {
        if self.rest().starts_with('\\') {
            return self.character_escape();
        }
        self.take().ok_or(SyntaxProblem::UnclosedClass)
    }
}
