//! The journal as a whole: on a real folder, and on a disk whose plug can be pulled.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use tempfile::TempDir;

use super::record::{HEADER_BYTES, Key};
use super::*;

const KEY: [u8; 32] = [7; 32];

fn entry(number: u32) -> Entry {
    Entry {
        table: "instagram_connections".to_owned(),
        id: number.to_string(),
        fence: Uuid::from_u128(number.into()),
        sent: Secret::new(format!("sent-hunter2-{number}")),
        sent_refresh: number.is_multiple_of(5).then(|| Secret::new(format!("sent-refresh-hunter2-{number}"))),
        token: Secret::new(format!("token-hunter2-{number}-{}", "x".repeat(number as usize % 40))),
        refresh_token: number.is_multiple_of(2).then(|| Secret::new(format!("refresh-hunter2-{number}"))),
        expires_at: number.is_multiple_of(3).then(|| "2026-11-23T03:00:00.123456789Z".parse().unwrap()),
        received_at: "2026-11-23T02:00:00Z".parse().unwrap(),
    }
}

fn large(number: u32) -> Entry {
    Entry { token: Secret::new("x".repeat(16 * 1024)), ..entry(number) }
}

fn ids(journal: &FileJournal) -> Vec<String> {
    journal.pending().into_iter().map(|(_, entry)| entry.id).collect()
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A disk in memory: what was written is on it after a sync, and before that perhaps.
#[derive(Clone, Default)]
struct Plug(Arc<Mutex<Medium>>);

#[derive(Default)]
struct Medium {
    cached: Option<Vec<u8>>,
    durable: Option<Vec<u8>>,
    /// The next log, as `cached` and `durable` are of this one.
    next: Option<(Vec<u8>, Vec<u8>)>,
    aside: Vec<Vec<u8>>,
    capacity: Option<usize>,
    refuses_sync: bool,
    refuses_all: bool,
    sync_fails_once: bool,
    syncs: usize,
    /// The next sync waits for a message here.
    gate: Option<mpsc::Receiver<()>>,
    /// The next sync of the next log waits for a message here.
    next_gate: Option<mpsc::Receiver<()>>,
    /// So many operations on the next log are still carried out before one fails.
    next_fails_after: Option<usize>,
    /// With it, all else does from then on: the plug is pulled.
    fails_for_good: bool,
    /// How often the next log has taken the place of the present one.
    taken: usize,
}

impl Plug {
    fn with<T>(&self, with: impl FnOnce(&mut Medium) -> T) -> T {
        with(&mut self.0.lock().unwrap())
    }

    fn open(&self) -> Result<FileJournal, JournalError> {
        FileJournal::on(Box::new(self.clone()), Key::new(&KEY))
    }

    fn holding(log: &[u8]) -> Self {
        let log = Some(log.to_vec());
        Self(Arc::new(Mutex::new(Medium { cached: log.clone(), durable: log, ..Medium::default() })))
    }

    fn log_bytes(&self) -> Vec<u8> {
        self.with(|medium| medium.cached.clone().unwrap())
    }

    /// The machine loses power: what was not synced is gone.
    fn after_power_cut(&self) -> Self {
        Self::holding(&self.with(|medium| medium.durable.clone().unwrap()))
    }
}

impl Plug {
    /// The thread does not tell when it has come so far.
    async fn when_next_holds_records(&self) {
        let has = |medium: &mut Medium| medium.next.as_ref().is_some_and(|(next, _)| next.len() > HEADER_BYTES);
        while !self.with(|medium| has(medium) || medium.taken > 0) {
            tokio::task::yield_now().await;
        }
    }

    fn on_next(&self, operate: impl FnOnce(&mut Medium) -> io::Result<()>) -> io::Result<()> {
        self.with(|medium| {
            if medium.refuses_all || medium.refuses_sync {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            if let Some(left) = medium.next_fails_after.take() {
                medium.next_fails_after = left.checked_sub(1);
                if left == 0 {
                    medium.refuses_all = medium.fails_for_good;
                    return Err(full());
                }
            }
            operate(medium)
        })
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for Plug {
    fn log(&self) -> &Path {
        Path::new("plug")
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|medium| medium.cached.clone()))
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|medium| {
            if medium.refuses_all {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            let at = usize::try_from(at).unwrap();
            let capacity = medium.capacity;
            let log = medium.cached.as_mut().ok_or(io::ErrorKind::NotFound)?;
            // As a disk does it: as much as fits, then the error.
            let room = capacity.map_or(bytes.len(), |capacity| capacity.max(log.len()).saturating_sub(at));
            let fits = bytes.len().min(room);
            log.resize(log.len().max(at + fits), 0);
            log[at..at + fits].copy_from_slice(&bytes[..fits]);
            if fits < bytes.len() { Err(full()) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let gate = self.with(|medium| medium.gate.take());
        if let Some(gate) = gate {
            gate.recv().ok();
        }
        self.with(|medium| {
            medium.syncs += 1;
            if std::mem::take(&mut medium.sync_fails_once) {
                return Err(io::Error::other("input/output error"));
            }
            if medium.refuses_sync || medium.refuses_all {
                return Err(io::Error::other("input/output error"));
            }
            medium.durable.clone_from(&medium.cached);
            Ok(())
        })
    }

    fn begin_next(&mut self) -> io::Result<()> {
        self.on_next(|medium| {
            medium.next = Some(Default::default());
            Ok(())
        })
    }

    fn write_next(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.on_next(|medium| {
            let at = usize::try_from(at).unwrap();
            let old = medium.cached.as_ref().map_or(0, Vec::len);
            if medium.capacity.is_some_and(|capacity| old + at + bytes.len() > capacity) {
                return Err(full());
            }
            let (next, _) = medium.next.as_mut().ok_or(io::ErrorKind::NotFound)?;
            next.resize(next.len().max(at + bytes.len()), 0);
            next[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn sync_next(&mut self) -> io::Result<()> {
        let gate = self.with(|medium| medium.next_gate.take());
        if let Some(gate) = gate {
            gate.recv().ok();
        }
        self.on_next(|medium| {
            let (next, durable) = medium.next.as_mut().ok_or(io::ErrorKind::NotFound)?;
            durable.clone_from(next);
            Ok(())
        })
    }

    fn take_next(&mut self) -> io::Result<()> {
        self.on_next(|medium| {
            let (next, durable) = medium.next.take().ok_or(io::ErrorKind::NotFound)?;
            (medium.cached, medium.durable) = (Some(next), Some(durable));
            medium.taken += 1;
            Ok(())
        })
    }

    fn drop_next(&mut self) {
        self.with(|medium| medium.next = None);
    }

    fn keep_aside(&mut self, bytes: &[u8]) -> io::Result<PathBuf> {
        self.with(|medium| {
            if medium.refuses_all {
                return Err(full());
            }
            medium.aside.push(bytes.to_vec());
            Ok("aside".into())
        })
    }
}

#[tokio::test]
async fn what_was_written_is_pending_until_it_is_forgotten() {
    let folder = TempDir::new().unwrap();
    let open = || FileJournal::open(&folder.path().join("a/b"), None).unwrap();
    let journal = open();
    let mut written = Vec::new();
    for number in 0..6 {
        written.push(journal.write(entry(number)).await.unwrap());
    }
    let expected: Vec<Entry> = (0..6).map(entry).collect();
    let entries = |journal: &FileJournal| journal.pending().into_iter().map(|(_, entry)| entry).collect::<Vec<_>>();
    assert_eq!(entries(&journal), expected);
    drop(journal);

    let journal = open();
    assert_eq!(journal.opened(), &Opened::default());
    assert_eq!(entries(&journal), expected, "after a restart");
    let known: Vec<EntryId> = journal.pending().into_iter().map(|(id, _)| id).collect();
    assert_eq!(known, written);
    journal.forget(&[known[0], known[2], EntryId(999)]).await.unwrap();
    journal.forget(&[known[2]]).await.unwrap();
    assert_eq!(ids(&journal), ["1", "3", "4", "5"]);
    let later = journal.write(entry(7)).await.unwrap();
    assert!(!written.contains(&later), "a number is given once");
    drop(journal);
    assert_eq!(ids(&open()), ["1", "3", "4", "5", "7"]);
}

#[tokio::test]
async fn a_log_cut_at_any_byte_gives_back_every_entry_before_the_cut() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let mut ends = vec![HEADER_BYTES];
    for number in 0..4 {
        journal.write(entry(number)).await.unwrap();
        ends.push(ends[ends.len() - 1] + record::entry_bytes(&entry(number)));
    }
    drop(journal);
    let whole = plug.log_bytes()[..ends[4]].to_vec();
    for cut in 0..=whole.len() {
        // Once the file ends there, once zeros that were made ahead follow.
        for zeros in [0, 700] {
            let mut log = whole[..cut].to_vec();
            log.resize(cut + zeros, 0);
            let plug = Plug::holding(&log);
            let journal = plug.open().unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            // The last byte of a checksum may be a zero.
            let is_whole = |end: usize| log.get(..end) == Some(&whole[..end]);
            let expected = ends[1..].iter().filter(|end| is_whole(**end)).count();
            assert_eq!(journal.pending().len(), expected, "cut at {cut} of {}, {zeros} zeros", whole.len());
            // A header that zeros have cut is damage: a header is never written in place.
            if cut >= HEADER_BYTES || zeros == 0 {
                assert_eq!(journal.opened().damaged_bytes, 0, "cut at {cut}, {zeros} zeros");
            }
            if cut % 16 != 0 {
                continue;
            }
            journal.write(entry(9)).await.unwrap();
            drop(journal);
            let journal = plug.after_power_cut().open().unwrap();
            assert_eq!(journal.pending().len(), expected + 1, "it goes on after a cut at {cut}");
            assert_eq!(journal.opened(), &Opened::default());
        }
    }
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_confirmed() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let mut ids_written = Vec::new();
    for number in 0..20 {
        ids_written.push(journal.write(entry(number)).await.unwrap());
        let after = plug.after_power_cut().open().unwrap();
        assert!(after.pending().iter().any(|(_, found)| *found == entry(number)), "{number}");
    }
    // What is forgotten may come back, what is not may not be missing.
    journal.forget(&ids_written[..10]).await.unwrap();
    assert!(plug.after_power_cut().open().unwrap().pending().len() >= 10);
    journal.probe().await.unwrap();
    assert_eq!(plug.after_power_cut().open().unwrap().pending().len(), 10);
}

#[tokio::test]
async fn a_wrong_key_refuses_to_start_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let key = |digit: &str| Secret::new(digit.repeat(64));
    FileJournal::open(folder.path(), Some(&key("a"))).unwrap().write(entry(1)).await.unwrap();
    let before = fs::read(folder.path().join("journal.log")).unwrap();
    let error = FileJournal::open(folder.path(), Some(&key("b"))).unwrap_err();
    assert!(matches!(error, JournalError::WrongKey { .. }), "{error}");
    // The folder has no key of its own: one that is made now would be a wrong one.
    let error = FileJournal::open(folder.path(), None).unwrap_err();
    assert!(matches!(error, JournalError::KeyLost { .. }), "{error}");
    assert!(matches!(FileJournal::open(folder.path(), Some(&Secret::new("hunter2"))), Err(JournalError::NoKey)));
    assert_eq!(fs::read(folder.path().join("journal.log")).unwrap(), before);
    let base64 = base64::engine::general_purpose::STANDARD.encode([0xaa; 32]);
    assert_eq!(ids(&FileJournal::open(folder.path(), Some(&Secret::new(base64))).unwrap()), ["1"]);
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_left_alone() {
    let plug = Plug::default();
    plug.open().unwrap();
    plug.with(|medium| medium.cached.as_mut().unwrap()[7] = b'2');
    assert!(matches!(plug.open(), Err(JournalError::Newer { .. })));
}

/// Three entries of equal size: the log, where each begins, and where the last one ends.
async fn three() -> (Plug, Vec<usize>) {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let mut begins = vec![HEADER_BYTES];
    for number in [10, 50, 90] {
        let mut entry = entry(number);
        entry.expires_at = None;
        begins.push(begins[begins.len() - 1] + record::entry_bytes(&entry));
        journal.write(entry).await.unwrap();
    }
    drop(journal);
    assert_eq!(begins[1] - begins[0], begins[2] - begins[1]);
    (plug, begins)
}

#[tokio::test]
async fn a_record_that_was_moved_is_refused_and_kept_aside() {
    let (plug, at) = three().await;
    plug.with(|medium| {
        let log = medium.cached.as_mut().unwrap();
        let (first, second) = log[at[0]..at[2]].split_at_mut(at[1] - at[0]);
        first.swap_with_slice(second);
    });
    let journal = plug.open().unwrap();
    assert_eq!(ids(&journal), ["90"], "neither of the two that changed places");
    assert_eq!(journal.opened().damaged_bytes, at[2] - at[0]);

    // Nor is one of another file, at the very place where it stood there.
    let (other, _) = three().await;
    let foreign = other.log_bytes();
    let (plug, at) = three().await;
    plug.with(|medium| medium.cached.as_mut().unwrap()[at[1]..at[2]].copy_from_slice(&foreign[at[1]..at[2]]));
    assert_eq!(ids(&plug.open().unwrap()), ["10", "90"]);
    assert_eq!(plug.with(|medium| medium.aside.concat()), foreign[at[1]..at[2]]);
}

#[tokio::test]
async fn one_damaged_byte_costs_one_entry_at_most() {
    let (plug, at) = three().await;
    let sound = plug.log_bytes();
    for place in at[0]..at[3] {
        let mut log = sound.clone();
        log[place] ^= 0x40;
        let plug = Plug::holding(&log);
        let journal = plug.open().unwrap();
        let hit = at.iter().rposition(|begin| *begin <= place).unwrap();
        let expected: Vec<&str> =
            ["10", "50", "90"].into_iter().enumerate().filter(|(number, _)| *number != hit).map(|(_, id)| id).collect();
        assert_eq!(ids(&journal), expected, "byte {place}");
        let opened = journal.opened().clone();
        // Of the last record, a length that leads behind the end cannot be told from a torn one.
        assert!(opened.damaged_bytes > 0 || (hit == 2 && opened.torn_bytes > 0), "byte {place}: {opened:?}");
        if place % 16 == 0 {
            drop(journal);
            let journal = plug.open().unwrap();
            assert_eq!((ids(&journal).len(), journal.opened()), (2, &Opened::default()), "it is told once");
        }
    }
}

#[tokio::test]
async fn a_damaged_header_keeps_the_whole_file_aside() {
    let (plug, at) = three().await;
    plug.with(|medium| medium.cached.as_mut().unwrap()[12] ^= 1);
    let journal = plug.open().unwrap();
    assert_eq!(journal.pending(), []);
    assert!(plug.with(|medium| medium.aside[0].len()) >= at[3]);
    journal.write(entry(1)).await.unwrap();
}

#[tokio::test]
async fn damage_stays_in_the_log_while_it_cannot_be_kept_aside() {
    let (plug, at) = three().await;
    plug.with(|medium| {
        medium.cached.as_mut().unwrap()[at[1] + 40] ^= 1;
        medium.refuses_all = true;
    });
    let journal = plug.open().unwrap();
    assert_eq!(ids(&journal), ["10", "90"], "what can be read is replayed from a read-only disk too");
    assert!(journal.probe().await.is_err() && journal.write(entry(1)).await.is_err());
    assert_eq!(ids(&journal), ["10", "90"], "what was not written is not pending");
    assert!(plug.with(|medium| medium.aside.is_empty()));
    plug.with(|medium| medium.refuses_all = false);
    journal.probe().await.unwrap();
    assert_eq!(plug.with(|medium| medium.aside.concat().len()), at[2] - at[1]);
    journal.write(entry(2)).await.unwrap();
    drop(journal);
    assert_eq!(ids(&plug.open().unwrap()), ["10", "90", "2"]);
}

#[tokio::test]
async fn on_a_full_disk_a_probe_fails_before_a_write_does() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    journal.probe().await.unwrap();
    // From now on no byte more is to be had than was made ahead.
    plug.with(|medium| medium.capacity = Some(medium.cached.as_ref().unwrap().len()));
    let mut written = 0;
    while journal.probe().await.is_ok() {
        journal.write(large(written)).await.unwrap();
        written += 1;
        assert!(written < 1000, "the probe never fails");
    }
    // Calls that were probed before the disk was full may still answer.
    for _ in 0..20 {
        journal.write(large(written)).await.unwrap();
        written += 1;
    }
    let error = loop {
        match journal.write(large(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Unwritable { .. }), "{error}");
    assert_eq!(journal.pending().len(), written as usize);
    assert_eq!(plug.after_power_cut().open().unwrap().pending().len(), written as usize);

    plug.with(|medium| medium.capacity = None);
    journal.probe().await.unwrap();
    journal.write(large(written)).await.unwrap();
    assert_eq!(plug.after_power_cut().open().unwrap().pending().len(), written as usize + 1);
}

#[tokio::test]
async fn after_a_failed_sync_the_file_is_written_anew() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    journal.write(entry(1)).await.unwrap();
    plug.with(|medium| medium.refuses_sync = true);
    assert!(journal.write(entry(2)).await.is_err());
    // The system has dropped the dirty pages, and says nothing of it any more.
    plug.with(|medium| {
        medium.refuses_sync = false;
        medium.cached.clone_from(&medium.durable);
    });
    journal.write(entry(3)).await.unwrap();
    assert_eq!(ids(&journal), ["1", "3"]);
    assert_eq!(ids(&plug.after_power_cut().open().unwrap()), ["1", "3"]);
}

#[tokio::test]
async fn after_a_failed_sync_of_room_the_file_is_written_anew_too() {
    let plug = Plug::default();
    drop(plug.open().unwrap());
    // Room is missing, and the sync of the first that is made at the start fails.
    plug.with(|medium| {
        medium.cached.as_mut().unwrap().truncate(HEADER_BYTES);
        medium.sync_fails_once = true;
        medium.taken = 0;
    });
    let journal = plug.open().unwrap();
    while plug.with(|medium| medium.sync_fails_once) {
        tokio::task::yield_now().await;
    }
    journal.write(entry(1)).await.unwrap();
    assert_eq!(plug.with(|medium| medium.taken), 1);
    assert_eq!(ids(&plug.after_power_cut().open().unwrap()), ["1"]);
}

#[tokio::test]
async fn who_write_at_the_same_time_share_one_sync() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let (open_gate, gate) = mpsc::channel();
    let before = plug.with(|medium| {
        medium.gate = Some(gate);
        medium.syncs
    });
    let write = |number| {
        let journal = journal.clone();
        async move { journal.write(entry(number)).await }
    };
    // The first one holds the disk; the others gather behind it.
    let writes = futures_util::future::join_all((0..100).map(write));
    let opener = async move {
        tokio::task::yield_now().await;
        open_gate.send(()).unwrap();
    };
    let (written, ()) = tokio::join!(writes, opener);
    assert!(written.iter().all(Result::is_ok));
    let syncs = plug.with(|medium| medium.syncs) - before;
    assert!((1..=3).contains(&syncs), "{syncs} syncs for 100 writers");
    assert_eq!(plug.after_power_cut().open().unwrap().pending().len(), 100);
}

#[tokio::test]
async fn a_writer_that_goes_away_leaves_its_entry_behind() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let (open_gate, gate) = mpsc::channel();
    plug.with(|medium| medium.gate = Some(gate));
    let mut write = Box::pin(journal.write(entry(1)));
    assert!(futures_util::poll!(&mut write).is_pending());
    drop(write);
    open_gate.send(()).unwrap();
    journal.probe().await.unwrap();
    assert_eq!(ids(&journal), ["1"]);
}

#[tokio::test]
async fn a_log_that_is_mostly_dead_is_made_small() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let kept = journal.write(large(0)).await.unwrap();
    for number in 1..600 {
        let id = journal.write(large(number)).await.unwrap();
        journal.forget(&[id]).await.unwrap();
    }
    journal.probe().await.unwrap();
    let len = plug.with(|medium| medium.cached.as_ref().unwrap().len());
    assert!(len < 7 * 1024 * 1024, "{len} bytes for one entry");
    assert_eq!(journal.pending()[0].0, kept, "ids outlive it");
    drop(journal);
    assert_eq!(ids(&plug.after_power_cut().open().unwrap()), ["0"]);
}

/// A log of more than 4 MiB, of which the first 40 entries are pending.
fn mostly_dead() -> Vec<u8> {
    let key = Key::new(&KEY);
    let (file, mut log) = record::header(&key).unwrap();
    let entries = (1..=270).map(|number| record::Record::Entry(large(number)));
    let forgotten = record::Record::Forgotten((41..=270).map(EntryId).collect());
    for (number, record) in (1..).zip(entries.chain([forgotten])) {
        let sealed = record::seal(&key, &file, log.len() as u64, number, &record).unwrap();
        log.extend_from_slice(&sealed);
    }
    log
}

#[tokio::test]
async fn a_compaction_that_ends_at_any_step_loses_nothing() {
    let log = mostly_dead();
    for fails_for_good in [false, true] {
        for operation in 0.. {
            let plug = Plug::holding(&log);
            plug.with(|medium| (medium.next_fails_after, medium.fails_for_good) = (Some(operation), fails_for_good));
            let journal = plug.open().unwrap();
            let written = journal.write(entry(1000)).await;
            // A step of the compaction each, however fast this is.
            for _ in 0..100 {
                if plug.with(|medium| medium.taken == 0 && !medium.refuses_all) {
                    let _ = journal.probe().await;
                }
            }
            let after = plug.after_power_cut().open().unwrap();
            let mut expected: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
            expected.extend(written.is_ok().then(|| "1000".to_owned()));
            let mut found = ids(&after);
            // It may be on the disk that refused to say so.
            found.retain(|id| id != "1000" || written.is_ok());
            assert_eq!(found, expected, "operation {operation} fails, for good: {fails_for_good}");
            assert_eq!(after.opened().damaged_bytes, 0);
            if plug.with(|medium| medium.next_fails_after.is_some()) {
                assert!(operation > 20, "all of {operation} operations have been failed");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_happens_during_a_compaction_is_in_the_new_log() {
    let plug = Plug::holding(&mostly_dead());
    let (open_gate, gate) = mpsc::channel();
    plug.with(|medium| medium.next_gate = Some(gate));
    let journal = plug.open().unwrap();
    // While the first step waits for the disk: one that it has copied, and one whose turn has not come yet.
    let [first, last] = [&journal.pending()[0], &journal.pending()[39]].map(|(id, _)| *id);
    plug.when_next_holds_records().await;
    journal.forget(&[first, last]).await.unwrap();
    let mut write = Box::pin(journal.write(entry(1000)));
    assert!(futures_util::poll!(&mut write).is_pending());
    // Who writes waits for this step, and not for the second.
    let (open_second_gate, gate) = mpsc::channel();
    plug.with(|medium| medium.next_gate = Some(gate));
    open_gate.send(()).unwrap();
    write.await.unwrap();
    assert_eq!(plug.with(|medium| medium.taken), 0);
    open_second_gate.send(()).unwrap();
    while plug.with(|medium| medium.taken == 0) {
        journal.probe().await.unwrap();
    }
    let expected: Vec<String> = (2..=39).chain([1000]).map(|number| number.to_string()).collect();
    assert_eq!(ids(&journal), expected);
    let after = plug.after_power_cut().open().unwrap();
    assert_eq!((ids(&after), after.opened()), (expected, &Opened::default()));
    let len = plug.with(|medium| medium.cached.as_ref().unwrap().len());
    assert!(len < 3 * 1024 * 1024, "{len} bytes for 39 entries of 16 KiB");
}

#[tokio::test]
async fn no_secret_is_in_any_file_and_nobody_else_may_read_them() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal");
    let journal = FileJournal::open(&path, None).unwrap();
    for number in 0..10 {
        let id = journal.write(entry(number)).await.unwrap();
        if number % 2 == 0 {
            journal.forget(&[id]).await.unwrap();
        }
    }
    assert!(!format!("{journal:?}").contains("hunter2"));
    drop(journal);
    assert_eq!(mode(path.clone()), 0o700);
    let mut names: Vec<String> =
        fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["journal.key", "journal.lock", "journal.log"]);
    for name in names {
        assert_eq!(mode(path.join(&name)), 0o600, "{name}");
        let bytes = fs::read(path.join(&name)).unwrap();
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let hex = |word: &str| word.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        for word in ["hunter2", "instagram_connections", "sent-", "refresh-"] {
            let mut forms = vec![word.to_owned(), hex(word), hex(word).to_uppercase()];
            // Base64 at each of the three offsets, without the letters that neighbours have a part in.
            for pad in 0..3 {
                let coded =
                    base64::engine::general_purpose::STANDARD_NO_PAD.encode(["?".repeat(pad).as_str(), word].concat());
                forms.push(coded[[0, 2, 3][pad]..coded.len() - 1].to_owned());
            }
            for form in forms {
                assert!(!text.contains(&form), "{form} in {name}");
            }
        }
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = TempDir::new().unwrap();
    drop(FileJournal::open(folder.path(), None).unwrap());
    fs::set_permissions(folder.path().join("journal.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = FileJournal::open(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("mode 0640"), "{error}");
}

#[test]
fn a_folder_is_for_one_process_at_a_time() {
    let folder = TempDir::new().unwrap();
    let journal = FileJournal::open(folder.path(), None).unwrap();
    let other = journal.clone();
    drop(journal);
    let error = FileJournal::open(folder.path(), None).unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    drop(other);
    FileJournal::open(folder.path(), None).unwrap();
}

#[tokio::test]
async fn an_entry_that_no_provider_can_have_sent_is_refused_alone() {
    let plug = Plug::default();
    let journal = plug.open().unwrap();
    let huge = Entry { token: Secret::new("x".repeat(200 * 1024)), ..entry(1) };
    let (refused, written) = tokio::join!(journal.write(huge), journal.write(entry(2)));
    assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    written.unwrap();
    assert_eq!(ids(&plug.after_power_cut().open().unwrap()), ["2"]);
}

/// `cargo test --profile fast journal -- --ignored --nocapture`; the folder is `JOURNAL_BENCH` or a temporary one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the disk it runs on"]
async fn from_answer_to_disk() {
    use crate::clock::{Clock, SystemClock};
    let own = TempDir::new().unwrap();
    let folder = std::env::var("JOURNAL_BENCH").map_or_else(|_| own.path().to_owned(), PathBuf::from);
    let clock = Arc::new(SystemClock::new());
    for writers in [1, 8, 64] {
        let journal = FileJournal::open(&folder.join(writers.to_string()), None).unwrap();
        let one = |writer: u32| {
            let (journal, clock) = (journal.clone(), Arc::clone(&clock));
            tokio::spawn(async move {
                let mut took = Vec::new();
                for number in 0..(8192 / writers) {
                    let entry = Entry { token: Secret::new("x".repeat(200)), ..entry(writer * 10_000 + number) };
                    let before = clock.monotonic();
                    let id = journal.write(entry).await.unwrap();
                    took.push(clock.monotonic() - before);
                    journal.forget(&[id]).await.unwrap();
                }
                took
            })
        };
        let tasks = futures_util::future::join_all((0..writers).map(one)).await;
        let mut took: Vec<_> = tasks.into_iter().flat_map(Result::unwrap).collect();
        took.sort();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        println!("{writers} writers: p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?}", at(0.5), at(0.99), at(0.999), at(1.0));
    }
}

#[tokio::test]
async fn a_log_that_is_removed_under_a_running_process_is_written_anew_and_a_folder_that_is_gone_takes_nothing() {
    let key = Secret::new("a".repeat(64));
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("journal");
    let journal = FileJournal::open(&folder, Some(&key)).unwrap();
    journal.write(entry(1)).await.unwrap();
    fs::remove_file(folder.join("journal.log")).unwrap();
    journal.probe().await.unwrap();
    journal.write(entry(2)).await.unwrap();

    let copy = parent.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(folder.join("journal.log"), copy.join("journal.log")).unwrap();
    assert_eq!(ids(&FileJournal::open(&copy, Some(&key)).unwrap()), ["1", "2"]);

    fs::remove_dir_all(&folder).unwrap();
    journal.probe().await.unwrap_err();
    journal.write(entry(3)).await.unwrap_err();
}
