//! Perene's own tables.

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::connect::Database;
use super::sql::{Mapped, from_micros, micros};
use crate::store::StoreError;

/// The version of the tables below. It grows with every change to them.
const VERSION: i64 = 3;

/// What makes the tables. `perene_meta` holds two numbers: the version of the tables, and the one that the
/// latest memory was given.
const TABLES: [&str; 20] = [
    "CREATE TABLE IF NOT EXISTS perene_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS perene_lease (source TEXT NOT NULL, id TEXT NOT NULL, holder TEXT NOT NULL, \
     fence TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (source, id)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS perene_connection (source TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, \
     generation TEXT NOT NULL, user_table TEXT, user_id TEXT, flagged INTEGER NOT NULL, state TEXT NOT NULL, \
     incident_id TEXT, expires_at INTEGER, next_try_at INTEGER, memory TEXT NOT NULL, PRIMARY KEY (source, id)) STRICT",
    "CREATE INDEX IF NOT EXISTS perene_connection_next_try_at ON perene_connection (source, next_try_at)",
    "CREATE INDEX IF NOT EXISTS perene_connection_incident ON perene_connection (incident_id)",
    "CREATE INDEX IF NOT EXISTS perene_connection_user ON perene_connection (user_table, user_id) WHERE flagged",
    "CREATE TABLE IF NOT EXISTS perene_history (seq INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, \
     id TEXT NOT NULL, at INTEGER NOT NULL, event TEXT NOT NULL, outcome TEXT, text TEXT NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS perene_history_connection ON perene_history (source, id, seq)",
    "CREATE INDEX IF NOT EXISTS perene_history_at ON perene_history (at)",
    "CREATE TABLE IF NOT EXISTS perene_outbox (id TEXT PRIMARY KEY, incident_id TEXT NOT NULL, source TEXT NOT NULL, \
     connection_id TEXT NOT NULL, user_id TEXT, channel TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, \
     created_at INTEGER NOT NULL, next_at INTEGER NOT NULL, attempts INTEGER NOT NULL, lease_until INTEGER, \
     done_at INTEGER, error TEXT) STRICT",
    "CREATE INDEX IF NOT EXISTS perene_outbox_next_at ON perene_outbox (next_at) WHERE done_at IS NULL",
    "CREATE INDEX IF NOT EXISTS perene_outbox_done_at ON perene_outbox (done_at)",
    "CREATE TABLE IF NOT EXISTS perene_app (name TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS perene_run (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \
     replica TEXT NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER, report TEXT) STRICT",
    "CREATE TABLE IF NOT EXISTS perene_alarm (subject TEXT NOT NULL, kind TEXT NOT NULL, since INTEGER NOT NULL, \
     text TEXT NOT NULL, PRIMARY KEY (subject, kind)) STRICT, WITHOUT ROWID",
    "INSERT INTO perene_meta (name, value) VALUES ('version', 0) ON CONFLICT (name) DO NOTHING",
    // What is kept outside of the database, in journals, is kept under this name. One row.
    "CREATE TABLE IF NOT EXISTS perene_identity (is_one INTEGER PRIMARY KEY CHECK (is_one = 1), id TEXT NOT NULL) STRICT",
    "INSERT INTO perene_identity (is_one, id) VALUES (1, lower(hex(randomblob(16)))) ON CONFLICT DO NOTHING",
    // Since when Perene is in charge of a table: what had ended before is none of its business.
    "CREATE TABLE IF NOT EXISTS perene_source (name TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO perene_meta (name, value) VALUES ('schema', 3) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
];

pub(super) async fn prepare(database: &Database) -> Result<(), StoreError> {
    let failed = |error| database.failed(error);
    // To look takes no lock, and serves where the file may only be read.
    if missing(&mut *database.read().await?, database).await?.is_empty() {
        return Ok(());
    }
    let mut transaction = database.write().await?;
    for sql in missing(&mut transaction, database).await?.iter().copied() {
        sqlx::query(sql).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The statements that make what is missing of the tables.
pub(super) async fn missing(
    connection: &mut SqliteConnection,
    database: &Database,
) -> Result<&'static [&'static str], StoreError> {
    match version(connection).await.map_err(|error| database.failed(error))? {
        Some(VERSION) => Ok(&[]),
        Some(newer) if newer > VERSION => Err(StoreError::NewerSchema(format!(
            "Perene's own tables in `{}` have version {newer} and this Perene knows {VERSION}: start the newer Perene",
            database.name()
        ))),
        _ => Ok(&TABLES),
    }
}

pub(super) async fn identity(database: &Database) -> Result<String, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let row = sqlx::query("SELECT id FROM perene_identity").fetch_one(&mut *reader).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}

pub(super) async fn in_charge_since(
    database: &Database,
    mapped: &Mapped,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let failed = |error| database.failed(error);
    let sql = "SELECT since FROM perene_source WHERE name = ?";
    let mut reader = database.read().await?;
    let known = sqlx::query(sql).bind(&mapped.name).fetch_optional(&mut *reader).await.map_err(failed)?;
    drop(reader);
    let row = match known {
        Some(row) => row,
        None => {
            let mut transaction = database.write().await?;
            sqlx::query("INSERT INTO perene_source (name, since) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(&mapped.name)
                .bind(micros(now))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            let row = sqlx::query(sql).bind(&mapped.name).fetch_one(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            row
        }
    };
    row.try_get(0).map(from_micros).map_err(failed)
}

async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let found = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'perene_meta'")
        .fetch_optional(&mut *connection)
        .await?;
    if found.is_none() {
        return Ok(None);
    }
    let row = sqlx::query("SELECT value FROM perene_meta WHERE name = 'schema'").fetch_optional(connection).await?;
    row.map(|row| row.try_get(0)).transpose()
}
