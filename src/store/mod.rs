//! Stores: PostgreSQL and SQLite behind one contract.
//!
//! A store speaks in intents, not in rows: it hands out leases on connections that are due, and commits
//! what was decided about them. Both backends have the same files and obey the same suite
//! (`contract`); a promise that stands here is a test there.
//!
//! - No transaction is open, and no lock is held, while a provider is called: the lease is a row of
//!   Perene's own with a deadline, the app's rows are only read until a decision is committed.
//! - Every write of a token is a compare-and-swap on the token that was sent, and every leased write is
//!   fenced by its lease: who lost either changes nothing.
//! - One commit is one transaction: app row, memory, history, outbox and flag together or not at all.
//! - `now` is an argument. The stores read no clock but in [`Store::now`].
//! - Text that comes from outside (names, keys, tokens) is bound or quoted, never pasted into a statement.

#[cfg(test)]
mod contract;
mod error;
pub mod faulty;
pub mod memory;
pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use perene_policy::app::{Alarm, App};
use perene_policy::{Connection, Decision, Grant, Memory};
use uuid::Uuid;

pub use error::StoreError;

/// What every store does.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The database's own time, to the microsecond.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Names the database for good, wherever it moves and whoever restores it: what is kept outside of it is kept
    /// under this name. Needs Perene's own tables.
    async fn identity(&self) -> Result<String, StoreError>;

    /// Which server answers now. One that has taken another's place is put on record when it is seen first. Needs
    /// Perene's own tables.
    async fn incarnation(&self) -> Result<Incarnation, StoreError>;

    /// Looks for what a run needs, without changing anything: tables, columns, types, rights. Empty when
    /// all is there.
    async fn findings(&self) -> Result<Vec<Finding>, StoreError>;

    /// The statements that would make what is missing in the app's tables and among Perene's own, in
    /// order. Empty when nothing is missing.
    async fn migration(&self) -> Result<Vec<String>, StoreError>;

    /// Makes what is missing. Can be repeated; adds, never rewrites; holds no lock on a live table for more
    /// than a moment.
    async fn migrate(&self) -> Result<Vec<String>, StoreError>;

    /// The statements that give `role` the rights that a run needs, and no more. Empty on SQLite.
    async fn grants(&self, role: &str) -> Result<Vec<String>, StoreError>;

    /// Carries out what [`Store::grants`] gave.
    async fn grant(&self, role: &str) -> Result<(), StoreError>;

    /// Makes Perene's own tables if they are missing and may be made; refuses tables of a newer Perene.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Leases a page of connections. See [`Claim`].
    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError>;

    /// Reads the page that [`Store::claim`] would lease, and leases nothing.
    async fn peek(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, StoreError>;

    /// How many connections [`Store::claim`] would lease without its limit and cursor.
    async fn count(&self, claim: &Claim<'_>) -> Result<u64, StoreError>;

    /// Moves the deadline of all leases that still bear `fence` to `until`. Returns how many there are.
    async fn extend(&self, fence: Uuid, until: Timestamp) -> Result<u64, StoreError>;

    /// Gives back leases without having decided anything. Those that are lost already are left alone.
    async fn release(&self, leases: &[Lease]) -> Result<(), StoreError>;

    /// Commits what was decided, all in one transaction, and gives back the leases. Returns what became of
    /// each, in the order of `commits`. A row whose data the database refuses does not stop the others.
    async fn commit(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, StoreError>;

    /// Reads a page of what is remembered, with the rows as the app has them now; connections that are
    /// leased are left out. Ordered by source and key; `after` is the last of the page before.
    async fn remembered(
        &self,
        after: Option<(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, StoreError>;

    /// What is known of the app `name`, with its version; `None` if nothing is.
    async fn app(&self, name: &str) -> Result<Option<(i64, App)>, StoreError>;

    /// Saves what is known of an app, if it still has `version` (`None`: if nothing is known of it yet).
    /// Returns whether it was saved: `false` means that another replica was first. The first save makes
    /// version 1, each further one the next number.
    async fn save_app(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError>;

    /// Makes the alarms on `subject` be exactly `alarms`. Returns those that are new.
    async fn set_alarms(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError>;

    /// All alarms that stand, oldest first.
    async fn alarms(&self) -> Result<Vec<StoredAlarm>, StoreError>;

    /// Puts on record that a run has begun; returns its number.
    async fn begin_run(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError>;

    /// Puts on record that a run is finished.
    async fn finish_run(&self, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError>;

    /// When the latest finished run began; `None` if none is on record.
    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Since when Perene is in charge of a source's table: `now`, which is put on record, when it is asked first.
    async fn in_charge_since(&self, source: usize, now: Timestamp) -> Result<Timestamp, StoreError>;

    /// Takes up to `limit` messages whose time has come and whose lease is free, and leases them until
    /// `until`. Oldest first.
    async fn take_outbox(&self, limit: usize, now: Timestamp, until: Timestamp) -> Result<Vec<Outgoing>, StoreError>;

    /// Says what became of a message that was taken.
    async fn settle_outbox(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError>;

    /// Whether the incident is still open: a notice about one that is over is not sent.
    async fn is_open(&self, incident_id: &str) -> Result<bool, StoreError>;

    /// The address and name of a user, as the app's table has them now.
    async fn recipient(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, StoreError>;

    /// Counts over all sources, and the `soonest` expiries that lie ahead. `windows` says for each source, in their
    /// order, how long before its expiry a token is due; the last one counts for all that follow.
    async fn standing(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, StoreError>;

    /// One connection as the app's table and Perene's memory have it, leased or not; `None` if there is no
    /// such row.
    async fn find(&self, source: usize, id: &str) -> Result<Option<Connection>, StoreError>;

    /// A connection's history, newest first.
    async fn history(&self, source: usize, id: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError>;

    /// Removes history, settled messages and finished runs from before `before`.
    async fn forget_before(&self, before: Timestamp) -> Result<(), StoreError>;

    /// Closes the connections to the database.
    async fn close(&self);
}

/// A server that answers for the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Names its process: another one than before means that it was restarted, or that another server is there.
    pub process: String,
    /// When a server was first seen to have taken another one's place, which may not know the latest commits; `None` if
    /// none has. On record in the database, so that a replica that has just been started knows it too.
    pub since: Option<Timestamp>,
}

/// Which connections are to be leased.
///
/// A connection that another holder has leased, with a deadline after `now`, is not leased but counted in
/// [`Claimed::elsewhere`]. A lease whose deadline has passed is taken over. After a lease was taken, the
/// row is read once more: what another replica has refreshed between the two is let go again. So however
/// many replicas claim at once, a connection that is due is handed out once.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The source, as its place in the configuration.
    pub source: usize,
    /// Which of its rows.
    pub which: Which<'a>,
    /// Only tokens of these grants (for Meta: by the token's prefix).
    pub grants: &'a [Grant],
    /// Who claims: the replica.
    pub holder: &'a str,
    /// The fence: every lease of this claim bears it.
    pub fence: Uuid,
    /// The present instant.
    pub now: Timestamp,
    /// The deadline of the leases.
    pub until: Timestamp,
    /// The end of the page before, from [`Claimed::next`].
    pub after: Option<&'a Cursor>,
    /// At most so many.
    pub limit: usize,
    /// Of [`Which::Due`] and [`Which::Retry`] also rows that have expired, no longer ago than this.
    pub overdue: SignedDuration,
}

impl Claim<'_> {
    /// The instant after which a row must expire to be among those that are due or to be tried again.
    pub fn since(&self) -> Timestamp {
        match self.which {
            Which::Due { .. } | Which::Retry => perene_policy::backoff::later(self.now, -self.overdue),
            Which::Undated | Which::Live | Which::Named { .. } => self.now,
        }
    }
}

/// Which rows of a source. In all cases only rows with a token that is neither NULL nor empty.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// `now < token_expires_at < now + window` (further back with [`Claim::overdue`]), and no retry time in the
    /// future. Soonest expiry first.
    Due {
        /// How long ahead.
        window: SignedDuration,
    },
    /// `token_expires_at` is NULL, it is not remembered that the token never expires, and no retry time in
    /// the future. By key.
    Undated,
    /// Remembered with a retry time that has come, and `now < token_expires_at` (further back with [`Claim::overdue`]),
    /// or NULL. Soonest expiry first, NULL last.
    Retry,
    /// Every row that is not expired, whatever its expiry and retry time. Soonest expiry first, NULL last.
    Live,
    /// These rows, whatever else, if their token is there.
    Named {
        /// Their keys.
        ids: &'a [String],
    },
}

/// Where a page ended: opaque to all but the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The expiry of the last row, in microseconds since 1970; `None` where it is NULL.
    pub expires_us: Option<i64>,
    /// Its key.
    pub id: String,
}

impl Cursor {
    /// Where a page ends whose last row is this one.
    pub fn behind(last: &Connection) -> Self {
        Self { expires_us: last.expires_at.map(Timestamp::as_microsecond), id: last.id.clone() }
    }
}

/// A page of leased connections.
#[derive(Debug)]
pub struct Claimed {
    /// The connections, in the order of [`Which`].
    pub connections: Vec<Connection>,
    /// Rows of this page that others hold.
    pub elsewhere: u64,
    /// Where the next page begins; `None` when there is none.
    pub next: Option<Cursor>,
}

/// A lease on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The source.
    pub source: usize,
    /// The connection's key.
    pub id: String,
    /// The fence of the claim that took it.
    pub fence: Uuid,
}

/// A decision, ready to be carried out.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The source.
    pub source: usize,
    /// The connection as it was read: its token is the one to compare with.
    pub connection: Connection,
    /// What makes sure that nobody else decided meanwhile.
    pub guard: Guard,
    /// What was decided.
    pub decision: Decision,
    /// The messages that the decision's notices became, one a channel. The flag is not among them.
    pub outbox: Vec<Outgoing>,
}

/// What makes sure that nobody else has decided about a connection meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The lease with this fence is still there. It is given back with the commit.
    Lease(Uuid),
    /// The lease with this fence is still there, and stays: what is written is written before a call.
    Kept(Uuid),
    /// What is remembered still has this version, and no lease is on the connection.
    Memory(i64),
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It was carried out.
    Done,
    /// The row no longer holds the token that was sent, or is gone: nothing was written but a line of
    /// history, the lease is given back.
    Superseded,
    /// The guard did not hold: nothing was written.
    GuardLost,
    /// The database refused the data of this row (a column too short, a trigger): nothing was written but a
    /// line of history, the lease is given back. The text names the cause and holds no secret.
    Refused(String),
    /// Somebody else has kept the row locked for longer than Perene waits: nothing was written, the lease is given back.
    Locked,
}

/// What is remembered of a connection, and its row.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The source.
    pub source: usize,
    /// The connection's key.
    pub id: String,
    /// The version of the memory, for [`Guard::Memory`].
    pub version: i64,
    /// What is remembered.
    pub memory: Memory,
    /// The app's row as it is now; `None` when it is gone. A NULL token reads as empty.
    pub row: Option<Connection>,
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Unique, and the same for the same notice over the same channel: a second one is dropped.
    pub id: String,
    /// The incident that it is about.
    pub incident_id: String,
    /// The source.
    pub source: usize,
    /// The connection's key.
    pub connection_id: String,
    /// The user's key.
    pub user_id: Option<String>,
    /// The channel's name.
    pub channel: String,
    /// The notice's kind, by its name.
    pub kind: String,
    /// The rest, as JSON.
    pub payload: String,
    /// When the fact happened.
    pub created_at: Timestamp,
    /// How often delivery was tried.
    pub attempts: u32,
}

/// What became of a message that was taken from the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was delivered.
    Sent,
    /// It will not be delivered; the text says why (suppressed, no address, refused for good).
    Dropped(String),
    /// It is tried again at this instant; the text says why.
    Later(Timestamp, String),
}

/// A user's address and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The address.
    pub email: Option<String>,
    /// The name.
    pub username: Option<String>,
}

/// Something that a run needs and does not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// One line that names the thing and the remedy.
    pub text: String,
}

/// Leases and memory bear a table's name as it is written: under two of them a token would be sent twice.
fn mapped_twice(one: &str, other: &str) -> Finding {
    let text = format!("`{one}` and `{other}` are one table: map it once, in one `[[connections]]`");
    Finding { kind: FindingKind::BadType, text }
}

/// What kind of thing is missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A table of the app is missing: `migrate` cannot make it (on PostgreSQL).
    MissingTable,
    /// A column that `migrate` would add, or an own table or index.
    Missing,
    /// A column that is the app's own (a key, a token, an address) and is not there.
    MissingOwn,
    /// A column of a type that cannot work.
    BadType,
    /// A right that the database role lacks.
    Rights,
    /// Only slower or less safe without it (an index): a run goes on.
    Advice,
}

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlarm {
    /// On what it was raised.
    pub subject: String,
    /// Its kind, as a fixed word.
    pub kind: String,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong and what to do.
    pub text: String,
}

/// How the connections stand. Each is counted once, in the first of these that fits: dark (expired, or
/// refused for good), limited, waiting for the customer's own login (`not_extended`), failing (an incident is
/// open), waiting (a retry time in the future, unless the state is `healthy`: that one only comes up to be
/// looked at), due, healthy. Rows without a token are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nothing is to be done.
    pub healthy: u64,
    /// Will be sent by the next run.
    pub due: u64,
    /// The last try failed.
    pub failing: u64,
    /// Waits for its time, through no fault of its own.
    pub waiting: u64,
    /// Expired, or refused for good by the provider.
    pub dark: u64,
    /// Waits for the end of a limit.
    pub limited: u64,
    /// The next to expire, soonest first: source, key, expiry.
    pub soonest: Vec<(usize, String, Timestamp)>,
}

/// The window of a source: see [`Store::standing`].
fn window_of(windows: &[SignedDuration], source: usize) -> SignedDuration {
    windows.get(source).or(windows.last()).copied().unwrap_or(SignedDuration::ZERO)
}

/// One line of a connection's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub event: String,
    /// The outcome that it rests on.
    pub outcome: Option<String>,
    /// In a few words.
    pub text: String,
}
