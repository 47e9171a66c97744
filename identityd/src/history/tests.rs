use ringfence_policy::{
    identity::ClusterId,
    name::Name,
    record::{Change, Cluster, Record},
};

use super::*;

const WIDE: Bounds = Bounds { bytes: 1 << 30, age: Duration::from_secs(3600) };

fn delta(revision: u64) -> Delta {
    let name = Name::new(format!("c{revision}")).unwrap();
    let record = Record::Cluster(Cluster { name, id: ClusterId::new(1).unwrap(), pod_cidrs: vec![] });
    Delta { revision: Revision(revision), changes: vec![Change::Put(record)] }
}

fn append(history: &DiskHistory, revisions: impl IntoIterator<Item = u64>, now: SystemTime) {
    let deltas: Vec<_> = revisions.into_iter().map(|at| (Revision(at), codec::encode(&delta(at)))).collect();
    history.append(deltas.iter().map(|(revision, delta)| (*revision, &delta[..])), now);
}

fn open(directory: &Path, bounds: Bounds, head: u64) -> DiskHistory {
    DiskHistory::open(directory, 7, bounds, Revision(head))
}

/// The revisions after one, each delta checked; or the oldest there is.
fn read(history: &DiskHistory, from: u64) -> Result<Vec<u64>, u64> {
    match history.read_from(Revision(from)) {
        Reach::Compacted { oldest } => Err(oldest.0),
        Reach::Deltas(deltas) => Ok(deltas
            .map(|read| {
                let read = read.unwrap();
                assert_eq!(read, delta(read.revision.0));
                read.revision.0
            })
            .collect()),
    }
}

fn range(first: u64, last: u64) -> Result<Vec<u64>, u64> {
    Ok((first..=last).collect())
}

#[test]
fn s13_what_was_appended_is_read_in_order_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let history = open(directory.path(), WIDE, 0);
    assert_eq!(read(&history, 0), Ok(vec![]));
    append(&history, 1..=50, now);
    // A replay of the log brings what is known already.
    append(&history, 40..=60, now);
    drop(history);
    let history = open(directory.path(), WIDE, 60);
    append(&history, 61..=70, now);
    assert_eq!(read(&history, 0), range(1, 70));
    assert_eq!(read(&history, 59), range(60, 70));
    assert_eq!(read(&history, 70), Ok(vec![]));
    assert_eq!(read(&history, 71), Err(1), "ahead of the head: only a snapshot can be right");
    assert_eq!(history.deltas_after(Revision(65), 2), Some(vec![delta(66), delta(67)]));
}

#[test]
fn a_history_never_reaches_beyond_the_state_and_never_has_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    append(&open(directory.path(), WIDE, 0), 1..=50, now);
    append(&open(directory.path(), WIDE, 50), 51..=60, now);
    // The state fell back: what is later comes again from the log.
    let history = open(directory.path(), WIDE, 45);
    assert_eq!(read(&history, 40), range(41, 45));
    append(&history, 46..=47, now);
    drop(history);
    // The history is short of the state: it begins anew.
    let history = open(directory.path(), WIDE, 48);
    assert_eq!((read(&history, 47), read(&history, 48)), (Err(49), Ok(vec![])));
    append(&history, 49..=52, now);
    history.reset(Revision(80));
    assert_eq!((read(&history, 48), read(&history, 80)), (Err(81), Ok(vec![])));
    append(&history, [81], now);
    assert_eq!(read(&history, 80), range(81, 81));
}

#[test]
fn bytes_and_age_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes: 8 << 10, age: Duration::from_secs(800) };
    let history = open(directory.path(), bounds, 0);
    let start = SystemTime::now();
    append(&history, 1..=2000, start);
    let bytes: u64 = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!((4 << 10..=8 << 10).contains(&bytes), "{bytes} bytes");
    let oldest = read(&history, 0).unwrap_err();
    assert_eq!(read(&history, oldest - 1), range(oldest, 2000));
    // 100 s are an eighth of the bound: the next delta begins a file, and 800 s later only that one is young enough.
    append(&history, [2001], start + Duration::from_secs(100));
    append(&history, [2002], start + Duration::from_secs(850));
    assert_eq!(read(&history, 0), Err(2001));
    // A reader that was overtaken is told so.
    let Reach::Deltas(mut overtaken) = history.read_from(Revision(2000)) else { panic!("2001 is there") };
    append(&history, [2003], start + Duration::from_secs(5000));
    assert!(matches!(overtaken.next(), Some(Err(HistoryError::Compacted { .. }))));
}

#[test]
fn a_flipped_bit_or_a_torn_end_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    append(&open(directory.path(), WIDE, 0), 1..=5, SystemTime::now());
    let path = directory.path().join("0000000000000001.deltas");
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        let history = open(directory.path(), WIDE, 5);
        assert_eq!(history.deltas_after(Revision(0), 9), None, "bit {bit}");
        assert_eq!(read(&history, 0), Err(6), "bit {bit}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(read(&open(directory.path(), WIDE, 5), 0), Err(6), "{length} bytes");
    }
    // Damage in a file that was whole when the member started.
    fs::write(&path, &whole).unwrap();
    let history = open(directory.path(), WIDE, 5);
    fs::write(&path, vec![0; whole.len()]).unwrap();
    assert_eq!(history.deltas_after(Revision(0), 9), None);
    append(&history, [6], SystemTime::now());
    assert_eq!(read(&history, 0), Err(7), "it is given up until the next start");
}
