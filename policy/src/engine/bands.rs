//! One direction of a policy: for each protocol and interval of ports that rules write, who is of which class.

use roaring::RoaringBitmap;

use super::{
    entry::{Class, Ports},
    intervals::Intervals,
    selectors::{SelectorId, Selectors},
    terms::Term,
};

/// Bands in the order of their ports.
#[derive(Debug)]
pub(super) struct Bands {
    pub(super) bands: Vec<Band>,
    intervals: Intervals,
    /// The bands of each selector, in order: (selector, band, class).
    uses: Vec<(SelectorId, u32, Class)>,
}

/// What is said of exactly these ports.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) ports: Ports,
    /// What is said of everyone.
    pub(super) any: Option<Class>,
    /// The slots of which each class is said, in the order of the classes.
    pub(super) peers: [RoaringBitmap; 3],
}

impl Band {
    /// The strongest thing said of a peer by name.
    pub(super) fn own(&self, slot: u32) -> Option<Class> {
        Class::ALL.into_iter().rev().find(|class| self.peers[*class as usize].contains(slot))
    }
}

impl Bands {
    /// `terms` are in order, each once, and their selectors have been evaluated.
    pub(super) fn new(terms: &[Term], selectors: &Selectors) -> Self {
        let mut bands = Vec::new();
        let mut uses = Vec::new();
        for group in terms.chunk_by(|one, other| one.ports == other.ports) {
            let number = u32::try_from(bands.len()).expect("a rule set has fewer than 2^32 intervals of ports");
            let any = group.iter().filter(|term| term.peers.is_none()).map(|term| term.class).max();
            let of = |class: Class| group.iter().filter(move |term| term.class == class).filter_map(|term| term.peers);
            let peers = Class::ALL.map(|class| union(of(class).filter_map(|peers| selectors.selected(peers))));
            Class::ALL.into_iter().for_each(|class| uses.extend(of(class).map(|peers| (peers, number, class))));
            bands.push(Band { ports: group[0].ports, any, peers });
        }
        uses.sort_unstable();
        let ports: Vec<Ports> = bands.iter().map(|band| band.ports).collect();
        Self { intervals: Intervals::new(&ports), bands, uses }
    }

    /// The strongest thing said of a flow; `slot` is none for a peer that only everyone includes.
    pub(super) fn class(&self, slot: Option<u32>, protocol: u8, port: u16) -> Option<Class> {
        let said = |band: &Band| band.any.max(slot.and_then(|slot| band.own(slot)));
        self.around(protocol, port).map(said).max().flatten()
    }

    /// The bands around a port, that of every protocol included.
    pub(super) fn around(&self, protocol: u8, port: u16) -> impl Iterator<Item = &Band> {
        let everything = self.bands.first().filter(|band| band.ports.protocol == 0);
        let own = self.intervals.around(protocol, port).iter().map(|number| &self.bands[*number as usize]);
        everything.into_iter().chain(own)
    }

    /// The numbers of the bands that speak of any of these selectors, in order, each once, with the class.
    pub(super) fn naming(&self, selectors: &[SelectorId]) -> Vec<(u32, Class)> {
        let mut bands = Vec::new();
        for selector in selectors {
            let from = self.uses.partition_point(|(known, _, _)| known < selector);
            let uses = self.uses[from..].iter().take_while(|(known, _, _)| known == selector);
            bands.extend(uses.map(|(_, band, class)| (*band, *class)));
        }
        bands.sort_unstable();
        bands.dedup();
        bands
    }

    /// A peer is, or is no more, selected by the selectors that name these bands.
    pub(super) fn set(&mut self, naming: &[(u32, Class)], slot: u32, selected: bool) {
        for (band, class) in naming {
            let slots = &mut self.bands[*band as usize].peers[*class as usize];
            if selected {
                slots.insert(slot)
            } else {
                slots.remove(slot)
            };
        }
    }
}

fn union<'s>(sets: impl Iterator<Item = &'s RoaringBitmap> + Clone) -> RoaringBitmap {
    let mut several = sets.clone();
    match (several.next(), several.next()) {
        (None, _) => RoaringBitmap::new(),
        (Some(one), None) => one.clone(),
        _ => roaring::MultiOps::union(sets),
    }
}
