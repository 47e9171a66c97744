//! The members at one moment, as the log has them.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_policy::name::Name;

use crate::{config::MemberConfig, raft::MemberNode};

type Membership = openraft::Membership<u64, MemberNode>;

/// Who is a member, and who of them votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// Voters and learners, by id.
    pub members: BTreeMap<u64, MemberConfig>,
    /// One set of voters; two while a change is under way, and a quorum needs a majority of both.
    voters: Vec<BTreeSet<u64>>,
}

impl Roster {
    /// What `membership` says; while it says nothing, `founders` are the members, all of them voters.
    #[must_use]
    pub fn new(membership: &Membership, founders: &[MemberConfig]) -> Self {
        if membership.nodes().next().is_none() {
            let members: BTreeMap<_, _> = founders.iter().map(|member| (member.id, member.clone())).collect();
            let voters = vec![members.keys().copied().collect()];
            return Self { members, voters };
        }
        let nowhere = Name::new("unknown").expect("it is a DNS label");
        let member = |(id, node): (&u64, &MemberNode)| {
            let cluster = node.cluster.clone().unwrap_or_else(|| nowhere.clone());
            (*id, MemberConfig { id: *id, cluster, address: node.address.clone() })
        };
        Self { members: membership.nodes().map(member).collect(), voters: membership.get_joint_config().clone() }
    }

    /// Everybody but one.
    #[must_use]
    pub fn others(&self, own: u64) -> BTreeMap<u64, MemberConfig> {
        self.members.iter().filter(|(id, _)| **id != own).map(|(id, member)| (*id, member.clone())).collect()
    }

    /// Whether a member votes, in any set.
    #[must_use]
    pub fn is_voter(&self, id: u64) -> bool {
        self.voters.iter().any(|voters| voters.contains(&id))
    }

    /// The roster without a member.
    pub fn remove(&mut self, id: u64) {
        self.members.remove(&id);
        self.voters.iter_mut().for_each(|voters| {
            voters.remove(&id);
        });
    }

    /// Everybody who votes.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().copied().collect()
    }

    /// Whether these are enough.
    #[must_use]
    pub fn has_quorum(&self, answering: &BTreeSet<u64>) -> bool {
        self.voters.iter().all(|voters| voters.intersection(answering).count() >= majority(voters.len()))
    }

    /// "1 of 3 members answer, 2 are needed; silent: member 2 (west, 10.0.0.2:7400), …"; learners do not count.
    #[must_use]
    pub fn describe_quorum(&self, answering: &BTreeSet<u64>) -> String {
        let voters = self.voters();
        let silent: Vec<_> = voters.difference(answering).filter_map(|id| self.members.get(id)).collect();
        let (total, needed) = (voters.len(), majority(voters.len()));
        let silent_text = match silent.as_slice() {
            [] => "none".to_owned(),
            silent => silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        format!("{} of {total} members answer, {needed} are needed; silent: {silent_text}", total - silent.len())
    }
}

const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: Vec<BTreeSet<u64>>, learners: &[u64]) -> Membership {
        let nodes = voters.iter().flatten().chain(learners).map(|id| {
            let address = format!("10.0.0.{id}:7400");
            (*id, MemberNode { address, cluster: Some(Name::new("east").unwrap()) })
        });
        Membership::new(voters.clone(), nodes.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_set_of_voters_and_learners_do_not_count() {
        let joint = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        let roster = Roster::new(&membership(joint, &[6]), &[]);
        assert_eq!(roster.members.len(), 6);
        for (answering, expected) in
            [(vec![1, 2, 3, 4], true), (vec![1, 2, 3, 6], false), (vec![3, 4, 5], false), (vec![1, 3, 4], true)]
        {
            assert_eq!(roster.has_quorum(&answering.iter().copied().collect()), expected, "{answering:?}");
        }
        assert!(roster.is_voter(4) && !roster.is_voter(6));
    }

    #[test]
    fn the_founders_count_until_the_log_says_more() {
        let founder =
            |id: u64| MemberConfig { id, cluster: Name::new("east").unwrap(), address: format!("10.0.0.{id}:7400") };
        let founders: Vec<_> = (1..=3).map(founder).collect();
        let roster = Roster::new(&Membership::default(), &founders);
        assert_eq!(roster.describe_quorum(&BTreeSet::from([1])),
            "1 of 3 members answer, 2 are needed; silent: member 2 (east, 10.0.0.2:7400), member 3 (east, 10.0.0.3:7400)");
        let roster = Roster::new(&membership(vec![BTreeSet::from([7])], &[]), &founders);
        assert_eq!(roster.voters(), BTreeSet::from([7]));
        assert!(roster.has_quorum(&BTreeSet::from([7])));
    }
}
