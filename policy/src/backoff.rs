//! When a failed try is made again.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// The retry series between runs: 1 min, 5 min, 15 min, 1 h, 3 h, 6 h, 12 h, and 12 h from then on.
pub const SERIES: [SignedDuration; 7] = [
    SignedDuration::from_mins(1),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(15),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(3),
    SignedDuration::from_hours(6),
    SignedDuration::from_hours(12),
];

/// No retry comes sooner than this, however little life is left.
pub const SOONEST: SignedDuration = SignedDuration::from_secs(15);

/// The longest step for a token that has expired and can still be refreshed: its customer is cut off, so it does not wait
/// for hours; and an outage of weeks must not be met with a call every few seconds either.
pub const LATE_STEP: SignedDuration = SignedDuration::from_mins(15);

/// How often a token that has expired is sent although nobody knows the error that comes.
const LATE_RARELY: SignedDuration = SignedDuration::from_hours(1);

/// A retry time that does not come: what was refused at a provider that punishes reuse is not sent again before the app
/// has put another token there. Without a retry time it would be due in every pass, and each would write down that it
/// was not sent.
pub const NEVER: Timestamp = Timestamp::MAX;

/// The quick further tries inside one run, for what passes in seconds: after 1 s, then after 3 s.
pub const QUICK: [SignedDuration; 2] = [SignedDuration::from_secs(1), SignedDuration::from_secs(3)];

/// When the try after `retries` failed ones is made: a step of [`SERIES`], less up to a quarter of it so
/// that a fleet does not come back as one (the share follows from `id`, so nothing random enters here),
/// and never later than a quarter of the token's remaining life from now. Once the token has expired, and
/// is still sent because a refresh token outlives it, no step is longer than [`LATE_STEP`].
pub fn next_try(id: &str, retries: u32, expires_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let longest = if expires_at.is_some_and(|at| at <= now) { LATE_STEP } else { SERIES[SERIES.len() - 1] };
    let step = SERIES[usize::try_from(retries).unwrap_or(usize::MAX).min(SERIES.len() - 1)].min(longest);
    let mut wait = step - jitter(id, retries, step);
    if let Some(expires_at) = expires_at.filter(|at| *at > now) {
        wait = wait.min(expires_at.duration_since(now) / 4);
    }
    later(now, wait.max(SOONEST))
}

/// When a token is sent again although it is not known what its error means: `tomorrow`, but never fewer than one try a
/// quarter of the remaining life, and once an hour when that is over.
pub fn rarely(expires_at: Option<Timestamp>, tomorrow: Timestamp, now: Timestamp) -> Timestamp {
    let wait = expires_at.map(|at| match at.duration_since(now) {
        left if left.is_positive() => left / 4,
        _ => LATE_RARELY,
    });
    wait.map_or(tomorrow, |wait| tomorrow.min(later(now, wait.max(SOONEST))))
}

/// How long a connection waits that has met a limit whose end was not told: 1 h, doubling to 6 h.
pub fn limit_wait(times: u32) -> SignedDuration {
    SignedDuration::from_hours((1_i64 << times.min(3)).min(6))
}

/// How long whoever has met a limit waits at least, however little was asked for: 1 s, doubling to about an hour while it
/// is met again and again. A provider that asks for nothing, or for less than it takes, is not called every few seconds.
pub fn limit_wait_at_least(times: u32) -> SignedDuration {
    SignedDuration::from_secs(1 << times.min(12))
}

/// `now + wait`, and the end of time where there is none later.
pub fn later(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Up to a quarter of `step`, the same for the same `id` and `retries`.
fn jitter(id: &str, retries: u32, step: SignedDuration) -> SignedDuration {
    let digest = Sha256::new().chain_update(id.as_bytes()).chain_update(retries.to_be_bytes()).finalize();
    let share = i64::from(digest[0]);
    SignedDuration::from_millis(i64::try_from(step.as_millis()).unwrap_or(0) / 4 * share / 256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hours, instant};

    #[test]
    fn the_series_is_the_one_that_is_written_out() {
        let minutes: Vec<i64> = SERIES.iter().map(SignedDuration::as_mins).collect();
        assert_eq!(minutes, [1, 5, 15, 60, 180, 360, 720]);
        assert_eq!([0, 1, 2, 3, 9].map(|times| limit_wait(times).as_hours()), [1, 2, 4, 6, 6]);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_quarter_at_most() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..100 {
            let wait = next_try(&n.to_string(), 3, None, now).duration_since(now);
            assert!(wait <= SERIES[3] && wait > SERIES[3] * 3 / 4, "{wait:?}");
            seen.insert(wait);
        }
        assert!(seen.len() > 50, "a fleet would come back as one");
    }

    #[test]
    fn there_is_a_try_in_every_quarter_of_the_remaining_life() {
        let now = instant("2026-11-23T03:00:00Z");
        for (left, retries) in [(hours(4), 6), (hours(1), 3), (hours(24), 6)] {
            assert!(next_try("7", retries, Some(now + left), now) <= now + left / 4);
        }
        assert_eq!(next_try("7", 0, Some(now + SignedDuration::from_secs(8)), now), now + SOONEST);
    }

    #[test]
    fn what_is_not_understood_is_tried_tomorrow_or_in_a_quarter_of_what_is_left() {
        let now = instant("2026-11-23T03:00:00Z");
        let tomorrow = now + hours(24);
        let wait = |left: i64| rarely(Some(now + hours(left)), tomorrow, now).duration_since(now);
        assert_eq!([wait(400), wait(40), wait(-40)], [hours(24), hours(10), hours(1)]);
        assert_eq!(rarely(None, tomorrow, now), tomorrow);
    }

    #[test]
    fn a_limit_that_is_met_again_and_again_is_left_alone_for_longer() {
        assert_eq!([0, 1, 6, 12, 99].map(|times| limit_wait_at_least(times).as_secs()), [1, 2, 64, 4096, 4096]);
    }

    #[test]
    fn what_has_expired_is_tried_again_by_the_series_and_every_quarter_of_an_hour_at_the_latest() {
        let now = instant("2026-11-23T03:00:00Z");
        let wait = |retries| next_try("7", retries, Some(now - hours(1)), now).duration_since(now);
        assert_eq!(wait(0), next_try("7", 0, None, now).duration_since(now));
        for retries in 3..9 {
            assert!(wait(retries) <= LATE_STEP && wait(retries) > LATE_STEP * 3 / 4, "{:?}", wait(retries));
        }
    }
}
