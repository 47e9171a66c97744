//! Which entries a datapath's map needs for what bands say (MAP-1 … MAP-5).
//!
//! An entry's own key and everything broader decide about it. What deny rules say there absorbs it; a redirect absorbs
//! a plain allow; and what is said of everyone on exactly the same ports is not repeated for one peer (MAP-4).

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::{
    bands::{Band, Bands},
    entry::{Class, PortForm, Ports},
    selectors::SelectorId,
};

/// The entries of one key.
#[derive(Debug, Default)]
pub(super) struct Effective<'b> {
    /// For any peer.
    pub(super) any: Option<Class>,
    /// The slots with an entry of their own, by class: no slot has two.
    pub(super) peers: [Cow<'b, RoaringBitmap>; 3],
}

/// What covers a key.
struct Cover<'b> {
    /// What says something about exactly these ports.
    at: Vec<&'b Band>,
    /// What says something about more than these.
    above: Vec<&'b Band>,
    /// The strongest thing said of everyone, at the key and above.
    any_at: Option<Class>,
    any_above: Option<Class>,
}

/// The keys that bands have entries for, in order.
pub(super) fn keys(bands: &Bands, form: PortForm) -> Vec<Ports> {
    let ports = bands.bands.iter().map(|band| band.ports);
    match form {
        PortForm::Ranges => ports.collect(),
        PortForm::Blocks => {
            let mut keys: Vec<Ports> = ports.flat_map(Ports::blocks).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        }
    }
}

/// Calls a function with every entry of one peer, which these selectors select.
pub(super) fn each_slot(bands: &Bands, selecting: &[SelectorId], slot: u32, mut found: impl FnMut(Ports, Class)) {
    let mut keys: Vec<Ports> = Vec::new();
    for (band, _) in bands.naming(selecting) {
        keys.extend(bands.bands[band as usize].ports.blocks());
    }
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        if let Some(class) = Cover::of(bands, key, PortForm::Blocks).of_slot(slot) {
            found(key, class);
        }
    }
}

impl<'b> Cover<'b> {
    fn of(bands: &'b Bands, key: Ports, form: PortForm) -> Self {
        let (mut at, mut above) = (Vec::new(), Vec::new());
        for band in bands.around(key.protocol, key.first).filter(|band| band.ports.covers(&key)) {
            let is_own = match form {
                PortForm::Blocks => band.ports.has_block(&key),
                PortForm::Ranges => band.ports == key,
            };
            if is_own { at.push(band) } else { above.push(band) }
        }
        let any = |bands: &[&Band]| bands.iter().filter_map(|band| band.any).max();
        let (any_at, any_above) = (any(&at), any(&above));
        Self { at, above, any_at, any_above }
    }

    /// The entry for any peer.
    fn any(&self) -> Option<Class> {
        let own = self.any_at?;
        let absorbed = match own {
            Class::Allow => self.any_above >= Some(Class::Redirect),
            Class::Redirect | Class::Deny => self.any_above == Some(Class::Deny),
        };
        (!absorbed).then_some(own)
    }

    /// Whether every peer's entries are absorbed.
    fn is_denied(&self) -> bool {
        self.any_at.max(self.any_above) == Some(Class::Deny)
    }

    /// Whether every peer's entries of a class say no more than what is there for any peer.
    fn is_absorbed_by_any(&self, class: Class) -> bool {
        match class {
            Class::Deny => false,
            Class::Redirect => self.any_at == Some(Class::Redirect),
            Class::Allow => self.any_at.is_some() || self.any_above == Some(Class::Redirect),
        }
    }

    /// The entry of one peer.
    fn of_slot(&self, slot: u32) -> Option<Class> {
        let own = self.at.iter().filter_map(|band| band.own(slot)).max()?;
        if self.is_denied() || self.is_absorbed_by_any(own) {
            return None;
        }
        let above = self.above.iter().filter_map(|band| band.own(slot)).max();
        let absorbed = above == Some(Class::Deny) || own == Class::Allow && above == Some(Class::Redirect);
        (!absorbed).then_some(own)
    }

    /// The union of what bands say of one class.
    fn said(bands: &[&'b Band], class: Class) -> Cow<'b, RoaringBitmap> {
        let slots = |band: &'b Band| &band.peers[class as usize];
        let mut filled = bands.iter().map(|band| slots(band)).filter(|slots| !slots.is_empty());
        let Some(first) = filled.next() else { return Cow::default() };
        filled.fold(Cow::Borrowed(first), |all, slots| Cow::Owned(all.as_ref() | slots))
    }
}

impl<'b> Effective<'b> {
    pub(super) fn of(bands: &'b Bands, key: Ports, form: PortForm) -> Self {
        let cover = Cover::of(bands, key, form);
        let any = cover.any();
        if cover.is_denied() {
            return Self { any, ..Self::default() };
        }
        let mut peers = Class::ALL.map(|class| Cover::said(&cover.at, class));
        let above = Class::ALL.map(|class| Cover::said(&cover.above, class));
        let [_, redirect, deny] = &above;
        let (redirect_at, deny_at) = (peers[1].clone(), peers[2].clone());
        let [allows, redirects, denies] = &mut peers;
        for absorbing in [&*deny_at, &**deny, &*redirect_at, &**redirect] {
            take(allows, absorbing);
        }
        for absorbing in [&*deny_at, &**deny] {
            take(redirects, absorbing);
        }
        take(denies, deny);
        for class in Class::ALL {
            if cover.is_absorbed_by_any(class) {
                peers[class as usize] = Cow::default();
            }
        }
        Self { any, peers }
    }

    /// SEM-1.
    pub(super) fn unenforced() -> Self {
        Self { any: Some(Class::Allow), ..Self::default() }
    }

    /// How many entries.
    pub(super) fn len(&self) -> usize {
        let slots = self.peers.iter().map(|slots| usize::try_from(slots.len()).unwrap_or(usize::MAX));
        usize::from(self.any.is_some()) + slots.sum::<usize>()
    }

    pub(super) fn each(&self, mut found: impl FnMut(u32, Class)) {
        for class in Class::ALL {
            self.peers[class as usize].iter().for_each(|slot| found(slot, class));
        }
    }
}

fn take(from: &mut Cow<'_, RoaringBitmap>, absorbing: &RoaringBitmap) {
    if !from.is_empty() && !absorbing.is_empty() {
        *from = Cow::Owned(&**from - absorbing);
    }
}
