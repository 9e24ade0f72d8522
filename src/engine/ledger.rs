//! What this process knows of its journal: which answers are still under way, which generations are spent because
//! an answer to them is kept, and which stay although the database has confirmed them.
//!
//! Of providers that punish reuse an answer is kept for a day after it was stored: a standby that takes over may not
//! know the latest commits, and what it has lost exists nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::replay::is_answered;
use perene_policy::{Connection, KeptAnswer};

use crate::journal::{Entry, EntryId, Journal, JournalError};

/// How long an answer is kept that the database has confirmed.
const KEEP: SignedDuration = SignedDuration::from_hours(24);

/// At most so many of them: some 50 MB.
const KEPT_MAX: usize = 50_000;

/// After another server has taken the place of the database's, nothing is sent to strict providers for this long:
/// until then every replica has looked whether its journal knows more than that server does.
pub(super) const SETTLING: SignedDuration = SignedDuration::from_secs(60);

/// An entry of one of the journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    journal: usize,
    id: EntryId,
}

/// The journals of this process: its own, and those of dead ones that it has taken over.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The first is this process's own. A journal that was taken over leaves a gap when it is empty.
    journals: Vec<Option<Arc<dyn Journal>>>,
    known: BTreeMap<Place, Known>,
    /// Which entries are about a connection: table and key.
    by_connection: BTreeMap<(String, String), BTreeSet<Place>>,
    /// The server that answered last.
    incarnation: Option<String>,
    /// Until when strict providers are left alone.
    settling_until: Option<Timestamp>,
    looked_around_at: Option<Timestamp>,
}

struct Known {
    entry: Entry,
    standing: Standing,
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
        let mut inner = self.lock();
        debug_assert!(inner.journals.is_empty(), "a process has one journal");
        inner.take_over(journal);
    }

    /// Takes over, once a minute, what dead processes on this machine have left.
    pub(super) fn look_around(&self, now: Timestamp) {
        let Some(own) = self.own() else { return };
        if self.lock().looked_around_at.is_some_and(|at| now.duration_since(at) < SignedDuration::from_mins(1)) {
            return;
        }
        let found = own.abandoned();
        let mut inner = self.lock();
        inner.looked_around_at = Some(now);
        for journal in found {
            tracing::info!(
                entries = journal.pending().len(),
                "another process has left answers in its journal: they are taken over"
            );
            inner.take_over(journal);
        }
    }

    /// This process's own journal.
    pub(super) fn own(&self) -> Option<Arc<dyn Journal>> {
        self.lock().journals.first().cloned().flatten()
    }

    /// Keeps an answer: on disk when this returns. `None` where there is no journal.
    pub(super) async fn write(&self, entry: Entry) -> Result<Option<Place>, JournalError> {
        let Some(own) = self.own() else { return Ok(None) };
        let id = own.write(entry.clone()).await?;
        let place = Place { journal: 0, id };
        self.lock().insert(place, entry, Standing::UnderWay);
        Ok(Some(place))
    }

    /// Nobody is at these any more, and the database has not confirmed them.
    pub(super) fn let_go(&self, places: impl IntoIterator<Item = Place>) {
        let mut inner = self.lock();
        for place in places {
            inner.stand(place, Standing::Open);
        }
    }

    /// The database has confirmed these, or holds something newer. `keeps`: in case that it forgets.
    pub(super) async fn settle(&self, places: &[Place], keeps: bool) {
        if keeps {
            let mut inner = self.lock();
            places.iter().for_each(|place| inner.stand(*place, Standing::Settled));
        } else {
            self.forget(places).await;
        }
    }

    /// Forgets what has been settled for long enough.
    pub(super) async fn tidy(&self, now: Timestamp) {
        let old: Vec<Place> = {
            let inner = self.lock();
            let settled = inner.known.iter().filter(|(_, known)| known.standing == Standing::Settled);
            let settled: Vec<(Place, Timestamp)> =
                settled.map(|(place, known)| (*place, known.entry.received_at)).collect();
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
    pub(super) fn open_entries(&self, limit: usize) -> Vec<(Place, Entry)> {
        let inner = self.lock();
        let firsts = inner.by_connection.values().filter_map(|places| {
            let known = places.iter().filter_map(|place| Some((*place, inner.known.get(place)?)));
            let unsettled = known.filter(|(_, known)| known.standing != Standing::Settled);
            let (place, first) = unsettled.min_by_key(|(place, known)| (known.entry.received_at, *place))?;
            (first.standing == Standing::Open).then(|| (place, first.entry.clone()))
        });
        firsts.take(limit).collect()
    }

    /// Whether an answer is kept to the generation that the row holds: then it is spent, and must not be sent.
    pub(super) fn has_answer_to(&self, table: &str, row: &Connection) -> bool {
        let inner = self.lock();
        let places = inner.by_connection.get(&(table.to_owned(), row.id.clone()));
        let mut entries = places.into_iter().flatten().filter_map(|place| inner.known.get(place));
        // A provider that gives the same string again has spent nothing.
        entries.any(|known| is_answered(&kept(&known.entry), row) && known.entry.sent != known.entry.token)
    }

    /// Opens again what was settled about this connection: the database holds an older generation.
    pub(super) fn reopen(&self, table: &str, id: &str) {
        let mut inner = self.lock();
        let places = inner.by_connection.get(&(table.to_owned(), id.to_owned())).cloned().unwrap_or_default();
        for place in places {
            inner.reopen(place);
        }
    }

    /// Takes note of the server that answers now; returns whether it is another one than before. Then all that was
    /// settled is to be looked at again, and strict providers are left alone for [`SETTLING`].
    pub(super) fn meet(&self, incarnation: &str, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let before = inner.incarnation.replace(incarnation.to_owned());
        if before.is_none_or(|before| before == incarnation) {
            return false;
        }
        inner.settling_until = Some(perene_policy::backoff::later(now, SETTLING));
        let all: Vec<Place> = inner.known.keys().copied().collect();
        all.into_iter().for_each(|place| inner.reopen(place));
        true
    }

    /// Whether strict providers are to be left alone for now.
    pub(super) fn is_settling(&self, now: Timestamp) -> bool {
        self.lock().settling_until.is_some_and(|until| now < until)
    }

    async fn forget(&self, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let mut by_journal: BTreeMap<usize, Vec<EntryId>> = BTreeMap::new();
        places.iter().for_each(|place| by_journal.entry(place.journal).or_default().push(place.id));
        for (number, ids) in by_journal {
            let journal = self.lock().journals.get(number).cloned().flatten();
            let Some(journal) = journal else { continue };
            if let Err(error) = journal.forget(&ids).await {
                tracing::warn!("an answer that the database has stored stays in the journal: {error}");
            }
        }
        self.lock().remove(places);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take_over(&mut self, journal: Arc<dyn Journal>) {
        let number = self.journals.len();
        let pending = journal.pending();
        self.journals.push(Some(journal));
        for (id, entry) in pending {
            self.insert(Place { journal: number, id }, entry, Standing::Open);
        }
    }

    fn insert(&mut self, place: Place, entry: Entry, standing: Standing) {
        let connection = (entry.table.clone(), entry.id.clone());
        self.by_connection.entry(connection).or_default().insert(place);
        self.known.insert(place, Known { entry, standing });
    }

    fn stand(&mut self, place: Place, standing: Standing) {
        if let Some(known) = self.known.get_mut(&place) {
            known.standing = standing;
        }
    }

    fn reopen(&mut self, place: Place) {
        if let Some(known) = self.known.get_mut(&place).filter(|known| known.standing == Standing::Settled) {
            known.standing = Standing::Open;
        }
    }

    fn remove(&mut self, places: &[Place]) {
        for place in places {
            let Some(Known { entry, .. }) = self.known.remove(place) else { continue };
            let connection = (entry.table, entry.id);
            if let Some(about) = self.by_connection.get_mut(&connection) {
                about.remove(place);
                if about.is_empty() {
                    self.by_connection.remove(&connection);
                }
            }
        }
        // A journal that was taken over and is empty is free for a new process.
        for number in 1..self.journals.len() {
            if !self.known.keys().any(|place| place.journal == number) {
                self.journals[number] = None;
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
