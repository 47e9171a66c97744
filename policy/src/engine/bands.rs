//! One direction of a policy: its ports cut into bands, and what is said of whom in each.
//!
//! Rules write intervals of ports that overlap. A *band* is all ports that the same things are said of: it is numbered
//! by its first port, and depends on rules alone, never on who is there. What a selector's peers get is the same for all
//! of them, so it is kept once, as masks over bands, and nothing is spread out by peer and band.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use super::{
    masks::{Masks, bit},
    population::Population,
    selectors::{FAILSAFE, SelectorId, Selectors},
    terms::{Ports, Term},
};
use crate::{
    identity::Identity,
    tables::{BANDS_PER_ROW, Class, Interval, PortsOfProtocol, Row},
};

/// Bands with what is said in them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bands {
    /// For each protocol that rules name ports of.
    pub(super) ports: Vec<(u8, PortsOfProtocol)>,
    /// What is said of anyone, by chunk.
    any: Vec<Masks>,
    /// What is said of a selector's peers beyond that, in order of selector and chunk.
    uses: Vec<Use>,
}

#[derive(Debug, PartialEq, Eq)]
struct Use {
    peers: SelectorId,
    chunk: u16,
    masks: Masks,
}

/// Rules cut the ports into more bands than a row's key can number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its rules cut the ports of one direction into more than 65536 bands: use fewer different ports")]
pub struct TooManyBands;

/// What is said of some ports. Equal ones have one number.
type Said = u32;

impl Bands {
    /// Everything passes (SEM-1).
    pub(super) fn open() -> Self {
        let mut everything = Masks::default();
        everything.add(Class::Allow, bit(0));
        Self { ports: Vec::new(), any: vec![everything], uses: Vec::new() }
    }

    /// `terms` are in order, each once.
    pub(super) fn new(terms: &[Term]) -> Result<Self, TooManyBands> {
        let groups: Vec<&[Term]> = terms.chunk_by(|one, other| one.ports == other.ports).collect();
        let (everywhere, groups) = match groups.split_first() {
            Some((first, rest)) if first[0].ports == Ports::EVERYTHING => (*first, rest),
            _ => (&[][..], &groups[..]),
        };
        let mut numbers: HashMap<Vec<(Class, Option<SelectorId>)>, Said> = HashMap::new();
        let mut said: Vec<&[Term]> = Vec::new();
        let mut number = |group: &'_ [Term]| -> (Said, bool) {
            let content = group.iter().map(|term| (term.class, term.peers)).collect();
            let next = Said::try_from(numbers.len()).expect("there are fewer than 2^32 terms");
            let number = *numbers.entry(content).or_insert(next);
            (number, number == next)
        };
        // Said everywhere, so it cuts nothing: number 0.
        number(everywhere);
        said.push(everywhere);
        let mut written = Vec::new();
        for group in groups {
            let (number, is_new) = number(group);
            if is_new {
                said.push(group);
            }
            if number != 0 {
                written.push((group[0].ports, number));
            }
        }
        let cut = Cut::new(&written)?;
        let chunks = usize::from(cut.last_band / BANDS_PER_ROW) + 1;
        let mut any = vec![Masks::default(); chunks];
        let mut uses = Vec::new();
        let mut failsafe = BandSet::new();
        for (number, terms) in said.iter().enumerate() {
            let masks = if number == 0 { &cut.every_band } else { &cut.bands_of[number - 1] };
            for Term { class, peers, .. } in *terms {
                for (chunk, mask) in masks {
                    match peers {
                        None => any[usize::from(*chunk)].add(*class, *mask),
                        Some(FAILSAFE) => *failsafe.entry(*chunk).or_default() |= mask,
                        Some(peers) => uses.push((*peers, *chunk, *class, *mask)),
                    }
                }
            }
        }
        // Whatever else is said of these ports. No others are in their bands, because this is said of them alone.
        failsafe.iter().for_each(|(chunk, mask)| any[usize::from(*chunk)].only_allow(*mask));
        uses.iter_mut().for_each(|(_, chunk, _, mask)| *mask &= !failsafe.get(chunk).copied().unwrap_or_default());
        let uses = beyond_any(uses, &any);
        Ok(Self { ports: cut.ports, any, uses })
    }

    /// The rows of one peer that selectors select; without any, of any peer. By chunk, none of them empty.
    pub(super) fn rows_of(&self, selecting: &[SelectorId]) -> BTreeMap<u16, Row> {
        let mut masks: BTreeMap<u16, Masks> = BTreeMap::new();
        for selector in selecting {
            for used in &self.uses[self.uses_of(*selector)] {
                masks.entry(used.chunk).or_default().join(used.masks);
            }
        }
        masks.into_iter().map(|(chunk, masks)| (chunk, masks.row())).collect()
    }

    /// Every row: whose, which chunk, and what; in this order.
    pub(super) fn rows(&self, selectors: &Selectors, population: &Population) -> Vec<(Identity, u16, Row)> {
        let any = (0..).zip(&self.any).filter(|(_, masks)| !masks.is_empty());
        let mut rows: Vec<_> = any.map(|(chunk, masks)| (Identity::UNKNOWN, chunk, masks.row())).collect();
        let mut by_chunk: Vec<&Use> = self.uses.iter().collect();
        by_chunk.sort_by_key(|used| used.chunk);
        let mut masks = vec![Masks::default(); if by_chunk.is_empty() { 0 } else { population.slot_count() }];
        let mut touched = Vec::new();
        for uses in by_chunk.chunk_by(|one, other| one.chunk == other.chunk) {
            for used in uses {
                for slot in selectors.selected(used.peers).into_iter().flatten() {
                    let known = &mut masks[slot as usize];
                    if known.is_empty() {
                        touched.push(slot);
                    }
                    known.join(used.masks);
                }
            }
            let row = |slot: u32| {
                let row = std::mem::take(&mut masks[slot as usize]).row();
                (population.identity(slot), uses[0].chunk, row)
            };
            rows.extend(touched.drain(..).map(row));
        }
        rows.sort_unstable_by_key(|(peer, chunk, _)| u64::from(peer.bits()) << 16 | u64::from(*chunk));
        rows
    }

    fn uses_of(&self, selector: SelectorId) -> Range<usize> {
        let from = self.uses.partition_point(|used| used.peers < selector);
        let count = self.uses[from..].iter().take_while(|used| used.peers == selector).count();
        from..from + count
    }
}

/// Joins what is said of a selector's peers in one chunk, and leaves out what is said of anyone.
fn beyond_any(mut said: Vec<(SelectorId, u16, Class, u64)>, any: &[Masks]) -> Vec<Use> {
    said.sort_unstable_by_key(|(peers, chunk, ..)| (*peers, *chunk));
    let mut uses = Vec::new();
    for group in said.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
        let (peers, chunk, ..) = group[0];
        let mut masks = Masks::default();
        group.iter().for_each(|(_, _, class, mask)| masks.add(*class, *mask));
        let masks = masks.beyond(any[usize::from(chunk)]);
        if !masks.is_empty() {
            uses.push(Use { peers, chunk, masks });
        }
    }
    uses
}

/// The bands of one set, as masks by chunk.
type BandSet = BTreeMap<u16, u64>;

/// Ports, cut wherever something else is said.
struct Cut {
    ports: Vec<(u8, PortsOfProtocol)>,
    /// For each `Said` from 1 on: the bands it is said of.
    bands_of: Vec<BandSet>,
    every_band: BandSet,
    last_band: u16,
}

impl Cut {
    /// `written` is in order of protocol.
    fn new(written: &[(Ports, Said)]) -> Result<Self, TooManyBands> {
        let kinds = written.iter().map(|(_, said)| *said).max().unwrap_or(0);
        let mut cut =
            Self { ports: Vec::new(), bands_of: Vec::new(), every_band: BandSet::from([(0, bit(0))]), last_band: 0 };
        cut.bands_of.resize(kinds as usize, BandSet::new());
        let mut bands: HashMap<Vec<Said>, u16> = HashMap::from([(Vec::new(), 0)]);
        for of_protocol in written.chunk_by(|one, other| one.0.protocol == other.0.protocol) {
            let mut edges: Vec<(u32, bool, Said)> = Vec::new();
            for (ports, said) in of_protocol {
                edges.push((u32::from(ports.first), true, *said));
                edges.push((u32::from(ports.last) + 1, false, *said));
            }
            edges.sort_unstable();
            let mut open: BTreeMap<Said, u32> = BTreeMap::new();
            let mut intervals = Vec::with_capacity(edges.len() + 1);
            if edges[0].0 > 0 {
                intervals.push(Interval { first: 0, band: 0 });
            }
            for at in edges.chunk_by(|one, other| one.0 == other.0) {
                for (_, begins, said) in at {
                    let count = open.entry(*said).or_default();
                    *count = if *begins { *count + 1 } else { count.saturating_sub(1) };
                    if *count == 0 {
                        open.remove(said);
                    }
                }
                let Ok(first) = u16::try_from(at[0].0) else { break };
                let band = cut.band(&open, &mut bands)?;
                intervals.push(Interval { first, band });
            }
            // None if what is said of these ports is said everywhere.
            cut.ports.extend(PortsOfProtocol::new(intervals).map(|ports| (of_protocol[0].0.protocol, ports)));
        }
        Ok(cut)
    }

    /// The number of the band of which exactly this is said.
    fn band(&mut self, open: &BTreeMap<Said, u32>, bands: &mut HashMap<Vec<Said>, u16>) -> Result<u16, TooManyBands> {
        let key: Vec<Said> = open.keys().copied().collect();
        if let Some(band) = bands.get(&key) {
            return Ok(*band);
        }
        let band = self.last_band.checked_add(1).ok_or(TooManyBands)?;
        self.last_band = band;
        *self.every_band.entry(band / BANDS_PER_ROW).or_default() |= bit(band);
        for said in &key {
            *self.bands_of[*said as usize - 1].entry(band / BANDS_PER_ROW).or_default() |= bit(band);
        }
        bands.insert(key, band);
        Ok(band)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYONE: Option<SelectorId> = None;

    fn term(protocol: u8, first: u16, last: u16, class: Class, peers: Option<SelectorId>) -> Term {
        Term { ports: Ports { protocol, first, last }, class, peers }
    }

    fn bands(mut terms: Vec<Term>) -> Bands {
        terms.sort_unstable();
        terms.dedup();
        Bands::new(&terms).unwrap()
    }

    fn intervals(bands: &Bands) -> Vec<(u8, Vec<(u16, u16)>)> {
        let pairs = |ports: &PortsOfProtocol| ports.intervals().iter().map(|at| (at.first, at.band)).collect();
        bands.ports.iter().map(|(protocol, ports)| (*protocol, pairs(ports))).collect()
    }

    #[test]
    fn ports_of_which_the_same_is_said_are_one_band() {
        let web = |protocol, port| term(protocol, port, port, Class::Allow, Some(1));
        let bands = bands(vec![web(6, 80), web(6, 443), web(17, 443), term(6, 400, 500, Class::Deny, Some(2))]);
        let tcp = vec![(0, 0), (80, 1), (81, 0), (400, 2), (443, 3), (444, 2), (501, 0)];
        assert_eq!(intervals(&bands), [(6, tcp), (17, vec![(0, 0), (443, 1), (444, 0)])]);
        assert_eq!(bands.rows_of(&[1]), BTreeMap::from([(0, Row { low: 0b1010, high: 0 })]));
        assert_eq!(bands.rows_of(&[2]), BTreeMap::from([(0, Row { low: 0b1100, high: 0b1100 })]));
        assert_eq!(bands.rows_of(&[1, 2]), BTreeMap::from([(0, Row { low: 0b1110, high: 0b1100 })]));
        assert_eq!(bands.rows_of(&[3]), BTreeMap::new());
    }

    #[test]
    fn a_range_costs_one_band_and_what_is_said_everywhere_none() {
        let bands = bands(vec![
            term(0, 0, u16::MAX, Class::Allow, Some(7)),
            term(6, 1, 65534, Class::Allow, Some(8)),
            term(17, 5, 9, Class::Allow, Some(7)),
        ]);
        assert_eq!(intervals(&bands), [(6, vec![(0, 0), (1, 1), (65535, 0)])]);
        assert_eq!(bands.rows_of(&[7]), BTreeMap::from([(0, Row { low: 0b11, high: 0 })]));
        assert_eq!(bands.rows_of(&[8]), BTreeMap::from([(0, Row { low: 0b10, high: 0 })]));
    }

    #[test]
    fn what_anyone_may_is_not_repeated_for_a_peer() {
        let bands = bands(vec![
            term(6, 80, 80, Class::Allow, EVERYONE),
            term(6, 80, 80, Class::Allow, Some(1)),
            term(6, 80, 80, Class::Redirect, Some(2)),
            term(6, 81, 81, Class::Deny, EVERYONE),
            term(6, 81, 81, Class::Deny, Some(2)),
        ]);
        assert_eq!(bands.any.iter().map(|any| any.row()).collect::<Vec<_>>(), [Row { low: 0b110, high: 0b100 }]);
        assert_eq!(bands.rows_of(&[1]), BTreeMap::new());
        assert_eq!(bands.rows_of(&[2]), BTreeMap::from([(0, Row { low: 0, high: 0b10 })]));
    }

    #[test]
    fn what_no_rule_closes_is_allowed_and_nothing_else_is() {
        let deny = |first, last, peers| term(6, first, last, Class::Deny, peers);
        let bands = bands(vec![
            term(6, 22, 22, Class::Allow, Some(FAILSAFE)),
            deny(20, 30, EVERYONE),
            deny(22, 22, Some(1)),
            term(0, 0, u16::MAX, Class::Deny, Some(2)),
            term(6, 443, 443, Class::Allow, EVERYONE),
        ]);
        let of_22 = bands.ports[0].1.band(22);
        assert!([21, 23, 443, 0].iter().all(|port| bands.ports[0].1.band(*port) != of_22));
        let class = |rows: BTreeMap<u16, Row>, port| rows.get(&0)?.class(bands.ports[0].1.band(port));
        assert_eq!([21, 22, 23, 443].map(|port| bands.any[0].row().class(bands.ports[0].1.band(port))), {
            let [allow, _, deny] = Class::ALL.map(Some);
            [deny, allow, deny, allow]
        });
        assert_eq!(bands.rows_of(&[1]), BTreeMap::new());
        assert_eq!([22, 443].map(|port| class(bands.rows_of(&[2]), port)), [None, Some(Class::Deny)]);
    }

    #[test]
    fn a_row_has_64_bands_and_there_is_an_end() {
        let one = |port: u16| term(6, port, port, Class::Allow, Some(u32::from(port) + 1));
        let many = bands((1..=200).map(one).collect());
        assert_eq!(many.any.len(), 4);
        assert_eq!(many.rows_of(&[129]), BTreeMap::from([(2, Row { low: 1, high: 0 })]), "port 128 has band 128");
        let everything: Vec<Term> = (0..=u16::MAX).map(one).collect();
        assert_eq!(Bands::new(&everything), Err(TooManyBands));
    }
}
