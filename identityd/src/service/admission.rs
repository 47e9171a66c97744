//! Back-pressure: how much of this member's memory commands may take while they are under way, and how much of that one
//! certificate may have.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ringfence_proto::access::Role;

/// Commands for which there was no place.
pub(crate) const OVERLOADED: &str = "ringfence_store_overloaded_total";

/// Bounds of what is under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Commands of all clients.
    pub(crate) commands: usize,
    /// Their encoded bytes.
    pub(crate) bytes: usize,
    /// Commands of one client: of one certificate, whatever number of connections it has. A gateway's are also those of
    /// its agents. None of them can take all places.
    pub(crate) commands_of_client: usize,
    /// Their encoded bytes.
    pub(crate) bytes_of_client: usize,
}

pub(crate) const BOUNDS: Bounds =
    Bounds { commands: 4096, bytes: 32 << 20, commands_of_client: 1024, bytes_of_client: 8 << 20 };

/// There is no place for a command; it was not proposed. Each says which limit it is, its value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overloaded {
    #[error(
        "commands under way at this member: the limit of {limit} is reached; try again in a moment, or ask another member"
    )]
    Commands { limit: usize },
    #[error(
        "bytes of commands under way at this member: the limit of {limit} is reached; try again in a moment, or ask \
         another member"
    )]
    Bytes { limit: usize },
    #[error(
        "commands of {client} under way at this member: the limit of {limit} for one certificate is reached; wait for \
         answers before sending more"
    )]
    ClientCommands { client: Role, limit: usize },
    #[error(
        "bytes of commands of {client} under way at this member: the limit of {limit} for one certificate is reached; \
         wait for answers before sending more"
    )]
    ClientBytes { client: Role, limit: usize },
}

impl Overloaded {
    /// One word for metrics.
    const fn limit(&self) -> &'static str {
        match self {
            Self::Commands { .. } => "commands",
            Self::Bytes { .. } => "bytes",
            Self::ClientCommands { .. } => "client_commands",
            Self::ClientBytes { .. } => "client_bytes",
        }
    }
}

/// Counts what is under way.
#[derive(Debug)]
pub(crate) struct Admission {
    bounds: Bounds,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    all: Amount,
    of_client: HashMap<Role, Amount>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    commands: usize,
    bytes: usize,
}

/// A command's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    client: Role,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, under_way: Mutex::default() })
    }

    /// A place for a command of `bytes` bytes, if there is one. Refusals are counted.
    pub(crate) fn enter(self: &Arc<Self>, client: &Role, bytes: usize) -> Result<Place, Overloaded> {
        let entered = self.lock().enter(&self.bounds, client, bytes);
        if let Err(overloaded) = entered {
            metrics::counter!(OVERLOADED, "limit" => overloaded.limit()).increment(1);
            return Err(overloaded);
        }
        Ok(Place { admission: self.clone(), client: client.clone(), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn enter(&mut self, bounds: &Bounds, client: &Role, bytes: usize) -> Result<(), Overloaded> {
        let own = self.of_client.get(client).copied().unwrap_or_default();
        let client = || client.clone();
        if self.all.commands >= bounds.commands {
            return Err(Overloaded::Commands { limit: bounds.commands });
        }
        if self.all.bytes + bytes > bounds.bytes {
            return Err(Overloaded::Bytes { limit: bounds.bytes });
        }
        if own.commands >= bounds.commands_of_client {
            return Err(Overloaded::ClientCommands { client: client(), limit: bounds.commands_of_client });
        }
        if own.bytes + bytes > bounds.bytes_of_client {
            return Err(Overloaded::ClientBytes { client: client(), limit: bounds.bytes_of_client });
        }
        self.all.add(bytes);
        self.of_client.entry(client()).or_default().add(bytes);
        Ok(())
    }
}

impl Amount {
    const fn add(&mut self, bytes: usize) {
        self.commands += 1;
        self.bytes += bytes;
    }

    const fn take(&mut self, bytes: usize) {
        self.commands -= 1;
        self.bytes -= bytes;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.admission.lock();
        under_way.all.take(self.bytes);
        if let Some(own) = under_way.of_client.get_mut(&self.client) {
            own.take(self.bytes);
            if own.commands == 0 {
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
        let bounds = Bounds { commands: 4, bytes: 100, commands_of_client: 2, bytes_of_client: 60 };
        let admission = Admission::new(bounds);
        let client = |name: &str| name.parse::<Role>().unwrap();
        let (east, west, admin) = (client("gateway/east"), client("gateway/west"), client("admin/me"));
        let first = admission.enter(&east, 10).unwrap();
        let second = admission.enter(&east, 10).unwrap();
        let refused = admission.enter(&east, 10).unwrap_err();
        assert_eq!(refused, Overloaded::ClientCommands { client: east.clone(), limit: 2 });
        assert_eq!(
            refused.to_string(),
            "commands of gateway/east under way at this member: the limit of 2 for one certificate is reached; wait for \
             answers before sending more"
        );
        let refused = admission.enter(&west, 61).unwrap_err();
        assert_eq!(refused, Overloaded::ClientBytes { client: west.clone(), limit: 60 });
        let third = admission.enter(&west, 60).unwrap();
        assert_eq!(admission.enter(&admin, 21).unwrap_err(), Overloaded::Bytes { limit: 100 });
        let fourth = admission.enter(&admin, 20).unwrap();
        assert_eq!(admission.enter(&client("reader/x"), 0).unwrap_err(), Overloaded::Commands { limit: 4 });
        drop(first);
        drop(admission.enter(&east, 10).unwrap());
        drop((second, third, fourth));
        assert!(admission.lock().of_client.is_empty(), "a client without commands is forgotten");
    }
}
