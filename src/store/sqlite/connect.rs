//! Connections to the file: one that writes, a few that only read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, Sqlite, SqlitePool, Transaction};

use crate::store::StoreError;

/// So long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers: a run and a status beside it need no more.
const READERS: u32 = 3;

/// The result codes of SQLite that are told apart. <https://sqlite.org/rescode.html>
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const NOTADB: i32 = 26;
}

/// The file and the connections to it.
pub(super) struct Database {
    path: PathBuf,
    writer: SqlitePool,
    /// The writer's own for a database in memory: there is but one connection to that.
    readers: SqlitePool,
    in_memory: bool,
}

impl Database {
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let in_memory = path.as_os_str() == ":memory:";
        if !in_memory {
            look_at_file(path, create)?;
        }
        let options = SqliteConnectOptions::new()
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            // The app's own rules on its own tables are the app's to enforce, as its connections are set up.
            .foreign_keys(false)
            .disable_statement_logging();
        let options = if in_memory { options.in_memory(true) } else { options.filename(path) };

        // A database in memory lives as long as its one connection.
        let pool = || PoolOptions::<Sqlite>::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        let writer = pool()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT * 3)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // WAL is a mark in the file. Where another process keeps the lock at this moment, the file
                    // stays as it is until the next start: slower, and as safe.
                    let marked = connection.execute("PRAGMA journal_mode = WAL").await;
                    match marked.map(|_| ()) {
                        Err(error) if !matches!(primary_code(&error), Some(code::BUSY | code::READONLY)) => Err(error),
                        _ => Ok(()),
                    }
                })
            })
            .connect_lazy_with(options.clone());
        let readers = if in_memory {
            writer.clone()
        } else {
            pool().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"))
        };
        let database = Self { path: path.to_owned(), writer, readers, in_memory };
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .execute(&mut *database.read().await?)
            .await
            .map_err(|error| database.failed(error))?;
        Ok(database)
    }

    /// A connection for reading.
    pub(super) async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(|error| self.failed(error))
    }

    /// A transaction that has the write lock. It is rolled back if it is dropped.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.failed(error))
    }

    /// Whether the file, where it is one, may be written by anybody. Its mode is asked, and the file not
    /// opened: closing it would drop every lock that this process has on it (POSIX), and the next process
    /// would take the write-ahead log away from under us.
    pub(super) fn is_writable(&self) -> bool {
        self.in_memory || std::fs::metadata(&self.path).is_ok_and(|file| !file.permissions().readonly())
    }

    /// The file's name, for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Says what went wrong, in one line that holds no value.
    pub(super) fn failed(&self, error: sqlx::Error) -> StoreError {
        let name = self.name();
        let refused = |text: String, may_pass| StoreError::Refused { text, may_pass };
        let message = match &error {
            sqlx::Error::Database(database) => one_line(database.message()),
            sqlx::Error::PoolTimedOut => {
                return StoreError::Unreachable(format!("`{name}` is busy: no connection to it came free in time"));
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                return StoreError::Unreachable(format!("the connection to `{name}` is closed"));
            }
            sqlx::Error::Io(error) => return StoreError::Unreachable(format!("`{name}` cannot be reached: {error}")),
            // What cannot be decoded is a value, and a value may be a secret.
            _ => return refused(format!("`{name}` holds something that cannot be read"), false),
        };
        match primary_code(&error) {
            Some(code::BUSY | code::LOCKED) => {
                refused(format!("`{name}` is locked by another process: stop it, or try again later"), true)
            }
            Some(code::READONLY) => {
                refused(format!("`{name}` cannot be written: check the rights on the file and its folder"), false)
            }
            Some(code::FULL) => refused(format!("`{name}` cannot be written: the disk is full"), true),
            Some(code::IOERR) => refused(format!("`{name}` cannot be read or written: {message}"), true),
            Some(code::CORRUPT) => refused(format!("`{name}` is damaged: restore it from a backup"), false),
            Some(code::CANTOPEN) => StoreError::Unreachable(format!(
                "`{name}` cannot be opened: check the rights on the file and its folder"
            )),
            Some(code::NOTADB) => refused(format!("`{name}` is no SQLite database: check `database.url`"), false),
            Some(code::ERROR) => match missing(&message) {
                Some(missing) => StoreError::Missing(format!(
                    "{missing} is missing in `{name}`: check the mapping, or run `perene migrate`"
                )),
                None => refused(format!("`{name}` refused a statement: {message}"), false),
            },
            _ => refused(format!("`{name}` refused a statement: {message}"), false),
        }
    }
}

/// Says at once, in plain words, why a file cannot be opened; makes it where that is wanted.
fn look_at_file(path: &Path, create: bool) -> Result<(), StoreError> {
    let name = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(StoreError::Mapping(format!("`{name}` is no file: check `database.url`"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            // It will hold tokens; SQLite gives its journals the rights of the file itself.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.open(path) {
                Ok(_) => Ok(()),
                // Another process was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(StoreError::Unreachable(format!("`{name}` cannot be made: {error}"))),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Missing(format!(
            "`{name}` does not exist: check `database.url`, or run `perene migrate` to make it"
        ))),
        Err(error) => Err(StoreError::Unreachable(format!("`{name}` cannot be opened: {error}"))),
    }
}

/// SQLite's primary result code, of which the extended ones are finer kinds.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// What the database says about a row that it does not take; `None` if the trouble lies elsewhere.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    match primary_code(error)? {
        code::ERROR | code::CONSTRAINT | code::MISMATCH | code::TOOBIG => {
            Some(one_line(error.as_database_error()?.message()))
        }
        _ => None,
    }
}

/// What is missing, by SQLite's own words: "no such table: main.x", "no such column: t.x".
fn missing(message: &str) -> Option<String> {
    for (words, kind) in [("no such table: ", "table"), ("no such column: ", "column")] {
        if let Some((_, name)) = message.split_once(words) {
            let name = ["main.", "t.", "u."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
            return Some(format!("{kind} `{name}`"));
        }
    }
    None
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
