//! `ringfence store member …`

use clap::Subcommand;
use ringfence_proto::v1;
use tonic::{Code, Status};

use crate::{
    connect::Servers,
    failure::Failure,
    output::{self, Format, table},
    view::MemberView,
};

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// All members, learners too.
    List,
    /// Adds the member that runs at an address (with 'join: true') as a learner: it gets the log and does not vote yet.
    Add {
        /// HOST:PORT under which the other members reach it.
        address: String,
    },
    /// Lets a learner vote, once it has caught up.
    Promote {
        /// The member's id.
        id: u64,
    },
    /// Removes a member. Stop its process afterwards.
    Remove {
        /// The member's id.
        id: u64,
    },
    /// Makes another member the leader.
    MoveLeader {
        /// The new leader's id; the voter with the longest log without.
        id: Option<u64>,
    },
}

pub(super) async fn run(command: &MemberCommand, servers: &mut Servers, format: Format) -> Result<(), Failure> {
    let answer = ask(command, servers).await?;
    if format == Format::Table
        && let Some(done) = done(command, answer.id)
    {
        output::line(&format!("{done}\n"))?;
    }
    let members: Vec<MemberView> = answer.members.into_iter().map(MemberView::from).collect();
    Ok(output::print(format, &members, || {
        table(
            ["MEMBER", "CLUSTER", "ADDRESS", "STATE", "TERM", "APPLIED/LOG"],
            members.iter().map(|member| {
                [
                    member.id.to_string(),
                    member.cluster.clone(),
                    member.address.clone(),
                    member.state.clone(),
                    member.term.to_string(),
                    format!("{}/{}", member.applied_index, member.last_log_index),
                ]
            }),
        )
    })?)
}

async fn ask(command: &MemberCommand, servers: &mut Servers) -> Result<v1::MembersResponse, Failure> {
    let answer = match command {
        MemberCommand::List => {
            servers
                .call_store(v1::MembersRequest {}, async |mut store, request| named(store.members(request).await))
                .await
        }
        MemberCommand::Add { address } => {
            let message = v1::AddMemberRequest { address: address.clone() };
            servers.call_store(message, async |mut store, request| named(store.add_member(request).await)).await
        }
        MemberCommand::Promote { id } => {
            let message = v1::PromoteMemberRequest { id: *id };
            servers.call_store(message, async |mut store, request| named(store.promote_member(request).await)).await
        }
        MemberCommand::Remove { id } => {
            let message = v1::RemoveMemberRequest { id: *id };
            servers.call_store(message, async |mut store, request| named(store.remove_member(request).await)).await
        }
        MemberCommand::MoveLeader { id } => {
            let message = v1::MoveLeaderRequest { id: id.unwrap_or_default() };
            servers.call_store(message, async |mut store, request| named(store.move_leader(request).await)).await
        }
    };
    Ok(answer?.into_inner())
}

/// A gateway does not serve the store's own service: say so instead of "unimplemented".
fn named<T>(answer: Result<T, Status>) -> Result<T, Status> {
    answer.map_err(|status| match status.code() {
        Code::Unimplemented => Status::failed_precondition(
            "this server is no member of the store: give the address of one with --server, for example 10.40.1.10:7400",
        ),
        _ => status,
    })
}

fn done(command: &MemberCommand, id: u64) -> Option<String> {
    match command {
        MemberCommand::List => None,
        MemberCommand::Add { .. } => {
            Some(format!("member {id} is added as a learner; 'ringfence store member promote {id}' lets it vote"))
        }
        MemberCommand::Promote { id } => Some(format!("member {id} votes")),
        MemberCommand::Remove { id } => Some(format!("member {id} is removed: stop its process")),
        MemberCommand::MoveLeader { .. } => Some(format!("member {id} leads")),
    }
}
