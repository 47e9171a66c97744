//! Which bands of ports a port lies in.

use std::ops::Range;

use super::entry::Ports;

/// The ports of each protocol, cut wherever a band begins or ends.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    /// Protocol number, and which of `starts` are its own.
    protocols: Vec<(u8, Range<usize>)>,
    /// The first port of each piece, which ends before the next one.
    starts: Vec<u32>,
    /// Where the bands of each piece begin in `bands`; one more at the end.
    offsets: Vec<u32>,
    bands: Vec<u32>,
}

impl Intervals {
    /// `bands` are in order, each once, and those for every protocol are not looked at.
    pub(super) fn new(bands: &[Ports]) -> Self {
        let mut intervals = Self { offsets: vec![0], ..Self::default() };
        let mut number = 0;
        for group in bands.chunk_by(|one, other| one.protocol == other.protocol) {
            let numbers = number..;
            number += u32::try_from(group.len()).expect("a rule set has fewer than 2^32 intervals of ports");
            if group[0].protocol != 0 {
                intervals.add(group, numbers);
            }
        }
        intervals
    }

    fn add(&mut self, bands: &[Ports], numbers: impl Iterator<Item = u32>) {
        let ends = |band: &Ports| [u32::from(band.first), u32::from(band.last) + 1];
        let mut starts: Vec<u32> = bands.iter().flat_map(ends).collect();
        starts.sort_unstable();
        starts.dedup();
        let piece = |port: u32| starts.partition_point(|start| *start < port);
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); starts.len()];
        for (band, number) in bands.iter().zip(numbers) {
            let [first, end] = ends(band);
            lists[piece(first)..piece(end)].iter_mut().for_each(|list| list.push(number));
        }
        let from = self.starts.len();
        self.starts.append(&mut starts);
        self.protocols.push((bands[0].protocol, from..self.starts.len()));
        for list in lists {
            self.bands.extend(list);
            self.offsets.push(u32::try_from(self.bands.len()).expect("there is memory for fewer than 2^32"));
        }
    }

    /// The numbers of the bands around a port.
    pub(super) fn around(&self, protocol: u8, port: u16) -> &[u32] {
        let Some((_, own)) = self.protocols.iter().find(|(number, _)| *number == protocol) else { return &[] };
        let starts = &self.starts[own.clone()];
        let Some(piece) = starts.partition_point(|start| *start <= u32::from(port)).checked_sub(1) else { return &[] };
        let piece = own.start + piece;
        &self.bands[self.offsets[piece] as usize..self.offsets[piece + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_lies_in_every_band_around_it() {
        let band = |protocol, first, last| Ports { protocol, first, last };
        let bands = [
            Ports::EVERYTHING,
            band(6, 0, 65535),
            band(6, 80, 80),
            band(6, 80, 90),
            band(6, 85, 100),
            band(17, 53, 53),
        ];
        let intervals = Intervals::new(&bands);
        for protocol in [1, 6, 17] {
            for port in [0, 52, 53, 54, 79, 80, 81, 84, 85, 90, 91, 100, 101, 65535] {
                let expected: Vec<u32> = (1..6)
                    .filter(|number| {
                        let band = bands[*number as usize];
                        band.protocol == protocol && (band.first..=band.last).contains(&port)
                    })
                    .collect();
                assert_eq!(intervals.around(protocol, port), expected, "{protocol} {port}");
            }
        }
    }
}
