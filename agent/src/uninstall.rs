//! The only way to end enforcement on a node: stopping the agent leaves it in place.

#[cfg(feature = "kernel")]
use ringfence_datapath::kernel;

use crate::{
    config::{Config, DatapathKind},
    open::DatapathError,
    socket::{self, SocketError},
};

/// Enforcement cannot be ended.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The agent still runs: it would put back what is removed.
    #[error("cannot uninstall while the agent runs: {0}")]
    Running(#[from] SocketError),
    /// The pins' directory cannot be named, or there is no kernel datapath in this program.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The pins cannot be removed.
    #[cfg(feature = "kernel")]
    #[error(transparent)]
    Kernel(#[from] kernel::UninstallError),
}

/// Takes the programs off all interfaces of this node and removes what is pinned. Returns what was done, in words.
///
/// # Errors
/// `UninstallError`, for example while an agent runs with this configuration.
pub fn uninstall(config: &Config) -> Result<String, UninstallError> {
    let lock = match socket::lock(&config.socket) {
        // Without the socket's directory no agent can run.
        Err(SocketError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        lock => Some(lock?),
    };
    let done = remove(config);
    drop(lock);
    done
}

fn remove(config: &Config) -> Result<String, UninstallError> {
    match config.datapath.kind {
        DatapathKind::Memory => {
            Ok(format!("the memory datapath of {}/{} enforces nothing: nothing to remove", config.cluster, config.node))
        }
        #[cfg(feature = "kernel")]
        DatapathKind::Kernel => {
            let directory = crate::open::pins(config).map_err(DatapathError::from)?;
            kernel::uninstall(&directory)?;
            Ok(format!(
                "node {}/{} enforces nothing any more: {} is gone",
                config.cluster,
                config.node,
                directory.display()
            ))
        }
        #[cfg(not(feature = "kernel"))]
        DatapathKind::Kernel => Err(UninstallError::Datapath(DatapathError::NotBuilt)),
    }
}
