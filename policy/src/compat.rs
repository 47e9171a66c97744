//! Where Ringfence deliberately differs from Cilium, one switch takes the differences back.

/// Whose reading of an object counts where the two differ (`docs/deviations.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compat {
    /// The reading that stays closed.
    #[default]
    Ringfence,
    /// What Cilium does, fail-open readings included.
    Cilium,
}
