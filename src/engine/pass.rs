//! A pass: one kind of rows of one source, once through, and after it a count of what could not be sent.

use jiff::Timestamp;
use perene_policy::app::Permission;
use perene_policy::{Class, Counted, Grant, Outcome};
use uuid::Uuid;

use perene_policy::planted::{self, Bug};

use super::driver::{Closed, Driver, LEASE, Order, later};
use super::refusals::Writable;
use super::report::Report;
use super::{Engine, Stop};
use crate::store::{Claim, Cursor, StoreError, Which};

/// Rows that are counted at a time.
const PAGE: usize = 1000;

impl Engine {
    /// Sends what `order` names, for every grant whose app may be called; the rest is counted as put off.
    pub(super) async fn pass(
        &self,
        order: Order<'_>,
        stop: &Stop,
        report: &mut Report,
        progress: &(dyn Fn(&Report) + Sync),
    ) -> Result<(), StoreError> {
        let mut open = Vec::new();
        let mut closed = Closed::new();
        let hindrance = self.hindrance(order.source);
        for grant in order.grants.iter().copied() {
            match hindrance {
                Some(_) => closed.extend([(grant, None)]),
                None => match self.open(order, grant, stop, report, progress).await? {
                    Ok(()) => open.push(grant),
                    Err(rest) => closed.extend(rest),
                },
            }
        }
        if !open.is_empty()
            && self.writable(order.source) == Writable::OneRow
            && let Some(rest) = self.try_table(Order { grants: &open, ..order }, stop, report, progress).await?
        {
            closed.extend(rest);
            open.clear();
        }
        if !open.is_empty() {
            let order = Order { grants: &open, ..order };
            closed.extend(Driver::new(self, order, stop.clone(), report, progress).drive().await?);
        }
        if !stop.is_set() {
            for (grant, cursor) in closed {
                self.count_deferred(order, grant, cursor, report).await?;
            }
        }
        Ok(())
    }

    /// Sends one row to see whether a table that has refused many takes it. Returns what is left undone if it does not.
    ///
    /// A pass that has no row to try must not use up the try of one that has. And it is not always the same row: one
    /// whose answer is kept is not sent, and one that alone is bad would hold all the others.
    async fn try_table(
        &self,
        order: Order<'_>,
        stop: &Stop,
        report: &mut Report,
        progress: &(dyn Fn(&Report) + Sync),
    ) -> Result<Option<Closed>, StoreError> {
        let now = self.parts.clock.now();
        let all = || order.grants.iter().map(|grant| (*grant, None)).collect();
        let last = self.refusals.tried(order.source);
        let Some(from) = self.next_to_try(order, order.grants, last.as_ref(), now).await? else {
            return Ok(Some(all()));
        };
        self.refusals.begin_try(order.source, now);
        let one_row = Order { rows_max: Some(1), is_probe: true, from, ..order };
        let rest = Driver::new(self, one_row, stop.clone(), report, progress).drive().await?;
        self.refusals.set_tried(order.source, rest.values().next().cloned().flatten());
        let is_open = self.writable(order.source) == Writable::Yes;
        Ok((!is_open).then(|| if from.is_some() { all() } else { rest }))
    }

    /// Why nothing of a source can be sent just now, whatever its app: what would come of it could not be kept.
    pub(super) fn hindrance(&self, source: usize) -> Option<Outcome> {
        if self.writable(source) == Writable::No {
            return Some(Outcome::Misconfigured);
        }
        let is_strict = self.provider(source).class() == Class::Strict;
        let must_wait = self.ledger.trouble().is_some() || self.ledger.is_settling(self.parts.clock.now());
        (is_strict && must_wait).then_some(Outcome::Transient)
    }

    fn writable(&self, source: usize) -> Writable {
        self.refusals.writable(source, self.parts.clock.now())
    }

    /// Whether the app of a grant may be called; if it may not, what is left undone. Where only a probe is
    /// allowed, it is made here, with the connection that comes first.
    async fn open(
        &self,
        order: Order<'_>,
        grant: Grant,
        stop: &Stop,
        report: &mut Report,
        progress: &(dyn Fn(&Report) + Sync),
    ) -> Result<Result<(), Closed>, StoreError> {
        let all = || Closed::from([(grant, None)]);
        let Some(app) = self.provider(order.source).app(grant) else { return Ok(Err(all())) };
        let now = self.parts.clock.now();
        match self.apps.permission(&app.name, now) {
            Permission::Go(_) => Ok(Ok(())),
            Permission::Wait { .. } => Ok(Err(all())),
            Permission::Probe => {
                // A pass that has no row to probe with must not use up the probe of one that has.
                // And not always with the same row: one that fails for ever would hold all the others.
                let last = self.apps.last_probed(&app.name);
                let Some(from) = self.next_to_try(order, &[grant], last.as_ref(), now).await? else {
                    return Ok(Err(all()));
                };
                if !self.apps.take_probe(&app.name, now).await? {
                    return Ok(Err(all()));
                }
                let grants = [grant];
                let probe = Order { grants: &grants, rows_max: Some(1), is_probe: true, from, ..order };
                let mut rest = Driver::new(self, probe, stop.clone(), report, progress).drive().await?;
                self.apps.set_last_probed(&app.name, rest.get(&grant).cloned().flatten());
                if from.is_some() {
                    rest = all();
                }
                match self.apps.permission(&app.name, self.parts.clock.now()) {
                    Permission::Go(_) => Ok(Ok(())),
                    Permission::Wait { .. } | Permission::Probe => Ok(Err(rest)),
                }
            }
        }
    }

    /// Behind which row the one lies that is to be tried alone: behind the last, or, where none is there, the first of
    /// all (`Some(None)`). `None` if there is no row.
    async fn next_to_try<'l>(
        &self,
        order: Order<'_>,
        grants: &[Grant],
        last: Option<&'l Cursor>,
        now: Timestamp,
    ) -> Result<Option<Option<&'l Cursor>>, StoreError> {
        if last.is_some() && self.has_rows(order, grants, last, now).await? {
            return Ok(Some(last));
        }
        Ok(self.has_rows(order, grants, None, now).await?.then_some(None))
    }

    async fn has_rows(
        &self,
        order: Order<'_>,
        grants: &[Grant],
        after: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let claim = Claim {
            source: order.source,
            which: order.which,
            grants,
            holder: self.holder(),
            fence: Uuid::nil(),
            now,
            until: later(now, LEASE),
            after,
            limit: 1,
            overdue: self.overdue(order.source),
        };
        Ok(!self.parts.store.peek(&claim).await?.is_empty())
    }

    /// Counts what lies behind the place at which an app could not be called any more. Page by page, since
    /// the rows before that place have been counted already.
    async fn count_deferred(
        &self,
        order: Order<'_>,
        grant: Grant,
        mut cursor: Option<Cursor>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let app = self.provider(order.source).app(grant);
        let name = app.as_ref().map(|app| &app.name);
        let now = self.parts.clock.now();
        let permission = name.map(|name| self.apps.permission(name, now));
        let outcome = self.hindrance(order.source).unwrap_or(match permission {
            // No app is configured for this grant: that is for the operator to mend.
            None => Outcome::Misconfigured,
            Some(Permission::Wait { outcome, .. }) => outcome,
            Some(Permission::Probe | Permission::Go(_)) => Outcome::Transient,
        });
        let grants = [grant];
        // Between runs nobody reads the sums; that there is something is all that matters.
        let page_size = if order.counting.is_of_run() { PAGE } else { 1 };
        loop {
            let claim = Claim {
                source: order.source,
                which: order.which,
                grants: &grants,
                holder: self.holder(),
                fence: Uuid::nil(),
                now,
                until: later(now, LEASE),
                after: cursor.as_ref(),
                limit: page_size,
                overdue: self.overdue(order.source),
            };
            let page = self.parts.store.peek(&claim).await?;
            let counted = page.iter().filter(|row| !self.was_due_before(&order, row, now)).count();
            report.book_many(outcome, Counted::Deferred, counted as u64);
            let is_last = page.len() < page_size || page_size == 1;
            cursor = page.last().map(Cursor::behind);
            // While the app may not be called nobody ends its backlog: to say so at every look would rewrite it each time.
            let is_known = |name: &str| {
                self.apps.has_backlog(name) && !matches!(self.apps.permission(name, now), Permission::Go(_))
            };
            if let Some(name) = name.filter(|name| !page.is_empty() && !is_known(name)) {
                self.apps.leave_backlog(name, now);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// What a run takes of one source, in this order.
    pub(super) fn whole(&self, source: usize) -> [Which<'static>; 3] {
        let [due, undated] = self.due_of(source);
        [due, undated, Which::Retry]
    }

    /// What is due of one source by its date, or for want of one.
    pub(super) fn due_of(&self, source: usize) -> [Which<'static>; 2] {
        let day = jiff::SignedDuration::from_hours(24);
        let window = match self.settings(source).window {
            window if planted::has(Bug::WindowTooNarrow) => window - day,
            window if planted::has(Bug::WindowTooWide) => window + day,
            window => window,
        };
        [Which::Due { window }, Which::Undated]
    }
}
