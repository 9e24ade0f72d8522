//! Tells people: e-mail to the customer, webhook to the app. Decides nothing: what is told to whom stands in
//! the outbox, written in the same transaction as the fact that it tells of.
//!
//! A channel is asked to deliver one [`Message`] and answers with a [`Delivery`] that carries the decision:
//! done, nothing to do, later, or never. It keeps no queue and never retries by itself; the outbox does, for
//! [`GIVE_UP_AFTER`], at the times of [`retry_delay`]. A message keeps its id over all tries, so a receiver
//! can tell a repetition.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

mod compose;
pub mod email;
mod link;
pub mod locale;
mod public_address;
mod smtp;
mod template;
mod text;
pub mod webhook;
mod words;

pub use email::{Email, MailError, MailSettings};
pub use locale::Locale;
pub use webhook::{Webhook, WebhookError, WebhookSettings};

/// One message that a channel is asked to deliver: plain data made from an outbox row plus the recipient,
/// who is looked up when it is sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// Stable over retries and unique over messages: a part of `Message-ID`, and the `webhook-id`.
    pub id: String,
    /// What is told.
    pub kind: MessageKind,
    /// The key of the connection's row, as text.
    pub connection_id: String,
    /// The app's table that holds the connection.
    pub table: String,
    /// The customer's key, if the row has one.
    pub user_id: Option<String>,
    /// The word for the outcome or the cause.
    pub reason: String,
    /// When the token dies, as far as is known.
    pub expires_at: Option<Timestamp>,
    /// When the fact happened that is told.
    pub at: Timestamp,
    /// The step of a [`MessageKind::NotExtended`] notice: 14, 7 or 3 days.
    pub days_left: Option<u8>,
    /// Whom it goes to; the webhook needs nobody.
    pub recipient: Option<Recipient>,
}

/// The customer as the app's table has them at the time of sending. Both texts are untrusted.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Where the mail goes; without it there is no mail.
    pub email: Option<String>,
    /// How the mail greets them; without it neutrally.
    pub username: Option<String>,
}

/// What a message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Refreshing has failed often or long enough that the customer should act.
    Failing,
    /// The provider has refused the token for good.
    NeedsReconnect,
    /// The token still works, but only the customer's login can give it a later expiry; told ahead.
    NotExtended,
    /// The connection is dark: expired, or refused for good.
    Dark,
    /// An incident is over.
    Recovered,
    /// A token was refreshed in the ordinary way.
    Refreshed,
    /// The provider or the app's registration there is in trouble; no customer can help.
    ProviderTrouble,
}

impl MessageKind {
    /// Every kind there is.
    pub const ALL: [Self; 7] = [
        Self::Failing,
        Self::NeedsReconnect,
        Self::NotExtended,
        Self::Dark,
        Self::Recovered,
        Self::Refreshed,
        Self::ProviderTrouble,
    ];

    /// The word that the outbox stores for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::NeedsReconnect => "needs_reconnect",
            Self::NotExtended => "not_extended",
            Self::Dark => "dark",
            Self::Recovered => "recovered",
            Self::Refreshed => "refreshed",
            Self::ProviderTrouble => "provider_trouble",
        }
    }

    /// Reads back what [`MessageKind::as_str`] gave; `None` for any other word.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The webhook's event type. A token that cannot be extended has no type of its own: what the receiver
    /// has to do is the same as for one that needs its customer, and `reason` tells the two apart.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Failing => "connection.failing",
            Self::NeedsReconnect | Self::NotExtended => "connection.needs_reconnect",
            Self::Dark => "connection.dark",
            Self::Recovered => "connection.recovered",
            Self::Refreshed => "connection.refreshed",
            Self::ProviderTrouble => "provider.trouble",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has taken it.
    Sent,
    /// There was nothing to do; says why.
    Skipped(&'static str),
    /// Not now. Texts are for the operator: one line, no secret, no URL.
    Later {
        /// Not before this has passed; zero if the receiver named no time. [`retry_delay`] counts besides.
        after: Duration,
        /// What happened and what to do about it.
        why: String,
    },
    /// This receiver will never take it: the address is wrong or refused.
    Never {
        /// What happened and what to do about it.
        why: String,
    },
}

impl Delivery {
    fn later(why: String) -> Self {
        Self::Later { after: Duration::ZERO, why }
    }
}

/// A way to reach somebody.
#[async_trait]
pub trait Channel: Send + Sync {
    /// The word that the outbox stores for it: `email`, `webhook`.
    fn name(&self) -> &'static str;

    /// Tries once, within a deadline of its own. Dropping the future is safe: nothing half-sent is reused.
    async fn deliver(&self, message: &Message, now: Timestamp) -> Delivery;
}

/// How long a message is tried, counted from when it was put into the outbox.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);

/// The pause after the try with this number (the first is 1): 1, 5, 15, 30 minutes, 1, 2, 4 hours, then 6 hours
/// each time. The 18th pause is the first to end after [`GIVE_UP_AFTER`]: at 73 h 51 min.
///
/// Front-loaded, because a greylisting server or a receiver that restarts is back within minutes.
pub fn retry_delay(attempts: u32) -> SignedDuration {
    const PAUSES_MIN: [i64; 7] = [1, 5, 15, 30, 60, 120, 240];
    const LAST_MIN: i64 = 360;
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    SignedDuration::from_mins(PAUSES_MIN.get(index).copied().unwrap_or(LAST_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_series_is_what_the_doc_says() {
        let minutes: Vec<i64> = (1..=9).map(|attempts| retry_delay(attempts).as_mins()).collect();
        assert_eq!(minutes, [1, 5, 15, 30, 60, 120, 240, 360, 360]);
        assert_eq!(retry_delay(0), retry_delay(1));
        assert_eq!(retry_delay(u32::MAX).as_hours(), 6);
    }

    #[test]
    fn the_retry_series_spans_the_time_before_giving_up() {
        let total = |tries: u32| (1..=tries).map(retry_delay).sum::<SignedDuration>();
        assert!(GIVE_UP_AFTER >= SignedDuration::from_hours(72));
        assert!(total(17) < GIVE_UP_AFTER);
        assert_eq!(total(18).as_mins(), 73 * 60 + 51);
    }

    #[test]
    fn stored_words_are_read_back_and_stay_what_they_were() {
        for kind in MessageKind::ALL {
            assert_eq!(MessageKind::from_stored(kind.as_str()), Some(kind));
        }
        assert_eq!(MessageKind::from_stored("Failing"), None);
        let words: Vec<&str> = MessageKind::ALL.into_iter().map(MessageKind::as_str).collect();
        assert_eq!(
            words,
            ["failing", "needs_reconnect", "not_extended", "dark", "recovered", "refreshed", "provider_trouble"]
        );
    }
}
