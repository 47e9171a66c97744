//! Numbers that a gateway may give to label sets while it is cut off.

use serde::{Deserialize, Serialize};

use crate::{identity::Identity, name::Name};

/// The most numbers of one block.
pub const MAX_BLOCK_NUMBERS: u32 = 4096;

/// Consecutive numbers of a cluster that the store gives to nobody, and one gateway may give to label sets on its own. It
/// gives each of them out once, in order, beginning behind those that are spent; the store hears of it by
/// `AdoptFromBlock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityBlock {
    /// Owner.
    pub cluster: Name,
    /// The gateway; has one block at a time.
    pub holder: Name,
    /// The first number.
    pub first: Identity,
    /// How many, 1 to [`MAX_BLOCK_NUMBERS`].
    pub count: u32,
    /// How many, from the first on, must not be given out any more.
    pub spent: u32,
}

impl IdentityBlock {
    /// Which of its numbers it is, counted from 0; none for other numbers.
    #[must_use]
    pub fn position(&self, identity: Identity) -> Option<u32> {
        let position = identity.bits().checked_sub(self.first.bits())?;
        (position < self.count).then_some(position)
    }

    /// Its numbers.
    pub fn numbers(&self) -> impl Iterator<Item = Identity> + use<> {
        let first = self.first.bits();
        (first..first + self.count).map(Identity::from_bits)
    }
}
