//! What the catalog says of the mapped tables: where they are, which columns they have, of which types.
//!
//! Read once and kept; read again when a statement fails in a way that a changed table would explain.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::connect::query;
use super::mapped::{Mapped, column_finding, connection_columns, user_columns};
use super::sql::{Key, Kind, ident};
use super::trouble::Trouble;
use crate::config::{Source, TableName};
use crate::store::{Finding, FindingKind, StoreError};

/// A table as the catalog has it.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    /// As the configuration has it.
    pub(super) written: String,
    /// `r` table, `p` partitioned, `v` view, `m` materialised view, `f` foreign.
    pub(super) kind: String,
    pub(super) columns: HashMap<String, Column>,
}

/// A column as the catalog has it; of a domain, what it is made of.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) kind: Kind,
    pub(super) type_name: String,
}

impl Table {
    /// Quoted, with its schema: no `search_path` can make it mean another table.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }

    /// The same for every way in which a configuration may write it.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Looks a table up; `None` if there is none.
pub(super) async fn look_up(connection: &mut PgConnection, table: &TableName) -> Result<Option<Table>, Trouble> {
    if table.name.contains('\0') || table.schema.as_ref().is_some_and(|schema| schema.contains('\0')) {
        return Ok(None);
    }
    let found = query(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
           AND CASE WHEN $2::text IS NULL THEN n.nspname = ANY (current_schemas(false)) ELSE n.nspname = $2 END
         ORDER BY array_position(current_schemas(false), n.nspname) LIMIT 1",
    )
    .bind(&table.name)
    .bind(&table.schema)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let oid: i64 = found.try_get(0)?;
    let columns = query(
        "WITH RECURSIVE base AS (
             SELECT a.attname, t.oid, t.typname, t.typtype, t.typbasetype
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
             SELECT b.attname, t.oid, t.typname, t.typtype, t.typbasetype
             FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
         )
         SELECT attname::text, typname::text, pg_catalog.format_type(oid, -1) FROM base WHERE typtype <> 'd'",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    let columns = columns
        .iter()
        .map(|row| {
            let kind = Kind::of(&row.try_get::<String, _>(1)?);
            Ok((row.try_get(0)?, Column { kind, type_name: row.try_get(2)? }))
        })
        .collect::<Result<_, sqlx::Error>>()?;
    let written = table.to_string();
    Ok(Some(Table {
        oid,
        written,
        schema: found.try_get(1)?,
        name: found.try_get(2)?,
        kind: found.try_get(3)?,
        columns,
    }))
}

/// The text about a table that is not there; it says where one of that name is.
pub(super) async fn missing_table(connection: &mut PgConnection, table: &TableName) -> Result<String, Trouble> {
    let row = query(
        "SELECT array_to_string(current_schemas(false), '`, `'),
                (SELECT min(n.nspname::text) FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v'))",
    )
    .bind(table.name.replace('\0', ""))
    .fetch_one(&mut *connection)
    .await?;
    let searched = table.schema.clone().map_or_else(|| row.try_get::<String, _>(0), Ok)?;
    let name = &table.name;
    Ok(match row.try_get::<Option<String>, _>(1)? {
        Some(elsewhere) => format!(
            "table `{name}` is not in schema `{searched}`, but there is one in schema `{elsewhere}`: set \
             `table = \"{elsewhere}.{name}\"`, or correct `database.url`"
        ),
        None => format!(
            "table `{name}` is missing in schema `{searched}`: it is the app's own; correct the table's name in the \
             configuration, or `database.url`"
        ),
    })
}

/// What a source's statements are made of: quoted names, and what the types ask for.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Under which Perene's own tables know the source.
    pub(super) source: String,
    pub(super) is_meta: bool,
    pub(super) table: String,
    pub(super) id: Key,
    pub(super) user_id: Option<String>,
    pub(super) token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires: Moment,
    pub(super) refreshed: Option<Moment>,
    pub(super) attempts: Option<Count>,
    pub(super) error: Option<String>,
    pub(super) user: Option<UserShape>,
}

/// A column that holds an instant.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) column: String,
    /// `timestamptz`, and not `timestamp` in UTC.
    pub(super) has_zone: bool,
}

/// A column that counts.
#[derive(Debug, Clone)]
pub(super) struct Count {
    pub(super) column: String,
    pub(super) max: i64,
}

/// The users' table.
#[derive(Debug, Clone)]
pub(super) struct UserShape {
    pub(super) table: String,
    /// Under which Perene's own tables know it: the same for all sources whose users it holds.
    pub(super) name: String,
    pub(super) id: Key,
    pub(super) email: String,
    pub(super) username: Option<String>,
    pub(super) flag: Option<String>,
}

impl Moment {
    /// The column of alias `t` as an instant.
    pub(super) fn read(&self) -> String {
        if self.has_zone { format!("t.{}", self.column) } else { format!("(t.{} AT TIME ZONE 'UTC')", self.column) }
    }

    /// An instant in the column's own type: to compare the bare column with, so that its index serves, and
    /// to write.
    pub(super) fn write(&self, instant: &str) -> String {
        if self.has_zone {
            format!("{instant}::timestamptz")
        } else {
            format!("({instant}::timestamptz AT TIME ZONE 'UTC')")
        }
    }
}

impl Shape {
    /// Looks a source's tables up.
    pub(super) async fn read(connection: &mut PgConnection, source: &Source) -> Result<Self, Trouble> {
        let table = found(connection, &source.table).await?;
        check(&table, &connection_columns(source))?;
        let columns = &source.columns;
        let quoted = |name: &Option<String>| name.as_deref().map(ident);
        let user = match &source.user {
            None => None,
            Some(user) => {
                let table = found(connection, &user.table).await?;
                check(&table, &user_columns(source))?;
                Some(UserShape {
                    name: table.full_name(),
                    id: key(&table, &user.id),
                    email: ident(&user.email),
                    username: quoted(&user.username),
                    flag: quoted(&user.show_token_warning),
                    table: table.sql(),
                })
            }
        };
        Ok(Self {
            source: source.table.to_string(),
            is_meta: source.provider == "meta",
            id: key(&table, &columns.id),
            user_id: quoted(&columns.user_id),
            token: ident(&columns.access_token),
            refresh_token: quoted(&columns.refresh_token),
            expires: moment(&table, &columns.token_expires_at),
            refreshed: columns.token_refreshed_at.as_deref().map(|name| moment(&table, name)),
            attempts: columns.refresh_attempts.as_deref().map(|name| count(&table, name)),
            error: quoted(&columns.last_refresh_error),
            user,
            table: table.sql(),
        })
    }
}

async fn found(connection: &mut PgConnection, name: &TableName) -> Result<Table, Trouble> {
    match look_up(connection, name).await? {
        Some(table) => Ok(table),
        None => Err(StoreError::Missing(missing_table(connection, name).await?).into()),
    }
}

fn check(table: &Table, columns: &[Mapped<'_>]) -> Result<(), StoreError> {
    match columns.iter().find_map(|column| column_finding(table, column)) {
        None => Ok(()),
        Some(Finding { kind: FindingKind::BadType, text }) => Err(StoreError::Mapping(text)),
        Some(Finding { text, .. }) => Err(StoreError::Missing(text)),
    }
}

fn key(table: &Table, name: &str) -> Key {
    let column = &table.columns[name];
    Key { column: ident(name), kind: column.kind.clone(), type_name: column.type_name.clone() }
}

fn moment(table: &Table, name: &str) -> Moment {
    Moment { column: ident(name), has_zone: table.columns[name].kind == Kind::Instant }
}

fn count(table: &Table, name: &str) -> Count {
    let max = if let Kind::Int(max) = table.columns[name].kind { max } else { i64::MAX };
    Count { column: ident(name), max }
}
