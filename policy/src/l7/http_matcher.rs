//! HTTP rules against requests (HTTP-1 … HTTP-12).

use std::borrow::Cow;

use super::{
    expression::Expression,
    header::{HeaderConstraint, HeaderEdit, HeaderMismatch, HeaderOutcome, HeaderRule},
    http::HttpRule,
    secret::Secrets,
};

/// The head of a request, as it came in but for its path: see [`super::http_path`].
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'r> {
    /// The method.
    pub method: &'r [u8],
    /// The path with its query.
    pub path: &'r [u8],
    /// `:authority`, or the `Host` header; empty if there is none.
    pub host: &'r [u8],
    /// Names and values in the order of the wire.
    pub headers: &'r [(&'r str, &'r [u8])],
}

/// One rule, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatcher {
    method: Option<Expression>,
    path: Option<Expression>,
    host: Option<Expression>,
    headers: Vec<HeaderConstraint>,
    header_rules: Vec<HeaderRule>,
}

/// The rules that apply to one peer and port: a request is allowed if any of them matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatchers {
    /// In the order of the rules; none for a rule that cannot be compiled, which matches nothing.
    matchers: Vec<Option<HttpMatcher>>,
}

/// What the rules say about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOutcome {
    /// The rules that match. Only the first if none of the rules has an action (HTTP-11).
    pub matched: Vec<usize>,
    /// What the proxy changes in the request before it passes it on, in order. No edit is listed twice.
    pub edits: Vec<HeaderEdit>,
    /// What the access log says about the headers.
    pub mismatches: Vec<HeaderMismatch>,
}

impl<'r> HttpRequest<'r> {
    /// A request without headers.
    pub fn new<T: AsRef<[u8]> + ?Sized>(method: &'r T, path: &'r T, host: &'r T) -> Self {
        Self { method: method.as_ref(), path: path.as_ref(), host: host.as_ref(), headers: &[] }
    }

    /// The request with these headers.
    #[must_use]
    pub fn with_headers(self, headers: &'r [(&'r str, &'r [u8])]) -> Self {
        Self { headers, ..self }
    }

    /// The values of a header, joined by commas (HTTP-12). Names are compared without case; the parts of the request
    /// line have the names of HTTP/2.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'r, [u8]>> {
        for (pseudo, value) in [(":method", self.method), (":path", self.path), (":authority", self.host)] {
            if name.eq_ignore_ascii_case(pseudo) {
                return Some(value.into());
            }
        }
        if name.eq_ignore_ascii_case("host") {
            return (!self.host.is_empty()).then_some(self.host.into());
        }
        let mut values = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let (_, first) = values.next()?;
        Some(values.fold(Cow::Borrowed(*first), |joined, (_, value)| [&*joined, value].join(&b","[..]).into()))
    }
}

impl HttpMatcher {
    /// Compiles a rule. None if [`HttpRule::check`] finds something: such a rule matches nothing.
    #[must_use]
    pub fn compile(rule: &HttpRule, secrets: &Secrets) -> Option<Self> {
        if rule.header_matches.iter().any(|header| !header.check(0).is_empty()) {
            return None;
        }
        let expression = |text: &str| if text.is_empty() { Some(None) } else { Expression::new(text).ok().map(Some) };
        Some(Self {
            method: expression(&rule.method)?,
            path: expression(&rule.path)?,
            host: expression(&rule.host)?,
            headers: rule.headers.iter().map(|text| HeaderConstraint::new(text)).collect(),
            header_rules: rule
                .header_matches
                .iter()
                .map(|written| HeaderRule::compile(written, secrets))
                .collect::<Option<_>>()?,
        })
    }

    /// Whether the rule has an action.
    fn acts(&self) -> bool {
        self.header_rules.iter().any(HeaderRule::acts)
    }

    /// What the header rules do, if the rule matches.
    fn judge(&self, request: &HttpRequest<'_>) -> Option<(Vec<HeaderEdit>, Vec<HeaderMismatch>)> {
        let holds = |expression: &Option<Expression>, value| expression.as_ref().is_none_or(|e| e.matches(value));
        let matches = holds(&self.method, request.method)
            && holds(&self.path, request.path)
            && holds(&self.host, request.host)
            && self.headers.iter().all(|constraint| constraint.holds(request));
        if !matches {
            return None;
        }
        let (mut edits, mut mismatches) = (Vec::new(), Vec::new());
        for rule in &self.header_rules {
            match rule.judge(request) {
                HeaderOutcome::Match => {}
                HeaderOutcome::Fail => return None,
                HeaderOutcome::Continue { edit, mismatch } => {
                    edits.extend(edit);
                    mismatches.push(mismatch);
                }
            }
        }
        Some((edits, mismatches))
    }

    /// Whether the rule speaks of a request.
    #[must_use]
    pub fn matches(&self, request: &HttpRequest<'_>) -> bool {
        self.judge(request).is_some()
    }
}

impl HttpMatchers {
    /// Compiles rules. One that is not valid matches nothing.
    #[must_use]
    pub fn compile(rules: &[HttpRule], secrets: &Secrets) -> Self {
        Self { matchers: rules.iter().map(|rule| HttpMatcher::compile(rule, secrets)).collect() }
    }

    /// Judges a request. Every rule sees it as it came in; only rules that match as a whole have effects.
    #[must_use]
    pub fn judge(&self, request: &HttpRequest<'_>) -> HttpOutcome {
        let acts = self.matchers.iter().flatten().any(HttpMatcher::acts);
        let mut outcome = HttpOutcome::default();
        for (index, matcher) in self.matchers.iter().enumerate() {
            let Some((edits, mismatches)) = matcher.as_ref().and_then(|matcher| matcher.judge(request)) else {
                continue;
            };
            outcome.matched.push(index);
            if !acts {
                break;
            }
            for edit in edits {
                if !outcome.edits.contains(&edit) {
                    outcome.edits.push(edit);
                }
            }
            for mismatch in mismatches {
                if !outcome.mismatches.contains(&mismatch) {
                    outcome.mismatches.push(mismatch);
                }
            }
        }
        outcome
    }
}

impl HttpOutcome {
    /// Whether the request passes.
    #[must_use]
    pub fn allowed(&self) -> bool {
        !self.matched.is_empty()
    }
}
