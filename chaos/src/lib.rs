//! Live drills of a whole Ringfence mesh: the test bed, the workloads inside endpoints, the demo, and the store's drill.
//!
//! ```text
//!  ringfence-demo ── lock, janitor ──► run        this machine stays as it was
//!        │
//!        ├──► testbed ── real binaries, namespaces, CLI ──► the mesh under test
//!        │        └───── JSON lines ──► workload (this binary again, inside an endpoint)
//!        ├──► demo ── steps ──► expectations, verdict matrices, figures ──► exit 0 or 1
//!        └──► store ── faults, clients, followers ──► histories, judged ──► exit 0 or 1
//! ```
//!
//! Production code never knows that it is under test: the demo speaks the `ringfence` command and nothing else, the store's
//! drill the public API.

pub mod demo;
pub mod run;
pub mod store;
pub mod testbed;
pub mod workload;
