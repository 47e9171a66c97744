//! How many worlds are generated.
//!
//! `RINGFENCE_WORLDS` sets it: 256 without it, 10,000 in `cargo xtask test`.

use std::str::FromStr;

const FEW: u32 = 256;

/// How many worlds are generated.
pub(crate) fn worlds() -> u32 {
    number("RINGFENCE_WORLDS", FEW)
}

/// A number of the environment.
pub(crate) fn number<N: FromStr>(variable: &str, default: N) -> N {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}"));
    std::env::var(variable).map_or(default, number)
}
