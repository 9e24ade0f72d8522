//! The suite on a file, and what only SQLite has.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Row, SqliteConnection};

use super::SqliteStore;
use crate::clock::ManualClock;
use crate::config::Source;
use crate::store::StoreError;
use crate::store::contract::{Fixture, contract_suite};

mod file;
mod speed;
mod values;

/// One file in a folder of its own.
struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// As the app: another library would open it alike.
    async fn app(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).foreign_keys(false);
        SqliteConnection::connect_with(&options).await.expect("the app connects")
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-11-23T03:00:00Z".parse().expect("a date")))
}

#[async_trait]
impl Fixture for File {
    type Store = SqliteStore;

    const TIMESTAMP: &'static str = "TIMESTAMP";

    async fn empty() -> Self {
        let file = Self { folder: tempfile::tempdir().expect("a folder") };
        let options = SqliteConnectOptions::new().filename(file.path()).create_if_missing(true);
        SqliteConnection::connect_with(&options).await.expect("makes the file").close().await.expect("closes");
        file
    }

    async fn open(&self, sources: Vec<Source>) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.path(), sources, clock(), false).await
    }

    async fn execute(&self, sql: &str) {
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut self.app().await).await;
        done.unwrap_or_else(|error| panic!("{error}: {sql:.200}"));
    }

    async fn texts(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.app().await).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {sql:.200}"));
        rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
    }

    fn instant(at: Timestamp) -> String {
        format!("'{}'", jiff::tz::Offset::UTC.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S"))
    }

    fn seconds(column: &str) -> String {
        format!("CAST(unixepoch({column}) AS TEXT)")
    }

    fn repeat(text: char, times: usize) -> String {
        format!("replace(printf('%.*c', {times}, 'x'), 'x', '{text}')")
    }

    fn own(table: &str) -> String {
        format!("perene_{table}")
    }

    fn refuse_updates(table: &str, key: &str, id: &str, message: &str) -> Vec<String> {
        vec![format!(
            "CREATE TRIGGER refuse_{id} BEFORE UPDATE ON {table} WHEN CAST(old.{key} AS TEXT) = '{id}'
             BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )]
    }

    fn log_updates(table: &str, log: &str) -> Vec<String> {
        vec![format!("CREATE TRIGGER log_{table} AFTER UPDATE ON {table} BEGIN INSERT INTO {log} VALUES (new.id); END")]
    }

    async fn pretend_newer_schema(&self) {
        self.execute("UPDATE perene_meta SET value = 1000 WHERE name = 'schema'").await;
    }
}

mod suite {
    use super::File;

    super::contract_suite!(File);
}
