//! Small makers for this package's own tests.

use jiff::{SignedDuration, Timestamp};

use crate::{Connection, Grant, Secret};

pub(crate) fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

/// A row as the app's table would hold it: of user 1, never refreshed, nothing remembered.
pub(crate) fn connection(token: &str, expires_at: Option<Timestamp>) -> Connection {
    Connection {
        id: "1".to_owned(),
        user_id: Some("1".to_owned()),
        token: Secret::new(token),
        token_bytes: token.len(),
        refresh_token: None,
        expires_at,
        refreshed_at: None,
        attempts: 0,
        grant: Grant::of_meta_token(token),
        memory: None,
    }
}
