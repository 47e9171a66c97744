//! What a packet costs on an uplink, where each one is judged with the tables: there is no short way as for endpoints.

use std::{net::Ipv4Addr, path::Path};

use aya::{Ebpf, TestRun, TestRunOptions, programs::SchedClassifier};
use ringfence_datapath::{Datapath, KernelDatapath, Reason};
use ringfence_policy::{
    identity::Identity,
    tables::{AddressEntry, EndpointEntry, EndpointId, Tables},
};

use crate::{
    FIRST_PORT, LOCAL, POLICY, RINGFENCE,
    figures::{Figure, median},
    frame, load,
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
/// Of an Ethernet frame's IPv4 source.
const SOURCE: std::ops::Range<usize> = 26..30;

/// The node's own established connection, and a packet of an endpoint that only passes; leaving. Beside:
/// the same packet where its endpoint sends it. All with the cost of a run itself.
pub(crate) fn measure(
    datapath: &mut KernelDatapath,
    tables: &Tables,
    endpoint: EndpointId,
    pins: &Path,
) -> Vec<Figure> {
    let mut with_node = tables.clone();
    with_node
        .addresses
        .insert(NODE.into(), AddressEntry { identity: Identity::HOST, endpoint: Some(EndpointId::HOST) });
    let entry = EndpointEntry { identity: Identity::HOST, policy: POLICY, shadow: None, audit: false };
    with_node.endpoints.insert(EndpointId::HOST, entry);
    let observed = datapath.observe().unwrap();
    datapath.apply(observed.revision.next(), &observed.tables.diff(&with_node)).unwrap();
    let mut object = load(RINGFENCE, pins);
    let counted = |datapath: &KernelDatapath, reason| datapath.counters().unwrap().0.get(reason);
    let before = [Reason::Established, Reason::Passing].map(|reason| counted(datapath, reason));
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..11 {
        for (times, (program, source)) in
            times.iter_mut().zip([("from_host", NODE), ("from_host", LOCAL), ("from_endpoint", LOCAL)])
        {
            times.push(run(&mut object, program, source, endpoint));
        }
    }
    for (reason, before) in [Reason::Established, Reason::Passing].into_iter().zip(before) {
        assert!(counted(datapath, reason) - before > 100_000, "{reason:?} is not what was measured");
    }
    let [own, passing, hot] = times.map(|mut times| median(&mut times));
    vec![
        Figure::new("uplink: the node's own established connection", own, "ns/packet", None).beside(HOT, hot),
        Figure::new("uplink: a packet of an endpoint, passing", passing, "ns/packet", None).beside(HOT, hot),
    ]
}

const HOT: &str = "established flow at its endpoint";

/// Nanoseconds per packet.
fn run(object: &mut Ebpf, program: &str, source: Ipv4Addr, endpoint: EndpointId) -> f64 {
    let program: &mut SchedClassifier = object.program_mut(program).unwrap().try_into().unwrap();
    let mut frame = frame(FIRST_PORT);
    frame[SOURCE].copy_from_slice(&source.octets());
    let mut context = [0_u8; 192];
    // __sk_buff.ifindex
    context[40..44].copy_from_slice(&endpoint.0.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(&frame);
    options.ctx_in = Some(&context);
    options.repeat = 20_000;
    let result = program.test_run(options).unwrap();
    f64::from(u32::try_from(result.duration.as_nanos()).unwrap())
}
