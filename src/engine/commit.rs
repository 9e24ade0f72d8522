//! What was decided is written in batches, and booked when it is.

use std::collections::BTreeMap;
use std::time::Duration;

use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Counted, Decision, Outcome};

use super::Engine;
use super::driver::{Driver, Work};
use super::report::Trouble;
use crate::failpoint::fail_at;
use crate::journal::EntryId;
use crate::store::{Commit, Committed, StoreError};

/// Rows that are committed at a time.
pub(super) const BATCH: usize = 250;

impl Driver<'_> {
    pub(super) fn commit_some(&mut self) {
        // A batch that is not full goes when nothing else is left that could fill it, or when there is little time.
        let is_last = self.calling == 0 && self.ready.is_empty() && self.waiting.values().all(|count| *count == 0);
        // The first row of a pass goes at once, and so does each that follows one which was refused: a table that takes
        // none is to be known before hundreds of calls have brought what it does not take.
        let is_first = !self.has_committed && self.outage.commits() == 0;
        let is_suspicious = is_first || self.engine.refusals.is_suspicious(self.order.source);
        let is_urgent = is_last || is_suspicious || self.stop.is_set() || self.fatal.is_some();
        while self.decided.len() >= BATCH || (is_urgent && !self.decided.is_empty()) {
            self.commit_next();
        }
    }

    pub(super) fn commit_next(&mut self) {
        let rest = self.decided.split_off(self.decided.len().min(BATCH));
        let mut batch = std::mem::replace(&mut self.decided, rest);
        if planted::has(Bug::CommitForgotten) && batch.len() > 1 {
            batch.pop();
        }
        let engine = self.engine;
        let ids = batch.iter().map(|commit| &commit.connection.id);
        let kept: BTreeMap<String, EntryId> =
            ids.filter_map(|id| Some((id.clone(), *self.journalled.get(id)?))).collect();
        let began = engine.parts.clock.monotonic();
        self.outage.commit_began(began);
        self.works.push(Box::pin(async move {
            fail_at("before_commit");
            let result = engine.parts.store.commit(&batch, engine.parts.clock.now()).await;
            fail_at("after_commit");
            if let Ok(committed) = &result {
                engine.settle_kept(&batch, committed, &kept).await;
                fail_at("after_forget");
            }
            Work::Committed(batch, began, result)
        }));
    }

    /// Books what was written. What was not is kept for the next commit: the store finds again what it has
    /// done already, also in another batch.
    pub(super) fn committed(
        &mut self,
        commits: Vec<Commit>,
        began: Duration,
        result: Result<Vec<Committed>, StoreError>,
    ) {
        self.outage.commit_ended(began);
        let committed = match result {
            Ok(committed) => committed,
            Err(error) => {
                if error.may_pass() {
                    self.decided.splice(..0, commits);
                }
                return self.failed(error);
            }
        };
        self.passed();
        self.has_committed = true;
        for (commit, committed) in commits.into_iter().zip(committed) {
            // What the database has not taken stays in the journal, for whoever replays it.
            let place = self.journalled.remove(&commit.connection.id);
            if matches!(committed, Committed::GuardLost | Committed::Refused(_) | Committed::Locked) {
                self.engine.ledger.let_go(place);
            }
            match committed {
                Committed::Done => {
                    if commit.decision.write.is_some() {
                        self.has_written = true;
                        self.engine.refusals.accepted(commit.source);
                    }
                    self.book(&commit.connection, &commit.decision);
                    self.engine.spent.committed(commit, self.now());
                }
                Committed::Superseded | Committed::GuardLost => {
                    tracing::info!(id = commit.connection.id, "the row has changed meanwhile: the result is dropped");
                    if commit.decision.counted.is_some() {
                        self.report.book(Outcome::Superseded, Counted::Superseded);
                    }
                    if committed == Committed::GuardLost {
                        self.engine.spent.not_committed(commit, self.now());
                    }
                }
                // What it brought is in the journal, or it is due again.
                Committed::Locked => {
                    tracing::warn!(id = commit.connection.id, "somebody keeps the row locked: it is written later");
                    if commit.decision.counted.is_some() {
                        self.report.book(Outcome::Transient, Counted::Deferred);
                    }
                }
                Committed::Refused(text) => {
                    tracing::error!(id = commit.connection.id, "the database refused to write the row: {text}");
                    self.engine.refusals.refused(commit.source, &commit.connection.id, self.now());
                    self.refused.push((commit, text));
                }
            }
        }
        if self.engine.refusals.closed_since(self.order.source).is_some() {
            self.close_table();
        }
        (self.progress)(self.report);
    }

    pub(super) fn book(&mut self, connection: &Connection, decision: &Decision) {
        let id = connection.id.as_str();
        if let Some(counted) = decision.counted {
            self.report.book(decision.outcome, counted);
        }
        self.report.warned += u64::from(decision.warns);
        self.report.recovered += u64::from(decision.recovers);
        if decision.warns {
            tracing::warn!(id, outcome = decision.outcome.name(), "connection {id}: the customer is warned");
        }
        if decision.recovers {
            tracing::info!(id, "connection {id}: recovered");
        }
        let text = decision.events.first().map_or("", |event| event.text.as_str());
        match decision.counted {
            Some(Counted::Failed) => tracing::warn!(id, outcome = decision.outcome.name(), "connection {id}: {text}"),
            Some(Counted::Deferred) => tracing::info!(id, outcome = decision.outcome.name(), "connection {id}: {text}"),
            _ => {}
        }
        if matches!(decision.counted, Some(Counted::Failed | Counted::Deferred)) {
            self.report.note(Trouble {
                table: self.engine.parts.sources[self.order.source].table.to_string(),
                id: id.to_owned(),
                outcome: decision.outcome,
                text: text.to_owned(),
                was_warned: decision.warns,
            });
        }
    }
}

impl Engine {
    /// What the database has confirmed leaves the journal; what it has not stays, to be replayed.
    async fn settle_kept(&self, batch: &[Commit], committed: &[Committed], kept: &BTreeMap<String, EntryId>) {
        let mut done: BTreeMap<usize, Vec<EntryId>> = BTreeMap::new();
        for (commit, committed) in batch.iter().zip(committed) {
            if matches!(committed, Committed::Done | Committed::Superseded)
                && let Some(place) = kept.get(&commit.connection.id)
            {
                done.entry(commit.source).or_default().push(*place);
            }
        }
        for (source, places) in done {
            self.ledger.settle(&places, self.keeps_answers(source)).await;
        }
    }
}
