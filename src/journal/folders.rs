//! Where journals lie: below one folder, a folder for each database, and in it one for each process that writes
//! at the same time. A process takes the first that is free, and with it what a dead one has left there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use perene_policy::Secret;

use super::{FileJournal, Journal, JournalError};

/// So many processes on one machine may have a journal for one database.
const PROCESSES_MAX: usize = 512;

/// The journals of one database on this machine.
#[derive(Debug, Clone)]
pub struct Folders {
    folder: PathBuf,
    key: Option<Secret>,
}

impl Folders {
    /// Below `folder`, for the database that is called `database`: what one database has not confirmed is never
    /// taken to another. `key` is 32 bytes in base64 or hexadecimal; without it each journal has its own, beside it.
    pub fn of(folder: &Path, database: &str, key: Option<Secret>) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        Self { folder: folder.join(database.chars().map(plain).collect::<String>()), key }
    }

    /// Takes the first journal that no other process has open; makes one if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// What [`FileJournal::open`] fails with, but for a journal that is in use.
    pub fn take(&self) -> Result<FileJournal, JournalError> {
        let mut last = None;
        for place in (0..PROCESSES_MAX).map(|number| self.place(number)) {
            match FileJournal::open(&place, self.key.as_ref()) {
                Err(error @ JournalError::Locked { .. }) => last = Some(error),
                Ok(journal) => return Ok(journal.among(self.clone())),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(JournalError::Stopped))
    }

    /// The journals that no process has open and that still hold something: their processes have died. What cannot
    /// be opened is left where it is, and told.
    pub fn abandoned(&self) -> Vec<FileJournal> {
        let mut found = Vec::new();
        for place in (0..PROCESSES_MAX).map(|number| self.place(number)) {
            match std::fs::metadata(place.join("journal.log")) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && !place.exists() => break,
                Err(_) => continue,
            }
            match FileJournal::open(&place, self.key.as_ref()) {
                Ok(journal) if journal.pending().is_empty() => {}
                Ok(journal) => found.push(journal),
                Err(JournalError::Locked { .. }) => {}
                Err(error) => tracing::error!("what a dead process has left cannot be read: {error}"),
            }
        }
        found
    }

    fn place(&self, number: usize) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::journal::Entry;

    fn entry(id: &str) -> Entry {
        Entry {
            table: "connections".to_owned(),
            id: id.to_owned(),
            fence: uuid::Uuid::nil(),
            sent: Secret::new("old"),
            sent_refresh: None,
            token: Secret::new("new"),
            refresh_token: None,
            expires_at: None,
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn each_process_has_its_own_and_a_dead_ones_is_found_by_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::of(folder.path(), "a/../b", None);
        let (first, second) = (folders.take().unwrap(), folders.take().unwrap());
        first.write(entry("1")).await.unwrap();
        second.write(entry("2")).await.unwrap();
        assert!(folders.abandoned().is_empty(), "both are alive");

        drop(first);
        let [left] = folders.abandoned().try_into().unwrap();
        assert_eq!(left.pending()[0].1.id, "1");
        // While somebody replays it, nobody else does; and a new process makes a third.
        assert!(folders.abandoned().is_empty());
        assert!(folders.take().unwrap().pending().is_empty());
    }

    #[tokio::test]
    async fn a_new_process_goes_on_with_what_the_dead_one_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::of(folder.path(), "one", None);
        folders.take().unwrap().write(entry("1")).await.unwrap();
        assert_eq!(folders.take().unwrap().pending().len(), 1);
        assert!(Folders::of(folder.path(), "another", None).take().unwrap().pending().is_empty());
    }
}
