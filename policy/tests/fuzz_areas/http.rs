//! HTTP rules and requests: the first five lines are path, method, host, header and header match of a rule, the others
//! the path, method, host and headers of a request.

use std::fmt::Write;

use ringfence_policy::l7::{
    advice,
    expression::Expression,
    header::HeaderConstraint,
    http::{HeaderMatch, HttpRule, denied_body},
    http_matcher::{HttpMatcher, HttpMatchers, HttpRequest},
    http_path::{NormalPath, normalise},
    secret::{SecretRef, Secrets},
};

const RULE_LINES: usize = 5;
const REQUEST_LINES: usize = 3;
const MOST_LINES: usize = 64;

/// Compiles the rule and judges the request by it; a path has one normal form.
pub(crate) fn exercise(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').take(MOST_LINES).collect();
    let line = |index: usize| lines.get(index).copied().unwrap_or_default();
    let text = |index: usize| String::from_utf8_lossy(line(index)).into_owned();
    let header = text(4);
    let mut parts = header.splitn(4, ' ').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let written = HeaderMatch { name: part(), mismatch: part(), value: part(), secret: secret(&part()) };
    let rule = HttpRule {
        path: text(0),
        method: text(1),
        host: text(2),
        headers: if line(3).is_empty() { Vec::new() } else { vec![text(3)] },
        header_matches: if header.is_empty() { Vec::new() } else { vec![written] },
    };
    let names: Vec<String> = (RULE_LINES + REQUEST_LINES..lines.len()).map(text).collect();
    let headers: Vec<(&str, &[u8])> = names
        .iter()
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    let (path, method, host) = (line(RULE_LINES), line(RULE_LINES + 1), line(RULE_LINES + 2));
    let request = HttpRequest::new(method, path, host).with_headers(&headers);
    judged(&rule, &request);
    lines.iter().for_each(|line| normal_form(line));
    [0, 3, RULE_LINES].into_iter().for_each(|index| literal(&text(index)));
    let _ = (HeaderConstraint::new(&text(3)).holds(&request), denied_body(&text(3)));
}

fn secret(name: &str) -> Option<SecretRef> {
    (!name.is_empty()).then(|| SecretRef { namespace: String::new(), name: name.to_owned() })
}

/// A rule that is found wrong matches nothing, in a list as alone; every other one is compiled (VAL-32).
fn judged(rule: &HttpRule, request: &HttpRequest<'_>) {
    let findings = rule.check();
    let mut secrets = Secrets::default();
    secrets.insert(SecretRef { namespace: String::new(), name: "token".into() }, "hunter2");
    let matcher = HttpMatcher::compile(rule, &secrets);
    assert_eq!(matcher.is_some(), findings.is_empty(), "{rule:?}: {findings:?}");
    for finding in &findings {
        let _ = (finding.to_string(), finding.help(), finding.field(), finding.rule());
    }
    let _ = advice::on_http(rule);
    let matches = matcher.is_some_and(|matcher| matcher.matches(request));
    let outcome = HttpMatchers::compile(std::slice::from_ref(rule), &secrets).judge(request);
    assert_eq!(outcome.allowed(), matches, "{rule:?} {request:?}");
    let printed = format!("{outcome:?}");
    let written =
        rule.header_matches.iter().any(|header| header.value.contains("hunter2") || header.name.contains("hunter2"));
    assert!(written || !printed.contains("hunter2"), "HTTP-12: a secret never prints");
    assert!(
        HttpMatchers::compile(&[HttpRule::default()], &secrets).judge(request).allowed(),
        "HTTP-8: {{}} is everything"
    );
}

/// HTTP-6: the normal form is normal, has no way out of its folder, and a redirect to it leads to no other redirect.
fn normal_form(path: &[u8]) {
    let Ok(NormalPath::Forward(normal) | NormalPath::Redirect(normal)) = normalise(path) else { return };
    let shown = || format!("{} ► {}", path.escape_ascii(), normal.escape_ascii());
    assert_eq!(normalise(&normal), Ok(NormalPath::Forward(normal.clone())), "{}", shown());
    if normal == b"*" {
        return;
    }
    let end = normal.iter().position(|byte| *byte == b'?').unwrap_or(normal.len());
    let mut segments = normal[..end].split(|byte| *byte == b'/');
    assert_eq!(segments.next(), Some(&b""[..]), "{}", shown());
    assert!(!segments.clone().any(|segment| segment == b"." || segment == b".."), "{}", shown());
    let empty = segments.clone().filter(|segment| segment.is_empty()).count();
    assert!(empty <= usize::from(normal[..end].ends_with(b"/")), "{}", shown());
}

/// HTTP-1: a text whose characters all stand for themselves matches itself and nothing longer.
fn literal(text: &str) {
    let mut escaped = String::new();
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = write!(escaped, "\\x{{{:x}}}", u32::from(character));
    }
    let Ok(expression) = Expression::new(&escaped) else {
        assert!(escaped.len() > Expression::MAX_TEXT_BYTES, "{text:?}");
        return;
    };
    assert!(expression.matches(text.as_bytes()), "{text:?}");
    assert!(!expression.matches([text.as_bytes(), b"x"].concat().as_slice()), "{text:?}");
}
