//! Adds to the app's tables what is missing, and Perene's own tables.
//!
//! All in one transaction under the write lock, and looked at again inside it: two that migrate at once add
//! nothing twice. Adding a column changes only the table's declaration. Making the index reads the whole
//! table, and other writers wait for so long (about a second for a million rows): SQLite has no other way.

use sqlx::SqliteConnection;

use super::connect::Database;
use super::findings::{self, Look};
use super::schema;
use super::shape::has_index;
use super::sql::{Mapped, quoted, table};
use crate::config::TableName;
use crate::store::{FindingKind, StoreError};

/// A column that `migrate` adds: its name, its type, and its type in a STRICT table.
pub(super) struct Added<'a> {
    pub(super) name: &'a str,
    kind: &'static str,
    strict_kind: &'static str,
}

pub(super) async fn plan(database: &Database, sources: &[Mapped]) -> Result<Vec<String>, StoreError> {
    statements(&mut *database.read().await?, database, sources).await
}

pub(super) async fn migrate(database: &Database, sources: &[Mapped]) -> Result<Vec<String>, StoreError> {
    // Where nothing is missing, no lock is taken.
    if plan(database, sources).await?.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    let statements = statements(&mut transaction, database, sources).await?;
    for sql in &statements {
        sqlx::query(sqlx::AssertSqlSafe(sql.as_str())).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(statements)
}

async fn statements(
    connection: &mut SqliteConnection,
    database: &Database,
    sources: &[Mapped],
) -> Result<Vec<String>, StoreError> {
    let failed = |error| database.failed(error);
    let own = schema::missing(&mut *connection, database).await?;
    let look = Look::at(&mut *connection, sources).await.map_err(failed)?;
    let mut statements: Vec<String> = Vec::new();
    if look.is_empty() {
        statements.extend(make_tables(sources));
    } else {
        let found = findings::of_tables(database, sources, &look);
        let stopping = |kind| found.iter().find(|finding| finding.kind == kind).map(|finding| finding.text.clone());
        if let Some(text) = stopping(FindingKind::MissingTable).or_else(|| stopping(FindingKind::MissingOwn)) {
            return Err(StoreError::Missing(text));
        }
        if let Some(text) = stopping(FindingKind::BadType) {
            return Err(StoreError::Mapping(text));
        }
        for (name, shape) in look.tables() {
            let mut added: Vec<Added<'_>> = sources.iter().flat_map(|mapped| added_to(mapped, name)).collect();
            added.dedup_by(|a, b| a.name.eq_ignore_ascii_case(b.name));
            for column in added.iter().filter(|column| shape.column(column.name).is_none()) {
                let kind = if shape.is_strict { column.strict_kind } else { column.kind };
                let sql = format!("ALTER TABLE {} ADD COLUMN {} {kind}", table(name), quoted(column.name));
                if !statements.contains(&sql) {
                    statements.push(sql);
                }
            }
        }
    }
    for mapped in sources {
        let column = &mapped.source.columns.token_expires_at;
        if look.is_empty() || !has_index(&mut *connection, &mapped.source.table, column).await.map_err(failed)? {
            let sql = make_index(mapped);
            if !statements.contains(&sql) {
                statements.push(sql);
            }
        }
    }
    statements.extend(own.iter().map(|sql| (*sql).to_owned()));
    Ok(statements)
}

/// What a source needs added to this table, if it is one of its own.
pub(super) fn added_to<'a>(mapped: &'a Mapped, name: &TableName) -> Vec<Added<'a>> {
    let columns = &mapped.source.columns;
    let timestamp = |name: &'a str| Added { name, kind: "TIMESTAMP", strict_kind: "TEXT" };
    let mut added = Vec::new();
    if mapped.source.table == *name {
        added.push(timestamp(&columns.token_expires_at));
        added.extend(columns.token_refreshed_at.as_deref().map(timestamp));
        added.extend(columns.refresh_attempts.as_deref().map(|name| Added {
            name,
            kind: "INTEGER DEFAULT 0",
            strict_kind: "INTEGER DEFAULT 0",
        }));
        added.extend(columns.last_refresh_error.as_deref().map(|name| Added {
            name,
            kind: "TEXT",
            strict_kind: "TEXT",
        }));
    }
    if let Some((_, flag)) = mapped.flagged_users().filter(|(user, _)| user.table == *name) {
        added.push(Added { name: flag, kind: "BOOLEAN DEFAULT FALSE", strict_kind: "INTEGER DEFAULT FALSE" });
    }
    added
}

/// In a file that has none of the tables, all are made.
fn make_tables(sources: &[Mapped]) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    let mut make = |name: &TableName, own: Vec<String>, mapped: &Mapped| {
        let added = added_to(mapped, name).into_iter().map(|column| format!("{} {}", quoted(column.name), column.kind));
        let columns: Vec<String> = own.into_iter().chain(added).collect();
        statements.push(format!("CREATE TABLE IF NOT EXISTS {} ({})", table(name), columns.join(", ")));
    };
    for mapped in sources {
        if let Some(user) = &mapped.source.user {
            let mut own =
                vec![format!("{} INTEGER PRIMARY KEY", quoted(&user.id)), format!("{} TEXT", quoted(&user.email))];
            own.extend(user.username.as_deref().map(|name| format!("{} TEXT", quoted(name))));
            make(&user.table, own, mapped);
        }
        let columns = &mapped.source.columns;
        let mut own = vec![format!("{} INTEGER PRIMARY KEY", quoted(&columns.id))];
        own.extend(columns.user_id.as_deref().map(|name| format!("{} INTEGER", quoted(name))));
        own.push(format!("{} TEXT", quoted(&columns.access_token)));
        own.extend(columns.refresh_token.as_deref().map(|name| format!("{} TEXT", quoted(name))));
        make(&mapped.source.table, own, mapped);
    }
    let mut seen = Vec::new();
    statements.retain(|sql| {
        !seen.contains(sql) && {
            seen.push(sql.clone());
            true
        }
    });
    statements
}

fn make_index(mapped: &Mapped) -> String {
    let TableName { schema, name } = &mapped.source.table;
    let column = &mapped.source.columns.token_expires_at;
    let index = quoted(&format!("perene_due_{name}_{column}"));
    let index = schema.as_ref().map_or_else(|| index.clone(), |schema| format!("{}.{index}", quoted(schema)));
    format!("CREATE INDEX IF NOT EXISTS {index} ON {} ({})", quoted(name), quoted(column))
}
