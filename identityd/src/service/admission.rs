//! Back-pressure: how much of this member's memory commands may take while they are under way.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bounds of what is under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Commands of all clients.
    pub(crate) commands: usize,
    /// Their encoded bytes.
    pub(crate) bytes: usize,
    /// Commands of one client, that is of one connection: one of them cannot take all places.
    pub(crate) commands_of_client: usize,
}

pub(crate) const BOUNDS: Bounds = Bounds { commands: 4096, bytes: 32 << 20, commands_of_client: 1024 };

/// There is no place for a command; it was not proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overloaded {
    #[error("{limit} commands are under way at this member, as many as it takes at once: try again in a moment")]
    Commands { limit: usize },
    #[error(
        "commands of {limit} bytes are under way at this member, as many as it takes at once: try again in a moment"
    )]
    Bytes { limit: usize },
    #[error("{limit} commands of this client are under way, as many as one client may have: wait for answers first")]
    Client { limit: usize },
}

/// Counts what is under way.
#[derive(Debug)]
pub(crate) struct Admission {
    bounds: Bounds,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    commands: usize,
    bytes: usize,
    of_client: HashMap<Option<SocketAddr>, usize>,
}

/// A command's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    client: Option<SocketAddr>,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, under_way: Mutex::default() })
    }

    /// A place for a command of `bytes` bytes, if there is one.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<SocketAddr>, bytes: usize) -> Result<Place, Overloaded> {
        let Bounds { commands, bytes: limit, commands_of_client } = self.bounds;
        let mut under_way = self.lock();
        if under_way.commands >= commands {
            return Err(Overloaded::Commands { limit: commands });
        }
        if under_way.bytes + bytes > limit {
            return Err(Overloaded::Bytes { limit });
        }
        let of_client = under_way.of_client.entry(client).or_default();
        if *of_client >= commands_of_client {
            return Err(Overloaded::Client { limit: commands_of_client });
        }
        *of_client += 1;
        under_way.commands += 1;
        under_way.bytes += bytes;
        drop(under_way);
        Ok(Place { admission: self.clone(), client, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.admission.lock();
        under_way.commands -= 1;
        under_way.bytes -= self.bytes;
        if let Some(of_client) = under_way.of_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                under_way.of_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_bounded_and_places_come_back() {
        let admission = Admission::new(Bounds { commands: 3, bytes: 100, commands_of_client: 2 });
        let client = |port: u16| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let first = admission.enter(client(1), 10).unwrap();
        let _second = admission.enter(client(1), 10).unwrap();
        assert_eq!(admission.enter(client(1), 10).unwrap_err(), Overloaded::Client { limit: 2 });
        assert_eq!(admission.enter(client(2), 81).unwrap_err(), Overloaded::Bytes { limit: 100 });
        let _third = admission.enter(client(2), 80).unwrap();
        assert_eq!(admission.enter(client(3), 0).unwrap_err(), Overloaded::Commands { limit: 3 });
        drop(first);
        admission.enter(client(1), 10).unwrap();
        assert_eq!(admission.lock().of_client.len(), 2, "a client without commands is forgotten");
    }
}
