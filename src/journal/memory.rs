//! A journal without a disk: for tests and for the simulation, where it outlives the process that it belongs to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Entry, EntryId, Journal, JournalError};

/// A journal in memory. Clones share its contents.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<EntryId, Entry>,
    last: u64,
    is_full: bool,
}

impl MemoryJournal {
    /// From now on its disk is full, or is not any more.
    pub fn fill(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether an answer is kept that brought this token to this connection.
    pub fn holds(&self, id: &str, token: &str) -> bool {
        self.lock().entries.values().any(|entry| entry.id == id && entry.token.expose() == token)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full() -> JournalError {
    JournalError::Unwritable { reason: "no space left on device".to_owned() }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn write(&self, entry: Entry) -> Result<EntryId, JournalError> {
        let mut contents = self.lock();
        if contents.is_full {
            return Err(full());
        }
        contents.last += 1;
        let id = EntryId(contents.last);
        contents.entries.insert(id, entry);
        Ok(id)
    }

    async fn forget(&self, ids: &[EntryId]) -> Result<(), JournalError> {
        let mut contents = self.lock();
        ids.iter().for_each(|id| drop(contents.entries.remove(id)));
        Ok(())
    }

    fn pending(&self) -> Vec<(EntryId, Entry)> {
        self.lock().entries.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    async fn probe(&self) -> Result<(), JournalError> {
        if self.lock().is_full { Err(full()) } else { Ok(()) }
    }
}
