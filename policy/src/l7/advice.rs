//! What is legal in L7 rules and probably not what their author means.

use super::{
    dns_rule::DnsRule,
    header::HeaderConstraint,
    http::HttpRule,
    kafka::KafkaRule,
    kafka_api::{ApiKey, Role},
};

/// One piece of advice. Its text says what the rule does, [`Self::help`] what would do what is probably meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Advice {
    /// HTTP-1.
    #[error("method {method:?} matches no usual request: methods are in upper case")]
    MethodCase {
        /// The method as written.
        method: String,
    },
    /// HTTP-1.
    #[error("path {path:?} matches no request: paths begin with a slash, and the whole path must match")]
    PathWithoutSlash {
        /// The path as written.
        path: String,
    },
    /// HTTP-1.
    #[error("path {path:?} matches nothing that goes on behind it: the whole path must match, with or without '^'")]
    PathIsNoPrefix {
        /// The path as written.
        path: String,
    },
    /// HTTP-2.
    #[error("path {path:?} does not match a request with a query string")]
    PathWithoutQuery {
        /// The path as written.
        path: String,
    },
    /// HTTP-4.
    #[error("the dots in {field} {text:?} stand for any character")]
    DotsMatchAnything {
        /// `path` or `host`.
        field: &'static str,
        /// The field as written.
        text: String,
    },
    /// HTTP-7.
    #[error("headers[{index}] asks for a header whose name is all of {entry:?}, which no request has")]
    HeaderWithoutSpace {
        /// Which element of `headers`.
        index: usize,
        /// The element as written.
        entry: String,
    },
    /// HTTP-7.
    #[error("headers[{index}] asks for exactly the value {value:?}: it is a text, not an expression")]
    HeaderIsNoExpression {
        /// Which element of `headers`.
        index: usize,
        /// The value as written.
        value: String,
    },
    /// KAF-2.
    #[error("apiKey {api_key} alone is not enough for a client that does this")]
    ApiKeyAlone {
        /// The kind of request.
        api_key: ApiKey,
        /// The role that has all of what such a client asks for.
        role: Role,
    },
    /// KAF-6.
    #[error("the topics of {api_key} requests are not read, so that this rule matches none of them")]
    TopicsNotRead {
        /// The kind of request.
        api_key: ApiKey,
    },
    /// DNS-7.
    #[error("\"**\" in {pattern:?} means the same as \"*\": it does not cross dots")]
    DoubleWildcard {
        /// The pattern as written.
        pattern: String,
    },
    /// DNS-12.
    #[error("{pattern:?} does not match names further below")]
    WildcardWithoutDot {
        /// The pattern as written.
        pattern: String,
    },
    /// DNS-3.
    #[error("{text:?} has an empty label, which no name has")]
    EmptyLabel {
        /// The name or pattern as written.
        text: String,
    },
    /// DNS-6.
    #[error("neither matchName nor matchPattern is given: no name matches")]
    NoName,
    /// TLS-1.
    #[error("server name {name:?} is compared as it is written, and no client asks for that")]
    ServerNameNeverMatches {
        /// The name as written.
        name: String,
    },
}

/// Advice on an HTTP rule that is valid.
#[must_use]
pub fn on_http(rule: &HttpRule) -> Vec<Advice> {
    let mut advice = Vec::new();
    let HttpRule { path, method, host, headers, .. } = rule;
    if method.bytes().any(|c| c.is_ascii_lowercase()) && method.bytes().all(|c| c.is_ascii_alphabetic() || c == b'|') {
        advice.push(Advice::MethodCase { method: method.clone() });
    }
    let first = path.trim_start_matches(['^', '(']).chars().next();
    if first.is_some_and(|c| c.is_ascii_alphanumeric()) {
        advice.push(Advice::PathWithoutSlash { path: path.clone() });
    } else if first.is_some() && !may_match_query(path) {
        let prefix = (path.starts_with('^') && !path.ends_with('$')) || (path.ends_with('/') && path != "/");
        let path = path.clone();
        advice.push(if prefix { Advice::PathIsNoPrefix { path } } else { Advice::PathWithoutQuery { path } });
    }
    for (field, text) in [("path", path), ("host", host)] {
        if has_dot_in_word(text) {
            advice.push(Advice::DotsMatchAnything { field, text: text.clone() });
        }
    }
    for (index, entry) in headers.iter().enumerate() {
        match HeaderConstraint::new(entry).value {
            None if entry.contains(':') && !entry.starts_with(':') => {
                advice.push(Advice::HeaderWithoutSpace { index, entry: entry.clone() });
            }
            Some(value) if [".*", ".+", "[", "\\"].iter().any(|sign| value.contains(sign)) => {
                advice.push(Advice::HeaderIsNoExpression { index, value });
            }
            _ => {}
        }
    }
    advice
}

/// Advice on the Kafka rules of one list.
#[must_use]
pub fn on_kafka(rules: &[KafkaRule]) -> Vec<(usize, Advice)> {
    // A client that may also ask for metadata somewhere in the list was thought of as a whole.
    let whole = rules.iter().any(|rule| {
        let metadata = ApiKey::from_name(&rule.api_key) == Some(ApiKey::METADATA);
        metadata || !rule.role.is_empty() || rule.api_key.is_empty()
    });
    let mut advice = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let Some(api_key) = ApiKey::from_name(&rule.api_key) else { continue };
        if !rule.topic.is_empty() && api_key.carries_topics() && !api_key.topics_are_decoded() {
            advice.push((index, Advice::TopicsNotRead { api_key }));
        }
        let role = match api_key {
            ApiKey::PRODUCE => Role::Produce,
            ApiKey::FETCH => Role::Consume,
            _ => continue,
        };
        if !whole {
            advice.push((index, Advice::ApiKeyAlone { api_key, role }));
        }
    }
    advice
}

/// Advice on a DNS rule or FQDN selector that is valid.
#[must_use]
pub fn on_dns(rule: &DnsRule) -> Vec<Advice> {
    let DnsRule { match_name, match_pattern: pattern } = rule;
    let mut advice = Vec::new();
    if match_name.is_empty() && pattern.is_empty() {
        advice.push(Advice::NoName);
    }
    for text in [match_name, pattern] {
        let labels = text.strip_suffix('.').unwrap_or(text);
        if !labels.is_empty() && labels.split('.').any(str::is_empty) {
            advice.push(Advice::EmptyLabel { text: text.clone() });
        }
    }
    let single = pattern.strip_prefix('*').is_some_and(|rest| rest.starts_with(|c: char| c != '.' && c != '*'));
    if pattern.contains("**") {
        advice.push(Advice::DoubleWildcard { pattern: pattern.clone() });
    } else if single {
        advice.push(Advice::WildcardWithoutDot { pattern: pattern.clone() });
    }
    advice
}

/// Advice on a server name that is valid.
#[must_use]
pub fn on_server_name(name: &str) -> Option<Advice> {
    let never = name.ends_with('.') || !name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    never.then(|| Advice::ServerNameNeverMatches { name: name.into() })
}

/// Whether an expression for paths looks as if it matched some path with a query, too.
fn may_match_query(path: &str) -> bool {
    [".*", ".+", r"\?", "[?", r"\x3f", "[^", r"\S", r"\W"].iter().any(|sign| path.contains(sign))
}

/// Whether an expression has a dot between two letters or digits, outside a class and not escaped.
fn has_dot_in_word(text: &str) -> bool {
    let word = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let mut in_class = false;
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        match byte {
            b'\\' => index += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'.' if !in_class && index > 0 && word(bytes.get(index - 1)) && word(bytes.get(index + 1)) => return true,
            _ => {}
        }
        index += 1;
    }
    false
}

impl Advice {
    /// The numbered rule that explains it.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::MethodCase { .. } | Self::PathWithoutSlash { .. } | Self::PathIsNoPrefix { .. } => "HTTP-1",
            Self::PathWithoutQuery { .. } => "HTTP-2",
            Self::DotsMatchAnything { .. } => "HTTP-4",
            Self::HeaderWithoutSpace { .. } | Self::HeaderIsNoExpression { .. } => "HTTP-7",
            Self::ApiKeyAlone { .. } => "KAF-2",
            Self::TopicsNotRead { .. } => "KAF-6",
            Self::EmptyLabel { .. } => "DNS-3",
            Self::NoName => "DNS-6",
            Self::DoubleWildcard { .. } => "DNS-7",
            Self::WildcardWithoutDot { .. } => "DNS-12",
            Self::ServerNameNeverMatches { .. } => "TLS-1",
        }
    }

    /// What would do what is probably meant.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::MethodCase { method } => format!("write {:?}", method.to_ascii_uppercase()),
            Self::PathWithoutSlash { path } => format!("write \"/{path}\", or \".*{path}\" for a part of the path"),
            Self::PathIsNoPrefix { path } => {
                let path = path.strip_prefix('^').unwrap_or(path);
                format!("write {:?} for every path that begins so", format!("{path}.*"))
            }
            Self::PathWithoutQuery { path } => {
                let path = path.strip_suffix('$').unwrap_or(path);
                format!("write '{path}(\\?.*)?' if queries are fine")
            }
            Self::DotsMatchAnything { .. } => "write '[.]' for a dot".into(),
            Self::HeaderWithoutSpace { entry, .. } => {
                let (name, value) = entry.split_once(':').unwrap_or((entry, ""));
                format!("write \"{name}: {value}\" for a value, or \"{name}\" if it must only be there")
            }
            Self::HeaderIsNoExpression { .. } => "write the name alone if the header must only be there".into(),
            Self::ApiKeyAlone { role: Role::Produce, .. } => "write role: produce instead".into(),
            Self::ApiKeyAlone { role: Role::Consume, .. } => "write role: consume instead".into(),
            Self::TopicsNotRead { .. } => "leave out the topic".into(),
            Self::DoubleWildcard { .. } => {
                "write one pattern for each number of labels, for example \"*.*.example.com\"".into()
            }
            Self::WildcardWithoutDot { pattern } => {
                format!("write \"*.{}\" as well for the names one level below", pattern.trim_start_matches(['*', '.']))
            }
            Self::EmptyLabel { .. } => "remove the extra dot".into(),
            Self::NoName => "write matchName, or matchPattern: \"*\" for every name".into(),
            Self::ServerNameNeverMatches { .. } => "write each full name, without wildcards or a dot at its end".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_path(path: &str) -> Vec<&'static str> {
        let rule = HttpRule { path: path.into(), ..HttpRule::default() };
        on_http(&rule).iter().map(Advice::rule).collect()
    }

    #[test]
    fn http_2_and_4_paths() {
        for (path, expected) in [
            ("", &[][..]),
            ("/public", &["HTTP-2"]),
            ("/public$", &["HTTP-2"]),
            (r"/public(\?.*)?", &[]),
            ("/api/v1/.*", &[]),
            ("public", &["HTTP-1"]),
            ("^/payments.PaymentService/CreatePayment", &["HTTP-1", "HTTP-4"]),
            ("^/public$", &["HTTP-2"]),
            ("/api/", &["HTTP-1"]),
            ("/", &["HTTP-2"]),
            ("^/payments[.]PaymentService/.*", &[]),
            (r"/payments\.PaymentService/.*", &[]),
            ("/a.*b", &[]),
        ] {
            assert_eq!(on_path(path), expected, "{path}");
        }
        let help = on_http(&HttpRule { path: "/public$".into(), ..HttpRule::default() })[0].help();
        assert_eq!(help, r"write '/public(\?.*)?' if queries are fine");
        let help = on_http(&HttpRule { path: "^/api/".into(), ..HttpRule::default() })[0].help();
        assert_eq!(help, r#"write "/api/.*" for every path that begins so"#);
    }

    #[test]
    fn http_1_and_7_methods_and_headers() {
        let advice = |method: &str, header: &str| {
            let rule = HttpRule { method: method.into(), headers: vec![header.into()], ..HttpRule::default() };
            on_http(&rule).iter().map(Advice::rule).collect::<Vec<_>>()
        };
        assert_eq!(advice("get", "X-A: 1"), ["HTTP-1"]);
        assert_eq!(advice("(?i)get", "X-A"), [""; 0]);
        assert_eq!(advice("GET", "X-A:1"), ["HTTP-7"]);
        assert_eq!(advice("PUT|POST", "X-App-Token: .*"), ["HTTP-7"]);
        assert_eq!(advice("", "Content-Type: application/json"), [""; 0]);
    }

    #[test]
    fn kaf_2_and_6() {
        let rule = |api_key: &str, topic: &str| KafkaRule {
            api_key: api_key.into(),
            topic: topic.into(),
            ..KafkaRule::default()
        };
        let rules = |list: &[KafkaRule]| on_kafka(list).iter().map(|(_, advice)| advice.rule()).collect::<Vec<_>>();
        assert_eq!(rules(&[rule("fetch", "payments"), rule("fetch", "notifications")]), ["KAF-2", "KAF-2"]);
        assert_eq!(rules(&[rule("apiversions", ""), rule("metadata", ""), rule("produce", "x")]), [""; 0]);
        assert_eq!(rules(&[KafkaRule { role: "consume".into(), ..KafkaRule::default() }]), [""; 0]);
        assert_eq!(rules(&[rule("createtopics", "x")]), ["KAF-6"]);
        let (_, advice) = &on_kafka(&[rule("fetch", "payments")])[0];
        assert_eq!(advice.help(), "write role: consume instead");
    }

    #[test]
    fn dns_and_server_names() {
        let on_pattern = |pattern: &str| {
            let rule = DnsRule { match_pattern: pattern.into(), ..DnsRule::default() };
            on_dns(&rule).iter().map(Advice::rule).collect::<Vec<_>>()
        };
        assert_eq!(on_pattern("*.example.com"), [""; 0]);
        assert_eq!(on_pattern("*"), [""; 0]);
        assert_eq!(on_pattern("*example.com"), ["DNS-12"]);
        assert_eq!(on_pattern("**.example.com"), ["DNS-7"]);
        assert_eq!(on_pattern("a..com"), ["DNS-3"]);
        assert_eq!(on_pattern(""), ["DNS-6"]);
        assert_eq!(on_server_name("a.example.com"), None);
        for name in ["*.example.com", "a.example.com.", "bücher.de"] {
            assert_eq!(on_server_name(name).map(|advice| advice.rule()), Some("TLS-1"), "{name}");
        }
    }
}
