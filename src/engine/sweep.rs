//! What follows from the passing of time and from what the app does, without any call: the app has put
//! another token there, a row is gone, a warning has become due, a token has expired.

use jiff::Timestamp;
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Context, Counting, Decision, Grant, State, reconcile};

use super::report::Report;
use super::{Engine, outbox};
use crate::store::{Commit, Committed, Guard, Remembered, StoreError};

/// Remembered connections that are looked at in one page.
const PAGE: usize = 500;

/// How many connections were warned, and how many recovered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Connections whose customer was warned.
    pub warned: u64,
    /// Connections whose incident was closed.
    pub recovered: u64,
}

impl Swept {
    pub(super) fn add_to(self, report: &mut Report) {
        report.warned += self.warned;
        report.recovered += self.recovered;
    }
}

impl Engine {
    /// Looks at every connection of which something is remembered, and for those that have ended unheard of.
    ///
    /// # Errors
    /// When the store fails; what was done before stays done.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = self.sweep_remembered().await?;
        self.sweep_lapsed(&mut swept).await?;
        Ok(swept)
    }

    pub(super) async fn sweep_remembered(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        if planted::has(Bug::SweepMissing) {
            return Ok(swept);
        }
        let mut after = None;
        loop {
            let now = self.parts.clock.now();
            let page = self.parts.store.remembered(after.take(), PAGE, now).await?;
            after = page.last().map(|last| (last.source, last.id.clone()));
            let is_last = page.len() < PAGE;
            let by_source = page.chunk_by(|one, next| one.source == next.source);
            let commits = by_source.flat_map(|of_source| {
                let context = self.context(of_source[0].source, now, Counting::Never, false, &[]);
                of_source.iter().filter_map(move |remembered| self.look_at(remembered, context))
            });
            let commits: Vec<Commit> = commits.collect();
            if !commits.is_empty() {
                self.commit_sweep(&commits, now, &mut swept).await?;
            }
            if is_last {
                return Ok(swept);
            }
        }
    }

    /// `context` is the source's, but for what is held: that depends on the app.
    fn look_at(&self, remembered: &Remembered, context: Context<'_>) -> Option<Commit> {
        let Remembered { source, id, version, memory, row } = remembered;
        // An answer may still turn up in another replica's journal, or waits in our own for a table that takes it.
        if matches!(memory.state, State::Uncertain { .. })
            && (self.ledger.is_settling(context.now)
                || row.as_ref().is_some_and(|row| self.has_answer_to(*source, row)))
        {
            return None;
        }
        let is_held = row.as_ref().is_some_and(|row| self.is_held(row, *source, context.now));
        let context = Context { is_held, ..context };
        let decision = reconcile(memory, row.as_ref(), &context)?;
        let connection = row.clone().unwrap_or_else(|| gone(id));
        let outbox = outbox::of(self, *source, &connection, &decision, context.now);
        Some(Commit { source: *source, connection, guard: Guard::Memory(*version), decision, outbox })
    }

    /// Returns whether all is done, or was not to be done any more.
    pub(super) async fn commit_sweep(
        &self,
        commits: &[Commit],
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<bool, StoreError> {
        let committed = self.parts.store.commit(commits, now).await?;
        let mut all_done = true;
        for (commit, committed) in commits.iter().zip(committed) {
            if committed != Committed::Done {
                all_done &= committed == Committed::Superseded;
                continue;
            }
            let Decision { warns, recovers, events, .. } = &commit.decision;
            swept.warned += u64::from(*warns);
            swept.recovered += u64::from(*recovers);
            let id = commit.connection.id.as_str();
            for event in events {
                tracing::info!(id, event = event.kind.name(), "connection {id}: {}", event.text);
            }
        }
        Ok(all_done)
    }
}

/// Stands for a row that is no longer there.
fn gone(id: &str) -> Connection {
    Connection {
        id: id.to_owned(),
        user_id: None,
        token: perene_policy::Secret::new(""),
        token_bytes: 0,
        refresh_token: None,
        expires_at: None,
        refreshed_at: None,
        attempts: 0,
        grant: Grant::Facebook,
        memory: None,
    }
}
