//! The store in a PostgreSQL database, 13 or newer, also through pgbouncer in transaction mode.
//!
//! Each step is one transaction. It is carried out again, as a database step only, when it collided with
//! another (deadlock, serialization), when its connection was lost, or when the app has changed a table
//! under it: every step can be carried out twice with the effect of once.

mod alarm;
mod app;
mod app_row;
mod claim;
mod commit;
mod connect;
mod findings;
mod flag;
mod grants;
mod guard;
mod history;
mod identity;
mod mapped;
mod memory;
mod migrate;
mod outbox;
mod remembered;
mod row;
mod run;
mod schema;
mod shape;
mod sql;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod trouble;

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::app::{Alarm, App};
use perene_policy::{Connection, Secret};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use self::connect::Connections;
use self::shape::Shape;
use self::trouble::Trouble;
use crate::config::Source;
use crate::store::{
    Claim, Claimed, Commit, Committed, Finding, HistoryLine, Incarnation, Lease, Outgoing, Recipient, Remembered,
    Settled, Standing, Store, StoreError, StoredAlarm,
};

/// A step that has not ended after this is given up, with its connection: the server ends a statement after
/// 30 seconds, so the connection itself is dead.
const STEP_TIMEOUT: Duration = Duration::from_secs(45);

/// As [`STEP_TIMEOUT`], for the steps that look at a whole table.
const SCAN_TIMEOUT: Duration = Duration::from_mins(6);

/// So often a step is carried out again when it collides with others.
const COLLISIONS_MAX: u32 = 5;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    connections: Connections,
    sources: Vec<Source>,
    shapes: RwLock<Vec<Option<Arc<Shape>>>>,
    /// The server does not tell on which timeline it writes.
    is_without_timeline: AtomicBool,
}

impl PostgresStore {
    /// Connects to the database at `url`, for `sources`. Looks at no table yet.
    ///
    /// # Errors
    /// [`StoreError::Mapping`] if the URL cannot be read, [`StoreError::Unreachable`] if the database
    /// cannot be reached, [`StoreError::NotLetIn`] if it does not let us in. No error holds the password.
    pub async fn connect(url: &Secret, sources: Vec<Source>) -> Result<Self, StoreError> {
        let connections = Connections::open(url).await?;
        let shapes = RwLock::new(vec![None; sources.len()]);
        Ok(Self { connections, sources, shapes, is_without_timeline: AtomicBool::default() })
    }

    /// What the catalog says of a source's tables.
    async fn shape(&self, connection: &mut PgConnection, source: usize) -> Result<Arc<Shape>, Trouble> {
        let known = self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(source).cloned().flatten();
        if let Some(shape) = known {
            return Ok(shape);
        }
        let shape = Arc::new(Shape::read(connection, self.source(source)?).await?);
        if let Some(place) = self.shapes.write().unwrap_or_else(PoisonError::into_inner).get_mut(source) {
            *place = Some(Arc::clone(&shape));
        }
        Ok(shape)
    }

    fn source(&self, source: usize) -> Result<&Source, StoreError> {
        let unknown = || StoreError::Mapping(format!("there is no source number {source} in the configuration"));
        self.sources.get(source).ok_or_else(unknown)
    }

    fn forget_shapes(&self) {
        self.shapes.write().unwrap_or_else(PoisonError::into_inner).fill(None);
    }

    /// Carries out `step`, again where that is of use.
    async fn repeat<T, F>(&self, timeout: Duration, mut step: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let (mut collisions, mut was_lost, mut was_stale) = (0, false, false);
        loop {
            let trouble = match tokio::time::timeout(timeout, step()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::Sql(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            };
            if trouble.is_collision() && collisions < COLLISIONS_MAX {
                collisions += 1;
                tokio::time::sleep(Duration::from_millis(10) * 2_u32.pow(collisions)).await;
            } else if trouble.is_lost_connection() && !was_lost {
                was_lost = true;
            } else if trouble.is_stale_shape() && !was_stale {
                was_stale = true;
                self.forget_shapes();
            } else {
                if trouble.is_stale_shape() {
                    self.forget_shapes();
                }
                return Err(self.connections.place.tell(trouble));
            }
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.now_once()).await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.identity_once()).await
    }

    async fn incarnation(&self) -> Result<Incarnation, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.incarnation_once()).await
    }

    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.findings_once()).await
    }

    async fn migration(&self) -> Result<Vec<String>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.migration_once()).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let migrated = self.migrate_all().await;
        self.forget_shapes();
        migrated.map_err(|trouble| self.connections.place.tell(trouble))
    }

    async fn grants(&self, role: &str) -> Result<Vec<String>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.grants_once(role)).await
    }

    async fn grant(&self, role: &str) -> Result<(), StoreError> {
        self.repeat(STEP_TIMEOUT, || self.grant_once(role)).await
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.repeat(STEP_TIMEOUT, || self.prepare_once()).await
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.claim_once(claim)).await
    }

    async fn peek(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.peek_once(claim)).await
    }

    async fn count(&self, claim: &Claim<'_>) -> Result<u64, StoreError> {
        self.repeat(SCAN_TIMEOUT, || self.count_once(claim)).await
    }

    async fn extend(&self, fence: Uuid, until: Timestamp) -> Result<u64, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.extend_once(fence, until)).await
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), StoreError> {
        self.repeat(STEP_TIMEOUT, || self.release_once(leases)).await
    }

    async fn commit(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.commit_once(commits, now)).await
    }

    async fn remembered(
        &self,
        after: Option<(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.remembered_once(after.as_ref(), limit, now)).await
    }

    async fn app(&self, name: &str) -> Result<Option<(i64, App)>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.app_once(name)).await
    }

    async fn save_app(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.save_app_once(name, version, app)).await
    }

    async fn set_alarms(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.set_alarms_once(subject, alarms)).await
    }

    async fn alarms(&self) -> Result<Vec<StoredAlarm>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.alarms_once()).await
    }

    async fn begin_run(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.begin_run_once(kind, holder, now)).await
    }

    async fn finish_run(&self, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError> {
        self.repeat(STEP_TIMEOUT, || self.finish_run_once(run, report, now)).await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.last_run_once()).await
    }

    async fn in_charge_since(&self, source: usize, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.in_charge_since_once(source, now)).await
    }

    async fn take_outbox(&self, limit: usize, now: Timestamp, until: Timestamp) -> Result<Vec<Outgoing>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.take_outbox_once(limit, now, until)).await
    }

    async fn settle_outbox(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError> {
        self.repeat(STEP_TIMEOUT, || self.settle_outbox_once(id, settled, now)).await
    }

    async fn is_open(&self, incident_id: &str) -> Result<bool, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.is_open_once(incident_id)).await
    }

    async fn recipient(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.recipient_once(source, user_id)).await
    }

    async fn standing(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        self.repeat(SCAN_TIMEOUT, || self.standing_once(windows, soonest, now)).await
    }

    async fn find(&self, source: usize, id: &str) -> Result<Option<Connection>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.find_once(source, id)).await
    }

    async fn history(&self, source: usize, id: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        self.repeat(STEP_TIMEOUT, || self.history_once(source, id, limit)).await
    }

    async fn forget_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.repeat(SCAN_TIMEOUT, || self.forget_once(before)).await
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}
