//! What is told about packets: new connections, changed verdicts, drops.

use crate::{decide::Work, layout::FlowKey, packet::Hook};

/// One entry of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Event {
    /// Coarse monotonic time.
    pub time_ns: u64,
    /// The revision that judged the packet.
    pub revision: u64,
    /// The connection, as the endpoint sees it; zeros if the packet was not understood.
    pub key: FlowKey,
    /// Interface index of the endpoint whose judgement this is.
    pub endpoint: u32,
    /// Its identity; 0 if policy was not asked.
    pub identity: u32,
    /// The other side's identity; 0 if policy was not asked.
    pub peer_identity: u32,
    /// The policy that was asked, or 0.
    pub policy: u32,
    /// What policy was asked about.
    pub port: u16,
    /// The band of the port.
    pub band: u16,
    /// `Reason`.
    pub reason: u8,
    /// Who sent the packet: `EGRESS` if the endpoint did.
    pub side: u8,
    /// Who began the connection: `EGRESS` if the endpoint did.
    pub direction: u8,
    /// `EVENT_…`
    pub flags: u8,
}

/// `Event::flags`: the shadow policy would decide otherwise.
pub const EVENT_SHADOW_DIFFERS: u8 = 1;
/// `Event::flags`: a known connection was cut.
pub const EVENT_CUT: u8 = 2;

/// How many events one CPU may write: `PER_SECOND`, and as many at once after a quiet second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Bucket {
    /// Time that may still be spent.
    pub saved_ns: u64,
    /// When it was filled last.
    pub filled_ns: u64,
}

impl Bucket {
    /// Events per second and CPU.
    pub const PER_SECOND: u64 = 20_000;
    const COST_NS: u64 = 1_000_000_000 / Self::PER_SECOND;
    const MOST_NS: u64 = 1_000_000_000;

    /// Whether one more event may be written now.
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64) -> bool {
        let saved = self.saved_ns.saturating_add(now_ns.saturating_sub(self.filled_ns));
        let saved = if saved > Self::MOST_NS { Self::MOST_NS } else { saved };
        self.filled_ns = if now_ns > self.filled_ns { now_ns } else { self.filled_ns };
        if saved < Self::COST_NS {
            self.saved_ns = saved;
            return false;
        }
        self.saved_ns = saved - Self::COST_NS;
        true
    }
}

impl Event {
    /// What is told about a decision.
    #[must_use]
    #[inline(always)]
    pub fn new(revision: u64, hook: Hook, work: &Work) -> Self {
        let (subject, decision) = (work.subject(), &work.decision);
        // The refusing end may be the other one than that whose hook it is.
        let side = if decision.at_receiver { hook.other_side() } else { hook.side() };
        Self {
            time_ns: work.now_ns,
            revision,
            key: work.packet.flow_key(side),
            endpoint: subject.endpoint,
            identity: subject.identity,
            peer_identity: subject.peer_identity,
            policy: subject.policy,
            port: subject.port,
            band: subject.band,
            reason: decision.reason as u8,
            side,
            direction: subject.direction,
            flags: subject.flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_second_of_events_through_and_then_their_rate() {
        let mut bucket = Bucket::default();
        let take = |bucket: &mut Bucket, now_ns| (0..30_000).filter(|_| bucket.take(now_ns)).count();
        assert_eq!(take(&mut bucket, 5_000_000_000), 20_000);
        assert_eq!(take(&mut bucket, 5_000_000_000), 0);
        assert_eq!(take(&mut bucket, 5_001_000_000), 20);
        assert_eq!(take(&mut bucket, 4_000_000_000), 0, "another clock's past buys nothing");
        assert_eq!(take(&mut bucket, 60_000_000_000), 20_000);
    }
}
