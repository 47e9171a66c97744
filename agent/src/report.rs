//! The node's report on its way to the gateway.

use std::{sync::Arc, time::Duration};

use ringfence_policy::name::Name;
use ringfence_proto::status::describe;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    gateways::Gateways,
    owner::DatapathHandle,
    registry::Registry,
    status::{NodeSources, node_status},
};

/// News within this time go up together.
const COALESCE: Duration = Duration::from_millis(20);

/// Tells the gateway how the node does.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) cluster: Name,
    pub(crate) node: Name,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) datapath: DatapathHandle,
    pub(crate) registry: Arc<Registry>,
    pub(crate) unregistered: watch::Receiver<Vec<String>>,
    pub(crate) interval: Duration,
}

impl Reporter {
    /// Reports on news and in every interval, until cancelled.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let (mut realised, mut registry) = (self.datapath.realised(), self.registry.subscribe());
        let mut reachable = true;
        loop {
            realised.mark_unchanged();
            registry.mark_unchanged();
            self.unregistered.mark_unchanged();
            let status = self.status();
            let reported = tokio::select! {
                () = token.cancelled() => return,
                reported = self.gateways.report(status) => reported,
            };
            if let Err(status) = &reported
                && reachable
            {
                tracing::info!(reason = describe(status), "reports do not reach the gateway");
            }
            reachable = reported.is_ok();
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
                _ = realised.changed() => tokio::time::sleep(COALESCE).await,
                _ = registry.changed() => tokio::time::sleep(COALESCE).await,
                _ = self.unregistered.changed() => tokio::time::sleep(COALESCE).await,
            }
        }
    }

    fn status(&self) -> ringfence_proto::v1::NodeStatus {
        node_status(&NodeSources {
            cluster: &self.cluster,
            node: &self.node,
            datapath: &self.datapath,
            registry: &self.registry,
            unregistered: &self.unregistered,
        })
    }
}
