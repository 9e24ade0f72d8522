//! What a pass claims, and gives back unsent.

use std::collections::VecDeque;

use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Counted, Grant, Outcome};

use super::driver::{Driver, Work, holds_the_same, lease_until};
use super::page::Page;
use crate::store::{Claim, Claimed, Lease, Which};

/// Rows that are claimed at a time.
const PAGE: usize = 500;

impl Driver<'_> {
    pub(super) fn claim_more(&mut self) {
        let in_stock: usize = self.fresh.values().map(VecDeque::len).sum();
        let room = self.order.rows_max.map_or(PAGE, |max| max.saturating_sub(self.claimed).min(PAGE));
        if self.is_claiming || self.is_exhausted || in_stock >= self.engine.parts.concurrency || room == 0 {
            return;
        }
        let open: Vec<Grant> = self.order.grants.iter().copied().filter(|grant| !self.closed.contains(grant)).collect();
        if open.is_empty() {
            self.is_exhausted = true;
            return;
        }
        self.is_claiming = true;
        let Self { engine, order, fence, .. } = *self;
        let cursor = self.cursor.clone();
        self.works.push(Box::pin(async move {
            let now = engine.parts.clock.now();
            let claim = Claim {
                source: order.source,
                which: order.which,
                grants: &open,
                holder: &engine.holder,
                fence,
                now,
                until: lease_until(now),
                after: cursor.as_ref(),
                limit: room,
                overdue: engine.overdue(order.source),
            };
            let claimed = engine.parts.store.claim(&claim).await;
            Work::Claimed(open, claimed)
        }));
    }

    pub(super) fn claimed(&mut self, grants: &[Grant], claimed: Claimed) {
        self.report.leased_elsewhere += claimed.elsewhere;
        self.claimed += claimed.connections.len();
        self.is_exhausted |= claimed.next.is_none() || self.order.rows_max.is_some_and(|max| self.claimed >= max);
        for grant in grants {
            match &claimed.next {
                Some(next) => self.reached.insert(*grant, Some(next.clone())),
                None => self.reached.remove(grant),
            };
        }
        if claimed.next.is_some() {
            self.cursor = claimed.next;
        }
        let now = self.now();
        let number = self.page_count;
        self.page_count += 1;
        let mut page = Page::of(now);
        let mut not_due = Vec::new();
        let mut connections = claimed.connections;
        if planted::has(Bug::RowSkipped) && connections.len() > 1 {
            connections.pop();
        }
        for connection in connections {
            // A retry is of the generation that is remembered: a newer one is not due because an older was.
            let is_another =
                matches!(self.order.which, Which::Retry) && connection.memory_of_this_generation().is_none();
            let was_had = matches!(self.order.which, Which::Live) && !self.had.insert(connection.id.clone());
            let was_tried = self.order.only_untried
                && connection.memory_of_this_generation().is_some_and(|memory| memory.next_try_at.is_some());
            let is_not_due = self.order.only_due && !self.engine.is_due(self.order.source, &connection, now);
            // The page was made with the window of the provider's usual tokens; this one may live shorter.
            let is_early = matches!(self.order.which, Which::Due { .. })
                && connection.grant == Grant::Oauth2
                && !self.engine.is_in_window(self.order.source, &connection, now);
            let has_changed = self
                .order
                .as_seen
                .is_some_and(|seen| !holds_the_same(seen, &connection) || seen.memory != connection.memory);
            let is_not_due = is_not_due || is_early || has_changed;
            let was_had = was_had || self.engine.was_due_before(&self.order, &connection, now);
            if is_another || was_had || was_tried || is_not_due {
                not_due.push(connection.id);
            } else {
                page.outstanding += 1;
                self.fresh.entry(connection.grant).or_default().push_back((number, connection));
            }
        }
        if page.outstanding > 0 {
            self.pages.insert(number, page);
        }
        self.give_back(not_due);
        if self.engine.refusals.closed_since(self.order.source).is_some() && !self.order.is_probe {
            self.close_table();
        }
    }

    /// The app cannot be called, or nothing that comes of it be written: what is claimed of it is given back, and counted
    /// as put off.
    pub(super) fn defer_fresh(&mut self, grant: Grant, name: &str, outcome: Outcome) {
        let deferred: Vec<(usize, Connection)> = self.fresh.remove(&grant).into_iter().flatten().collect();
        self.report.book_many(outcome, Counted::Deferred, deferred.len() as u64);
        self.engine.apps.leave_backlog(name, self.now());
        self.closed.insert(grant);
        let mut ids = Vec::with_capacity(deferred.len());
        for (page, connection) in deferred {
            if let Some(page) = self.pages.get_mut(&page) {
                page.outstanding -= 1;
            }
            ids.push(connection.id);
        }
        self.give_back(ids);
    }

    pub(super) fn give_back_fresh(&mut self) {
        let mut ids = Vec::new();
        for (page, connection) in std::mem::take(&mut self.fresh).into_values().flatten() {
            if let Some(page) = self.pages.get_mut(&page) {
                page.outstanding -= 1;
            }
            ids.push(connection.id);
        }
        self.give_back(ids);
    }

    pub(super) fn give_back(&mut self, ids: Vec<String>) {
        if planted::has(Bug::LeaseKept) {
            return;
        }
        self.returned.extend(ids);
    }

    pub(super) fn release(&mut self) {
        if self.returned.is_empty() {
            return;
        }
        let Self { engine, order, fence, .. } = *self;
        let ids = std::mem::take(&mut self.returned);
        self.works.push(Box::pin(async move {
            let lease = |id: &String| Lease { source: order.source, id: id.clone(), fence };
            let leases: Vec<Lease> = ids.iter().map(lease).collect();
            let result = engine.parts.store.release(&leases).await;
            Work::Released(ids, result)
        }));
    }

    /// All leases that this pass may still hold.
    pub(super) fn held(&self) -> Vec<Lease> {
        let fresh = self.fresh.values().flatten().map(|(_, connection)| connection);
        let intending = self.intending.iter().map(|in_flight| &in_flight.connection);
        let decided = self.decided.iter().map(|commit| &commit.connection);
        let concluded = self.pages.values().flat_map(|page| page.concluded.iter().map(|(connection, _)| connection));
        let ids = fresh
            .chain(intending)
            .chain(decided)
            .chain(concluded)
            .map(|connection| &connection.id)
            .chain(&self.returned);
        ids.map(|id| Lease { source: self.order.source, id: id.clone(), fence: self.fence }).collect()
    }
}
