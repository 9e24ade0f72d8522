//! What is known of one connection: what the app's row holds, and what Perene remembers beside it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::grant::Grant;
use crate::outcome::Outcome;
use crate::secret::{Fingerprint, Secret, hex};

/// The longest token that is sent, in bytes. A longer one is not read into memory: see [`Connection::token`].
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// One row of the app's table, as it was read, with what Perene remembers of it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The row's key, as text.
    pub id: String,
    /// The key of the user to whom the connection belongs, as text.
    pub user_id: Option<String>,
    /// The token that the row holds. Of a token over [`TOKEN_BYTES_MAX`] only its two ends are read.
    pub token: Secret,
    /// The length of the token in bytes, also when it was not read whole.
    pub token_bytes: usize,
    /// The refresh token, where the source maps one.
    pub refresh_token: Option<Secret>,
    /// When the token expires, if the row says so.
    pub expires_at: Option<Timestamp>,
    /// When the token was last refreshed, if the row says so.
    pub refreshed_at: Option<Timestamp>,
    /// `refresh_attempts`: failed runs so far; NULL reads as 0.
    pub attempts: i64,
    /// Which grant renews the token.
    pub grant: Grant,
    /// What Perene remembers of it; most connections are healthy, and of them it remembers nothing.
    pub memory: Option<Memory>,
}

impl Connection {
    /// What is remembered of the generation that the row holds now. A memory of an older generation does
    /// not speak about this one.
    pub fn memory_of_this_generation(&self) -> Option<&Memory> {
        self.memory.as_ref().filter(|memory| memory.generation == self.generation())
    }

    /// What is remembered of the refresh token that the row holds now, whatever access token stands beside it: it is the
    /// one that a strict provider takes once.
    pub fn memory_of_this_refresh_token(&self) -> Option<&Memory> {
        let is_same = |memory: &&Memory| self.holds_refresh_token_of(memory);
        self.memory_of_this_generation().or_else(|| self.memory.as_ref().filter(is_same))
    }

    /// Whether the row holds the refresh token of which this is remembered.
    pub(crate) fn holds_refresh_token_of(&self, memory: &Memory) -> bool {
        memory.refresh_token.is_some() && memory.refresh_token == self.name_of_refresh_token()
    }

    /// Names the refresh token that the row holds.
    pub(crate) fn name_of_refresh_token(&self) -> Option<Fingerprint> {
        self.refresh_token.as_ref().map(Secret::fingerprint)
    }

    /// Names the generation that the row holds.
    pub fn generation(&self) -> Fingerprint {
        generation(&self.token, self.refresh_token.as_ref())
    }

    /// Whether it can be renewed after its expiry: a refresh token outlives the access token beside it.
    pub const fn outlives_its_expiry(&self) -> bool {
        self.refresh_token.is_some()
    }
}

/// Names a generation: an access token, and the refresh token beside it. A customer's new login may bring another
/// refresh token under the same access token.
pub fn generation(token: &Secret, refresh_token: Option<&Secret>) -> Fingerprint {
    let Some(refresh_token) = refresh_token else { return token.fingerprint() };
    Fingerprint::of(&format!("{}\0{}", token.fingerprint().as_str(), refresh_token.fingerprint().as_str()))
}

/// What Perene remembers of a connection, beside the app's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The generation of which this is remembered.
    pub generation: Fingerprint,
    /// The refresh token that was sent, or was about to be, to a provider that takes it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Fingerprint>,
    /// How the connection stands.
    pub state: State,
    /// Since when it stands like that.
    pub since: Timestamp,
    /// The incident, from the first failure to the recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Incident>,
    /// Before this instant it is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
    /// When the app put this generation there, if that happened under Perene's eyes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_since: Option<Timestamp>,
    /// The expiry that the row held when it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When a failure was last added to `refresh_attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Timestamp>,
    /// When the provider closes its data to the app although the token lives on (Facebook Login, 90 days).
    /// <https://developers.facebook.com/docs/facebook-login/auth-vs-data>
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_access_ends_at: Option<Timestamp>,
}

impl Memory {
    /// A memory of `generation` that says no more than `state`.
    pub fn of(generation: Fingerprint, state: State, now: Timestamp) -> Self {
        Self {
            generation,
            refresh_token: None,
            state,
            since: now,
            incident: None,
            next_try_at: None,
            fresh_since: None,
            expires_at: None,
            counted_at: None,
            data_access_ends_at: None,
        }
    }

    /// Whether the customer's banner is up because of this connection.
    pub fn is_flagged(&self) -> bool {
        self.incident.as_ref().is_some_and(|incident| incident.warned_at.is_some())
    }
}

/// How a remembered connection stands; the facts of a state stand inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum State {
    /// Nothing is wrong; remembered for another fact (a fresh generation, the end of data access).
    Healthy,
    /// The last try failed, and another will be made.
    Failing {
        /// [`Outcome::Transient`] or [`Outcome::Unrecognised`].
        outcome: Outcome,
        /// Why, as a fixed word.
        reason: String,
        /// How many steps of the retry series have been taken.
        retries: u32,
    },
    /// The provider has refused the token for good, as far as it can be known; probed daily.
    NeedsReconnect {
        /// Why, as a fixed word.
        reason: String,
    },
    /// The provider said yes and the expiry did not move; only the customer's login renews it.
    NotExtended,
    /// Not sent before `next_try_at`, through no fault of the customer.
    Waiting {
        /// [`Outcome::TooYoung`], [`Outcome::RateLimited`] or [`Outcome::Misconfigured`].
        outcome: Outcome,
        /// Why, as a fixed word.
        reason: String,
        /// How often in a row it has had to wait for the same reason.
        times: u32,
    },
    /// The provider says that this token never expires.
    NeverExpires,
    /// At a provider that punishes reuse: the token was sent, or was about to be, and what came of it is not
    /// known. Written before the call, so that it holds also for a process that dies in it. The access token
    /// goes on; the refresh token is sent once more, shortly before the end, and never again.
    Uncertain {
        /// When it was about to be sent.
        sent_at: Timestamp,
        /// Why nothing is known, as a fixed word.
        reason: String,
        /// Whether this was the one further try.
        is_last: bool,
    },
}

impl State {
    /// Whether it says of a token that a provider takes once that it is spent, refused, or may be.
    pub fn may_be_spent(&self) -> bool {
        self.use_of_token() > TokenUse::Unsent
    }

    /// What it says of the use of a token that a provider takes once.
    pub const fn use_of_token(&self) -> TokenUse {
        match self {
            Self::Uncertain { is_last: false, .. } => TokenUse::SentOnce,
            Self::Uncertain { is_last: true, .. } => TokenUse::SentForTheLastTime,
            Self::NeedsReconnect { .. } => TokenUse::Refused,
            _ => TokenUse::Unsent,
        }
    }

    /// The name under which it is stored and queried.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing { .. } => "failing",
            Self::NeedsReconnect { .. } => "needs_reconnect",
            Self::NotExtended => "not_extended",
            Self::Waiting { .. } => "waiting",
            Self::NeverExpires => "never_expires",
            Self::Uncertain { .. } => "uncertain",
        }
    }
}

/// What is known of the use of a token that a provider takes once. Of two facts about one token the greater is the truth:
/// no use can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenUse {
    /// Nothing says that it was sent.
    Unsent,
    /// It was sent, or was about to be, and nobody knows what came of it: one try is left.
    SentOnce,
    /// The last try was made, or was about to be, and nobody knows what came of it.
    SentForTheLastTime,
    /// The provider has refused it.
    Refused,
}

impl TokenUse {
    /// What a memory says of it; where nothing is remembered, nothing says that it was sent.
    pub fn of(memory: Option<&Memory>) -> Self {
        memory.map_or(Self::Unsent, |memory| memory.state.use_of_token())
    }
}

/// From the first failure of a connection to its recovery. People hear of it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable and unique: 32 hexadecimal digits.
    pub id: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The outcome that opened it.
    pub cause: Outcome,
    /// When the customer was warned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned_at: Option<Timestamp>,
    /// The last of the steps (14, 7, 3 days ahead) that the customer was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_days: Option<u8>,
    /// Whether the customer was told that the provider has refused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told_refused: bool,
    /// Whether it has been said that the connection is dark.
    #[serde(default)]
    pub dark: bool,
}

impl Incident {
    /// Opens an incident. Its id follows from what it is about, so that a decision that is made twice (a
    /// commit whose answer was lost) speaks of one incident.
    pub fn open(connection: &Connection, cause: Outcome, now: Timestamp) -> Self {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        for part in [connection.id.as_str(), connection.generation().as_str(), &now.to_string()] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let id = hex(&digest.finalize()[..16]);
        Self { id, opened_at: now, cause, warned_at: None, told_days: None, told_refused: false, dark: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_today_can_be_read_for_ever() {
        let stored = r#"{"generation":"aa","state":{"name":"failing","outcome":"transient","reason":"server_error","retries":2},
            "since":"2026-11-23T03:00:00Z","incident":{"id":"bb","opened_at":"2026-11-22T03:00:00Z","cause":"transient",
            "warned_at":"2026-11-23T03:00:00Z","told_days":7,"dark":false},"next_try_at":"2026-11-23T04:00:00Z"}"#;
        let memory: Memory = serde_json::from_str(stored).unwrap();
        assert_eq!(memory.state.name(), "failing");
        assert!(memory.is_flagged());
        assert_eq!(memory.incident.unwrap().told_days, Some(7));
    }
}
