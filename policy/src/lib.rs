//! The meaning of everything Ringfence moves around, as pure data and pure functions.
//!
//! ```text
//! policy object (YAML/JSON) ─ parse ─► Object ─► Rules ┐
//! Snapshot/Delta ─► Mesh (clusters, nodes, identities, endpoints, policy texts at one Revision)
//!                                                      ├─ compile ─► Tables ─ diff ─► TableDiff ─► datapath
//!                                          local node ─┘
//! Rules + label sets + Settings + World ─ evaluate ─► SubjectPolicy or Conflict ─ Flow ─► Decision
//!                                                      (the specification: short, slow, obviously right)
//! prefixes, groups, DNS answers ─ AddressBook ─► label sets of addresses outside the pods
//! ```
//!
//! Nothing here does IO, reads a clock, draws a random number, or knows the network or the kernel. Collections are
//! ordered: equal inputs give equal outputs, byte for byte. Semantics are numbered rules (LBL-1, SEM-20, DENY-4, …);
//! tests are named after them.

pub mod address;
pub mod cidr;
pub mod command;
pub mod compat;
pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod engine;
pub mod entity;
pub mod evaluate;
pub mod explain;
pub mod flow;
pub mod identity;
pub mod l7;
pub mod label;
pub mod label_filter;
pub mod mesh;
pub mod name;
pub mod object;
pub mod record;
pub mod reserved;
pub mod revision;
pub mod rule;
pub mod selector;
pub mod shared_map;
pub mod store;
pub mod tables;
pub mod text;
pub mod view;
pub mod world;
