//! When a run starts: a cron expression in a time zone, right across daylight-saving changes.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::backoff::later;
use crate::planted::{self, Bug};

/// The schedule of runs. An hour that a change of the clocks skips is made up for at the first instant after
/// it; an hour that comes twice starts one run.
#[derive(Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    known: Arc<Mutex<Vec<Known>>>,
}

/// From when on the next start is the one that was found. Found anew for every decision of a run, the search through
/// the calendar would take more time than the decision.
#[derive(Clone, Copy)]
struct Known {
    from: Timestamp,
    next: Timestamp,
}

/// Asked for are the next start, tomorrow's, and the one after the last run.
const KNOWN_MAX: usize = 4;

/// A cron expression that cannot be read, or that names no instant (30 February).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCron(String);

impl fmt::Display for BadCron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadCron {}

impl Schedule {
    /// Reads a cron expression of five fields.
    ///
    /// # Errors
    /// When it cannot be read, or no instant within the next years fits it.
    pub fn parse(cron: &str, zone: TimeZone, now: Timestamp) -> Result<Self, BadCron> {
        let parsed = Cron::from_str(cron).map_err(|error| BadCron(error.to_string().to_lowercase()))?;
        let schedule = Self { cron: parsed, zone, known: Arc::default() };
        if schedule.next_after(now).is_none() {
            return Err(BadCron("no date fits it".to_owned()));
        }
        Ok(schedule)
    }

    /// The first start after `now`; `None` if there is none to be found.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        if planted::has(Bug::ZoneIgnored) || planted::has(Bug::RunLeftOut) {
            return self.search(now);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(|known| (known.from..known.next).contains(&now)) {
            return Some(known.next);
        }
        let next = self.search(now)?;
        match known.iter_mut().find(|known| known.next == next) {
            Some(known) => known.from = known.from.min(now),
            None => {
                if known.len() == KNOWN_MAX {
                    known.remove(0);
                }
                known.push(Known { from: now, next });
            }
        }
        Some(next)
    }

    fn search(&self, now: Timestamp) -> Option<Timestamp> {
        let zone = if planted::has(Bug::ZoneIgnored) { TimeZone::UTC } else { self.zone.clone() };
        let now = if planted::has(Bug::RunLeftOut) { later(now, SignedDuration::from_hours(30)) } else { now };
        let from = now.to_zoned(zone);
        let next = self.cron.find_next_occurrence(&from, false).ok()?.timestamp();
        // A bound against a library that would answer with the past: the service would never sleep.
        (next > now).then_some(next)
    }

    /// The latest start at or before `now`; `None` if there is none to be found.
    pub fn latest_until(&self, now: Timestamp) -> Option<Timestamp> {
        let from = now.to_zoned(self.zone.clone());
        let latest = self.cron.find_previous_occurrence(&from, true).ok()?.timestamp();
        (latest <= now).then_some(latest)
    }

    /// Whether a run should have started since `last`, or none has ever been made.
    pub fn is_missed(&self, last: Option<Timestamp>, now: Timestamp) -> bool {
        last.is_none_or(|last| self.next_after(last).is_some_and(|next| next <= now))
    }

    /// The start at which something that is looked at daily comes up next: the first one at least half a
    /// day from now, and a day from now where runs are rarer than that.
    pub fn tomorrow(&self, now: Timestamp) -> Timestamp {
        let latest = later(now, SignedDuration::from_hours(36));
        self.next_after(later(now, SignedDuration::from_hours(12)))
            .filter(|next| *next <= latest)
            .unwrap_or_else(|| later(now, SignedDuration::from_hours(24)))
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({} {:?})", self.cron.pattern, self.zone.iana_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hours, instant};

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule::parse(cron, TimeZone::get(zone).unwrap(), instant("2026-01-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn three_in_the_morning_is_three_where_the_customer_lives() {
        let daily = schedule("0 3 * * *", "America/Sao_Paulo");
        assert_eq!(daily.next_after(instant("2026-11-23T05:59:59Z")), Some(instant("2026-11-23T06:00:00Z")));
        assert_eq!(daily.next_after(instant("2026-11-23T06:00:00Z")), Some(instant("2026-11-24T06:00:00Z")));
    }

    #[test]
    fn the_latest_start_may_be_now() {
        let daily = schedule("0 3 * * *", "America/Sao_Paulo");
        for (now, latest) in [
            ("2026-11-23T06:00:00Z", "2026-11-23T06:00:00Z"),
            ("2026-11-23T06:00:00.5Z", "2026-11-23T06:00:00Z"),
            ("2026-11-24T05:59:59Z", "2026-11-23T06:00:00Z"),
        ] {
            assert_eq!(daily.latest_until(instant(now)), Some(instant(latest)), "{now}");
        }
    }

    #[test]
    fn what_was_found_before_is_found_again_in_any_order() {
        let daily = schedule("0 3 * * *", "America/Sao_Paulo");
        let start = instant("2026-11-20T00:00:00Z");
        for hour in [30, 5, 100, 6, 54, 7, 31, 29, 101, 0] {
            let now = start + hours(hour);
            assert_eq!(daily.next_after(now), daily.search(now), "{now}");
        }
    }

    #[test]
    fn an_hour_that_is_skipped_is_made_up_for() {
        // New York, 8 March 2026: 02:00 becomes 03:00.
        let daily = schedule("30 2 * * *", "America/New_York");
        let first = daily.next_after(instant("2026-03-08T05:00:00Z")).unwrap();
        assert_eq!(first, instant("2026-03-08T07:00:00Z"));
        assert_eq!(daily.next_after(first), Some(instant("2026-03-09T06:30:00Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_starts_one_run() {
        // New York, 1 November 2026: 01:30 comes at 05:30 and again at 06:30 UTC.
        let daily = schedule("30 1 * * *", "America/New_York");
        let first = daily.next_after(instant("2026-11-01T00:00:00Z")).unwrap();
        assert_eq!(first, instant("2026-11-01T05:30:00Z"));
        assert_eq!(daily.next_after(first), Some(instant("2026-11-02T06:30:00Z")));
    }

    #[test]
    fn a_year_of_days_has_a_run_each_in_every_odd_zone() {
        for zone in ["America/Sao_Paulo", "Australia/Lord_Howe", "Europe/Lisbon", "Asia/Kathmandu", "America/New_York"]
        {
            let daily = schedule("0 2 * * *", zone);
            let (mut at, mut runs) = (instant("2026-01-01T12:00:00Z"), 0);
            while at < instant("2027-01-01T12:00:00Z") {
                let next = daily.next_after(at).unwrap();
                let gap = next.duration_since(at);
                assert!(runs == 0 || (gap >= hours(23) && gap <= hours(25)), "{zone}: {gap:?} before {next}");
                at = next;
                runs += 1;
            }
            assert!((365..=366).contains(&runs), "{zone}: {runs}");
        }
    }

    #[test]
    fn a_run_is_missed_when_its_time_has_passed_since_the_last() {
        let daily = schedule("0 3 * * *", "UTC");
        let now = instant("2026-11-23T09:00:00Z");
        assert!(daily.is_missed(None, now));
        assert!(daily.is_missed(Some(instant("2026-11-22T03:00:01Z")), now));
        assert!(!daily.is_missed(Some(instant("2026-11-23T03:00:00Z")), now));
    }

    #[test]
    fn tomorrow_is_a_run_where_there_is_one_and_a_day_where_there_is_none() {
        let now = instant("2026-11-23T03:00:05Z");
        assert_eq!(schedule("0 3 * * *", "UTC").tomorrow(now), instant("2026-11-24T03:00:00Z"));
        assert_eq!(schedule("0 3 1 * *", "UTC").tomorrow(now), now + hours(24));
    }

    #[test]
    fn what_names_no_date_is_refused() {
        let now = instant("2026-01-01T00:00:00Z");
        assert!(Schedule::parse("0 0 30 2 *", TimeZone::UTC, now).is_err());
        assert!(Schedule::parse("every day", TimeZone::UTC, now).is_err());
        assert!(Schedule::parse("", TimeZone::UTC, now).is_err());
    }
}
