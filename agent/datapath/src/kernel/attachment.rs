//! One program on one device: how it gets there, is found again, replaced, and taken off.
//!
//! ```text
//! TCX (Linux ≥ 6.6)  a link; its pin is <endpoint>/<hook>
//! clsact             a filter with our priority and handle; <endpoint>/<hook> is a symbolic link that names its device
//! ```
//!
//! A link lives as long as its pin. A filter lives as long as its device, whoever made it: so its record is made before it
//! and removed after it, and `uninstall` finds every filter. Either is replaced in one step.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, Link as _, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::{error::LinkFailure, features::Mechanism, system};

/// Before every other filter: none can let a packet pass unjudged.
const PRIORITY: u16 = 1;
/// "rf": which of the filters of that priority is ours. A device has one owner, so one handle is enough.
const HANDLE: TcHandle = TcHandle::new(0, 0x7266);
/// What the target of a filter's record begins with; the index of its device follows.
const RECORD: &str = "clsact:";

/// A program on a device. It stays there when this is dropped.
pub(super) enum Attachment {
    /// The pin holds the link.
    Tcx(FdLink),
    /// On the device with this index.
    Filter(u32),
}

/// What a pin says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    /// There is none.
    Nothing,
    /// Of a device that is gone.
    Gone,
    /// Of the device with this index.
    On(u32),
}

impl Attachment {
    /// Puts a program on a device, before every other one, so that none can let a packet pass unjudged; and pins it.
    pub(super) fn make(
        program: &mut SchedClassifier,
        interface: &str,
        place: TcAttachType,
        pin: &Path,
        mechanism: Mechanism,
    ) -> Result<Self, LinkFailure> {
        match mechanism {
            Mechanism::Tcx => {
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                let attached = program.attach_with_options(interface, place, options)?;
                let link = FdLink::try_from(program.take_link(attached)?)?;
                Ok(Self::Tcx(FdLink::from(link.pin(pin)?)))
            }
            Mechanism::Clsact => {
                let index = system::interface_index(interface).ok_or_else(|| gone(pin))?;
                record(pin, index)?;
                add_filter(program, interface, place)?;
                Ok(Self::Filter(index))
            }
        }
    }

    /// Takes over what is pinned; the program stays.
    pub(super) fn adopt(pin: &Path) -> Result<Self, LinkFailure> {
        match recorded(pin).map_err(failed(pin))? {
            Some(index) => Ok(Self::Filter(index)),
            None => Ok(Self::Tcx(FdLink::from(PinnedLink::from_pin(pin)?))),
        }
    }

    /// Puts another program in the place of the one that is there, in one step. None if there is none: whoever made the
    /// record did not come to make the filter, or somebody else removed it.
    pub(super) fn replace(
        self,
        program: &mut SchedClassifier,
        place: TcAttachType,
    ) -> Result<Option<Self>, LinkFailure> {
        match self {
            Self::Tcx(link) => {
                let replaced = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
                Ok(Some(Self::Tcx(FdLink::try_from(program.take_link(replaced)?)?)))
            }
            Self::Filter(index) => {
                let Some(interface) = system::interface_name(index) else { return Ok(None) };
                let there = replace_filter(program, &interface, place)?;
                Ok(there.then_some(Self::Filter(index)))
            }
        }
    }

    /// Pins it a second time: a link without a pin would end with this process.
    pub(super) fn pin_again(self, pin: &Path) -> Result<Self, LinkFailure> {
        match self {
            Self::Tcx(link) if pin.exists() => Ok(Self::Tcx(link)),
            Self::Tcx(link) => Ok(Self::Tcx(FdLink::from(link.pin(pin)?))),
            Self::Filter(index) => record(pin, index).map(|()| Self::Filter(index)),
        }
    }

    /// Makes sure that the program is still there: a filter can be removed by anybody with the right to do so. Answers
    /// whether it was not.
    pub(super) fn restore(&self, program: &mut SchedClassifier, place: TcAttachType) -> Result<bool, LinkFailure> {
        let Self::Filter(index) = self else { return Ok(false) };
        let Some(interface) = system::interface_name(*index) else { return Ok(false) };
        let there = replace_filter(program, &interface, place)?;
        if !there {
            add_filter(program, &interface, place)?;
        }
        Ok(!there)
    }
}

/// Which device a pin is for.
pub(super) fn pinned(pin: &Path) -> io::Result<Pinned> {
    let there = match recorded(pin) {
        Ok(Some(index)) => Ok(system::interface_name(index).map(|_| index)),
        Ok(None) => system::linked_interface(pin),
        Err(error) => Err(error),
    };
    match there {
        Ok(Some(index)) => Ok(Pinned::On(index)),
        Ok(None) => Ok(Pinned::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Pinned::Nothing),
        Err(error) => Err(error),
    }
}

/// Takes the program off that a pin is for, if it is a filter; links go with their pins. The pin stays.
pub(super) fn take_off(pin: &Path, place: TcAttachType) -> Result<(), LinkFailure> {
    let Some(index) = recorded(pin).or_else(none_if_missing).map_err(failed(pin))? else { return Ok(()) };
    let Some(interface) = system::interface_name(index) else { return Ok(()) };
    let filter = SchedClassifierLink::attached(&interface, place, PRIORITY, HANDLE, None).map_err(failed(pin))?;
    match filter.detach() {
        Err(error) if is(&error, libc::ENOENT) || is(&error, libc::EINVAL) => Ok(()), // The qdisc is gone: EINVAL.
        detached => Ok(detached?),
    }
}

/// The device that a filter's record names; none if the pin is a link's.
fn recorded(pin: &Path) -> io::Result<Option<u32>> {
    let target = match fs::read_link(pin) {
        Ok(target) => target,
        // Not a symbolic link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        Err(error) => return Err(error),
    };
    let index = target.to_str().and_then(|target| target.strip_prefix(RECORD)?.parse().ok());
    index.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no record of Ringfence's"))
}

fn none_if_missing(error: io::Error) -> io::Result<Option<u32>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

fn record(pin: &Path, index: u32) -> Result<(), LinkFailure> {
    match symlink(format!("{RECORD}{index}"), pin) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(pin).map_err(failed(pin))?;
            symlink(format!("{RECORD}{index}"), pin).map_err(failed(pin))
        }
        made => made.map_err(failed(pin)),
    }
}

fn add_filter(program: &mut SchedClassifier, interface: &str, place: TcAttachType) -> Result<(), LinkFailure> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if !of_tc(&error, libc::EEXIST) => {
            return Err(LinkFailure::Clsact { interface: interface.to_owned(), source: error });
        }
        _ => {}
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    match program.attach_with_options(interface, place, TcAttachOptions::Netlink(options)) {
        Ok(attached) => keep(program.take_link(attached)?),
        // Of an agent whose records are gone with their bpffs.
        Err(error) if is(&error, libc::EEXIST) => {
            replace_filter(program, interface, place)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// False if there is no filter of ours.
fn replace_filter(program: &mut SchedClassifier, interface: &str, place: TcAttachType) -> Result<bool, LinkFailure> {
    let file = |source| LinkFailure::File { path: PathBuf::from(interface), source };
    let filter = SchedClassifierLink::attached(interface, place, PRIORITY, HANDLE, None).map_err(file)?;
    match program.attach_to_link(filter) {
        Ok(replaced) => keep(program.take_link(replaced)?),
        // No filter, or no qdisc.
        Err(error) if is(&error, libc::ENOENT) || is(&error, libc::EINVAL) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// aya takes a filter off when its link is dropped.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

fn is(error: &ProgramError, code: i32) -> bool {
    match error {
        ProgramError::NetlinkError(error) => error.raw_os_error() == Some(code),
        ProgramError::TcError(error) => of_tc(error, code),
        _ => false,
    }
}

fn of_tc(error: &TcError, code: i32) -> bool {
    matches!(error, TcError::NetlinkError(error) if error.raw_os_error() == Some(code))
}

fn failed(pin: &Path) -> impl Fn(io::Error) -> LinkFailure {
    let path = pin.to_owned();
    move |source| LinkFailure::File { path: path.clone(), source }
}

fn gone(pin: &Path) -> LinkFailure {
    LinkFailure::File { path: pin.to_owned(), source: io::Error::from(io::ErrorKind::NotFound) }
}
