//! The store for SQLite: one file, one writer at a time, and as many processes as like.
//!
//! Whoever writes takes the write lock first (`BEGIN IMMEDIATE`) and waits for it up to ten seconds, so a
//! second process on the same file works rightly; leases keep the two apart over the time of a call. The
//! file is in WAL mode: reading waits for nobody. Every commit reaches the disk before it is confirmed
//! (`synchronous = FULL`), since a token that was issued cannot be had again.

mod alarm;
mod app;
mod app_row;
mod claim;
mod commit;
mod connect;
mod findings;
mod flag;
mod history;
mod lease;
mod migrate;
mod outbox;
mod page;
mod remembered;
mod row;
mod run;
mod schema;
mod shape;
mod sql;
mod status;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::Connection;
use perene_policy::app::{Alarm, App};
use uuid::Uuid;

use super::{
    Claim, Claimed, Commit, Committed, Finding, HistoryLine, Incarnation, Lease, Outgoing, Recipient, Remembered,
    Settled, Standing, Store, StoreError, StoredAlarm,
};
use crate::clock::Clock;
use crate::config::Source;
use connect::Database;
use sql::Mapped;

/// The connections of one SQLite file.
pub struct SqliteStore {
    database: Database,
    sources: Vec<Mapped>,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens a file, or a database in memory where `path` is `:memory:`. A file that is not there is made
    /// only if `create` says so. The file is not changed before the first call that writes.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such file, [`StoreError::Unreachable`] if it cannot be opened
    /// or is no SQLite database.
    pub async fn open(
        path: &Path,
        sources: Vec<Source>,
        clock: Arc<dyn Clock>,
        create: bool,
    ) -> Result<Self, StoreError> {
        let database = Database::open(path, create).await?;
        Ok(Self { database, sources: sources.into_iter().map(Mapped::new).collect(), clock })
    }

    /// The source at this place of the configuration.
    fn source(&self, source: usize) -> Result<&Mapped, StoreError> {
        self.sources
            .get(source)
            .ok_or_else(|| StoreError::Mapping(format!("there is no source number {source} in the configuration")))
    }
}

#[async_trait]
impl Store for SqliteStore {
    // SQLite has no time of its own: the file's time is that of the machine on which it lies.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn identity(&self) -> Result<String, StoreError> {
        schema::identity(&self.database).await
    }

    // No other server takes the place of a file.
    async fn incarnation(&self) -> Result<Incarnation, StoreError> {
        Ok(Incarnation { process: String::new(), since: None })
    }

    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        findings::findings(&self.database, &self.sources).await
    }

    async fn migration(&self) -> Result<Vec<String>, StoreError> {
        migrate::plan(&self.database, &self.sources).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        migrate::migrate(&self.database, &self.sources).await
    }

    async fn grants(&self, _role: &str) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn grant(&self, _role: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        schema::prepare(&self.database).await
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        claim::claim(&self.database, self.source(claim.source)?, claim).await
    }

    async fn peek(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, StoreError> {
        claim::peek(&self.database, self.source(claim.source)?, claim).await
    }

    async fn count(&self, claim: &Claim<'_>) -> Result<u64, StoreError> {
        claim::count(&self.database, self.source(claim.source)?, claim).await
    }

    async fn extend(&self, fence: Uuid, until: Timestamp) -> Result<u64, StoreError> {
        lease::extend(&self.database, fence, until).await
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), StoreError> {
        lease::release(&self.database, &self.sources, leases).await
    }

    async fn commit(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, StoreError> {
        commit::commit(&self.database, &self.sources, commits, now).await
    }

    async fn remembered(
        &self,
        after: Option<(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError> {
        remembered::remembered(&self.database, &self.sources, after, limit, now).await
    }

    async fn app(&self, name: &str) -> Result<Option<(i64, App)>, StoreError> {
        app::app(&self.database, name).await
    }

    async fn save_app(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError> {
        app::save(&self.database, name, version, app).await
    }

    async fn set_alarms(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError> {
        alarm::set(&self.database, subject, alarms).await
    }

    async fn alarms(&self) -> Result<Vec<StoredAlarm>, StoreError> {
        alarm::all(&self.database).await
    }

    async fn begin_run(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError> {
        run::begin(&self.database, kind, holder, now).await
    }

    async fn finish_run(&self, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError> {
        run::finish(&self.database, run, report, now).await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        run::last(&self.database).await
    }

    async fn in_charge_since(&self, source: usize, now: Timestamp) -> Result<Timestamp, StoreError> {
        schema::in_charge_since(&self.database, self.source(source)?, now).await
    }

    async fn take_outbox(&self, limit: usize, now: Timestamp, until: Timestamp) -> Result<Vec<Outgoing>, StoreError> {
        outbox::take(&self.database, &self.sources, limit, now, until).await
    }

    async fn settle_outbox(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError> {
        outbox::settle(&self.database, id, settled, now).await
    }

    async fn is_open(&self, incident_id: &str) -> Result<bool, StoreError> {
        remembered::is_open(&self.database, incident_id).await
    }

    async fn recipient(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, StoreError> {
        status::recipient(&self.database, self.source(source)?, user_id).await
    }

    async fn standing(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        status::standing(&self.database, &self.sources, windows, soonest, now).await
    }

    async fn find(&self, source: usize, id: &str) -> Result<Option<Connection>, StoreError> {
        status::find(&self.database, self.source(source)?, id).await
    }

    async fn history(&self, source: usize, id: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        history::of(&self.database, self.source(source)?, id, limit).await
    }

    async fn forget_before(&self, before: Timestamp) -> Result<(), StoreError> {
        history::forget_before(&self.database, before).await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
