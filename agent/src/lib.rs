//! The owner of one node's datapath: follows the mesh, compiles it for this node, and realises it as a whole.
//!
//! ```text
//! gateway ─ Follow ─► feed ─► Mesh ─┐
//! endpoints.yaml, local API ─► Registry ─ attach ─► Realiser (one thread owns the Datapath)
//!                       │                 compile ─► Tables ─ diff ─► apply ─► packets
//!                       └─ PutNode, PutEndpoint ─► gateway                │
//! gateway ◄─ Report ─ NodeStatus ◄─ realised revision, problems ◄─────────┘
//! datapath ─ events ─► EventBus ─► monitor;  counters ─► Figures ─► metrics, status;  maps ─► MapReader ─► `bpf … list`
//! ```
//!
//! Nothing the agent loses changes a verdict: without a gateway, after a restart, with a revision that cannot be
//! compiled or does not fit, packets are judged by the last revision that was realised as a whole. The agent knows
//! neither Raft nor the Kubernetes API.

pub mod agent;
pub mod attach;
pub mod config;
pub mod declared;
pub mod events;
pub mod feed;
pub mod figures;
pub mod follow;
pub mod gateways;
mod local;
mod maps;
mod monitor;
pub mod observe;
mod open;
pub mod owner;
mod people;
pub mod realise;
pub mod register;
pub mod registry;
mod report;
mod service;
mod socket;
mod status;
pub mod uninstall;

pub use agent::{Agent, StartError};
pub use config::Config;
