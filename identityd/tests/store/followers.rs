//! Followers over links, as gateways follow.

use ringfence_policy::revision::Revision;
use ringfence_proto::{
    connect::Dialer,
    follow::{FollowError, Position},
    link::Asking,
};
use tokio::time::timeout;
use tonic::Status;

use super::*;
use crate::{
    clients::files_of,
    support::{OTHERS, dialer},
};

/// A member, and a certificate to follow it with.
#[derive(Clone)]
pub(crate) struct FollowedMember {
    dialer: Dialer,
    address: String,
    channel: Channel,
}

impl FollowedMember {
    pub(crate) fn of(store: &Store, id: u64) -> Self {
        let config = &store.configs[&id];
        Self { dialer: dialer(&config.tls), address: config.listen.to_string(), channel: store.channel(id) }
    }

    pub(crate) async fn follow(&self, from: impl Into<Position>) -> Result<Follower, FollowError> {
        let (address, channel) = (&self.address, self.channel.clone());
        Follower::connect_over_link(&self.dialer, address, channel, from, "test".to_owned()).await
    }
}

/// The first thing that a member says to a follower.
async fn first(dialer: &Dialer, address: &str, request: v1::FollowRequest) -> Code {
    let mut asking = Asking::connect(dialer, address, &request).await.expect("members take followers over links");
    let first = timeout(PATIENCE, asking.message()).await.expect("it is answered");
    first
        .and_then(|event| event.ok_or_else(|| Status::aborted("nothing")))
        .map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_over_a_link_what_its_certificate_lets_it_know() {
    let store = Store::start(5000).await;
    store.register().await;
    let address = store.configs[&1].listen.to_string();
    for (name, _) in OTHERS {
        let dialer = dialer(&files_of(&store, name));
        let all = v1::FollowRequest { follower: name.into(), ..v1::FollowRequest::default() };
        // Views are served by gateways, whoever asks.
        let interests = Some(v1::Interests { cluster: "east".into(), node: "n1".into(), addresses: vec![] });
        let view = v1::FollowRequest { interests, ..all.clone() };
        let ahead = v1::FollowRequest { from_revision: 1_000_000, ..all.clone() };
        let no_store = v1::FollowRequest { store_id: "x".into(), ..all.clone() };
        let mut codes = Vec::new();
        for request in [all, view, ahead, no_store] {
            codes.push(first(&dialer, &address, request).await);
        }
        let expected = match name {
            "admin" | "reader" | "gateway" => {
                [Code::Ok, Code::PermissionDenied, Code::Unavailable, Code::InvalidArgument]
            }
            _ => [Code::PermissionDenied; 4],
        };
        assert_eq!(codes, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_over_links_are_let_go_with_a_reason_when_their_member_stops() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let leader = store.leader().await;
    let id = [1, 2, 3].into_iter().find(|id| *id != leader).unwrap();
    let mut follower = FollowedMember::of(&store, id).follow(Revision(0)).await.unwrap();
    let committed = store.execute(leader, &allocate("east", "seen"), PATIENCE).await.unwrap();
    while follower.position().revision < committed.revision {
        timeout(PATIENCE, follower.next()).await.expect("it is told").unwrap();
    }
    let member = store.running.remove(&id).unwrap();
    let stopping = tokio::spawn(member.shutdown(PATIENCE));
    let reason = loop {
        if let Err(reason) = timeout(PATIENCE, follower.next()).await.expect("it is let go") {
            break reason;
        }
    };
    assert!(reason.to_string().contains("this member is stopping"), "{reason}");
    stopping.await.unwrap().unwrap();
}
