//! `[KIND/][NAMESPACE/]NAME`: how a person names a policy.

use anyhow::Context;
use ringfence_policy::record::{PolicyKey, PolicyKind};

/// What a person typed: parts that are left out match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    kind: Option<PolicyKind>,
    namespace: Option<String>,
    name: String,
    text: String,
}

impl Reference {
    /// Parses a reference.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let shape = || {
            format!("{text:?} does not name a policy: write [KIND/][NAMESPACE/]NAME, for example cnp/shop/allow-web")
        };
        anyhow::ensure!(!parts.iter().any(|part| part.is_empty()), shape());
        let (kind, namespace, name) = match parts.as_slice() {
            [name] => (None, None, *name),
            // A kind wins over a namespace of the same name, as with kubectl.
            [first, name] => match parse_kind(first) {
                Some(kind) => (Some(kind), None, *name),
                None => (None, Some(*first), *name),
            },
            [kind, namespace, name] => (Some(parse_kind(kind).with_context(shape)?), Some(*namespace), *name),
            _ => anyhow::bail!(shape()),
        };
        Ok(Self { kind, namespace: namespace.map(str::to_owned), name: name.to_owned(), text: text.to_owned() })
    }

    /// Parses several; where the first word is a kind, the others are of that kind.
    pub(crate) fn parse_all(words: &[String]) -> anyhow::Result<Vec<Self>> {
        let Some((kind, names)) = words.split_first().and_then(|(first, names)| Some((parse_kind(first)?, names)))
        else {
            return words.iter().map(|word| Self::parse(word)).collect();
        };
        let of_kind = |name: &String| match Self::parse(name)? {
            Self { kind: Some(_), .. } => anyhow::bail!("{name:?} names a kind, after {} did already", words[0]),
            reference => Ok(Self { kind: Some(kind), ..reference }),
        };
        names.iter().map(of_kind).collect()
    }

    /// The one key that is meant.
    pub(crate) fn resolve<'a>(&self, keys: impl Iterator<Item = &'a PolicyKey>) -> anyhow::Result<&'a PolicyKey> {
        let found: Vec<&PolicyKey> = keys.filter(|key| self.matches(key)).collect();
        match found.as_slice() {
            [key] => Ok(key),
            [] => anyhow::bail!("policy {:?} does not exist", self.text),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                anyhow::bail!("{:?} is not enough to tell which policy is meant: {}", self.text, names.join(", "))
            }
        }
    }

    fn matches(&self, key: &PolicyKey) -> bool {
        let namespace = key.namespace.as_ref().map(|namespace| namespace.as_str());
        key.name.as_str() == self.name
            && self.kind.is_none_or(|kind| kind == key.kind)
            && self.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted))
    }
}

/// A kind, as kubectl takes it: singular, plural or short.
pub(crate) fn parse_kind(text: &str) -> Option<PolicyKind> {
    match text.to_ascii_lowercase().as_str() {
        "cnp" | "ciliumnetworkpolicy" | "ciliumnetworkpolicies" => Some(PolicyKind::CiliumNetworkPolicy),
        "ccnp" | "ciliumclusterwidenetworkpolicy" | "ciliumclusterwidenetworkpolicies" => {
            Some(PolicyKind::CiliumClusterwideNetworkPolicy)
        }
        "netpol" | "networkpolicy" | "networkpolicies" => Some(PolicyKind::NetworkPolicy),
        _ => None,
    }
}

/// How kubectl names an object: `ciliumnetworkpolicy/shop/allow-web`.
pub(crate) fn display(key: &PolicyKey) -> String {
    let kind = key.kind.to_string().to_ascii_lowercase();
    match &key.namespace {
        Some(namespace) => format!("{kind}/{namespace}/{}", key.name),
        None => format!("{kind}/{}", key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::name::Name;

    fn key(kind: PolicyKind, namespace: Option<&str>, name: &str) -> PolicyKey {
        PolicyKey { kind, namespace: namespace.map(|n| Name::new(n).unwrap()), name: Name::new(name).unwrap() }
    }

    #[test]
    fn parts_that_are_left_out_match_anything_but_must_be_unambiguous() {
        let keys = [
            key(PolicyKind::CiliumNetworkPolicy, Some("shop"), "web"),
            key(PolicyKind::CiliumNetworkPolicy, Some("dev"), "web"),
            key(PolicyKind::CiliumClusterwideNetworkPolicy, None, "base"),
        ];
        let resolve = |text: &str| Reference::parse(text).unwrap().resolve(keys.iter()).ok().map(display);
        assert_eq!(resolve("base").as_deref(), Some("ciliumclusterwidenetworkpolicy/base"));
        assert_eq!(resolve("shop/web").as_deref(), Some("ciliumnetworkpolicy/shop/web"));
        assert_eq!(resolve("cnp/dev/web").as_deref(), Some("ciliumnetworkpolicy/dev/web"));
        assert_eq!(resolve("web"), None, "two of that name");
        assert_eq!(resolve("ccnp/web"), None);
        let words = |words: &[&str]| {
            Reference::parse_all(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).map(|references| {
                references.iter().map(|reference| reference.resolve(keys.iter()).ok().map(display)).collect::<Vec<_>>()
            })
        };
        let [shop, dev] = ["ciliumnetworkpolicy/shop/web", "ciliumnetworkpolicy/dev/web"].map(|n| Some(n.to_owned()));
        assert_eq!(words(&["cnp", "shop/web", "dev/web"]).unwrap(), [shop.clone(), dev.clone()]);
        assert_eq!(words(&["shop/web", "cnp/dev/web"]).unwrap(), [shop, dev]);
        assert_eq!(words(&["netpol", "shop/web"]).unwrap(), [None]);
        assert!(words(&["cnp", "ccnp/base"]).is_err());
        for bad in ["", "a/", "/a", "x/y/z", "a/b/c/d"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
