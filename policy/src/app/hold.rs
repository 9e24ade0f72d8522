//! The circuit, the brake, and the hold on a misconfigured app.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Alarm;
use crate::backoff::later;
use crate::outcome::Outcome;

/// A brake that finds the app well lets go after this time.
pub(super) const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

/// No brake holds longer than this: a customer who really is cut off must hear of it.
pub(super) const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// While a brake is on, what it holds is sent again after a quarter of the time that it has been on, within these bounds:
/// it may have been a passing fault, and a thousand refusals are not asked for every few seconds.
const SENT_AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(15), SignedDuration::from_hours(1));

/// Why an app is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// The provider gives no usable answer.
    Circuit,
    /// Many connections got the same bad outcome.
    Brake,
    /// The provider refuses the app itself.
    Misconfigured,
}

impl HoldKind {
    /// Whether nothing but probes is sent.
    pub const fn stops_calls(self) -> bool {
        matches!(self, Self::Circuit | Self::Misconfigured)
    }

    /// At most one probe in this time.
    pub const fn probe_interval(self) -> SignedDuration {
        match self {
            Self::Circuit | Self::Brake => SignedDuration::from_secs(30),
            Self::Misconfigured => SignedDuration::from_mins(5),
        }
    }
}

/// An app is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub kind: HoldKind,
    /// The outcome that is not believed meanwhile.
    pub outcome: Outcome,
    /// Why, as a fixed word.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When the next probe is allowed.
    pub probe_at: Timestamp,
    /// When the app was last seen to be well: a probe of it, or another connection's success.
    #[serde(default)]
    pub app_is_well_at: Option<Timestamp>,
    /// When what a brake holds was last sent again, by whichever replica.
    #[serde(default)]
    pub sent_again_at: Option<Timestamp>,
}

impl Hold {
    pub(super) fn new(kind: HoldKind, outcome: Outcome, reason: &str, now: Timestamp) -> Self {
        let probe_at = later(now, kind.probe_interval());
        Self {
            kind,
            outcome,
            reason: reason.to_owned(),
            since: now,
            probe_at,
            app_is_well_at: None,
            sent_again_at: None,
        }
    }

    /// Whether what a brake holds may be sent again: by one of all replicas, and in growing steps.
    pub(super) fn may_send_again(&self, now: Timestamp) -> bool {
        let (shortest, longest) = SENT_AGAIN;
        let wait = (now.duration_since(self.since) / 4).clamp(shortest, longest);
        now.duration_since(self.sent_again_at.unwrap_or(self.since)) >= wait
    }

    /// A brake lets go when the app has been seen to be well since, and an hour has passed; or after a day.
    pub(super) fn may_let_go(&self, now: Timestamp) -> bool {
        let held_for = now.duration_since(self.since);
        held_for >= LONGEST || (held_for >= SHORTEST && self.app_is_well_at.is_some())
    }

    pub(super) fn alarm(&self, name: &str) -> Alarm {
        let (kind, text) = match self.kind {
            HoldKind::Circuit => (
                "provider_down",
                format!(
                    "the provider of app `{name}` gives no usable answer ({}); one probe in 30 s, nothing is counted against any customer",
                    self.reason
                ),
            ),
            HoldKind::Brake => (
                "many_alike",
                format!(
                    "many connections of app `{name}` answer `{}` at once: nothing is counted and no customer is told; look at the app's page at the provider",
                    self.outcome
                ),
            ),
            HoldKind::Misconfigured => (
                "app_misconfigured",
                format!(
                    "the provider refuses app `{name}` ({}): check its id, secret and host, and its page at the provider; no customer is told",
                    self.reason
                ),
            ),
        };
        Alarm { kind, since: self.since, text }
    }
}
