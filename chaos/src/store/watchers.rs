//! Followers of the store: one for each member, one that moves between them, and one that always begins anew (S13). Half of
//! the time they follow over a link, as gateways do, otherwise over gRPC; nobody may see a difference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_proto::follow::{FollowError, FollowEvent, Follower};
use ringfence_proto::pool::Server;

use super::check::trail::Watcher;
use super::fabric::role;
use super::random::Random;
use super::recorder::Recorder;

const RECONNECT: Duration = Duration::from_millis(100);
/// How long the one that moves and the one that begins anew stay with a member, at most.
const STAY_MS: u64 = 4000;

/// Where one stream is.
#[derive(Debug, Clone)]
pub struct Position {
    /// Which stream.
    pub stream: String,
    /// The newest revision it has.
    pub revision: Arc<AtomicU64>,
}

/// How a stream chooses its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Stays(usize),
    Moves,
    BeginsAnew,
}

/// Starts all of them on the current runtime; returns where those are that must reach the head in the end.
#[must_use]
pub fn start(servers: &[Server], recorder: &Arc<Recorder>, random: &mut Random) -> Vec<Position> {
    let stay = (0..servers.len()).map(|index| (format!("stream of {}", role(index)), Habit::Stays(index)));
    let others = [("moving stream".to_owned(), Habit::Moves), ("late stream".to_owned(), Habit::BeginsAnew)];
    let mut positions = Vec::new();
    for (stream, habit) in stay.chain(others) {
        let position = Position { stream: stream.clone(), revision: Arc::default() };
        if habit != Habit::BeginsAnew {
            positions.push(position.clone());
        }
        let random = Random::new(random.bits());
        tokio::spawn(follow(habit, position, servers.to_vec(), Arc::clone(recorder), random));
    }
    positions
}

async fn follow(habit: Habit, position: Position, servers: Vec<Server>, recorder: Arc<Recorder>, mut random: Random) {
    let mut watcher = Watcher::new(position.stream.clone());
    loop {
        let member = if let Habit::Stays(member) = habit { member } else { random.index(servers.len()) };
        if habit == Habit::BeginsAnew {
            watcher = Watcher::new(position.stream.clone());
        }
        let stay = Duration::from_millis(random.between(500, STAY_MS));
        let over_link = random.chance(50);
        let listening = listen(&mut watcher, &position, (&servers[member], over_link), &recorder);
        let ended = if let Habit::Stays(_) = habit {
            listening.await
        } else {
            // Moving on in the middle of anything is what a follower may do at any time.
            tokio::time::timeout(stay, listening).await.unwrap_or(End::Lost)
        };
        if ended == End::Broken {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The connection; another one resumes.
    Lost,
    /// A promise: nothing that comes after means anything.
    Broken,
}

async fn listen(
    watcher: &mut Watcher,
    position: &Position,
    (server, over_link): (&Server, bool),
    recorder: &Recorder,
) -> End {
    let (from, name) = (watcher.revision(), position.stream.clone());
    let connected = if over_link {
        server.follow(from.into(), name).await
    } else {
        Follower::connect(server.channel.clone(), from, name).await
    };
    let mut follower = match connected {
        Ok(follower) => follower,
        Err(error) => return judge(&error, position, recorder),
    };
    loop {
        let taken = match follower.next().await {
            Ok(FollowEvent::Delta(delta)) => watcher.take_delta(&delta, &mut recorder.trail()),
            Ok(FollowEvent::Snapshot(snapshot)) => watcher.take_snapshot(snapshot, &mut recorder.trail()),
            Ok(FollowEvent::Progress { .. }) => Ok(()),
            Ok(FollowEvent::Quiet { revision }) => {
                recorder.violation(&format!("S13: {}: nothing was told of revision {revision}", position.stream));
                return End::Broken;
            }
            Err(error) => return judge(&error, position, recorder),
        };
        if let Err(broken) = taken {
            recorder.violation(&format!("S13: {broken}"));
            return End::Broken;
        }
        position.revision.store(watcher.revision().0, Ordering::SeqCst);
    }
}

fn judge(error: &FollowError, position: &Position, recorder: &Recorder) -> End {
    match error {
        FollowError::Call { .. } | FollowError::Silent | FollowError::Closed => End::Lost,
        FollowError::Invalid { .. }
        | FollowError::Gap { .. }
        | FollowError::NoViews
        | FollowError::Behind { .. }
        | FollowError::BrokenSnapshot { .. } => {
            recorder.violation(&format!("S13: {}: {error}", position.stream));
            End::Broken
        }
    }
}
