//! Being written (proto, runtime, cli): wait. Tests of `ca` and `agent` belong into files of their own.
