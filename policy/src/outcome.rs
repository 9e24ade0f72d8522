//! What an answer means, never how it was spelled.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of one connection in one run.
///
/// The names are a contract with users: they stand in reports, history and documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The provider gave a later expiry. Attempts go to zero, an incident is closed.
    Refreshed,
    /// It may pass by itself: an outage, a time-out, an answer that cannot be read. Tried again soon.
    Transient,
    /// Only the customer's own login helps. Believed after a second look, probed daily from then on.
    NeedsReconnect,
    /// An answer that no rule knows, or a row that cannot be sent. Retried rarely, shown to the operator.
    Unrecognised,
    /// The provider said yes and the expiry did not move: only the customer's own login renews it.
    NotExtended,
    /// Instagram and Threads refuse tokens under 24 hours of age: not sent, and no failure.
    TooYoung,
    /// A limit of the provider, on this connection or on the whole app.
    RateLimited,
    /// Our app, its credentials or our request are at fault: the operator hears of it, no customer does.
    Misconfigured,
    /// The app changed the row while it was being refreshed: the result is dropped.
    Superseded,
}

/// In which sum of the report an outcome is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// `refreshed`
    Refreshed,
    /// `failed`: the attempt counts against the connection.
    Failed,
    /// `deferred`: nothing counts against the connection.
    Deferred,
    /// `superseded`
    Superseded,
}

impl Outcome {
    /// Every outcome, in the order in which reports list them.
    pub const ALL: [Self; 9] = [
        Self::Refreshed,
        Self::Transient,
        Self::NeedsReconnect,
        Self::Unrecognised,
        Self::NotExtended,
        Self::TooYoung,
        Self::RateLimited,
        Self::Misconfigured,
        Self::Superseded,
    ];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Transient => "transient",
            Self::NeedsReconnect => "needs_reconnect",
            Self::Unrecognised => "unrecognised",
            Self::NotExtended => "not_extended",
            Self::TooYoung => "too_young",
            Self::RateLimited => "rate_limited",
            Self::Misconfigured => "misconfigured",
            Self::Superseded => "superseded",
        }
    }

    /// The sum in which this outcome is counted when nothing holds its app. A transient outcome that the
    /// circuit or the brake holds is counted as deferred instead: see [`crate::decide()`].
    pub const fn counted(self) -> Counted {
        match self {
            Self::Refreshed => Counted::Refreshed,
            Self::Transient | Self::NeedsReconnect | Self::Unrecognised => Counted::Failed,
            Self::NotExtended | Self::TooYoung | Self::RateLimited | Self::Misconfigured => Counted::Deferred,
            Self::Superseded => Counted::Superseded,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whom an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This connection alone.
    Connection,
    /// Every connection of the app with which the call was made.
    App,
}

impl Scope {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::App => "app",
        }
    }
}
