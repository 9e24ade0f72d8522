//! Time that passes only while everybody waits: no test sleeps, and the same seed takes the same course each time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// A clock that jumps to the next instant for which somebody waits, as soon as nobody can go on. Clones share it.
#[derive(Clone)]
pub(crate) struct VirtualClock(Arc<Mutex<Time>>);

struct Time {
    now: Timestamp,
    passed: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    last: u64,
}

impl VirtualClock {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Time { now, passed: Duration::ZERO, sleepers: BTreeMap::new(), last: 0 })))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut time = self.lock();
        time.passed += by;
        time.now = time.now.checked_add(SignedDuration::try_from(by).expect("short")).expect("a date");
    }

    /// How much has passed when the next sleeper is to be woken; `None` if nobody sleeps.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.lock().sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes whoever waits for the next instant; `false` if nobody waits.
    pub(super) fn wake_next(&self) -> bool {
        let (by, waker) = {
            let mut time = self.lock();
            let Some(((at, _), waker)) = time.sleepers.pop_first() else { return false };
            (at.saturating_sub(time.passed), waker)
        };
        if !by.is_zero() {
            self.advance(by);
        }
        waker.wake();
        true
    }

    /// Carries a future out, and lets time pass while it waits.
    #[cfg(test)]
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let woken = Arc::new(Woken::new());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            while woken.take() {
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return output;
                }
            }
            assert!(self.wake_next(), "everybody waits, and nobody for the clock");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a future may be able to go on.
pub(super) struct Woken(AtomicBool);

impl Woken {
    /// A future that has not been polled yet can go on.
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Whether it was woken since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Sleep<'a> {
    clock: &'a VirtualClock,
    /// Until when, and which sleep it is: polled again, it waits once all the same.
    place: (Duration, u64),
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut time = self.clock.lock();
        if time.passed >= self.place.0 {
            return Poll::Ready(());
        }
        time.sleepers.insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.clock.lock().sleepers.remove(&self.place);
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    async fn sleep(&self, duration: Duration) {
        let place = {
            let mut time = self.lock();
            time.last += 1;
            (time.passed + duration, time.last)
        };
        Sleep { clock: self, place }.await;
    }

    fn monotonic(&self) -> Duration {
        self.lock().passed
    }
}
