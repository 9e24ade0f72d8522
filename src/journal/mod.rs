//! The journal: what a provider has answered outlives this process, a power cut and the database, until the
//! database has confirmed it.
//!
//! A provider that rotates its refresh tokens kills the old one with the answer that brings the new one.
//! Between that answer and the commit, the new one exists nowhere else. So it goes here first: one append
//! and one `fdatasync`, shared by all who write at the same time, on a thread of its own.
//!
//! # The folder
//! | file | what it is |
//! |---|---|
//! | `journal.lock` | empty; locked by the one process that has the journal open |
//! | `journal.key` | the key in hexadecimal, made at first use unless a key is given |
//! | `journal.log` | what is pending |
//! | `journal.log.new` | the next `journal.log` while it is written; never read |
//! | `journal.damaged-N` | bytes that could not be read, kept aside for whoever can |
//!
//! The folder has mode 0700 when it is made here, the files 0600. Nothing in them is readable without the key.
//!
//! # The bytes of `journal.log`
//! Integers are little-endian. The header, 60 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PERJRNL1` |
//! | 16 | the file's id, random |
//! | 12 + 16 | nonce and tag of an empty text, sealed with the 24 bytes before: whether the key is the right one |
//! | 8 | checksum: the first bytes of the SHA-256 of all before |
//!
//! Then records, one behind the other:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `A5 72 65 63` |
//! | 4 | length of what is sealed, nonce and tag included |
//! | 8 | the record's number: an [`EntryId`] |
//! | 1 | kind: 1 an entry, 2 a list of numbers that are forgotten |
//! | 12 + n + 16 | nonce, ciphertext, tag: AES-256-GCM |
//! | 8 | checksum of the record, as above |
//!
//! What is authenticated beside the ciphertext is the file's id, the offset at which the record begins, its
//! number and its kind: a record that is moved, within the file or into another one, is refused.
//!
//! Behind the last record stand zeros: room that is made ahead, so that an answer does not meet a full disk
//! and its `fdatasync` has no length of a file to write down.

mod disk;
mod error;
mod folders;
mod key;
mod memory;
mod next;
mod record;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use jiff::Timestamp;
use perene_policy::Secret;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use error::JournalError;
pub use folders::Folders;
pub use memory::MemoryJournal;

use disk::{Disk, Folder};
use writer::{Command, Writer};

/// An answer of a provider that the database has not confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The table as the configuration names it.
    pub table: String,
    /// The row's key, as text.
    pub id: String,
    /// The fence of the lease under which it was sent. Of a process that died it may still hold.
    pub fence: Uuid,
    /// The access token that the row held: what the write compares with.
    pub sent: Secret,
    /// The refresh token that the row held beside it.
    pub sent_refresh: Option<Secret>,
    /// The access token that was issued.
    pub token: Secret,
    /// The refresh token that was issued with it; `None` keeps the row's.
    pub refresh_token: Option<Secret>,
    /// The expiry to store; `None` keeps the row's.
    pub expires_at: Option<Timestamp>,
    /// When the answer came.
    pub received_at: Timestamp,
}

/// Names an entry for as long as the journal is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

/// What was met when the journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of a last record that was never written whole, and so never confirmed to anybody; cut off.
    pub torn_bytes: usize,
    /// Bytes that were written whole once and cannot be read now.
    pub damaged_bytes: usize,
    /// Where the damaged bytes are kept; `None` where there are none, or where they could not be copied and
    /// so stay in the journal itself.
    pub kept_aside: Option<PathBuf>,
}

type Pending = Arc<Mutex<BTreeMap<EntryId, Entry>>>;

/// Whether a text can serve as the key of a journal: 32 bytes in base64 or hexadecimal.
pub fn is_key(text: &Secret) -> bool {
    key::parse(text).is_some()
}

/// Keeps answers until the database has confirmed them.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Returns when the entry is on disk. A caller that goes away meanwhile changes nothing: the entry is written,
    /// and [`Journal::pending`] has it.
    ///
    /// # Errors
    /// When the disk refuses, also into a new file. The entry is then nowhere but with the caller.
    async fn write(&self, entry: Entry) -> Result<EntryId, JournalError>;

    /// Drops entries that the database has confirmed, or that it has superseded. Ids that are not pending
    /// are none of its business. The disk is not waited for: what a power cut brings back is replayed once
    /// more, and a compare-and-swap that was won already changes nothing.
    ///
    /// # Errors
    /// When the journal is closed.
    async fn forget(&self, ids: &[EntryId]) -> Result<(), JournalError>;

    /// What is kept and not forgotten yet, oldest first. Entries whose calls are still in flight here are
    /// among them: whoever replays leaves out what it knows to be under way.
    fn pending(&self) -> Vec<(EntryId, Entry)>;

    /// Whether a write would succeed: the disk takes bytes, and there is room made ahead. To be called
    /// before a strict provider is asked.
    ///
    /// # Errors
    /// When the disk refuses (full, read-only, broken).
    async fn probe(&self) -> Result<(), JournalError>;

    /// Journals beside this one whose processes have died and left something. Each is given to one asker only, until
    /// it is dropped.
    fn abandoned(&self) -> Vec<Arc<dyn Journal>> {
        Vec::new()
    }
}

/// The journal of one process, in a folder. Clones share it; with the last one its folder is free again.
#[derive(Debug, Clone)]
pub struct FileJournal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    pending: Pending,
    opened: Opened,
    /// Where the journals of other processes are, if this one lies among them.
    folders: Option<Folders>,
}

impl FileJournal {
    /// Opens the journal in `folder`, and makes what is missing there. `key` is 32 bytes in base64 or
    /// hexadecimal; without it the folder's own `journal.key` counts. Blocks on the disk: for the start.
    ///
    /// # Errors
    /// When another process has the folder open, when the key is not the one with which the journal was
    /// written, when the journal was written by a newer Perene, and when the disk refuses. A record that is
    /// torn or damaged is none: see [`FileJournal::opened`].
    pub fn open(folder: &Path, key: Option<&Secret>) -> Result<Self, JournalError> {
        let disk = Folder::open(folder)?;
        let key = match key {
            Some(key) => key::parse(key).ok_or(JournalError::NoKey)?,
            None => key::own(&disk)?,
        };
        Self::on(Box::new(disk), key)
    }

    fn on(mut disk: Box<dyn Disk>, key: record::Key) -> Result<Self, JournalError> {
        let log = disk.read().map_err(|error| JournalError::unreadable(disk.log(), &error))?;
        let scanned = scan::scan(&log.unwrap_or_default(), &key, disk.log())?;
        let pending: Pending = Arc::default();
        let (mut writer, opened) = Writer::begin(disk, key, scanned, Arc::clone(&pending))?;
        let (commands, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.serve(&inbox))
            .map_err(|error| JournalError::Unwritable { reason: format!("no thread for it: {error}") })?;
        Ok(Self(Arc::new(Inner { commands: Some(commands), thread: Some(thread), pending, opened, folders: None })))
    }

    /// What was met when the journal was opened.
    pub fn opened(&self) -> &Opened {
        &self.0.opened
    }

    /// The same journal, which knows where its neighbours are.
    fn among(self, folders: Folders) -> Self {
        let Ok(mut inner) = Arc::try_unwrap(self.0) else { unreachable!("it has just been opened") };
        inner.folders = Some(folders);
        Self(Arc::new(inner))
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Command,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| JournalError::Stopped)?
    }

    fn send(&self, command: Command) -> Result<(), JournalError> {
        let commands = self.0.commands.as_ref().ok_or(JournalError::Stopped)?;
        commands.send(command).map_err(|_| JournalError::Stopped)
    }
}

#[async_trait]
impl Journal for FileJournal {
    /// Who write at the same time share one `fdatasync`.
    async fn write(&self, entry: Entry) -> Result<EntryId, JournalError> {
        self.ask(|reply| Command::Write(Box::new(entry), reply)).await
    }

    async fn forget(&self, ids: &[EntryId]) -> Result<(), JournalError> {
        let mut dead = 0;
        let known: Vec<EntryId> = {
            let mut pending = lock(&self.0.pending);
            let gone = ids.iter().filter_map(|id| Some((*id, pending.remove(id)?)));
            gone.map(|(id, entry)| {
                dead += record::entry_bytes(&entry);
                id
            })
            .collect()
        };
        if known.is_empty() { Ok(()) } else { self.send(Command::Forget(known, dead)) }
    }

    fn pending(&self) -> Vec<(EntryId, Entry)> {
        lock(&self.0.pending).iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    async fn probe(&self) -> Result<(), JournalError> {
        self.ask(Command::Probe).await
    }

    fn abandoned(&self) -> Vec<Arc<dyn Journal>> {
        let found = self.0.folders.as_ref().map(Folders::abandoned).unwrap_or_default();
        found.into_iter().map(|journal| Arc::new(journal) as Arc<dyn Journal>).collect()
    }
}

impl Drop for Inner {
    /// Waits for what was asked for already, so that the folder is free when this returns.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by itself.
            let _ = thread.join();
        }
    }
}

fn lock(pending: &Mutex<BTreeMap<EntryId, Entry>>) -> MutexGuard<'_, BTreeMap<EntryId, Entry>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
