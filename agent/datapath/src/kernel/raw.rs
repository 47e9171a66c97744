//! Keys and values as plain bytes for aya.

use aya::Pod;
use ringfence_ebpf_common::{Address, AddressValue, EndpointValue, EpochCell, RangeKey, RuleKey, RuleValue};

/// A type of the maps' layout, in a shape that aya accepts.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

/// # Safety
/// Any bytes are a value, every byte of a value is initialised, and there is no pointer in it.
pub(super) unsafe trait Layout: Copy + 'static {}

// SAFETY: `repr(C)`, integers only, no padding (held by `layout_has_no_padding`).
unsafe impl Layout for Address {}
// SAFETY: as above.
unsafe impl Layout for AddressValue {}
// SAFETY: as above.
unsafe impl Layout for RangeKey {}
// SAFETY: as above.
unsafe impl Layout for EndpointValue {}
// SAFETY: as above.
unsafe impl Layout for RuleKey {}
// SAFETY: as above.
unsafe impl Layout for RuleValue {}
// SAFETY: as above.
unsafe impl Layout for EpochCell {}

// SAFETY: `Layout` promises it.
unsafe impl<T: Layout> Pod for Raw<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_ebpf_common::{FlowKey, FlowValue};

    #[test]
    fn layout_has_no_padding() {
        assert_eq!(size_of::<Address>(), 16);
        assert_eq!(size_of::<AddressValue>(), 4 + 4);
        assert_eq!(size_of::<RangeKey>(), 4 + 16);
        assert_eq!(size_of::<EndpointValue>(), 4 + 2 + 2);
        assert_eq!(size_of::<RuleKey>(), 4 + 4 + 2 + 1 + 1);
        assert_eq!(size_of::<RuleValue>(), 4);
        assert_eq!(size_of::<EpochCell>(), 64);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 2 + 2 + 1 + 3);
        assert_eq!(size_of::<FlowValue>(), 8 + 4 + 4 + 4 + 1 + 1 + 2);
    }
}
