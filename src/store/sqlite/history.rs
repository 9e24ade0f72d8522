//! What happened to each connection, line by line.

use jiff::Timestamp;
use perene_policy::{Event, Outcome};
use serde::Serialize;
use sqlx::{Row, Sqlite, Transaction};

use super::connect::Database;
use super::sql::{Mapped, from_micros, micros};
use crate::store::{HistoryLine, StoreError};

/// A line that is to be written.
#[derive(Serialize)]
pub(super) struct Line<'a>(&'a str, &'a str, i64, &'static str, Option<&'static str>, String);

/// The line of an event.
pub(super) fn line<'a>((source, id): (&'a str, &'a str), now: Timestamp, event: &Event) -> Line<'a> {
    Line(source, id, micros(now), event.kind.name(), event.outcome.map(Outcome::name), event.text.clone())
}

/// The line that says why the database did not take a row.
pub(super) fn refused<'a>((source, id): (&'a str, &'a str), now: Timestamp, text: &str) -> Line<'a> {
    Line(source, id, micros(now), "refused", None, text.to_owned())
}

pub(super) async fn insert(transaction: &mut Transaction<'_, Sqlite>, lines: &[Line<'_>]) -> Result<(), sqlx::Error> {
    if lines.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO perene_history (source, id, at, event, outcome, text)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
         FROM json_each(?) ORDER BY key",
    )
    .bind(super::claim::json(lines))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

pub(super) async fn of(
    database: &Database,
    mapped: &Mapped,
    id: &str,
    limit: usize,
) -> Result<Vec<HistoryLine>, StoreError> {
    let failed = |error| database.failed(error);
    let rows = sqlx::query(
        "SELECT at, event, outcome, text FROM perene_history WHERE source = ? AND id = ? ORDER BY seq DESC LIMIT ?",
    )
    .bind(&mapped.name)
    .bind(id)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *database.read().await?)
    .await
    .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(HistoryLine {
                at: from_micros(row.try_get(0)?),
                event: row.try_get(1)?,
                outcome: row.try_get(2)?,
                text: row.try_get(3)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// Removes what is old: history, settled messages, finished runs, and leases of those who never came back.
pub(super) async fn forget_before(database: &Database, before: Timestamp) -> Result<(), StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    for sql in [
        "DELETE FROM perene_history WHERE at < ?",
        "DELETE FROM perene_outbox WHERE done_at < ?",
        "DELETE FROM perene_run WHERE finished_at < ?",
        "DELETE FROM perene_lease WHERE until < ?",
    ] {
        sqlx::query(sql).bind(micros(before)).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}
