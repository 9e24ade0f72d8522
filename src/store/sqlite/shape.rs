//! How the app has declared its tables: kinds of columns, strictness, indexes.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::sql::Mapped;
use crate::config::TableName;

/// How SQLite treats the values of a column. <https://sqlite.org/datatype3.html#determination_of_column_affinity>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    /// The declared type, in capitals.
    pub(super) kind: String,
    pub(super) is_generated: bool,
}

/// One table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) is_view: bool,
    pub(super) is_strict: bool,
    columns: Vec<Column>,
}

impl Column {
    pub(super) fn affinity(&self) -> Affinity {
        let has = |parts: &[&str]| parts.iter().any(|part| self.kind.contains(part));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if has(&["BLOB"]) || self.kind.is_empty() {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

impl Shape {
    /// How a table is declared; `None` if there is no such table.
    pub(super) async fn of(connection: &mut SqliteConnection, table: &TableName) -> Result<Option<Self>, sqlx::Error> {
        let schema = table.schema.as_deref().unwrap_or("main");
        let found = sqlx::query(
            "SELECT type, strict FROM pragma_table_list WHERE name = ? COLLATE NOCASE AND schema = ? COLLATE NOCASE",
        )
        .bind(&table.name)
        .bind(schema)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let columns = sqlx::query("SELECT name, type, hidden FROM pragma_table_xinfo(?, ?)")
            .bind(&table.name)
            .bind(schema)
            .fetch_all(connection)
            .await?;
        let column = |row: &SqliteRow| -> Result<Column, sqlx::Error> {
            let hidden: i64 = row.try_get(2)?;
            let kind: String = row.try_get(1)?;
            // 2 and 3 mark generated columns.
            Ok(Column { name: row.try_get(0)?, kind: kind.to_uppercase(), is_generated: hidden >= 2 })
        };
        Ok(Some(Self {
            is_view: found.try_get::<String, _>(0)? == "view",
            is_strict: found.try_get::<i64, _>(1)? != 0,
            columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        }))
    }

    /// A column by its name, of which SQLite minds no capitals.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether a timestamp column takes numbers only.
    pub(super) fn takes_seconds(&self, name: &str) -> bool {
        self.is_strict
            && self.column(name).is_some_and(|column| matches!(column.affinity(), Affinity::Integer | Affinity::Real))
    }

    /// An expression for a key column that can be compared with a key as text. An untyped column may hold
    /// numbers, which no text equals: there the index is given up for the right answer.
    pub(super) fn key(&self, alias: &str, name: &str) -> String {
        let column = format!("{alias}.{}", super::sql::quoted(name));
        match self.column(name).map(Column::affinity) {
            Some(Affinity::Integer | Affinity::Text | Affinity::Numeric) | None => column,
            Some(Affinity::Blob | Affinity::Real) => format!("CAST({column} AS TEXT)"),
        }
    }
}

/// How a source's tables are declared. A table that is missing shows itself at the statement that needs it.
pub(super) struct Shapes {
    /// The key column of the connections, for comparing: `t."id"`.
    pub(super) key: String,
    /// The key column of the users, for comparing: `u."id"`.
    pub(super) user_key: Option<String>,
    pub(super) expires_in_seconds: bool,
    pub(super) refreshed_in_seconds: bool,
}

impl Shapes {
    pub(super) async fn of(connection: &mut SqliteConnection, mapped: &Mapped) -> Result<Self, sqlx::Error> {
        let columns = &mapped.source.columns;
        let empty = || Shape { is_view: false, is_strict: false, columns: Vec::new() };
        let shape = Shape::of(&mut *connection, &mapped.source.table).await?.unwrap_or_else(empty);
        let user_key = match &mapped.source.user {
            Some(user) => Some(Shape::of(connection, &user.table).await?.unwrap_or_else(empty).key("u", &user.id)),
            None => None,
        };
        Ok(Self {
            key: shape.key("t", &columns.id),
            user_key,
            expires_in_seconds: shape.takes_seconds(&columns.token_expires_at),
            refreshed_in_seconds: columns.token_refreshed_at.as_ref().is_some_and(|name| shape.takes_seconds(name)),
        })
    }
}

/// Whether an index over the whole table begins with this column.
pub(super) async fn has_index(
    connection: &mut SqliteConnection,
    table: &TableName,
    column: &str,
) -> Result<bool, sqlx::Error> {
    let schema = table.schema.as_deref().unwrap_or("main");
    let found = sqlx::query(
        "SELECT 1 FROM pragma_index_list(?, ?) AS l, pragma_index_info(l.name, ?) AS i
         WHERE l.partial = 0 AND i.seqno = 0 AND i.name = ? COLLATE NOCASE",
    )
    .bind(&table.name)
    .bind(schema)
    .bind(schema)
    .bind(column)
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}
