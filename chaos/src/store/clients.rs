//! Clients that write and read through the public API, and record what they asked and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_policy::command::{Command, Committed};
use ringfence_policy::record::{Kind, Versioned};
use ringfence_proto::status::{describe, is_out_of_reach};
use ringfence_proto::v1::{self, mesh_client::MeshClient};
use tonic::{Code, ConnectError, Request, Status, transport::Channel};

use super::check::history::{Action, Call, Key, Outcome};
use super::random::Random;
use super::recorder::Recorder;
use super::vocabulary;

/// How long a client waits for an answer. Short: a client that waits for a dead leader makes no history.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// The server is to give up first, and say what it knows.
const MARGIN: Duration = Duration::from_millis(200);
/// Between two calls of a client, at most.
const THINK_MS: u64 = 25;
/// After one that was not answered: a member that is down says so at once, and should not be all that is asked.
const DISAPPOINTED_MS: u64 = 300;
/// Calls after which the clients turn to new keys, so that no history becomes too long.
const CALLS_PER_GENERATION: u64 = 600;
const CALLS_PER_LABEL_SET: u64 = 30;
const POLICIES: u64 = 4;
const ENDPOINTS: u64 = 2;

/// What all clients of a run share.
#[derive(Debug)]
pub struct World {
    /// One for each member.
    pub channels: Vec<Channel>,
    /// Where everything is written down.
    pub recorder: Arc<Recorder>,
    /// Reads may be stale: the control, which must be caught.
    pub stale_reads: bool,
    /// Calls so far, of all clients.
    pub calls: AtomicU64,
}

/// One client.
struct Client {
    id: usize,
    world: Arc<World>,
    random: Random,
}

/// Calls until the run stops.
pub async fn run(id: usize, world: Arc<World>, random: Random) {
    let mut client = Client { id, world, random };
    while !client.world.recorder.is_stopping() {
        let answered = client.call().await;
        let longest_ms = if answered { THINK_MS } else { DISAPPOINTED_MS };
        tokio::time::sleep(Duration::from_millis(client.random.below(longest_ms))).await;
    }
}

/// Carries out the commands that all others build upon.
///
/// # Errors
/// When no member carries them out.
pub async fn lay_foundation(channels: &[Channel]) -> Result<(), Status> {
    for command in vocabulary::foundation() {
        let mut request = Request::new(v1::Command::from(command));
        request.set_timeout(Duration::from_secs(20));
        MeshClient::new(channels[0].clone()).execute(request).await?;
    }
    Ok(())
}

impl Client {
    /// Whether it was answered.
    async fn call(&mut self) -> bool {
        let count = self.world.calls.fetch_add(1, Ordering::Relaxed);
        // Numbers count from 1, and no value is written twice.
        let value = count + 1;
        let generation = count / CALLS_PER_GENERATION;
        let policy = format!("p-{generation}-{}", self.random.below(POLICIES));
        let twins = vocabulary::twins(generation);
        let twins = [twins[0].as_str(), twins[1].as_str()];
        let number = generation * ENDPOINTS + self.random.below(ENDPOINTS);
        let (endpoint, number) = (format!("e-{number}"), u16::try_from(number % 65_000).unwrap_or_default());
        let app = format!("l-{}", (count / CALLS_PER_LABEL_SET).saturating_sub(self.random.below(3)));
        match self.random.below(100) {
            0..28 => self.put_policies(&[&policy], value).await,
            28..36 => self.delete_policies(&[&policy]).await,
            36..44 => self.put_policies(&twins, value).await,
            44..47 => self.delete_policies(&twins).await,
            47..55 => self.put_endpoint(&endpoint, number, &app, value).await,
            55..58 => {
                let parts = vec![(Key::Endpoint(endpoint.clone()), Action::Delete { existed: None })];
                self.execute(vocabulary::delete_endpoint(&endpoint), parts).await
            }
            58..70 => {
                let parts = vec![(Key::Labels(app.clone()), Action::Allocate { number: None })];
                self.execute(vocabulary::allocate(&app), parts).await
            }
            70..92 => {
                let policies = (0..POLICIES).map(|number| format!("p-{generation}-{number}"));
                self.list(policies.chain(twins.map(str::to_owned)).map(Key::Policy).collect()).await
            }
            92..96 => self.list(BTreeSet::from([Key::Endpoint(endpoint)])).await,
            _ => self.list(BTreeSet::from([Key::Labels(app)])).await,
        }
    }

    async fn put_policies(&mut self, names: &[&str], value: u64) -> bool {
        let put = |name: &&str| (Key::Policy((*name).to_owned()), Action::Put { value, changed: None });
        self.execute(vocabulary::put_policies(names, value), names.iter().map(put).collect()).await
    }

    async fn delete_policies(&mut self, names: &[&str]) -> bool {
        let delete = |name: &&str| (Key::Policy((*name).to_owned()), Action::Delete { existed: None });
        self.execute(vocabulary::delete_policies(names), names.iter().map(delete).collect()).await
    }

    async fn put_endpoint(&mut self, endpoint: &str, number: u16, app: &str, value: u64) -> bool {
        let parts = vec![
            (Key::Endpoint(endpoint.to_owned()), Action::Put { value, changed: None }),
            (Key::Labels(app.to_owned()), Action::Allocate { number: None }),
        ];
        self.execute(vocabulary::put_endpoint(endpoint, number, app, value), parts).await
    }

    async fn execute(&mut self, command: Command, mut parts: Vec<(Key, Action)>) -> bool {
        let (member, mut mesh) = self.member();
        let mut request = Request::new(v1::Command::from(command));
        request.set_timeout(TIMEOUT);
        let begin_ns = self.world.recorder.now_ns();
        let answer = tokio::time::timeout(TIMEOUT + MARGIN, mesh.execute(request)).await;
        let at_ns = self.world.recorder.now_ns();
        let outcome = match answer {
            Err(_elapsed) => Outcome::Unknown,
            Ok(Ok(committed)) => {
                let committed = Committed::from(committed.into_inner());
                parts.iter_mut().for_each(|(_, action)| *action = told(*action, &committed));
                Outcome::Answered { at_ns, revision: Some(committed.revision.0) }
            }
            Ok(Err(status)) if status.code() == Code::NotFound => {
                for (_, action) in &mut parts {
                    *action = Action::Delete { existed: Some(false) };
                }
                Outcome::Answered { at_ns, revision: None }
            }
            Ok(Err(status)) if surely_did_nothing(&status) => Outcome::Failed,
            Ok(Err(status)) if is_out_of_reach(&status) => Outcome::Unknown,
            Ok(Err(status)) => {
                self.world.recorder.violation(&format!("a command was refused: {}", describe(&status)));
                Outcome::Failed
            }
        };
        self.world.recorder.add(Call { client: self.id, member, begin_ns, outcome, parts });
        matches!(outcome, Outcome::Answered { .. })
    }

    /// Reads some keys of one kind, at one revision. A read that was not answered is not worth a word.
    async fn list(&mut self, keys: BTreeSet<Key>) -> bool {
        let Some(kind) = keys.first().map(vocabulary::kind) else { return false };
        let (member, mesh) = self.member();
        let begin_ns = self.world.recorder.now_ns();
        let answer = tokio::time::timeout(TIMEOUT + MARGIN, list(mesh, kind, self.world.stale_reads)).await;
        let at_ns = self.world.recorder.now_ns();
        match answer {
            Ok(Ok((revision, values))) => {
                let read = |key: Key| {
                    let seen = values.get(&key).copied();
                    (key, Action::Read { seen })
                };
                let outcome = Outcome::Answered { at_ns, revision: Some(revision) };
                let parts = keys.into_iter().map(read).collect();
                self.world.recorder.add(Call { client: self.id, member, begin_ns, outcome, parts });
                true
            }
            Ok(Err(status)) if !is_out_of_reach(&status) && status.code() != Code::ResourceExhausted => {
                self.world.recorder.violation(&format!("a list was refused: {}", describe(&status)));
                false
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    fn member(&mut self) -> (usize, MeshClient<Channel>) {
        let member = self.random.index(self.world.channels.len());
        (member, MeshClient::new(self.world.channels[member].clone()))
    }
}

/// The action with its answer.
fn told(action: Action, committed: &Committed) -> Action {
    match action {
        Action::Put { value, .. } => Action::Put { value, changed: Some(committed.changed) },
        Action::Delete { .. } => Action::Delete { existed: Some(true) },
        Action::Allocate { .. } => Action::Allocate { number: committed.identity.map(|number| number.bits().into()) },
        Action::Read { .. } => action,
    }
}

/// No connection was made, or the member said so itself (what tonic finds out has a source), and not that it does not know.
fn surely_did_nothing(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    if first.is_some() {
        return std::iter::successors(first, |error| error.source()).any(|error| error.is::<ConnectError>());
    }
    let says_nothing_done = status.code() == Code::Unavailable && !status.message().contains("outcome is unknown");
    says_nothing_done || status.code() == Code::ResourceExhausted
}

async fn list(mut mesh: MeshClient<Channel>, kind: Kind, stale: bool) -> Result<(u64, BTreeMap<Key, u64>), Status> {
    let consistency = if stale { v1::Consistency::Stale } else { v1::Consistency::Linearizable };
    let message = v1::ListRequest { kind: v1::Kind::from(kind).into(), consistency: consistency.into() };
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    let mut chunks = mesh.list(request).await?.into_inner();
    let (mut revision, mut values) = (None, BTreeMap::new());
    while let Some(chunk) = chunks.message().await? {
        if *revision.get_or_insert(chunk.revision) != chunk.revision {
            return Err(Status::data_loss("a list's chunks are of different revisions"));
        }
        for record in chunk.records {
            let versioned = Versioned::try_from(record).map_err(|error| Status::data_loss(error.to_string()))?;
            values.extend(vocabulary::value(&versioned.record));
        }
    }
    let revision = revision.ok_or_else(|| Status::data_loss("a list without a chunk"))?;
    Ok((revision, values))
}
