//! How a run is asked to stop: no new claims, what is in flight is finished, what waits is given back.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use crate::clock::Clock;

/// So long it takes at the most. What has not ended by then cannot: the database is away.
const STOP_MAX: Duration = Duration::from_millis(29_700);

/// Heard by whoever works.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Held by whoever may ask.
#[derive(Debug)]
pub struct StopSource(watch::Sender<bool>);

impl StopSource {
    /// A source, and what hears it.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Asks to stop; asking twice is harmless.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// One that is never asked.
    pub fn never() -> Self {
        StopSource::new().1
    }

    /// Whether it has been asked.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Carries `work` out, but not beyond the time that stopping may take: `None` if that was too short.
    pub async fn bound<T>(&self, clock: &dyn Clock, work: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.clone();
        let too_late = async {
            stop.wait().await;
            clock.sleep(STOP_MAX).await;
        };
        match select(pin!(work), pin!(too_late)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => {
                tracing::warn!("the time to stop is over: what is still leased lapses within a minute");
                None
            }
        }
    }

    /// Returns when it is asked; never, if nobody can ask any more.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
