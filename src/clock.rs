//! The only place that reads a clock.
//!
//! What is due is decided by the database's clock, and what a time-out is by the monotonic one. Everything
//! else takes `now` as an argument, so that tests, the sandbox and the simulation can bring their own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Returns when `duration` has passed.
    async fn sleep(&self, duration: Duration);

    /// Rests for `duration` between two looks of a service. Whoever can tell that nothing becomes due before a later
    /// instant may rest until then: looks in between would find nothing to do.
    async fn rest(&self, duration: Duration) {
        self.sleep(duration).await;
    }

    /// A reading that only ever grows, for durations: the wall clock may jump.
    fn monotonic(&self) -> Duration;

    /// From now on agrees with `now`, which a database has just told. Clocks that are moved by hand ignore it.
    fn agree_with(&self, _now: Timestamp) {}
}

/// The machine's clock, corrected by what a database told its time to be.
///
/// The correction is kept as "that instant, at this monotonic reading", so a step of the machine's wall
/// clock between two corrections moves nothing.
pub struct SystemClock {
    origin: Instant,
    anchor: Mutex<(Timestamp, Instant)>,
}

impl SystemClock {
    /// A clock that agrees with the machine's wall clock now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn new() -> Self {
        let instant = Instant::now();
        let wall = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { origin: instant, anchor: Mutex::new((wall, instant)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Instant)> {
        self.anchor.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn now(&self) -> Timestamp {
        let (wall, read_at) = *self.lock();
        let passed = SignedDuration::try_from(Instant::now().duration_since(read_at)).unwrap_or_default();
        wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn monotonic(&self) -> Duration {
        Instant::now().duration_since(self.origin)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn agree_with(&self, now: Timestamp) {
        *self.lock() = (now, Instant::now());
    }
}

/// A clock that moves only when it is told to, and at once when somebody sleeps on it.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<(Timestamp, Duration)>>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new((now, Duration::ZERO))))
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let mut clock = self.lock();
        clock.0 = clock
            .0
            .checked_add(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX);
        clock.1 += duration;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Duration)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(duration);
        tokio::task::yield_now().await;
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }
}
