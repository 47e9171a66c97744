//! How the programs read frames.
