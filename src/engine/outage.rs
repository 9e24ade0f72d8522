//! What a pass knows of its database: whether it takes what is to be written.
//!
//! A call whose answer cannot be stored is a call wasted, and for a provider that rotates worse than that. So
//! none is begun from the moment at which the database fails until it has taken a write again. What has been
//! answered until then is kept, and written as soon as it can be.

use std::time::Duration;

use crate::store::StoreError;

/// A pass that could write nothing for so long is given up: an operator who waits for it wants to be told.
const PATIENCE: Duration = Duration::from_mins(5);

/// The first pause after a failure, and those that follow: a database that is back is found within seconds.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// A write that has taken so long may end in a failure: no call is begun before it has ended well.
const SLOW: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Since when everything has failed.
    since: Option<Duration>,
    is_resting: bool,
    /// When the commits that are under way began.
    commits: Vec<Duration>,
    /// When the leases began to be prolonged, while that is under way.
    beat: Option<Duration>,
}

impl Outage {
    /// Whether the database fails.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it is left alone for the moment.
    pub(super) fn is_resting(&self) -> bool {
        self.is_resting
    }

    /// Whether what a call would bring could be written, as far as can be known.
    pub(super) fn allows_calls(&self, monotonic: Duration) -> bool {
        let mut writes = self.commits.iter().chain(&self.beat);
        self.since.is_none() && writes.all(|began| monotonic.saturating_sub(*began) < SLOW)
    }

    pub(super) fn commit_began(&mut self, monotonic: Duration) {
        self.commits.push(monotonic);
    }

    /// Commits end in any order; of which one it is that has ended, nothing depends but how slow the others are.
    pub(super) fn commit_ended(&mut self, began: Duration) {
        if let Some(place) = self.commits.iter().position(|other| *other == began) {
            self.commits.swap_remove(place);
        }
    }

    /// How many commits are under way.
    pub(super) fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The leases are being prolonged, since then; `None`: not any more.
    pub(super) fn set_beat(&mut self, began: Option<Duration>) {
        self.beat = began;
    }

    pub(super) fn is_beating(&self) -> bool {
        self.beat.is_some()
    }

    /// Something failed: after which pause the database is asked again; `None` if it is already left alone.
    ///
    /// # Errors
    /// The failure itself, if it does not pass by itself or has lasted too long.
    pub(super) fn failed(&mut self, error: StoreError, monotonic: Duration) -> Result<Option<Duration>, StoreError> {
        let (first, next) = PAUSES;
        let pause = match self.since {
            _ if !error.may_pass() => return Err(error),
            Some(since) if monotonic.saturating_sub(since) >= PATIENCE => return Err(error),
            Some(_) => next,
            None => {
                tracing::warn!("the database fails, no call is begun until it is back: {error}");
                self.since = Some(monotonic);
                first
            }
        };
        Ok((!std::mem::replace(&mut self.is_resting, true)).then_some(pause))
    }

    pub(super) fn rested(&mut self) {
        self.is_resting = false;
    }

    /// The database took a write.
    pub(super) fn passed(&mut self, monotonic: Duration) {
        if let Some(since) = self.since.take() {
            tracing::info!("the database is back after {} s", monotonic.saturating_sub(since).as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn away() -> StoreError {
        StoreError::Unreachable("connection refused".to_owned())
    }

    #[test]
    fn one_failure_of_many_is_waited_for() {
        let mut outage = Outage::default();
        assert!(outage.allows_calls(at(0)));
        assert_eq!(outage.failed(away(), at(0)).unwrap(), Some(at(1)));
        assert_eq!(outage.failed(away(), at(0)).unwrap(), None);
        outage.rested();
        assert!(!outage.allows_calls(at(1)));
        assert_eq!(outage.failed(away(), at(1)).unwrap(), Some(at(2)));
        outage.rested();
        outage.passed(at(3));
        assert!(outage.allows_calls(at(3)));
    }

    #[test]
    fn what_does_not_pass_and_what_has_lasted_too_long_is_given_up() {
        let mut outage = Outage::default();
        outage.failed(StoreError::Missing("column `x`".to_owned()), at(0)).unwrap_err();
        outage.failed(away(), at(0)).unwrap();
        outage.failed(away(), at(299)).unwrap();
        outage.failed(away(), at(300)).unwrap_err();
    }

    #[test]
    fn a_write_that_takes_long_holds_the_calls() {
        let mut outage = Outage::default();
        outage.commit_began(at(0));
        outage.commit_began(at(2));
        assert!(outage.allows_calls(at(2)));
        assert!(!outage.allows_calls(at(3)));
        outage.commit_ended(at(0));
        assert!(outage.allows_calls(at(3)) && outage.commits() == 1);
        outage.commit_ended(at(2));
        outage.set_beat(Some(at(4)));
        assert!(outage.allows_calls(at(6)) && !outage.allows_calls(at(7)) && outage.is_beating());
        outage.set_beat(None);
        assert!(outage.allows_calls(at(7)));
    }
}
