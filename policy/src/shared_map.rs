//! A sorted map whose copies share what they have in common.
//!
//! ```text
//! map ── [chunk][chunk][chunk]        a copy takes the list, not the chunks
//! copy ─ [  │  ][  │  ][chunk']       whoever changes an entry copies its chunk first, if the other one has it, too
//! floors [key  ][key  ][key  ]        side by side: a chunk is found without touching the others
//! chunk  [t t t t][key value] …       a byte of each key's hash: an entry is found without touching the others
//! near   │                            the chunk of the last key: who looks for it first and then changes it looks once
//! ```
//!
//! So a reader of the whole state takes a copy in a moment and reads it at leisure, while the writer goes on.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::{Bound, Index, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most entries of a chunk, and so the most that one change copies.
pub const CHUNK: usize = 128;
/// A chunk grows by so many entries at a time.
const GROWTH: usize = CHUNK / 8;

/// Some entries, in order.
#[derive(Clone)]
struct Chunk<K, V> {
    /// Those of the entries; what is behind them means nothing.
    tags: [u8; CHUNK],
    entries: Vec<(K, V)>,
}

/// A byte that equal keys have in common. Whatever it is, only the time to find a key depends on it.
fn tag<Q: Hash + ?Sized>(key: &Q) -> u8 {
    #[derive(Default)]
    struct Mixed(u64);
    impl Hasher for Mixed {
        fn write(&mut self, bytes: &[u8]) {
            let (words, rest) = bytes.as_chunks::<8>();
            let rest = rest.iter().fold(0_u64, |rest, byte| rest << 8 | u64::from(*byte));
            for word in words.iter().map(|word| u64::from_le_bytes(*word)).chain([rest]) {
                self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut mixed = Mixed::default();
    key.hash(&mut mixed);
    mixed.finish().to_be_bytes()[0]
}

impl<K, V> Chunk<K, V> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a key is.
    fn find<Q: Eq + ?Sized>(&self, tag: u8, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        const LOWEST: u64 = u64::from_le_bytes([1; 8]);
        let wanted = LOWEST * u64::from(tag);
        for (word, tags) in self.tags.as_chunks::<8>().0.iter().enumerate() {
            let different = u64::from_le_bytes(*tags) ^ wanted;
            // The highest bit of each byte that is 0; of others, too, but only behind one of these.
            let mut equal = different.wrapping_sub(LOWEST) & !different & (LOWEST << 7);
            while equal != 0 {
                let at = word * 8 + equal.trailing_zeros() as usize / 8;
                if self.entries.get(at).is_some_and(|(known, _)| known.borrow() == key) {
                    return Some(at);
                }
                equal &= equal - 1;
            }
        }
        None
    }

    fn insert(&mut self, at: usize, tag: u8, entry: (K, V)) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        self.tags.copy_within(at..self.entries.len(), at + 1);
        self.tags[at] = tag;
        self.entries.insert(at, entry);
    }

    fn remove(&mut self, at: usize) -> (K, V) {
        self.tags.copy_within(at + 1..self.entries.len(), at);
        self.entries.remove(at)
    }

    /// Takes the entries from a place on.
    fn split_off(&mut self, at: usize) -> Self {
        let mut tags = [0; CHUNK];
        tags[..self.len() - at].copy_from_slice(&self.tags[at..self.len()]);
        let entries = self.entries.split_off(at);
        self.entries.shrink_to(at + GROWTH);
        Self { tags, entries }
    }

    fn extend(&mut self, other: Self) {
        let length = self.len();
        self.tags[length..length + other.len()].copy_from_slice(&other.tags[..other.len()]);
        self.entries.extend(other.entries);
    }
}

impl<K: Hash, V> FromIterator<(K, V)> for Chunk<K, V> {
    /// Of at most [`CHUNK`] entries in order.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        let mut tags = [0; CHUNK];
        entries.iter().zip(&mut tags).for_each(|((key, _), place)| *place = tag(key));
        Self { tags, entries }
    }
}

/// A sorted map. Finding and changing an entry take logarithmic time, and a copy a `CHUNK`th of the map's length.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    /// In order; none is empty.
    chunks: Vec<Arc<Chunk<K, V>>>,
    /// For each chunk a key that none of its own is before, and that all of the chunk before are before.
    floors: Vec<K>,
    length: usize,
    near: Near,
}

/// The chunk in which a key was looked for last, perhaps: whatever it says, only the time to find a key depends on it.
#[derive(Default)]
struct Near(AtomicUsize);

impl Near {
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn set(&self, chunk: usize) {
        self.0.store(chunk, Relaxed);
    }
}

impl Clone for Near {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<K, V> SharedMap<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), floors: Vec::new(), length: 0, near: Near(AtomicUsize::new(0)) }
    }

    /// How many entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| &chunk.entries).map(|(key, value)| (key, value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Hash, V> SharedMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The entry of a key.
    #[must_use]
    pub fn get_key_value<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let (key, value) = &chunk.entries[chunk.find(tag(key), key)?];
        Some((key, value))
    }

    /// Whether there is a key.
    #[must_use]
    pub fn contains_key<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries of a range of keys, in order; none where it ends before it begins.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> + use<'_, K, V, R> {
        let (first, start) = match range.start_bound() {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.place(|known| known.cmp(key).is_lt(), key),
            Bound::Excluded(key) => self.place(|known| known.cmp(key).is_le(), key),
        };
        let (last, end) = match range.end_bound() {
            Bound::Unbounded => (self.chunks.len(), 0),
            Bound::Included(key) => self.place(|known| known.cmp(key).is_le(), key),
            Bound::Excluded(key) => self.place(|known| known.cmp(key).is_lt(), key),
        };
        let chunks = self.chunks.iter().enumerate().take(last + 1).skip(first);
        let entries = chunks.flat_map(move |(at, chunk)| {
            let from = if at == first { start } else { 0 };
            let to = if at == last { end } else { chunk.len() };
            chunk.entries.get(from..to).unwrap_or_default()
        });
        entries.map(|(key, value)| (key, value))
    }

    /// The chunk of a key, and how many entries of it are before the place that is meant.
    fn place(&self, is_before: impl Fn(&K) -> bool, key: &K) -> (usize, usize) {
        let at = self.chunk_of(key).unwrap_or_default();
        (at, self.chunks.get(at).map_or(0, |chunk| chunk.entries.partition_point(|(known, _)| is_before(known))))
    }

    /// The chunk that holds a key, if one does; none if the key is before all others.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let is_behind = |floor: &K| floor.borrow().cmp(key).is_le();
        let near = self.near.get();
        if self.floors.get(near).is_some_and(is_behind) && !self.floors.get(near + 1).is_some_and(is_behind) {
            return Some(near);
        }
        let at = self.floors.partition_point(is_behind).checked_sub(1)?;
        self.near.set(at);
        Some(at)
    }
}

impl<K: Ord + Hash + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key; gives the one from before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.chunks.is_empty() {
            self.length = 1;
            self.add(0, key, value);
            return None;
        }
        let at = self.chunk_of(&key).unwrap_or_else(|| {
            self.floors[0] = key.clone();
            0
        });
        let tag = tag(&key);
        if let Some(place) = self.chunks[at].find(tag, &key) {
            let chunk = Arc::make_mut(&mut self.chunks[at]);
            return Some(std::mem::replace(&mut chunk.entries[place].1, value));
        }
        let place = self.chunks[at].entries.partition_point(|(known, _)| known.cmp(&key).is_lt());
        self.length += 1;
        if self.chunks[at].len() < CHUNK {
            Arc::make_mut(&mut self.chunks[at]).insert(place, tag, (key, value));
        } else if place == CHUNK {
            // Keys that come in order, be it in several places of the map, fill their chunks.
            match self.chunks.get_mut(at + 1).filter(|next| next.len() < CHUNK) {
                Some(next) => {
                    self.floors[at + 1] = key.clone();
                    Arc::make_mut(next).insert(0, tag, (key, value));
                }
                None => self.add(at + 1, key, value),
            }
        } else {
            let chunk = Arc::make_mut(&mut self.chunks[at]);
            let mut rest = chunk.split_off(CHUNK / 2);
            match place.checked_sub(CHUNK / 2) {
                Some(place) if place > 0 => rest.insert(place, tag, (key, value)),
                _ => chunk.insert(place, tag, (key, value)),
            }
            self.floors.insert(at + 1, rest.entries[0].0.clone());
            self.chunks.insert(at + 1, Arc::new(rest));
        }
        None
    }

    /// Adds a chunk of one entry.
    fn add(&mut self, at: usize, key: K, value: V) {
        self.floors.insert(at, key.clone());
        self.chunks.insert(at, Arc::new(std::iter::once((key, value)).collect()));
    }

    /// Removes a key; gives the value that it had.
    pub fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key)?;
        let place = self.chunks[at].find(tag(key), key)?;
        self.length -= 1;
        if self.chunks[at].len() == 1 {
            self.floors.remove(at);
            let chunk = Arc::unwrap_or_clone(self.chunks.remove(at));
            return chunk.entries.into_iter().next().map(|(_, value)| value);
        }
        let (_, value) = Arc::make_mut(&mut self.chunks[at]).remove(place);
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
        Some(value)
    }

    /// Two neighbours that are half full together become one: no removal leaves many small chunks.
    fn join(&mut self, at: usize) {
        let length = |at: usize| self.chunks.get(at).map_or(CHUNK, |chunk| chunk.len());
        if length(at) + length(at + 1) <= CHUNK / 2 {
            self.floors.remove(at + 1);
            let next = Arc::unwrap_or_clone(self.chunks.remove(at + 1));
            Arc::make_mut(&mut self.chunks[at]).extend(next);
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Hash + Clone, V> FromIterator<(K, V)> for SharedMap<K, V> {
    /// In any order; of entries with one key the last counts.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(one, _), (next, _)| one < next) {
            entries.reverse();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            entries.dedup_by(|(next, _), (kept, _)| next == kept);
        }
        let length = entries.len();
        let (mut chunks, mut floors) = (Vec::with_capacity(length.div_ceil(CHUNK)), Vec::new());
        let mut entries = entries.into_iter();
        loop {
            let chunk: Chunk<K, V> = entries.by_ref().take(CHUNK).collect();
            let Some((first, _)) = chunk.entries.first() else {
                return Self { chunks, floors, length, near: Near::default() };
            };
            floors.push(first.clone());
            chunks.push(Arc::new(chunk));
        }
    }
}

impl<K: Clone, V: Clone> IntoIterator for SharedMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> IntoIter<K, V> {
        IntoIter { chunks: self.chunks.into_iter(), entries: Vec::new().into_iter() }
    }
}

/// The entries of a map, in order; those that nobody else has are not copied.
pub struct IntoIter<K, V> {
    chunks: std::vec::IntoIter<Arc<Chunk<K, V>>>,
    entries: std::vec::IntoIter<(K, V)>,
}

impl<K: Clone, V: Clone> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            self.entries = Arc::unwrap_or_clone(self.chunks.next()?).entries.into_iter();
        }
    }
}

impl<K: Borrow<Q> + Ord + Hash, Q: Ord + Hash + ?Sized, V> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    /// Panics where there is no such key.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the caller knows that the key is there")
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K: Deserialize<'de> + Ord + Hash + Clone, V: Deserialize<'de>> Deserialize<'de> for SharedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de> + Ord + Hash + Clone, V: Deserialize<'de>> de::Visitor<'de> for Entries<K, V> {
            type Value = SharedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{cell::Cell, cmp::Ordering, collections::BTreeMap};

    thread_local! { static COPIES: Cell<usize> = const { Cell::new(0) } }

    /// Counts its copies.
    #[derive(Debug, PartialEq, Eq)]
    struct Counted(u32);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            COPIES.set(COPIES.get() + 1);
            Self(self.0)
        }
    }

    fn copies_of<R>(f: impl FnOnce() -> R) -> (R, usize) {
        let before = COPIES.get();
        (f(), COPIES.get() - before)
    }

    #[test]
    fn a_copy_takes_no_entry_and_a_change_behind_it_takes_one_chunk() {
        let mut map: SharedMap<u32, Counted> = (0..50_000).map(|key| (key, Counted(key))).collect();
        let (before, copies) = copies_of(|| map.clone());
        assert_eq!(copies, 0, "the writer waits for a copy of the state while it is taken");
        let mut most = 0;
        for key in (0..50_000).rev().step_by(7) {
            let ((), copies) = copies_of(|| assert!(map.insert(key, Counted(0)).is_some()));
            most = most.max(copies);
        }
        assert!((1..=CHUNK).contains(&most), "{most}");
        assert!(before.iter().all(|(key, value)| *key == value.0), "the copy is as it was");
        drop(before);
        let ((), copies) = copies_of(|| (0..50_000).for_each(|key| assert!(map.insert(key, Counted(key)).is_some())));
        assert_eq!(copies, 0, "nobody else has the chunks");
    }

    #[test]
    fn keys_in_order_fill_their_chunks_in_several_places_too() {
        let mut map = SharedMap::new();
        // As identities of 16 clusters: each counts on its own.
        for number in 0..3200_u32 {
            (0..16).for_each(|cluster| assert_eq!(map.insert(cluster << 20 | number, number), None));
        }
        assert!(map.chunks.len() <= 3200 * 16 / CHUNK + 16, "{} chunks", map.chunks.len());
        // Downwards from a full chunk's end: they gather in the next one.
        let mut map: SharedMap<u32, u32> = (0..2 * 128).map(|key| (key / 128 * 1000 + key % 128, key)).collect();
        (200..900).rev().for_each(|key| assert_eq!(map.insert(key, key), None));
        assert!(map.chunks.len() <= 2 + 2 * 700 / CHUNK + 1, "{} chunks", map.chunks.len());
    }

    #[test]
    fn keys_in_order_fill_their_chunks_and_removals_leave_few() {
        let mut map = SharedMap::new();
        (0..6400_u32).for_each(|key| assert_eq!(map.insert(key, key), None));
        assert_eq!(map.chunks.len(), 6400 / CHUNK);
        (0..6400).filter(|key| key % 64 != 0).for_each(|key| assert_eq!(map.remove(&key), Some(key)));
        assert_eq!(map.len(), 100);
        assert!(map.chunks.len() <= 10, "{} chunks for 100 entries", map.chunks.len());
    }

    thread_local! { static COMPARISONS: Cell<usize> = const { Cell::new(0) } }

    /// Counts how often it is compared.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Watched(u32);

    impl Ord for Watched {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Watched {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    #[test]
    fn who_looks_for_a_key_and_then_changes_it_searches_once() {
        let mut map: SharedMap<Watched, u32> = (0..50_000).map(|key| (Watched(key), key)).collect();
        let comparisons_of = |f: &mut dyn FnMut()| {
            let before = COMPARISONS.get();
            f();
            COMPARISONS.get() - before
        };
        for key in (777..50_000).step_by(777).map(Watched) {
            let found = comparisons_of(&mut || assert!(map.contains_key(&key)));
            assert!(found >= 5, "{found} comparisons find one of {} chunks", map.chunks.len());
            let changed = comparisons_of(&mut || assert!(map.insert(key.clone(), 0).is_some()));
            assert!(changed <= 2, "{changed} comparisons");
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_sorted_map_does(
            first in prop::collection::vec((0_u16..1000, 0_u8..3), 0..800),
            steps in prop::collection::vec((0_u16..1000, prop::option::of(0_u8..3), prop::bool::weighted(0.02)), 0..2000),
        ) {
            let (mut map, mut model): (SharedMap<u16, u8>, BTreeMap<u16, u8>) =
                (first.iter().copied().collect(), first.iter().copied().collect());
            let mut copies = Vec::new();
            for (key, value, copy) in steps {
                if copy {
                    copies.push((map.clone(), model.clone()));
                }
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert!(map.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
                prop_assert_eq!(map.floors.len(), map.chunks.len());
                prop_assert!(map.chunks.iter().zip(&map.floors).all(|(chunk, floor)| chunk.entries[0].0 >= *floor));
                prop_assert!(map.chunks.iter().zip(&map.floors[1.min(map.floors.len())..]).all(|(chunk, next)| chunk.entries[chunk.len() - 1].0 < *next));
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!(map.len(), model.len());
                for from in [0, 17, 250, 999, 1000] {
                    prop_assert_eq!(map.get_key_value(&from), model.get_key_value(&from));
                    prop_assert!(map.range(from..).eq(model.range(from..)));
                    prop_assert!(map.range(..from).eq(model.range(..from)));
                    prop_assert!(map.range(..=from).eq(model.range(..=from)));
                    prop_assert!(map.range(from..300.max(from)).eq(model.range(from..300.max(from))));
                    let behind = (Bound::Excluded(from), Bound::Unbounded);
                    prop_assert!(map.range(behind).eq(model.range(behind)));
                }
                prop_assert_eq!(map.range((Bound::Included(300), Bound::Excluded(17))).count(), 0);
                let text = serde_json::to_string(&map).unwrap();
                prop_assert_eq!(&serde_json::from_str::<SharedMap<u16, u8>>(&text).unwrap(), &map);
                prop_assert!(map.into_iter().eq(model));
            }
        }
    }
}
