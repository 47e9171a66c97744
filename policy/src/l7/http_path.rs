//! The normal form of a request's path, which rules see and servers get (HTTP-6).
//!
//! Dot segments are resolved (RFC 3986 §5.2.4), escapes of unreserved characters are undone (§6.2.2.2), `\` counts as
//! `/`, repeated slashes become one. The query stays as it is.

/// What to do with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NormalPath {
    /// Match this path and pass it on.
    Forward(Vec<u8>),
    /// It holds escaped slashes, which servers read in different ways: redirect the client to this path, without them.
    Redirect(Vec<u8>),
}

/// A path that has no normal form; the request is answered with status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not begin with a slash, and is not `*`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// It holds `#`.
    #[error("the path holds a fragment")]
    Fragment,
    /// It holds a space or a control character, or an escaped NUL.
    #[error("the path holds a space or a control character")]
    Control,
}

/// Brings the path of a request, with its query, into its normal form.
///
/// # Errors
/// `InvalidPath` if it has none.
pub fn normalise(path: &[u8]) -> Result<NormalPath, InvalidPath> {
    if path == b"*" {
        return Ok(NormalPath::Forward(path.into()));
    }
    if path.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(InvalidPath::Control);
    }
    if path.contains(&b'#') {
        return Err(InvalidPath::Fragment);
    }
    let question_mark = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    let (path, query) = path.split_at(question_mark);
    if path.first() != Some(&b'/') {
        return Err(InvalidPath::NotAbsolute);
    }
    let (path, _) = unescape(path, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))?;
    let normal = merge_slashes(&remove_dot_segments(&path));
    let (unescaped, escaped_slashes) = unescape(&normal, |byte| byte == b'/' || byte == b'\\')?;
    if escaped_slashes {
        // Once more: `/%2fother.example` must not become a redirect to another host.
        let target = merge_slashes(&remove_dot_segments(&unescaped));
        return Ok(NormalPath::Redirect([&target[..], query].concat()));
    }
    Ok(NormalPath::Forward([&normal[..], query].concat()))
}

/// Undoes the escapes of some bytes and turns `\` into `/`; says whether it undid any. An escape stays if undoing it
/// would make another one with the `%` before it: who reads the path next would undo that one.
fn unescape(path: &[u8], undo: impl Fn(u8) -> bool) -> Result<(Vec<u8>, bool), InvalidPath> {
    let mut out = Vec::with_capacity(path.len());
    let mut undone = false;
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        match escaped {
            Some(0) => return Err(InvalidPath::Control),
            Some(byte) if undo(byte) && !(byte.is_ascii_hexdigit() && ends_in_half_an_escape(&out)) => {
                out.push(if byte == b'\\' { b'/' } else { byte });
                undone = true;
                rest = &after[2..];
            }
            _ => {
                out.push(if *first == b'\\' { b'/' } else { *first });
                rest = after;
            }
        }
    }
    Ok((out, undone))
}

/// Whether a hexadecimal digit at the end could belong to an escape.
fn ends_in_half_an_escape(path: &[u8]) -> bool {
    match path {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

/// RFC 3986 §5.2.4 for a path that begins with a slash.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = segment == b"." || segment == b"..";
        if segment == b".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push(b"");
        }
    }
    kept.iter().flat_map(|segment| [&b"/"[..], *segment]).flatten().copied().collect()
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_6_paths_are_normalised_before_matching() {
        for (path, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b?x=/../y", "/a/b?x=/../y"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/public\\..\\admin", "/admin"),
            ("//a///b", "/a/b"),
            ("/a//../b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/%2561", "/%2561"),
            ("/a%20b", "/a%20b"),
            ("/100%", "/100%"),
            ("/a%zz", "/a%zz"),
            ("/public/%%32e%%32e/admin", "/public/%%32e%%32e/admin"),
            ("/%2%65%2%65/%%%32%66", "/%2%65%2%65/%%%32f"),
            ("/...", "/..."),
        ] {
            let expected = NormalPath::Forward(expected.into());
            assert_eq!(normalise(path.as_bytes()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn http_6_escaped_slashes_redirect() {
        for (path, expected) in [
            ("/a%2Fb", "/a/b"),
            ("/a%5cb?x=%2f", "/a/b?x=%2f"),
            ("/public%2f..%2fadmin", "/admin"),
            ("/%2fother.example/", "/other.example/"),
        ] {
            let expected = NormalPath::Redirect(expected.into());
            assert_eq!(normalise(path.as_bytes()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn http_6_paths_without_a_normal_form() {
        for (path, expected) in [
            ("", InvalidPath::NotAbsolute),
            ("a", InvalidPath::NotAbsolute),
            ("?x", InvalidPath::NotAbsolute),
            ("/a#b", InvalidPath::Fragment),
            ("/a b", InvalidPath::Control),
            ("/a\0", InvalidPath::Control),
            ("/a%00", InvalidPath::Control),
        ] {
            assert_eq!(normalise(path.as_bytes()), Err(expected), "{path:?}");
        }
    }
}
