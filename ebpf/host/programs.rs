//! The programs' view of a packet, on any machine: what `ebpf/programs/src/parse.rs` and its neighbours need of `aya_ebpf`,
//! so that tests and fuzz targets run the very parser that runs in the kernel.
//!
//! A crate that includes the parser's files by their paths says `extern crate self as aya_ebpf;` and has this file as
//! module `programs`.

/// A frame, of which a part lies in the linear area.
#[derive(Debug)]
pub struct TcContext {
    /// As `aya_ebpf::programs::TcContext` has it.
    pub skb: SkBuff,
    bytes: Box<[u8]>,
    linear: usize,
    _fields: Box<Fields>,
}

/// As `aya_ebpf::programs::SkBuff` has it.
#[derive(Debug)]
pub struct SkBuff {
    /// The fields.
    pub skb: *mut Fields,
}

/// The fields of `struct __sk_buff` (linux/bpf.h) that the parser reads.
#[derive(Debug)]
pub struct Fields {
    /// EtherType, network byte order.
    pub protocol: u32,
    /// 1 if a VLAN tag was taken out of the frame.
    pub vlan_present: u32,
    /// The mark.
    pub mark: u32,
}

impl TcContext {
    /// A frame whose first `linear` bytes can be read in place; the others have to be copied.
    #[must_use]
    pub fn new(frame: &[u8], linear: usize, tagged: bool, mark: u32) -> Self {
        let ethertype = frame.get(12..14).map_or(0, |bytes| u32::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
        let mut fields = Box::new(Fields { protocol: ethertype, vlan_present: tagged.into(), mark });
        let skb = SkBuff { skb: &raw mut *fields };
        Self { skb, bytes: frame.into(), linear: linear.min(frame.len()), _fields: fields }
    }

    /// Where the linear part begins.
    #[must_use]
    pub fn data(&self) -> usize {
        self.bytes.as_ptr() as usize
    }

    /// Where it ends.
    #[must_use]
    pub fn data_end(&self) -> usize {
        self.data() + self.linear
    }

    /// Copies out of the whole frame, as `bpf_skb_load_bytes` does.
    ///
    /// # Errors
    /// -14 (EFAULT) past the end.
    pub fn load<T: Copy>(&self, offset: usize) -> Result<T, i32> {
        let end = offset.checked_add(size_of::<T>()).ok_or(-14)?;
        let bytes = self.bytes.get(offset..end).ok_or(-14)?;
        // SAFETY: there are enough bytes, and the parser asks for plain bytes only, of which any are a value.
        Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}
