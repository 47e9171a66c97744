//! What this kernel offers. Found by asking, not by its version: distributions carry features back.

use std::{fmt, fs};

use aya::programs::{SchedClassifier, TcAttachType};

/// How programs get on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// TCX links (Linux 6.6): programs of several owners, in an order that each can ask for; the pin holds the link.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// What was found when the datapath was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The kernel's, as `uname -r` says it.
    pub release: String,
    /// Whether the kernel has TCX.
    pub tcx: bool,
    /// How endpoints are attached from now on. One that is attached already stays as it is.
    pub mechanism: Mechanism,
}

impl Features {
    /// Asks the kernel. `may_use_tcx` false: as if it had no TCX.
    pub(super) fn find(may_use_tcx: bool) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        // Every network namespace has it. Kernels without TCX do not know what is asked.
        let tcx = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
        let mechanism = if tcx && may_use_tcx { Mechanism::Tcx } else { Mechanism::Clsact };
        Self { release, tcx, mechanism }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (self.mechanism, self.tcx) {
            (Mechanism::Tcx, _) => "TCX",
            (Mechanism::Clsact, true) => "clsact (TCX is turned off)",
            (Mechanism::Clsact, false) => "clsact (there is no TCX: Linux 6.6 has it)",
        };
        write!(f, "Linux {}, attaching with {how}", self.release)
    }
}
