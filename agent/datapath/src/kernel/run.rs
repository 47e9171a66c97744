//! Running a program on a packet of our own (BPF_PROG_TEST_RUN).

use std::io;

use aya::{Ebpf, TestRun, TestRunOptions, programs::ProgramError};
use ringfence_ebpf_common::{Hook, MARK_JUDGED, MARK_PASSED, Reason, program};
use ringfence_policy::tables::EndpointId;

use super::{frame::frame, open::classifier};
use crate::{
    error::ProbeError,
    probe::{ProbeOutcome, ProbePacket},
};

/// Offsets into `struct __sk_buff` (linux/bpf.h).
const MARK: usize = 8;
const INTERFACE: usize = 40;
const CONTROL_BLOCK: usize = 48;
/// More than any kernel's `struct __sk_buff`; what is beyond must be zero.
const CONTEXT_BYTES: usize = 256;
/// The programs' answer for a packet that passes: TC_ACT_UNSPEC.
const PASSED: u32 = u32::MAX;

pub(super) fn run(
    ebpf: &mut Ebpf,
    hook: Hook,
    endpoint: EndpointId,
    packet: &ProbePacket,
) -> Result<ProbeOutcome, ProbeError> {
    packet.packet()?;
    let name = match hook {
        Hook::FromEndpoint => program::FROM_ENDPOINT,
        Hook::ToEndpoint => program::TO_ENDPOINT,
        Hook::FromHost => program::FROM_HOST,
        Hook::ToHost => program::TO_HOST,
    };
    let frame = frame(packet);
    let mut context = [0_u8; CONTEXT_BYTES];
    let mark = if packet.judged { MARK_JUDGED | MARK_PASSED } else { 0 };
    context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
    context[INTERFACE..INTERFACE + 4].copy_from_slice(&endpoint.0.to_ne_bytes());
    let mut answer = [0_u8; CONTEXT_BYTES];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&frame);
    options.ctx_in = Some(&context);
    options.ctx_out = Some(&mut answer);
    let failed = |source| ProbeError::Run { endpoint, source };
    let classifier = classifier(ebpf, name).map_err(|error| failed(io::Error::other(error)))?;
    let result = classifier.test_run(options).map_err(|error| {
        failed(match error {
            ProgramError::SyscallError(error) => error.io_error,
            other => io::Error::other(other),
        })
    })?;
    let word = |at: usize| u32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    let reason = word(CONTROL_BLOCK);
    let known = Reason::ALL.into_iter().find(|known| *known as u32 == reason);
    Ok(ProbeOutcome {
        allowed: result.return_value == PASSED,
        reason: known.ok_or(ProbeError::Answer { reason })?,
        judged_both: hook == Hook::FromEndpoint && word(MARK) & MARK_JUDGED != 0,
    })
}
