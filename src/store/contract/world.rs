//! An app's database, ready for a test, and short ways to say what a test needs.

use jiff::{SignedDuration, Timestamp};
use perene_policy::{
    Attempts, Connection, Decision, ErrorText, Event, EventKind, Grant, Incident, Memory, Outcome, RowWrite, Secret,
    State,
};
use uuid::Uuid;

use super::Fixture;
use crate::config::Source;
use crate::store::{Claim, Claimed, Commit, Committed, Guard, HistoryLine, Outgoing, Store, Which};

/// The instant at which every test happens.
pub(crate) fn now() -> Timestamp {
    "2026-11-23T03:00:00Z".parse().expect("a date")
}

pub(crate) fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

pub(crate) fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

pub(crate) const FENCE: Uuid = Uuid::from_u128(1);
pub(crate) const OTHER_FENCE: Uuid = Uuid::from_u128(2);

/// The tables of the mission, migrated, with two users, and one store on them.
pub(crate) struct World<F: Fixture> {
    pub(crate) fixture: F,
    pub(crate) store: F::Store,
}

/// What the app sees of one of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<i64>,
    pub(crate) refreshed: Option<i64>,
    pub(crate) attempts: Option<i64>,
    pub(crate) error: Option<String>,
}

impl<F: Fixture> World<F> {
    pub(crate) async fn new() -> Self {
        Self::with_keys("BIGINT").await
    }

    pub(crate) async fn with_keys(key: &str) -> Self {
        let fixture = F::empty().await;
        fixture
            .execute(&format!(
                "CREATE TABLE instagram_connections (id {key} PRIMARY KEY, user_id BIGINT, access_token TEXT)"
            ))
            .await;
        fixture.execute("CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT, username TEXT)").await;
        fixture.execute("INSERT INTO users (id, email, username) VALUES (1, 'ana@example.com', 'Ana')").await;
        fixture.execute("INSERT INTO users (id, email, username) VALUES (2, 'rui@example.com', 'Rui')").await;
        let store = fixture.open(vec![Source::default()]).await.expect("the store opens");
        store.migrate().await.expect("migrates");
        Self { fixture, store }
    }

    /// One more replica.
    pub(crate) async fn replica(&self) -> F::Store {
        self.fixture.open(vec![Source::default()]).await.expect("the store opens")
    }

    /// Inserts a connection of user 1.
    pub(crate) async fn insert(&self, id: impl ToString, token: &str, expires: Option<Timestamp>) {
        self.insert_of("1", id, token, expires).await;
    }

    pub(crate) async fn insert_of(&self, user: &str, id: impl ToString, token: &str, expires: Option<Timestamp>) {
        let expires = expires.map_or_else(|| "NULL".to_owned(), F::instant);
        self.fixture
            .execute(&format!(
                "INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at) VALUES ({}, {user}, {}, {expires})",
                literal(&id.to_string()),
                literal(token),
            ))
            .await;
    }

    /// The app changes its row: `assignments` as SQL.
    pub(crate) async fn update(&self, id: impl ToString, assignments: &str) {
        self.fixture
            .execute(&format!("UPDATE instagram_connections SET {assignments} WHERE id = {}", literal(&id.to_string())))
            .await;
    }

    pub(crate) async fn delete(&self, id: impl ToString) {
        self.fixture
            .execute(&format!("DELETE FROM instagram_connections WHERE id = {}", literal(&id.to_string())))
            .await;
    }

    pub(crate) async fn row(&self, id: impl ToString) -> Row {
        let rows = self
            .fixture
            .texts(&format!(
                "SELECT access_token, {}, {}, CAST(refresh_attempts AS TEXT), last_refresh_error
                 FROM instagram_connections WHERE id = {}",
                F::seconds("token_expires_at"),
                F::seconds("token_refreshed_at"),
                literal(&id.to_string())
            ))
            .await;
        let [token, expires, refreshed, attempts, error] =
            <[_; 5]>::try_from(rows.into_iter().next().expect("the row is there")).expect("five columns");
        let number = |text: Option<String>| text.map(|text| text.parse().expect("a number"));
        Row { token, expires: number(expires), refreshed: number(refreshed), attempts: number(attempts), error }
    }

    /// The flag of a user.
    pub(crate) async fn flag(&self, user: &str) -> bool {
        let rows = self
            .fixture
            .texts(&format!(
                "SELECT CASE WHEN show_token_warning THEN 'up' ELSE 'down' END FROM users WHERE id = {user}"
            ))
            .await;
        rows[0][0].as_deref() == Some("up")
    }

    /// Claims, which must succeed.
    pub(crate) async fn claim(&self, claim: Claim<'_>) -> Claimed {
        self.store.claim(&claim).await.expect("claims")
    }

    /// Leases this one row, under [`FENCE`].
    pub(crate) async fn take(&self, id: impl ToString) -> Connection {
        let ids = [id.to_string()];
        let mut claimed = self.claim(Claim { which: Which::Named { ids: &ids }, ..due() }).await;
        assert_eq!(claimed.connections.len(), 1, "{ids:?} can be leased");
        claimed.connections.remove(0)
    }

    /// Commits one decision, and says what became of it.
    pub(crate) async fn commit(&self, commit: Commit) -> Committed {
        let mut committed = self.store.commit(&[commit], now()).await.expect("commits");
        assert_eq!(committed.len(), 1);
        committed.remove(0)
    }

    /// Leases a row and makes this be remembered of it; the row is not written.
    pub(crate) async fn remember(&self, id: impl ToString, change: impl FnOnce(&Connection, &mut Memory)) {
        let connection = self.take(id).await;
        let mut memory = Memory::of(connection.token.fingerprint(), State::Healthy, now());
        change(&connection, &mut memory);
        let decision = Decision { memory: Some(memory), ..nothing(Outcome::Transient) };
        assert_eq!(self.commit(leased(connection, decision)).await, Committed::Done);
    }

    /// Leases a row, warns its user, and returns the incident's id.
    pub(crate) async fn warn(&self, id: impl ToString) -> String {
        let connection = self.take(id).await;
        let memory = warned(&connection);
        let incident = memory.incident.as_ref().expect("an incident").id.clone();
        let decision = Decision { memory: Some(memory), flag: Some(true), ..failed(&connection) };
        assert_eq!(self.commit(leased(connection, decision)).await, Committed::Done);
        incident
    }

    /// Leases a row and lets it recover.
    pub(crate) async fn recover(&self, id: impl ToString) {
        let connection = self.take(id).await;
        let decision = Decision { flag: Some(false), ..refreshed("EAA-new") };
        assert_eq!(self.commit(leased(connection, decision)).await, Committed::Done);
    }

    pub(crate) async fn history(&self, id: impl ToString) -> Vec<HistoryLine> {
        self.store.history(0, &id.to_string(), 100).await.expect("reads")
    }

    /// How often rows were updated since [`Fixture::log_updates`].
    pub(crate) async fn lines(&self, log: &str) -> usize {
        self.fixture.texts(&format!("SELECT 'line' FROM {log}")).await.len()
    }
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Claims what is due within seven days.
pub(crate) fn due<'a>() -> Claim<'a> {
    Claim {
        source: 0,
        which: Which::Due { window: days(7) },
        grants: &Grant::META,
        holder: "replica-a",
        fence: FENCE,
        now: now(),
        until: now() + SignedDuration::from_secs(60),
        after: None,
        limit: 100,
        overdue: SignedDuration::ZERO,
    }
}

/// The same as another replica.
pub(crate) fn due_elsewhere<'a>() -> Claim<'a> {
    Claim { holder: "replica-b", fence: OTHER_FENCE, ..due() }
}

pub(crate) fn keys(connections: &[Connection]) -> Vec<&str> {
    connections.iter().map(|connection| connection.id.as_str()).collect()
}

/// A decision that does nothing.
pub(crate) fn nothing(outcome: Outcome) -> Decision {
    Decision {
        outcome,
        counted: Some(outcome.counted()),
        write: None,
        memory: None,
        events: Vec::new(),
        notices: Vec::new(),
        flag: None,
        warns: false,
        recovers: false,
    }
}

/// The new token is stored, good for sixty days.
pub(crate) fn refreshed(token: &str) -> Decision {
    Decision {
        write: Some(RowWrite {
            token: Some(Secret::new(token)),
            refresh_token: None,
            expires_at: Some(now() + days(60)),
            refreshed_at: Some(now()),
            attempts: Attempts::Zero,
            error: ErrorText::Clear,
        }),
        events: vec![event(EventKind::Tried, Some(Outcome::Refreshed), "expires later")],
        ..nothing(Outcome::Refreshed)
    }
}

/// One more failure, remembered.
pub(crate) fn failed(connection: &Connection) -> Decision {
    let state = State::Failing { outcome: Outcome::Transient, reason: "server_error".to_owned(), retries: 0 };
    Decision {
        write: Some(RowWrite {
            attempts: Attempts::AddOne,
            error: ErrorText::Set("the provider is tired".to_owned()),
            ..RowWrite::default()
        }),
        memory: Some(Memory::of(connection.token.fingerprint(), state, now())),
        events: vec![event(EventKind::Tried, Some(Outcome::Transient), "the provider is tired")],
        ..nothing(Outcome::Transient)
    }
}

/// The memory of a connection whose user was warned.
pub(crate) fn warned(connection: &Connection) -> Memory {
    let mut memory = failed(connection).memory.expect("a failure is remembered");
    let mut incident = Incident::open(connection, Outcome::Transient, now());
    incident.warned_at = Some(now());
    memory.incident = Some(incident);
    memory
}

pub(crate) fn event(kind: EventKind, outcome: Option<Outcome>, text: &str) -> Event {
    Event { kind, outcome, text: text.to_owned() }
}

/// A commit under the lease of [`FENCE`].
pub(crate) fn leased(connection: Connection, decision: Decision) -> Commit {
    Commit { source: 0, connection, guard: Guard::Lease(FENCE), decision, outbox: Vec::new() }
}

/// A message about a connection.
pub(crate) fn message(id: &str, created_at: Timestamp) -> Outgoing {
    Outgoing {
        id: id.to_owned(),
        incident_id: "i".repeat(32),
        source: 0,
        connection_id: "1".to_owned(),
        user_id: Some("1".to_owned()),
        channel: "mail".to_owned(),
        kind: "failing".to_owned(),
        payload: r#"{"reason":"transient"}"#.to_owned(),
        created_at,
        attempts: 0,
    }
}
