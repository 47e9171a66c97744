//! Which fault comes next: drawn from a seed, so that a run's faults can be had again.
//!
//! Faults are drawn like cards: every kind comes once before any comes again, so that a short run sees many kinds.

use std::fmt;

use super::random::Random;

/// Which member is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that leads when the fault begins.
    Leader,
    /// One by its index.
    Member(usize),
}

/// Which packets of an isolated member are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// All.
    Both,
    /// What the others send to it.
    In,
    /// What it sends to the others.
    Out,
}

/// What is done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again afterwards.
    Kill(Target),
    /// SIGKILL to all at once.
    KillAll,
    /// SIGTERM, and started again at once.
    Restart(Target),
    /// As `Restart`, from an older build to the one under test. Drawn never: see `Schedule::with_upgrades`.
    Upgrade(Target),
    /// SIGSTOP for longer than an election takes.
    Pause(Target),
    /// No member reaches it, or it reaches none.
    Isolate(Target, Direction),
    /// Isolated and killed; when it comes back it is still isolated.
    IsolateAndKill(Target),
    /// The leader's packets to one other member are lost.
    LinkFromLeader(usize),
    /// One other member's packets to the leader are lost.
    LinkToLeader(usize),
    /// The smaller half, which the leader belongs to or not, and the larger half do not reach each other.
    Split {
        /// The leader is in the smaller half.
        leader_in_minority: bool,
    },
    /// Between the members this share of all packets is lost.
    Loss {
        /// Of 100.
        percent: u64,
    },
}

/// A fault and its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub fault: Fault,
    /// How long it lasts at least, in milliseconds.
    pub hold_ms: u64,
    /// How long nothing is done afterwards, in milliseconds.
    pub rest_ms: u64,
}

/// An endless series of faults.
#[derive(Debug)]
pub struct Schedule {
    random: Random,
    members: usize,
    deck: Vec<Fault>,
}

impl Schedule {
    /// For a store of 3 or more members.
    #[must_use]
    pub fn new(seed: u64, members: usize) -> Self {
        Self { random: Random::new(seed), members, deck: Vec::new() }
    }

    /// Before these faults: every member is upgraded, in turn, with two faults before each, so that members of both builds
    /// meet every time.
    pub fn with_upgrades(mut self) -> impl Iterator<Item = Step> {
        let mut upgrades: Vec<Step> = Vec::new();
        for index in 0..self.members {
            upgrades.extend(self.by_ref().take(2));
            upgrades.push(Step { fault: Fault::Upgrade(Target::Member(index)), hold_ms: 500, rest_ms: 1000 });
        }
        upgrades.into_iter().chain(self)
    }

    fn new_deck(&mut self) -> Vec<Fault> {
        use Direction::{Both, In, Out};
        let mut deck = vec![
            Fault::Kill(Target::Leader),
            Fault::KillAll,
            Fault::Restart(self.target()),
            Fault::Pause(Target::Leader),
            Fault::Pause(self.target()),
            Fault::Isolate(Target::Leader, Both),
            Fault::Isolate(Target::Leader, In),
            Fault::Isolate(Target::Leader, Out),
            Fault::Isolate(self.any(), [Both, In, Out][self.random.index(3)]),
            Fault::IsolateAndKill(self.target()),
            Fault::LinkFromLeader(self.random.index(self.members)),
            Fault::LinkToLeader(self.random.index(self.members)),
            Fault::Split { leader_in_minority: self.random.chance(60) },
            Fault::Loss { percent: self.random.between(5, 25) },
            Fault::Kill(self.any()),
        ];
        for last in (1..deck.len()).rev() {
            deck.swap(last, self.random.index(last + 1));
        }
        deck
    }

    fn target(&mut self) -> Target {
        if self.random.chance(50) { Target::Leader } else { self.any() }
    }

    fn any(&mut self) -> Target {
        Target::Member(self.random.index(self.members))
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.deck = self.new_deck();
        }
        let fault = self.deck.pop()?;
        Some(Step { fault, hold_ms: self.random.between(1500, 4500), rest_ms: self.random.between(200, 1200) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Member(index) => write!(f, "m{}", index + 1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(target) => write!(f, "kill -9 {target}"),
            Self::KillAll => f.write_str("kill -9 all members"),
            Self::Upgrade(target) => write!(f, "upgrade {target}"),
            Self::Restart(target) => write!(f, "restart {target}"),
            Self::Pause(target) => write!(f, "pause {target}"),
            Self::Isolate(target, Direction::Both) => write!(f, "isolate {target}"),
            Self::Isolate(target, Direction::In) => write!(f, "isolate {target}: it hears nobody"),
            Self::Isolate(target, Direction::Out) => write!(f, "isolate {target}: nobody hears it"),
            Self::IsolateAndKill(target) => write!(f, "isolate {target}, kill -9 and start it while isolated"),
            Self::LinkFromLeader(to) => write!(f, "m{} does not hear the leader", to + 1),
            Self::LinkToLeader(from) => write!(f, "the leader does not hear m{}", from + 1),
            Self::Split { leader_in_minority: true } => f.write_str("split, the leader in the smaller half"),
            Self::Split { leader_in_minority: false } => f.write_str("split, the leader in the larger half"),
            Self::Loss { percent } => write!(f, "{percent} % of all packets between members are lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_seed_others() {
        let faults = |seed| Schedule::new(seed, 5).take(40).collect::<Vec<_>>();
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
    }

    #[test]
    fn every_member_is_upgraded_once_and_faults_hit_members_of_both_builds() {
        let steps: Vec<Step> = Schedule::new(7, 3).with_upgrades().take(12).collect();
        let upgraded = |step: &Step| matches!(step.fault, Fault::Upgrade(_));
        let at: Vec<usize> = (0..12).filter(|index| upgraded(&steps[*index])).collect();
        assert_eq!(at, [2, 5, 8]);
        assert!((0..3).all(|index| steps[at[index]].fault == Fault::Upgrade(Target::Member(index))));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let steps: Vec<Step> = Schedule::new(3, 3).take(15).collect();
        let has = |wanted: fn(&Fault) -> bool| steps.iter().any(|step| wanted(&step.fault));
        assert!(has(|fault| matches!(fault, Fault::KillAll)) && has(|fault| matches!(fault, Fault::Loss { .. })));
        assert!(has(|fault| *fault == Fault::Isolate(Target::Leader, Direction::In)));
        assert!(steps.iter().all(|step| step.hold_ms >= 1500));
    }
}
