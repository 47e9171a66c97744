//! Keys and values as plain bytes for aya.

use aya::Pod;
use ringfence_ebpf_common::{
    BandCounter, Directory, EndpointValue, EpochCell, Event, ExactCell, FlowCell, FlowTable, Index, Page, PortsKey,
    RangeKey,
};

/// A type of the maps' layout, in a shape that aya accepts.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

/// # Safety
/// Any bytes are a value, every byte of a value is initialised, and there is no pointer in it.
pub(super) unsafe trait Layout: Copy + 'static {}

macro_rules! layout {
    ($($type:ty),* $(,)?) => {
        // SAFETY: `repr(C)`, integers only, no padding (held by `layout_has_no_padding`).
        $(unsafe impl Layout for $type {})*
    };
}

layout!(
    BandCounter,
    Directory,
    EndpointValue,
    EpochCell,
    Event,
    ExactCell,
    FlowCell,
    FlowTable,
    Index,
    Page,
    PortsKey,
    RangeKey,
);

// SAFETY: `Layout` promises it.
unsafe impl<T: Layout> Pod for Raw<T> {}

/// Bytes of a map or ring as a value; none if they are too few.
pub(super) fn from_bytes<T: Layout>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, and `Layout` promises that any are a value.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_ebpf_common::{
        Address, AddressValue, FlowKey, FragmentKey, FragmentPorts, FragmentValue, RowKey, RowValue,
    };

    #[test]
    fn layout_has_no_padding() {
        assert_eq!(size_of::<Address>(), 16);
        assert_eq!(size_of::<AddressValue>(), 4 + 4);
        assert_eq!(size_of::<RangeKey>(), 4 + 16);
        assert_eq!(size_of::<EndpointValue>(), 4 * 4);
        assert_eq!(size_of::<PortsKey>(), 4 + 1 + 1 + 2);
        assert_eq!(size_of::<Directory>(), 512);
        assert_eq!(size_of::<Page>(), 512);
        assert_eq!(size_of::<RowKey>(), 4 + 4 + 2 + 1 + 1);
        assert_eq!(size_of::<RowValue>(), 8 + 8);
        assert_eq!(size_of::<EpochCell>(), 64);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 8);
        assert_eq!(size_of::<FlowCell>(), 16 + 16 + 2 * 8 + 4 * 4);
        assert_eq!(size_of::<FlowTable>(), 5 * 8 + 2 * 4);
        assert_eq!(size_of::<ExactCell>(), 4 * 8);
        assert_eq!(size_of::<Index>(), 4 * 8 + 2 * 4 + 2 * 4 + 4 + 4 + 8);
        assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 + 4);
        assert_eq!(size_of::<FragmentPorts>(), 8 + 4 * 2);
        assert_eq!(size_of::<FragmentValue>(), 40 + 16);
        assert_eq!(size_of::<BandCounter>(), 4 * 8);
        assert_eq!(size_of::<Event>(), 8 + 8 + 40 + 4 * 4 + 2 + 2 + 4);
    }
}
