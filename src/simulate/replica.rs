//! One process of Perene: the real service on a clock, a database, providers and channels of the simulation. It can be
//! killed at every step at which it waits, and started anew; its journal stays.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::chance::Chance;
use super::database::Database;
use super::inbox::Inbox;
use super::provider::Script;
use super::time::{VirtualClock, Woken};
use super::world::{Shared, lock};
use crate::clock::Clock;
use crate::engine::{Engine, Parts, RunError, StopSource};
use crate::journal::MemoryJournal;
use crate::notify::Channel;
use crate::provider::Provider;

/// A service that runs.
type Running = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

/// A process, or the place of one that is down.
pub(super) struct Replica {
    pub(super) number: usize,
    pub(super) journal: MemoryJournal,
    process: Option<Process>,
    starts: u64,
}

struct Process {
    running: Running,
    woken: Arc<Woken>,
    waker: Waker,
    stop: StopSource,
}

impl Replica {
    pub(super) fn new(number: usize) -> Self {
        Self { number, journal: MemoryJournal::default(), process: None, starts: 0 }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn can_go_on(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.woken.is_set())
    }

    /// Lets it work until it waits. Returns how it has ended, if it has.
    pub(super) fn go_on(&mut self) -> Option<Result<(), RunError>> {
        let process = self.process.as_mut()?;
        process.woken.take();
        let mut context = Context::from_waker(&process.waker);
        match process.running.as_mut().poll(&mut context) {
            Poll::Ready(result) => {
                self.process = None;
                Some(result)
            }
            Poll::Pending => None,
        }
    }

    /// Kills it, as `kill -9` does.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop.
    pub(super) fn stop(&self) {
        if let Some(process) = &self.process {
            process.stop.stop();
        }
    }

    /// Starts it, with a wall clock that is wrong by `wrong_by`.
    pub(super) fn start(&mut self, world: &Shared, clock: &VirtualClock, wrong_by: SignedDuration) {
        self.starts += 1;
        let engine = self.engine(world, clock, wrong_by);
        let (source, stop) = StopSource::new();
        let woken = Arc::new(Woken::new());
        // Whoever simulates may be a task of tokio's itself, which makes its channels wait when one task has used them
        // often: a whole simulation is one.
        let running: Running = Box::pin(tokio::task::unconstrained(async move { engine.serve(stop).await }));
        let waker = Waker::from(Arc::clone(&woken));
        self.process = Some(Process { running, woken, waker, stop: source });
    }

    fn engine(&self, world: &Shared, clock: &VirtualClock, wrong_by: SignedDuration) -> Engine {
        let known = lock(world);
        let fleet = Arc::clone(&known.fleet);
        let ids = Mutex::new(known.ids.part((self.number as u64) << 32 | self.starts));
        drop(known);
        let own: Arc<dyn Clock> = Arc::new(ReplicaClock {
            clock: clock.clone(),
            wrong_by: Mutex::new(wrong_by),
            world: Arc::clone(world),
            replica: self.number,
        });
        let mut providers: BTreeMap<String, Arc<dyn Provider>> = BTreeMap::new();
        for source in &fleet.sources {
            let script = Script::new(Arc::clone(world), clock.clone(), self.number, source);
            providers.insert(source.mapped.provider.clone(), Arc::new(script));
        }
        let channels = ["email", "webhook"]
            .map(|name| Arc::new(Inbox::new(name, Arc::clone(world), clock.clone(), self.number)) as Arc<dyn Channel>);
        Engine::new(Parts {
            store: Arc::new(Database::new(Arc::clone(world), clock.clone(), self.number)),
            providers,
            clock: own,
            sources: fleet.sources.iter().map(|source| source.mapped.clone()).collect(),
            settings: fleet.settings,
            schedule: fleet.schedule.clone(),
            concurrency: fleet.concurrency,
            channels: channels.into(),
            journal: Some(Arc::new(self.journal.clone())),
            new_id: Arc::new(move || next_id(&ids)),
        })
    }
}

fn next_id(ids: &Mutex<Chance>) -> Uuid {
    let mut ids = ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Uuid::from_u64_pair(ids.next(), ids.next())
}

/// A replica's clock: the machine's own until the database has told a better time.
struct ReplicaClock {
    clock: VirtualClock,
    wrong_by: Mutex<SignedDuration>,
    world: Shared,
    replica: usize,
}

#[async_trait]
impl Clock for ReplicaClock {
    fn now(&self) -> Timestamp {
        let wrong_by = *self.wrong_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.clock.now().checked_add(wrong_by).unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    async fn rest(&self, duration: Duration) {
        Rest { world: &self.world, clock: &self.clock, replica: self.replica, duration, is_begun: false }.await;
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn agree_with(&self, now: Timestamp) {
        let wrong_by = now.duration_since(self.clock.now());
        *self.wrong_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = wrong_by;
    }
}

/// A service that rests between two looks, until the world finds that something is due.
#[derive(Debug, Clone)]
pub(super) struct Resting {
    pub(super) since: Timestamp,
    pub(super) begun: Duration,
    pub(super) tick: Duration,
    pub(super) waker: Waker,
    pub(super) is_over: bool,
}

struct Rest<'a> {
    world: &'a Shared,
    clock: &'a VirtualClock,
    replica: usize,
    duration: Duration,
    is_begun: bool,
}

impl Future for Rest<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut world = lock(self.world);
        let resting = &mut world.replicas[self.replica].resting;
        if self.is_begun && resting.as_ref().is_none_or(|resting| resting.is_over) {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match resting {
            Some(resting) if self.is_begun => resting.waker = waker,
            _ => {
                let (since, begun) = (self.clock.now(), self.clock.monotonic());
                *resting = Some(Resting { since, begun, tick: self.duration, waker, is_over: false });
                drop(world);
                self.is_begun = true;
            }
        }
        Poll::Pending
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        lock(self.world).replicas[self.replica].resting = None;
    }
}
