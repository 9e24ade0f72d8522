//! The compare-and-swap on the app's row: one statement that changes it only where it still holds the
//! token that was read.

use perene_policy::{Attempts, Connection, ErrorText, RowWrite, Secret};
use sqlx::{Row, Sqlite, Transaction};

use super::row::{is_compared_in_sql, text_of, token_of};
use super::shape::Shapes;
use super::sql::{Mapped, Statement, push_instant, quoted};
use crate::store::{Commit, Guard};

/// Writes the app's row, if it still holds the token that was read. Returns whether it does.
pub(super) async fn swap(
    transaction: &mut Transaction<'_, Sqlite>,
    mapped: &Mapped,
    shapes: &Shapes,
    commit: &Commit,
) -> Result<bool, sqlx::Error> {
    let Commit { connection, decision, .. } = commit;
    let write = decision.write.as_ref().filter(|write| writes_anything(mapped, write));
    // At a rotating provider it is the refresh token that was sent: where both are mapped, both are compared.
    let in_sql = is_compared_in_sql(connection) && mapped.source.columns.refresh_token.is_none();
    if write.is_none() || !in_sql {
        let is_same = match holds_token(transaction, mapped, shapes, connection).await? {
            Some(is_same) => is_same,
            // The row is gone: forgetting what was remembered of it is right whoever was faster.
            None => decision.write.is_none() && decision.memory.is_none() && matches!(commit.guard, Guard::Memory(_)),
        };
        if !is_same {
            return Ok(false);
        }
    }
    let Some(write) = write else { return Ok(true) };
    let mut statement = Statement::new(format!("UPDATE {} AS t SET ", mapped.table));
    push_assignments(&mut statement, mapped, shapes, write);
    statement.push(format!(" WHERE {} = ", shapes.key)).push_bind(connection.id.clone());
    if in_sql {
        // As bytes: a column's collation may hold unlike tokens for equal.
        statement.push(format!(" AND CAST({} AS BLOB) = CAST(", mapped.token()));
        statement.push_bind(connection.token.expose().to_owned()).push(" AS BLOB)");
    }
    let changed = statement.build().execute(&mut **transaction).await?;
    Ok(changed.rows_affected() > 0)
}

/// Whether the row holds the token that was read; `None` if there is no such row. Inside the transaction
/// that has the write lock nobody can change it after this look.
async fn holds_token(
    transaction: &mut Transaction<'_, Sqlite>,
    mapped: &Mapped,
    shapes: &Shapes,
    connection: &Connection,
) -> Result<Option<bool>, sqlx::Error> {
    let token = mapped.token();
    let refresh = mapped.source.columns.refresh_token.as_deref().map(|name| mapped.column(name));
    let mut statement = Statement::new(format!("SELECT {}, coalesce(octet_length({token}), 0)", token_of(&token)));
    statement.push(format!(", {}", refresh.as_deref().map_or_else(|| "NULL".to_owned(), token_of)));
    statement.push(format!(" FROM {} AS t WHERE {} = ", mapped.table, shapes.key)).push_bind(connection.id.clone());
    let Some(row) = statement.build().fetch_optional(&mut **transaction).await? else { return Ok(None) };
    let bytes: i64 = row.try_get(1)?;
    let is_same = usize::try_from(bytes) == Ok(connection.token_bytes) && text_of(row.try_get(0)?) == connection.token;
    let refresh_held = row.try_get::<Option<Vec<u8>>, _>(2)?.map(|bytes| text_of(Some(bytes)));
    // An empty one is none, as it was when the row was read.
    let given = |token: Option<&Secret>| token.filter(|token| !token.expose().is_empty()).cloned();
    let is_same_refresh = given(refresh_held.as_ref()) == given(connection.refresh_token.as_ref());
    Ok(Some(is_same && (refresh.is_none() || is_same_refresh)))
}

fn writes_anything(mapped: &Mapped, write: &RowWrite) -> bool {
    let columns = &mapped.source.columns;
    write.token.is_some()
        || write.expires_at.is_some()
        || (write.refresh_token.is_some() && columns.refresh_token.is_some())
        || (write.refreshed_at.is_some() && columns.token_refreshed_at.is_some())
        || (write.attempts != Attempts::Keep && columns.refresh_attempts.is_some())
        || (write.error != ErrorText::Keep && columns.last_refresh_error.is_some())
}

fn push_assignments(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, write: &RowWrite) {
    let columns = &mapped.source.columns;
    let mut is_first = true;
    let mut assign = |statement: &mut Statement, column: &str| {
        statement.push(format!("{}{} = ", if is_first { "" } else { ", " }, quoted(column)));
        is_first = false;
    };
    if let Some(token) = &write.token {
        assign(statement, &columns.access_token);
        statement.push_bind(token.expose().to_owned());
    }
    if let (Some(token), Some(column)) = (&write.refresh_token, &columns.refresh_token) {
        assign(statement, column);
        statement.push_bind(token.expose().to_owned());
    }
    if let Some(at) = write.expires_at {
        assign(statement, &columns.token_expires_at);
        push_instant(statement, at, shapes.expires_in_seconds);
    }
    if let (Some(at), Some(column)) = (write.refreshed_at, &columns.token_refreshed_at) {
        assign(statement, column);
        push_instant(statement, at, shapes.refreshed_in_seconds);
    }
    if let Some(column) = &columns.refresh_attempts {
        match write.attempts {
            Attempts::Keep => {}
            Attempts::Zero => {
                assign(statement, column);
                statement.push("0");
            }
            Attempts::AddOne => {
                assign(statement, column);
                statement.push(format!("max(coalesce(CAST({} AS INTEGER), 0), 0) + 1", mapped.column(column)));
            }
        }
    }
    if let Some(column) = &columns.last_refresh_error {
        match &write.error {
            ErrorText::Keep => {}
            ErrorText::Clear => {
                assign(statement, column);
                statement.push("NULL");
            }
            ErrorText::Set(text) => {
                assign(statement, column);
                statement.push_bind(text.clone());
            }
        }
    }
}
