//! The store without a database: for tests and for the simulation, under the same contract as the others.
//!
//! It does no I/O, and every call is done at once; nothing in it is random, and nothing depends on an order
//! that is not written down. `now` is the one of the clock that it is given: the database's own. What the
//! app does to its tables, and what an observer sees, are methods of [`MemoryStore`] itself.
//!
//! What a claim or a sweep costs depends on what it hands out, not on what there is: expiries and retry
//! times are indexed.

mod app;
mod changes;
mod claim;
mod commit;
mod flag;
mod history;
mod key;
mod observe;
mod outbox;
mod remembered;
mod row;
mod run;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::app::{Alarm, App};
use perene_policy::{Connection, Grant};
use uuid::Uuid;

use super::{
    Claim, Claimed, Commit, Committed, Finding, HistoryLine, Incarnation, Lease, Outgoing, Recipient, Remembered,
    Settled, Standing, Store, StoreError, StoredAlarm,
};
use crate::clock::Clock;
use crate::config::Source;
use key::Key;
use table::Table;

pub use changes::{Change, Snapshot};
pub use observe::{LeaseRow, MemoryRow, OutboxRow, RunRow, Settlement};
pub use row::{AppRow, UserRow};

/// A store in memory. Clones, and what [`MemoryStore::replica`] gives, share their contents.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    sources: Arc<[Mapped]>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// A source, and where its tables are.
#[derive(Debug)]
struct Mapped {
    source: Source,
    table: usize,
    users: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// By the tables' names: which sources there are, and in which order, may differ between replicas.
    table_numbers: BTreeMap<String, usize>,
    tables: Vec<Table>,
    user_numbers: BTreeMap<String, usize>,
    users: Vec<flag::Users>,
    /// Which connections an incident is open on.
    incidents: BTreeSet<(String, usize, Key)>,
    history: history::Order,
    outbox: outbox::Outbox,
    apps: BTreeMap<String, (i64, App)>,
    alarms: BTreeMap<(String, String), (Timestamp, String)>,
    runs: BTreeMap<i64, RunRow>,
    /// Runs that are finished, by their beginning: each look of a service asks for the latest.
    finished: BTreeSet<(Timestamp, i64)>,
    /// The last number that was given to a version, a run or a line: none is given twice.
    last_number: u64,
    findings: Vec<Finding>,
    /// How often another server has taken the place of the one before.
    incarnation: u64,
    /// Those that were seen, and since when in another one's place.
    servers: BTreeMap<u64, Option<Timestamp>>,
    /// Since when Perene is in charge of a table.
    in_charge_since: BTreeMap<usize, Timestamp>,
    /// What has changed since somebody looked; `None` where nobody looks.
    changes: Option<Vec<Change>>,
}

impl MemoryStore {
    /// An empty database whose time is `clock`'s, with the tables of `sources`.
    pub fn new(clock: Arc<dyn Clock>, sources: Vec<Source>) -> Self {
        let shared = Arc::new(Shared { clock, state: Mutex::default() });
        Self { shared, sources: Arc::new([]) }.replica(sources)
    }

    /// The same database, as another replica opens it: its sources may be others. Tables that are not there
    /// are made, empty.
    pub fn replica(&self, sources: Vec<Source>) -> Self {
        let mut state = self.lock();
        let sources = sources.into_iter().map(|source| state.map(source)).collect();
        drop(state);
        Self { shared: Arc::clone(&self.shared), sources }
    }

    /// Makes [`Store::findings`] give these from now on.
    pub fn pretend(&self, findings: Vec<Finding>) {
        self.lock().findings = findings;
    }

    /// Another server takes the place of this one: see [`Store::incarnation`].
    pub fn be_taken_over(&self) {
        self.lock().incarnation += 1;
    }

    fn mapped(&self, source: usize) -> &Mapped {
        &self.sources[source]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mapped {
    fn grant(&self, token: &str) -> Grant {
        if self.source.provider == crate::config::META { Grant::of_meta_token(token) } else { Grant::Oauth2 }
    }
}

impl State {
    fn map(&mut self, source: Source) -> Mapped {
        let table = *self.table_numbers.entry(source.table.to_string()).or_insert_with(|| {
            self.tables.push(Table::default());
            self.tables.len() - 1
        });
        let users = source.user.as_ref().map(|user| {
            *self.user_numbers.entry(user.table.to_string()).or_insert_with(|| {
                self.users.push(flag::Users::default());
                self.users.len() - 1
            })
        });
        Mapped { source, table, users }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn signed_number(&mut self) -> i64 {
        i64::try_from(self.number()).unwrap_or(i64::MAX)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(row::floor(self.shared.clock.now()))
    }

    async fn identity(&self) -> Result<String, StoreError> {
        Ok("memory".to_owned())
    }

    async fn incarnation(&self) -> Result<Incarnation, StoreError> {
        let now = row::floor(self.shared.clock.now());
        let mut state = self.lock();
        let name = state.incarnation;
        let is_first = state.servers.is_empty();
        let since = *state.servers.entry(name).or_insert_with(|| (!is_first).then_some(now));
        Ok(Incarnation { process: name.to_string(), since })
    }

    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        Ok(self.lock().findings.clone())
    }

    async fn migration(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn grants(&self, _role: &str) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn grant(&self, _role: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        Ok(claim::claim(&mut self.lock(), self.mapped(claim.source), claim))
    }

    async fn peek(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, StoreError> {
        Ok(claim::peek(&self.lock(), self.mapped(claim.source), claim))
    }

    async fn count(&self, claim: &Claim<'_>) -> Result<u64, StoreError> {
        Ok(claim::count(&self.lock(), self.mapped(claim.source), claim))
    }

    async fn extend(&self, fence: Uuid, until: Timestamp) -> Result<u64, StoreError> {
        Ok(claim::extend(&mut self.lock(), fence, until))
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), StoreError> {
        let mut state = self.lock();
        for lease in leases {
            claim::release(&mut state.tables[self.mapped(lease.source).table], &Key::of(&lease.id), lease.fence);
        }
        Ok(())
    }

    async fn commit(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, StoreError> {
        let mut state = self.lock();
        Ok(commits.iter().map(|commit| commit::commit(&mut state, self.mapped(commit.source), commit, now)).collect())
    }

    async fn remembered(
        &self,
        after: Option<(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError> {
        Ok(remembered::page(&self.lock(), &self.sources, after, limit, now))
    }

    async fn app(&self, name: &str) -> Result<Option<(i64, App)>, StoreError> {
        Ok(self.lock().apps.get(name).cloned())
    }

    async fn save_app(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError> {
        let mut state = self.lock();
        let is_saved = state.save_app(name, version, app);
        if is_saved {
            state.changed(|| Change::App(name.to_owned()));
        }
        Ok(is_saved)
    }

    async fn set_alarms(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError> {
        let mut state = self.lock();
        let before = state.alarms.len();
        let raised = state.set_alarms(subject, alarms);
        if !raised.is_empty() || before != state.alarms.len() {
            state.changed(|| Change::Alarms);
        }
        Ok(raised)
    }

    async fn alarms(&self) -> Result<Vec<StoredAlarm>, StoreError> {
        Ok(self.lock().standing_alarms())
    }

    async fn begin_run(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError> {
        let mut state = self.lock();
        let run = state.begin_run(kind, holder, now);
        state.changed(|| Change::RunBegun(run));
        Ok(run)
    }

    async fn finish_run(&self, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.finish_run(run, report, now);
        state.changed(|| Change::RunFinished(run));
        Ok(())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock().last_run())
    }

    async fn in_charge_since(&self, source: usize, now: Timestamp) -> Result<Timestamp, StoreError> {
        let table = self.mapped(source).table;
        Ok(*self.lock().in_charge_since.entry(table).or_insert(now))
    }

    async fn take_outbox(&self, limit: usize, now: Timestamp, until: Timestamp) -> Result<Vec<Outgoing>, StoreError> {
        Ok(self.lock().outbox.take(&self.sources, limit, now, until))
    }

    async fn settle_outbox(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.outbox.settle(id, settled, now);
        state.changed(|| Change::Message(id.to_owned()));
        Ok(())
    }

    async fn is_open(&self, incident_id: &str) -> Result<bool, StoreError> {
        let from = (incident_id.to_owned(), 0, Key::FIRST);
        Ok(self.lock().incidents.range(from..).next().is_some_and(|(open, ..)| open == incident_id))
    }

    async fn recipient(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, StoreError> {
        let Mapped { source, users, .. } = self.mapped(source);
        let (Some(users), Some(columns)) = (users, &source.user) else { return Ok(None) };
        let state = self.lock();
        Ok(state.users[*users].rows.get(user_id).map(|user| Recipient {
            email: user.email.clone(),
            username: columns.username.as_ref().and(user.username.clone()),
        }))
    }

    async fn standing(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        Ok(status::standing(&self.lock(), &self.sources, windows, soonest, now))
    }

    async fn find(&self, source: usize, id: &str) -> Result<Option<Connection>, StoreError> {
        let mapped = self.mapped(source);
        Ok(self.lock().tables[mapped.table].connection(mapped, &Key::of(id)))
    }

    async fn history(&self, source: usize, id: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        let state = self.lock();
        let lines = state.tables[self.mapped(source).table].history.get(&Key::of(id));
        Ok(lines.into_iter().flat_map(|lines| lines.values().rev()).take(limit).cloned().collect())
    }

    async fn forget_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.lock().forget_before(before);
        Ok(())
    }

    async fn close(&self) {}
}
