//! What every Ringfence process needs to start, run and stop: configuration, TLS, logging, metrics, health, tasks.
//!
//! ```text
//! main: config::load ─► telemetry::init ─► build the app ─► Tasks::spawn … ─► shutdown::signal ─► Tasks::drain
//! ```
//!
//! Knows no Ringfence crate: nothing here has to do with policy or the mesh.

pub mod backoff;
pub mod checked;
pub mod config;
pub mod freshness;
pub mod health;
pub mod metrics;
pub mod tasks;
pub mod telemetry;
pub mod tls;
