//! What this process knows of its journal: which answers are still under way, which generations are spent because
//! an answer to them is kept, and which stay although the database has confirmed them.
//!
//! Of providers that punish reuse an answer is kept for a day after it was stored: a standby that takes over may not
//! know the latest commits, and what it has lost exists nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::backoff::later;
use perene_policy::planted::{self, Bug};
use perene_policy::replay::is_answered;
use perene_policy::{Connection, KeptAnswer};

use super::refusals;
use crate::journal::{Entry, EntryId, Journal, JournalError};
use crate::store::Incarnation;

/// How long an answer is kept that the database has confirmed.
const KEEP: SignedDuration = SignedDuration::from_hours(24);

/// At most so many of them: some 50 MB.
const KEPT_MAX: usize = 50_000;

/// After another server has taken the place of the database's, nothing is sent to strict providers for this long:
/// until then every replica has looked whether its journal knows more than that server does, also one that has to wait
/// for a lease that the server still has and that nobody holds any more.
pub(super) const SETTLING: SignedDuration = SignedDuration::from_secs(120);

/// The journal of this process, and what is known of its entries.
#[derive(Default)]
pub(super) struct Ledger {
    journal: OnceLock<Arc<dyn Journal>>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<EntryId, Known>,
    /// Which entries are about a connection: table and key.
    by_connection: BTreeMap<(String, String), BTreeSet<EntryId>>,
    /// The process of the server that answered last.
    process: Option<String>,
    /// Until when strict providers are left alone.
    settling_until: Option<Timestamp>,
    looked_around_at: Option<Timestamp>,
    /// Since when the journal takes nothing, and why.
    trouble: Option<(Timestamp, String)>,
}

struct Known {
    entry: Entry,
    standing: Standing,
    /// How often the database has refused it, and until when it is left alone for that.
    refused: u32,
    put_off_until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its call is under way here: the decision about it is still to be committed.
    UnderWay,
    /// Nobody is at it: it is to be replayed.
    Open,
    /// The database has confirmed or superseded it; it is kept in case that the database forgets.
    Settled,
}

impl Ledger {
    /// From now on answers are kept in `journal`. What it holds already is to be replayed.
    pub(super) fn open(&self, journal: Arc<dyn Journal>) {
        let pending = journal.pending();
        let is_first = self.journal.set(journal).is_ok();
        debug_assert!(is_first, "a process has one journal");
        let mut inner = self.lock();
        pending.into_iter().for_each(|(id, entry)| inner.insert(id, entry, Standing::Open));
    }

    /// Takes over, once a minute, what dead processes on this machine have left: into this process's own journal, so
    /// that theirs is free for a new one. Whoever dies in between leaves an entry twice, which harms nothing.
    pub(super) async fn look_around(&self, now: Timestamp) {
        let Some(own) = self.own() else { return };
        {
            let mut inner = self.lock();
            if inner.looked_around_at.is_some_and(|at| now.duration_since(at) < SignedDuration::from_mins(1)) {
                return;
            }
            inner.looked_around_at = Some(now);
        }
        for journal in own.abandoned() {
            let mut taken = Vec::new();
            for (id, entry) in journal.pending() {
                match own.write(entry.clone()).await {
                    Ok(new) => {
                        self.lock().insert(new, entry, Standing::Open);
                        taken.push(id);
                    }
                    Err(error) => {
                        tracing::error!("what another process has left cannot be taken over: {error}");
                        break;
                    }
                }
            }
            tracing::info!(entries = taken.len(), "took over answers from the journal of a process that is gone");
            if let Err(error) = journal.forget(&taken).await {
                tracing::warn!("what was taken over stays in the other journal too: {error}");
            }
        }
    }

    /// This process's own journal.
    pub(super) fn own(&self) -> Option<Arc<dyn Journal>> {
        self.journal.get().cloned()
    }

    /// Keeps an answer: on disk when this returns. `None` where there is no journal.
    pub(super) async fn write(&self, entry: Entry) -> Result<Option<EntryId>, JournalError> {
        let Some(own) = self.own().filter(|_| !planted::has(Bug::NoJournal)) else { return Ok(None) };
        let received_at = entry.received_at;
        let written = own.write(entry.clone()).await;
        self.note_trouble(written.as_ref().err(), received_at);
        let id = written?;
        self.lock().insert(id, entry, Standing::UnderWay);
        Ok(Some(id))
    }

    /// Whether an answer could be kept now.
    pub(super) async fn probe(&self, now: Timestamp) -> Result<(), JournalError> {
        let own = self.own().ok_or(JournalError::Stopped)?;
        let probed = own.probe().await;
        self.note_trouble(probed.as_ref().err(), now);
        probed
    }

    /// Since when the journal takes nothing, and why.
    pub(super) fn trouble(&self) -> Option<(Timestamp, String)> {
        self.lock().trouble.clone()
    }

    fn note_trouble(&self, error: Option<&JournalError>, now: Timestamp) {
        let mut inner = self.lock();
        match error {
            Some(error) => drop(inner.trouble.get_or_insert_with(|| (now, error.to_string()))),
            None => inner.trouble = None,
        }
    }

    /// Nobody is at these any more, and the database has not confirmed them.
    pub(super) fn let_go(&self, ids: impl IntoIterator<Item = EntryId>) {
        let mut inner = self.lock();
        for id in ids {
            inner.stand(id, Standing::Open);
        }
    }

    /// The database has confirmed these, or holds something newer. `keeps`: in case that it forgets.
    pub(super) async fn settle(&self, ids: &[EntryId], keeps: bool) {
        if keeps {
            let mut inner = self.lock();
            ids.iter().for_each(|id| inner.stand(*id, Standing::Settled));
        } else {
            self.forget(ids).await;
        }
    }

    /// Forgets what has been settled for long enough.
    pub(super) async fn tidy(&self, now: Timestamp) {
        let old: Vec<EntryId> = {
            let inner = self.lock();
            let settled = inner.known.iter().filter(|(_, known)| known.standing == Standing::Settled);
            let settled: Vec<(EntryId, Timestamp)> =
                settled.map(|(id, known)| (*id, known.entry.received_at)).collect();
            let too_many = settled.len().saturating_sub(KEPT_MAX);
            let is_old = |at: &Timestamp| now.duration_since(*at) > KEEP;
            settled
                .iter()
                .enumerate()
                .filter(|(n, (_, at))| *n < too_many || is_old(at))
                .map(|(_, (p, _))| *p)
                .collect()
        };
        self.forget(&old).await;
    }

    /// What is to be replayed, oldest first: of each connection the oldest alone, for the later ones build on it.
    pub(super) fn open_entries(&self, limit: usize, now: Timestamp) -> Vec<(EntryId, Entry)> {
        let inner = self.lock();
        let firsts = inner.by_connection.values().filter_map(|ids| {
            let known = ids.iter().filter_map(|id| Some((*id, inner.known.get(id)?)));
            let unsettled = known.filter(|(_, known)| known.standing != Standing::Settled);
            let (id, first) = unsettled.min_by_key(|(id, known)| (known.entry.received_at, *id))?;
            let is_put_off = first.put_off_until.is_some_and(|until| now < until);
            (first.standing == Standing::Open && !is_put_off).then(|| (id, first.entry.clone()))
        });
        firsts.take(limit).collect()
    }

    /// The database has refused it: it is tried again, and ever more rarely, for each try writes a line of history.
    pub(super) fn put_off(&self, id: EntryId, now: Timestamp) {
        if let Some(known) = self.lock().known.get_mut(&id) {
            known.put_off_until = Some(later(now, refusals::pause(known.refused)));
            known.refused = known.refused.saturating_add(1);
        }
    }

    /// Whether an answer is kept to the generation that the row holds: then it is spent, and must not be sent.
    pub(super) fn has_answer_to(&self, table: &str, row: &Connection) -> bool {
        let inner = self.lock();
        let ids = inner.by_connection.get(&(table.to_owned(), row.id.clone()));
        let mut entries = ids.into_iter().flatten().filter_map(|id| inner.known.get(id));
        // A provider that gives the same string again has spent nothing.
        entries.any(|known| {
            let entry = &known.entry;
            let is_new_refresh = entry.refresh_token.is_some() && entry.refresh_token != entry.sent_refresh;
            is_answered(&kept(entry), row) && (entry.sent != entry.token || is_new_refresh)
        })
    }

    /// Opens again what was settled about this connection: the database holds an older generation.
    pub(super) fn reopen(&self, table: &str, id: &str) {
        let mut inner = self.lock();
        let ids = inner.by_connection.get(&(table.to_owned(), id.to_owned())).cloned().unwrap_or_default();
        for id in ids {
            inner.reopen(id);
        }
    }

    /// Takes note of the server that answers now; returns whether its process is another one than before. Then all that
    /// was settled is to be looked at again. If it has taken another one's place, strict providers are left alone for
    /// [`SETTLING`], also by a process that was started meanwhile.
    pub(super) fn meet(&self, incarnation: Incarnation, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let Incarnation { process, since } = incarnation;
        // A clock that was ahead when it was put on record must not hold anybody up.
        inner.settling_until =
            since.map(|since| later(since, SETTLING)).filter(|until| *until <= later(now, SETTLING * 2));
        let before = inner.process.replace(process);
        if before.is_none() || before == inner.process {
            return false;
        }
        let all: Vec<EntryId> = inner.known.keys().copied().collect();
        all.into_iter().for_each(|id| inner.reopen(id));
        true
    }

    /// Whether strict providers are to be left alone for now.
    pub(super) fn is_settling(&self, now: Timestamp) -> bool {
        self.lock().settling_until.is_some_and(|until| now < until)
    }

    async fn forget(&self, ids: &[EntryId]) {
        let Some(own) = self.own().filter(|_| !ids.is_empty()) else { return };
        if let Err(error) = own.forget(ids).await {
            tracing::warn!("an answer that the database has stored stays in the journal: {error}");
        }
        self.lock().remove(ids);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, id: EntryId, entry: Entry, standing: Standing) {
        let connection = (entry.table.clone(), entry.id.clone());
        self.by_connection.entry(connection).or_default().insert(id);
        self.known.insert(id, Known { entry, standing, refused: 0, put_off_until: None });
    }

    fn stand(&mut self, id: EntryId, standing: Standing) {
        if let Some(known) = self.known.get_mut(&id) {
            known.standing = standing;
        }
    }

    fn reopen(&mut self, id: EntryId) {
        if let Some(known) = self.known.get_mut(&id).filter(|known| known.standing == Standing::Settled) {
            known.standing = Standing::Open;
        }
    }

    fn remove(&mut self, ids: &[EntryId]) {
        for id in ids {
            let Some(Known { entry, .. }) = self.known.remove(id) else { continue };
            let connection = (entry.table, entry.id);
            if let Some(about) = self.by_connection.get_mut(&connection) {
                about.remove(id);
                if about.is_empty() {
                    self.by_connection.remove(&connection);
                }
            }
        }
    }
}

/// An entry, as decisions look at it.
pub(super) fn kept(entry: &Entry) -> KeptAnswer<'_> {
    KeptAnswer {
        sent: &entry.sent,
        sent_refresh: entry.sent_refresh.as_ref(),
        token: &entry.token,
        refresh_token: entry.refresh_token.as_ref(),
        expires_at: entry.expires_at,
    }
}
