//! Which band each port is in, as the kernel reads it: a directory of 256 pages, each with the bands of 256 ports.
//!
//! ```text
//! (policy, direction, protocol) ─ directory ─[port / 256]─► number of a page ─[port % 256]─► band
//! ```
//!
//! Most pages of a directory are page 0 (band 0 throughout), and policies that name the same ports share the others: a
//! page is kept once per content, and counted. A page that no directory of either set names is free; only then it is
//! written, so that no packet ever reads a page while it changes.

use std::collections::{BTreeMap, HashMap};

use ringfence_ebpf_common::{Directory, Page, PortsKey, capacity};
use ringfence_policy::tables::{Interval, PortsOfProtocol};

use crate::flip::WriteFailure;

const ZERO: Page = Page { bands: [0; 256] };

/// Where directories and pages are written.
pub(crate) trait Store {
    fn write_page(&mut self, number: u16, page: &Page) -> Result<(), WriteFailure>;
    fn write_directory(
        &mut self,
        parity: usize,
        key: &PortsKey,
        directory: Option<&Directory>,
    ) -> Result<(), WriteFailure>;
}

/// What stands in the directories and pages of both sets.
#[derive(Default)]
pub(crate) struct Directories {
    directories: [BTreeMap<PortsKey, Box<Directory>>; 2],
    pages: BTreeMap<u16, Used>,
    by_content: HashMap<Box<Page>, u16>,
}

struct Used {
    content: Box<Page>,
    references: u32,
}

impl Directories {
    /// Takes over what is there.
    #[cfg_attr(not(any(test, feature = "kernel")), expect(dead_code, reason = "memory begins empty"))]
    pub(crate) fn adopt(&mut self, parity: usize, key: PortsKey, directory: Directory, page: impl Fn(u16) -> Page) {
        for number in directory.pages {
            if number != 0 {
                let used = self.pages.entry(number).or_insert_with(|| {
                    let content = Box::new(page(number));
                    self.by_content.entry(content.clone()).or_insert(number);
                    Used { content, references: 0 }
                });
                used.references += 1;
            }
        }
        self.directories[parity].insert(key, Box::new(directory));
    }

    /// Writes, or removes, the ports of one protocol in one set, which no packet reads.
    pub(crate) fn write(
        &mut self,
        store: &mut impl Store,
        parity: usize,
        key: &PortsKey,
        ports: Option<&PortsOfProtocol>,
    ) -> Result<(), WriteFailure> {
        let directory = ports.map(|ports| self.take_all(store, ports)).transpose()?;
        if let Err(failure) = store.write_directory(parity, key, directory.as_deref()) {
            if let Some(directory) = directory {
                self.release_all(&directory);
            }
            return Err(failure);
        }
        let before = match directory {
            Some(directory) => self.directories[parity].insert(*key, directory),
            None => self.directories[parity].remove(key),
        };
        if let Some(before) = before {
            self.release_all(&before);
        }
        Ok(())
    }

    /// Every page in use, with what it should hold.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u16, &Page)> {
        std::iter::once((0, &ZERO)).chain(self.pages.iter().map(|(number, used)| (*number, &*used.content)))
    }

    fn take_all(&mut self, store: &mut impl Store, ports: &PortsOfProtocol) -> Result<Box<Directory>, WriteFailure> {
        let mut directory = Box::new(Directory { pages: [0; 256] });
        // Most pages are in one band throughout, like the page before.
        let mut last = (0, 0);
        for (high, content) in (0_u8..=255).zip(contents(ports)) {
            let number = match content {
                Content::Uniform(band) if band == last.0 => self.take_again(last.1),
                Content::Uniform(band) => {
                    self.take(store, &Page { bands: [band; 256] }).inspect(|number| last = (band, *number))
                }
                Content::Mixed(page) => self.take(store, &page),
            };
            match number {
                Ok(number) => directory.pages[usize::from(high)] = number,
                Err(failure) => {
                    self.release_all(&directory);
                    return Err(failure);
                }
            }
        }
        Ok(directory)
    }

    fn take_again(&mut self, number: u16) -> Result<u16, WriteFailure> {
        if let Some(used) = self.pages.get_mut(&number) {
            used.references += 1;
        }
        Ok(number)
    }

    fn take(&mut self, store: &mut impl Store, page: &Page) -> Result<u16, WriteFailure> {
        if *page == ZERO {
            return Ok(0);
        }
        if let Some(number) = self.by_content.get(page) {
            return self.take_again(*number);
        }
        let number = self.free().ok_or(WriteFailure::Full)?;
        store.write_page(number, page)?;
        let content = Box::new(*page);
        self.by_content.insert(content.clone(), number);
        self.pages.insert(number, Used { content, references: 1 });
        Ok(number)
    }

    /// The lowest free number but 0.
    fn free(&self) -> Option<u16> {
        let most = u16::try_from(capacity::PAGES - 1).unwrap_or(u16::MAX);
        let used = self.pages.keys().zip(1..);
        let gap = used.clone().find(|(number, expected)| *number != expected).map(|(_, expected)| expected);
        gap.or_else(|| u16::try_from(used.count() + 1).ok()).filter(|number| *number <= most)
    }

    fn release_all(&mut self, directory: &Directory) {
        for number in directory.pages {
            let Some(used) = self.pages.get_mut(&number) else { continue };
            used.references -= 1;
            if used.references == 0 {
                // Adopted pages may have the content of another one.
                if self.by_content.get(&used.content) == Some(&number) {
                    self.by_content.remove(&used.content);
                }
                self.pages.remove(&number);
            }
        }
    }
}

/// The bands of 256 ports in a row.
enum Content {
    Uniform(u16),
    Mixed(Box<Page>),
}

/// The bands of all ports, 256 by 256.
fn contents(ports: &PortsOfProtocol) -> impl Iterator<Item = Content> {
    let intervals = ports.intervals();
    // Ports are asked for in order; so many intervals have begun.
    let mut begun = 0;
    let mut band = move |port: u16| {
        while intervals.get(begun).is_some_and(|interval| interval.first <= port) {
            begun += 1;
        }
        (begun.checked_sub(1).map_or(0, |index| intervals[index].band), begun)
    };
    (0_u8..=255).map(move |high| {
        let first = u16::from(high) << 8;
        let (uniform, begun) = band(first);
        if intervals.get(begun).is_none_or(|next| next.first >> 8 != u16::from(high)) {
            return Content::Uniform(uniform);
        }
        let mut page = Box::new(ZERO);
        for (low, place) in (0..256_u16).zip(&mut page.bands) {
            *place = band(first + low).0;
        }
        Content::Mixed(page)
    })
}

/// Back from the bytes; none if they say nothing, which is never written.
pub(crate) fn ports_of(directory: &Directory, page: impl Fn(u16) -> Option<Page>) -> Option<PortsOfProtocol> {
    let mut intervals: Vec<Interval> = Vec::new();
    for (high, number) in (0_u16..256).zip(directory.pages) {
        if number == 0 && intervals.last().is_some_and(|last| last.band == 0) {
            continue;
        }
        let page = if number == 0 { ZERO } else { page(number)? };
        for (low, band) in (0_u16..256).zip(page.bands) {
            if intervals.last().is_none_or(|last| last.band != band) {
                intervals.push(Interval { first: high << 8 | low, band });
            }
        }
    }
    PortsOfProtocol::new(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages and directories in memory; the `left`-th write fails.
    struct Memory {
        pages: BTreeMap<u16, Page>,
        directories: BTreeMap<(usize, PortsKey), Directory>,
        left: usize,
    }

    impl Memory {
        fn new() -> Self {
            Self { pages: [(0, ZERO)].into(), directories: BTreeMap::new(), left: usize::MAX }
        }

        fn write(&mut self) -> Result<(), WriteFailure> {
            self.left = self.left.checked_sub(1).ok_or(WriteFailure::Full)?;
            Ok(())
        }

        fn read(&self, parity: usize, key: PortsKey) -> Option<PortsOfProtocol> {
            ports_of(&self.directories[&(parity, key)], |number| self.pages.get(&number).copied())
        }
    }

    impl Store for Memory {
        fn write_page(&mut self, number: u16, page: &Page) -> Result<(), WriteFailure> {
            self.write()?;
            self.pages.insert(number, *page);
            Ok(())
        }

        fn write_directory(
            &mut self,
            parity: usize,
            key: &PortsKey,
            directory: Option<&Directory>,
        ) -> Result<(), WriteFailure> {
            self.write()?;
            match directory {
                Some(directory) => self.directories.insert((parity, *key), *directory),
                None => self.directories.remove(&(parity, *key)),
            };
            Ok(())
        }
    }

    const fn key(policy: u32) -> PortsKey {
        PortsKey { policy, direction: 0, protocol: 6, padding: 0 }
    }

    fn ports(intervals: &[(u16, u16)]) -> PortsOfProtocol {
        PortsOfProtocol::new(intervals.iter().map(|(first, band)| Interval { first: *first, band: *band })).unwrap()
    }

    #[test]
    fn ports_come_back_and_equal_pages_are_shared() {
        let (mut store, mut directories) = (Memory::new(), Directories::default());
        let some = ports(&[(0, 0), (80, 1), (81, 0), (443, 2), (444, 0), (65535, 700)]);
        let range = ports(&[(0, 3), (1000, 4), (30_000, 0)]);
        for (policy, ports) in [(1, &some), (2, &some), (3, &range)] {
            directories.write(&mut store, 0, &key(policy), Some(ports)).unwrap();
            assert_eq!(store.read(0, key(policy)).as_ref(), Some(ports));
        }
        assert_eq!(store.directories[&(0, key(1))], store.directories[&(0, key(2))]);
        // Three of the first two; of the range: band 3, 3 and 4, 4, 4 and 0.
        assert_eq!(directories.pages.len(), 3 + 4);
    }

    #[test]
    fn a_page_is_free_again_only_when_no_set_names_it() {
        let (mut store, mut directories) = (Memory::new(), Directories::default());
        let (one, other) = (ports(&[(0, 0), (80, 1)]), ports(&[(0, 0), (80, 2)]));
        for parity in 0..2 {
            directories.write(&mut store, parity, &key(1), Some(&one)).unwrap();
        }
        directories.write(&mut store, 0, &key(1), Some(&other)).unwrap();
        assert_eq!(store.read(1, key(1)), Some(one), "the other set still reads what it read");
        directories.write(&mut store, 1, &key(1), None).unwrap();
        directories.write(&mut store, 0, &key(1), None).unwrap();
        assert!(directories.pages.is_empty() && directories.by_content.is_empty());
    }

    #[test]
    fn a_write_that_fails_takes_nothing() {
        let ports = ports(&[(0, 0), (80, 1), (300, 2), (600, 3)]);
        for left in 0.. {
            let (mut store, mut directories) = (Memory { left, ..Memory::new() }, Directories::default());
            let written = directories.write(&mut store, 0, &key(1), Some(&ports));
            if written.is_ok() {
                assert_eq!(left, 5, "four pages and a directory");
                break;
            }
            assert!(directories.pages.is_empty() && directories.by_content.is_empty(), "write {left}");
            assert_eq!(directories.free(), Some(1));
        }
    }

    #[test]
    fn what_is_adopted_is_counted_as_what_was_written() {
        let (mut store, mut directories) = (Memory::new(), Directories::default());
        let some = ports(&[(0, 0), (80, 1), (300, 2)]);
        directories.write(&mut store, 1, &key(1), Some(&some)).unwrap();
        let mut adopted = Directories::default();
        for ((parity, key), directory) in &store.directories {
            adopted.adopt(*parity, *key, *directory, |number| store.pages[&number]);
        }
        assert!(adopted.pages().eq(directories.pages()));
        adopted.write(&mut store, 0, &key(2), Some(&some)).unwrap();
        assert_eq!(store.directories[&(0, key(2))], store.directories[&(1, key(1))]);
    }
}
