//! Being written (proto, runtime, cli): connect. Tests of `ca` and `agent` belong into files of their own.
