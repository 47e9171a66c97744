//! Members come and go, and leadership moves, while clients write.

use std::{collections::BTreeSet, time::{Duration, Instant}};

use ringfence_identityd::{Config, Member};
use ringfence_proto::v1::{self, store_client::StoreClient};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::support::{PATIENCE, Store, allocate, name, until};

/// Starts a member that is in no list, on a port of its own. Returns its address.
async fn start_joiner(store: &mut Store, id: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let data_dir = store.directory.path().join(id.to_string());
    let config = Config { id, listen, data_dir, join: true, cluster: name("north"), ..store.configs[&1].clone() };
    store.configs.insert(id, config.clone());
    store.running.insert(id, Member::start_on(config, listener).await.unwrap());
    listen.to_string()
}

fn client(store: &Store, id: u64) -> StoreClient<tonic::transport::Channel> {
    StoreClient::new(store.channel(id))
}

/// Id and state of all members, as a member sees them.
async fn members(store: &Store, id: u64) -> Vec<(u64, String)> {
    let response = client(store, id).members(v1::MembersRequest {}).await.unwrap().into_inner();
    response.members.into_iter().map(|member| (member.id, member.state)).collect()
}

async fn add(store: &Store, id: u64, address: &str) -> Result<u64, Status> {
    let request = v1::AddMemberRequest { address: address.to_owned() };
    Ok(client(store, id).add_member(request).await?.into_inner().id)
}

async fn promote(store: &Store, through: u64, id: u64) -> Result<(), Status> {
    client(store, through).promote_member(v1::PromoteMemberRequest { id }).await.map(drop)
}

async fn remove(store: &Store, through: u64, id: u64) -> Result<(), Status> {
    client(store, through).remove_member(v1::RemoveMemberRequest { id }).await.map(drop)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, expected: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(expected), "{status} does not say {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_joins_learns_and_votes_and_the_quorum_follows_the_members() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let leader = store.leader().await;
    let follower = leader % 3 + 1;
    refused(add(&store, follower, "127.0.0.1:1").await, Code::FailedPrecondition, "no member answers at 127.0.0.1:1");
    let other = store.configs[&follower].listen.to_string();
    refused(add(&store, leader, &other).await, Code::AlreadyExists, "is a member already");
    refused(promote(&store, leader, 9).await, Code::NotFound, "there is no member 9: the members are 1, 2, 3");
    refused(promote(&store, follower, leader).await, Code::FailedPrecondition, "votes already");
    refused(remove(&store, follower, leader).await, Code::FailedPrecondition, "hand leadership over first");

    let address = start_joiner(&mut store, 4).await;
    assert_eq!(add(&store, follower, &address).await.unwrap(), 4);
    until("a learner that is reached", || async {
        let all = members(&store, follower).await;
        (all.len() == 4 && all[3] == (4, "learner".to_owned())).then_some(())
    })
    .await;
    store.converge().await;
    // A learner that does not answer is missed by nobody, and cannot vote when it comes back far behind.
    store.kill(4).await;
    for number in 0..150 {
        store.execute(leader, &allocate("east", &format!("a{number}")), PATIENCE).await.unwrap();
    }
    refused(promote(&store, leader, 4).await, Code::FailedPrecondition, "wait until it is at most 100 behind");
    store.restart(4).await;
    store.converge().await;
    until("a learner that may vote", || async { promote(&store, follower, 4).await.ok() }).await;
    let expected = "4 of 4 members answer, 3 are needed; silent: none";
    until("a quorum of four", || async {
        let all = [1, 2, 3, 4].map(|id| store.running[&id].members().describe_quorum());
        all.iter().all(|text| text == expected).then_some(())
    })
    .await;

    remove(&store, leader, follower).await.unwrap();
    store.kill(follower).await;
    let third = *store.running.keys().find(|id| ![4, leader].contains(id)).unwrap();
    store.kill(third).await;
    // Two of three: the member that joined makes the majority, also after a restart from its own log.
    store.execute(leader, &allocate("east", "two of three"), PATIENCE).await.unwrap();
    store.kill(4).await;
    store.restart(4).await;
    store.execute(4, &allocate("east", "again two of three"), PATIENCE).await.unwrap();
    let status = store.client(leader).status(v1::StatusRequest {}).await.unwrap().into_inner();
    let ids: BTreeSet<_> = status.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, BTreeSet::from([4, leader, third]));
    refused(remove(&store, leader, 4).await, Code::FailedPrecondition, "there would be no quorum");
    // A learner of a store is no empty member for another one, nor for its own once it was removed.
    remove(&store, leader, third).await.unwrap();
    let listen = store.configs[&third].listen.to_string();
    store.restart(third).await;
    refused(add(&store, leader, &listen).await, Code::FailedPrecondition, "empty data_dir");
    let leads = store.running[&leader].leader().unwrap();
    let last = if leads == 4 { leader } else { 4 };
    remove(&store, leads, last).await.unwrap();
    refused(remove(&store, leads, leads).await, Code::FailedPrecondition, "is the last voter");
}

/// Writes through members in turn until told to stop; returns the longest time that one write took.
async fn write_until(store: &Store, done: impl Future<Output = ()>) -> Duration {
    let mut longest = Duration::ZERO;
    tokio::pin!(done);
    for number in 0.. {
        let id = *store.running.keys().nth(number % store.running.len()).unwrap();
        let started = Instant::now();
        let command = allocate("east", &format!("w{number}-{id}"));
        tokio::select! {
            biased;
            written = store.execute(id, &command, PATIENCE) => {
                written.unwrap();
                longest = longest.max(started.elapsed());
            }
            () = &mut done => return longest,
        }
    }
    unreachable!("writing goes on until it is told to stop")
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_where_it_is_told_to_and_back_while_clients_write() {
    let store = Store::start(5000).await;
    store.register().await;
    let first = store.leader().await;
    let target = first % 3 + 1;
    refused(
        client(&store, first).move_leader(v1::MoveLeaderRequest { id: 8 }).await,
        Code::NotFound,
        "member 8 is no voter of this store: the voters are 1, 2, 3",
    );
    let moves = async {
        for to in [target, first, target] {
            let moved = client(&store, 1).move_leader(v1::MoveLeaderRequest { id: to }).await.unwrap().into_inner();
            assert_eq!(moved.id, to);
            assert_eq!(store.leader().await, to);
            // The new leader's followers must have granted it a lease before it can hand over again.
            until("a leader with a quorum", || async {
                store.execute(to, &allocate("west", &format!("{to}")), PATIENCE).await.ok()
            })
            .await;
        }
    };
    let longest = write_until(&store, moves).await;
    println!("longest write while leadership moved three times: {longest:?}");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    store.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_and_one_that_is_killed_is_replaced_after_its_lease() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let leader = store.leader().await;
    let term = store.running[&leader].raft().metrics().borrow().current_term;
    let stopped = store.running.remove(&leader).unwrap();
    let started = Instant::now();
    stopped.shutdown(Duration::from_secs(4)).await.unwrap();
    let through = *store.running.keys().next().unwrap();
    store.execute(through, &allocate("east", "after the stop"), PATIENCE).await.unwrap();
    println!("leader stopped and next write done: {:?}", started.elapsed());
    store.restart(leader).await;
    let next = store.leader().await;
    assert_ne!(next, leader);
    let after = store.running[&next].raft().metrics().borrow().current_term;
    assert_eq!(after, term + 1, "one election, begun by the one that was asked to");
    store.converge().await;

    store.kill(next).await;
    let killed = Instant::now();
    let through = *store.running.keys().next().unwrap();
    store.execute(through, &allocate("east", "after the kill"), PATIENCE).await.unwrap();
    let elapsed = killed.elapsed();
    println!("first write after the leader was killed: {elapsed:?}, lease 1.2 s");
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
}
