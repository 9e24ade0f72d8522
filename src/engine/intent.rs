//! Intents: before a token is sent to a provider that punishes reuse, the database is told that it may be spent from
//! here on. Where that cannot be written, nothing is sent.

use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Conclusion, Connection, Counting, Outcome, State, intent, take_back};

use super::call::InFlight;
use super::driver::{Driver, Work};
use super::{Engine, outbox};
use crate::failpoint::fail_at;
use crate::journal::JournalError;
use crate::store::{Commit, Committed, Guard, Lease, StoreError};

/// So long after an intent was begun to be written its token may be sent: well within a lease.
const INTENT_GOOD_FOR: SignedDuration = SignedDuration::from_secs(15);

/// What was not sent, although its intent may stand in the database.
#[derive(Debug)]
pub(super) struct Unsent {
    source: usize,
    /// As it was before the intent.
    connection: Connection,
    /// The instant that the intent bears.
    sent_at: Timestamp,
}

/// Why intents were not written.
pub(super) enum NoIntent {
    /// The database did not take them.
    Store(StoreError),
    /// The journal would not take the answers.
    Journal(JournalError),
    /// Another server has taken the database's place: it may not know what has been spent.
    Settling,
}

impl Driver<'_> {
    /// Writes the intents of all that are about to be called, in one batch.
    pub(super) fn write_intents(&mut self) {
        if self.is_intending || self.intending.is_empty() {
            return;
        }
        self.is_intending = true;
        let batch = std::mem::take(&mut self.intending);
        let sent_at = self.now();
        let commits: Vec<Commit> = batch.iter().map(|in_flight| self.intent_of(in_flight, sent_at)).collect();
        let engine = self.engine;
        self.works.push(Box::pin(async move {
            fail_at("before_intent");
            let written = engine.write_intents(&commits).await;
            fail_at("after_intent");
            Work::Intended(batch, sent_at, written)
        }));
    }

    fn intent_of(&self, in_flight: &InFlight, now: Timestamp) -> Commit {
        let connection = in_flight.connection.clone();
        let context = self.engine.context(self.order.source, now, self.order.counting, false, &[]);
        let decision = intent(&connection, in_flight.exchange.is_last_try(), &context);
        let outbox = outbox::of(self.engine, self.order.source, &connection, &decision, context.now);
        Commit { source: self.order.source, connection, guard: Guard::Kept(self.fence), decision, outbox }
    }

    /// Calls for those whose intent is written.
    pub(super) fn intended(
        &mut self,
        batch: Vec<InFlight>,
        sent_at: Timestamp,
        written: Result<Vec<Committed>, NoIntent>,
    ) {
        self.is_intending = false;
        self.calling -= batch.len();
        let written = match written {
            Ok(written) => written,
            Err(why) => return self.not_intended(batch, sent_at, why),
        };
        // A process that stood still in between may have lost its leases, and another one may have sent the tokens.
        let is_fresh = self.now().duration_since(sent_at) < INTENT_GOOD_FOR;
        let mut given_back = Vec::new();
        for (in_flight, committed) in batch.into_iter().zip(written) {
            match committed {
                Committed::Done if is_fresh && self.may_still_be_called(&in_flight) => self.call(Box::new(in_flight)),
                Committed::Done => self.keep_back(in_flight, "not_called"),
                Committed::Superseded => {
                    given_back.push(in_flight.connection.id.clone());
                    let conclusion = Conclusion::unsent(Outcome::Superseded, "changed_before_it_was_sent");
                    self.leave_page(in_flight.page);
                    self.book_superseded(&in_flight.connection.id, &conclusion);
                }
                // The lease is another's by now: so is the connection.
                Committed::GuardLost => {
                    self.leave_page(in_flight.page);
                    self.book_superseded(
                        &in_flight.connection.id,
                        &Conclusion::unsent(Outcome::Superseded, "lease_lost"),
                    );
                }
                Committed::Locked => self.keep_back(in_flight, "intent_refused"),
                Committed::Refused(text) => {
                    tracing::error!(id = in_flight.connection.id, "not sent: {text}");
                    self.keep_back(in_flight, "intent_refused");
                }
            }
        }
        self.give_back(given_back);
    }

    fn not_intended(&mut self, batch: Vec<InFlight>, sent_at: Timestamp, why: NoIntent) {
        let reason = match why {
            NoIntent::Store(error) => {
                // Whether they stand in the database is not known: nothing was sent, so they are taken back when it
                // can be asked again, by this pass or, should it be given up, by a later one.
                for in_flight in &batch {
                    self.engine.unsent(Unsent {
                        source: self.order.source,
                        connection: in_flight.connection.clone(),
                        sent_at,
                    });
                }
                self.failed(error);
                "not_called"
            }
            NoIntent::Journal(error) => {
                tracing::error!("nothing is sent to providers that punish reuse: {error}");
                "journal_unwritable"
            }
            NoIntent::Settling => {
                self.settle_up(true);
                "database_replaced"
            }
        };
        for in_flight in batch {
            if let Some(name) = self.app_name(in_flight.connection.grant) {
                self.engine.apps.leave_backlog(&name, self.now());
            }
            self.keep_back(in_flight, reason);
        }
    }

    /// Concludes without having called. The decision puts back what was remembered before the intent.
    fn keep_back(&mut self, in_flight: InFlight, reason: &'static str) {
        let conclusion = Conclusion { is_kept_back: true, ..Conclusion::unsent(Outcome::Transient, reason) };
        self.conclude(in_flight.page, in_flight.connection, conclusion);
    }
}

impl Engine {
    async fn write_intents(&self, commits: &[Commit]) -> Result<Vec<Committed>, NoIntent> {
        self.ledger.probe(self.parts.clock.now()).await.map_err(NoIntent::Journal)?;
        let store = &self.parts.store;
        let incarnation = store.incarnation().await.map_err(NoIntent::Store)?;
        let now = self.parts.clock.now();
        if self.meet(incarnation, now) || self.ledger.is_settling(now) {
            return Err(NoIntent::Settling);
        }
        store.commit(commits, now).await.map_err(NoIntent::Store)
    }

    /// This was not sent, although its intent may stand in the database.
    fn unsent(&self, unsent: Unsent) {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).push(unsent);
    }

    /// Takes back intents of what was never sent.
    ///
    /// # Errors
    /// When the store fails; what was not taken back is taken back next time.
    pub(super) async fn take_back_intents(&self) -> Result<(), StoreError> {
        let mut waiting = std::mem::take(&mut *self.unsent.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        let mut kept = Vec::new();
        for unsent in waiting.drain(..) {
            let is_done = match &result {
                Ok(()) => self.take_back_intent(&unsent).await,
                Err(_) => Ok(false),
            };
            match is_done {
                Ok(true) => {}
                Ok(false) => kept.push(unsent),
                Err(error) => {
                    result = Err(error);
                    kept.push(unsent);
                }
            }
        }
        kept.into_iter().for_each(|unsent| self.unsent(unsent));
        result
    }

    /// Returns whether it is done with: `false` while somebody is at the connection.
    async fn take_back_intent(&self, unsent: &Unsent) -> Result<bool, StoreError> {
        let Unsent { source, connection: before, sent_at } = unsent;
        let source = *source;
        let now = self.parts.clock.now();
        let ids = [before.id.clone()];
        let fence = self.fence();
        let claim = self.named(source, &ids, fence, now);
        let claimed = self.parts.store.claim(&claim).await?.connections;
        let lease = Lease { source, id: before.id.clone(), fence };
        let Some(row) = claimed.into_iter().next() else {
            return Ok(self.parts.store.find(source, &before.id).await?.is_none_or(|row| row.token != before.token));
        };
        // Of another try of the same generation it is none of our business.
        let is_intent = |connection: &Connection| {
            connection
                .memory_of_this_generation()
                .is_some_and(|memory| matches!(&memory.state, State::Uncertain { sent_at: at, .. } if at == sent_at))
        };
        if row.token != before.token || !is_intent(&row) {
            self.parts.store.release(&[lease]).await?;
            return Ok(true);
        }
        let decision = take_back(before, &row, &self.context(source, now, Counting::Never, false, &[]));
        let commit = Commit { source, connection: row, guard: Guard::Lease(fence), decision, outbox: Vec::new() };
        self.parts.store.commit(&[commit], now).await?;
        Ok(true)
    }
}
