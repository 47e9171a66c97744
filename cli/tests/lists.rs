//! Being written (proto, runtime, cli): lists. Tests of `ca` and `agent` belong into files of their own.
