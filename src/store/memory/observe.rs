//! What an observer sees of the database, beyond what the app and the engine ask: every row of it.

use jiff::Timestamp;
use perene_policy::Memory;
use perene_policy::app::App;
use uuid::Uuid;

use super::key::Key;
use super::{AppRow, MemoryStore, UserRow};
use crate::store::{HistoryLine, Outgoing, StoredAlarm};

/// A lease, lapsed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The source.
    pub source: usize,
    /// The connection's key.
    pub id: String,
    /// Who has it.
    pub holder: String,
    /// The fence of the claim that took it.
    pub fence: Uuid,
    /// Its deadline.
    pub until: Timestamp,
}

/// What is remembered of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRow {
    /// The source.
    pub source: usize,
    /// The connection's key.
    pub id: String,
    /// Grows with every change.
    pub version: i64,
    /// What is remembered.
    pub memory: Memory,
}

/// A message in the outbox, settled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The message, with its tries so far.
    pub message: Outgoing,
    /// It is not taken before this.
    pub next_at: Timestamp,
    /// Until when somebody delivers it.
    pub lease_until: Option<Timestamp>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// What became of it; `None` while it is still to be delivered.
    pub settlement: Option<Settlement>,
}

impl OutboxRow {
    pub(super) fn of(waiting: &super::outbox::Waiting) -> Self {
        Self {
            message: waiting.message.clone(),
            next_at: waiting.next_at,
            lease_until: waiting.lease_until,
            error: waiting.error.clone(),
            settlement: waiting.settlement.clone(),
        }
    }
}

/// What became of a message, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It was delivered.
    Sent(Timestamp),
    /// It will not be delivered, and why.
    Dropped(Timestamp, String),
}

/// A run on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// `scheduled`, `caught_up` or `by_hand`.
    pub kind: String,
    /// Which replica made it.
    pub holder: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was finished; `None` if it was not.
    pub finished_at: Option<Timestamp>,
    /// Its report as JSON.
    pub report: Option<String>,
}

impl MemoryStore {
    /// Shows every connection of a source, by key, without a copy.
    pub fn each_row(&self, source: usize, mut see: impl FnMut(&AppRow)) {
        let state = self.lock();
        state.tables[self.mapped(source).table].rows().for_each(|(_, row)| see(row));
    }

    /// Shows every user of a source, by key, without a copy.
    pub fn each_user(&self, source: usize, mut see: impl FnMut(&UserRow)) {
        let Some(users) = self.mapped(source).users else { return };
        self.lock().users[users].rows.values().for_each(&mut see);
    }

    /// Shows everything that is remembered of a source's connections, by key, without a copy.
    pub fn each_memory(&self, source: usize, mut see: impl FnMut(&str, &Memory)) {
        let state = self.lock();
        for (key, kept) in state.tables[self.mapped(source).table].kept_from(Key::FIRST) {
            see(&key.to_string(), &kept.memory);
        }
    }

    /// Everything that is remembered, by source and key.
    pub fn memories(&self) -> Vec<MemoryRow> {
        let state = self.lock();
        let sources = self.sources.iter().enumerate();
        let memories = sources.flat_map(|(source, mapped)| {
            state.tables[mapped.table].kept_from(Key::FIRST).map(move |(key, kept)| MemoryRow {
                source,
                id: key.to_string(),
                version: kept.version,
                memory: kept.memory.clone(),
            })
        });
        memories.collect()
    }

    /// All leases, by source and key.
    pub fn leases(&self) -> Vec<LeaseRow> {
        let state = self.lock();
        let sources = self.sources.iter().enumerate();
        let leases = sources.flat_map(|(source, mapped)| {
            state.tables[mapped.table].leases.iter().map(move |(key, held)| LeaseRow {
                source,
                id: key.to_string(),
                holder: held.holder.clone(),
                fence: held.fence,
                until: held.until,
            })
        });
        leases.collect()
    }

    /// All messages in the order in which they were put into the outbox.
    pub fn outbox(&self) -> Vec<OutboxRow> {
        let state = self.lock();
        state.outbox.messages().map(OutboxRow::of).collect()
    }

    /// A connection's history, oldest first.
    pub fn story(&self, source: usize, id: &str) -> Vec<HistoryLine> {
        let state = self.lock();
        let lines = state.tables[self.mapped(source).table].history.get(&Key::of(id));
        lines.into_iter().flat_map(|lines| lines.values().cloned()).collect()
    }

    /// What is known of every app, by name.
    pub fn apps(&self) -> Vec<(String, App)> {
        self.lock().apps.iter().map(|(name, (_, app))| (name.clone(), app.clone())).collect()
    }

    /// The alarms that stand, oldest first.
    pub fn standing_alarms(&self) -> Vec<StoredAlarm> {
        self.lock().standing_alarms()
    }

    /// All runs on record, in the order in which they began.
    pub fn runs(&self) -> Vec<RunRow> {
        self.lock().runs.values().cloned().collect()
    }

    /// How often Perene has written rows of a source's table, and of its users' table.
    pub fn writes(&self, source: usize) -> (u64, u64) {
        let (state, mapped) = (self.lock(), self.mapped(source));
        (state.tables[mapped.table].writes, mapped.users.map_or(0, |users| state.users[users].writes))
    }

    /// From now on the database refuses every write of this connection's row, with this message; `None`
    /// ends it.
    pub fn refuse_row(&self, source: usize, id: &str, message: Option<&str>) {
        let refusals = &mut self.lock().tables[self.mapped(source).table].refusals;
        match message {
            Some(message) => drop(refusals.insert(Key::of(id), message.to_owned())),
            None => drop(refusals.remove(&Key::of(id))),
        }
    }

    /// From now on the column for the last error takes no longer text than this.
    pub fn narrow_errors(&self, source: usize, width: usize) {
        self.lock().tables[self.mapped(source).table].error_width = Some(width);
    }

    /// From now on the database refuses every write of this user's row, with this message; `None` ends it.
    pub fn refuse_user(&self, source: usize, id: &str, message: Option<&str>) {
        let Some(users) = self.mapped(source).users else { return };
        let refusals = &mut self.lock().users[users].refusals;
        match message {
            Some(message) => drop(refusals.insert(id.to_owned(), message.to_owned())),
            None => drop(refusals.remove(id)),
        }
    }
}
