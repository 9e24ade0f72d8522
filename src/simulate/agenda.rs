//! When a service that rests has to look again.
//!
//! A service looks every five seconds, and nearly always finds nothing to do. Here a rest goes on to the next instant
//! at which something can be due: every such instant stands in the database, or follows from what a replica did a
//! moment ago. After each deed comes the next look, and a sweep: a look that came too soon after a sweep for another one is
//! followed by one that does not. A minute after a run is looked for what others had in flight.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

/// The look after a deed.
const AFTER_A_DEED: SignedDuration = SignedDuration::from_secs(5);

/// The look for what others had in flight when a run was made.
const AFTER_A_RUN: SignedDuration = SignedDuration::from_secs(65);

/// So long after a sweep the next one is due.
const AFTER_A_SWEEP: SignedDuration = SignedDuration::from_secs(31);

/// Who could not sweep for so long waits for what ends the trouble.
const GIVES_UP_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// However quiet it is, somebody looks this often.
const AT_LEAST_EVERY: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug)]
pub(super) struct Agenda {
    instants: BTreeSet<(Timestamp, usize)>,
    /// When something was done last.
    deed_at: Timestamp,
}

/// Instants that belong to no connection.
pub(super) const NOBODYS: usize = usize::MAX;

impl Agenda {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { instants: BTreeSet::new(), deed_at: now }
    }

    /// Something was done or happened.
    pub(super) fn deed(&mut self, now: Timestamp) {
        self.deed_at = self.deed_at.max(now);
    }

    /// A run has begun or ended.
    pub(super) fn run(&mut self, now: Timestamp) {
        self.add(now + AFTER_A_RUN, NOBODYS);
    }

    pub(super) fn add(&mut self, at: Timestamp, owner: usize) {
        self.instants.insert((at, owner));
    }

    pub(super) fn remove(&mut self, at: Timestamp, owner: usize) {
        self.instants.remove(&(at, owner));
    }

    /// The first instant after `since` at which somebody has to look who swept last at `swept_at`.
    pub(super) fn next_after(&self, since: Timestamp, swept_at: Option<Timestamp>) -> Timestamp {
        let deed = Some(self.deed_at + AFTER_A_DEED).filter(|at| *at > since);
        let due = self.instants.range((since, NOBODYS)..).map(|(at, _)| *at).find(|at| *at > since);
        let unswept = swept_at.filter(|swept| {
            let first = || self.instants.range((*swept, NOBODYS)..).next().map(|(at, _)| *at);
            since.duration_since(*swept) < GIVES_UP_AFTER
                && (self.deed_at > *swept || first().is_some_and(|at| at <= since))
        });
        let sweep = unswept.map(|swept| (swept + AFTER_A_SWEEP).max(since + AFTER_A_DEED));
        deed.into_iter().chain(due).chain(sweep).min().unwrap_or(since + AT_LEAST_EVERY).min(since + AT_LEAST_EVERY)
    }

    /// Forgets what lies before `now`.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.instants = self.instants.split_off(&(now, 0));
    }
}
