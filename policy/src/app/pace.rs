//! How fast an app may be called, steered by what the provider tells of its limits.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::answer::Usage;

/// From this share of the provider's limit on, calls are spaced out.
pub const SLOW_FROM_PERCENT: u8 = 75;

/// From this share on, nothing is sent.
pub const STOP_FROM_PERCENT: u8 = 95;

/// What was told is of use for so long: Meta's limits count over a rolling hour.
/// <https://developers.facebook.com/docs/graph-api/overview/rate-limiting>
const MEMORY: SignedDuration = SignedDuration::from_hours(1);

/// How full the app's limit was when it was last told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    told: Option<(u8, Timestamp)>,
}

impl Pace {
    /// Learns from the usage that came with an answer.
    pub fn learn(&mut self, usage: &Usage, now: Timestamp) {
        if let Some(percent) = whole_percent(usage) {
            self.told = Some((percent, now));
        }
    }

    /// The time between the starts of two calls: none below 75 %, growing to a second at 95 %.
    pub fn spacing(&self, now: Timestamp) -> SignedDuration {
        match self.told {
            Some((percent, at)) if percent >= SLOW_FROM_PERCENT && now.duration_since(at) < MEMORY => {
                let over = i64::from(percent.min(STOP_FROM_PERCENT) - SLOW_FROM_PERCENT);
                SignedDuration::from_millis(50 + over * 50)
            }
            _ => SignedDuration::ZERO,
        }
    }

    /// How long nothing is sent when `usage` says that the limit is all but reached.
    pub fn stop_for(&self, usage: &Usage, otherwise: SignedDuration) -> Option<SignedDuration> {
        whole_percent(usage)
            .filter(|percent| *percent >= STOP_FROM_PERCENT)
            .map(|_| usage.regain.filter(SignedDuration::is_positive).unwrap_or(otherwise))
    }
}

/// The app's usage in whole percent, as Meta tells it; fractions of one are cut off.
fn whole_percent(usage: &Usage) -> Option<u8> {
    usage.app_percent.filter(|percent| percent.is_finite()).map(|percent| percent.clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hours, instant};

    fn told(percent: u8) -> Usage {
        Usage { app_percent: Some(f32::from(percent)), ..Usage::default() }
    }

    #[test]
    fn it_slows_down_from_75_percent_and_stops_at_95() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut pace = Pace::default();
        let mut spacing = |percent| {
            pace.learn(&told(percent), now);
            pace.spacing(now).as_millis()
        };
        assert_eq!([74, 75, 85, 94, 100].map(&mut spacing), [0, 50, 550, 1000, 1050]);
        assert_eq!(pace.stop_for(&told(94), hours(1)), None);
        assert_eq!(pace.stop_for(&told(95), hours(1)), Some(hours(1)));
        let regain = Usage { regain: Some(hours(2)), ..told(100) };
        assert_eq!(pace.stop_for(&regain, hours(1)), Some(hours(2)));
    }

    #[test]
    fn what_was_told_an_hour_ago_is_forgotten() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut pace = Pace::default();
        pace.learn(&told(90), now);
        assert!(pace.spacing(now + hours(1)).is_zero());
    }
}
