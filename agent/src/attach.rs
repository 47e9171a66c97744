//! Puts the declared endpoints' interfaces under enforcement.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    owner::{DatapathHandle, Stopped},
    registry::{Attachment, Registry},
};

/// How often an interface that is not there yet is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Attaches what is declared and not attached.
#[derive(Debug)]
pub struct Attaching {
    /// What is declared.
    pub registry: Arc<Registry>,
    /// Where to attach.
    pub datapath: DatapathHandle,
}

impl Attaching {
    /// Gives every endpoint its first chance, lets revisions be realised then, and goes on until cancelled.
    ///
    /// # Errors
    /// `Stopped` if the datapath's thread has ended.
    pub async fn run(self, token: CancellationToken) -> Result<(), Stopped> {
        let mut changed = self.registry.subscribe_work();
        self.attach_waiting().await?;
        self.datapath.open().await?;
        loop {
            let waiting = self.attach_waiting().await?;
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                _ = changed.changed() => {}
                () = tokio::time::sleep(RETRY), if waiting => {}
            }
        }
    }

    /// Whether an endpoint still waits for its interface.
    async fn attach_waiting(&self) -> Result<bool, Stopped> {
        let (mut waiting, mut attached) = (false, false);
        for entry in self.registry.entries() {
            if entry.held || matches!(entry.attachment, Attachment::Attached { .. }) {
                continue;
            }
            let declared = &entry.declared;
            let attachment = match self.datapath.attach(declared.name.clone(), declared.interface.clone()).await? {
                Ok(id) => {
                    tracing::info!(endpoint = %declared.name, interface = declared.interface, %id, "endpoint attached");
                    attached = true;
                    Attachment::Attached { id }
                }
                Err(error) => {
                    waiting = true;
                    Attachment::Waiting { reason: error.to_string() }
                }
            };
            if attachment != entry.attachment
                && let Attachment::Waiting { reason } = &attachment
            {
                tracing::warn!(endpoint = %declared.name, reason, "endpoint not attached yet");
            }
            self.registry.update(declared, |entry| entry.attachment = attachment);
        }
        if attached {
            self.datapath.realise().await?;
        }
        Ok(waiting)
    }
}
