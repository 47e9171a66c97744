//! From the bytes of a set of maps to tables.

use std::fmt::Debug;

use ringfence_ebpf_common as bytes;
use ringfence_policy::{
    identity::Identity,
    tables::{EndpointId, Tables},
};

use crate::{
    encode::{self, PrefixedRange},
    error::{ObserveError, Table},
};

/// Collects entries; an entry that Ringfence cannot have written is an error.
#[derive(Default)]
pub(crate) struct Decoder {
    tables: Tables,
}

impl Decoder {
    pub(crate) fn address(&mut self, key: &bytes::Address, value: &bytes::AddressValue) {
        self.tables.addresses.insert(encode::ip(key), encode::address_entry(value));
    }

    pub(crate) fn range(&mut self, key: &PrefixedRange, identity: u32) -> Result<(), ObserveError> {
        let range = encode::cidr(key).ok_or_else(|| corrupt(Table::Ranges, key))?;
        self.tables.ranges.insert(range, Identity::from_bits(identity));
        Ok(())
    }

    pub(crate) fn endpoint(&mut self, key: u32, value: &bytes::EndpointValue) -> Result<(), ObserveError> {
        let entry = encode::endpoint_entry(value).ok_or_else(|| corrupt(Table::Endpoints, (key, value)))?;
        self.tables.endpoints.insert(EndpointId(key), entry);
        Ok(())
    }

    pub(crate) fn rule(&mut self, key: &bytes::RuleKey, value: &bytes::RuleValue) -> Result<(), ObserveError> {
        let rule = encode::rule_from_key(key).zip(encode::rule_entry(value));
        let (key, entry) = rule.ok_or_else(|| corrupt(Table::Rules, (key, value)))?;
        self.tables.rules.insert(key, entry);
        Ok(())
    }

    pub(crate) fn finish(self) -> Tables {
        self.tables
    }
}

fn corrupt(table: Table, entry: impl Debug) -> ObserveError {
    ObserveError::Corrupt { table, entry: format!("{entry:?}") }
}
