//! What a decision reads and writes.

use crate::{
    answer::{Answer, Question},
    layout::{
        Address, AddressValue, EndpointValue, FlowKey, FlowValue, FragmentKey, FragmentPorts, FragmentValue, PortsKey,
        RowKey, RowValue,
    },
    reason::Tally,
    table::Crowd,
};

/// The maps of one set, and what both sets share.
pub trait State {
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
    /// Reads this CPU's answer to a question, if it remembers that.
    fn answer(&self, question: &Question, answer: &mut Answer) -> bool;
    /// Remembers an answer, in the place of another one.
    fn keep_answer(&mut self, question: &Question, answer: &Answer);
    /// Where the connection with this key is looked for.
    fn home(&self, key: &FlowKey) -> u32;
    /// Reads the connection with this key, if it is known.
    fn flow(&self, home: u32, value: &mut FlowValue) -> bool;
    /// Writes a connection under its own key, in the place of what was `found` under that; a full table may forget another one.
    fn set_flow(&mut self, home: u32, value: &FlowValue, found: bool, crowd: &mut Crowd);
    /// Forgets a connection.
    fn remove_flow(&mut self, home: u32, key: &FlowKey);
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
