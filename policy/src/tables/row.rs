//! What a policy says of one peer, for 64 bands.

use serde::{Deserialize, Serialize};

/// How many bands a row has.
pub const BANDS_PER_ROW: u16 = 64;

/// What a rule says about the flows it covers; the greater one counts (SEM-43, §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// They pass.
    Allow,
    /// They pass through the proxy.
    Redirect,
    /// They are refused.
    Deny,
}

/// The classes of 64 bands: bit `band % 64` of `low` and of `high`. 00: nothing is said, 01: allow, 10: redirect,
/// 11: deny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row {
    /// The lower bit of each.
    pub low: u64,
    /// The upper bit of each.
    pub high: u64,
}

impl Class {
    /// In order.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Redirect, Self::Deny];
}

impl Row {
    /// Whether nothing is said of any band: such a row is not stored.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.low == 0 && self.high == 0
    }

    /// What is said of a band, which is one of this row's.
    #[must_use]
    pub const fn class(&self, band: u16) -> Option<Class> {
        let bit = band % BANDS_PER_ROW;
        match (self.high >> bit & 1, self.low >> bit & 1) {
            (0, 0) => None,
            (0, _) => Some(Class::Allow),
            (_, 0) => Some(Class::Redirect),
            _ => Some(Class::Deny),
        }
    }

    /// Says a class of a band, whatever was said before.
    pub const fn set(&mut self, band: u16, class: Class) {
        let bit = 1 << (band % BANDS_PER_ROW);
        let (low, high) = match class {
            Class::Allow => (bit, 0),
            Class::Redirect => (0, bit),
            Class::Deny => (bit, bit),
        };
        self.low = self.low & !bit | low;
        self.high = self.high & !bit | high;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_bits_of_the_contract() {
        let mut row = Row::default();
        row.set(1, Class::Deny);
        row.set(1, Class::Allow);
        row.set(64 + 2, Class::Redirect);
        row.set(128 + 63, Class::Deny);
        assert_eq!(row, Row { low: 1 << 63 | 2, high: 1 << 63 | 4 });
        let classes = [0, 1, 2, 63].map(|band| row.class(band));
        assert_eq!(classes, [None, Some(Class::Allow), Some(Class::Redirect), Some(Class::Deny)]);
        assert!(!row.is_empty() && Row::default().is_empty());
    }
}
