//! What can go wrong between this process and the kernel.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError, tc::TcError},
    sys::SyscallError,
};
use ringfence_policy::name::Name;

use crate::error::ObserveError;

/// The kernel's datapath cannot be opened. What was pinned goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Pins need a bpffs.
    #[error("{} is not on a BPF file system; mount one with: mount -t bpf bpf {}", path.display(), mount_point.display())]
    NotBpfFilesystem {
        /// The directory that was given.
        path: PathBuf,
        /// The nearest directory that is there.
        mount_point: PathBuf,
    },
    /// A directory for pins cannot be made or read.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is the one writer.
    #[error("{} is in use by another process: only one agent can own a node's datapath", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel lets this process load no BPF.
    #[error("the kernel does not permit BPF: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON ({source})")]
    NotPermitted {
        /// What it said.
        source: io::Error,
    },
    /// The kernel cannot do what the programs need.
    #[error("Linux {release} does not offer what the datapath needs: {what} (Linux 5.12 or newer has it): {source}")]
    NotOffered {
        /// The kernel's.
        release: String,
        /// What is missing.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The object or one of its maps cannot be loaded.
    #[error("cannot load the eBPF maps: {source}")]
    Load {
        /// Why.
        source: EbpfError,
    },
    /// The verifier refuses a program, or it cannot be loaded.
    #[error("cannot load the eBPF program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The object lacks something: it was built from other sources.
    #[error("the eBPF object has no {what}")]
    Missing {
        /// The map or program.
        what: String,
    },
    /// A map cannot be used.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: String,
        /// Why.
        source: MapError,
    },
    /// A pinned map is not what this version reads.
    #[error(
        "pinned map {map} has keys of {key_size} and values of {value_size} bytes instead of {expected_key_size} and \
         {expected_value_size}: it was made by another version; uninstall that first"
    )]
    Layout {
        /// Its name.
        map: String,
        /// Bytes.
        key_size: u32,
        /// Bytes.
        value_size: u32,
        /// Bytes.
        expected_key_size: usize,
        /// Bytes.
        expected_value_size: usize,
    },
    /// A map cannot be mapped into memory.
    #[error("cannot map {map} into memory: {source}")]
    Memory {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// How many CPUs there are is unknown, or too many.
    #[error("this machine has {cpus} CPUs; the datapath has cells for {max}")]
    TooManyCpus {
        /// How many there are.
        cpus: usize,
        /// How many there can be.
        max: u32,
    },
    /// The number of CPUs cannot be read.
    #[error("cannot read {path}: {source}")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What is in the maps cannot be read.
    #[error("what is enforced cannot be taken over: {source}")]
    Adopt {
        /// Why.
        source: ObserveError,
    },
    /// A pinned link cannot be adopted.
    #[error("endpoint {name}: {source}")]
    Link {
        /// The endpoint.
        name: Name,
        /// Why.
        source: LinkFailure,
    },
}

/// A program cannot be put on a device, kept there, or taken off.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// Attaching or replacing failed.
    #[error("cannot attach the program: {source}")]
    Attach {
        /// Why.
        #[from]
        source: ProgramError,
    },
    /// The link is of another kind.
    #[error("not a TCX link: {source}")]
    Kind {
        /// Why.
        #[from]
        source: LinkError,
    },
    /// A device cannot have filters.
    #[error("cannot add a clsact qdisc to {interface}, which programs need where there is no TCX: {source}")]
    Clsact {
        /// The device.
        interface: String,
        /// Why.
        source: TcError,
    },
    /// Pinning failed.
    #[error("cannot pin the link: {source}")]
    Pin {
        /// Why.
        #[from]
        source: PinError,
    },
    /// A pin, its directory, or a property of the device cannot be read or changed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Enforcement cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// Only pins are removed.
    #[error("{} is not on a BPF file system: nothing was removed", path.display())]
    NotBpfFilesystem {
        /// The directory that was given.
        path: PathBuf,
    },
    /// A pin cannot be removed.
    #[error("{}: {source}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program cannot be taken off its device; the pins are still there.
    #[error("a program cannot be taken off: {source}")]
    TakeOff {
        /// Why.
        #[from]
        source: LinkFailure,
    },
}

/// The system's answer inside an error of aya's.
pub(super) fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(SyscallError { io_error, .. }) | MapError::IoError(io_error) => io_error,
        other => io::Error::other(other),
    }
}
