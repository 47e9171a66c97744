//! Clients of all members that outlive the members.

use std::{collections::BTreeMap, time::Duration};

use ringfence_policy::{
    command::{Command, Committed},
    label::Label,
};
use ringfence_proto::v1::{self, mesh_client::MeshClient};
use tonic::{Request, Status, transport::Channel};

use crate::support::Store;

/// A connection to every member, made again when broken; clones share them.
#[derive(Clone)]
pub(crate) struct Clients(BTreeMap<u64, Channel>);

impl Clients {
    pub(crate) fn of(store: &Store) -> Self {
        Self(store.configs.keys().map(|id| (*id, store.channel(*id))).collect())
    }

    pub(crate) fn get(&self, id: u64) -> MeshClient<Channel> {
        MeshClient::new(self.0[&id].clone())
    }

    pub(crate) async fn execute(&self, id: u64, command: &Command, timeout: Duration) -> Result<Committed, Status> {
        let mut request = Request::new(v1::Command::from(command.clone()));
        request.set_timeout(timeout);
        let answer = tokio::time::timeout(timeout, self.get(id).execute(request)).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner().into())
    }

    /// The `k8s:app` of every identity that a member lists, linearizably.
    pub(crate) async fn apps(&self, id: u64) -> Result<Vec<String>, Status> {
        let consistency = v1::Consistency::Linearizable.into();
        let mut request = Request::new(v1::ListRequest { kind: v1::Kind::Identity.into(), consistency });
        request.set_timeout(Duration::from_secs(10));
        let (mut apps, mut answer) = (Vec::new(), self.get(id).list(request).await?.into_inner());
        while let Some(part) = answer.message().await? {
            for record in part.records {
                let versioned = ringfence_policy::record::Versioned::try_from(record)?;
                if let ringfence_policy::record::Record::Identity(record) = versioned.record {
                    apps.extend(record.labels.iter().filter(|label| label.key == "app").map(Label::to_string));
                }
            }
        }
        Ok(apps.iter().filter_map(|app| app.strip_prefix("k8s:app=")).map(ToOwned::to_owned).collect())
    }
}
