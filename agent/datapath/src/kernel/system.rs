//! System calls that neither std nor aya offer.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char},
    fs, io,
    mem::MaybeUninit,
    net::IpAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// linux/magic.h
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// linux/bpf.h, enum bpf_cmd
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// linux/bpf.h, enum bpf_link_type
const BPF_LINK_TYPE_TCX: u32 = 11;
/// linux/membarrier.h
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// `union bpf_attr` of BPF_OBJ_GET.
#[repr(C)]
struct ObjectGet {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_bytes: u32,
    info: u64,
}

/// `struct bpf_link_info` up to the members of a TCX link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    attach_type: u32,
}

const LINK_INFO_BYTES: u32 = 24;
const _: () = assert!(size_of::<LinkInfo>() == LINK_INFO_BYTES as usize, "the kernel is told the true size");

/// Whether a path is on a bpffs.
pub(super) fn is_bpf_filesystem(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a string that ends in zero, and room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the answer is there.
    let kind = unsafe { answer.assume_init() }.f_type;
    Ok(u64::try_from(kind) == Ok(BPF_FS_MAGIC))
}

/// The index of a device in this network namespace; none if there is no such device.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of a device in this network namespace; none if there is no such device.
pub(super) fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: room for the longest name and the zero after it.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)
}

/// ARPHRD_… of a device in this network namespace (netdevice(7)).
pub(super) fn hardware_type(name: &str) -> io::Result<u16> {
    // SAFETY: all bytes zero are a request without a name.
    let mut request = unsafe { MaybeUninit::<libc::ifreq>::zeroed().assume_init() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    // SAFETY: a socket of our own.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request is an `ifreq` that the kernel fills in.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// The addresses of the devices in this network namespace, loopback left out (getifaddrs(3)).
pub(super) fn host_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: room for the answer, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut addresses, mut at) = (BTreeSet::new(), first);
    // SAFETY: the list ends in null, and each entry of it stays until it is freed.
    while let Some(entry) = unsafe { at.as_ref() } {
        // SAFETY: null, or an address of the family that it begins with.
        let address = unsafe { entry.ifa_addr.as_ref() }.and_then(|address| match i32::from(address.sa_family) {
            libc::AF_INET => {
                // SAFETY: so it is an IPv4 address; entries are allocated with the alignment of the largest.
                let v4 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                Some(IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 => {
                // SAFETY: so it is an IPv6 address.
                let v6 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                Some(IpAddr::from(v6.sin6_addr.s6_addr))
            }
            _ => None,
        });
        addresses.extend(address.filter(|address| !address.is_loopback()));
        at = entry.ifa_next;
    }
    // SAFETY: what getifaddrs gave, and nothing points into it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

/// The device a pinned TCX link is attached to; none if the device is gone.
pub(super) fn linked_interface(pin: &Path) -> io::Result<Option<u32>> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut get = ObjectGet { path: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let link = bpf(BPF_OBJ_GET, &mut get)?;
    let link = i32::try_from(link).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let mut info = LinkInfo::default();
    let mut ask = InfoByFd {
        bpf_fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
        info_bytes: LINK_INFO_BYTES,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask)?;
    if info.kind != BPF_LINK_TYPE_TCX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the pin is not a TCX link"));
    }
    Ok((info.interface != 0).then_some(info.interface))
}

/// Waits until every program that runs now has ended (membarrier(2): the kernel waits for an RCU grace period).
pub(super) fn wait_for_readers() -> io::Result<()> {
    // SAFETY: takes no pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Secret words (getrandom(2)).
pub(super) fn random() -> io::Result<[u64; 5]> {
    let mut words = [0_u64; 5];
    let bytes = size_of_val(&words);
    // SAFETY: room for so many bytes; any bytes are words.
    match unsafe { libc::getrandom(words.as_mut_ptr().cast(), bytes, 0) } {
        // Up to 256 bytes come whole.
        length if usize::try_from(length) == Ok(bytes) => Ok(words),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nanoseconds of the clock that the programs read, CLOCK_MONOTONIC.
pub(super) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer; the clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Bytes of memory of this machine; 0 if the kernel does not say.
pub(super) fn memory_bytes() -> u64 {
    let mut info = MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: room for the answer.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: the call succeeded, so the answer is there.
    let info = unsafe { info.assume_init() };
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// How many CPUs this machine can have: one more than the highest number in the kernel's list.
pub(super) fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string(POSSIBLE_CPUS)?;
    let last = list.trim().rsplit([',', '-']).next().unwrap_or_default();
    last.parse::<usize>().map(|last| last + 1).map_err(io::Error::other)
}

/// Where the kernel lists them (Documentation/admin-guide/cputopology.rst).
pub(super) const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// bpf(2)
pub(super) fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are those of the command, with their size.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
