//! Which faults are on just now, and how often each has struck.

use super::faults::Kind;

const KINDS: usize = Kind::ALL.len();

/// A fault that is on hits all, or one of so many: an app, a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    All,
    One(usize),
}

#[derive(Debug)]
pub(super) struct Weather {
    on: Vec<Vec<Target>>,
    fired: Vec<u64>,
    /// Faults that are on, of all kinds.
    pub(super) count: usize,
}

impl Weather {
    pub(super) fn new() -> Self {
        Self { on: vec![Vec::new(); KINDS], fired: vec![0; KINDS], count: 0 }
    }

    pub(super) fn begin(&mut self, kind: Kind, target: Target) {
        self.on[kind as usize].push(target);
        self.count += 1;
    }

    pub(super) fn end(&mut self, kind: Kind, target: Target) {
        let on = &mut self.on[kind as usize];
        if let Some(place) = on.iter().position(|known| *known == target) {
            on.swap_remove(place);
            self.count -= 1;
        }
    }

    pub(super) fn is_on(&self, kind: Kind) -> bool {
        !self.on[kind as usize].is_empty()
    }

    /// Whether a fault is on that hits this app or this replica.
    pub(super) fn hits(&self, kind: Kind, slot: usize) -> bool {
        self.on[kind as usize].iter().any(|target| *target == Target::All || *target == Target::One(slot))
    }

    /// Notes that a fault has struck.
    pub(super) fn fire(&mut self, kind: Kind) {
        self.fired[kind as usize] += 1;
    }

    /// Whether a fault is on that hits this app or this replica; it strikes.
    pub(super) fn strikes(&mut self, kind: Kind, slot: usize) -> bool {
        let hits = self.hits(kind, slot);
        self.fired[kind as usize] += u64::from(hits);
        hits
    }

    pub(super) fn fired(&self, kind: Kind) -> u64 {
        self.fired[kind as usize]
    }
}

impl Weather {
    /// All faults that are on.
    pub(super) fn all(&self) -> Vec<(Kind, Target)> {
        let kinds = Kind::ALL.iter();
        kinds.flat_map(|kind| self.on[*kind as usize].iter().map(move |target| (*kind, *target))).collect()
    }
}
