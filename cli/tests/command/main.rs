//! The real binary against real servers: a `Mesh` service over mutual TLS with the certificates that `ringfence ca`
//! made, and an `Agent` service on a Unix socket.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod connecting;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod policies;
mod records;
#[cfg(test)]
mod ringfence;
#[cfg(test)]
mod server;
#[cfg(test)]
mod store;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod views;
