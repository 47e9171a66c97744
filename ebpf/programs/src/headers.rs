//! Headers as they stand in a frame, and how they are read.
//!
//! Headers at fixed offsets are read in place; where a header lies at a variable offset, or outside the packet's linear
//! part, the kernel copies it. Two bytes of alignment: the network header begins 14 bytes into a frame.

use aya_ebpf::programs::TcContext;
use ringfence_ebpf_common::Reason;

/// RFC 791 §3.1; fields in network byte order.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(crate) struct Ipv4 {
    pub(crate) version_and_length: u8,
    service: u8,
    total_length: u16,
    pub(crate) identification: u16,
    pub(crate) fragment: u16,
    time_to_live: u8,
    pub(crate) protocol: u8,
    checksum: u16,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

/// RFC 8200 §3; fields in network byte order.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(crate) struct Ipv6 {
    pub(crate) version_class_flow: [u8; 4],
    payload_length: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
}

/// The first 14 bytes of a TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(crate) struct Tcp {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    data_offset: u8,
    pub(crate) flags: u8,
}

/// The ports of TCP, UDP and SCTP.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
}

/// ICMP and ICMPv6; `identifier` means something in queries and their answers only.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    code: u8,
    checksum: u16,
    pub(crate) identifier: u16,
}

/// Where a header lies and how it is read.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) context: &'a TcContext,
    pub(crate) offset: usize,
    /// The offset is the same for every packet.
    pub(crate) fixed: bool,
}

impl At<'_> {
    #[inline(always)]
    pub(crate) fn get<T: Copy>(self) -> Result<T, Reason> {
        if self.fixed { read(self.context, self.offset) } else { copy(self.context, self.offset) }
    }

    #[inline(always)]
    pub(crate) fn after(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }
}

/// Reads in place, or copies if the bytes are not in the linear part.
#[inline(always)]
pub(crate) fn read<T: Copy>(context: &TcContext, offset: usize) -> Result<T, Reason> {
    let start = context.data() + offset;
    if start + size_of::<T>() <= context.data_end() {
        // SAFETY: the verifier has seen the bound check; `T` is plain bytes with an alignment of at most two, and
        // headers lie at even offsets.
        Ok(unsafe { *(start as *const T) })
    } else {
        copy(context, offset)
    }
}

/// Reads in place; none if the bytes are not in the linear part.
#[inline(always)]
pub(crate) fn in_place<T: Copy>(context: &TcContext, offset: usize) -> Option<T> {
    let start = context.data() + offset;
    if start + size_of::<T>() <= context.data_end() {
        // SAFETY: as above.
        Some(unsafe { *(start as *const T) })
    } else {
        None
    }
}

#[inline(always)]
pub(crate) fn copy<T: Copy>(context: &TcContext, offset: usize) -> Result<T, Reason> {
    context.load(offset).map_err(|_| Reason::Unparsable)
}
