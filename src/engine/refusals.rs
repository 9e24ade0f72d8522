//! Tables that refuse what is to be written into their rows: a column too short, a trigger, a right that was taken away.
//!
//! Of one row that is a failure like any other. Of many in a row it is the table's fault, and each further call would
//! bring a token that nobody can store. So none is begun: one row is tried after a minute, then ever more rarely, and the
//! first one that is written ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::app::{Alarm, BRAKE_CONNECTIONS};
use perene_policy::backoff::later;
use perene_policy::{Class, Conclusion, Connection, Counted, ErrorText, Outcome, Scope, TokenUse, superseded};

use super::driver::{Driver, holds_the_same};
use crate::store::{Commit, Committed, Cursor, Guard, StoreError};

/// The pause before a row is tried again, at first and at most; it doubles.
const PAUSES: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_hours(1));

/// The pause after so many tries.
pub(super) fn pause(tries: u32) -> SignedDuration {
    let (first, longest) = PAUSES;
    first.saturating_mul(1 << tries.min(6)).min(longest)
}

/// Whether rows of a table may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writable {
    /// As far as is known, what comes of it can be written.
    Yes,
    /// One row may be sent, to see whether the table was mended.
    OneRow,
    /// Not now.
    No,
}

/// What a failure may still write: the row may be what refuses, or the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    NotTheRow,
    Neither,
}

/// What is known of each source's table.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<usize, Refusing>>);

#[derive(Debug)]
struct Refusing {
    /// The rows that were refused since one was written. One that is refused again and again is one.
    in_a_row: BTreeSet<String>,
    since: Timestamp,
    tries: u32,
    try_at: Timestamp,
    /// The row that was tried last: the next one is that behind it.
    tried: Option<Cursor>,
    /// A row was written again: what is left is to tell the operator.
    is_over: bool,
}

impl Refusals {
    /// The table has refused a row.
    pub(super) fn refused(&self, source: usize, id: &str, now: Timestamp) {
        let mut known = self.lock();
        let fresh = || Refusing {
            in_a_row: BTreeSet::new(),
            since: now,
            tries: 0,
            try_at: later(now, pause(0)),
            tried: None,
            is_over: false,
        };
        let refusing = known.entry(source).or_insert_with(fresh);
        if refusing.is_over {
            *refusing = fresh();
        }
        if refusing.in_a_row.len() < BRAKE_CONNECTIONS {
            refusing.in_a_row.insert(id.to_owned());
        }
    }

    /// The table has taken a row.
    pub(super) fn accepted(&self, source: usize) {
        let mut known = self.lock();
        if let Some(refusing) = known.get_mut(&source) {
            if refusing.is_closed() {
                refusing.is_over = true;
            } else if !refusing.is_over {
                known.remove(&source);
            }
        }
    }

    /// Whether the latest row was refused: then it is better known soon whether the next one is too.
    pub(super) fn is_suspicious(&self, source: usize) -> bool {
        self.lock().get(&source).is_some_and(|refusing| !refusing.is_over)
    }

    /// Whether rows may be sent.
    pub(super) fn writable(&self, source: usize, now: Timestamp) -> Writable {
        match self.lock().get(&source) {
            Some(refusing) if refusing.is_closed() && now < refusing.try_at => Writable::No,
            Some(refusing) if refusing.is_closed() => Writable::OneRow,
            _ => Writable::Yes,
        }
    }

    /// Since when so many rows were refused that none is sent any more.
    pub(super) fn closed_since(&self, source: usize) -> Option<Timestamp> {
        self.lock().get(&source).filter(|refusing| refusing.is_closed()).map(|refusing| refusing.since)
    }

    /// Whether there is a table of which nothing is sent any more.
    pub(super) fn is_any_closed(&self) -> bool {
        self.lock().values().any(Refusing::is_closed)
    }

    /// One row is about to be tried: whatever becomes of it, the next one waits longer.
    pub(super) fn begin_try(&self, source: usize, now: Timestamp) {
        if let Some(refusing) = self.lock().get_mut(&source) {
            refusing.tries = refusing.tries.saturating_add(1);
            refusing.try_at = later(now, pause(refusing.tries));
        }
    }

    /// The row with which the table was tried last.
    pub(super) fn tried(&self, source: usize) -> Option<Cursor> {
        self.lock().get(&source).and_then(|refusing| refusing.tried.clone())
    }

    pub(super) fn set_tried(&self, source: usize, row: Option<Cursor>) {
        if let Some(refusing) = self.lock().get_mut(&source) {
            refusing.tried = row;
        }
    }

    /// Whether the table takes rows again and the operator has not been told so yet.
    pub(super) fn take_over(&self, source: usize) -> bool {
        let mut known = self.lock();
        let is_over = known.get(&source).is_some_and(|refusing| refusing.is_over);
        if is_over {
            known.remove(&source);
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Refusing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusing {
    fn is_closed(&self) -> bool {
        !self.is_over && self.in_a_row.len() >= BRAKE_CONNECTIONS
    }
}

impl Driver<'_> {
    /// The table takes nothing: nothing more is begun, and what is claimed is given back and counted as put off.
    pub(super) fn close_table(&mut self) {
        for grant in self.order.grants {
            let name = self.app_name(*grant).unwrap_or_default();
            self.defer_fresh(*grant, &name, Outcome::Misconfigured);
        }
    }

    /// A row that the database refuses to write is a failure that the customer and the operator must hear of,
    /// like any other: it is leased once more, and only the failure is written.
    pub(super) async fn count_refused(&mut self) -> Result<(), StoreError> {
        let refused = std::mem::take(&mut self.refused);
        let (engine, order) = (self.engine, self.order);
        let closed_since = engine.refusals.closed_since(order.source);
        if refused.is_empty() {
            // One that has written nothing knows nothing: another replica may be the one whose rows are refused.
            if (self.has_written && order.counting.is_of_run()) || engine.refusals.take_over(order.source) {
                let table = engine.parts.sources[order.source].table.to_string();
                engine.parts.store.set_alarms(&format!("table {table}"), &[]).await?;
            }
            return Ok(());
        }
        if refused.len() >= BRAKE_CONNECTIONS || closed_since.is_some() {
            return self.alarm_of_refusals(&refused, closed_since).await;
        }
        let mut ids: Vec<String> = refused.iter().map(|(commit, _)| commit.connection.id.clone()).collect();
        // Where not even the count can be written, what follows from it is remembered all the same.
        for taken in [Taken::All, Taken::NotTheRow, Taken::Neither] {
            let now = self.now();
            let claim = engine.named(order.source, &ids, self.fence, now);
            for connection in engine.parts.store.claim(&claim).await?.connections {
                if let Some((commit, text)) = refused.iter().find(|(commit, _)| commit.connection.id == connection.id) {
                    self.decide_of_refused(commit, connection, text);
                }
            }
            let mut commits = std::mem::take(&mut self.decided);
            for commit in &mut commits {
                match taken {
                    Taken::All => {}
                    Taken::NotTheRow => commit.decision.write = None,
                    Taken::Neither => (commit.decision.write, commit.decision.flag) = (None, None),
                }
            }
            let committed = engine.parts.store.commit(&commits, now).await?;
            ids.clear();
            for (commit, committed) in commits.into_iter().zip(committed) {
                match committed {
                    Committed::Done => {
                        self.book(&commit.connection, &commit.decision);
                        engine.spent.committed(commit, now);
                    }
                    Committed::Refused(_) if taken != Taken::Neither => ids.push(commit.connection.id),
                    Committed::Locked => self.report.book(Outcome::Transient, Counted::Deferred),
                    Committed::GuardLost => {
                        self.report.book(Outcome::Unrecognised, Counted::Failed);
                        engine.spent.not_committed(commit, now);
                    }
                    _ => self.report.book(Outcome::Unrecognised, Counted::Failed),
                }
            }
            if ids.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Decides anew about a row that the database has refused, as it is now: another replica may have had it meanwhile.
    fn decide_of_refused(&mut self, commit: &Commit, connection: Connection, text: &str) {
        let (decision, guard) = (&commit.decision, Guard::Lease(self.fence));
        if !holds_the_same(&commit.connection, &connection) {
            let decision = superseded(&connection);
            let source = self.order.source;
            return self.decided.push(Commit { source, connection, guard, decision, outbox: Vec::new() });
        }
        let sends_once = self.engine.provider(self.order.source).class() == Class::Strict;
        let is_failure = decision.outcome.counted() == Counted::Failed
            && decision.write.as_ref().is_none_or(|write| write.token.is_none());
        // After the one last try there is no other, whatever the database could not store of it.
        let was_last_try = TokenUse::of(connection.memory_of_this_refresh_token()) == TokenUse::SentForTheLastTime;
        let mut conclusion = Conclusion::unsent(Outcome::Unrecognised, "row_refused");
        conclusion.scope = Some(Scope::Connection);
        (conclusion.was_sent, conclusion.sends_once, conclusion.was_last_try) = (true, sends_once, was_last_try);
        if is_failure {
            conclusion.outcome = decision.outcome;
            conclusion.is_uncertain = TokenUse::of(decision.memory.as_ref()) == TokenUse::SentOnce;
        } else {
            conclusion.is_answer_kept = sends_once && self.engine.has_answer_to(self.order.source, &connection);
            // Where what came could not be kept either, it may be spent.
            conclusion.is_uncertain = sends_once && !conclusion.is_answer_kept;
            conclusion.message = Some(format!("refreshed, but the database refused to store it: {text}"));
        }
        self.decide(connection, &conclusion, false);
        // It may be the text alone that is too long for its column.
        let write = self.decided.last_mut().and_then(|commit| commit.decision.write.as_mut()).filter(|_| is_failure);
        if let Some(write) = write {
            write.error = ErrorText::Keep;
        }
    }

    /// So many rows that cannot be written are the table's fault and not their customers': nothing is counted,
    /// nobody is told, the operator hears of it.
    async fn alarm_of_refusals(
        &mut self,
        refused: &[(Commit, String)],
        closed_since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let table = self.engine.parts.sources[self.order.source].table.to_string();
        let (Commit { connection, .. }, text) = &refused[0];
        let id = &connection.id;
        let alarm = Alarm {
            kind: "rows_refused",
            since: closed_since.unwrap_or_else(|| self.now()),
            text: match closed_since {
                Some(_) => format!(
                    "the database refuses to write rows of `{table}`, one of them {id}: {text}; nothing is sent but a row now and \
                     then, and no customer is told"
                ),
                None => format!(
                    "the database refuses to write {} rows of `{table}`, the first of them {id}: {text}; their customers are not told",
                    refused.len()
                ),
            },
        };
        tracing::error!(alarm = alarm.kind, "{}", alarm.text);
        self.engine.parts.store.set_alarms(&format!("table {table}"), &[alarm]).await?;
        self.report.book_many(Outcome::Misconfigured, Counted::Deferred, refused.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a date")
    }

    #[test]
    fn ten_rows_in_a_row_close_a_table_and_one_that_is_written_opens_it() {
        let refusals = Refusals::default();
        for n in 0..50 {
            refusals.refused(0, &(n % 9).to_string(), at(0));
        }
        assert_eq!((refusals.writable(0, at(0)), refusals.is_suspicious(0)), (Writable::Yes, true));
        refusals.refused(0, "9", at(1));
        assert_eq!((refusals.writable(0, at(1)), refusals.closed_since(0)), (Writable::No, Some(at(0))));
        assert_eq!(refusals.writable(1, at(1)), Writable::Yes, "another table");
        assert_eq!(refusals.writable(0, at(60)), Writable::OneRow);
        refusals.accepted(0);
        assert_eq!(refusals.writable(0, at(60)), Writable::Yes);
        assert!(refusals.take_over(0) && !refusals.take_over(0));
    }

    #[test]
    fn a_row_among_others_that_are_written_closes_nothing() {
        let refusals = Refusals::default();
        for n in 0..50 {
            refusals.refused(0, &n.to_string(), at(0));
            refusals.accepted(0);
        }
        assert_eq!((refusals.writable(0, at(0)), refusals.take_over(0)), (Writable::Yes, false));
    }

    #[test]
    fn a_table_that_goes_on_refusing_is_tried_ever_more_rarely() {
        let refusals = Refusals::default();
        (0..64).for_each(|n: u32| refusals.refused(0, &n.to_string(), at(0)));
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait =
                (0..=60).find(|m| refusals.writable(0, later(now, SignedDuration::from_mins(*m))) != Writable::No);
            waits.push(wait.expect("within the hour"));
            now = later(now, SignedDuration::from_mins(wait.expect("within the hour")));
            refusals.begin_try(0, now);
            refusals.refused(0, "1", now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
