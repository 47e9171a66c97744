//! Opens the datapath that the configuration asks for.

#[cfg(feature = "kernel")]
use std::path::PathBuf;

#[cfg(feature = "kernel")]
use ringfence_datapath::{Capacity, KernelDatapath, KernelOptions, kernel};
use ringfence_datapath::{Datapath, MemoryDatapath};
#[cfg(feature = "kernel")]
use ringfence_policy::name::{InvalidName, Name};

use crate::config::{Config, DatapathKind};

/// The datapath cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel's cannot; what it enforces stays as it is.
    #[cfg(feature = "kernel")]
    #[error(
        "the kernel datapath cannot be opened: {source} (without eBPF the agent runs with 'datapath: {{kind: memory}}', which enforces nothing)"
    )]
    Kernel {
        /// Why, and what is missing.
        #[from]
        source: kernel::OpenError,
    },
    /// The pins' directory cannot be named.
    #[cfg(feature = "kernel")]
    #[error("cluster and node together make a name that is too long for the kernel's pins: {source}")]
    Name {
        /// Why.
        #[from]
        source: InvalidName,
    },
    /// It is not part of this program.
    #[cfg(not(feature = "kernel"))]
    #[error(
        "datapath: this agent was built without the kernel datapath: use 'datapath: {{kind: memory}}', or build it with feature 'kernel'"
    )]
    NotBuilt,
}

/// Opens the configured datapath; adopting what is in the kernel changes no verdict.
///
/// # Errors
/// `DatapathError`; what was enforced stays so.
pub(crate) fn open(config: &Config) -> Result<Box<dyn Datapath>, DatapathError> {
    match config.datapath.kind {
        DatapathKind::Memory => Ok(Box::new(MemoryDatapath::default())),
        #[cfg(feature = "kernel")]
        DatapathKind::Kernel => {
            let options =
                KernelOptions { directory: pins(config)?, capacity: Capacity::default(), tcx: config.datapath.tcx };
            Ok(Box::new(KernelDatapath::open(&options)?))
        }
        #[cfg(not(feature = "kernel"))]
        DatapathKind::Kernel => Err(DatapathError::NotBuilt),
    }
}

/// The directory of this node's pins. Nodes of several clusters may share one bpffs (in a test bed), so the cluster is
/// part of it.
///
/// # Errors
/// `InvalidName` if the names are too long together.
#[cfg(feature = "kernel")]
pub(crate) fn pins(config: &Config) -> Result<PathBuf, InvalidName> {
    let node = Name::new(format!("{}.{}", config.cluster, config.node))?;
    Ok(kernel::pin_directory(&config.datapath.bpffs, &node))
}
