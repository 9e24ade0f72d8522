//! The next log, made beside the present one a step at a time, so that nobody who writes waits for the whole of it.
//!
//! It gets what is pending in the order of the numbers. An entry that comes meanwhile has a higher number than all
//! before it and so is copied in its turn; one that was copied and is then forgotten is noted as forgotten here too.

use std::io;
use std::ops::Bound;

use super::disk::Disk;
use super::record::{self, FileId, HEADER_BYTES, Key, Record};
use super::{EntryId, Pending, lock};

/// A list of numbers is split so that it stays below [`record::PLAIN_BYTES_MAX`].
pub(super) const FORGOTTEN_MAX: usize = 4096;

pub(super) struct Next {
    pub(super) file: FileId,
    /// Where its next record goes.
    pub(super) end: usize,
    /// How long it is; between `end` and here stand zeros.
    pub(super) len: usize,
    /// The last entry that was copied.
    copied: EntryId,
    /// What was forgotten since the last step. Some of it may be here already.
    forgotten: Vec<EntryId>,
}

impl Next {
    pub(super) fn begin(disk: &mut dyn Disk, key: &Key) -> io::Result<Self> {
        let (file, header) = record::header(key).map_err(io::Error::other)?;
        disk.begin_next()?;
        disk.write_next(0, &header)?;
        Ok(Self { file, end: HEADER_BYTES, len: HEADER_BYTES, copied: EntryId(0), forgotten: Vec::new() })
    }

    /// To be told of all that is forgotten while this is made.
    pub(super) fn forget(&mut self, ids: &[EntryId]) {
        self.forgotten.extend_from_slice(ids);
    }

    /// Copies some `step` bytes, or makes room. Returns whether everything is here and on disk, with `room` bytes
    /// ahead: then, and only until the next command, this can take the place of the present log.
    pub(super) fn go_on(
        &mut self,
        disk: &mut dyn Disk,
        key: &Key,
        pending: &Pending,
        number: &mut u64,
        (step, room): (usize, usize),
    ) -> io::Result<bool> {
        let (records, is_whole) = self.due(pending, number, step);
        let mut bytes = Vec::with_capacity(step);
        for (number, record) in &records {
            let sealed = record::seal(key, &self.file, (self.end + bytes.len()) as u64, *number, record);
            bytes.extend_from_slice(&sealed.map_err(io::Error::other)?);
        }
        disk.write_next(self.end as u64, &bytes)?;
        self.end += bytes.len();
        self.len = self.len.max(self.end);
        if is_whole && self.len - self.end < room {
            disk.write_next(self.len as u64, &vec![0; step])?;
            self.len += step;
        }
        disk.sync_next()?;
        Ok(is_whole && self.len - self.end >= room)
    }

    /// What goes into the next step, and whether that is all there is. Others wait for the lock: it is not held for
    /// longer than a step takes to gather.
    fn due(&mut self, pending: &Pending, number: &mut u64, step: usize) -> (Vec<(u64, Record)>, bool) {
        let mut records = Vec::new();
        for ids in std::mem::take(&mut self.forgotten).chunks(FORGOTTEN_MAX) {
            records.push((*number, Record::Forgotten(ids.to_vec())));
            *number += 1;
        }
        let pending = lock(pending);
        let mut rest = pending.range((Bound::Excluded(self.copied), Bound::Unbounded)).peekable();
        let mut bytes = 0;
        while let Some((id, entry)) = rest.next_if(|_| bytes < step) {
            bytes += record::entry_bytes(entry);
            self.copied = *id;
            records.push((id.0, Record::Entry(entry.clone())));
        }
        (records, rest.peek().is_none())
    }
}
