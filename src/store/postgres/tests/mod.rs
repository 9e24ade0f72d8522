//! What only PostgreSQL has: zones, types, rights, locks, other sessions.

mod speed;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Attempts, Decision, ErrorText, Event, EventKind, Outcome, RowWrite, Secret};

/// The instant at which every test happens.
fn now() -> Timestamp {
    "2026-11-23T03:00:00Z".parse().expect("a date")
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

/// The new token is stored, good for sixty days.
fn refreshed(token: &str) -> Decision {
    Decision {
        outcome: Outcome::Refreshed,
        counted: Some(Outcome::Refreshed.counted()),
        write: Some(RowWrite {
            token: Some(Secret::new(token)),
            refresh_token: None,
            expires_at: Some(now() + days(60)),
            refreshed_at: Some(now()),
            attempts: Attempts::Zero,
            error: ErrorText::Clear,
        }),
        memory: None,
        events: vec![Event { kind: EventKind::Tried, outcome: Some(Outcome::Refreshed), text: "ok".to_owned() }],
        notices: Vec::new(),
        flag: None,
        warns: false,
        recovers: false,
    }
}
