//! What only PostgreSQL has: zones, types, rights, locks, other sessions.

mod claims;
mod commits;
mod errors;
mod migration;
mod rights;
mod servers;
mod speed;
mod types;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{
    Attempts, Connection, Decision, ErrorText, Event, EventKind, Grant, Memory, Outcome, RowWrite, Secret, State,
};
use uuid::Uuid;

use super::PostgresStore;
use super::testing::Database;
use crate::store::contract::Fixture;
use crate::store::{Claim, Commit, Guard, Store, Which};

const FENCE: Uuid = Uuid::from_u128(1);

/// The instant at which every test happens.
fn now() -> Timestamp {
    "2026-11-23T03:00:00Z".parse().expect("a date")
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

/// The tables of the mission, migrated, and a store on them.
async fn world() -> (Database, PostgresStore) {
    let database = Database::new().await;
    database.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, username text)").await;
    database
        .execute("CREATE TABLE instagram_connections (id bigint PRIMARY KEY, user_id bigint, access_token text)")
        .await;
    let store = database.store().await;
    store.migrate().await.expect("migrates");
    database.execute("INSERT INTO users (id, email) VALUES (1, 'ana@example.com')").await;
    (database, store)
}

/// Inserts connections `1..=count` of user 1, which expire a day from now.
async fn insert(database: &Database, count: usize) {
    database
        .execute(&format!(
            "INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at)
             SELECT n, 1, 'EAA-old-' || n, timestamptz '{}' FROM generate_series(1, {count}) n",
            now() + days(1)
        ))
        .await;
}

/// One text that a query gives.
async fn text(database: &Database, sql: &str) -> Option<String> {
    database.texts(sql).await.into_iter().next().and_then(|row| row.into_iter().next()).flatten()
}

/// How many sessions wait for a lock in this database; other tests have theirs.
async fn waiting(database: &Database) -> usize {
    let sql =
        "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    text(database, sql).await.and_then(|count| count.parse().ok()).expect("a number")
}

fn due<'a>() -> Claim<'a> {
    Claim {
        source: 0,
        which: Which::Due { window: days(7) },
        grants: &Grant::META,
        holder: "replica-a",
        fence: FENCE,
        now: now(),
        until: now() + SignedDuration::from_secs(60),
        after: None,
        limit: 500,
        overdue: SignedDuration::ZERO,
    }
}

async fn take(store: &PostgresStore) -> Vec<Connection> {
    store.claim(&due()).await.expect("claims").connections
}

fn leased(connection: Connection, decision: Decision) -> Commit {
    Commit { source: 0, connection, guard: Guard::Lease(FENCE), decision, outbox: Vec::new() }
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

/// One more failure, remembered.
fn failed(connection: &Connection, error: &str) -> Decision {
    let state = State::Failing { outcome: Outcome::Transient, reason: "server_error".to_owned(), retries: 0 };
    Decision {
        outcome: Outcome::Transient,
        write: Some(RowWrite {
            attempts: Attempts::AddOne,
            error: ErrorText::Set(error.to_owned()),
            ..RowWrite::default()
        }),
        memory: Some(Memory::of(connection.token.fingerprint(), state, now())),
        ..refreshed("")
    }
}
