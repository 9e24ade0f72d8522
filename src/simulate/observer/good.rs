//! When nothing kept the connections of an app from being refreshed.

use jiff::{SignedDuration, Timestamp};

use super::super::world::World;

/// Stretches of time in which an app's connections could be refreshed.
#[derive(Debug)]
pub(in super::super) struct GoodLog {
    since: Option<Timestamp>,
    before: Vec<(Timestamp, Timestamp)>,
}

impl GoodLog {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { since: Some(now), before: Vec::new() }
    }

    fn note(&mut self, is_good: bool, now: Timestamp) {
        match (self.since, is_good) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.before.push((since, now));
                self.since = None;
            }
            _ => {}
        }
    }

    /// The longest stretch without trouble between two instants.
    pub(super) fn longest(&self, from: Timestamp, to: Timestamp) -> SignedDuration {
        let now = self.since.map(|since| (since, to));
        let stretches = self.before.iter().rev().take_while(|(_, end)| *end > from).copied().chain(now);
        let inside = stretches.map(|(begin, end)| end.min(to).duration_since(begin.max(from)));
        inside.max().unwrap_or(SignedDuration::ZERO).max(SignedDuration::ZERO)
    }

    /// Since when there has been no trouble at all.
    pub(super) fn good_since(&self) -> Option<Timestamp> {
        self.since
    }
}

impl World {
    /// Something has changed that may keep Perene from its work, or does no more.
    pub(in super::super) fn note_good(&mut self, now: Timestamp) {
        let is_system_good = self.is_system_good();
        self.observer.system_good.note(is_system_good, now);
        for app in 0..self.observer.goods.len() {
            let is_limited = self.observer.limited_until[app].is_some_and(|until| until > now);
            let is_good = !is_limited && self.is_good(app);
            self.observer.goods[app].note(is_good, now);
            let is_storm = self.is_storm(app);
            match (self.observer.storm_since[app], is_storm) {
                (None, true) => self.observer.storm_since[app] = Some(now),
                (Some(_), false) => {
                    self.observer.storm_since[app] = None;
                    self.observer.failed_in_storm[app].clear();
                }
                _ => {}
            }
        }
    }

    /// Whether the app's connections have been without trouble for so long.
    pub(super) fn has_been_good_for(&self, number: usize, time: SignedDuration, now: Timestamp) -> bool {
        let since = self.observer.goods[self.app_of(number)].good_since();
        since.is_some_and(|since| now.duration_since(since) >= time)
    }

    /// How many of an app's connections have failed for so long that every replica can know. A run that a slow database
    /// begins ten seconds later on one replica than on another has seen nothing yet when that one decides.
    pub(super) fn failing_in_storm(&self, app: usize, now: Timestamp) -> usize {
        let tries_take = SignedDuration::from_secs(5);
        let failing = self.observer.failed_in_storm[app].values();
        failing.filter(|since| now.duration_since(**since) >= tries_take).count()
    }

    /// Whether all connections of the app fail, through no fault of their customers.
    fn is_storm(&self, app: usize) -> bool {
        use super::super::faults::Kind;
        [Kind::Outage, Kind::ConnectionRefused, Kind::WrongSecret, Kind::AppSuspended, Kind::MassRefusal]
            .into_iter()
            .any(|kind| self.weather.hits(kind, app))
    }
}
