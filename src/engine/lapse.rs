//! Looks for tokens that end without anybody's having concluded anything about them: while the provider was down, or
//! Perene. Who is remembered is looked at by the sweep; these are not remembered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::backoff::later;
use perene_policy::due::OVERDUE;
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Counting, lapse};

use super::driver::lease_until;
use super::sweep::Swept;
use super::{Engine, outbox};
use crate::store::{Claim, Commit, Cursor, Guard, StoreError, Which};

/// Rows that are looked at in one page.
const PAGE: usize = 500;

/// How often is looked ahead while a provider is out of reach.
const AHEAD_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// How far each source has been looked at.
#[derive(Debug, Default)]
pub(super) struct Lapses(Mutex<BTreeMap<usize, Looked>>);

#[derive(Debug, Clone, Copy, Default)]
struct Looked {
    /// What ended before this instant has been looked at; `None`: nothing has.
    until: Option<Timestamp>,
    ahead_at: Option<Timestamp>,
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
    /// Tells the customers of tokens that have ended unheard of since Perene is in charge. Rows that had ended before
    /// its first run are the app's past.
    pub(super) async fn sweep_lapsed(&self, swept: &mut Swept) -> Result<(), StoreError> {
        if planted::has(Bug::LapseUnseen) {
            return Ok(());
        }
        let now = self.parts.clock.now();
        let mut first_run = None;
        for source in 0..self.parts.sources.len() {
            let looked = self.lapses.lock().get(&source).copied().unwrap_or_default();
            let since = match looked.until {
                Some(until) => until,
                None => {
                    first_run = match first_run {
                        None => self.parts.store.first_run().await?,
                        known => known,
                    };
                    let Some(first) = first_run else { return Ok(()) };
                    first.max(later(now, -OVERDUE))
                }
            };
            let is_ahead_due = looked.ahead_at.is_none_or(|at| now.duration_since(at) >= AHEAD_EVERY);
            let ahead = if is_ahead_due && self.is_out_of_reach(source, now) {
                self.settings(source).warn_before
            } else {
                SignedDuration::ZERO
            };
            let is_complete = self.look_for_lapsed(source, since, ahead, now, swept).await?;
            let mut known = self.lapses.lock();
            let looked = known.entry(source).or_default();
            // What ends at this very instant has not ended yet.
            looked.until = Some(if is_complete { later(now, -SignedDuration::from_secs(1)) } else { since });
            looked.ahead_at = if ahead.is_zero() { looked.ahead_at } else { Some(now) };
        }
        Ok(())
    }

    /// Looks at what ends between `since` and `ahead` from now. Returns whether all of it could be told: customers of an
    /// app that is held hear of nothing.
    async fn look_for_lapsed(
        &self,
        source: usize,
        since: Timestamp,
        ahead: SignedDuration,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<bool, StoreError> {
        let mut is_complete = true;
        let mut after: Option<Cursor> = None;
        loop {
            let claim = Claim {
                which: Which::Due { window: ahead },
                after: after.as_ref(),
                limit: PAGE,
                overdue: now.duration_since(since),
                ..self.named(source, &[], self.fence(), now)
            };
            let page = self.parts.store.peek(&claim).await?;
            let unheard: Vec<String> = page
                .iter()
                .filter(|row| row.memory_of_this_generation().is_none())
                .filter(|row| {
                    let is_held = self.is_held(row, source, now);
                    is_complete &= !is_held;
                    !is_held
                })
                .map(|row| row.id.clone())
                .collect();
            let is_last = page.len() < PAGE;
            after = page
                .last()
                .map(|last| Cursor { expires_us: last.expires_at.map(Timestamp::as_microsecond), id: last.id.clone() });
            if !unheard.is_empty() {
                self.tell_lapsed(source, &unheard, now, swept).await?;
            }
            if is_last {
                return Ok(is_complete);
            }
        }
    }

    /// Under a lease, so that of several replicas one tells it, and nobody is sending the row meanwhile.
    async fn tell_lapsed(
        &self,
        source: usize,
        ids: &[String],
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let fence = self.fence();
        let claim = Claim { until: lease_until(now), ..self.named(source, ids, fence, now) };
        let rows = self.parts.store.claim(&claim).await?.connections;
        let mut commits = Vec::new();
        let mut left = Vec::new();
        for row in rows {
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
        self.commit_sweep(&commits, now, swept).await
    }

    /// Whether customers of this row's app hear of nothing now. Where no app is configured for its grant, that is for
    /// the operator to mend.
    fn is_held(&self, row: &Connection, source: usize, now: Timestamp) -> bool {
        self.provider(source).app(row.grant).is_none_or(|app| self.apps.holds_notices(&app.name, now))
    }

    fn is_out_of_reach(&self, source: usize, now: Timestamp) -> bool {
        let apps = self.grants(source).iter().filter_map(|grant| self.provider(source).app(*grant));
        apps.into_iter().any(|app| self.apps.is_out_of_reach(&app.name, now))
    }
}
