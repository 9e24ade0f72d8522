//! Adds what is missing to the app's tables, without holding up the app.
//!
//! A column is added under a lock for which Perene waits 50 ms at most, so nobody queues behind it for
//! longer; it is tried again with growing pauses. The index is built `CONCURRENTLY`, which locks out nobody.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::PostgresStore;
use super::connect::query;
use super::mapped::{Mapped, column_finding, connection_columns, user_columns};
use super::schema;
use super::shape::{self, Table, look_up};
use super::sql::ident;
use super::trouble::Trouble;
use crate::config::TableName;
use crate::store::{FindingKind, StoreError};

/// So long in all a table's lock is tried for.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long one try may wait, and hold up others behind it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '50ms'";

/// One thing to be done to an app's table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// All columns of one table, in a transaction, under a short lock.
    Columns { table: String, statements: Vec<String> },
    /// On its own: `CONCURRENTLY` allows no transaction.
    Index { table: i64, statement: String },
}

impl Change {
    fn statements(self) -> Vec<String> {
        match self {
            Self::Columns { statements, .. } => statements,
            Self::Index { statement, .. } => vec![statement],
        }
    }
}

impl PostgresStore {
    pub(super) async fn migration_once(&self) -> Result<Vec<String>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let changes = self.changes(&mut transaction).await?;
        let mut statements = schema::standing(&mut transaction).await?.missing();
        transaction.commit().await?;
        statements.extend(changes.into_iter().flat_map(Change::statements));
        Ok(statements)
    }

    pub(super) async fn migrate_all(&self) -> Result<Vec<String>, Trouble> {
        self.migrate_within(PATIENCE).await
    }

    /// Makes what is missing, trying for each table's lock for as long as `patience`.
    pub(super) async fn migrate_within(&self, patience: Duration) -> Result<Vec<String>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let changes = self.changes(&mut transaction).await?;
        transaction.commit().await?;
        let mut made = schema::make(self).await?;
        for change in changes {
            match &change {
                Change::Columns { table, statements } => self.add_columns(table, statements, patience).await?,
                Change::Index { table, statement } => self.build_index(*table, statement).await?,
            }
            made.extend(change.statements());
        }
        Ok(made)
    }

    /// What is missing in the app's tables. Nothing is done before all of it is known to be possible.
    async fn changes(&self, connection: &mut PgConnection) -> Result<Vec<Change>, Trouble> {
        let mut columns = Vec::new();
        let mut indexes = Vec::new();
        for source in &self.sources {
            let table = add(connection, &source.table, &connection_columns(source), &mut columns).await?;
            let expiry = &source.columns.token_expires_at;
            if can_be_indexed(&table) && !has_index(connection, &table, expiry).await? {
                indexes.extend(index(connection, &table, expiry, &source.columns.id).await?);
            }
            if let Some(user) = &source.user {
                add(connection, &user.table, &user_columns(source), &mut columns).await?;
            }
        }
        columns.dedup();
        columns.extend(indexes);
        Ok(columns)
    }

    async fn add_columns(&self, table: &str, statements: &[String], patience: Duration) -> Result<(), Trouble> {
        let (mut waited, mut pause) = (Duration::ZERO, Duration::from_millis(100));
        loop {
            let mut transaction = self.connections.begin().await?;
            transaction.run(LOCK_TIMEOUT).await?;
            match (*transaction).execute(sqlx::raw_sql(AssertSqlSafe(statements.join("; ")))).await {
                Ok(_) => return transaction.commit().await,
                Err(error) => {
                    let trouble = Trouble::from(error);
                    if !trouble.is_lock_timeout() {
                        return Err(trouble);
                    }
                }
            }
            drop(transaction);
            if waited >= patience {
                return Err(StoreError::Refused {
                    text: format!(
                        "table {table} is kept locked by other transactions: let them end, and run `perene migrate` again"
                    ),
                    may_pass: true,
                }
                .into());
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_secs(3));
        }
    }

    async fn build_index(&self, table: i64, sql: &str) -> Result<(), Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index WHERE relid = $1::bigint::oid)",
        )
        .bind(table)
        .fetch_one(&mut *transaction)
        .await?;
        let is_building = row.try_get(0)?;
        transaction.commit().await?;
        if is_building {
            return Err(StoreError::Refused {
                text: "an index is just being built on the app's table: run `perene migrate` again when it is done"
                    .to_owned(),
                may_pass: true,
            }
            .into());
        }
        let mut connection = self.connections.alone().await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        // Only a courtesy to the server.
        let _ = sqlx::Connection::close(connection).await;
        Ok(())
    }
}

/// Notes the columns that `table` lacks.
async fn add(
    connection: &mut PgConnection,
    name: &TableName,
    columns: &[Mapped<'_>],
    changes: &mut Vec<Change>,
) -> Result<Table, Trouble> {
    let Some(table) = look_up(connection, name).await? else {
        return Err(StoreError::Missing(shape::missing_table(connection, name).await?).into());
    };
    let mut added = Vec::new();
    for column in columns {
        match column_finding(&table, column) {
            None => {}
            Some(finding) if finding.kind == FindingKind::Missing => {
                let type_name = column.added_as.unwrap_or("text");
                let name = ident(column.name);
                added.push(format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {name} {type_name}", table.sql()));
            }
            Some(finding) if finding.kind == FindingKind::BadType => {
                return Err(StoreError::Mapping(finding.text).into());
            }
            Some(finding) => return Err(StoreError::Missing(finding.text).into()),
        }
    }
    if !added.is_empty() {
        changes.push(Change::Columns { table: table.sql(), statements: added });
    }
    Ok(table)
}

/// Whether an index can be made without locking the table: not of a view, and not of a partitioned table.
pub(super) fn can_be_indexed(table: &Table) -> bool {
    table.kind == "r"
}

/// Whether there is an index that finds by `column` what is due.
pub(super) async fn has_index(connection: &mut PgConnection, table: &Table, column: &str) -> Result<bool, Trouble> {
    let row = query(
        "SELECT EXISTS (
             SELECT 1 FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             JOIN pg_catalog.pg_am m ON m.oid = c.relam
             WHERE i.indrelid = $1::bigint::oid AND a.attname = $2 AND m.amname = 'btree'
               AND i.indisvalid AND i.indisready
               AND (i.indpred IS NULL
                    OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))",
    )
    .bind(table.oid)
    .bind(column)
    .fetch_one(&mut *connection)
    .await?;
    Ok(row.try_get(0)?)
}

/// The statements that make the index. Its second column is the key: pages go on at the right row also
/// where a million tokens expire in the same second.
async fn index(connection: &mut PgConnection, table: &Table, expiry: &str, id: &str) -> Result<Vec<Change>, Trouble> {
    let digest = Sha256::digest(format!("{}\0{}\0{expiry}", table.schema, table.name));
    let digits: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("perene_due_{digits}");
    // What a build that failed has left behind is of no use, and in the way.
    let leftover = query(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                        WHERE i.indrelid = $1::bigint::oid AND c.relname = $2 AND NOT i.indisvalid)",
    )
    .bind(table.oid)
    .bind(&name)
    .fetch_one(&mut *connection)
    .await?;
    let mut changes = Vec::new();
    if leftover.try_get(0)? {
        let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {}.{name}", ident(&table.schema));
        changes.push(Change::Index { table: table.oid, statement });
    }
    let statement =
        format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {} ({}, {})", table.sql(), ident(expiry), ident(id));
    changes.push(Change::Index { table: table.oid, statement });
    Ok(changes)
}
