//! What has changed: told to an observer who asks after every step, so that it need not look at everything; and the
//! database as it was at an earlier instant, for a standby that has not got what came after.

use super::key::Key;
use super::{MemoryStore, OutboxRow, RunRow, State};
use crate::store::HistoryLine;
use crate::store::memory::AppRow;
use perene_policy::Memory;
use perene_policy::app::App;

/// Something that Perene has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A connection's row or what is remembered of it: the number of its table, and its key.
    Connection(usize, String),
    /// A user's flag.
    User(String),
    /// A message in the outbox, by its id.
    Message(String),
    /// What is known of an app.
    App(String),
    /// An alarm was raised or has ended.
    Alarms,
    /// A run has begun.
    RunBegun(i64),
    /// A run is finished.
    RunFinished(i64),
}

/// All that the database held at one instant.
pub struct Snapshot(Box<State>);

impl MemoryStore {
    /// From now on [`MemoryStore::take_changes`] tells what Perene writes.
    pub fn watch(&self) {
        self.lock().changes = Some(Vec::new());
    }

    /// What Perene has written since this was asked last, in its order.
    pub fn take_changes(&self) -> Vec<Change> {
        self.lock().changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What the database holds now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Box::new(self.lock().clone()))
    }

    /// A standby takes over that has got no more than `snapshot`.
    pub fn fail_over(&self, snapshot: Snapshot) {
        let mut state = self.lock();
        let incarnation = state.incarnation + 1;
        let changes = state.changes.take();
        *state = *snapshot.0;
        (state.incarnation, state.changes) = (incarnation, changes);
    }

    /// A connection's row, and what is remembered of it.
    pub fn seen(&self, source: usize, id: &str) -> (Option<AppRow>, Option<Memory>) {
        let state = self.lock();
        let table = &state.tables[self.mapped(source).table];
        let key = Key::of(id);
        (table.row(&key).cloned(), table.kept(&key).map(|kept| kept.memory.clone()))
    }

    /// The latest line of a connection's history.
    pub fn last_line(&self, source: usize, id: &str) -> Option<HistoryLine> {
        let state = self.lock();
        let lines = state.tables[self.mapped(source).table].history.get(&Key::of(id))?;
        lines.values().next_back().cloned()
    }

    /// One message of the outbox.
    pub fn message(&self, id: &str) -> Option<OutboxRow> {
        self.lock().outbox.message(id).map(OutboxRow::of)
    }

    /// The incidents about which the outbox has, or has had, messages.
    pub fn incidents_told(&self) -> std::collections::BTreeSet<String> {
        self.lock().outbox.messages().map(|waiting| waiting.message.incident_id.clone()).collect()
    }

    /// One run on record.
    pub fn run(&self, number: i64) -> Option<RunRow> {
        self.lock().runs.get(&number).cloned()
    }

    /// What is known of one app.
    pub fn known_app(&self, name: &str) -> Option<App> {
        self.lock().apps.get(name).map(|(_, app)| app.clone())
    }
}

impl State {
    /// Tells whoever looks.
    pub(super) fn changed(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.changes {
            changes.push(change());
        }
    }
}
