//! The journal's thread: all blocking work, in batches that share one `fdatasync`.
//!
//! After a failure nothing that stands in the file is relied on any more (after a failed `fdatasync` the
//! system may have dropped what it could not write): the file is written anew from memory, at once and, if
//! that fails, again before whatever is asked for next.
//!
//! The house is kept in small steps between the batches, and as many as it takes while nobody asks for anything: room
//! ahead, and in the place of a file that is mostly dead [another](Next) without the dead.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::disk::Disk;
use super::next::{FORGOTTEN_MAX, Next};
use super::record::{self, FileId, HEADER_BYTES, Key, Record};
use super::scan::Scanned;
use super::{Entry, EntryId, JournalError, Opened, Pending, lock};

/// Room is made ahead up to this many bytes: some thousand answers.
const ROOM_BYTES: usize = 1024 * 1024;
/// With less room ahead a probe fails: some twenty of the largest entries, or 500 usual ones.
const ROOM_BYTES_MIN: usize = ROOM_BYTES / 2;
/// Between two batches so many bytes are written for the house, or a multiple of the batch where that is more: who
/// write meanwhile wait for them, and yet the house must keep ahead of those who write.
const STEP_BYTES: usize = 128 * 1024;
const STEP_BATCHES: usize = 4;
/// A file below this size is not worth making small.
const COMPACT_BYTES_MIN: usize = 4 * 1024 * 1024;
/// So many commands share one `fdatasync` at most.
const BATCH_MAX: usize = 1024;

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the thread is asked for.
pub(super) enum Command {
    Write(Box<Entry>, Reply<EntryId>),
    /// Entries that are pending no more, and how many bytes their records take.
    Forget(Vec<EntryId>, usize),
    Probe(Reply<()>),
}

pub(super) struct Writer {
    disk: Box<dyn Disk>,
    key: Key,
    pending: Pending,
    file: FileId,
    next: u64,
    /// Where the next record goes.
    end: usize,
    /// How long the file is; between `end` and here stand zeros.
    len: usize,
    /// Bytes of records that are still pending.
    live: usize,
    /// Whether the file must be written anew before it is relied on.
    is_doubtful: bool,
    /// Damaged bytes that stand in the file and could not be kept aside: it is not written anew without them.
    damaged: Vec<u8>,
    /// The log that will take the place of this one, while it is made.
    compaction: Option<Next>,
}

impl Writer {
    /// Takes over what the scan has found, and repairs the file. A disk that refuses is an error only where
    /// there is no journal yet: what is pending must be replayed even from a disk that is full.
    pub(super) fn begin(
        disk: Box<dyn Disk>,
        key: Key,
        scanned: Scanned,
        pending: Pending,
    ) -> Result<(Self, Opened), JournalError> {
        let mut opened =
            Opened { torn_bytes: scanned.torn.len(), damaged_bytes: scanned.damaged.len(), kept_aside: None };
        let is_new = scanned.len == 0;
        let live = scanned.pending.values().map(record::entry_bytes).sum();
        *lock(&pending) = scanned.pending;
        let mut writer = Self {
            disk,
            key,
            pending,
            file: scanned.file.unwrap_or_default(),
            next: scanned.next,
            end: scanned.end,
            len: scanned.len,
            live,
            is_doubtful: scanned.file.is_none() || !scanned.torn.is_empty() || !scanned.damaged.is_empty(),
            damaged: scanned.damaged,
            compaction: None,
        };
        if let Err(error) = writer.repair(&mut opened.kept_aside) {
            if is_new {
                return Err(JournalError::unwritable(&error));
            }
            tracing::error!("the journal cannot be written for now: {error}");
        }
        if opened.torn_bytes > 0 {
            tracing::info!(bytes = opened.torn_bytes, "cut a record off the journal that was never written whole");
        }
        if opened.damaged_bytes > 0 {
            tracing::error!(
                bytes = opened.damaged_bytes,
                kept_aside = ?opened.kept_aside,
                "a part of the journal is damaged: tokens that it held may be lost; all other entries were read"
            );
        }
        Ok((writer, opened))
    }

    /// Serves until nobody can ask any more. Who asks goes before the house, but for one step of it after each batch.
    pub(super) fn serve(&mut self, inbox: &mpsc::Receiver<Command>) {
        let mut is_in_order = self.keep_house(0);
        loop {
            let first = match inbox.try_recv() {
                Err(mpsc::TryRecvError::Empty) if !is_in_order => {
                    is_in_order = self.keep_house(0);
                    continue;
                }
                Err(mpsc::TryRecvError::Empty) => inbox.recv().ok(),
                answer => answer.ok(),
            };
            let Some(first) = first else { break };
            let batch = std::iter::once(first).chain(inbox.try_iter()).take(BATCH_MAX).collect();
            let bytes = self.carry_out(batch);
            is_in_order = self.keep_house(bytes);
        }
        self.give_up_compaction();
    }

    /// Returns how many bytes it took.
    fn carry_out(&mut self, batch: Vec<Command>) -> usize {
        let mut written = Vec::new();
        let mut probes = Vec::new();
        let mut new = BTreeMap::new();
        let mut bytes = Vec::new();
        for command in batch {
            match command {
                Command::Write(entry, reply) => {
                    let id = EntryId(self.next);
                    let record = Record::Entry(*entry);
                    match self.seal(&mut bytes, &record) {
                        Ok(()) => {
                            if let Record::Entry(entry) = record {
                                new.insert(id, entry);
                            }
                            written.push((id, reply));
                        }
                        Err(error) => drop(reply.send(Err(error))),
                    }
                }
                Command::Forget(ids, dead) => {
                    self.live = self.live.saturating_sub(dead);
                    self.forget(&mut bytes, &ids);
                }
                Command::Probe(reply) => probes.push(reply),
            }
        }
        let size = bytes.len();
        let must_sync = !written.is_empty() || !probes.is_empty();
        let done = self.append(bytes, new, must_sync);
        for (id, reply) in written {
            let _ = reply.send(done.clone().map(|()| id));
        }
        for reply in probes {
            let roomy = self.ensure_room().map_err(|error| JournalError::unwritable(&error));
            let _ = reply.send(done.clone().and(roomy));
        }
        size
    }

    fn seal(&mut self, bytes: &mut Vec<u8>, record: &Record) -> Result<(), JournalError> {
        let offset = (self.end + bytes.len()) as u64;
        let sealed = record::seal(&self.key, &self.file, offset, self.next, record)?;
        self.next += 1;
        bytes.extend_from_slice(&sealed);
        Ok(())
    }

    fn forget(&mut self, bytes: &mut Vec<u8>, ids: &[EntryId]) {
        if let Some(next) = &mut self.compaction {
            next.forget(ids);
        }
        for some in ids.chunks(FORGOTTEN_MAX) {
            if let Err(error) = self.seal(bytes, &Record::Forgotten(some.to_vec())) {
                // Replayed once more after a restart, to no effect.
                tracing::warn!("cannot note in the journal what the database has confirmed: {error}");
            }
        }
    }

    /// Puts records behind the last one. `new` is what of them is an entry: pending from here on if this
    /// returns `Ok`, and else nowhere.
    fn append(
        &mut self,
        mut bytes: Vec<u8>,
        new: BTreeMap<EntryId, Entry>,
        must_sync: bool,
    ) -> Result<(), JournalError> {
        let size = bytes.len();
        if bytes.is_empty() {
            if !must_sync {
                return Ok(());
            }
            // A probe alone: zeros over zeros, so that the disk has something to refuse.
            bytes = vec![0; 8];
        }
        let appended = if self.is_doubtful {
            Err(io::Error::other("not tried"))
        } else {
            let wrote = self.disk.write_at(self.end as u64, &bytes);
            wrote.and_then(|()| if must_sync { self.disk.sync() } else { Ok(()) })
        };
        if appended.is_err() {
            self.rewrite(&new).map_err(|error| JournalError::unwritable(&error))?;
        } else {
            self.end += size;
            self.len = self.len.max(self.end);
        }
        self.live += new.values().map(record::entry_bytes).sum::<usize>();
        lock(&self.pending).extend(new);
        Ok(())
    }

    /// One step towards room ahead and a small file, after a batch of so many bytes. Returns whether there is
    /// nothing more to do, or nothing that could be done now.
    fn keep_house(&mut self, batch: usize) -> bool {
        self.step(STEP_BYTES.max(STEP_BATCHES * batch)).unwrap_or_else(|error| {
            tracing::warn!("the journal finds no room ahead: {error}");
            true
        })
    }

    fn step(&mut self, bytes: usize) -> io::Result<bool> {
        if self.is_doubtful {
            return Ok(true);
        }
        let is_mostly_dead = self.live < (self.end - HEADER_BYTES) / 2;
        if self.len - self.end < ROOM_BYTES {
            // On a disk that is nearly full, what is dead gives room too.
            let made = self.make_room(bytes);
            made.or_else(|error| if is_mostly_dead { self.rewrite(&BTreeMap::new()) } else { Err(error) })?;
            return Ok(false);
        }
        if self.compaction.is_none() && !(is_mostly_dead && self.end > COMPACT_BYTES_MIN) {
            return Ok(true);
        }
        self.compact(bytes).inspect_err(|_| self.give_up_compaction())?;
        Ok(false)
    }

    /// What a probe promises.
    fn ensure_room(&mut self) -> io::Result<()> {
        if self.is_doubtful {
            return self.rewrite(&BTreeMap::new());
        }
        let room = self.len - self.end;
        if room < ROOM_BYTES_MIN { self.make_room(ROOM_BYTES - room) } else { Ok(()) }
    }

    /// Zeros behind the end, on disk.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        self.disk.write_at(self.len as u64, &vec![0; bytes])?;
        if let Err(error) = self.disk.sync() {
            self.is_doubtful = true;
            return Err(error);
        }
        self.len += bytes;
        Ok(())
    }

    /// A step towards a file that holds what is pending and nothing else.
    fn compact(&mut self, bytes: usize) -> io::Result<()> {
        let disk = self.disk.as_mut();
        let next = match &mut self.compaction {
            Some(next) => next,
            none => none.insert(Next::begin(disk, &self.key)?),
        };
        if next.go_on(disk, &self.key, &self.pending, &mut self.next, (bytes, ROOM_BYTES))? {
            (self.file, self.end, self.len) = (next.file, next.end, next.len);
            self.compaction = None;
            // If this fails, either of the two files may be the one that a restart finds.
            self.is_doubtful = true;
            self.disk.take_next()?;
            self.is_doubtful = false;
        }
        Ok(())
    }

    fn give_up_compaction(&mut self) {
        if self.compaction.take().is_some() {
            self.disk.drop_next();
        }
    }

    fn repair(&mut self, kept_aside: &mut Option<PathBuf>) -> io::Result<()> {
        if !self.is_doubtful {
            return Ok(());
        }
        if !self.damaged.is_empty() {
            *kept_aside = Some(self.disk.keep_aside(&self.damaged)?);
            self.damaged.clear();
        }
        self.rewrite(&BTreeMap::new())
    }

    /// Writes the file anew with what is pending, and `new`, and nothing else: under a new id, from which nothing of the
    /// old file can be mistaken for a part of it.
    fn rewrite(&mut self, new: &BTreeMap<EntryId, Entry>) -> io::Result<()> {
        self.is_doubtful = true;
        self.give_up_compaction();
        if !self.damaged.is_empty() {
            self.disk.keep_aside(&self.damaged)?;
            self.damaged.clear();
        }
        let (file, mut bytes) = record::header(&self.key).map_err(io::Error::other)?;
        for (id, entry) in lock(&self.pending).iter().chain(new) {
            let record = Record::Entry(entry.clone());
            let sealed = record::seal(&self.key, &file, bytes.len() as u64, id.0, &record);
            bytes.extend_from_slice(&sealed.map_err(io::Error::other)?);
        }
        let end = bytes.len();
        bytes.resize(end + ROOM_BYTES, 0);
        if let Err(error) = self.disk.replace(&bytes) {
            // Without room ahead there may be just enough for what is pending.
            bytes.truncate(end);
            self.disk.replace(&bytes).map_err(|_| error)?;
        }
        (self.file, self.end, self.len) = (file, end, bytes.len());
        self.is_doubtful = false;
        Ok(())
    }
}
