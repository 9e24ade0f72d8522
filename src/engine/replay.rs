//! Replays answers that were kept in a journal and did not get into the database: by the same compare-and-swap as any
//! other, so what the app or another replica has done meanwhile stays.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use perene_policy::app::Alarm;
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Counting, Outcome, Replay, decide, replay};
use uuid::Uuid;

use super::driver::{LEASE, later};
use super::ledger::kept;
use super::{Engine, outbox};
use crate::failpoint::fail_at;
use crate::journal::{Entry, EntryId};
use crate::store::{Claim, Commit, Committed, Guard, Incarnation, Lease, StoreError, Which};

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
        self.meet_server().await?;
        let now = self.parts.clock.now();
        self.ledger.look_around(now).await;
        self.put_again_what_is_spent().await?;
        self.take_back_intents().await?;
        if !planted::has(Bug::ReplayNever) {
            self.replay().await?;
        }
        self.ledger.tidy(now).await;
        self.alarm_of_journal(now).await
    }

    /// An operator hears that answers cannot be kept: nothing is sent to strict providers meanwhile.
    async fn alarm_of_journal(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.ledger.trouble().is_some() && self.ledger.probe(now).await.is_ok() {
            tracing::info!("the journal takes answers again");
        }
        let alarms: Vec<Alarm> = self
            .ledger
            .trouble()
            .map(|(since, text)| Alarm {
                kind: "journal_unwritable",
                since,
                text: format!("{text}; nothing is sent to providers that punish reuse, others go on"),
            })
            .into_iter()
            .collect();
        if alarms.is_empty() && !self.has_journal_alarm.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.has_journal_alarm.store(!alarms.is_empty(), Ordering::Relaxed);
        for alarm in self.parts.store.set_alarms("journal", &alarms).await? {
            tracing::error!(alarm = alarm.kind, "{}", alarm.text);
        }
        Ok(())
    }

    /// Looks which server answers; returns whether it is another one than before.
    pub(super) async fn meet_server(&self) -> Result<bool, StoreError> {
        if self.ledger.own().is_none() {
            return Ok(false);
        }
        let incarnation = self.parts.store.incarnation().await?;
        let is_another = self.meet(incarnation, self.parts.clock.now());
        if is_another {
            tracing::warn!(
                "the database was restarted, or another server has taken its place: comparing it with the journal"
            );
        }
        Ok(is_another)
    }

    /// This server answers; returns whether it is another one than before. Whatever was told to the one before may be lost.
    pub(super) fn meet(&self, incarnation: Incarnation, now: Timestamp) -> bool {
        let is_another = self.ledger.meet(incarnation, now);
        if is_another {
            self.spent.doubt(now);
        }
        is_another
    }

    /// Replays what is open. Returns how many answers were stored by it.
    ///
    /// # Errors
    /// When the store fails; what was not confirmed stays in the journal.
    pub(super) async fn replay(&self) -> Result<u64, StoreError> {
        let mut stored = 0;
        let mut waiting: BTreeMap<(String, String), ()> = BTreeMap::new();
        loop {
            let mut by_source: BTreeMap<usize, Vec<(EntryId, Entry)>> = BTreeMap::new();
            for (place, entry) in self.ledger.open_entries(PAGE + waiting.len(), self.parts.clock.now()) {
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

    /// Whether an answer is kept to the generation that the row holds.
    pub(super) fn has_answer_to(&self, source: usize, row: &Connection) -> bool {
        self.ledger.has_answer_to(&self.parts.sources[source].table.to_string(), row)
    }

    /// The source that maps this table.
    fn source_of(&self, table: &str) -> Option<usize> {
        self.parts.sources.iter().position(|source| source.table.to_string() == table)
    }

    async fn replay_page(&self, source: usize, entries: &[(EntryId, Entry)]) -> Result<Vec<Became>, StoreError> {
        let mut became = vec![Became::Waits; entries.len()];
        let open = self.still_open(source, entries, &mut became).await?;
        let fence = self.fence();
        let mut commits = Vec::new();
        let mut places = Vec::new();
        let mut rows = self.lease(source, entries, &open, fence).await?;
        let now = self.parts.clock.now();
        for number in open {
            let (_, entry) = &entries[number];
            // Under a lease that has not lapsed: if it is the one under which it was sent, its process is dead.
            let (row, fence) = match rows.remove(&entry.id) {
                Some(row) => (Some(row), fence),
                None => (self.parts.store.find(source, &entry.id).await?, entry.fence),
            };
            if let (Replay::Apply(conclusion), Some(row)) = (replay(&kept(entry), row.as_ref(), now), row) {
                commits.push(self.commit_of(source, row, &conclusion, fence, now));
                places.push(number);
            }
        }
        fail_at("before_replay_commit");
        let committed = self.parts.store.commit(&commits, now).await?;
        fail_at("after_replay_commit");
        for (number, committed) in places.into_iter().zip(committed) {
            let (place, entry) = &entries[number];
            became[number] = match committed {
                Committed::Done => {
                    self.refusals.accepted(source);
                    tracing::info!(id = entry.id, "connection {}: the answer that was kept is stored", entry.id);
                    Became::Stored
                }
                Committed::Superseded => Became::Over,
                Committed::GuardLost | Committed::Locked => Became::Waits,
                Committed::Refused(text) => {
                    self.ledger.put_off(*place, now);
                    tracing::error!(id = entry.id, "an answer stays in the journal: {text}");
                    Became::Waits
                }
            };
        }
        // A lease of this replay that no commit gave back would keep its own connection waiting.
        let waiting = entries.iter().zip(&became).filter(|(_, became)| **became != Became::Stored);
        let leases: Vec<Lease> = waiting.map(|((_, entry), _)| Lease { source, id: entry.id.clone(), fence }).collect();
        self.parts.store.release(&leases).await?;
        let done = entries.iter().zip(&became).filter(|(_, became)| **became != Became::Waits);
        let done: Vec<EntryId> = done.map(|((id, _), _)| *id).collect();
        self.ledger.settle(&done, self.keeps_answers(source)).await;
        Ok(became)
    }

    /// Looks, without taking a lease, which entries the database does not hold yet; by their places. Mostly none: an
    /// answer is kept for a day after it was stored.
    async fn still_open(
        &self,
        source: usize,
        entries: &[(EntryId, Entry)],
        became: &mut [Became],
    ) -> Result<Vec<usize>, StoreError> {
        let all: Vec<usize> = (0..entries.len()).collect();
        let ids: Vec<String> = entries.iter().map(|(_, entry)| entry.id.clone()).collect();
        let now = self.parts.clock.now();
        let seen = self.parts.store.peek(&self.named(source, &ids, Uuid::nil(), now)).await?;
        let mut rows: BTreeMap<String, Connection> = seen.into_iter().map(|row| (row.id.clone(), row)).collect();
        let mut open = Vec::new();
        for number in all {
            let (_, entry) = &entries[number];
            // A row that is leased is not seen, nor is one that is gone.
            let row = match rows.remove(&entry.id) {
                Some(row) => Some(row),
                None => self.parts.store.find(source, &entry.id).await?,
            };
            match replay(&kept(entry), row.as_ref(), now) {
                Replay::Apply(_) => open.push(number),
                Replay::Stored | Replay::Superseded => became[number] = Became::Over,
            }
        }
        Ok(open)
    }

    /// Leases the rows of these entries, those that are free.
    async fn lease(
        &self,
        source: usize,
        entries: &[(EntryId, Entry)],
        open: &[usize],
        fence: Uuid,
    ) -> Result<BTreeMap<String, Connection>, StoreError> {
        if open.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<String> = open.iter().map(|number| entries[*number].1.id.clone()).collect();
        let claim = self.named(source, &ids, fence, self.parts.clock.now());
        let claimed = self.parts.store.claim(&claim).await?.connections;
        Ok(claimed.into_iter().map(|row| (row.id.clone(), row)).collect())
    }

    /// A claim on these rows.
    pub(super) fn named<'a>(&'a self, source: usize, ids: &'a [String], fence: Uuid, now: Timestamp) -> Claim<'a> {
        Claim {
            source,
            which: Which::Named { ids },
            grants: self.grants(source),
            holder: self.holder(),
            fence,
            now,
            until: later(now, LEASE),
            after: None,
            limit: ids.len(),
            overdue: SignedDuration::ZERO,
        }
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
        let context = self.context(source, now, Counting::Never, false, &secrets);
        let decision = decide(&row, conclusion, &context);
        debug_assert!(decision.outcome != Outcome::Superseded, "only the store finds that out");
        let outbox = outbox::of(self, source, &row, &decision, now);
        Commit { source, connection: row, guard: Guard::Lease(fence), decision, outbox }
    }
}
