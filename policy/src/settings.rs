//! What the operator has set, as far as decisions rest on it.

use jiff::SignedDuration;

/// The settings on which decisions rest (configuration section `refresh`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long before its expiry a token becomes due. Default seven days.
    pub window: SignedDuration,
    /// The count of failed runs at which the customer is warned. Default 3.
    pub warn_after_failures: i64,
    /// With less than this left and an incident open, the customer is warned. Default 72 hours.
    pub warn_before: SignedDuration,
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
