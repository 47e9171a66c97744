//! A table's edit as one write to a map, and its undoing.

use ringfence_ebpf_common::{Address, AddressValue, EndpointValue, RuleKey, RuleValue};
use ringfence_policy::tables::{Edit, TableDiff};

use crate::{
    encode::{self, PrefixedRange},
    error::Table,
};

/// One write to one map: a value, or the removal of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Address(Address, Option<AddressValue>),
    Range(PrefixedRange, Option<u32>),
    Endpoint(u32, Option<EndpointValue>),
    Rule(RuleKey, Option<RuleValue>),
}

/// A write and the write that takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) forward: Write,
    pub(crate) backward: Write,
}

impl Write {
    pub(crate) const fn table(&self) -> Table {
        match self {
            Self::Address(..) => Table::Addresses,
            Self::Range(..) => Table::Ranges,
            Self::Endpoint(..) => Table::Endpoints,
            Self::Rule(..) => Table::Rules,
        }
    }

    const fn removes(&self) -> bool {
        matches!(self, Self::Address(_, None) | Self::Range(_, None) | Self::Endpoint(_, None) | Self::Rule(_, None))
    }
}

/// The writes that carry out a diff. Removals come first, so that a full table can exchange entries.
pub(crate) fn plan(diff: &TableDiff) -> Vec<Step> {
    let mut steps = Vec::with_capacity(diff.len());
    for edit in &diff.addresses {
        let key = encode::address(edit.key);
        steps.push(step(edit, |value| Write::Address(key, value.map(encode::address_value))));
    }
    for edit in &diff.ranges {
        let key = encode::range(&edit.key);
        steps.push(step(edit, |value| Write::Range(key, value.map(|identity| identity.bits()))));
    }
    for edit in &diff.endpoints {
        let key = edit.key.0;
        steps.push(step(edit, |value| Write::Endpoint(key, value.map(encode::endpoint_value))));
    }
    for edit in &diff.rules {
        let key = encode::rule_key(&edit.key);
        steps.push(step(edit, |value| Write::Rule(key, value.map(encode::rule_value))));
    }
    steps.sort_by_key(|step| !step.forward.removes());
    steps
}

fn step<K, V>(edit: &Edit<K, V>, write: impl Fn(Option<&V>) -> Write) -> Step {
    Step { forward: write(edit.after.as_ref()), backward: write(edit.before.as_ref()) }
}
