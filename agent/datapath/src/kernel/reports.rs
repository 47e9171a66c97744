//! Counters and events of the programs.

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use ringfence_ebpf_common::{BandCounter, Event, Reason, Tally, capacity, map};

use super::{
    cells::Words,
    error::{OpenError, io_error},
    open::{failed, take},
    raw::{Raw, from_bytes},
};
use crate::{
    datapath::{PacketCounters, Tallies},
    error::ObserveError,
    report::{BandReport, FlowEvent},
};

/// What the programs write for people.
pub(super) struct Reports {
    packets: PerCpuArray<MapData, u64>,
    tallies: PerCpuArray<MapData, u64>,
    owners: Words,
    counters: PerCpuArray<MapData, Raw<BandCounter>>,
    events: RingBuf<MapData>,
}

impl Reports {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut array = |name| PerCpuArray::try_from(take(ebpf, name)?).map_err(failed(name));
        let (packets, tallies) = (array(map::PACKETS)?, array(map::TALLIES)?);
        let counters = PerCpuArray::try_from(take(ebpf, map::BAND_COUNTERS)?).map_err(failed(map::BAND_COUNTERS))?;
        let events = RingBuf::try_from(take(ebpf, map::EVENTS)?).map_err(failed(map::EVENTS))?;
        let Map::Array(owners) = take(ebpf, map::BANDS)? else {
            return Err(OpenError::Missing { what: format!("map {} of the expected type", map::BANDS) });
        };
        let owners = Words::new(&owners, capacity::BANDS as usize)
            .map_err(|source| OpenError::Memory { map: map::BANDS, source })?;
        Ok(Self { packets, tallies, owners, counters, events })
    }

    pub(super) fn packets(&self) -> Result<PacketCounters, ObserveError> {
        let mut packets = PacketCounters::default();
        for reason in Reason::ALL {
            packets.add(reason, sum(&self.packets, reason as u32, map::PACKETS)?);
        }
        Ok(packets)
    }

    pub(super) fn tallies(&self) -> Result<Tallies, ObserveError> {
        let mut tallies = Tallies::default();
        for tally in Tally::ALL {
            tallies.add(tally, sum(&self.tallies, tally as u32, map::TALLIES)?);
        }
        Ok(tallies)
    }

    pub(super) fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        bands(|slot| Ok(self.owners.get(slot as usize)), &self.counters)
    }

    /// Frees the slots of owners that are gone. No packet may be judged by their policies any more.
    pub(super) fn free_bands(&mut self, stays: impl Fn(u64) -> bool) -> Result<(), ObserveError> {
        let cpus = nr_cpus().map_err(|(_, source)| ObserveError::Map { map: map::BAND_COUNTERS, source })?;
        for slot in 1..capacity::BANDS {
            let owner = self.owners.get(slot as usize);
            if owner != 0 && !stays(owner) {
                let zeros = PerCpuValues::try_from(vec![Raw(BandCounter::default()); cpus]);
                let zeros = zeros.map_err(|source| ObserveError::Map { map: map::BAND_COUNTERS, source })?;
                self.counters.set(slot, zeros, 0).map_err(unreadable(map::BAND_COUNTERS))?;
                self.owners.set(slot as usize, 0);
            }
        }
        Ok(())
    }

    pub(super) fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError> {
        let mut broken = 0;
        while let Some(entry) = self.events.next() {
            match from_bytes::<Event>(&entry).as_ref().and_then(FlowEvent::new) {
                Some(event) => take(event),
                None => broken += 1,
            }
        }
        if broken == 0 { Ok(()) } else { Err(ObserveError::Events { broken }) }
    }
}

/// Every slot in use, with what it counted.
pub(super) fn bands(
    owner: impl Fn(u32) -> Result<u64, ObserveError>,
    counters: &PerCpuArray<MapData, Raw<BandCounter>>,
) -> Result<Vec<BandReport>, ObserveError> {
    let mut bands = Vec::new();
    for slot in 0..capacity::BANDS {
        let owner = owner(slot)?;
        if owner == 0 && slot != 0 {
            continue;
        }
        let per_cpu = counters.get(&slot, 0).map_err(unreadable(map::BAND_COUNTERS))?;
        let counter = per_cpu.iter().fold(BandCounter::default(), |sum, Raw(one)| BandCounter {
            allowed_packets: sum.allowed_packets + one.allowed_packets,
            allowed_bytes: sum.allowed_bytes + one.allowed_bytes,
            refused_packets: sum.refused_packets + one.refused_packets,
            refused_bytes: sum.refused_bytes + one.refused_bytes,
        });
        bands.push(BandReport::new(owner, counter));
    }
    Ok(bands)
}

fn sum(counters: &PerCpuArray<MapData, u64>, index: u32, map: &'static str) -> Result<u64, ObserveError> {
    let per_cpu = counters.get(&index, 0).map_err(unreadable(map))?;
    Ok(per_cpu.iter().sum())
}

pub(super) fn unreadable(map: &'static str) -> impl Fn(aya::maps::MapError) -> ObserveError {
    move |error| ObserveError::Map { map, source: io_error(error) }
}
