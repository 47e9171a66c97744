//! What the process allocates with (docs/decisions/0013).

/// A put costs a fifth less with it than with the C library's, and freed memory goes back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
