//! Mutations of stored inputs, the same ones in every run.

/// What mutated inputs grow to at most, in bytes.
const MOST_BYTES: usize = 8 << 10;
/// The most changes that are made to one input.
const MOST_CHANGES: usize = 4;
/// Bytes and texts at which readers change their minds.
const TOKENS: [&[u8]; 40] = [
    b"\n",
    b" ",
    b"\t",
    b"\r\n",
    b":",
    b": ",
    b"- ",
    b"-",
    b"---\n",
    b"...\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"#",
    b"&a ",
    b"*a",
    b"!!str ",
    b"|\n",
    b">-\n",
    b"? ",
    b"=",
    b"*",
    b".",
    b"/",
    b"%2f",
    b"%",
    b"\\",
    b"$",
    b"(",
    b")",
    b"0",
    b"65536",
    b"-1",
    b"\0",
    b"\xff",
    "\u{feff}".as_bytes(),
    "é".as_bytes(),
];

/// Makes one mutation after the other.
pub(crate) struct Mutator<'f> {
    files: &'f [Vec<u8>],
    state: u64,
}

impl<'f> Mutator<'f> {
    pub(crate) fn new(files: &'f [Vec<u8>]) -> Self {
        Self { files, state: 0x9e37_79b9_7f4a_7c15 }
    }

    /// A file with a few changes, in half of the cases just one: more are rarely accepted.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.file().to_vec();
        let changes = if self.below(2) == 0 { 1 } else { 1 + self.below(MOST_CHANGES) };
        for _ in 0..changes {
            self.change(&mut bytes);
        }
        bytes.truncate(MOST_BYTES);
        bytes
    }

    fn file(&mut self) -> &'f [u8] {
        let index = self.below(self.files.len());
        &self.files[index]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes.len());
        match self.below(6) {
            0 => drop(bytes.drain(range)),
            1 => {
                let copy = bytes[range].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, copy);
            }
            2 => {
                let other = self.file();
                let part = &other[self.range(other.len())];
                bytes.splice(range, part.iter().copied());
            }
            3 if !range.is_empty() => bytes[range.start] ^= 1 << self.below(8),
            4 if !range.is_empty() => bytes[range.start] = b'0' + u8::try_from(self.below(10)).unwrap_or_default(),
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                bytes.splice(range.start..range.start, token.iter().copied());
            }
        }
    }

    /// A part of so many bytes; mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length } else { 16 };
        start..length.min(start + self.below(longest + 1))
    }

    /// A number below `bound`, which is not 0 (xorshift64*, Vigna 2016).
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let high = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(high).unwrap_or_default() % bound
    }
}
