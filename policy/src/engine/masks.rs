//! The classes of 64 bands, as sets.

use crate::tables::{BANDS_PER_ROW, Class, Row};

/// Which of 64 bands something is said of, by class. A band may be in several: the greatest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks([u64; 3]);

impl Masks {
    pub(super) const fn add(&mut self, class: Class, bands: u64) {
        self.0[class as usize] |= bands;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }

    /// Of these bands nothing is said but that they are allowed.
    pub(super) const fn only_allow(&mut self, bands: u64) {
        self.0 = [self.0[0] | bands, self.0[1] & !bands, self.0[2] & !bands];
    }

    /// What both say.
    pub(super) const fn join(&mut self, other: Self) {
        let mut class = 0;
        while class < 3 {
            self.0[class] |= other.0[class];
            class += 1;
        }
    }

    /// Without what is said of anyone anyway, or more.
    pub(super) const fn beyond(self, any: Self) -> Self {
        let [allow, redirect, deny] = self.0;
        let [any_allow, any_redirect, any_deny] = any.0;
        Self([allow & !(any_allow | any_redirect | any_deny), redirect & !(any_redirect | any_deny), deny & !any_deny])
    }

    pub(super) const fn row(self) -> Row {
        let [allow, redirect, deny] = self.0;
        let redirect = redirect & !deny;
        Row { low: deny | allow & !redirect, high: deny | redirect }
    }
}

/// The bit of a band in its row.
pub(super) const fn bit(band: u16) -> u64 {
    1 << (band % BANDS_PER_ROW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_class_counts_and_what_anyone_has_is_not_repeated() {
        let mut masks = Masks::default();
        masks.add(Class::Allow, 0b1111);
        masks.add(Class::Redirect, 0b0110);
        masks.add(Class::Deny, 0b0100);
        let classes = |row: Row| [0, 1, 2, 3, 4].map(|band| row.class(band));
        let [allow, redirect, deny] = Class::ALL.map(Some);
        assert_eq!(classes(masks.row()), [allow, redirect, deny, allow, None]);
        let mut any = Masks::default();
        any.add(Class::Redirect, 0b0011);
        assert_eq!(classes(masks.beyond(any).row()), [None, None, deny, allow, None]);
    }
}
