//! When the customer is warned, and of what.

use jiff::{SignedDuration, Timestamp};

use crate::connection::Incident;
use crate::due::within;
use crate::outcome::Outcome;
use crate::planted::{self, Bug};
use crate::settings::Settings;

/// A customer whose login alone can renew the token is told these many days ahead, once each.
pub const STEPS_DAYS: [u8; 3] = [14, 7, 3];

/// Whether the customer must be warned of this incident now, once: the token was refused for good, or the
/// count of failed runs has reached its number, or little is left while the incident is open.
///
/// Who was told that it ends in so many days is told once more when it is refused before that: it has ended now.
pub fn is_due(
    incident: &Incident,
    outcome: Outcome,
    attempts: i64,
    expires_at: Option<Timestamp>,
    now: Timestamp,
    settings: &Settings,
) -> bool {
    let ends_sooner = outcome == Outcome::NeedsReconnect && incident.told_days.is_some() && !incident.told_refused;
    (incident.warned_at.is_none() || ends_sooner)
        && (outcome == Outcome::NeedsReconnect
            || attempts >= settings.warn_after_failures
            || expires_at.is_some_and(|at| within(at, now, settings.warn_before) && !planted::has(Bug::WarnedTooLate)))
}

/// The step that must be told now to a customer whose token ends at `ends_at`: the nearest one that has
/// come and has not been told. Told late, the earlier ones are left out: one notice, not three.
pub fn step_due(told_days: Option<u8>, ends_at: Timestamp, now: Timestamp) -> Option<u8> {
    let reached =
        STEPS_DAYS.into_iter().filter(|days| within(ends_at, now, SignedDuration::from_hours(24 * i64::from(*days))));
    let nearest = reached.min()?;
    told_days.is_none_or(|told| nearest < told).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{connection, hours, instant};

    fn incident(now: Timestamp) -> Incident {
        Incident::open(&connection("EAA-1", None), Outcome::Transient, now)
    }

    #[test]
    fn the_third_failed_run_warns() {
        let now = instant("2026-11-23T03:00:00Z");
        let settings = Settings::default();
        let far = Some(now + hours(6 * 24));
        assert!(!is_due(&incident(now), Outcome::Transient, 2, far, now, &settings));
        assert!(is_due(&incident(now), Outcome::Transient, 3, far, now, &settings));
        assert!(is_due(&incident(now), Outcome::NeedsReconnect, 1, far, now, &settings));
    }

    #[test]
    fn little_life_left_warns_and_72_hours_is_not_little() {
        let now = instant("2026-11-23T03:00:00Z");
        let settings = Settings::default();
        assert!(!is_due(&incident(now), Outcome::Transient, 1, Some(now + hours(72)), now, &settings));
        assert!(is_due(&incident(now), Outcome::Transient, 1, Some(now + hours(71)), now, &settings));
    }

    #[test]
    fn an_incident_warns_once() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut told = incident(now);
        told.warned_at = Some(now);
        assert!(!is_due(&told, Outcome::NeedsReconnect, 9, Some(now), now, &Settings::default()));
    }

    #[test]
    fn who_was_told_the_days_is_told_once_that_it_has_ended_before() {
        let now = instant("2026-11-23T03:00:00Z");
        let settings = Settings::default();
        let mut told = incident(now);
        (told.warned_at, told.told_days) = (Some(now), Some(7));
        assert!(!is_due(&told, Outcome::Transient, 9, Some(now + hours(1)), now, &settings));
        assert!(is_due(&told, Outcome::NeedsReconnect, 1, None, now, &settings));
        told.told_refused = true;
        assert!(!is_due(&told, Outcome::NeedsReconnect, 1, None, now, &settings));
    }

    #[test]
    fn steps_are_told_once_each_and_the_nearest_stands_for_those_before() {
        let now = instant("2026-11-23T03:00:00Z");
        let ends = |days: i64| now + hours(24 * days - 1);
        assert_eq!(step_due(None, ends(20), now), None);
        assert_eq!(step_due(None, ends(14), now), Some(14));
        assert_eq!(step_due(Some(14), ends(10), now), None);
        assert_eq!(step_due(Some(14), ends(7), now), Some(7));
        assert_eq!(step_due(None, ends(2), now), Some(3));
        assert_eq!(step_due(Some(3), ends(1), now), None);
    }
}
