//! Being written (proto, runtime, cli): policy. Tests of `ca` and `agent` belong into files of their own.
