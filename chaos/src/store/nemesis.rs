//! Carries out faults, and sees to what must hold during and after each: a connected majority makes progress (L2), a
//! minority shows its staleness (S11), members that have applied the same entry have the same state (S14).

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::fabric::{Fabric, Loss, role};
use super::members::{ELECTION_MAX_MS, Members};
use super::recorder::Recorder;
use super::schedule::{Direction, Fault, Step, Target};

/// L2: how long until a connected majority acknowledges a write. An election takes about two longest election timeouts;
/// the rest is room for a busy machine, on which many elections may have to be repeated.
const PROGRESS_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// A pause must be longer than it takes the others to elect.
const PAUSE: Duration = Duration::from_millis(3 * ELECTION_MAX_MS);

/// A time during which some members reached no majority.
#[derive(Debug, Clone)]
pub struct Window {
    /// When the cut was complete, in nanoseconds since the drill's begin.
    pub from_ns: u64,
    /// When it was about to end.
    pub to_ns: u64,
    /// Indices.
    pub minority: Vec<usize>,
}

/// What became of one fault.
#[derive(Debug, Clone)]
pub struct Played {
    /// In words, with the leader's name.
    pub what: String,
    /// Since the drill's begin.
    pub at_ms: u64,
    /// Until a write that began after the fault was acknowledged; none where no majority was left.
    pub progress: Option<Duration>,
    /// Until every member had acknowledged a write that began after the repair.
    pub recovery: Duration,
}

/// The one who breaks things.
#[derive(Debug)]
pub struct Nemesis<'a> {
    members: &'a mut Members,
    fabric: &'a Fabric,
    recorder: &'a Recorder,
    /// Members that are killed lose their disks: a control.
    amnesia: bool,
    /// What was done so far.
    pub played: Vec<Played>,
    /// When who reached no majority.
    pub windows: Vec<Window>,
    /// Digests of the state by applied entry, and who told.
    states: BTreeMap<u64, (u64, usize)>,
}

/// A fault with its targets found.
struct Plan {
    /// Members that are not reached by a majority, and reach none.
    minority: Vec<usize>,
    losses: Vec<Loss>,
    killed: Vec<usize>,
    paused: Option<usize>,
    restarted: Option<usize>,
    /// The one that is restarted comes back as the build under test.
    upgraded: bool,
}

impl Plan {
    fn describe(&self, fault: Fault) -> String {
        match self.losses[..] {
            [Loss::Link { from, to }] => format!("{} does not hear {}", role(to), role(from)),
            _ => fault.to_string(),
        }
    }
}

impl<'a> Nemesis<'a> {
    /// Over these members.
    #[must_use]
    pub fn new(members: &'a mut Members, fabric: &'a Fabric, recorder: &'a Recorder, amnesia: bool) -> Self {
        let (played, windows) = (Vec::new(), Vec::new());
        Self { members, fabric, recorder, amnesia, played, windows, states: BTreeMap::new() }
    }

    /// Waits until every member has served a write.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_all(&mut self) -> Result<()> {
        let count = self.members.len();
        self.wait("not every member serves writes", 0, |acknowledged| (0..count).all(acknowledged)).map(drop)
    }

    /// Does it, keeps it up, undoes it, and waits until all members serve again.
    ///
    /// # Errors
    /// When the drill cannot go on: a member ended by itself, or nobody makes progress any more.
    pub fn play(&mut self, step: Step) -> Result<()> {
        let leader = self.members.leader(PROGRESS_LIMIT)?;
        let plan = self.plan(step.fault, leader);
        let what = format!("{}; {} leads", plan.describe(step.fault), role(leader));
        let at_ms = self.recorder.now_ns() / 1_000_000;
        self.inflict(&plan)?;
        let from_ns = self.recorder.now_ns();
        let begin = Instant::now();
        let down: Vec<usize> = plan.killed.iter().copied().chain(plan.paused).collect();
        let majority: Vec<usize> =
            (0..self.members.len()).filter(|index| !down.contains(index) && !plan.minority.contains(index)).collect();
        let progress = if majority.len() * 2 > self.members.len() {
            Some(self.wait("L2: no write is acknowledged by a connected majority", from_ns, |acknowledged| {
                majority.iter().any(|index| acknowledged(*index))
            })?)
        } else {
            None
        };
        let hold = if plan.paused.is_some() { PAUSE } else { Duration::ZERO }.max(Duration::from_millis(step.hold_ms));
        thread::sleep(hold.saturating_sub(begin.elapsed()));
        if matches!(step.fault, Fault::IsolateAndKill(_)) {
            // It comes back while it is still cut off.
            plan.killed.iter().try_for_each(|index| self.members.start_again(*index))?;
            thread::sleep(Duration::from_millis(2 * ELECTION_MAX_MS));
        }
        self.check_staleness(&plan, hold);
        let to_ns = self.recorder.now_ns();
        self.windows.push(Window { from_ns, to_ns, minority: plan.minority.clone() });
        let recovery = self.repair(&plan)?;
        self.played.push(Played { what, at_ms, progress, recovery });
        self.compare_states();
        thread::sleep(Duration::from_millis(step.rest_ms));
        self.members.check()
    }

    fn plan(&self, fault: Fault, leader: usize) -> Plan {
        let count = self.members.len();
        let find = |target| match target {
            Target::Leader => leader,
            Target::Member(index) => index,
        };
        // The leader has no link to itself: the next member takes the place.
        let not = |leader: usize, other: usize| if other == leader { (leader + 1) % count } else { other };
        let upgraded = matches!(fault, Fault::Upgrade(_));
        let (minority, losses, killed) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Plan { minority, losses, killed, paused: None, restarted: None, upgraded };
        match fault {
            Fault::Kill(target) => plan.killed = vec![find(target)],
            Fault::KillAll => plan.killed = (0..count).collect(),
            Fault::Restart(target) | Fault::Upgrade(target) => plan.restarted = Some(find(target)),
            Fault::Pause(target) => plan.paused = Some(find(target)),
            Fault::Isolate(target, direction) => {
                let hit = find(target);
                plan.minority = vec![hit];
                plan.losses = self.fabric.between(&[hit]);
                plan.losses.retain(|loss| match (loss, direction) {
                    (_, Direction::Both) | (Loss::Everywhere { .. }, _) => true,
                    (Loss::Link { to, .. }, Direction::In) => *to == hit,
                    (Loss::Link { from, .. }, Direction::Out) => *from == hit,
                });
            }
            Fault::IsolateAndKill(target) => {
                let hit = find(target);
                (plan.minority, plan.killed, plan.losses) = (vec![hit], vec![hit], self.fabric.between(&[hit]));
            }
            Fault::LinkFromLeader(other) => plan.losses = vec![Loss::Link { from: leader, to: not(leader, other) }],
            Fault::LinkToLeader(other) => plan.losses = vec![Loss::Link { from: not(leader, other), to: leader }],
            Fault::Split { leader_in_minority } => {
                let small = (count - 1) / 2;
                let first = if leader_in_minority { leader } else { leader + 1 };
                plan.minority = (first..first + small).map(|index| index % count).collect();
                plan.losses = self.fabric.between(&plan.minority);
            }
            Fault::Loss { percent } => plan.losses = vec![Loss::Everywhere { percent }],
        }
        plan
    }

    fn inflict(&mut self, plan: &Plan) -> Result<()> {
        if !plan.losses.is_empty() {
            self.fabric.lose(&plan.losses)?;
        }
        plan.killed.iter().try_for_each(|index| self.members.kill(*index))?;
        if let Some(index) = plan.paused {
            self.members.pause(index, true)?;
        }
        if let Some(index) = plan.restarted {
            self.members.stop(index)?;
            if plan.upgraded {
                self.members.upgrade(index);
            }
            self.members.start_again(index)?;
        }
        Ok(())
    }

    fn repair(&mut self, plan: &Plan) -> Result<Duration> {
        if let Some(index) = plan.paused {
            self.members.pause(index, false)?;
        }
        for index in plan.killed.iter().filter(|_| self.amnesia) {
            self.members.lose_disk(*index)?;
        }
        plan.killed.iter().try_for_each(|index| self.members.start_again(*index))?;
        if !plan.losses.is_empty() {
            self.fabric.lose(&[])?;
        }
        let since = self.recorder.now_ns();
        let count = self.members.len();
        self.wait("not every member serves writes after the repair", since, |acknowledged| (0..count).all(acknowledged))
    }

    /// Waits for acknowledged writes that began since then.
    fn wait(&mut self, what: &str, since_ns: u64, enough: impl Fn(&dyn Fn(usize) -> bool) -> bool) -> Result<Duration> {
        let begin = Instant::now();
        while !enough(&|index| self.recorder.has_acknowledged(index, since_ns)) {
            self.members.check()?;
            if begin.elapsed() > PROGRESS_LIMIT {
                let served: Vec<String> = (0..self.members.len())
                    .filter(|index| self.recorder.has_acknowledged(*index, since_ns))
                    .map(role)
                    .collect();
                bail!("{what} within {PROGRESS_LIMIT:?}; acknowledged by: {served:?}\n{}", self.describe());
            }
            thread::sleep(POLL);
        }
        Ok(begin.elapsed())
    }

    /// What every member says, for failures.
    fn describe(&self) -> String {
        let line = |index| match self.members.own_row(index) {
            Some(row) => format!("  {}: {}, term {}, applied {}", role(index), row.state, row.term, row.applied_index),
            None => format!("  {}: no answer", role(index)),
        };
        (0..self.members.len()).map(line).collect::<Vec<_>>().join("\n")
    }

    /// S11: who was cut off for long says so. One that hears the others, if only in one direction, may be up to date.
    fn check_staleness(&self, plan: &Plan, held: Duration) {
        let is_deaf =
            |index: &&usize| plan.losses.iter().any(|loss| matches!(loss, Loss::Link { to, .. } if to == *index));
        for index in plan.minority.iter().filter(is_deaf) {
            let shown = self.members.status(*index).map(|status| Duration::from_millis(status.staleness_ms));
            // A cut-off member last heard of a quorum at most an election timeout into the cut.
            let least = held.saturating_sub(Duration::from_millis(ELECTION_MAX_MS));
            if let Some(shown) = shown.filter(|shown| *shown < least) {
                let member = role(*index);
                self.recorder
                    .violation(&format!("S11: {member} was cut off for {held:?} and shows a staleness of {shown:?}"));
            }
        }
    }

    /// S14, as far as members happen to be at the same entry.
    fn compare_states(&mut self) {
        for index in 0..self.members.len() {
            let Some(row) = self.members.own_row(index).filter(|row| row.applied_index > 0) else { continue };
            let (digest, other) = *self.states.entry(row.applied_index).or_insert((row.state_digest, index));
            if digest != row.state_digest {
                let (one, other, at) = (role(index), role(other), row.applied_index);
                self.recorder.violation(&format!("S14: after entry {at} {one} and {other} have different states"));
            }
        }
    }

    /// S14 and L1: waits until all members have applied the same entry; their states must be equal.
    ///
    /// # Errors
    /// When they do not get there.
    pub fn converge(&mut self) -> Result<u64> {
        let begin = Instant::now();
        loop {
            self.compare_states();
            let rows: Vec<_> = (0..self.members.len()).filter_map(|index| self.members.own_row(index)).collect();
            let first = rows.first().map(|row| row.applied_index);
            if rows.len() == self.members.len() && rows.iter().all(|row| Some(row.applied_index) == first) {
                return Ok(rows[0].revision);
            }
            if begin.elapsed() > PROGRESS_LIMIT {
                bail!("the members do not reach the same entry within {PROGRESS_LIMIT:?}\n{}", self.describe());
            }
            thread::sleep(POLL);
        }
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress.map_or_else(|| "no majority".to_owned(), |time| format!("{time:.1?}"));
        let (at, recovery) = (self.at_ms, self.recovery);
        write!(f, "{at:>7} ms  {}: progress {progress}, all serve {recovery:.1?} after the repair", self.what)
    }
}
