//! What policies say, and what a datapath's map holds of it.

use crate::{
    flow::{Direction, Verdict},
    identity::Identity,
};

pub use crate::tables::Class;

/// What is decided about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It passes.
    Allow,
    /// It passes through the proxy.
    Redirect,
    /// Nothing allows it in an enforced direction.
    DenyDefault,
    /// A deny rule matches it.
    DenyExplicit,
}

/// How ports stand in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortForm {
    /// As aligned blocks whose size is a power of two: one prefix each (PORT-2).
    Blocks,
    /// As the intervals that rules write.
    Ranges,
}

/// The destination ports of a protocol from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// IP protocol number; 0 for every protocol, and then every port.
    pub protocol: u8,
    /// The smallest.
    pub first: u16,
    /// The largest.
    pub last: u16,
}

/// Which flows an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// Seen from the subject.
    pub direction: Direction,
    /// `Identity::UNKNOWN` for any peer.
    pub peer: Identity,
    /// On which ports.
    pub ports: Ports,
}

/// One entry of a subject's map. Flows without one are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Which flows.
    pub key: EntryKey,
    /// What happens to them.
    pub class: Class,
}

/// How the entries of some subjects change. Entries are blocks of ports ([`PortForm::Blocks`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntriesDiff {
    /// Whose: subjects with one policy change alike.
    pub subjects: Vec<Identity>,
    /// New entries, and entries with another class, in order.
    pub put: Vec<Entry>,
    /// Entries that are no more, in order.
    pub removed: Vec<EntryKey>,
}

impl Ports {
    /// Every port of every protocol.
    pub const EVERYTHING: Self = Self { protocol: 0, first: 0, last: u16::MAX };

    /// Whether all of another one's flows are among its own.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.protocol == 0 || self.protocol == other.protocol && self.first <= other.first && other.last <= self.last
    }

    /// The largest aligned blocks that make it up, in order (PORT-2).
    pub fn blocks(self) -> impl Iterator<Item = Self> {
        let mut next = Some(u32::from(self.first));
        std::iter::from_fn(move || {
            let first = next?;
            let left = u32::from(self.last) + 1 - first;
            let aligned = if first == 0 { 1 << 16 } else { 1 << first.trailing_zeros() };
            let size = if aligned <= left { aligned } else { 1 << left.ilog2() };
            next = (size < left).then_some(first + size);
            let (first, last) = (low_bits(first), low_bits(first + size - 1));
            Some(Self { protocol: self.protocol, first, last })
        })
    }

    /// Whether one of its own blocks is this one, which it covers.
    pub(super) fn has_block(&self, block: &Self) -> bool {
        let size = u32::from(block.last) - u32::from(block.first) + 1;
        if size > u32::from(u16::MAX) {
            return self.protocol == block.protocol;
        }
        // The block of twice the size around it does not fit.
        let first = u32::from(block.first) & !(2 * size - 1);
        let twice = Self { protocol: block.protocol, first: low_bits(first), last: low_bits(first + 2 * size - 1) };
        self.protocol == block.protocol && !self.covers(&twice)
    }
}

/// Of a number that is a port.
fn low_bits(port: u32) -> u16 {
    u16::try_from(port).expect("ports and their blocks end at 65535")
}

impl EntryKey {
    pub(super) const fn new(direction: Direction, peer: Identity, ports: Ports) -> Self {
        Self { direction, peer, ports }
    }
}

impl Outcome {
    /// What the rules that cover a flow come to; none of them if nothing covers it.
    #[must_use]
    pub const fn of(class: Option<Class>) -> Self {
        match class {
            None => Self::DenyDefault,
            Some(Class::Allow) => Self::Allow,
            Some(Class::Redirect) => Self::Redirect,
            Some(Class::Deny) => Self::DenyExplicit,
        }
    }

    /// The verdict of packets without a proxy; none for those that need one.
    #[must_use]
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Allow => Some(Verdict::Allow),
            Self::Redirect => None,
            Self::DenyDefault => Some(Verdict::DenyDefault),
            Self::DenyExplicit => Some(Verdict::DenyExplicit),
        }
    }
}

impl EntriesDiff {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_2_a_range_is_split_into_aligned_blocks() {
        let tcp = |first, last| Ports { protocol: 6, first, last };
        let split: Vec<(u16, u16)> = tcp(80, 444).blocks().map(|block| (block.first, block.last)).collect();
        let expected =
            [(80, 95), (96, 127), (128, 255), (256, 383), (384, 415), (416, 431), (432, 439), (440, 443), (444, 444)];
        assert_eq!(split, expected);
        assert_eq!(tcp(1, 65534).blocks().count(), 30, "PORT-3");
        assert_eq!(tcp(0, u16::MAX).blocks().collect::<Vec<_>>(), [tcp(0, u16::MAX)]);
        assert_eq!(Ports::EVERYTHING.blocks().collect::<Vec<_>>(), [Ports::EVERYTHING]);
    }

    #[test]
    fn port_2_blocks_know_their_range() {
        for range in [(80, 444), (0, 0), (0, u16::MAX), (65535, 65535), (1, 65534), (0, 32767)] {
            let range = Ports { protocol: 6, first: range.0, last: range.1 };
            for block in range.blocks() {
                assert!(range.covers(&block) && range.has_block(&block), "{range:?} {block:?}");
            }
        }
        let half = Ports { protocol: 6, first: 80, last: 87 };
        assert!(!Ports { protocol: 6, first: 80, last: 95 }.has_block(&half), "it is part of a larger one");
        assert!(!Ports::EVERYTHING.has_block(&half));
    }
}
