//! What the operator has set, as far as decisions rest on it.

use jiff::SignedDuration;

/// The settings on which decisions rest (configuration section `refresh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long before its expiry a token becomes due. Default seven days.
    pub window: SignedDuration,
    /// The count of failed runs at which the customer is warned. Default 3.
    pub warn_after_failures: i64,
    /// With less than this left and an incident open, the customer is warned. Default 72 hours.
    pub warn_before: SignedDuration,
}

impl Settings {
    /// The settings for tokens that live for `life`: those that live hours are due in the last third of their
    /// life, and what is little time for a warning shrinks in the same proportion. Else a token of an hour
    /// would always be due, and its first failed try would always write to the customer.
    pub fn for_life(self, life: SignedDuration) -> Self {
        let third = life / 3;
        if third >= self.window || !third.is_positive() {
            return self;
        }
        // Never zero: the configuration allows no window under a second.
        let share = third.as_secs_f64() / self.window.as_secs_f64();
        Self { window: third, warn_before: self.warn_before.mul_f64(share), ..self }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: SignedDuration::from_hours(7 * 24),
            warn_after_failures: 3,
            warn_before: SignedDuration::from_hours(72),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_live_hours_are_due_in_the_last_third_of_their_life() {
        let hour = Settings::default().for_life(SignedDuration::from_hours(1));
        assert_eq!(hour.window, SignedDuration::from_mins(20));
        // 72 of 168 hours are three sevenths: of twenty minutes, eight and a half.
        assert_eq!(hour.warn_before.as_mins(), 8);
        assert_eq!(hour.warn_after_failures, 3);
    }

    #[test]
    fn tokens_that_live_weeks_keep_the_window_that_was_set() {
        let settings = Settings::default();
        for days in [21, 60, 365] {
            assert_eq!(settings.for_life(SignedDuration::from_hours(24 * days)), settings);
        }
        assert_eq!(settings.for_life(SignedDuration::ZERO), settings);
        assert_eq!(settings.for_life(SignedDuration::from_hours(-1)), settings);
    }
}
