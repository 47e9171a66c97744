//! The object that the agent loads: one program per hook.
#![no_std]
#![no_main]

mod from_endpoint;
mod from_host;
mod to_endpoint;
mod to_host;

/// No helper in use asks for a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
