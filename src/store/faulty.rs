//! A store that fails when it is told to: for tests and for the simulation.
//!
//! It wraps any [`Store`] and asks a [`FaultPlan`] before each call. Nothing in it is random: chance, and what
//! happens meanwhile in the app's tables, are the plan's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::Connection;
use perene_policy::app::{Alarm, App};
use uuid::Uuid;

use super::{
    Claim, Claimed, Commit, Committed, Finding, HistoryLine, Incarnation, Lease, Outgoing, Recipient, Remembered,
    Settled, Standing, Store, StoreError, StoredAlarm,
};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out.
    #[default]
    None,
    /// It fails, and nothing has happened.
    Before,
    /// It is carried out, and the answer is lost.
    After,
    /// It fails in a way that does not pass by itself: a right was taken away.
    Refused,
}

/// Decides what becomes of each call. `call` is the method's name, `count` how many calls of that method
/// there have been, this one included.
pub trait FaultPlan: Send + Sync + 'static {
    /// Asked before the call. What it does itself (a row that the app changes just now) happens before it.
    fn before(&self, call: &'static str, count: u64) -> Fault;
}

impl<F: Fn(&'static str, u64) -> Fault + Send + Sync + 'static> FaultPlan for F {
    fn before(&self, call: &'static str, count: u64) -> Fault {
        self(call, count)
    }
}

/// How the database as a whole is, whatever the plan says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// Well.
    #[default]
    Well,
    /// It takes reads and refuses writes: a standby that is not promoted yet.
    ReadOnly,
    /// Nobody reaches it.
    Unreachable,
}

/// A store that fails when it is told to. Clones share their condition and their counts.
pub struct FaultyStore<S> {
    inner: S,
    told: Arc<Told>,
}

struct Told {
    plan: Box<dyn FaultPlan>,
    condition: AtomicU8,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl<S: Clone> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), told: Arc::clone(&self.told) }
    }
}

impl<S: Store> FaultyStore<S> {
    /// Puts faults around a store.
    pub fn new(inner: S, plan: impl FaultPlan) -> Self {
        let told = Told { plan: Box::new(plan), condition: AtomicU8::new(0), counts: Mutex::default() };
        Self { inner, told: Arc::new(told) }
    }

    /// The store without faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// From now on the database is in this condition.
    pub fn set(&self, condition: Condition) {
        self.told.condition.store(condition as u8, Ordering::SeqCst);
    }

    /// How often a method has been called.
    pub fn calls(&self, call: &str) -> u64 {
        self.told.counts.lock().unwrap_or_else(PoisonError::into_inner).get(call).copied().unwrap_or(0)
    }

    /// Carries a call out, or not.
    async fn carry<T>(
        &self,
        call: &'static str,
        is_write: bool,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let count = {
            let mut counts = self.told.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(call).or_default();
            *count += 1;
            *count
        };
        let fault = self.told.plan.before(call, count);
        let condition = self.told.condition.load(Ordering::SeqCst);
        if condition == Condition::Unreachable as u8 {
            return Err(StoreError::Unreachable("the database cannot be reached: connection refused".to_owned()));
        }
        if condition == Condition::ReadOnly as u8 && is_write {
            let text = format!("`{call}` was refused: the database is read-only");
            return Err(StoreError::Refused { text, may_pass: true });
        }
        match fault {
            Fault::None => work.await,
            Fault::Before => Err(StoreError::Unreachable(format!("the connection was lost before `{call}` was sent"))),
            Fault::After => {
                work.await?;
                Err(StoreError::Unreachable(format!("the connection was lost before `{call}` was answered")))
            }
            Fault::Refused => {
                Err(StoreError::Refused { text: format!("`{call}` was refused: permission denied"), may_pass: false })
            }
        }
    }
}

const READ: bool = false;
const WRITE: bool = true;

#[async_trait]
impl<S: Store> Store for FaultyStore<S> {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.carry("now", READ, self.inner.now()).await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.carry("identity", READ, self.inner.identity()).await
    }

    async fn incarnation(&self) -> Result<Incarnation, StoreError> {
        self.carry("incarnation", READ, self.inner.incarnation()).await
    }

    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        self.carry("findings", READ, self.inner.findings()).await
    }

    async fn migration(&self) -> Result<Vec<String>, StoreError> {
        self.carry("migration", READ, self.inner.migration()).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.carry("migrate", WRITE, self.inner.migrate()).await
    }

    async fn grants(&self, role: &str) -> Result<Vec<String>, StoreError> {
        self.carry("grants", READ, self.inner.grants(role)).await
    }

    async fn grant(&self, role: &str) -> Result<(), StoreError> {
        self.carry("grant", WRITE, self.inner.grant(role)).await
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.carry("prepare", READ, self.inner.prepare()).await
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        self.carry("claim", WRITE, self.inner.claim(claim)).await
    }

    async fn peek(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, StoreError> {
        self.carry("peek", READ, self.inner.peek(claim)).await
    }

    async fn count(&self, claim: &Claim<'_>) -> Result<u64, StoreError> {
        self.carry("count", READ, self.inner.count(claim)).await
    }

    async fn extend(&self, fence: Uuid, until: Timestamp) -> Result<u64, StoreError> {
        self.carry("extend", WRITE, self.inner.extend(fence, until)).await
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), StoreError> {
        self.carry("release", WRITE, self.inner.release(leases)).await
    }

    async fn commit(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, StoreError> {
        self.carry("commit", WRITE, self.inner.commit(commits, now)).await
    }

    async fn remembered(
        &self,
        after: Option<(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.carry("remembered", READ, self.inner.remembered(after, limit, now)).await
    }

    async fn app(&self, name: &str) -> Result<Option<(i64, App)>, StoreError> {
        self.carry("app", READ, self.inner.app(name)).await
    }

    async fn save_app(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError> {
        self.carry("save_app", WRITE, self.inner.save_app(name, version, app)).await
    }

    async fn set_alarms(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError> {
        self.carry("set_alarms", WRITE, self.inner.set_alarms(subject, alarms)).await
    }

    async fn alarms(&self) -> Result<Vec<StoredAlarm>, StoreError> {
        self.carry("alarms", READ, self.inner.alarms()).await
    }

    async fn begin_run(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError> {
        self.carry("begin_run", WRITE, self.inner.begin_run(kind, holder, now)).await
    }

    async fn finish_run(&self, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError> {
        self.carry("finish_run", WRITE, self.inner.finish_run(run, report, now)).await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        self.carry("last_run", READ, self.inner.last_run()).await
    }

    async fn in_charge_since(&self, source: usize, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.carry("in_charge_since", READ, self.inner.in_charge_since(source, now)).await
    }

    async fn take_outbox(&self, limit: usize, now: Timestamp, until: Timestamp) -> Result<Vec<Outgoing>, StoreError> {
        self.carry("take_outbox", WRITE, self.inner.take_outbox(limit, now, until)).await
    }

    async fn settle_outbox(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError> {
        self.carry("settle_outbox", WRITE, self.inner.settle_outbox(id, settled, now)).await
    }

    async fn is_open(&self, incident_id: &str) -> Result<bool, StoreError> {
        self.carry("is_open", READ, self.inner.is_open(incident_id)).await
    }

    async fn recipient(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, StoreError> {
        self.carry("recipient", READ, self.inner.recipient(source, user_id)).await
    }

    async fn standing(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        self.carry("standing", READ, self.inner.standing(windows, soonest, now)).await
    }

    async fn find(&self, source: usize, id: &str) -> Result<Option<Connection>, StoreError> {
        self.carry("find", READ, self.inner.find(source, id)).await
    }

    async fn history(&self, source: usize, id: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        self.carry("history", READ, self.inner.history(source, id, limit)).await
    }

    async fn forget_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.carry("forget_before", WRITE, self.inner.forget_before(before)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::store::memory::MemoryStore;

    fn store(plan: impl FaultPlan) -> FaultyStore<MemoryStore> {
        let clock = ManualClock::at("2026-11-23T03:00:00Z".parse().unwrap());
        FaultyStore::new(MemoryStore::new(Arc::new(clock), Vec::new()), plan)
    }

    async fn runs(store: &FaultyStore<MemoryStore>) -> (bool, usize) {
        let now = "2026-11-23T03:00:00Z".parse().unwrap();
        (store.begin_run("scheduled", "a", now).await.is_ok(), store.inner().runs().len())
    }

    #[tokio::test]
    async fn a_fault_comes_before_or_after_what_it_hits() {
        let faulty = store(|call: &str, count| match (call, count) {
            ("begin_run", 1) => Fault::Before,
            ("begin_run", 2) => Fault::After,
            ("begin_run", 3) => Fault::Refused,
            _ => Fault::None,
        });
        assert_eq!(runs(&faulty).await, (false, 0));
        assert_eq!(runs(&faulty).await, (false, 1), "carried out, and the answer lost");
        assert_eq!(runs(&faulty).await, (false, 1));
        assert_eq!(runs(&faulty).await, (true, 2));
        assert_eq!(faulty.calls("begin_run"), 4);
    }

    #[tokio::test]
    async fn a_condition_lasts_until_another_is_set() {
        let faulty = store(|_: &str, _| Fault::None);
        faulty.clone().set(Condition::ReadOnly);
        assert_eq!(runs(&faulty).await, (false, 0));
        assert!(faulty.last_run().await.is_ok());
        faulty.set(Condition::Unreachable);
        assert!(faulty.last_run().await.unwrap_err().may_pass());
        faulty.set(Condition::Well);
        assert_eq!(runs(&faulty).await, (true, 1));
    }
}
