//! Section `refresh`: what is due, how much at once, when people hear of it.

use jiff::SignedDuration;
use perene_policy::Settings;

use super::duration::within;
use super::found::Found;

/// Section `refresh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// Key `refresh.window`: how long before its expiry a token becomes due. 1 s to 365 days, default 7 days.
    pub window: SignedDuration,
    /// Key `refresh.concurrency`: calls in flight at once. 1 to 4096, default 64.
    pub concurrency: usize,
    /// Key `refresh.warn_after_failures`: the count of failed runs that warns. At least 1, default 3.
    pub warn_after_failures: i64,
    /// Key `refresh.warn_before`: with less left and an incident open, the customer is warned. At most
    /// 365 days, default 72 hours.
    pub warn_before: SignedDuration,
}

impl Refresh {
    /// The part on which decisions rest.
    pub fn settings(&self) -> Settings {
        Settings { window: self.window, warn_after_failures: self.warn_after_failures, warn_before: self.warn_before }
    }
}

pub(super) fn read(found: &Found<'_>) -> Option<Refresh> {
    let window = found.read("refresh.window", |text| within(text, "1s", "365d"));
    let concurrency = found.integer("refresh.concurrency", 1, 4096);
    let warn_after_failures = found.integer("refresh.warn_after_failures", 1, 1_000_000);
    let warn_before = found.read("refresh.warn_before", |text| within(text, "0s", "365d"));
    Some(Refresh {
        window: window?,
        concurrency: usize::try_from(concurrency?).ok()?,
        warn_after_failures: warn_after_failures?,
        warn_before: warn_before?,
    })
}
