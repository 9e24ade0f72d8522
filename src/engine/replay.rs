//! Replays answers that were kept in a journal and did not get into the database: by the same compare-and-swap as any
//! other, so what the app or another replica has done meanwhile stays.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Connection, Outcome, Replay, decide, replay};
use uuid::Uuid;

use super::driver::{LEASE, later};
use super::ledger::{Place, kept};
use super::{Engine, outbox};
use crate::failpoint::fail_at;
use crate::journal::Entry;
use crate::store::{Claim, Commit, Committed, Guard, Lease, StoreError, Which};

/// Entries that are replayed at a time.
const PAGE: usize = 500;

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// The database holds it now.
    Stored,
    /// The database held it already, or holds something newer.
    Over,
    /// Somebody else is at the connection, or the row is refused: it is tried again.
    Waits,
}

impl Engine {
    /// Brings journal and database together, before anything is sent: answers that were kept are stored, intents of
    /// what was never sent are taken back. Where another server has taken the database's place, all that was stored
    /// within the last day is looked at again.
    ///
    /// # Errors
    /// When the store fails; what was not done is done next time.
    pub(super) async fn settle_up(&self) -> Result<(), StoreError> {
        if self.ledger.own().is_none() {
            return Ok(());
        }
        let incarnation = self.parts.store.incarnation().await?;
        let now = self.parts.clock.now();
        if self.ledger.meet(&incarnation, now) {
            tracing::warn!(
                "the database was restarted, or another server has taken its place: comparing it with the journal"
            );
        }
        self.ledger.look_around(now);
        self.take_back_intents().await?;
        self.replay().await?;
        self.ledger.tidy(now).await;
        Ok(())
    }

    /// Replays what is open. Returns how many answers were stored by it.
    ///
    /// # Errors
    /// When the store fails; what was not confirmed stays in the journal.
    pub(super) async fn replay(&self) -> Result<u64, StoreError> {
        let mut stored = 0;
        let mut waiting: BTreeMap<(String, String), ()> = BTreeMap::new();
        loop {
            let mut by_source: BTreeMap<usize, Vec<(Place, Entry)>> = BTreeMap::new();
            for (place, entry) in self.ledger.open_entries(PAGE + waiting.len()) {
                if waiting.contains_key(&(entry.table.clone(), entry.id.clone())) {
                    continue;
                }
                match self.source_of(&entry.table) {
                    Some(source) => by_source.entry(source).or_default().push((place, entry)),
                    // A table that is mapped no more, or not yet again: whoever maps it finds it here.
                    None => drop(waiting.insert((entry.table, entry.id), ())),
                }
            }
            if by_source.is_empty() {
                break;
            }
            for (source, entries) in by_source {
                for ((_, entry), became) in entries.iter().zip(self.replay_page(source, &entries).await?) {
                    stored += u64::from(became == Became::Stored);
                    if became == Became::Waits {
                        waiting.insert((entry.table.clone(), entry.id.clone()), ());
                    }
                }
            }
        }
        if stored > 0 {
            tracing::info!(stored, "stored {stored} answers of providers that had been kept in the journal");
        }
        Ok(stored)
    }

    /// The source that maps this table.
    fn source_of(&self, table: &str) -> Option<usize> {
        self.parts.sources.iter().position(|source| source.table.to_string() == table)
    }

    async fn replay_page(&self, source: usize, entries: &[(Place, Entry)]) -> Result<Vec<Became>, StoreError> {
        let store = &self.parts.store;
        let now = self.parts.clock.now();
        let fence = self.fence();
        let ids: Vec<String> = entries.iter().map(|(_, entry)| entry.id.clone()).collect();
        let claim = Claim {
            source,
            which: Which::Named { ids: &ids },
            grants: self.grants(source),
            holder: self.holder(),
            fence,
            now,
            until: later(now, LEASE),
            after: None,
            limit: ids.len(),
            overdue: SignedDuration::ZERO,
        };
        let claimed = store.claim(&claim).await?.connections;
        let mut rows: BTreeMap<String, (Connection, Uuid)> =
            claimed.into_iter().map(|row| (row.id.clone(), (row, fence))).collect();

        let mut became = vec![Became::Waits; entries.len()];
        let mut commits = Vec::new();
        let mut places = Vec::new();
        let mut leases = Vec::new();
        for (number, (_, entry)) in entries.iter().enumerate() {
            // Under a lease that has not lapsed: if it is the one under which it was sent, its process is dead.
            let (row, fence) = match rows.remove(&entry.id) {
                Some((row, fence)) => (Some(row), fence),
                None => (store.find(source, &entry.id).await?, entry.fence),
            };
            match replay(&kept(entry), row.as_ref(), now) {
                Replay::Apply(conclusion) => {
                    let Some(row) = row else { continue };
                    let commit = self.commit_of(source, row, &conclusion, fence, now);
                    commits.push(commit);
                    places.push(number);
                }
                Replay::Stored | Replay::Superseded => {
                    became[number] = Became::Over;
                    leases.push(Lease { source, id: entry.id.clone(), fence });
                }
            }
        }
        fail_at("before_replay_commit");
        let committed = store.commit(&commits, self.parts.clock.now()).await?;
        fail_at("after_replay_commit");
        for (number, committed) in places.into_iter().zip(committed) {
            let (_, entry) = &entries[number];
            became[number] = match committed {
                Committed::Done => {
                    tracing::info!(id = entry.id, "connection {}: the answer that was kept is stored", entry.id);
                    Became::Stored
                }
                Committed::Superseded => Became::Over,
                Committed::GuardLost => Became::Waits,
                Committed::Refused(text) => {
                    tracing::error!(id = entry.id, "an answer stays in the journal: {text}");
                    Became::Waits
                }
            };
        }
        // Of those that wait too: a lease of this replay that was not given back would keep its own connection waiting.
        let waiting = entries.iter().zip(&became).filter(|(_, became)| **became == Became::Waits);
        leases.extend(waiting.map(|((_, entry), _)| Lease { source, id: entry.id.clone(), fence }));
        store.release(&leases).await?;
        let done = entries.iter().zip(&became).filter(|(_, became)| **became != Became::Waits);
        let done: Vec<Place> = done.map(|((place, _), _)| *place).collect();
        self.ledger.settle(&done, self.keeps_answers(source)).await;
        Ok(became)
    }

    fn commit_of(
        &self,
        source: usize,
        row: Connection,
        conclusion: &perene_policy::Conclusion,
        fence: Uuid,
        now: Timestamp,
    ) -> Commit {
        let secrets = self.apps.secrets();
        let context = self.context(source, now, false, false, &secrets);
        let decision = decide(&row, conclusion, &context);
        debug_assert!(decision.outcome != Outcome::Superseded, "only the store finds that out");
        let outbox = outbox::of(self, source, &row, &decision, now);
        Commit { source, connection: row, guard: Guard::Lease(fence), decision, outbox }
    }
}
