//! The history: a line for each event, by connection, and forgotten by age.

use std::collections::BTreeSet;

use jiff::Timestamp;
use perene_policy::Outcome;

use super::State;
use super::key::Key;
use crate::store::HistoryLine;

/// All lines by their age: table, connection, number.
pub(super) type Order = BTreeSet<(Timestamp, u64, usize, Key)>;

impl State {
    /// Writes a line.
    pub(super) fn tell(
        &mut self,
        table: usize,
        key: &Key,
        at: Timestamp,
        event: &str,
        outcome: Option<Outcome>,
        text: String,
    ) {
        let number = self.number();
        let outcome = outcome.map(|outcome| outcome.name().to_owned());
        let line = HistoryLine { at, event: event.to_owned(), outcome, text };
        self.tables[table].history.entry(key.clone()).or_default().insert(number, line);
        self.history.insert((at, number, table, key.clone()));
    }

    /// Removes history, settled messages and finished runs from before `before`.
    pub(super) fn forget_before(&mut self, before: Timestamp) {
        let kept = self.history.split_off(&(before, 0, 0, Key::FIRST));
        for (_, number, table, key) in std::mem::replace(&mut self.history, kept) {
            let histories = &mut self.tables[table].history;
            if let Some(lines) = histories.get_mut(&key) {
                lines.remove(&number);
                if lines.is_empty() {
                    histories.remove(&key);
                }
            }
        }
        self.outbox.forget_before(before);
        for (number, run) in self.runs.extract_if(.., |_, run| run.finished_at.is_some_and(|at| at < before)) {
            self.finished.remove(&(run.started_at, number));
        }
    }
}
