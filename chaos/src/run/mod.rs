//! One run of the demo on this machine: its id, its directory, its lock, and the removal of everything it made.

pub mod cleanup;
pub mod directory;
pub mod gate;
pub mod janitor;
pub mod lock;
pub mod shell;
pub mod signals;
