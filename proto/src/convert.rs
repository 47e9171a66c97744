//! Between messages and meaning. Every `TryFrom` checks what the type cannot hold and names the field that is wrong.

mod command;
mod invalid;
mod other;
mod record;

pub use invalid::{InvalidMessage, refusal_status};
