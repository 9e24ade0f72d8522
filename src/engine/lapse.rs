//! Looks for tokens that end without anybody's having concluded anything about them: while the provider was down, or
//! Perene. Who is remembered is looked at by the sweep; these are not remembered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::backoff::later;
use perene_policy::due::OVERDUE;
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Counting, Grant, lapse};

use super::driver::lease_until;
use super::sweep::Swept;
use super::{Engine, outbox};
use crate::store::{Claim, Commit, Cursor, Guard, StoreError, Which};

/// Rows that are looked at in one page.
const PAGE: usize = 500;

/// How often is looked ahead while a provider is out of reach.
const AHEAD_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// How often is looked again at rows of an app that is held, for as long as it is.
const HELD_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What ended so long before the last look is looked at once more: a row that was leased is not seen, and its replica may
/// have died. Those that were told are remembered by then.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// How far each source has been looked at.
#[derive(Debug, Default)]
pub(super) struct Lapses(Mutex<BTreeMap<usize, Looked>>);

#[derive(Debug, Clone, Copy, Default)]
struct Looked {
    /// What ended before this instant has been told; `None`: nothing has been looked at.
    until: Option<Timestamp>,
    /// When customers of an app that is held were left out.
    held_at: Option<Timestamp>,
    ahead_at: Option<Timestamp>,
}

/// What a look has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Everything was told that could be.
    All,
    /// Customers of an app that is held were left out.
    ButHeld,
    /// Something could not be written, or is in somebody's hands.
    Some,
}

impl Lapses {
    /// A run looks at all again: the app may have put a row there that had ended before.
    pub(super) fn look_again(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Looked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Tells the customers of tokens that have ended unheard of since Perene is in charge of their table. What had ended
    /// before is the app's past.
    pub(super) async fn sweep_lapsed(&self, swept: &mut Swept) -> Result<(), StoreError> {
        if planted::has(Bug::LapseUnseen) {
            return Ok(());
        }
        for source in 0..self.parts.sources.len() {
            let now = self.parts.clock.now();
            let mut looked = self.lapses.lock().get(&source).copied().unwrap_or_default();
            let is_recent = |at: Option<Timestamp>, every| at.is_some_and(|at| now.duration_since(at) < every);
            if !(is_recent(looked.held_at, HELD_EVERY) && self.holds_any(source, now)) {
                let since = match looked.until {
                    Some(until) => until,
                    None => self.parts.store.in_charge_since(source, now).await?.max(later(now, -OVERDUE)),
                };
                let past = Stretch::past(self.grants(source), since, now);
                let told = self.look_for_lapsed(source, &past, now, swept).await?;
                looked.until = Some(if told == Told::All { later(now, -OVERLAP).max(since) } else { since });
                looked.held_at = (told == Told::ButHeld).then_some(now);
            }
            let grants = self.out_of_reach(source, now);
            if !grants.is_empty() && !is_recent(looked.ahead_at, AHEAD_EVERY) {
                // Those that were not due yet have missed nothing.
                let settings = self.settings(source);
                let ahead = Stretch::ahead(&grants, settings.warn_before.min(settings.window));
                self.look_for_lapsed(source, &ahead, now, swept).await?;
                looked.ahead_at = Some(now);
            }
            self.lapses.lock().insert(source, looked);
        }
        Ok(())
    }

    async fn look_for_lapsed(
        &self,
        source: usize,
        stretch: &Stretch<'_>,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<Told, StoreError> {
        let mut told = Told::All;
        let mut after: Option<Cursor> = None;
        loop {
            let claim = Claim {
                which: Which::Due { window: stretch.window },
                grants: stretch.grants,
                after: after.as_ref(),
                limit: PAGE,
                overdue: stretch.overdue,
                ..self.named(source, &[], self.fence(), now)
            };
            let page = self.parts.store.peek(&claim).await?;
            let unheard = page.iter().filter(|row| row.memory_of_this_generation().is_none());
            let (held, free): (Vec<_>, Vec<_>) = unheard.partition(|row| self.is_held(row, source, now));
            // Where no app is configured nobody will ever be told: that is for the operator to mend.
            let waits = held.iter().any(|row| self.provider(source).app(row.grant).is_some());
            if waits && told == Told::All {
                told = Told::ButHeld;
            }
            let ids: Vec<String> = free.iter().map(|row| row.id.clone()).collect();
            if !ids.is_empty() && !self.tell_lapsed(source, &ids, now, swept).await? {
                told = Told::Some;
            }
            after = page.last().map(Cursor::behind);
            if page.len() < PAGE {
                return Ok(told);
            }
        }
    }

    /// Under a lease, so that of several replicas one tells it, and nobody is sending the row meanwhile. Returns whether
    /// all were told or have changed.
    async fn tell_lapsed(
        &self,
        source: usize,
        ids: &[String],
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<bool, StoreError> {
        let fence = self.fence();
        let claim = Claim { until: lease_until(now), ..self.named(source, ids, fence, now) };
        let claimed = self.parts.store.claim(&claim).await?;
        let mut commits = Vec::new();
        let mut left = Vec::new();
        for row in claimed.connections {
            let context = self.context(source, now, Counting::Never, self.is_held(&row, source, now), &[]);
            match lapse(&row, &context) {
                Some(decision) => {
                    let outbox = outbox::of(self, source, &row, &decision, now);
                    commits.push(Commit { source, connection: row, guard: Guard::Lease(fence), decision, outbox });
                }
                None => left.push(crate::store::Lease { source, id: row.id, fence }),
            }
        }
        self.parts.store.release(&left).await?;
        let all_told = self.commit_sweep(&commits, now, swept).await?;
        Ok(all_told && claimed.elsewhere == 0)
    }

    /// Whether customers of this row's app hear of nothing now. Where no app is configured for its grant, that is for
    /// the operator to mend.
    pub(super) fn is_held(&self, row: &Connection, source: usize, now: Timestamp) -> bool {
        self.provider(source).app(row.grant).is_none_or(|app| self.apps.holds_notices(&app.name, now))
    }

    fn holds_any(&self, source: usize, now: Timestamp) -> bool {
        let mut apps = self.grants(source).iter().filter_map(|grant| self.provider(source).app(*grant));
        apps.any(|app| self.apps.holds_notices(&app.name, now))
    }

    /// The grants of a source whose provider has been of no use for a day.
    fn out_of_reach(&self, source: usize, now: Timestamp) -> Vec<Grant> {
        let is_out = |grant: &Grant| {
            let app = self.provider(source).app(*grant);
            app.is_some_and(|app| self.apps.is_out_of_reach(&app.name, now))
        };
        self.grants(source).iter().copied().filter(is_out).collect()
    }
}

/// Which rows are looked at.
struct Stretch<'a> {
    grants: &'a [Grant],
    window: SignedDuration,
    overdue: SignedDuration,
}

impl<'a> Stretch<'a> {
    /// What has ended since then.
    fn past(grants: &'a [Grant], since: Timestamp, now: Timestamp) -> Self {
        Self { grants, window: SignedDuration::ZERO, overdue: now.duration_since(since) }
    }

    /// What ends within this time.
    fn ahead(grants: &'a [Grant], window: SignedDuration) -> Self {
        Self { grants, window, overdue: SignedDuration::ZERO }
    }
}
