//! Connections: what a URL asks for, a small pool, and transactions that rely on no session.
//!
//! Everything goes through a transaction whose first message also sets its limits (`SET LOCAL`), and no
//! statement is kept prepared. So it works through pgbouncer in transaction mode, where the next
//! transaction may meet another server process, and where a statement that is prepared outside of a
//! transaction may be looked for in vain. Preparing anew costs one round trip for some hundred rows.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::time::Duration;

use perene_policy::Secret;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Postgres};

use super::trouble::{Place, Trouble};
use crate::store::StoreError;

/// So many connections at most. A run needs two or three; the rest is for reads beside it.
const CONNECTIONS_MAX: u32 = 5;

/// So long a connection is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// So long the end of a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Parameters of the URL that sqlx reads. Others (`pgbouncer`, `schema`, …) are for other programs.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// The limits of every transaction. What was confirmed must outlive a crash: a generation of which the database has
/// forgotten that it was sent would be sent again. Whoever has chosen more than that keeps it.
/// Notices are off: an app's trigger may put anything into them.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL TimeZone = 'UTC'; \
    SET LOCAL client_min_messages = 'error'; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// Ways to the database.
pub(super) struct Connections {
    pool: PgPool,
    options: PgConnectOptions,
    pub(super) place: Place,
}

impl Connections {
    /// Reads the URL and connects once, so that a wrong one is told at once and exactly.
    pub(super) async fn open(url: &Secret) -> Result<Self, StoreError> {
        let options = options(url)?;
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let user = options.get_username().to_owned();
        let database = options.get_database().unwrap_or(&user).to_owned();
        let place = Place { server, user, database };
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(Duration::from_mins(5))
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let connections = Self { pool, options, place };
        connections.try_once().await?;
        Ok(connections)
    }

    /// Connects once beside the pool: the pool hides why it could not connect.
    async fn try_once(&self) -> Result<(), StoreError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options));
        match connecting.await {
            Ok(Ok(connection)) => {
                // Only a courtesy to the server: what goes wrong here concerns nobody.
                let _ = connection.close().await;
                Ok(())
            }
            Ok(Err(error)) => Err(self.place.tell(error.into())),
            Err(_) => Err(self.place.tell(Trouble::Sql(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))),
        }
    }

    /// A connection of its own, for what cannot stand in a transaction.
    pub(super) async fn alone(&self) -> Result<PgConnection, Trouble> {
        Ok(PgConnection::connect_with(&self.options).await?)
    }

    /// Begins a transaction. Connections that died while they were idle are thrown away until one lives,
    /// so a database that was restarted costs no call.
    pub(super) async fn begin(&self) -> Result<Transaction, Trouble> {
        let mut dead = 0;
        loop {
            let connection = match self.pool.acquire().await {
                Ok(connection) => connection,
                Err(sqlx::Error::PoolTimedOut) => {
                    self.try_once().await?;
                    return Err(sqlx::Error::PoolTimedOut.into());
                }
                Err(error) => return Err(error.into()),
            };
            let mut transaction = Transaction(Some(connection));
            match transaction.run(BEGIN).await {
                Ok(()) => return Ok(transaction),
                Err(trouble) if trouble.is_lost_connection() && dead < CONNECTIONS_MAX => dead += 1,
                Err(trouble) => return Err(trouble),
            }
        }
    }

    pub(super) async fn close(&self) {
        // To take leave is a courtesy: from a database that does not answer, nobody waits for it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
    }
}

/// A transaction. Dropped without a commit it takes its connection with it, and the server rolls back when
/// it sees the connection gone: nothing that failed or was given up in the middle comes back to the pool.
pub(super) struct Transaction(Option<PoolConnection<Postgres>>);

impl Transaction {
    /// Commits.
    pub(super) async fn commit(mut self) -> Result<(), Trouble> {
        self.run("COMMIT").await?;
        drop(self.0.take());
        Ok(())
    }

    /// Runs statements that have no parameters.
    pub(super) async fn run(&mut self, sql: &'static str) -> Result<(), Trouble> {
        (**self).execute(sqlx::raw_sql(sql)).await?;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("only `commit` and `drop` take the connection")
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("only `commit` and `drop` take the connection")
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// A statement, not kept prepared. The text holds quoted names and fixed words; values are bound.
pub(super) fn query<'q>(sql: impl Into<String>) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql.into())).persistent(false)
}

/// What the URL asks for.
fn options(url: &Secret) -> Result<PgConnectOptions, StoreError> {
    let wrong = || {
        StoreError::Mapping(
            "`database.url` cannot be read: write `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`, \
             with special characters percent-encoded"
                .to_owned(),
        )
    };
    let mut parsed = url::Url::parse(url.expose()).map_err(|_| wrong())?;
    let mut known: Vec<(String, String)> = Vec::new();
    for (name, value) in parsed.query_pairs() {
        if PARAMETERS.contains(&name.as_ref()) || name.starts_with("options[") {
            known.push((name.into_owned(), value.into_owned()));
        } else {
            // sqlx would log the value as well.
            tracing::warn!("parameter `{}` of `database.url` is not known and is ignored", name.escape_debug());
        }
    }
    parsed.set_query(None);
    if !known.is_empty() {
        parsed.query_pairs_mut().extend_pairs(&known);
    }
    let options = PgConnectOptions::from_str(parsed.as_str()).map_err(|_| wrong())?;
    let options = if known.iter().any(|(name, _)| name == "application_name") {
        options
    } else {
        options.application_name("perene")
    };
    // pgbouncer refuses a start-up parameter that it does not track, and no float is ever read.
    Ok(options.extra_float_digits(None).statement_cache_capacity(0).disable_statement_logging())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_programs_want_of_the_url_is_ignored() {
        let url = Secret::new("postgres://me:pw@db.example:6432/app?pgbouncer=true&sslmode=require&schema=x");
        let options = options(&url).unwrap();
        assert_eq!((options.get_host(), options.get_port(), options.get_database()), ("db.example", 6432, Some("app")));
        assert_eq!(options.get_application_name(), Some("perene"));
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_repeated() {
        let error = options(&Secret::new("postgres://me:hunter2@[bad/app")).unwrap_err();
        assert!(error.is_wrong_use());
        assert!(!error.to_string().contains("hunter2"));
        let error = options(&Secret::new("postgres://me:hunter2@h/app?sslmode=hunter2")).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
