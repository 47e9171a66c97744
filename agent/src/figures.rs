//! What the datapath counts, as it was a moment ago, and what reading it back has found.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use ringfence_datapath::{ApplyError, BandCounter, FlowEvent, ObserveError, PacketCounters, Tallies, Tally, Verified};
use ringfence_policy::{flow::Direction, tables::PolicyId};
use tokio::sync::watch;

use crate::{
    events::{Clock, EventBus, Lost},
    realise::Realiser,
};

/// How often the counters are read.
const SAMPLE: Duration = Duration::from_secs(1);

/// Counters of a moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Packets by reason.
    pub packets: PacketCounters,
    /// What is counted beside packets.
    pub tallies: Tallies,
    /// What policies decided, by direction: ingress, egress. Only grows while the agent runs.
    pub decided: [BandCounter; 2],
    /// Reading back.
    pub verification: Verification,
}

/// What reading the maps back has found, since the agent started.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// How often the maps were read.
    pub runs: u64,
    /// How often that could not be finished.
    pub failures: u64,
    /// When they were read last.
    pub last: Option<Instant>,
    /// Entries that packets were judged by and nobody had applied.
    pub served: u64,
    /// Such entries in the other set.
    pub unserved: u64,
    /// When entries were repaired last.
    pub last_repair: Option<Instant>,
    /// Why the last run could not be finished.
    pub problem: Option<String>,
}

/// Draws what the datapath tells, in the owner's thread.
#[derive(Debug)]
pub(crate) struct Meter<'b> {
    bus: &'b EventBus,
    figures: &'b watch::Sender<Figures>,
    /// Losses before the agent started, which are nobody's here.
    before: Lost,
    undecodable: u64,
    bands: BTreeMap<(PolicyId, Direction, u16), BandCounter>,
    sampled: Option<Instant>,
    events: Vec<FlowEvent>,
    /// Whether the last reading failed: said once.
    failing: bool,
}

impl<'b> Meter<'b> {
    pub(crate) fn new(realiser: &Realiser, bus: &'b EventBus, figures: &'b watch::Sender<Figures>) -> Self {
        let tallies = realiser.counters().map(|(_, tallies)| tallies).unwrap_or_default();
        let before = lost(&tallies, 0);
        let bands = realiser.bands().map(by_band).unwrap_or_default();
        Self { bus, figures, before, undecodable: 0, bands, sampled: None, events: Vec::new(), failing: false }
    }

    /// Hands over events, and reads the counters if that is due.
    pub(crate) fn tick(&mut self, realiser: &mut Realiser) {
        let due = self.sampled.is_none_or(|at| at.elapsed() >= SAMPLE);
        if due {
            self.sampled = Some(Instant::now());
        }
        let read = self.drain(realiser, due).and_then(|()| if due { self.sample(realiser) } else { Ok(()) });
        match read {
            Ok(()) => self.failing = false,
            Err(error) => self.tell(&error),
        }
    }

    /// Records what reading back found; says so if it is not what it should be.
    pub(crate) fn verified(&self, verified: &Result<Verified, ApplyError>) {
        let now = Some(Instant::now());
        self.figures.send_modify(|figures| {
            let verification = &mut figures.verification;
            verification.runs += 1;
            verification.last = now;
            verification.problem = None;
            match verified {
                Ok(Verified { served: 0, unserved: 0 }) => {}
                Ok(Verified { served, unserved }) => {
                    verification.served += *served as u64;
                    verification.unserved += *unserved as u64;
                    verification.last_repair = now;
                }
                Err(error) => {
                    verification.failures += 1;
                    verification.problem = Some(error.to_string());
                }
            }
        });
    }

    /// `due`: look for losses although nothing was written.
    fn drain(&mut self, realiser: &mut Realiser, due: bool) -> Result<(), ObserveError> {
        let events = &mut self.events;
        events.clear();
        match realiser.events(&mut |event| events.push(event)) {
            Err(ObserveError::Events { broken }) => {
                self.undecodable += broken;
                tracing::error!(broken, "the ring of events held what no program writes");
            }
            drained => drained?,
        }
        // Whoever loses events has written some shortly before.
        if self.events.is_empty() && !due {
            return Ok(());
        }
        let (_, tallies) = realiser.counters()?;
        let lost = lost(&tallies, self.undecodable).since_start(self.before);
        self.bus.publish(&self.events, lost, Clock { datapath_ns: realiser.now_ns(), wall: SystemTime::now() });
        Ok(())
    }

    fn sample(&mut self, realiser: &Realiser) -> Result<(), ObserveError> {
        let (packets, tallies) = realiser.counters()?;
        let bands = by_band(realiser.bands()?);
        let mut grown = [BandCounter::default(); 2];
        for (band, counter) in &bands {
            let before = self.bands.get(band).copied().unwrap_or_default();
            let sum = &mut grown[band.1 as usize];
            add(sum, &less(counter, &before));
        }
        self.bands = bands;
        self.figures.send_modify(|figures| {
            figures.packets = packets;
            figures.tallies = tallies;
            figures.decided.iter_mut().zip(&grown).for_each(|(sum, grown)| add(sum, grown));
        });
        Ok(())
    }

    fn tell(&mut self, error: &ObserveError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the datapath's counters and events cannot be read: it is tried again and again");
        }
    }
}

impl Lost {
    fn since_start(self, before: Self) -> Self {
        Self {
            ring: self.ring.saturating_sub(before.ring),
            rate_limit: self.rate_limit.saturating_sub(before.rate_limit),
            ..self
        }
    }
}

fn lost(tallies: &Tallies, undecodable: u64) -> Lost {
    Lost { ring: tallies.get(Tally::EventsLost), rate_limit: tallies.get(Tally::EventsSuppressed), undecodable }
}

/// Those that found no slot of their own have no direction, and are left out.
fn by_band(reports: Vec<ringfence_datapath::BandReport>) -> BTreeMap<(PolicyId, Direction, u16), BandCounter> {
    reports.into_iter().filter_map(|report| Some((report.band?, report.counter))).collect()
}

/// What came since; all of it if the slot was given to the same band anew.
fn less(counter: &BandCounter, before: &BandCounter) -> BandCounter {
    let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
    BandCounter {
        allowed_packets: grown(counter.allowed_packets, before.allowed_packets),
        allowed_bytes: grown(counter.allowed_bytes, before.allowed_bytes),
        refused_packets: grown(counter.refused_packets, before.refused_packets),
        refused_bytes: grown(counter.refused_bytes, before.refused_bytes),
    }
}

const fn add(sum: &mut BandCounter, grown: &BandCounter) {
    sum.allowed_packets += grown.allowed_packets;
    sum.allowed_bytes += grown.allowed_bytes;
    sum.refused_packets += grown.refused_packets;
    sum.refused_bytes += grown.refused_bytes;
}
