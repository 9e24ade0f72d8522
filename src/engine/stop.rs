//! How a run is asked to stop: no new claims, what is in flight is finished, what waits is given back.

use tokio::sync::watch;

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

    /// Returns when it is asked; never, if nobody can ask any more.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
