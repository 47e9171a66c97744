//! Endpoints that come and go through the local API: done as a whole, or not at all.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ringfence_policy::{command::Command, name::Name, record::RecordKey, tables::EndpointId};
use ringfence_proto::v1;
use tonic::{Code, Status};

use crate::{
    declared::DeclaredEndpoint,
    gateways::Gateways,
    owner::{DatapathHandle, Stopped},
    register::registered,
    registry::{Attachment, DeclareError, Entry, Origin, Registry},
};

/// Changes to this node's endpoints.
#[derive(Debug)]
pub(crate) struct LocalEndpoints {
    pub(crate) cluster: Name,
    pub(crate) node: Name,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) datapath: DatapathHandle,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Declare(#[from] DeclareError),
    #[error(transparent)]
    Attach(#[from] ringfence_datapath::AttachError),
    #[error("{}", .0.message())]
    Store(#[from] Status),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("endpoint {name} is not known on this node")]
    Unknown { name: Name },
}

impl LocalEndpoints {
    /// Declares an endpoint: keeps it, attaches it, and answers when the store has it.
    ///
    /// # Errors
    /// `ChangeError`; everything is as it was before then.
    pub(crate) async fn put(&self, declared: DeclaredEndpoint) -> Result<v1::Committed, ChangeError> {
        let _one = self.registry.exclusive().await;
        let name = declared.name.clone();
        let attached_before = self.datapath.attached().await?.contains_key(&name);
        let before = self.registry.declare(declared.clone())?;
        let put = self.attach_and_register(&declared).await;
        if put.is_err() {
            if !attached_before && self.datapath.attached().await?.contains_key(&name) {
                self.datapath.detach(name.clone()).await??;
            }
            self.registry.restore(&name, before)?;
        }
        put
    }

    /// Removes an endpoint: from the store, from the declarations, from the datapath, in this order, so that it is
    /// refused rather than open while it goes.
    ///
    /// # Errors
    /// `ChangeError`; everything is as it was before then.
    pub(crate) async fn delete(&self, name: &Name) -> Result<v1::Committed, ChangeError> {
        let _one = self.registry.exclusive().await;
        let entry = self.registry.get(name);
        if entry.as_ref().is_some_and(|entry| entry.origin == Origin::File) {
            return Err(DeclareError::FromFile { name: name.clone() }.into());
        }
        let attached = self.datapath.attached().await?.contains_key(name);
        if entry.is_none() && !attached {
            return Err(ChangeError::Unknown { name: name.clone() });
        }
        self.hold(entry.as_ref(), true);
        let key = RecordKey::Endpoint(self.cluster.clone(), self.node.clone(), name.clone());
        let deleted = match self.gateways.execute(&v1::Command::from(Command::Delete(key))).await {
            // It never got there, or an earlier attempt removed it and its answer was lost.
            Err(status) if status.code() == Code::NotFound => Ok(v1::Committed::default()),
            deleted => deleted,
        };
        let committed = match deleted {
            Ok(committed) => committed,
            Err(status) => {
                self.hold(entry.as_ref(), false);
                return Err(status.into());
            }
        };
        if entry.is_some() {
            self.registry.restore(name, None)?;
        }
        if attached {
            self.datapath.detach(name.clone()).await??;
            self.datapath.realise().await?;
        }
        Ok(committed)
    }

    /// The addresses of attached endpoints.
    pub(crate) fn addresses(&self) -> BTreeMap<IpAddr, EndpointId> {
        let entries = self.registry.entries();
        let attached = entries.iter().filter_map(|entry| match entry.attachment {
            Attachment::Attached { id } => Some((id, &entry.declared.addresses)),
            Attachment::Waiting { .. } => None,
        });
        attached.flat_map(|(id, addresses)| addresses.iter().map(move |address| (*address, id))).collect()
    }

    async fn attach_and_register(&self, declared: &DeclaredEndpoint) -> Result<v1::Committed, ChangeError> {
        let id = self.datapath.attach(declared.name.clone(), declared.interface.clone()).await??;
        let spec = declared.spec(&self.cluster, &self.node);
        let committed = self.gateways.execute(&v1::Command::from(Command::PutEndpoint(spec))).await?;
        self.registry.update(declared, |entry| {
            entry.attachment = Attachment::Attached { id };
            entry.registration = registered(&committed);
            entry.held = false;
        });
        self.datapath.realise().await?;
        Ok(committed)
    }

    fn hold(&self, entry: Option<&Entry>, held: bool) {
        if let Some(entry) = entry {
            self.registry.update(&entry.declared, |entry| entry.held = held);
        }
    }
}

impl From<ChangeError> for Status {
    fn from(error: ChangeError) -> Self {
        let code = match &error {
            ChangeError::Store(status) => status.code(),
            ChangeError::Stopped(_) => Code::Unavailable,
            ChangeError::Unknown { .. } | ChangeError::Declare(DeclareError::Unknown { .. }) => Code::NotFound,
            ChangeError::Declare(DeclareError::Keep { .. }) => Code::Internal,
            ChangeError::Declare(_) | ChangeError::Attach(_) => Code::FailedPrecondition,
        };
        Self::new(code, error.to_string())
    }
}
