//! A cluster's one door to the mesh: revisions come down through it, writes and reports go up.
//!
//! ```text
//! members of the store ─ Follow ─► upstream ─► MeshCache ─ Follow ─► agents, CLI
//!                      ◄─ Execute, List ── forward ◄─ Execute, List ── agents, CLI
//!                      ◄─ Report ── push ◄─ Reports ◄─ Report ── agents
//!                      ◄─ Execute(KeepAlive) ── keep_alive ◄┘
//! ```
//!
//! The upstream follower fails over between the members and goes on from the revision it has. What is cached is never
//! deleted because the store is out of reach, and never goes back: it only becomes stale, and says so. The gateway
//! knows neither the kernel nor rule compilation.

pub mod cache;
pub mod config;
pub mod gateway;
mod keep_alive;
pub mod members;
pub mod observe;
mod push;
mod register;
pub mod reports;
mod saved;
mod service;
mod settle;
mod status;
mod upstream;

pub use config::Config;
pub use gateway::{Gateway, StartError};
