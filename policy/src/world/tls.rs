//! The secrets that TLS contexts name (TLS-3, TLS-4).

use std::collections::{BTreeMap, BTreeSet};

use crate::{l7::secret::SecretRef, rule::TlsContext};

/// The items of a secret with an authority, a certificate and its key, where a context names none of its own.
const USUAL_ITEMS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// Which secrets there are, and which items each has. What is in them is not looked at here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSecrets(BTreeMap<SecretRef, BTreeSet<String>>);

impl TlsSecrets {
    /// Adds a secret, or replaces it.
    pub fn insert(&mut self, secret: SecretRef, items: impl IntoIterator<Item = String>) {
        self.0.insert(secret, items.into_iter().collect());
    }

    /// The first item that a context needs and does not have (CONF-6): an item it names, or the certificate and the key
    /// it shows (`terminating`), or the authority it checks servers with.
    #[must_use]
    pub fn missing<'c>(&self, context: &'c TlsContext, terminating: bool) -> Option<&'c str> {
        let secret = SecretRef { namespace: context.namespace.clone(), name: context.name.clone() };
        let items = self.0.get(&secret);
        let needed = [!terminating, terminating, terminating];
        let named = context.items.iter().zip(USUAL_ITEMS).zip(needed);
        let mut wanted = named.filter_map(|((item, usual), needed)| match item.as_str() {
            "" => needed.then_some(usual),
            item => Some(item),
        });
        wanted.find(|item| !items.is_some_and(|items| items.contains(*item)))
    }
}
