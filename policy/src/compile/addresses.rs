//! Who has which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{problem::Problem, tracked::Tracked};
use crate::{
    identity::Identity,
    record::RecordKey,
    tables::{AddressEntry, Edit, EndpointId},
};

/// Addresses with the records that claim them. One that several claim is `unknown` until all but one give it up.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    claims: BTreeMap<IpAddr, BTreeMap<RecordKey, AddressEntry>>,
    contested: BTreeSet<IpAddr>,
    entries: Tracked<IpAddr, AddressEntry>,
}

impl Addresses {
    /// A record has these addresses from now on; one may be listed twice.
    pub(super) fn claim(
        &mut self,
        owner: &RecordKey,
        addresses: &[IpAddr],
        identity: Identity,
        endpoint: Option<EndpointId>,
    ) {
        for address in addresses {
            let claims = self.claims.entry(*address).or_default();
            claims.insert(owner.clone(), AddressEntry { identity, endpoint });
            self.settle(*address);
        }
    }

    /// A record has these addresses no more.
    pub(super) fn give_up(&mut self, owner: &RecordKey, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(owner);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
            self.settle(*address);
        }
    }

    pub(super) const fn entries(&self) -> &BTreeMap<IpAddr, AddressEntry> {
        self.entries.current()
    }

    pub(super) fn take_edits(&mut self) -> Vec<Edit<IpAddr, AddressEntry>> {
        self.entries.take_edits()
    }

    pub(super) fn conflicts(&self) -> impl Iterator<Item = Problem> {
        self.contested.iter().filter_map(|address| {
            let mut owners = self.claims.get(address)?.keys().cloned();
            Some(Problem::AddressConflict { address: *address, first: owners.next()?, second: owners.next()? })
        })
    }

    fn settle(&mut self, address: IpAddr) {
        let claims = self.claims.get(&address);
        let contested = claims.is_some_and(|claims| claims.len() > 1);
        if contested {
            self.contested.insert(address);
        } else {
            self.contested.remove(&address);
        }
        let entry = claims.and_then(|claims| claims.values().next()).copied();
        let unknown = AddressEntry { identity: Identity::UNKNOWN, endpoint: None };
        self.entries.set(address, if contested { Some(unknown) } else { entry });
    }
}
