//! The database as one replica reaches it: the store in memory, and everything that can go wrong on the way.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::Connection;
use perene_policy::app::{Alarm, App};
use std::time::Duration;
use uuid::Uuid;

use super::faults::Kind;
use super::time::VirtualClock;
use super::world::{Shared, World, die, lock};
use crate::clock::Clock;
use crate::store::memory::MemoryStore;
use crate::store::{
    Claim, Claimed, Commit, Committed, Finding, FindingKind, HistoryLine, Incarnation, Lease, Outgoing, Recipient,
    Remembered, Settled, Standing, Store, StoreError, StoredAlarm,
};

pub(super) struct Database {
    inner: MemoryStore,
    world: Shared,
    clock: VirtualClock,
    replica: usize,
}

/// What becomes of a statement.
enum Fate {
    Well,
    Dies,
    Fails(StoreError),
}

impl Database {
    pub(super) fn new(world: Shared, clock: VirtualClock, replica: usize) -> Self {
        let inner = lock(&world).store.clone();
        Self { inner, world, clock, replica }
    }

    async fn carry<T>(
        &self,
        call: &'static str,
        is_write: bool,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let takes = lock(&self.world).statement_takes(self.replica);
        if let Some(takes) = takes {
            self.clock.sleep(takes).await;
        }
        let fate = lock(&self.world).before_statement(self.replica, call, is_write);
        match fate {
            Fate::Well => {}
            Fate::Dies => die().await,
            Fate::Fails(error) => return Err(error),
        }
        let result = work.await?;
        let fate = lock(&self.world).after_statement(self.replica, call);
        if let Some(takes) = takes {
            self.clock.sleep(takes / 2).await;
        }
        match fate {
            Fate::Well => {
                if call == "remembered" {
                    let mut world = lock(&self.world);
                    world.replicas[self.replica].swept_at = Some(self.clock.now());
                }
                Ok(result)
            }
            Fate::Dies => die().await,
            Fate::Fails(error) => Err(error),
        }
    }
}

impl World {
    /// How long a statement is on its way; `None`: no time passes, and nobody else comes between.
    fn statement_takes(&mut self, replica: usize) -> Option<Duration> {
        if self.weather.count == 0 {
            return None;
        }
        if self.weather.strikes(Kind::DatabaseSlow, replica) {
            return Some(Duration::from_millis(self.chance.between(500, 4000)));
        }
        if self.is_alone(replica) {
            return None;
        }
        Some(Duration::from_micros(self.chance.between(50, 3000)))
    }

    fn before_statement(&mut self, replica: usize, call: &'static str, is_write: bool) -> Fate {
        if self.weather.count == 0 {
            return Fate::Well;
        }
        // At the commit of an answer that has come, and not of an intent.
        let has_answer = !self.observer.unsettled.is_empty();
        if call == "commit" && has_answer && self.dies_at(replica, Kind::KillBeforeCommit, "before a commit") {
            return Fate::Dies;
        }
        if self.dies_at(replica, Kind::KillAnywhere, call) {
            return Fate::Dies;
        }
        let unreachable = |text: &str| Fate::Fails(StoreError::Unreachable(text.to_owned()));
        let refused = |text: String, may_pass| Fate::Fails(StoreError::Refused { text, may_pass });
        if self.weather.strikes(Kind::DatabaseDown, replica) || self.weather.strikes(Kind::DatabaseCut, replica) {
            self.disturbed_by(call);
            return unreachable("the database cannot be reached: connection refused");
        }
        if self.strikes_one(Kind::StatementLost, replica, 30) {
            self.disturbed_by(call);
            return unreachable("the connection was lost before the statement was sent");
        }
        if is_write && self.weather.strikes(Kind::ReadOnly, replica) {
            self.disturbed_by(call);
            return refused(format!("`{call}` was refused: the database is read-only"), true);
        }
        if is_write && self.weather.strikes(Kind::Rights, replica) {
            self.disturbed_by(call);
            return refused(format!("`{call}` was refused: permission denied"), false);
        }
        if is_write && self.strikes_one(Kind::Deadlock, replica, 100) {
            self.disturbed_by(call);
            return refused(format!("`{call}` was refused: deadlock detected"), true);
        }
        Fate::Well
    }

    /// A message whose delivery could not be noted is sent again, under the same id.
    fn disturbed_by(&mut self, call: &'static str) {
        if call == "settle_outbox" {
            self.is_disturbed = true;
        }
    }

    fn after_statement(&mut self, replica: usize, call: &'static str) -> Fate {
        if self.weather.count == 0 {
            return Fate::Well;
        }
        if call == "commit" && self.dies_at(replica, Kind::KillAfterCommit, "after a commit") {
            return Fate::Dies;
        }
        if self.dies_at(replica, Kind::KillAnywhere, call) {
            return Fate::Dies;
        }
        if self.strikes_one(Kind::AnswerOfCommitLost, replica, 30) {
            self.disturbed_by(call);
            let text = "the connection was lost before the statement was answered".to_owned();
            return Fate::Fails(StoreError::Unreachable(text));
        }
        Fate::Well
    }
}

const READ: bool = false;
const WRITE: bool = true;

macro_rules! carried {
    ($($way:ident $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Store for Database {
            async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
                let is_missing = lock(&self.world).weather.strikes(Kind::ColumnMissing, self.replica);
                if is_missing {
                    let text = "column `token_expires_at` of table `instagram_connections` is missing".to_owned();
                    return Ok(vec![Finding { kind: FindingKind::Missing, text }]);
                }
                self.carry("findings", READ, self.inner.findings()).await
            }

            async fn close(&self) {
                self.inner.close().await;
            }

            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result, StoreError> {
                self.carry(stringify!($name), $way, self.inner.$name($($argument),*)).await
            })*
        }
    };
}

carried! {
    READ now() -> Timestamp;
    READ identity() -> String;
    READ incarnation() -> Incarnation;
    READ migration() -> Vec<String>;
    WRITE migrate() -> Vec<String>;
    READ grants(role: &str) -> Vec<String>;
    WRITE grant(role: &str) -> ();
    READ prepare() -> ();
    WRITE claim(claim: &Claim<'_>) -> Claimed;
    READ peek(claim: &Claim<'_>) -> Vec<Connection>;
    READ count(claim: &Claim<'_>) -> u64;
    WRITE extend(fence: Uuid, until: Timestamp) -> u64;
    WRITE release(leases: &[Lease]) -> ();
    WRITE commit(commits: &[Commit], now: Timestamp) -> Vec<Committed>;
    READ remembered(after: Option<(usize, String)>, limit: usize, now: Timestamp) -> Vec<Remembered>;
    READ app(name: &str) -> Option<(i64, App)>;
    WRITE save_app(name: &str, version: Option<i64>, app: &App) -> bool;
    WRITE set_alarms(subject: &str, alarms: &[Alarm]) -> Vec<Alarm>;
    READ alarms() -> Vec<StoredAlarm>;
    WRITE begin_run(kind: &str, holder: &str, now: Timestamp) -> i64;
    WRITE finish_run(run: i64, report: &str, now: Timestamp) -> ();
    READ last_run() -> Option<Timestamp>;
    READ in_charge_since(source: usize, now: Timestamp) -> Timestamp;
    WRITE take_outbox(limit: usize, now: Timestamp, until: Timestamp) -> Vec<Outgoing>;
    WRITE settle_outbox(id: &str, settled: &Settled, now: Timestamp) -> ();
    READ is_open(incident_id: &str) -> bool;
    READ recipient(source: usize, user_id: &str) -> Option<Recipient>;
    READ standing(windows: &[SignedDuration], soonest: usize, now: Timestamp) -> Standing;
    READ find(source: usize, id: &str) -> Option<Connection>;
    READ history(source: usize, id: &str, limit: usize) -> Vec<HistoryLine>;
    WRITE forget_before(before: Timestamp) -> ();
}
