//! What the kernel says that the maps take, filled as far as the issue asks for.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use aya::maps::MapData;
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions};
use ringfence_policy::{
    flow::Direction,
    identity::Identity,
    revision::Revision,
    tables::{AddressEntry, Class, EndpointEntry, EndpointId, PolicyId, Row, RowKey, Tables},
};

use crate::{figures::Figure, namespaces::BPFFS, scale};

const ADDRESSES: u32 = 524_288;
const ROWS: u32 = 65_536;
const ENDPOINTS: u32 = 250;

/// Mebibytes of all maps, and of those that take most.
pub(crate) fn measure(quick: bool) -> Vec<Figure> {
    let directory = Path::new(BPFFS).join("memory");
    let options = KernelOptions { directory: directory.clone(), capacity: Capacity::default(), tcx: true };
    let mut datapath = KernelDatapath::open(&options).unwrap();
    let part = if quick { 16 } else { 1 };
    let mut tables = tables(part);
    let endpoint = scale::add_endpoint(&mut datapath, &mut tables);
    datapath.apply(Revision(1), &Tables::default().diff(&tables)).unwrap();
    let (mut all, mut addresses, mut rows, mut flows) = (0.0, 0.0, 0.0, 0.0);
    for entry in fs::read_dir(directory.join("v4")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let mebibytes = memlock(&path);
        all += mebibytes;
        match path.file_name().unwrap().to_str().unwrap() {
            "ADDRESSES_0" | "ADDRESSES_1" => addresses += mebibytes,
            "ROWS_0" | "ROWS_1" => rows += mebibytes,
            "FLOWS" => flows += mebibytes,
            _ => {}
        }
    }
    let what = |whole, quick_name| if quick { quick_name } else { whole };
    let mut figures = vec![
        Figure::new(what("memory of all maps", "memory of all maps, a 16th filled"), all, "MiB", None),
        Figure::new(what("  512k addresses, both sets", "  32k addresses, both sets"), addresses, "MiB", None),
        Figure::new(what("  64k rows, both sets", "  4k rows, both sets"), rows, "MiB", None),
        Figure::new("  connections", flows, "MiB", None),
    ];
    figures.extend(scale::measure(&mut datapath, &tables, endpoint, &directory.join("v4"), part));
    figures
}

/// What the kernel charges a pinned map for.
fn memlock(pin: &Path) -> f64 {
    let map = MapData::from_pin(pin).unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd())).unwrap();
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    bytes.trim().parse::<f64>().unwrap() / f64::from(1 << 20)
}

fn tables(part: u32) -> Tables {
    let mut tables = Tables::default();
    let identity = |number: u32| Identity::from_bits(0x0020_0001 + number);
    // One is the endpoint's.
    for number in 1..ADDRESSES / part {
        let address = IpAddr::V6(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number)));
        tables.addresses.insert(address, AddressEntry { identity: identity(number % ROWS), endpoint: None });
    }
    let mut row = Row::default();
    row.set(0, Class::Allow);
    for number in 0..ROWS / part {
        tables.rows.insert(RowKey::of(PolicyId(1), Direction::Egress, identity(number), 0), row);
    }
    for number in 0..ENDPOINTS {
        let entry = EndpointEntry { identity: identity(number), policy: PolicyId(1), shadow: None, audit: false };
        tables.endpoints.insert(EndpointId(1000 + number), entry);
    }
    tables
}
