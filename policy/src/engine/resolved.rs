//! What all rules together say about subjects that are alike.

use super::{
    bands::{Bands, TooManyBands},
    population::Population,
    selectors::{SelectorId, Selectors},
};
use crate::{
    evaluate::Conflict,
    flow::Direction,
    identity::Identity,
    tables::{PolicyId, PortsKey, PortsOfProtocol, Row, RowKey},
};

/// A policy, resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) ingress: Bands,
    pub(super) egress: Bands,
    /// Selectors that were acquired for this policy alone.
    pub(super) held: Vec<SelectorId>,
}

/// Rules that give a subject no policy. It refuses everything, and no revision with it should come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// They contradict each other.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// They are more than a table can hold.
    #[error(transparent)]
    TooManyBands(#[from] TooManyBands),
}

impl Resolved {
    /// Whether both say the same.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (&self.ingress, &self.egress) == (&other.ingress, &other.egress)
    }

    /// How many intervals of ports it speaks of.
    pub(super) fn interval_count(&self) -> usize {
        self.directions().flat_map(|(_, bands)| &bands.ports).map(|(_, ports)| ports.intervals().len()).sum()
    }

    pub(super) fn directions(&self) -> impl Iterator<Item = (Direction, &Bands)> {
        [(Direction::Ingress, &self.ingress), (Direction::Egress, &self.egress)].into_iter()
    }

    /// Its ports as a policy's.
    pub(super) fn ports(&self, policy: PolicyId) -> impl Iterator<Item = (PortsKey, &PortsOfProtocol)> {
        self.directions().flat_map(move |(direction, bands)| {
            let key = move |protocol| PortsKey { policy, direction, protocol };
            bands.ports.iter().map(move |(protocol, ports)| (key(*protocol), ports))
        })
    }

    /// Its rows as a policy's, in order.
    pub(super) fn rows(
        &self,
        policy: PolicyId,
        selectors: &Selectors,
        population: &Population,
    ) -> impl Iterator<Item = (RowKey, Row)> {
        self.directions().flat_map(move |(direction, bands)| {
            let rows = bands.rows(selectors, population).into_iter();
            rows.map(move |(peer, chunk, row)| (RowKey { policy, direction, peer, chunk }, row))
        })
    }

    /// The rows of a peer that selectors select.
    pub(super) fn rows_of(
        &self,
        policy: PolicyId,
        peer: Identity,
        selecting: &[SelectorId],
    ) -> impl Iterator<Item = (RowKey, Row)> {
        self.directions().flat_map(move |(direction, bands)| {
            let rows = bands.rows_of(selecting).into_iter();
            rows.map(move |(chunk, row)| (RowKey { policy, direction, peer, chunk }, row))
        })
    }
}
