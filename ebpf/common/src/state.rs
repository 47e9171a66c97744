//! What a decision reads and writes.

use crate::{
    layout::{
        Address, AddressValue, EndpointValue, Flow, FlowKey, FlowValue, FragmentKey, FragmentPorts, FragmentValue,
        PortsKey, RowKey, RowValue,
    },
    reason::Tally,
};

/// The maps of one set, and what both sets share.
pub trait State {
    /// A monotonic clock that may be coarse.
    fn now_ns(&self) -> u64;
    /// Exact address.
    fn address(&self, address: &Address) -> Option<AddressValue>;
    /// Longest prefix: identity bits.
    fn range(&self, address: &Address) -> Option<u32>;
    /// An endpoint of this node by interface index.
    fn endpoint(&self, id: u32) -> Option<EndpointValue>;
    /// The band of a port; 0 if the policy names no port of the protocol.
    fn band(&self, key: &PortsKey, port: u16) -> u16;
    /// A row.
    fn row(&self, key: &RowKey) -> Option<RowValue>;
    /// Reads a connection.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;
    /// Writes a connection under its own key; a full table may forget another one.
    fn set_flow(&mut self, value: &FlowValue);
    /// Forgets a connection.
    fn remove_flow(&mut self, key: &FlowKey);
    /// A connection that this CPU saw lately, if it was judged for this endpoint by this generation and within
    /// `CACHE_TICKS`.
    fn cached(&self, key: &FlowKey, endpoint: u32, generation: u32) -> Option<Cached>;
    /// Remembers a connection for this CPU.
    fn set_cached(&mut self, value: &FlowValue, cached: Cached);
    /// What the first fragment of a datagram said.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers what the first fragment of a datagram says, under its own key.
    fn set_fragment(&mut self, value: &FragmentValue);
    /// The slot that counts for an owner (`band_owner`); 0 if none is free.
    fn counter(&mut self, owner: u64) -> u32;
    /// Counts.
    fn tally(&mut self, tally: Tally);
    /// Makes the compiler write `memory` and read it again. To the kernel's verifier what is read from a map may be
    /// anything, so that it follows one path from here on instead of one for each path that leads here.
    fn settle<T>(memory: &mut T);
}

/// What a cell says of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cached {
    /// As in `CacheCell`.
    pub counter: u32,
    /// As in `CacheCell`.
    pub peer_counter: u32,
    /// Both ends were judged.
    pub both: bool,
}
