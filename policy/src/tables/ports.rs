//! Which band each port of a protocol is in.

use serde::{Deserialize, Serialize};

/// The ports from `first` on, up to the next interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// The smallest port, or message type.
    pub first: u16,
    /// Several intervals may be in one band.
    pub band: u16,
}

/// All 65,536 ports of a protocol as intervals: in order, the first one from port 0 on, no two neighbours in one band,
/// and not every port in band 0, for which no entry is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Interval>", into = "Vec<Interval>")]
pub struct PortsOfProtocol(Box<[Interval]>);

/// Intervals that do not begin with port 0, are not in order, or say no more than that every port is in band 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("intervals of ports begin with port 0, are in order, and have a band other than 0")]
pub struct InvalidIntervals;

impl PortsOfProtocol {
    /// Neighbours in one band are joined.
    #[must_use]
    pub fn new(intervals: impl IntoIterator<Item = Interval>) -> Option<Self> {
        let mut known: Vec<Interval> = Vec::new();
        let mut before = None;
        for interval in intervals {
            if before.map_or(interval.first != 0, |before| before >= interval.first) {
                return None;
            }
            before = Some(interval.first);
            if known.last().is_none_or(|last| last.band != interval.band) {
                known.push(interval);
            }
        }
        let says_something = known.iter().any(|interval| interval.band != 0);
        says_something.then(|| Self(known.into()))
    }

    /// The intervals.
    #[must_use]
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// The band of a port.
    #[must_use]
    pub fn band(&self, port: u16) -> u16 {
        let after = self.0.partition_point(|interval| interval.first <= port);
        after.checked_sub(1).map_or(0, |index| self.0[index].band)
    }
}

impl TryFrom<Vec<Interval>> for PortsOfProtocol {
    type Error = InvalidIntervals;

    fn try_from(intervals: Vec<Interval>) -> Result<Self, InvalidIntervals> {
        Self::new(intervals).ok_or(InvalidIntervals)
    }
}

impl From<PortsOfProtocol> for Vec<Interval> {
    fn from(ports: PortsOfProtocol) -> Self {
        ports.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(intervals: &[(u16, u16)]) -> Option<PortsOfProtocol> {
        PortsOfProtocol::new(intervals.iter().map(|(first, band)| Interval { first: *first, band: *band }))
    }

    #[test]
    fn each_port_is_in_the_interval_that_begins_last_before_it() {
        let ports = ports(&[(0, 0), (80, 1), (81, 1), (90, 0), (65535, 2)]).unwrap();
        let bands = [0, 79, 80, 81, 89, 90, 65534, 65535].map(|port| ports.band(port));
        assert_eq!(bands, [0, 0, 1, 1, 1, 0, 0, 2]);
        assert_eq!(ports.intervals().len(), 4, "neighbours in one band are joined");
    }

    #[test]
    fn what_is_not_all_ports_in_order_is_refused() {
        for wrong in [&[][..], &[(1, 1)], &[(0, 0), (0, 1)], &[(0, 0), (9, 0), (8, 2)], &[(0, 0)], &[(0, 0), (9, 0)]] {
            assert_eq!(ports(wrong), None, "{wrong:?}");
        }
    }
}
