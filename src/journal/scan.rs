//! Reading a whole log: what is pending, what was torn, what is damaged. Decides nothing about the disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::record::{self, FileId, HEADER_BYTES, Header, Key, MARKER, Read, Record};
use super::{Entry, EntryId, JournalError};

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// The file's id; `None` if there is no file that can be gone on with.
    pub(super) file: Option<FileId>,
    pub(super) pending: BTreeMap<EntryId, Entry>,
    /// The number for the next record.
    pub(super) next: u64,
    /// Where the next record goes.
    pub(super) end: usize,
    /// How long the file is.
    pub(super) len: usize,
    /// Bytes behind `end` that are not zero: of a record that was never written whole.
    pub(super) torn: Range<usize>,
    /// What was written whole once and cannot be read, with whatever stood there.
    pub(super) damaged: Vec<u8>,
}

pub(super) fn scan(log: &[u8], key: &Key, path: &Path) -> Result<Scanned, JournalError> {
    let mut found = Scanned { next: 1, len: log.len(), ..Scanned::default() };
    let file = match record::read_header(log, key) {
        Header::Sound(file) => file,
        Header::Torn => return Ok(found),
        Header::Newer => return Err(JournalError::Newer { file: path.to_owned() }),
        Header::WrongKey => return Err(JournalError::WrongKey { file: path.to_owned() }),
        Header::Damaged => {
            found.damaged = log.to_vec();
            return Ok(found);
        }
    };
    found.file = Some(file);
    let used = used(log);
    let mut at = HEADER_BYTES;
    while at < used {
        match record::read(key, &file, log, at) {
            Read::Record(number, record, bytes) => {
                found.take(number, record);
                at += bytes;
                continue;
            }
            Read::Alien(bytes) => {
                found.damaged.extend_from_slice(&log[at..at + bytes]);
                at += bytes;
                continue;
            }
            Read::Cut | Read::Broken => {}
        }
        let next = (at + 1..used).find(|next| {
            log[*next..].starts_with(MARKER)
                && matches!(record::read(key, &file, log, *next), Read::Record(..) | Read::Alien(_))
        });
        let is_cut = MARKER.starts_with(&log[at..used]) || matches!(record::read(key, &file, log, at), Read::Cut);
        if next.is_none() && is_cut {
            found.torn = at..used;
            break;
        }
        let until = next.unwrap_or(used);
        found.damaged.extend_from_slice(&log[at..until]);
        at = until;
    }
    // Where a torn record begins, `at` has stopped; else at the last byte that was used.
    found.end = at;
    Ok(found)
}

/// Where the zeros begin that are room, not records. A record may end with a zero: it is read whole from the log.
pub(super) fn used(log: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let chunks = log.rchunks(ZEROS.len()).take_while(|chunk| *chunk == &ZEROS[..chunk.len()]);
    let zeros: usize = chunks.map(<[u8]>::len).sum();
    log[..log.len() - zeros].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

impl Scanned {
    fn take(&mut self, number: u64, record: Record) {
        self.next = self.next.max(number.saturating_add(1));
        match record {
            Record::Entry(entry) => drop(self.pending.insert(EntryId(number), entry)),
            Record::Forgotten(ids) => ids.iter().for_each(|id| drop(self.pending.remove(id))),
        }
    }
}
